package runner_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// died starts runs, waits until so many attempts are under way, and dies.
func died(t *testing.T, attempts int, subs []*manifests.DAG, dags ...*manifests.DAG) (*world, []state.Run) {
	ctx, crash := context.WithCancel(context.Background())
	t.Cleanup(crash)
	begun := make(chan struct{}, 100)
	w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
		begun <- struct{}{}
		select {}
	})
	for _, d := range subs {
		w.sealed.publish(d)
	}
	w.r = w.runner(8)
	var runs []state.Run
	for _, d := range dags {
		runs = append(runs, w.start(d, "{}"))
	}
	go w.r.Run(ctx, true)
	for range attempts {
		<-begun
	}
	w.exec = &fake{run: ok}
	w.reopen()
	return w, runs
}

// Whoever tells the parent of a run that ended with a crash does not take over the locks
// of attempts that have died with it.
func TestALockOfAnAttemptThatDiedIsFree(t *testing.T) {
	child := dag(func(d *manifests.DAG) { d.ID = "child"; d.Steps[0].Action = "once" }, "a")
	top := parent(nil, "sub")
	q := dag(func(d *manifests.DAG) { d.ID = "q"; d.Steps[0].Locks = []string{"m"} }, "x")
	w, runs := died(t, 2, []*manifests.DAG{child}, top, q)
	now := func(id string, d *manifests.DAG) runner.Opened {
		run, _ := w.look(id)
		return w.opened(run, d)
	}
	steps, _ := w.db.Steps(runs[0].RunID)
	c := steps["sub"].Child.RunID
	for _, o := range []runner.Opened{now(c, child), now(runs[0].RunID, top), now(runs[1].RunID, q)} {
		if _, err := w.r.Recover(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
	w.r.Recovered()
	if locks, err := w.db.Locks(""); err != nil || len(locks) > 0 {
		t.Fatalf("on record: %+v %v", locks, err)
	}
	if err := w.r.Resume(context.Background(), "uid:0", now(runs[1].RunID, q)); err != nil {
		t.Fatal(err)
	}
	w.background()
	if got, _ := w.ended(runs[1].RunID); got.Status != state.Completed {
		t.Errorf("the run is %s", got.Status)
	}
}

// An attempt that a fault of ours keeps from beginning uses up nothing that was said.
func TestAFaultOfOursUsesUpNoPermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
			if task.StepID == "a" {
				if n++; n == 2 {
					return runner.Report{}, errors.New("no memory for a moment")
				}
			}
			return exit(0), nil
		})
		d := dag(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "a")
		d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "?"}
		w.r = w.runner(2)
		run := w.start(d, "{}")
		w.background()
		now, _ := w.later(run.RunID)
		recs, _ := w.db.Steps(run.RunID)
		if err := second(w.r.Decide(w.opened(now, d), decision(recs["a"], "uid:8", "retry"))); err != nil {
			t.Fatal(err)
		}
		got, steps := w.later(run.RunID)
		if got.Status == state.Failed {
			t.Errorf("an infra fault was not tried again: %v %v", steps, w.exec.list())
		}
	})
}
