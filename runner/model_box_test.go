package runner_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"

	"github.com/stellarun/stella/runner"
)

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
		return b.gives(t, e.report), e.err
	case <-stopped:
	}
	if errors.Is(context.Cause(ctx), runner.ErrCancelled) {
		return runner.Report{Stop: runner.StopCancel}, nil
	}
	return runner.Report{Stop: runner.StopShutdown}, nil
}

// stubborn says whether an attempt does not end when it is asked to, not even by an
// abort: so it is seen what becomes of the run meanwhile.
func (b *box) stubborn(t runner.Task) bool {
	h := fnv.New32()
	fmt.Fprint(h, b.salt, t.StepID, t.Attempt)
	return byte(h.Sum32()%4) < b.salt%4
}

// gives adds to what succeeds a list whose length goes with the attempt.
func (b *box) gives(t runner.Task, r runner.Report) runner.Report {
	if r.ExitCode != nil && *r.ExitCode == 0 {
		n := []string{"[0,1,2]", "[0]", "[0,1,2]", "[]", "[5,6]"}[(t.Attempt+int(b.salt))%5]
		r.Output.Values = map[string]json.RawMessage{"list": json.RawMessage(n)}
	}
	return r
}

// note remembers the first thing that must not be.
func (b *box) note(fault string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fault == "" {
		b.fault = fault
	}
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
		{report: exit(0)}, {report: exit(0)}, {report: exit(0)}, {report: exit(0)}, {report: exit(1)}, {report: exit(75)}, {report: exit(65)},
		{err: errors.New("no memory for a pipe")}, {report: runner.Report{Signal: "SIGSEGV"}}, {report: runner.Report{Stop: runner.StopDeadline}},
	}
}
