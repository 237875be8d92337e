// Command evil is the program that the tests of package sandbox run: each
// argument is one way to behave, good or bad.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// main is long because it is one list: a case for each way to behave.
func main() {
	runtime.LockOSThread() // what belongs to a thread is that of the first
	arg := func(i int) string {
		if i < len(os.Args) {
			return os.Args[i]
		}
		return ""
	}
	number := func(i int) int {
		n, err := strconv.Atoi(arg(i))
		check(err)
		return n
	}
	switch arg(1) {
	case "exit":
		os.Exit(number(2))
	case "look":
		look()
	case "echo":
		fmt.Print(strings.Join(os.Args[2:], "\n"))
	case "output":
		appendOutput(strings.Join(os.Args[2:], "\n") + "\n")
	case "raw-output":
		appendOutput(strings.Join(os.Args[2:], "\n"))
	case "ignore-term":
		signal.Ignore(syscall.SIGTERM)
		ready()
		forever()
	case "handle-term":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		ready()
		<-c
		fmt.Println("terminated")
		os.Exit(number(2))
	case "scorn-term":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		ready()
		<-c
		fmt.Println("told")
		forever()
	case "wait":
		ready()
		forever()
	case "tree":
		tree(number(2))
	case "fork-once":
		check(again("forever").Start())
	case "forever":
		forever()
	case "daemon":
		daemon()
	case "daemon-and-ignore":
		daemon()
		signal.Ignore(syscall.SIGTERM)
		ready()
		forever()
	case "kill-init":
		daemon()
		ready()
		check(syscall.Kill(os.Getppid(), syscall.SIGKILL))
		forever()
	case "stop-init":
		daemon()
		check(syscall.Kill(os.Getppid(), syscall.SIGSTOP))
		ready()
		forever()
	case "limit-init":
		var had syscall.Rlimit
		parent := uintptr(os.Getppid())
		_, _, e := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, parent, syscall.RLIMIT_NOFILE, 0, uintptr(unsafe.Pointer(&had)), 0, 0)
		if e == 0 {
			had.Cur -= 7
			_, _, e = syscall.RawSyscall6(syscall.SYS_PRLIMIT64, parent, syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&had)), 0, 0, 0)
		}
		if e != 0 {
			check(e)
		}
	case "slow-init": // every thread of it, of which one forks
		tasks, err := os.ReadDir("/proc/" + strconv.Itoa(os.Getppid()) + "/task")
		check(err)
		now, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0) // of the kernel: 20 - nice
		check(err)
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			check(err)
			check(syscall.Setpriority(syscall.PRIO_PROCESS, tid, 20-now+5))
		}
	case "peek-init":
		peekInit()
	case "replace-output":
		replaceOutput(arg(2))
	case "grow-output":
		appendOutput(strings.Repeat("x", number(2)))
		if arg(3) == "wait" {
			forever()
		}
	case "flood":
		flood(number(2), number(3))
	case "flood-both":
		done := make(chan bool)
		for _, f := range []*os.File{os.Stdout, os.Stderr} {
			go func() {
				for i := range number(2) {
					fmt.Fprintln(f, "line", i)
				}
				done <- true
			}()
		}
		<-done
		<-done
	case "close":
		os.Stdout.Close()
		os.Stderr.Close()
		appendOutput(`{"output":{"after":true}}` + "\n")
	case "artifacts":
		artifacts()
	case "fill":
		fill(number(2))
		if arg(3) == "wait" {
			forever()
		}
	case "big-file":
		bigFile(number(2))
	case "spin":
		for {
		}
	case "hog":
		hog(number(2))
	case "write-self":
		writeSelf()
	case "progress":
		check(syscall.Mkfifo("go-on", 0o644))
		appendOutput(`{"progress":0.25,"message":"a quarter"}` + "\n")
		_, err := os.Open("go-on") // waits until the test opens it, too
		check(err)
		appendOutput(`{"progress":1}` + "\n" + `{"output":{"done":true}}` + "\n")
	case "write-work":
		check(os.WriteFile("marker", []byte("x"), 0o644))
	default:
		fmt.Fprintf(os.Stderr, "evil: unknown behaviour %q\n", os.Args)
		os.Exit(64)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "evil:", err)
		os.Exit(99)
	}
}

func forever() {
	for {
		syscall.Pause()
	}
}

// ready tells the test, by a line of output, that the program has come as far
// as the test waits for.
func ready() { fmt.Println("ready", os.Getpid()) }

func appendOutput(s string) {
	f, err := os.OpenFile(os.Getenv("STELLA_OUTPUT"), os.O_WRONLY|os.O_APPEND, 0)
	check(err)
	_, err = f.WriteString(s)
	check(err)
	check(f.Close())
}

// look prints what the program finds around itself.
func look() {
	for _, v := range os.Environ() {
		fmt.Println("env", v)
	}
	wd, err := os.Getwd()
	check(err)
	fmt.Println("cwd", wd)
	fmt.Println("argv0", os.Args[0])
	names, err := os.ReadDir("/proc/self/fd")
	check(err)
	for _, n := range names {
		target, err := os.Readlink("/proc/self/fd/" + n.Name())
		// Not what the Go runtime itself has opened, nor the listing.
		own := strings.HasPrefix(target, "anon_inode:[event") || strings.HasPrefix(target, "/sys/fs/cgroup/")
		if err == nil && !own {
			fmt.Println("fd", n.Name())
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	check(err)
	for _, key := range []string{"SigIgn", "SigBlk", "Umask"} {
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, key+":") {
				fmt.Println(strings.Join(strings.Fields(line), " "))
			}
		}
	}
	for _, fd := range []int{0, 1, 2} {
		flags, _, _ := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
		fmt.Println("nonblock", fd, flags&syscall.O_NONBLOCK != 0)
	}
	var pdeathsig int32
	syscall.Syscall(syscall.SYS_PRCTL, syscall.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&pdeathsig)), 0)
	fmt.Println("pdeathsig", pdeathsig)
	sid, _, _ := syscall.Syscall(syscall.SYS_GETSID, 0, 0, 0)
	fmt.Println("leader", int(sid) == os.Getpid())
	limits()
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadString(0)
	fmt.Println("stdin", line, err)
}

func limits() {
	for name, r := range map[string]int{"core": syscall.RLIMIT_CORE, "data": syscall.RLIMIT_DATA, "fsize": syscall.RLIMIT_FSIZE} {
		var l syscall.Rlimit
		check(syscall.Getrlimit(r, &l))
		fmt.Println("limit", name, l.Cur, l.Max)
	}
}

// tree starts n processes in sessions of their own, which start one each, and
// ends.
func tree(n int) {
	for range n {
		daemon()
	}
}

// daemon leaves a process behind that holds stdout and stderr, has left the
// session, and whose parent is gone.
func daemon() { check(again("fork-once").Run()) }

// again is this program once more, in a session of its own.
func again(how string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", how)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return c
}

// peekInit tries to read the memory and the descriptors of the init process,
// and to trace it.
func peekInit() {
	init := "/proc/" + strconv.Itoa(os.Getppid())
	_, err := os.ReadFile(init + "/environ")
	fmt.Println("environ", err != nil)
	_, err = os.OpenFile(init+"/mem", os.O_RDWR, 0)
	fmt.Println("mem", err != nil)
	_, err = os.ReadDir(init + "/fd")
	fmt.Println("fd", err != nil)
	fmt.Println("ptrace", syscall.PtraceAttach(os.Getppid()) != nil)
}

func replaceOutput(how string) {
	path := os.Getenv("STELLA_OUTPUT")
	check(os.Remove(path))
	switch how {
	case "file":
		check(os.WriteFile(path, []byte(`{"output":{"forged":1}}`+"\n"), 0o644))
	case "link":
		check(os.Symlink("/etc/passwd", path))
	case "fifo":
		check(syscall.Mkfifo(path, 0o644))
	}
}

// flood writes n bytes to stdout, in lines of the given length; 0: one line.
func flood(n, line int) {
	buf := []byte(strings.Repeat("y", 1<<16))
	if line > 0 {
		for i := line - 1; i < len(buf); i += line {
			buf[i] = '\n'
		}
	}
	for n > 0 {
		m, err := os.Stdout.Write(buf[:min(n, len(buf))])
		check(err)
		n -= m
	}
}

// artifacts makes one file of every kind and announces each.
func artifacts() {
	check(os.Chdir(os.Getenv("STELLA_ARTIFACTS")))
	check(os.Mkdir("dir", 0o755))
	check(os.WriteFile("dir/good", []byte("good"), 0o644))
	check(os.WriteFile("twice", []byte("two names"), 0o644))
	check(os.Link("twice", "twice-again"))
	check(os.Symlink("/etc/passwd", "link-out"))
	check(os.Symlink("dir/good", "link-in"))
	check(os.Symlink("dir", "link-dir"))
	check(syscall.Mkfifo("fifo", 0o644))
	check(os.WriteFile("sparse", nil, 0o644))
	check(os.Truncate("sparse", 1<<40))
	for _, name := range []string{"dir/good", "twice", "link-out", "link-in", "link-dir/good", "fifo", "dir", "absent", "sparse"} {
		appendOutput(fmt.Sprintf("{\"artifact\":{\"name\":%q}}\n", name))
	}
}

// fill writes n bytes to the workspace in files of 64 KiB.
func fill(n int) {
	for i := 0; n > 0; i++ {
		check(os.WriteFile(fmt.Sprintf("f%d", i), make([]byte, 1<<16), 0o644))
		n -= 1 << 16
	}
}

// bigFile dies by SIGXFSZ where the limit stands.
func bigFile(n int) {
	f, err := os.Create("big")
	check(err)
	for range n >> 16 {
		if _, err := f.Write(make([]byte, 1<<16)); err != nil {
			// A Go program gets the error; one in C would be dead already.
			fmt.Println(err)
			os.Exit(3)
		}
	}
}

// hog maps and touches n bytes.
func hog(n int) {
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
	fmt.Println("got", n)
}

// writeSelf tries to change the program that runs.
func writeSelf() {
	_, err := os.OpenFile("/proc/self/exe", os.O_WRONLY, 0)
	fmt.Println("open", err != nil)
	f, err := os.Open("/proc/self/exe")
	check(err)
	seals, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), 1034, 0) // F_GET_SEALS
	fmt.Println("seals", errno == 0 && seals&0xf == 0xf)
}
