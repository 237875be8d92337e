package initproc

import (
	"os"
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

// run is the life of the init process: one attempt after the other, as long as
// nothing is left of any. It holds the main thread throughout.
func run() int {
	if err := closeOnExec(); err != nil {
		return fail(StageProc, err)
	}
	if stage, err := becomeReaper(); err != nil {
		return fail(stage, err)
	}
	ignoreSignals()
	var l launcher
	for {
		spec, err := readSpec()
		if err == errOver {
			return 0
		}
		if err != nil {
			return fail(StageSpec, err)
		}
		if code, again := attempt(&l, spec); !again {
			return code
		}
	}
}

// attempt starts a program, stays until nothing is left of it, and says whether
// there may be another.
func attempt(l *launcher, spec *Spec) (code int, again bool) {
	if stage, err := setup(spec); err != nil {
		return fail(stage, err), false
	}
	before := l.traits()
	report(&Status{Kind: Starting})
	p, stage, err := l.start(spec)
	letGo(spec.passed)
	switch {
	case err == nil:
	case stage == StageFork && !ours(err):
		report(&Status{Kind: Unstarted, Errno: errnoOf(err), Again: true})
		return 0, true
	default:
		return fail(stage, err), false
	}
	if report(&Status{Kind: Started, PID: uint32(p.pid)}) != nil {
		// Nobody listens any more: the end of the lifeline follows and ends us.
		syscall.Kill(p.pid, syscall.SIGKILL)
	}
	r := reaper{main: p.pid}
	if p.wait != nil {
		r.ended, r.wait = true, *p.wait
	}
	r.loop()
	st := r.status()
	// Whoever removes the attempt's folder, once this end is known, removes it
	// whole: what is still held here would be freed by the next attempt's chdir.
	syscall.Chdir("/")
	st.Again = r.empty && !r.lost && l.traits() == before
	report(st)
	return 0, st.Again
}

// ours says whether a failed start says nothing of the program: the machine has
// no process, memory or descriptor left.
func ours(err error) bool {
	return err == syscall.EAGAIN || err == syscall.ENOMEM || err == syscall.EMFILE || err == syscall.ENFILE
}

// errOver says that the lifeline has ended while there was no attempt.
var errOver = syscall.EPIPE

// readSpec reads a spec from SpecFD, and nothing beyond it. The first three
// descriptors that come with it are put at 0, 1 and 2. The others stay where they
// are: the runtime may have opened some of its own in between.
func readSpec() (*Spec, error) {
	fds, err := readStart()
	if err != nil {
		return nil, err
	}
	for i, fd := range fds[:3] {
		if err := syscall.Dup3(fd, i, syscall.O_CLOEXEC); err != nil {
			return nil, err
		}
		syscall.Close(fd)
	}
	var head [SpecHead - 1]byte
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
	s, err := DecodeSpec(body)
	if err != nil {
		return nil, err
	}
	if s.passed = fds[3:]; len(s.passed) == 0 {
		return nil, ErrBadSpec
	}
	for _, f := range s.Files {
		if f >= len(s.passed) {
			return nil, ErrBadSpec
		}
	}
	return s, nil
}

// readStart waits for the first byte of a spec, and returns the descriptors that
// come with it. A command that came when its program had ended is passed over.
func readStart() ([]int, error) {
	var b [1]byte
	var oob [256]byte
	for {
		n, oobn, flags, _, err := syscall.Recvmsg(SpecFD, b[:], oob[:], syscall.MSG_CMSG_CLOEXEC)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, errOver
		case oobn == 0 && (b[0] == CommandTerm || b[0] == CommandKill):
			continue
		case b[0] != specStart || flags&syscall.MSG_CTRUNC != 0:
			return nil, ErrBadSpec
		}
		messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			return nil, ErrBadSpec
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err == nil && len(fds) < 3 {
			err = ErrBadSpec
		}
		return fds, err
	}
}

// letGo closes what came with a spec, once the program has it: who reads what it
// writes sees when nobody is left that could, and the next attempt finds nothing.
func letGo(passed []int) {
	for fd := range 3 {
		syscall.Dup3(nullFD, fd, syscall.O_CLOEXEC)
	}
	for _, fd := range passed {
		syscall.Close(fd)
	}
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

// becomeReaper makes of this process the one to which orphans come.
func becomeReaper() (Stage, error) {
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
	syscall.Umask(0o022)
	return 0, nil
}

// setup makes of this process what the program is to inherit.
func setup(s *Spec) (Stage, error) {
	if err := syscall.Chdir(s.Dir); err != nil {
		return StageDir, err
	}
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
// program inherits it. Not under those of memory and CPU time: a Go process
// counts a heap arena of 64 MiB as data, and fails where it cannot map more;
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

// A program is what start has started.
type program struct {
	pid  int
	wait *syscall.WaitStatus // not nil if it has ended, and was reaped, already
}

// A launcher forks and executes programs, on a thread that is locked and stays:
// the parent-death signal fires when the thread that forked ends.
type launcher struct {
	tid      int
	specs    chan *Spec
	launched chan launched
}

type launched struct {
	program
	stage Stage
	err   error
}

// ready starts the thread.
func (l *launcher) ready() {
	if l.specs == nil {
		l.specs, l.launched = make(chan *Spec), make(chan launched)
		tid := make(chan int)
		go l.serve(tid)
		l.tid = <-tid
	}
}

// start starts a program.
func (l *launcher) start(s *Spec) (program, Stage, error) {
	l.ready()
	l.specs <- s
	r := <-l.launched
	return r.program, r.stage, r.err
}

func (l *launcher) serve(tid chan<- int) {
	runtime.LockOSThread()
	unblockSignals()
	tid <- syscall.Gettid()
	for s := range l.specs {
		var r launched
		r.program, r.stage, r.err = launch(s)
		l.launched <- r
	}
}

// traits is what this process and the thread that forks have that programs
// inherit, and that a program of the same user can change.
func (l *launcher) traits() traits {
	l.ready()
	return traitsOf(l.tid)
}

// launch is start on that thread. Where limits are to be set on the
// program itself, it is traced up to its first instruction, so that not one
// runs without them; then the tracing ends. Where tracing is forbidden, the
// limits come a moment later.
func launch(s *Spec) (p program, _ Stage, err error) {
	// Of those that were passed it has the least number: what package syscall moves
	// in the child, it moves above the files that the child keeps.
	path := "/proc/self/fd/" + decimal(s.passed[0])
	attr := syscall.ProcAttr{
		Env:   s.Env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	for _, f := range s.Files {
		attr.Files = append(attr.Files, uintptr(s.passed[f]))
	}
	var own []Rlimit
	for _, l := range s.Rlimits {
		if !onSelf(l.Resource) {
			own = append(own, l)
		}
	}
	attr.Sys.Ptrace = len(own) > 0
	p.pid, err = syscall.ForkExec(path, s.Args, &attr)
	if err == syscall.EPERM && attr.Sys.Ptrace {
		attr.Sys.Ptrace = false
		p.pid, err = syscall.ForkExec(path, s.Args, &attr)
	}
	if err != nil {
		return p, StageFork, err
	}
	if attr.Sys.Ptrace {
		if p.wait, err = awaitExec(p.pid); err != nil || p.wait != nil {
			return p, StageFork, err
		}
	}
	for _, l := range own {
		if err := lower(p.pid, l); err != nil {
			syscall.Kill(p.pid, syscall.SIGKILL)
			return p, StageRlimit, err
		}
	}
	if attr.Sys.Ptrace {
		syscall.PtraceDetach(p.pid) // fails only if it was killed meanwhile
	}
	return p, 0, nil
}

// awaitExec waits until a traced program stops behind its execve. If it was
// killed before that, its status is returned.
func awaitExec(pid int) (*syscall.WaitStatus, error) {
	for {
		var ws syscall.WaitStatus
		switch _, err := syscall.Wait4(pid, &ws, 0, nil); {
		case err == syscall.EINTR:
		case err != nil:
			return nil, err
		case !ws.Stopped():
			return &ws, nil
		case ws.StopSignal() == syscall.SIGTRAP:
			return nil, nil
		default:
			syscall.PtraceCont(pid, int(ws.StopSignal()))
		}
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
