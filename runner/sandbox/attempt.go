package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"a.stella/initproc"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// An attempt is one execution under way. Only the goroutine of run touches it.
type attempt struct {
	box      *Sandbox
	task     *runner.Task
	prepared *prepared
	report   *runner.Report

	proc    *process
	fresh   bool // with an init process that has not waited
	start   time.Time
	may     bool        // the program may have run
	pid     int         // of the program; 0 until it is known
	ended   bool        // init has reported the end
	again   bool        // and can have another attempt
	due     runner.Stop // why it is to end, and detail of that
	detail  string
	runtime func() wasmResult // of a WebAssembly module: what its runtime said
}

// run starts the program and stays until nothing is left of it.
func (a *attempt) run(ctx context.Context) error {
	var wasm []*os.File // the status pipe, and stella itself
	if a.task.Runtime == manifests.RuntimeWASM {
		r, w, err := pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		defer w.Close()
		self, err := os.Open(selfPath)
		if err != nil {
			return err
		}
		defer self.Close()
		wasm, a.runtime = []*os.File{w, self}, func() wasmResult {
			w.Close()
			return readWASMResult(r)
		}
	}
	a.start = time.Now()
	s, files := a.box.spec(a.task, a.prepared, wasm)
	var err error
	if a.proc, err = a.box.inits.take(a.task.Owner, a.fresh, &s, a.prepared.stdin, files); err != nil {
		return err
	}
	logs := newLogs(a.task, a.box.now)
	var readers sync.WaitGroup
	for i, name := range []string{"stdout", "stderr"} {
		readers.Go(func() { logs.read(name, a.proc.streams[i]) })
	}
	watch := startWatch(a)
	err = a.supervise(ctx, watch.breach)
	if !a.again {
		a.proc.end()
	}
	if !a.ended {
		a.sweep()
	}
	watch.stop()
	drain(a.proc.streams[:])
	readers.Wait()
	if a.again {
		a.box.inits.give(a.proc)
	}
	a.report.Dropped = logs.flush()
	if err != nil {
		return err
	}
	a.finish(watch, logs)
	return nil
}

// supervise waits for the end of the program, and brings it about when it must.
func (a *attempt) supervise(ctx context.Context, breach <-chan string) error {
	var deadline, grace, lost <-chan time.Time
	begun := time.NewTimer(a.box.startWait)
	defer begun.Stop()
	cancelled, aborted := ctx.Done(), a.task.Aborted
	// The first cause of ours counts, once there is no status left to look at: what
	// has ended by itself was not ended by us.
	due := func(s runner.Stop, detail string) {
		a.due, a.detail = s, detail
		cancelled, deadline, breach = nil, nil, nil
	}
	for {
		if a.due != "" && a.report.Stop == "" && len(a.proc.status) == 0 {
			grace = time.After(a.stop(ctx))
		}
		select {
		case s, ok := <-a.proc.status:
			if !ok {
				return a.died("the init process of the attempt was killed")
			}
			begun.Stop()
			if s.Kind == initproc.Starting && a.task.Timeout > 0 && a.due == "" {
				deadline = time.After(a.task.Timeout)
			}
			if over, err := a.on(&s); over {
				return err
			}
		case <-cancelled:
			due(stopOf(context.Cause(ctx)), "")
		case <-aborted:
			if aborted = nil; a.report.Stop != "" {
				grace = time.After(0)
			}
		case <-deadline:
			due(runner.StopDeadline, "timeout "+a.task.Timeout.String())
		case what := <-breach:
			due(runner.StopResource, what)
		case <-begun.C:
			a.proc.proc.Kill() // which its status shows, and whether it had begun after all
		case <-grace:
			a.proc.command(initproc.CommandKill)
			lost = time.After(a.box.patience)
		case <-lost:
			return a.died("the init process of the attempt did not report and was killed")
		}
	}
}

// stop asks the program to end for the cause that is due, and returns how long it
// has for that.
func (a *attempt) stop(ctx context.Context) time.Duration {
	a.report.Stop, a.report.Detail = a.due, a.detail
	a.proc.command(initproc.CommandTerm)
	select {
	case <-a.task.Aborted:
		return 0
	default:
		return a.task.Grace
	}
}

// on takes one record of the init process and says whether it is the last.
func (a *attempt) on(s *initproc.Status) (over bool, err error) {
	switch s.Kind {
	case initproc.Starting:
		a.may = true
	case initproc.Started:
		a.pid = int(s.PID)
	case initproc.Failed:
		a.ended = true
		return true, fmt.Errorf("the init process failed at %s: %w", s.Stage, syscall.Errno(s.Errno))
	case initproc.Unstarted:
		a.ended, a.again = true, s.Again
		a.report.Stop, a.report.Detail = runner.StopUnstarted, errnoText(syscall.Errno(s.Errno))
		return true, nil
	case initproc.Ended:
		a.end(s)
		return true, nil
	}
	return false, nil
}

// end takes over what init reported.
func (a *attempt) end(s *initproc.Status) {
	a.ended, a.again = true, s.Again
	r := a.report
	ws := syscall.WaitStatus(s.Wait)
	switch {
	case ws.Exited():
		code := ws.ExitStatus()
		r.ExitCode = &code
	case ws.Signaled():
		r.Signal = unix.SignalName(ws.Signal())
	}
	r.Leftover = int(s.Killed)
	r.Usage = ledger.Usage{
		UserMs: int64(s.UserUs / 1000), SystemMs: int64(s.SystemUs / 1000), MaxRSS: int64(s.MaxRSS),
	}
	if s.Survivors > 0 {
		a.note(fmt.Sprintf("%d processes survived SIGKILL", s.Survivors))
	}
	if r.Stop != "" {
		return
	}
	switch r.Signal {
	case "SIGXCPU":
		r.Stop, r.Detail = runner.StopResource, "cpu time"
	case "SIGXFSZ":
		r.Stop, r.Detail = runner.StopResource, "file size"
	}
}

// died records that init went without a report, and the program with it.
func (a *attempt) died(how string) error {
	switch {
	case !a.may && a.proc.waited:
		return errDiedWaiting
	case !a.may:
		return errors.New("the init process died before the program ran")
	}
	a.report.Signal = "SIGKILL"
	a.note(how)
	return nil
}

// sweep looks for what a dead init process left behind.
func (a *attempt) sweep() {
	if !a.may {
		return
	}
	t := a.task
	killed, all := orphans(a.pid, []string{
		"STELLA_RUN_ID=" + t.RunID, "STELLA_STEP_ID=" + t.StepID, "STELLA_ATTEMPT=" + strconv.Itoa(t.Attempt),
	})
	a.report.Leftover += killed
	if !all {
		a.note("processes survived SIGKILL")
	}
}

// finish looks at what the program left, when nothing can change it any more.
func (a *attempt) finish(w *watch, l *logs) {
	r := a.report
	r.Usage.WallMs = time.Since(a.start).Milliseconds()
	if a.runtime != nil && r.Stop != runner.StopUnstarted && a.ended {
		a.runtime().apply(r)
	}
	if l.held.Load() {
		a.note("a process outside of the attempt holds its output open")
	}
	var breach string
	r.Output, breach = readOutput(a.task.Dir, a.prepared)
	if breach == "" {
		breach = w.last()
	}
	if breach != "" && r.Stop == "" {
		r.Stop, r.Detail = runner.StopResource, breach
	}
}

// note adds to the report's detail.
func (a *attempt) note(s string) {
	if a.report.Detail != "" {
		a.report.Detail += "; "
	}
	a.report.Detail += s
}
