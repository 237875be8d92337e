package runner_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// endsWith is an executor whose attempts of a step take a second, or as long as lasts says, and
// end with the codes of the step, one after the other, then with 0.
func endsWith(codes map[string][]int, lasts map[string]time.Duration) func(context.Context, runner.Task) (runner.Report, error) {
	return func(ctx context.Context, task runner.Task) (runner.Report, error) {
		d := time.Second
		if long, is := lasts[task.StepID]; is {
			d = long
		}
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return runner.Report{Stop: runner.StopShutdown}, nil
		}
		if of := codes[task.StepID]; task.Attempt <= len(of) {
			return exit(of[task.Attempt-1]), nil
		}
		return exit(0), nil
	}
}

// A decision about something else does not take an item from its rule: one that has failed
// and waits for another attempt keeps it, though another item has failed for good.
func TestAnItemThatWaitsForItsNextAttemptKeepsIt(t *testing.T) {
	for name, act := range map[string]func(*world, runner.Opened) error{
		"nudge": func(w *world, o runner.Opened) error { return second(w.r.Nudge(o, "uid:7", "")) },
		"retry of another step": func(w *world, o runner.Opened) error {
			return second(w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "v"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, endsWith(map[string][]int{"each.0": {65}, "each.1": {1}}, map[string]time.Duration{"each.1": 5 * time.Second}))
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps = 4
					d.Steps[0].ForEach = []any{"a", "b"}
					d.Steps[0].Retry = manifests.Retry{MaxAttempts: 2, Backoff: time.Minute, MaxBackoff: time.Minute}
				}, "each", "v")
				w.r = w.runner(4)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(20 * time.Second)
				now, steps := w.look(run.RunID)
				if steps["each.1"] != "queued STEP_FAILED" {
					t.Fatalf("the steps are %v", steps)
				}
				if err := act(w, w.opened(now, d)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Minute)
				if _, steps := w.look(run.RunID); steps["each.1"] != "completed" || steps["v"] != "completed" {
					t.Errorf("the steps are %v", steps)
				}
				if recs, _ := w.db.Steps(run.RunID); name != "nudge" && recs["v"].Attempt != 2 {
					t.Errorf("v has %d attempts: the retry did nothing", recs["v"].Attempt)
				}
			})
		})
	}
}

// What had no turn, and needs only what is done, gets it when the run is reopened, though
// something farther before it was done again since, and failed.
func TestWhatNeedsOnlyWhatIsDoneComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"x": {0, 65}, "v": {65}}, map[string]time.Duration{"slow": time.Minute, "v": 59 * time.Second}))
		d := dag(func(d *manifests.DAG) { d.MaxParallelSteps = 4 }, "slow", "x", "y<x", "z<slow,y", "v")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(10 * time.Second)
		now, _ := w.look(run.RunID)
		if _, err := w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "x"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		now, steps := w.look(run.RunID)
		if steps["z"] != "skipped RUN_FAILING" || steps["y"] != "completed" || steps["v"] != "failed STEP_REJECTED" {
			t.Fatalf("the steps are %v", steps)
		}
		if _, err := w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "v"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if _, steps := w.look(run.RunID); steps["z"] != "completed" {
			t.Errorf("z is %s, and nothing that it needs has failed", steps["z"])
		}
	})
}

// What gets its first turn in a run that is reopened is taken from the cache, as it would
// have been.
func TestAFirstTurnIsTakenFromTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		codes := map[string][]int{}
		w := newWorld(t, endsWith(codes, nil))
		d := dag(func(d *manifests.DAG) { d.Steps[1].Cache = &manifests.Cache{TTL: time.Hour} }, "a", "b<a")
		w.r = w.runner(4)
		w.background()
		w.start(d, "{}")
		time.Sleep(10 * time.Second)
		codes["a"] = []int{65}
		run := w.start(d, "{}")
		time.Sleep(10 * time.Second)
		now, _ := w.look(run.RunID)
		if _, err := w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "a"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if recs, _ := w.db.Steps(run.RunID); recs["b"].Cached == nil {
			t.Errorf("b was done anew: %+v", recs["b"])
		}
	})
}

// A retry of one item does not begin another that has failed.
func TestAnItemThatHasFailedStaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"each.0": {65}, "each.1": {65}, "y": {65}}, map[string]time.Duration{"slow": 10 * time.Minute, "y": 30 * time.Second}))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			s := &d.Steps[0]
			s.ForEach, s.MaxParallel, s.AllowSkip, s.Action = []any{"a", "b", "c"}, 2, true, "once"
		}, "each", "y", "slow")
		w.r = w.runner(8)
		w.background()
		run := w.start(d, "{}")
		time.Sleep(40 * time.Second)
		now, _ := w.look(run.RunID)
		if _, err := w.r.Skip(w.opened(now, d), runner.Skip{Actor: "uid:7", StepID: "each.0"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		now, steps := w.look(run.RunID)
		if steps["each"] != "skipped RUN_FAILING" || steps["each.1"] != "failed STEP_REJECTED" {
			t.Fatalf("the steps are %v", steps)
		}
		if _, err := w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "each.2"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if recs, _ := w.db.Steps(run.RunID); recs["each.1"].Attempt != 1 {
			t.Errorf("each.1, which nobody named, has %d attempts", recs["each.1"].Attempt)
		}
	})
}
