package runner_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// A run that cannot be read is ended by its records, once its sub-run has ended.
func TestARunThatCannotBeReadIsEnded(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*runner.Runner, runner.Opened) (state.Run, error)
		want state.Status
	}{
		{"abort", func(r *runner.Runner, o runner.Opened) (state.Run, error) { return r.Abort(o, "uid:7", "rot") }, state.Cancelled},
		{"fail", func(r *runner.Runner, o runner.Opened) (state.Run, error) {
			return r.Fail(o, "uid:7", state.FailedByHand, "rot")
		}, state.Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			begun := make(chan string, 4)
			w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
				begun <- task.StepID
				<-ctx.Done()
				if errors.Is(context.Cause(ctx), runner.ErrShutdown) {
					return runner.Report{Stop: runner.StopShutdown}, nil
				}
				return runner.Report{Stop: runner.StopCancel}, nil
			})
			w.child(nil, "c")
			d := parent(func(d *manifests.DAG) { d.Steps[0].Locks = []string{"l"} }, "sub", "b<sub")
			run := w.start(d, "{}")
			ctx, cancel := context.WithCancel(context.Background())
			ran := make(chan error, 1)
			go func() { ran <- w.r.Run(ctx, true) }()
			<-begun
			cancel()
			<-ran
			w.reopen()
			_, steps := w.until(run.RunID, func(state.Run, map[string]state.Step) bool { return true })
			child, err := w.db.Run(steps["sub"].Child.RunID)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.r.Resume(context.Background(), "uid:0", w.opened(child, w.sealed.dags["child@1.0.0"])); err != nil {
				t.Fatal(err)
			}
			w.background()
			<-begun
			o := w.opened(run, d)
			o.Damage = errors.New("rotten")
			w.sealed.rotten = run.PlanHash
			if err := w.r.Resume(context.Background(), "uid:0", o); err == nil {
				t.Fatal("it is taken up")
			}
			if _, err := c.end(w.r, o); err != nil {
				t.Fatal(err)
			}
			got, _ := w.ended(run.RunID)
			below, _ := w.look(child.RunID)
			if got.Status != c.want || below.Status != state.Cancelled {
				t.Errorf("it is %s %s, its sub-run %s", got.Status, got.FailureReason, below.Status)
			}
			if held, err := w.db.Locks(""); err != nil || len(held) != 0 {
				t.Errorf("held in the end: %+v, %v", held, err)
			}
		})
	}
}

// What was under way in a run that cannot be read, and was failed by hand, waits for a
// person as it would have otherwise; nothing above does it again.
func TestWhatADamagedRunLeavesUnclearWaitsForAPerson(t *testing.T) {
	for _, deep := range []bool{false, true} {
		child := dag(func(d *manifests.DAG) { d.ID = "child"; d.Steps[0].Action = "once" }, "charge")
		top := parent(func(d *manifests.DAG) { d.Steps[0].Retry.MaxAttempts = 2 }, "sub")
		below := []*manifests.DAG{child}
		if deep { // it is the run between that cannot be read
			top.Steps[0].DAG = "middle@1.0.0"
			below = []*manifests.DAG{parent(func(d *manifests.DAG) { d.ID = "middle" }, "sub"), child}
		}
		w, runs := crashed(t, false, top, below...)
		o := w.opened(runs[1], below[0])
		o.Damage = errors.New("rotten")
		w.sealed.rotten = runs[1].PlanHash
		if deep {
			if _, err := w.r.Recover(context.Background(), w.opened(runs[2], child)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.r.Resume(context.Background(), "uid:0", w.opened(runs[0], top)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.r.Fail(o, "uid:7", state.FailedByHand, "rot"); err != nil {
			t.Fatal(err)
		}
		got, steps := w.finish(runs[0].RunID)
		failed, _ := w.look(runs[1].RunID)
		if got.FailureReason != string(state.Indeterminate) || failed.FailureReason != string(state.FailedByHand) || len(w.exec.seen) > 0 {
			t.Errorf("deep %v: the run is %s, %v, its sub-run %s; begun: %v", deep, got.FailureReason, steps, failed.FailureReason, w.exec.seen)
		}
		if dead, err := w.db.DeadSteps("default", 9); err != nil || len(dead) != len(runs) {
			t.Errorf("deep %v: %d steps wait for people, %v; want %d", deep, len(dead), err, len(runs))
		}
	}
}
