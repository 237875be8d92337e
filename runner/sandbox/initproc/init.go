package initproc

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"unsafe"
)

// prctl(2) options that package syscall does not name.
const (
	prSetDumpable       = 4
	prSetChildSubreaper = 36
)

// init takes the process over if it was started under one of the names of this
// package. See the package comment for why this is an init function.
func init() {
	if len(os.Args) == 0 {
		return
	}
	switch os.Args[0] {
	case ProbeMarker:
		os.Exit(ProbeExit)
	case Marker:
		os.Exit(run())
	}
}

// run is the life of the init process. It holds the main thread throughout.
func run() int {
	if err := closeOnExec(); err != nil {
		return fail(StageProc, err)
	}
	spec, err := readSpec()
	if err != nil {
		return fail(StageSpec, err)
	}
	if stage, err := setup(spec); err != nil {
		return fail(stage, err)
	}
	// A signal that has a handler is back at its default in the program, even
	// where stella's own parent had it ignored.
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP,
		syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGTTIN,
		syscall.SIGTTOU, syscall.SIGCONT)

	report(&Status{Kind: Starting})
	pid, err := start(spec)
	if err != nil {
		if err == syscall.EAGAIN || err == syscall.ENOMEM || err == syscall.EMFILE || err == syscall.ENFILE {
			return fail(StageFork, err)
		}
		report(&Status{Kind: Unstarted, Errno: errnoOf(err)})
		return 0
	}
	for _, l := range spec.Rlimits {
		if !onSelf(l.Resource) {
			if err := lower(pid, l); err != nil {
				syscall.Kill(pid, syscall.SIGKILL)
				return fail(StageRlimit, err)
			}
		}
	}
	if report(&Status{Kind: Started, PID: uint32(pid)}) != nil {
		// Nobody listens any more: the end of the lifeline follows and ends us.
		syscall.Kill(pid, syscall.SIGKILL)
	}
	commands := make(chan byte)
	go readCommands(commands)
	r := reaper{main: pid}
	r.loop(sigs, commands)
	report(r.status())
	return 0
}

// readSpec reads the spec from SpecFD, and nothing beyond it.
func readSpec() (*Spec, error) {
	var head [4]byte
	if err := readFull(SpecFD, head[:]); err != nil {
		return nil, err
	}
	d := decoder{b: head[:]}
	n := d.u32()
	if n > MaxSpec {
		return nil, ErrBadSpec
	}
	body := make([]byte, n)
	if err := readFull(SpecFD, body); err != nil {
		return nil, err
	}
	return DecodeSpec(body)
}

func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Read(fd, b)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return err
		case n == 0:
			return syscall.EPIPE
		default:
			b = b[n:]
		}
	}
	return nil
}

// closeOnExec marks everything above stderr: what the program gets is named in
// its spec, and what stella itself inherited from its parent is nobody's.
func closeOnExec() error {
	const sysCloseRange, cloexec = 436, 4
	if _, _, e := syscall.Syscall(sysCloseRange, SpecFD, 1<<31-1, cloexec); e == 0 {
		return nil
	}
	dir, err := os.Open("/proc/self/fd") // Linux before 5.11, or filtered
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if fd := int(leading([]byte(name))); fd >= SpecFD {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// setup makes of this process what the program is to inherit, and a reaper.
func setup(s *Spec) (Stage, error) {
	if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); e != 0 {
		return StagePrctl, e
	}
	// The program runs under our uid: it must neither read our memory nor
	// trace us.
	if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0); e != 0 {
		return StagePrctl, e
	}
	if _, err := readProc(os.Getpid()); err != nil {
		return StageProc, err
	}
	if err := syscall.Chdir(s.Dir); err != nil {
		return StageDir, err
	}
	syscall.Umask(0o022)
	for _, l := range s.Rlimits {
		if onSelf(l.Resource) {
			if err := lower(0, l); err != nil {
				return StageRlimit, err
			}
		}
	}
	return 0, nil
}

// onSelf says whether this process may live under a limit, too, so that the
// program inherits it. Memory and CPU time are set on the program right after
// its start instead: a Go process counts a whole heap arena of 64 MiB as data,
// and what kills must not run out of time.
func onSelf(resource int) bool {
	return resource != syscall.RLIMIT_DATA && resource != syscall.RLIMIT_CPU
}

// lower sets a limit of a process, 0 being this one, or the hard limit that
// already stands where that is lower.
func lower(pid int, l Rlimit) error {
	var have syscall.Rlimit
	if err := prlimit(pid, l.Resource, nil, &have); err != nil {
		return err
	}
	v := min(l.Value, have.Max)
	want := syscall.Rlimit{Cur: v, Max: v}
	if pid == 0 {
		// Not by the system call alone: package syscall would give the program
		// the RLIMIT_NOFILE back that it found when this process started.
		return syscall.Setrlimit(l.Resource, &want)
	}
	return prlimit(pid, l.Resource, &want, nil)
}

func prlimit(pid, resource int, set, get *syscall.Rlimit) error {
	_, _, e := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), uintptr(resource),
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(get)), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// start forks and executes the program. It is the only fork here: the thread
// that does it is locked and parked for ever, since the parent-death signal
// fires when that thread ends.
func start(s *Spec) (int, error) {
	type result struct {
		pid int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		unblockSignals()
		attr := syscall.ProcAttr{
			Env:   s.Env,
			Files: []uintptr{0, 1, 2},
			Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
		}
		for _, f := range s.Files {
			attr.Files = append(attr.Files, uintptr(f))
		}
		pid, err := syscall.ForkExec(s.Path, s.Args, &attr)
		done <- result{pid, err}
		select {}
	}()
	r := <-done
	return r.pid, r.err
}

// readCommands passes commands on. At the end of the lifeline it closes c.
func readCommands(c chan<- byte) {
	defer close(c)
	var b [1]byte
	for readFull(SpecFD, b[:]) == nil {
		c <- b[0]
	}
}

func report(s *Status) error {
	_, err := syscall.Write(StatusFD, s.Encode())
	return err
}

func fail(stage Stage, err error) int {
	report(&Status{Kind: Failed, Stage: stage, Errno: errnoOf(err)})
	return 1
}

func errnoOf(err error) uint32 {
	if e, ok := err.(syscall.Errno); ok {
		return uint32(e)
	}
	return 0
}
