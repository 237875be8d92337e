package initproc

import (
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"
)

// A Process is one line of /proc/PID/stat, as far as it is needed here.
type Process struct {
	PID, Parent, Session int
	State                byte   // R, S, D, Z, …
	Start                uint64 // in clock ticks since boot; with PID it names one process
}

// process names one process for good; a PID alone can be given out again.
type process struct {
	pid   int
	start uint64
}

// Processes lists every process that /proc shows. One that ends meanwhile is
// left out.
func Processes() ([]Process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	list := make([]Process, 0, 128)
	for _, name := range names {
		pid := int(leading([]byte(name)))
		if pid == 0 {
			continue
		}
		if p, err := readProc(pid); err == nil {
			list = append(list, p)
		}
	}
	return list, nil
}

// readProc reads /proc/PID/stat (proc_pid_stat(5)).
func readProc(pid int) (Process, error) {
	fd, err := syscall.Open("/proc/"+decimal(pid)+"/stat", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return Process{}, err
	}
	defer syscall.Close(fd)
	var buf [1024]byte // at most 52 numbers and a name of 64 bytes
	n, err := syscall.Read(fd, buf[:])
	if err != nil {
		return Process{}, err
	}
	p, ok := parseStat(buf[:n])
	if !ok {
		return Process{}, syscall.EINVAL
	}
	return p, nil
}

// parseStat reads the fields behind the name, which may itself hold spaces and
// brackets.
func parseStat(b []byte) (Process, bool) {
	p := Process{PID: int(leading(b))}
	end := len(b) - 1
	for end >= 0 && b[end] != ')' {
		end--
	}
	if end < 0 || p.PID == 0 {
		return Process{}, false
	}
	// Fields are counted as in the manual page: the name is the second.
	field, b := 2, b[end+1:]
	for len(b) > 0 {
		if b[0] != ' ' {
			return Process{}, false
		}
		b = b[1:]
		field++
		switch {
		case field == 3 && len(b) > 0:
			p.State = b[0]
		case field == 4:
			p.Parent = int(leading(b))
		case field == 6:
			p.Session = int(leading(b))
		case field == 22:
			p.Start = leading(b)
			return p, true
		}
		for len(b) > 0 && b[0] != ' ' {
			b = b[1:]
		}
	}
	return Process{}, false
}

// descendants lists the living processes below root, children first.
func descendants(root int) []Process {
	all, err := Processes()
	if err != nil {
		return nil
	}
	children := make(map[int][]Process)
	for _, p := range all {
		children[p.Parent] = append(children[p.Parent], p)
	}
	var tree []Process
	queue := []int{root}
	for len(queue) > 0 {
		next := children[queue[0]]
		queue = queue[1:]
		for _, p := range next {
			queue = append(queue, p.PID)
			if p.State != 'Z' && p.State != 'X' {
				tree = append(tree, p)
			}
		}
	}
	return tree
}

// pidfd calls; their numbers are the same on every architecture.
const (
	sysPidfdSendSignal = 424
	sysPidfdOpen       = 434
)

// signalProcess sends sig to exactly p and says whether it was there. It goes
// through a pidfd, so that a PID given out again in between is not hit.
func signalProcess(p Process, sig syscall.Signal) bool {
	fd, _, e := syscall.Syscall(sysPidfdOpen, uintptr(p.PID), 0, 0)
	if e == syscall.ENOSYS || e == syscall.EPERM { // Linux before 5.3, or filtered
		return syscall.Kill(p.PID, sig) == nil
	}
	if e != 0 {
		return false
	}
	defer syscall.Close(int(fd))
	now, err := readProc(p.PID)
	if err != nil || now.Start != p.Start {
		return false
	}
	_, _, e = syscall.Syscall6(sysPidfdSendSignal, fd, uintptr(sig), 0, 0, 0, 0)
	return e == 0
}

// Kill sends SIGKILL to exactly p, which [Processes] returned, and says
// whether it was there.
func Kill(p Process) bool { return signalProcess(p, syscall.SIGKILL) }

// unblockSignals gives the calling thread, and what it forks, an empty signal
// mask, whatever stella's own parent had blocked.
func unblockSignals() {
	const sigSetmask = 2
	var set uint64
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetmask, uintptr(unsafe.Pointer(&set)), 0, 8, 0, 0)
}

// ignoreSignals makes this process deaf to the signals that a program may be
// sent together with everything around it: it stays until the program has ended,
// and what ends an attempt early comes as a command. In the program each is back
// at its default, even where stella's own parent had it ignored: in a child the
// runtime resets those that it has handled, and knows nothing of what is done
// to them here.
func ignoreSignals() {
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) { // at the start; then the runtime does not handle it
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT,
		syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2} {
		setAction(sig, sigIgnore)
	}
	// Those that the runtime leaves alone: of job control, and the two that C
	// libraries keep for their threads.
	for _, sig := range []syscall.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU,
		syscall.SIGCONT, 32, 33} {
		setAction(sig, sigDefault)
	}
}

// Dispositions of the kernel's rt_sigaction.
const (
	sigDefault = 0
	sigIgnore  = 1
)

func setAction(sig syscall.Signal, handler uint64) {
	act := [4]uint64{handler} // struct sigaction of the kernel: handler, flags, restorer, mask
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
}

// A pollFD is struct pollfd of poll(2).
type pollFD struct {
	fd              int32
	events, revents int16
}

const pollIn = 1

// poll waits until one of fds has something to read or has ended, or for so long.
func poll(fds []pollFD, wait time.Duration) {
	for i := range fds {
		fds[i].revents = 0
	}
	ts := syscall.NsecToTimespec(int64(wait))
	syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)),
		uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
}
