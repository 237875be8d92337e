package simtest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// supervisor lets a program run whose calls that change a folder wait until we say how they end,
// by way of seccomp(2): what strace(1) does with inject=. strace counts calls per thread,
// and Go moves a goroutine between threads, so that its when=N leaves calls out. Here one
// reader counts the calls of all threads in the order in which they are made.
type supervisor struct {
	dir    string // of which calls are counted; a real path without links
	decide func(c call) answer
	under  []string // a tracer, which must leave the program our child; nil for none
	calls  []call
}

// call is one that changes the folder, or makes a change durable.
type call struct {
	n     int    // from 1
	name  string // of the system call
	path  string // below the folder; "" is the folder itself
	there bool   // before the call
}

func (c call) String() string { return fmt.Sprintf("%s %s, call %d", c.name, c.path, c.n) }

// answer is how a call ends. Its zero value lets the kernel make it.
type answer struct {
	errno syscall.Errno // it fails, and nothing is done
	lasts bool          // so do all that come after it and need space
	kill  bool          // the program is killed before it is made
	lie   bool          // it succeeds, and nothing is done
}

// What the launcher is told by its environment.
const envGate = "STELLA_SIM_GATE"

// hangs is how long nothing happens to a program that will never end.
const hangs = time.Minute

// where says which arguments of a system call name what it changes.
type where struct {
	name string
	fd   int // argument with the descriptor, or the folder that a path begins in; -1 for none
	path int // argument with a path; -1 for none
	open int // argument with the flags of an open, which counts if it can write; -1 for none
	size int // argument that says how much was written when it succeeded; -1 for none
}

// gated are the calls that change files or make them durable, by their numbers.
var gated = func() map[uint32]where {
	all := map[uint32]where{
		unix.SYS_OPENAT:          {"openat", 0, 1, 2, -1},
		unix.SYS_WRITE:           {"write", 0, -1, -1, 2},
		unix.SYS_PWRITE64:        {"pwrite64", 0, -1, -1, 2},
		unix.SYS_FSYNC:           {"fsync", 0, -1, -1, -1},
		unix.SYS_FDATASYNC:       {"fdatasync", 0, -1, -1, -1},
		unix.SYS_SYNC_FILE_RANGE: {"sync_file_range", 0, -1, -1, -1},
		unix.SYS_FTRUNCATE:       {"ftruncate", 0, -1, -1, -1},
		unix.SYS_TRUNCATE:        {"truncate", -1, 0, -1, -1},
		unix.SYS_FALLOCATE:       {"fallocate", 0, -1, -1, -1},
		unix.SYS_COPY_FILE_RANGE: {"copy_file_range", 2, -1, -1, 4},
		unix.SYS_RENAMEAT:        {"renameat", 2, 3, -1, -1},
		unix.SYS_RENAMEAT2:       {"renameat2", 2, 3, -1, -1},
		unix.SYS_LINKAT:          {"linkat", 2, 3, -1, -1},
		unix.SYS_SYMLINKAT:       {"symlinkat", 1, 2, -1, -1},
		unix.SYS_UNLINKAT:        {"unlinkat", 0, 1, -1, -1},
		unix.SYS_MKDIRAT:         {"mkdirat", 0, 1, -1, -1},
		unix.SYS_FCHMOD:          {"fchmod", 0, -1, -1, -1},
		unix.SYS_FCHMODAT:        {"fchmodat", 0, 1, -1, -1},
		unix.SYS_FCHOWN:          {"fchown", 0, -1, -1, -1},
		unix.SYS_FCHOWNAT:        {"fchownat", 0, 1, -1, -1},
		unix.SYS_UTIMENSAT:       {"utimensat", 0, 1, -1, -1},
	}
	if runtime.GOARCH == "amd64" { // which has the older ones besides
		maps.Copy(all, map[uint32]where{
			2: {"open", -1, 0, 1, -1}, 82: {"rename", -1, 1, -1, -1}, 83: {"mkdir", -1, 0, -1, -1}, 84: {"rmdir", -1, 0, -1, -1}, 85: {"creat", -1, 0, -1, -1},
			86: {"link", -1, 1, -1, -1}, 87: {"unlink", -1, 0, -1, -1}, 88: {"symlink", -1, 1, -1, -1}, 90: {"chmod", -1, 0, -1, -1},
			92: {"chown", -1, 0, -1, -1}, 94: {"lchown", -1, 0, -1, -1},
		})
	}
	return all
}()

// run runs a program from its first to its last call. What it started itself is not
// counted, and has ended too.
func (g *supervisor) run(args []string, env ...string) (code int, said string, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, "", err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	var out bytes.Buffer
	line := append(slices.Clone(g.under), os.Args[0])
	cmd := exec.Command(line[0], append(line[1:], args...)...)
	cmd.Env = append(os.Environ(), append(env, envGate+"=1")...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &out, &out, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return 0, "", err
	}
	watched := g.watch(ours, cmd.Process.Pid)
	if watched != nil {
		cmd.Process.Kill()
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return cmd.ProcessState.ExitCode(), out.String(), errors.Join(err, watched)
}

// watch answers the calls until no process is left that can make any.
func (g *supervisor) watch(from *os.File, pid int) error {
	listener, err := received(from)
	if err != nil {
		return fmt.Errorf("the launcher: %w", err)
	}
	defer unix.Close(listener)
	own := map[uint32]bool{}
	for {
		fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		switch ready, err := unix.Poll(fds, int(hangs.Milliseconds())); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case ready == 0:
			return fmt.Errorf("it does nothing for %s", hangs)
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			return nil // POLLHUP
		}
		var n notice
		if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) {
			continue // its thread is gone
		} else if err != nil {
			return err
		}
		if _, ok := own[n.pid]; !ok {
			own[n.pid] = threadOf(int(n.pid), pid)
		}
		r := reply{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if own[n.pid] {
			if c, ok := g.call(&n); ok {
				r = g.answer(c, &n, pid)
			}
		}
		if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
}

func (g *supervisor) answer(c call, n *notice, pid int) reply {
	c.n = len(g.calls) + 1
	g.calls = append(g.calls, c)
	r := reply{id: n.id}
	switch a := g.decide(c); {
	case a.kill:
		_ = syscall.Kill(pid, syscall.SIGKILL)
		r.err = -int32(syscall.EIO) // nobody gets it
	case a.errno != 0:
		r.err = -int32(a.errno)
	case a.lie:
		if w := gated[n.nr]; w.size >= 0 {
			r.val = int64(n.args[w.size])
		}
	default:
		r.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	return r
}

// nameless is what the kernel says of a file that has no name any more. Nobody finds it again.
const nameless = " (deleted)"

// call says what a call changes, and false if that is nothing of ours.
func (g *supervisor) call(n *notice) (call, bool) {
	w := gated[n.nr]
	path, dir := "", -1
	if w.fd >= 0 {
		dir = int(int32(n.args[w.fd]))
	}
	if w.path >= 0 {
		path = stringAt(n.pid, n.args[w.path])
	}
	if !filepath.IsAbs(path) {
		begin := fmt.Sprintf("/proc/%d/cwd", n.pid)
		if dir >= 0 {
			begin = fmt.Sprintf("/proc/%d/fd/%d", n.pid, dir)
		}
		at, err := os.Readlink(begin)
		if err != nil {
			return call{}, false
		}
		path = filepath.Join(at, path)
	}
	below, ok := strings.CutPrefix(path, g.dir)
	if !ok || below != "" && below[0] != '/' || strings.HasSuffix(path, nameless) {
		return call{}, false
	}
	_, err := os.Lstat(path)
	return call{name: w.name, path: strings.TrimPrefix(below, "/"), there: err == nil}, true
}

// The structs of seccomp_unotify(2).
type notice struct {
	id         uint64
	pid, flags uint32
	nr, arch   uint32
	ip         uint64
	args       [6]uint64
}

type reply struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

func ioctl(fd int, what uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), what, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// threadOf says whether a thread is one of a process.
func threadOf(tid, pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", pid, tid))
	return err == nil
}

func stringAt(pid uint32, at uint64) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, 4096)
	n, _ := f.ReadAt(buf, int64(at)) // it may end before the buffer
	text, _, _ := strings.Cut(string(buf[:n]), "\x00")
	return text
}

// received is the descriptor that the launcher sends.
func received(from *os.File) (fd int, err error) {
	oob := make([]byte, unix.CmsgSpace(4))
	said := make([]byte, 200)
	n, oobn, _, _, err := unix.Recvmsg(int(from.Fd()), said, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, err
	}
	if oobn == 0 {
		return 0, fmt.Errorf("%w: %s", errNoGate, said[:n])
	}
	all, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, err
	}
	fds, err := unix.ParseUnixRights(&all[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}

var errNoGate = errors.New("this kernel lets nobody answer system calls")

// launch is the process that becomes the program: its calls wait from here on. It returns
// only if that cannot be.
func launch(args []string) error {
	runtime.LockOSThread()
	os.Unsetenv(envGate)
	tell := func(text string, oob []byte) error { return unix.Sendmsg(3, []byte(text), oob, nil, 0) }
	fd, err := filter()
	if err != nil {
		return errors.Join(err, tell(err.Error(), nil))
	}
	if err := tell("listener", unix.UnixRights(fd)); err != nil {
		return err
	}
	unix.CloseOnExec(3)
	unix.CloseOnExec(fd)
	return syscall.Exec(args[0], args, os.Environ())
}

// filter has the kernel ask before a call that is gated: an open only if it can write.
func filter() (listener int, err error) {
	const nr, args = 0, 16 // offsets in seccomp_data: of the number, and of the arguments
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	load := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: k}
	}
	var code []unix.SockFilter
	for number, w := range gated {
		ask := []unix.SockFilter{ret(unix.SECCOMP_RET_USER_NOTIF)}
		if w.open >= 0 {
			ask = []unix.SockFilter{
				load(args + 8*uint32(w.open)),
				{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jt: 1, K: unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC},
				ret(unix.SECCOMP_RET_ALLOW),
				ret(unix.SECCOMP_RET_USER_NOTIF),
			}
		}
		code = append(code, load(nr), unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(len(ask)), K: number})
		code = append(code, ask...)
	}
	code = append(code, ret(unix.SECCOMP_RET_ALLOW))
	if os.Geteuid() != 0 {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return 0, err
		}
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, fmt.Errorf("seccomp: %w", errno)
	}
	return int(fd), nil
}

// needGate skips a test where system calls cannot be answered.
func needGate(t *testing.T) {
	t.Helper()
	g := &supervisor{dir: t.TempDir(), decide: func(call) answer { return answer{errno: syscall.EIO} }}
	code, said, err := g.run([]string{"/bin/mkdir", filepath.Join(g.dir, "x")})
	switch {
	case err == nil && code != 0 && len(g.calls) > 0:
	case err == nil:
		t.Fatalf("mkdir, which must fail: exit %d, %v, %v: %s", code, g.calls, err, said)
	case strings.Contains(os.Getenv("STELLA_REQUIRE"), "faults"):
		t.Fatalf("that system calls fail is required: %v", err)
	default:
		t.Skipf("SKIPPED: no system call can be made to fail here (%v); what stella does then was not tested", err)
	}
}
