package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"a.stella/initproc"
)

// A process is the init process of one attempt, and our ends of its pipes.
type process struct {
	proc    *os.Process
	control *os.File             // spec and commands; its closing kills everything
	status  chan initproc.Status // closed when init has gone
	streams [2]*os.File          // what the program writes to stdout and stderr
	done    chan struct{}        // closed when the reader of status has ended
}

// specWait bounds how long a spec may take to be accepted.
const specWait = 10 * time.Second

// startInit starts the init process and hands it its spec.
func startInit(s *initproc.Spec, stdin *os.File, files []*os.File) (*process, error) {
	encoded, err := s.Encode()
	if err != nil {
		return nil, err
	}
	path, err := initPath()
	if err != nil {
		return nil, err
	}
	var ours, theirs []*os.File
	closeAll := func(list []*os.File) {
		for _, f := range list {
			f.Close()
		}
	}
	pipes := make([][2]*os.File, 4) // stdout, stderr, control, status
	for i := range pipes {
		r, w, err := pipe(i == 2)
		if err != nil {
			closeAll(append(ours, theirs...))
			return nil, err
		}
		pipes[i] = [2]*os.File{r, w}
		if i == 2 {
			ours, theirs = append(ours, w), append(theirs, r)
		} else {
			ours, theirs = append(ours, r), append(theirs, w)
		}
	}
	attr := os.ProcAttr{
		Dir:   "/",
		Env:   []string{"GOMAXPROCS=2"},
		Files: append([]*os.File{stdin, theirs[0], theirs[1], theirs[2], theirs[3]}, files...),
		Sys:   &syscall.SysProcAttr{Setsid: true}, // the terminal's signals are stella's business
	}
	proc, err := os.StartProcess(path, []string{initproc.Marker}, &attr)
	closeAll(theirs)
	if err != nil {
		closeAll(ours)
		return nil, fmt.Errorf("starting the init process: %w", err)
	}
	p := &process{
		proc: proc, control: ours[2], streams: [2]*os.File{ours[0], ours[1]},
		status: make(chan initproc.Status, initproc.MaxStatuses), done: make(chan struct{}),
	}
	go p.readStatus(ours[3])
	p.control.SetWriteDeadline(time.Now().Add(specWait))
	if _, err := p.control.Write(encoded); err != nil {
		p.end()
		closeAll(p.streams[:])
		return nil, fmt.Errorf("handing over the spec: %w", err)
	}
	return p, nil
}

// pipe makes a pipe of which our end takes deadlines and the other end blocks,
// as programs expect of their stdout. (os.Pipe makes both ends non-blocking.)
func pipe(weWrite bool) (r, w *os.File, err error) {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	our := fd[0]
	if weWrite {
		our = fd[1]
	}
	if err := unix.SetNonblock(our, true); err != nil {
		unix.Close(fd[0])
		unix.Close(fd[1])
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return os.NewFile(uintptr(fd[0]), "|r"), os.NewFile(uintptr(fd[1]), "|w"), nil
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
