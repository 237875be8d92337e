package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// lot is randomness that many goroutines share.
type lot struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (l *lot) n(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.IntN(n)
}

// Whatever people do to a run by hand, and whenever: what they are told is a
// refusal or done, the runner goes on, and the ledger folds to the records.
func TestManyHandsOnOneRun(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			manyHands(t, &lot{r: rand.New(rand.NewPCG(seed, 7))})
		})
	}
}

func manyHands(t *testing.T, l *lot) {
	var calm atomic.Bool // everything succeeds from now on
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		switch n := l.n(6); {
		case calm.Load():
		case n == 0:
			return exit(3), nil
		case n == 1:
			return exit(75), nil
		case n == 2: // until somebody stops it, or a moment has passed
			select {
			case <-ctx.Done():
				stop := runner.StopShutdown
				if errors.Is(context.Cause(ctx), runner.ErrCancelled) {
					stop = runner.StopCancel
				}
				return runner.Report{Stop: stop}, nil
			case <-time.After(time.Duration(l.n(10)) * time.Millisecond):
			}
		}
		return says(ctx, task)
	})
	d := handled(w)
	w.r = w.runner(4)
	run := w.start(d, "{}")
	for range 3 { // the process is stopped in order, and another takes over
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.r.Run(ctx, false) }()
		for range 25 {
			actWithHands(t, w, l, run.RunID, d)
		}
		stop()
		if err := <-done; err != nil {
			t.Fatalf("the runner: %v", err)
		}
		if l.n(2) == 0 {
			actWithHands(t, w, l, run.RunID, d) // while nobody executes
		}
		takeOver(t, w, d)
	}
	calm.Store(true)
	w.background()
	bringToAnEnd(t, w, run.RunID, d)
	if held, err := w.db.Locks(""); err != nil || len(held) != 0 {
		t.Errorf("locks are held in the end: %+v, %v", held, err)
	}
}

// bringToAnEnd does for a run what a patient operator would, once nothing fails any
// more: it completes, unless somebody has cancelled it.
func bringToAnEnd(t *testing.T, w *world, id string, d *manifests.DAG) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		changed, _ := w.db.Changed()
		run, err := w.db.Run(id)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := w.db.Steps(id)
		if err != nil {
			t.Fatal(err)
		}
		switch run.Status {
		case state.Completed, state.Cancelled:
			return
		case state.Failed:
			if _, err := w.r.Retry(w.opened(run, d), runner.Retry{Actor: "uid:7", Repeat: true}); err != nil {
				t.Fatalf("retry of what has failed: %v", err)
			}
		}
		sayYes(w, run, d, steps)
		if c := steps["sub"].Child; c != nil && c.Status == "" {
			child, err := w.db.Run(c.RunID)
			if err != nil {
				t.Fatal(err)
			}
			of, err := w.db.Steps(c.RunID)
			if err != nil {
				t.Fatal(err)
			}
			sayYes(w, child, w.sealed.dags["child@1.0.0"], of)
		}
		select {
		case <-changed:
		case <-deadline:
			_, words := w.look(id)
			t.Fatalf("it does not end: %+v: %v", run, words)
		}
	}
}

// sayYes lets three people go on with what waits for them.
func sayYes(w *world, run state.Run, d *manifests.DAG, steps map[string]state.Step) {
	for _, s := range steps {
		for i := 0; i < 3 && s.Status == state.CheckpointPending; i++ {
			_, _ = w.r.Decide(w.opened(run, d), decision(s, fmt.Sprint("uid:1", i), "continue")) // it may be closed by now
		}
	}
}

// takeOver lets a new runner go on with what is open, as a daemon does.
func takeOver(t *testing.T, w *world, d *manifests.DAG) {
	t.Helper()
	w.r = w.runner(4)
	active, err := w.db.ActiveRuns()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range active {
		of := d
		if r.DAGID == "child" {
			of = w.sealed.dags["child@1.0.0"]
		}
		if n, err := w.r.Recover(context.Background(), w.opened(r, of)); n != 0 || err != nil {
			t.Fatalf("after an order to stop %d attempts are open: %v", n, err)
		}
		if err := w.r.Resume(context.Background(), "uid:0", w.opened(r, of)); err != nil && !errors.Is(err, runner.ErrEnded) {
			t.Fatalf("resume: %v", err)
		}
	}
}

// handled is a DAG with a bit of everything.
func handled(w *world) *manifests.DAG {
	w.child(func(d *manifests.DAG) {
		d.Inputs = map[string]manifests.Input{"x": {Type: "integer"}}
		d.Steps[1].Plugin, d.Steps[1].Action = nil, ""
		d.Steps[1].Checkpoint = &manifests.Checkpoint{Question: "in the child?"}
	}, "c", "ask<c")
	return dag(func(d *manifests.DAG) {
		d.MaxParallelSteps = 3
		for i := range d.Steps {
			d.Steps[i].AllowSkip = true
			d.Steps[i].Retry.MaxAttempts = 2
		}
		by := map[string]*manifests.Step{}
		for i := range d.Steps {
			by[d.Steps[i].ID] = &d.Steps[i]
		}
		by["each"].ForEach, by["each"].MaxParallel = []any{int64(1), int64(2), int64(3)}, 2
		by["each"].With = map[string]any{"x": "${ item }"}
		by["sub"].Plugin, by["sub"].Action, by["sub"].DAG = nil, "", "child@1.0.0"
		by["sub"].Locks = []string{"l"}
		by["once"].Action = "once"
		by["look"].Checkpoint = &manifests.Checkpoint{Question: "?", Quorum: 2}
		by["gate"].Plugin, by["gate"].Action = nil, ""
		by["gate"].Checkpoint = &manifests.Checkpoint{Question: "??", Expires: 50 * time.Millisecond}
		by["end"].ContinueOnError = true
		d.OnFailure, d.OnCancel = dag(nil, "mend").Steps, dag(nil, "tidy").Steps
	}, "a", "each<a", "sub<a", "once", "look<each", "gate<once", "end<look,sub,gate")
}

// actWithHands does one thing at random to the run or to a sub-run of it.
func actWithHands(t *testing.T, w *world, l *lot, id string, d *manifests.DAG) {
	t.Helper()
	steps, err := w.db.Steps(id)
	if err != nil {
		t.Fatal(err)
	}
	if c := steps["sub"].Child; c != nil && l.n(3) == 0 {
		id, d = c.RunID, w.sealed.dags["child@1.0.0"]
		if steps, err = w.db.Steps(id); err != nil {
			t.Fatal(err)
		}
	}
	run, err := w.db.Run(id)
	if err != nil {
		t.Fatal(err)
	}
	o := w.opened(run, d)
	var ids []string
	for _, s := range d.Steps {
		ids = append(ids, s.ID)
	}
	step := append(ids, "", "each.1", "each.2")[l.n(len(ids)+3)]
	r, what, act := w.r, "", func(*runner.Runner) (state.Run, error) { return run, nil }
	switch l.n(16) {
	case 0, 1, 2:
		what, act = "retry", func(r *runner.Runner) (state.Run, error) {
			q := runner.Retry{Actor: "uid:7", StepID: step, Downstream: l.n(2) == 0, Delay: time.Duration(l.n(2)) * time.Millisecond}
			if l.n(3) == 0 {
				q.Input = json.RawMessage(fmt.Sprintf(`{"x":%d}`, l.n(9)))
			}
			return r.Retry(o, q)
		}
	case 3:
		what, act = "skip", func(r *runner.Runner) (state.Run, error) {
			return r.Skip(o, runner.Skip{Actor: "uid:7", StepID: step, Output: json.RawMessage(`{"y":1}`)})
		}
	case 4, 5:
		what, act = "restart", func(r *runner.Runner) (state.Run, error) { return r.Restart(o, "uid:7", "", step, l.n(2) == 0) }
	case 6, 7:
		what, act = "reset", func(r *runner.Runner) (state.Run, error) {
			return r.Reset(o, runner.Reset{Actor: "uid:7", StepID: step, Repeat: l.n(2) == 0})
		}
	case 8:
		what, act = "nudge", func(r *runner.Runner) (state.Run, error) { return r.Nudge(o, "uid:7", "") }
	case 9:
		what, act = "fail", func(r *runner.Runner) (state.Run, error) { return r.Fail(o, "uid:7", state.FailedByHand, "") }
	case 10:
		if l.n(12) == 0 {
			what, act = "abort", func(r *runner.Runner) (state.Run, error) { return r.Abort(o, "uid:7", "") }
		}
	default:
		what, act = "decide", func(r *runner.Runner) (state.Run, error) { return decideAtRandom(l, r, o, steps, ids) }
	}
	if l.n(4) == 0 {
		what = "trial of " + what
		_, err = r.Try(o, act)
	} else {
		_, err = act(r)
	}
	if code := codeOf(err); code != "" && code == fmt.Sprint(err) && !errors.Is(err, runner.ErrEnded) && !errors.Is(err, runner.ErrStopping) {
		t.Fatalf("%s of %s: %v", what, step, err)
	}
	changed, _ := w.db.Changed()
	select { // lets others do something as well, where they do
	case <-changed:
	case <-time.After(time.Duration(l.n(3)) * time.Millisecond):
	}
}

func decideAtRandom(l *lot, r *runner.Runner, o runner.Opened, steps map[string]state.Step, ids []string) (state.Run, error) {
	for _, id := range ids {
		s := steps[id]
		if s.Approval == nil || s.Approval.Status != state.ApprovalPending && l.n(4) > 0 {
			continue
		}
		m := decision(s, fmt.Sprint("uid:", l.n(3)), []string{"continue", "continue", "continue", "retry", "retry", "abort"}[l.n(6)])
		if m.Decision == "abort" && l.n(4) > 0 {
			m.Decision = "continue"
		}
		if m.Decision == "retry" && l.n(2) == 0 {
			m.BackTo = ids[l.n(len(ids))]
		}
		if l.n(3) == 0 {
			m.Modifications = json.RawMessage(`{"z":1}`)
		}
		return r.Decide(o, m)
	}
	return o.Run, nil
}
