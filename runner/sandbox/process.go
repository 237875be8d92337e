package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"a.stella/initproc"
)

// A process is an init process, and our ends of what leads to it.
type process struct {
	proc    *os.Process
	control *os.File             // specs and commands; its closing kills everything
	status  chan initproc.Status // closed when init has gone
	streams [2]*os.File          // what the program writes to stdout and stderr; of the attempt
	done    chan struct{}        // closed when the reader of status has ended
	waited  bool                 // for this attempt, so that it may be dead already
	used    bool                 // it has had an attempt
	owner   string               // of that and of all others
	limits  []initproc.Rlimit    // likewise: what it has lowered stays so
}

// specWait bounds how long a spec may take to be accepted.
const specWait = 10 * time.Second

// startInit starts an init process, which waits for its spec.
func startInit() (_ *process, err error) {
	path, err := initPath()
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	control, theirControl, err := socket()
	if err != nil {
		return nil, err
	}
	defer theirControl.Close()
	status, theirStatus, err := pipe()
	if err != nil {
		control.Close()
		return nil, err
	}
	defer theirStatus.Close()
	attr := os.ProcAttr{
		Dir: "/",
		Env: []string{"GOMAXPROCS=2"},
		// 0, 1, 2, initproc.SpecFD, initproc.StatusFD, and what 0, 1 and 2 are again
		// after each attempt
		Files: []*os.File{null, null, null, theirControl, theirStatus, null},
		Sys:   &syscall.SysProcAttr{Setsid: true}, // the terminal's signals are stella's business
	}
	proc, err := os.StartProcess(path, []string{initproc.Marker}, &attr)
	if err != nil {
		closeAll([]*os.File{control, status})
		return nil, fmt.Errorf("starting the init process: %w", err)
	}
	p := &process{
		proc: proc, control: control,
		status: make(chan initproc.Status, initproc.MaxStatuses), done: make(chan struct{}),
	}
	go p.readStatus(status)
	return p, nil
}

// hand gives the init process a spec, the program's stdin, and the files that
// the spec counts from 0: the first is executed.
func (p *process) hand(s *initproc.Spec, stdin *os.File, files []*os.File) (err error) {
	encoded, err := s.Encode()
	if err != nil {
		return err
	}
	passed := []*os.File{stdin}
	for i := range p.streams {
		our, their, err := pipe()
		if err != nil {
			return err // who discards p closes the other
		}
		defer their.Close()
		p.streams[i], passed = our, append(passed, their)
	}
	passed = append(passed, files...)
	fds := make([]int, len(passed))
	for i, f := range passed {
		fds[i] = int(f.Fd())
	}
	p.control.SetWriteDeadline(time.Now().Add(specWait))
	conn, err := p.control.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Write(func(fd uintptr) bool { // the files come with the first byte
		failed = unix.Sendmsg(int(fd), encoded[:1], unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		return !errors.Is(failed, unix.EAGAIN)
	})
	runtime.KeepAlive(passed)
	if err = cmp.Or(err, failed); err == nil {
		_, err = p.control.Write(encoded[1:])
	}
	if err != nil {
		return fmt.Errorf("handing over the spec: %w", err)
	}
	return nil
}

func closeAll(list []*os.File) {
	for _, f := range list {
		if f != nil {
			f.Close()
		}
	}
}

// pipe makes a pipe from which we read with deadlines, and whose other end
// blocks, as programs expect of their stdout. (os.Pipe makes both ends
// non-blocking.)
func pipe() (our, their *os.File, err error) {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return ends(fd)
}

// socket is like pipe, for both directions and for descriptors.
func socket() (our, their *os.File, err error) {
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return ends(fd)
}

// ends makes files of two descriptors, of which the first is ours.
func ends(fd [2]int) (our, their *os.File, err error) {
	if err := unix.SetNonblock(fd[0], true); err != nil {
		unix.Close(fd[0])
		unix.Close(fd[1])
		return nil, nil, fmt.Errorf("fcntl: %w", err)
	}
	return os.NewFile(uintptr(fd[0]), "|ours"), os.NewFile(uintptr(fd[1]), "|theirs"), nil
}

// readStatus passes records on until the init process has gone.
func (p *process) readStatus(r *os.File) {
	defer close(p.done)
	defer close(p.status)
	defer r.Close()
	var b [initproc.StatusSize]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return
		}
		s, _ := initproc.DecodeStatus(b[:])
		p.status <- s // there is room for all that come
	}
}

// command sends one command. That init has gone shows on its status.
func (p *process) command(c byte) {
	p.control.SetWriteDeadline(time.Now().Add(time.Second))
	p.control.Write([]byte{c})
}

// end closes the lifeline, makes sure that the init process is gone, and reaps
// it. What lives below a healthy init is dead before it goes.
func (p *process) end() {
	p.control.Close()
	p.proc.Kill()
	p.proc.Wait()
	<-p.done
}

// discard is end for an init process whose attempt has not begun.
func (p *process) discard() {
	p.end()
	closeAll(p.streams[:])
}

// orphans kills what an init process that died in the middle has left behind:
// processes of the program's session, and those that still carry the
// environment of the attempt. The program itself dies with init. It returns
// how many it killed, and false if some were left after two seconds.
//
// A program can only get here by killing its init process, which in tier plain
// nothing prevents, since both run under one user; and one that has also left
// its session and emptied its environment is not found. That is what fences
// are for.
func orphans(session int, env []string) (killed int, all bool) {
	seen := make(map[initproc.Process]bool)
	end := time.Now().Add(2 * time.Second)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		list, err := initproc.Processes()
		if err != nil {
			return len(seen), false
		}
		left := false
		for _, p := range list {
			if p.State == 'Z' || p.State == 'X' || p.PID == os.Getpid() {
				continue
			}
			if session != 0 && p.Session == session || carries(p.PID, env) {
				left = true
				if initproc.Kill(p) {
					p.State = 0 // it changes; the rest names the process
					seen[p] = true
				}
			}
		}
		if !left || time.Now().After(end) {
			return len(seen), !left
		}
		time.Sleep(wait)
	}
}

// carries says whether a process has every one of these variables.
func carries(pid int, env []string) bool {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil || len(env) == 0 {
		return false
	}
	have := strings.Split(string(raw), "\x00")
	for _, v := range env {
		if !slices.Contains(have, v) {
			return false
		}
	}
	return true
}

// errnoText says what execve meant.
func errnoText(e syscall.Errno) string {
	switch {
	case errors.Is(e, syscall.ENOEXEC):
		return "exec format error: not a program for this machine"
	case errors.Is(e, syscall.ENOENT):
		return "the loader that the program asks for does not exist here"
	case errors.Is(e, syscall.EACCES):
		return "permission denied: the interpreter is not executable, or its file system is mounted noexec"
	}
	return e.Error()
}
