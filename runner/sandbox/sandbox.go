// Package sandbox starts the process of one attempt, enforces its limits and
// reports what it saw. It is the [runner.Executor] of a site; it decides no
// outcome and stores nothing.
//
// # Processes
//
//	stella ── stella-init ── the program ── whatever it starts
//
// The init process (package initproc) is a small program that stella carries, or
// stella's own binary, taken over before main. It is the parent of the program
// and reaps and kills everything below; its lifeline is a pipe that stella holds,
// so that nothing of an attempt outlives stella, be it ended by SIGKILL. A
// WebAssembly module is run by stella's binary once more, as a child of init
// ([WASMMain]), so that deadlines, limits and faults of the runtime are those of
// any other program.
//
// # Bytes
//
// What runs is what was hashed: the entry is copied into a sealed memory file
// while it is hashed, and executed through its descriptor; a script's
// interpreter is hashed through the descriptor that is then executed; the other
// files are private copies hashed while they are written. Any other digest is a
// [DigestError], and nothing is started.
//
// # Fences
//
// There is one tier so far, "plain": no namespaces, no landlock, no seccomp. A
// program runs with the rights of the user that runs stella, who must allow it
// (allow_plain). [Sandbox.Fences] says so for each fence, and each [runner.Report]
// repeats it.
//
// # What is seen
//
// A limit shows as a cause only where it can be observed: SIGXCPU, SIGXFSZ, the
// size of the output file and of the workspace, and, for WebAssembly, memory
// that was refused. A native program that is refused memory ends in a way of
// its own. A [runner.Report] without a cause may have a detail: what else was
// noticed, such as processes that survived SIGKILL.
//
// # Folder of an attempt
//
//	bundle/ data/ inputs/     private copies, files read-only; the last two where
//	                          there is something to put into them
//	secrets/                  0400, overwritten and removed when the last process is dead;
//	                          only for an attempt that has secrets
//	work/ artifacts/ tmp/     for the program
//	input.json output.jsonl   request and results (package plugin)
//
// Goroutines: each [Sandbox.Execute] starts some, of which at most the one that
// reaps its init process is left when it returns; [Sandbox.Close] waits for those.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// TierPlain is the tier without fences.
const TierPlain = "plain"

// Defaults where a task's limits are zero.
const (
	defaultLog        = 10 << 20  // bytes of output of one attempt
	defaultWASMMemory = 256 << 20 // bytes of a module's linear memory
)

// Options of a [Sandbox]. The zero value is ready to use.
type Options struct {
	// Now stamps lines of output and STELLA_DEADLINE; default time.Now. It
	// measures nothing: deadlines run on the monotonic clock.
	Now func() time.Time
	// Look is how often the workspace's size and the output file's progress
	// are looked at; default 500 ms.
	Look time.Duration
	// Keep is how many init processes are kept for attempts to come; if there are
	// to be any, the first is started with the sandbox. Default none.
	Keep int
}

// A Sandbox executes attempts. It may be used from many goroutines.
type Sandbox struct {
	inits *inits
	now   func() time.Time
	look  time.Duration
	// How long an init process may take to report after it was told to kill:
	// longer than it tries itself. Afterwards it is killed.
	patience time.Duration
	// And how long it may take to begin with a spec.
	startWait time.Duration
	slack     int64 // wasmSlack
}

var _ runner.Executor = (*Sandbox)(nil)

// New returns a sandbox of the strongest tier that is built.
func New(opt Options) *Sandbox {
	s := &Sandbox{inits: newInits(opt.Keep), now: opt.Now, look: opt.Look, patience: 8 * time.Second, startWait: 10 * time.Second, slack: wasmSlack}
	if s.now == nil {
		s.now = time.Now
	}
	if s.look <= 0 {
		s.look = 500 * time.Millisecond
	}
	return s
}

// Close ends the init processes that wait, and returns when those of attempts that
// have ended are gone. No attempt may be under way. It is the owner's task; without
// it they end with this process.
func (s *Sandbox) Close() error {
	s.inits.close()
	return nil
}

// Tier is the strongest tier in which attempts run here.
func (s *Sandbox) Tier() string { return TierPlain }

// Execute runs one task to its end; see [runner.Executor]. An error means that
// nothing ran: a [DigestError], or a fault of this machine.
func (s *Sandbox) Execute(ctx context.Context, t runner.Task) (runner.Report, error) {
	rep := runner.Report{Tier: TierPlain, Fences: fences(&t)}
	if err := check(&t); err != nil {
		return rep, fmt.Errorf("sandbox: %w", err)
	}
	if ctx.Err() != nil {
		rep.Stop = stopOf(context.Cause(ctx))
		return rep, nil
	}
	p, err := prepare(&t)
	if err != nil {
		return rep, fmt.Errorf("sandbox: %w", err)
	}
	defer p.close()
	if p.unstarted != "" {
		rep.Stop, rep.Detail = runner.StopUnstarted, p.unstarted
		return rep, nil
	}
	a := attempt{box: s, task: &t, prepared: p, report: &rep}
	if err = a.run(ctx); errors.Is(err, errDiedWaiting) {
		rep.Stop, rep.Detail = "", "" // it was to end while it had not begun
		a = attempt{box: s, task: &t, prepared: p, report: &rep, fresh: true}
		err = a.run(ctx)
	}
	if err != nil {
		return rep, fmt.Errorf("sandbox: %w", err)
	}
	return rep, nil
}

// stopOf translates the cause with which an attempt's context was cancelled.
// A cause that says nothing is our own shutting down: the attempt counts as
// interrupted, not as failed.
func stopOf(cause error) runner.Stop {
	switch {
	case errors.Is(cause, runner.ErrCancelled):
		return runner.StopCancel
	case errors.Is(cause, runner.ErrRevoked):
		return runner.StopRevoked
	}
	return runner.StopShutdown
}

// check refuses tasks that no run of ours makes.
func check(t *runner.Task) error {
	switch {
	case t.Runtime != manifests.RuntimeExec && t.Runtime != manifests.RuntimeWASM:
		return fmt.Errorf("unknown runtime %q", t.Runtime)
	case t.Runtime == manifests.RuntimeWASM && t.Interpreter != nil:
		return errors.New("a WebAssembly module with an interpreter")
	case t.Runtime == manifests.RuntimeWASM && t.Determinism != "fixed" && t.Determinism != "real":
		return fmt.Errorf("unknown determinism %q", t.Determinism)
	case !strings.HasPrefix(t.Dir, "/"):
		return fmt.Errorf("the attempt's folder %q is not absolute", t.Dir)
	case t.Entry.Open == nil:
		return errors.New("no entry")
	case t.SourceDate.Unix() < 0:
		return errors.New("no source date")
	case t.Timeout < 0 || t.Grace < 0:
		return errors.New("negative timeout or grace")
	}
	for _, s := range t.Secrets {
		if !manifests.ValidName(s.Name) || t.Redact == nil {
			return errors.New("a secret without a name, or without a redactor")
		}
	}
	for _, s := range append([]string{t.Dir, t.RunID, t.StepID, t.IdempotencyKey}, t.Args...) {
		if strings.IndexByte(s, 0) >= 0 {
			return errors.New("a string with a NUL byte")
		}
	}
	return nil
}
