package runner_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"pgregory.net/rapid"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

var errDead = errors.New("the process is gone")

// mortal is a store whose process dies at a write: before it reaches the disk, or
// after, so that nobody hears of it.
type mortal struct {
	*store.DB
	mu    sync.Mutex
	left  int // writes until then; negative: it lives
	after bool
	dead  bool
}

// arm lets the process die at the n-th write from now, 0 at once.
func (m *mortal) arm(n int, after bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left, m.after = n, after
	m.dead = m.dead || n == 0
}

func (m *mortal) isDead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// write makes one write; nothing else is written meanwhile.
func (m *mortal) write(f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left > 0 {
		m.left--
		m.dead = m.left == 0
	} else if m.dead {
		return errDead
	}
	if m.dead && !m.after {
		return errDead
	}
	err := f()
	if m.dead {
		return errDead
	}
	return err
}

func (m *mortal) Commit(id string, p ...state.Proposal) (run state.Run, err error) {
	err = m.write(func() error {
		run, err = m.DB.Commit(id, p...)
		return err
	})
	return run, err
}

func (m *mortal) StartRun(run state.Run, start *ledger.RunStart, more []state.Proposal, along ...state.Batch) (out state.Run, err error) {
	err = m.write(func() error {
		out, err = m.DB.StartRun(run, start, more, along...)
		return err
	})
	return out, err
}

func (m *mortal) LoseLock(t ledger.Type, actor, tenant string, loss ledger.LockLoss) error {
	return m.write(func() error { return m.DB.LoseLock(t, actor, tenant, loss) })
}

// box is an executor whose attempts end when they are told to, or when they are
// stopped; those that are stubborn only when they are told to.
type box struct {
	salt byte

	mu    sync.Mutex // guards what follows
	in    []*boxed
	gone  bool   // the process is
	fault string // what must not be
}

type boxed struct {
	task runner.Task
	ctx  context.Context
	end  chan end
}

// end is how an attempt ends by itself.
type end struct {
	report runner.Report
	err    error
}

func (b *box) Tier() string { return "plain" }

func (b *box) Execute(ctx context.Context, t runner.Task) (runner.Report, error) {
	x := &boxed{task: t, ctx: ctx, end: make(chan end, 1)}
	if !b.enter(x) {
		return runner.Report{}, errDead
	}
	defer b.leave(x)
	stopped := ctx.Done()
	if b.stubborn(t) {
		stopped = nil
	}
	select {
	case e := <-x.end:
		return e.report, e.err
	case <-stopped:
	}
	if errors.Is(context.Cause(ctx), runner.ErrCancelled) {
		return runner.Report{Stop: runner.StopCancel}, nil
	}
	return runner.Report{Stop: runner.StopShutdown}, nil
}

// stubborn says whether an attempt does not end when it is asked to.
func (b *box) stubborn(t runner.Task) bool {
	h := fnv.New32()
	fmt.Fprint(h, b.salt, t.StepID, t.Attempt)
	return h.Sum32()%4 == 0
}

func (b *box) enter(x *boxed) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, y := range b.in {
		if y.task.RunID == x.task.RunID && y.task.StepID == x.task.StepID {
			b.fault = fmt.Sprintf("attempts %d and %d of step %s are under way at a time", y.task.Attempt, x.task.Attempt, x.task.StepID)
		}
	}
	if !b.gone {
		b.in = append(b.in, x)
	}
	return !b.gone
}

func (b *box) leave(x *boxed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.in = slices.DeleteFunc(b.in, func(y *boxed) bool { return x == y })
}

// list is what is under way, in the order of the runs.
func (b *box) list(order map[string]int64) []*boxed {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := slices.Clone(b.in)
	slices.SortFunc(out, func(x, y *boxed) int {
		return cmp.Or(cmp.Compare(order[x.task.RunID], order[y.task.RunID]), strings.Compare(x.task.StepID, y.task.StepID),
			cmp.Compare(x.task.Attempt, y.task.Attempt))
	})
	return out
}

// kill ends everything, as the end of the process does.
func (b *box) kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = true
	for _, x := range b.in {
		select {
		case x.end <- end{err: errDead}:
		default: // it was told to end
		}
	}
}

// ends are the ways in which an attempt ends by itself.
func ends() []end {
	return []end{
		{report: exit(0)}, {report: exit(0)}, {report: exit(0)}, {report: exit(1)}, {report: exit(75)}, {report: exit(65)},
		{err: errors.New("no memory for a pipe")}, {report: runner.Report{Signal: "SIGSEGV"}}, {report: runner.Report{Stop: runner.StopDeadline}},
	}
}

// drawDAG draws a DAG of at most five steps.
func drawDAG(t *rapid.T, id string, sub bool) *manifests.DAG {
	d := &manifests.DAG{ID: id, Version: "1.0.0", FailFast: rapid.Bool().Draw(t, "failFast")}
	d.MaxParallelSteps = rapid.IntRange(0, 3).Draw(t, "parallel")
	if rare(t, "runTimeout") {
		d.Timeout = 30 * time.Minute
	}
	for i := range rapid.IntRange(1, 5).Draw(t, "steps") {
		s := drawStep(t, string(rune('a'+i)), sub)
		for j := range i {
			if rapid.IntRange(0, 2).Draw(t, "needs") == 0 {
				s.Needs = append(s.Needs, d.Steps[j].ID)
			}
		}
		d.Steps = append(d.Steps, s)
	}
	for _, list := range []struct {
		steps *[]manifests.Step
		ids   []string
	}{{&d.OnFailure, []string{"mend", "mend2"}}, {&d.OnCancel, []string{"tidy"}}} {
		if rare(t, "cleanup") {
			for _, id := range list.ids {
				*list.steps = append(*list.steps, drawStep(t, id, false))
			}
			(*list.steps)[len(list.ids)-1].Needs = list.ids[:len(list.ids)-1]
		}
	}
	if rare(t, "outputs") {
		d.Outputs = map[string]any{"n": "${ steps." + d.Steps[0].ID + ".outputs.nothing }"}
	}
	return d
}

func rare(t *rapid.T, what string) bool { return rapid.IntRange(0, 4).Draw(t, what) == 0 }

func drawStep(t *rapid.T, id string, sub bool) manifests.Step {
	s := manifests.Step{
		ID: id, Idempotent: true, MaxInterruptions: rapid.IntRange(0, 3).Draw(t, "interruptions"),
		Retry: manifests.Retry{
			MaxAttempts: rapid.IntRange(1, 3).Draw(t, "maxAttempts"), MaxBackoff: time.Hour, Jitter: 0.2,
			Backoff: rapid.SampledFrom([]time.Duration{time.Millisecond, time.Minute}).Draw(t, "backoff"),
		},
		AllowSkip: rapid.Bool().Draw(t, "allowSkip"), ContinueOnError: rare(t, "continueOnError"), Disabled: rare(t, "disabled") && rare(t, "really"),
	}
	if rare(t, "when") {
		s.When = "1 == 2"
	}
	kind := rapid.SampledFrom([]string{"go", "go", "once", "each", "gate", "sub", "eachSub"}).Draw(t, "kind")
	if !sub && (kind == "sub" || kind == "eachSub") {
		kind = "go"
	}
	switch kind {
	case "go", "once", "each":
		s.Plugin, s.Action = &manifests.Ref{Publisher: "p", Name: "n", Version: "1.0.0"}, map[string]string{"go": "go", "once": "once", "each": "go"}[kind]
	case "sub", "eachSub":
		s.DAG = "child@1.0.0"
		if rare(t, "timeout") {
			s.Timeout = 20 * time.Minute
		}
	}
	if kind == "each" || kind == "eachSub" {
		s.ForEach = make([]any, rapid.IntRange(0, 3).Draw(t, "items"))
		for i := range s.ForEach.([]any) {
			s.ForEach.([]any)[i] = int64(i)
		}
		s.MaxParallel = rapid.IntRange(0, 2).Draw(t, "maxParallel")
	}
	if kind == "gate" || rare(t, "checkpoint") {
		s.Checkpoint = &manifests.Checkpoint{
			Question: "go on?", Quorum: rapid.IntRange(1, 2).Draw(t, "quorum"), Required: rare(t, "required"),
			ExcludeStarter: rare(t, "excludeStarter"), Expires: rapid.SampledFrom([]time.Duration{0, 0, 10 * time.Minute}).Draw(t, "expires"),
		}
	}
	if kind == "gate" {
		return s
	}
	if kind == "go" && rare(t, "cache") {
		s.Cache = &manifests.Cache{TTL: time.Hour}
	}
	level := "parent" // a sub-run that waited for what its parent holds would wait for ever
	if !sub {
		level = "child"
	}
	if rare(t, "lock") || s.DAG != "" && rapid.Bool().Draw(t, "lockOfSub") {
		s.Locks = []string{level}
	}
	if rare(t, "semaphore") {
		s.Semaphores = map[string]int64{level: int64(rapid.IntRange(1, 3).Draw(t, "weight"))}
	}
	return s
}

// sketch draws a DAG in a few lines.
func sketch(d *manifests.DAG) string {
	b := fmt.Sprintf("%s failFast=%v parallel=%d timeout=%s outputs=%v", d.ID, d.FailFast, d.MaxParallelSteps, d.Timeout, d.Outputs)
	for _, list := range []struct {
		name  string
		steps []manifests.Step
	}{{"", d.Steps}, {"on_failure ", d.OnFailure}, {"on_cancel ", d.OnCancel}} {
		for _, s := range list.steps {
			b += fmt.Sprintf("\n   %s%s: %s%s needs=%v each=%v/%d tries=%d/%s interruptions=%d", list.name, s.ID, s.Action, s.DAG, s.Needs, s.ForEach, s.MaxParallel,
				s.Retry.MaxAttempts, s.Retry.Backoff, s.MaxInterruptions)
			if s.Checkpoint != nil {
				b += fmt.Sprintf(" checkpoint=%+v", *s.Checkpoint)
			}
			b += fmt.Sprintf(" when=%q cache=%v locks=%v%v goOn=%v skip=%v disabled=%v", s.When, s.Cache != nil, s.Locks, s.Semaphores, s.ContinueOnError, s.AllowSkip, s.Disabled)
		}
	}
	return b
}
