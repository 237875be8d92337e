package runner_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// Whatever goes back over a step with a sub-run asks before what that has done, and is
// not idempotent, is done again.
func TestWhatASubRunHasDoneIsNotDoneTwiceUnasked(t *testing.T) {
	reset := func(w *world, o runner.Opened, repeat bool) error {
		_, err := w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "sub", Repeat: repeat})
		return err
	}
	retry := func(step string, downstream bool) func(w *world, o runner.Opened, repeat bool) error {
		return func(w *world, o runner.Opened, repeat bool) error {
			_, err := w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: step, Downstream: downstream, Repeat: repeat})
			return err
		}
	}
	back := func(to string) func(w *world, o runner.Opened, repeat bool) error {
		return func(w *world, o runner.Opened, repeat bool) error {
			d := decision(w.asked(o.Run.RunID, "gate"), "uid:7", "retry")
			d.StepID, d.PlanHash, d.BackTo, d.Repeat = "gate", o.Run.PlanHash, to, repeat
			_, err := w.r.Decide(o, d)
			return err
		}
	}
	for _, c := range []struct {
		name   string
		hold   bool // the sub-run is under way, and has done its first step
		fails  bool // it fails after that
		goBack func(w *world, o runner.Opened, repeat bool) error
	}{
		{"a reset while it is under way", true, false, reset},
		{"a reset of all that is under way", true, false, func(w *world, o runner.Opened, repeat bool) error {
			_, err := w.r.Reset(o, runner.Reset{Actor: "uid:7", Repeat: repeat})
			return err
		}},
		{"a reset after its end", false, false, reset},
		{"a retry after its failure", false, true, retry("sub", false)},
		{"a retry of what comes before, with what depends on it", false, true, retry("a", true)},
		{"a decision to go back to what comes before", false, false, back("a")},
		{"a decision to go back to its step", false, false, back("sub")},
	} {
		for _, action := range []string{"go", "once"} {
			t.Run(c.name+" "+action, func(t *testing.T) {
				begun := make(chan bool, 9)
				w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
					switch {
					case task.StepID != "last":
					case c.fails:
						return exit(65), nil
					case c.hold:
						begun <- true
						<-ctx.Done()
						return runner.Report{Stop: runner.StopCancel}, nil
					}
					return exit(0), nil
				})
				w.child(func(d *manifests.DAG) { d.Steps[0].Action = action }, "first", "last<first")
				d := parent(func(d *manifests.DAG) {
					d.Steps[0].Needs = []string{"a"}
					gate := &d.Steps[2]
					gate.Plugin, gate.Action, gate.Checkpoint = nil, "", &manifests.Checkpoint{Question: "?", Quorum: 1}
				}, "sub", "a", "gate<sub")
				run := w.start(d, "{}")
				w.background()
				if c.hold {
					<-begun
				} else {
					w.until(run.RunID, func(r state.Run, s map[string]state.Step) bool {
						return r.Status.Ended() || s["gate"].Status == state.CheckpointPending
					})
				}
				now, _ := w.look(run.RunID)
				err := c.goBack(w, w.opened(now, d), false)
				var conflict *runner.ConflictError
				switch {
				case action == "go" && err != nil:
					t.Fatal(err)
				case action == "once" && (!errors.As(err, &conflict) || !strings.Contains(conflict.Text, "sub/first") || !strings.Contains(conflict.Hint, "--repeat")):
					t.Fatalf("without repeat: %v", err)
				case action == "once":
					if err := c.goBack(w, w.opened(now, d), true); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := w.r.Abort(w.opened(now, d), "uid:7", ""); err != nil && !errors.Is(err, runner.ErrEnded) {
					t.Fatal(err)
				}
			})
		}
	}
}

// What somebody changes in a sub-run reaches the runs above it: they are overridden as
// well (THREATS 22).
func TestARunIsOverriddenWithItsSubRun(t *testing.T) {
	for _, changes := range []string{"", `{"y":77}`} {
		w := newWorld(t, says)
		w.child(func(d *manifests.DAG) {
			d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "?", Quorum: 1}
			d.Outputs = map[string]any{"y": "${ has(steps.c.outputs.y) ? steps.c.outputs.y : 1 }"}
		}, "c")
		middle := parent(func(d *manifests.DAG) {
			d.ID, d.Outputs = "middle", map[string]any{"y": "${ steps.sub.outputs.y }"}
		}, "sub")
		w.sealed.publish(middle)
		top := parent(func(d *manifests.DAG) {
			d.Steps[0].DAG, d.Outputs = "middle@1.0.0", map[string]any{"y": "${ steps.sub.outputs.y }"}
		}, "sub")
		run := w.start(top, "{}")
		w.background()
		below := run
		for range 2 {
			_, steps := w.until(below.RunID, func(_ state.Run, s map[string]state.Step) bool { return s["sub"].Child != nil })
			var err error
			if below, err = w.db.Run(steps["sub"].Child.RunID); err != nil {
				t.Fatal(err)
			}
		}
		d := decision(w.asked(below.RunID, "c"), "uid:7", "continue")
		d.Modifications = []byte(changes)
		if _, err := w.r.Decide(w.opened(below, w.sealed.dags["child@1.0.0"]), d); err != nil {
			t.Fatal(err)
		}
		got, _ := w.ended(run.RunID)
		if want := changes != ""; got.Overridden != want || got.Status != state.Completed {
			t.Errorf("changed by %q: the run is %s, overridden %v", changes, got.Status, got.Overridden)
		}
	}
}

// counted counts how often all steps of a run are read.
type counted struct {
	runner.Store
	run   string
	reads atomic.Int64
}

func (c *counted) Steps(id string) (map[string]state.Step, error) {
	if id == c.run {
		c.reads.Add(1)
	}
	return c.Store.Steps(id)
}

// What is asked for by hand, and a replay, read the steps of a run no more often where
// it has more sub-runs.
func TestTheStepsOfARunAreNotReadForEachSubRun(t *testing.T) {
	reads := func(n int) (retry, replay int64) {
		w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
			if task.StepID == "z" {
				return exit(65), nil
			}
			return exit(0), nil
		})
		w.child(nil, "c")
		steps := []string{"a"}
		for i := range n {
			steps = append(steps, fmt.Sprintf("s%d<a", i))
		}
		d := dag(func(d *manifests.DAG) {
			d.FailFast = false
			for i := range d.Steps[1 : n+1] {
				s := &d.Steps[i+1]
				s.Plugin, s.Action, s.DAG = nil, "", "child@1.0.0"
			}
		}, append(steps, "z<a")...)
		got, _ := w.finish(w.start(d, "{}").RunID)
		c := &counted{Store: w.db, run: got.RunID}
		w.with(func(o *runner.Options) { o.Store = c })
		w.finish(w.replay(got, d).RunID)
		replay = c.reads.Swap(0)
		w.with(func(o *runner.Options) { o.Store, o.Executor = c, nil })
		if _, err := w.r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: "a", Downstream: true}); err != nil {
			t.Fatal(err)
		}
		return c.reads.Load(), replay
	}
	retry, replay := reads(1)
	if r, p := reads(12); r != retry || p != replay {
		t.Errorf("with 12 sub-runs a retry reads them %d times, a replay %d; with one %d and %d", r, p, retry, replay)
	}
}
