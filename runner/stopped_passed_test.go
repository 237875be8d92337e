package runner_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// Steps that must not be done twice and whose work the end of the run has stopped are passed
// over one after the other: somebody looks at each, and none is begun again for the other.
func TestWhatWasStoppedIsPassedOverOneByOne(t *testing.T) {
	minutes := map[string]time.Duration{"x1": 20 * time.Minute, "x2": 20 * time.Minute, "x2.0": 20 * time.Minute}
	for name, c := range map[string]struct {
		change func(*manifests.DAG)
		lasts  map[string]time.Duration
	}{
		"steps":    {func(d *manifests.DAG) {}, minutes},
		"deadline": {func(d *manifests.DAG) { d.Timeout = 10 * time.Minute }, minutes},
		"items":    {func(d *manifests.DAG) { d.Steps[1].ForEach = []any{"a", "b"} }, minutes},
		"approvals": {func(d *manifests.DAG) {
			d.Steps[0].Checkpoint, d.Steps[1].Checkpoint = &manifests.Checkpoint{Question: "?"}, &manifests.Checkpoint{Question: "?"}
		}, nil},
		"an approval": {func(d *manifests.DAG) { d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "?"} }, map[string]time.Duration{"x2": 20 * time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stops(endsWith(nil, c.lasts)))
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps = 8
					for i := range 2 {
						d.Steps[i].Action, d.Steps[i].AllowSkip = "once", true
					}
					c.change(d)
				}, "x1", "x2", "y<x1,x2")
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				if d.Timeout == 0 {
					if err := second(w.r.Fail(w.asIs(run.RunID, d), "uid:7", state.FailedByHand, "stop")); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(15 * time.Minute)
				w.skip(t, run.RunID, d, runner.Skip{StepID: "x1"})
				time.Sleep(time.Minute)
				if now, steps := w.look(run.RunID); now.Status != state.Failed || steps["y"] == "completed" {
					t.Errorf("with x1 passed over alone the run is %s: %v", now.Status, steps)
				}
				w.skip(t, run.RunID, d, runner.Skip{StepID: "x2"})
				time.Sleep(time.Minute)
				now, steps := w.look(run.RunID)
				if now.Status != state.Completed || steps["y"] != "completed" {
					t.Errorf("with both passed over the run is %s %s: %v", now.Status, now.FailureReason, steps)
				}
				recs, _ := w.db.Steps(run.RunID)
				for _, id := range []string{"x1", "x2", "x2.0"} {
					if recs[id].Attempt > 1 {
						t.Errorf("%s was begun again", id)
					}
				}
			})
		})
	}
}

// What may be done twice comes back when another is passed over, as before.
func TestWhatMayBeDoneTwiceComesBackWithASkip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(slowAtFirst(endsWith(nil, nil), "x1", "x2"))))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			d.Steps[0].AllowSkip = true
		}, "x1", "x2", "y<x1,x2")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		if err := second(w.r.Fail(w.asIs(run.RunID, d), "uid:7", state.FailedByHand, "stop")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.skip(t, run.RunID, d, runner.Skip{StepID: "x1"})
		time.Sleep(time.Minute)
		if now, steps := w.look(run.RunID); now.Status != state.Completed {
			t.Errorf("%s %s: %v", now.Status, now.FailureReason, steps)
		}
	})
}

// What was stopped had begun, perhaps since somebody wanted it done again: it does not come
// back from the cache.
func TestWhatWasStoppedIsNotTakenFromTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := endsWith(nil, map[string]time.Duration{"z": 20 * time.Minute})
		w := newWorld(t, stops(func(ctx context.Context, task runner.Task) (runner.Report, error) {
			if task.StepID == "b" && task.Attempt == 2 {
				<-ctx.Done()
			}
			return ends(ctx, task)
		}))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			cached(&d.Steps[0])
		}, "b", "z")
		w.r = w.runner(4)
		w.background()
		run := w.start(d, "{}")
		time.Sleep(10 * time.Second)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "b"})
		time.Sleep(10 * time.Second)
		if err := second(w.r.Fail(w.asIs(run.RunID, d), "uid:7", state.FailedByHand, "stop")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "z"})
		time.Sleep(time.Minute)
		if w.fromCache(t, run.RunID, "b") {
			t.Error("b was taken from the cache")
		}
		if recs, _ := w.db.Steps(run.RunID); recs["b"].Attempt != 3 {
			t.Errorf("b has attempt %d", recs["b"].Attempt)
		}
	})
}

// An item that the end of the run has kept from its turn is begun by name, ordinary or in the
// cleanup.
func TestAnItemThatLostItsTurnIsBegunByName(t *testing.T) {
	for _, cleanup := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, stops(endsWith(map[string][]int{"a": {65}}, map[string]time.Duration{"p.0": 20 * time.Minute})))
			d := dag(func(d *manifests.DAG) {
				p := dag(nil, "p").Steps[0]
				p.ForEach, p.MaxParallel, p.Action = []any{"x", "y"}, 1, "once"
				if cleanup {
					d.OnFailure = []manifests.Step{p}
				} else {
					d.Steps[0] = p
				}
			}, "a")
			w.r = w.runner(4)
			run := w.start(d, "{}")
			w.background()
			time.Sleep(time.Minute)
			if err := second(w.r.Fail(w.asIs(run.RunID, d), "uid:7", state.FailedByHand, "stop")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			if err := second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "p.1"})); err != nil {
				t.Fatalf("cleanup %v: %v", cleanup, err)
			}
			time.Sleep(time.Hour)
			if _, steps := w.look(run.RunID); steps["p.1"] != "completed" {
				t.Errorf("cleanup %v: %v", cleanup, steps)
			}
		})
	}
}
