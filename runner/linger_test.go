package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// list is what a step gives that says which items another has.
func list(t *testing.T, n int) runner.Report {
	t.Helper()
	raw, err := json.Marshal(make([]int, n))
	if err != nil {
		t.Fatal(err)
	}
	r := exit(0)
	r.Output.Values = map[string]json.RawMessage{"n": raw}
	return r
}

func overList(d *manifests.DAG) {
	d.Steps[1].ForEach, d.Steps[1].MaxParallel = "${ steps.src.outputs.n }", 4
}

// Items that a list has again are the same steps as before.
func TestAListMayGrowAgain(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		t.Run(fmt.Sprint("reopened ", reopened), func(t *testing.T) {
			sizes := []int{3, 1, 3}
			w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
				switch {
				case task.StepID == "src":
					return list(t, sizes[task.Attempt-1]), nil
				case task.StepID == "last" && task.Attempt < 3:
					return exit(3), nil
				}
				return exit(0), nil
			})
			d := dag(overList, "src", "f<src", "last<f")
			run := w.start(d, "{}")
			got, steps := w.finish(run.RunID)
			for range sizes[1:] {
				by := w.idle()
				if w.r = w.runner(1); !reopened {
					by = w.r
				}
				run, err := by.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: "src", Downstream: true})
				if err == nil && reopened {
					err = w.r.Resume(context.Background(), "uid:7", w.opened(run, d))
				}
				if err != nil {
					t.Fatal(err)
				}
				got, steps = w.finish(run.RunID)
			}
			if got.Status != state.Completed || steps["f.2"] != "completed" {
				t.Errorf("the run is %s: %v", got.Status, steps)
			}
		})
	}
}

// What is left of an item that its list has no more is still the run's.
func TestAnItemThatIsNoMoreKeepsItsRunOpen(t *testing.T) {
	var n atomic.Int32
	n.Store(3)
	began, release := make(chan string, 9), make(chan struct{})
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "src" {
			return list(t, int(n.Load())), nil
		}
		if began <- task.StepID; task.Attempt > 1 {
			return exit(0), nil
		}
		<-release
		return runner.Report{Stop: runner.StopShutdown}, nil
	})
	w.with(func(o *runner.Options) { o.Workers, o.Parallel = 8, 8 })
	d := dag(overList, "src", "f<src")
	run := w.start(d, "{}")
	w.background()
	for range 3 {
		<-began
	}
	n.Store(1)
	if _, err := w.r.Reset(w.opened(run, d), runner.Reset{Actor: "uid:7", StepID: "src"}); err != nil {
		t.Fatal(err)
	}
	w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool { return s["f"].Count == 1 })
	if got := w.r.Strays(run.RunID); len(got) != 3 || got["f.2"] != 1 {
		t.Errorf("taken back and under way are %v", got)
	}
	if got := w.r.Lingers(run.RunID)["f"].Why; !strings.Contains(got, "the end of attempt 1") {
		t.Errorf("the step waits for %q", got)
	}
	if _, err := w.r.Cancel("uid:7", "", w.opened(run, d)); err != nil {
		t.Fatal(err)
	}
	if got, _ := w.look(run.RunID); got.Status.Ended() {
		t.Errorf("the run is %s beside them", got.Status)
	}
	close(release)
	w.ended(run.RunID)
}

// A run neither ends nor cleans up beside a sub-run that it has given up, and an abort
// reaches that.
func TestASubRunThatWasGivenUpIsItsRunsUntilItEnds(t *testing.T) {
	for what, end := range endings {
		t.Run(what, func(t *testing.T) {
			began, release := make(chan string, 9), make(chan struct{})
			w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
				if task.StepID != "c" {
					return exit(0), nil
				}
				began <- task.RunID
				select {
				case <-release:
				case <-task.Aborted:
				}
				return runner.Report{Stop: runner.StopCancel}, nil
			})
			w.with(func(o *runner.Options) { o.Workers, o.Parallel = 4, 4 })
			w.child(nil, "c")
			d := parent(func(d *manifests.DAG) {
				d.Steps[0].Locks = []string{"l"}
				d.OnFailure, d.OnCancel = dag(nil, "mend").Steps, dag(nil, "tidy").Steps
			}, "sub")
			run := w.start(d, "{}")
			w.background()
			child := <-began
			if _, err := w.r.Reset(w.opened(run, d), runner.Reset{Actor: "uid:7", StepID: "sub"}); err != nil {
				t.Fatal(err)
			}
			if held, err := w.db.Locks(""); err != nil || len(held) != 1 || held[0].Holders[0].RunID != run.RunID {
				t.Errorf("held on record is %+v, %v", held, err)
			}
			got, err := end(w, w.opened(run, d))
			if err != nil {
				t.Fatal(err)
			}
			if what != "abort" {
				if _, steps := w.look(run.RunID); got.Status.Ended() || len(steps) != 1 {
					t.Errorf("the run is %s: %v", got.Status, steps)
				}
				if l := w.r.Lingers(run.RunID)["sub"]; !strings.Contains(l.Why, child) || l.Former != child {
					t.Errorf("the step waits for %+v", l)
				}
				close(release)
			}
			w.ended(run.RunID)
			if of, err := w.db.Run(child); err != nil || !of.Status.Ended() {
				t.Errorf("its sub-run is %s, %v", of.Status, err)
			}
			if held, err := w.db.Locks(""); err != nil || len(held) != 0 {
				t.Errorf("held on record is still %+v, %v", held, err)
			}
		})
	}
}

// A reset takes along what depends on the step, also where that is a sub-run: its next
// attempt would read what is not there yet.
func TestAResetTakesSubRunsAlong(t *testing.T) {
	began := make(chan struct{}, 9)
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		switch {
		case task.StepID == "src":
			return list(t, task.Attempt), nil
		case len(began) == 0:
			began <- struct{}{}
			return hangs(ctx, task)
		}
		return exit(0), nil
	})
	w.with(func(o *runner.Options) { o.Workers, o.Parallel = 4, 4 })
	w.child(func(d *manifests.DAG) { d.Inputs = map[string]manifests.Input{"n": {Type: "array", Required: true}} }, "c")
	d := dag(func(d *manifests.DAG) {
		d.Steps[1].Plugin, d.Steps[1].Action, d.Steps[1].DAG = nil, "", "child@1.0.0"
		d.Steps[1].With = map[string]any{"n": "${ steps.src.outputs.n }"}
	}, "src", "sub<src")
	run := w.start(d, "{}")
	w.background()
	for len(began) == 0 {
		w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool { return s["sub"].Status == state.Running })
	}
	if _, err := w.r.Reset(w.opened(run, d), runner.Reset{Actor: "uid:7", StepID: "src"}); err != nil {
		t.Fatal(err)
	}
	got, steps := w.ended(run.RunID)
	if got.Status != state.Completed || steps["sub"].Attempt != 2 {
		t.Errorf("the run is %s %s: %+v", got.Status, got.FailureReason, steps["sub"])
	}
}

// Cleanup that was reset has begun all the same.
func TestCleanupThatWasResetCanBeGivenUp(t *testing.T) {
	began, release := make(chan int, 9), make(chan struct{})
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "a" {
			return exit(1), nil
		}
		began <- task.Attempt
		<-release
		return runner.Report{Stop: runner.StopShutdown}, nil
	})
	d := dag(func(d *manifests.DAG) { d.OnFailure = dag(nil, "mend").Steps }, "a")
	run := w.start(d, "{}")
	w.background()
	<-began
	o := w.opened(run, d)
	_, err := w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "mend"})
	_, failed := w.r.Fail(o, "uid:7", state.FailedByHand, "")
	if err = errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	close(release)
	if got, steps := w.ended(run.RunID); got.FailureReason != string(state.FailedByHand) || len(began) > 0 {
		t.Errorf("the run is %s %s: %+v", got.Status, got.FailureReason, steps)
	}
}
