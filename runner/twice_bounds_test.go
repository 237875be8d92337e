package runner_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// That a step may do twice what it has done is over when somebody passes over it.
func TestASkipTakesBackThatSomethingMayBeDoneTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
			switch {
			case task.StepID == "c" && task.Attempt == 1:
				return runner.Report{Stop: runner.StopShutdown}, nil
			case task.StepID == "b" && task.Attempt == 2:
				time.Sleep(time.Minute)
			}
			return exit(0), nil
		})
		d := dag(func(d *manifests.DAG) {
			d.Steps[1].Action, d.Steps[1].AllowSkip = "once", true
			d.Steps[2].Checkpoint = &manifests.Checkpoint{Question: "?"}
		}, "b", "c<b", "g<c")
		w.r = w.runner(1)
		run := w.start(d, "{}")
		w.background()
		now, _ := w.later(run.RunID)
		if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "b", Downstream: true})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		now, _ = w.look(run.RunID)
		if err := second(w.r.Skip(w.opened(now, d), runner.Skip{Actor: "uid:7", StepID: "c", Reason: "it is done, as I see now"})); err != nil {
			t.Fatal(err)
		}
		now, _ = w.later(run.RunID)
		recs, _ := w.db.Steps(run.RunID)
		dec := decision(recs["g"], "uid:8", "retry")
		dec.BackTo = "b"
		if err := second(w.r.Decide(w.opened(now, d), dec)); codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "step c is not idempotent") {
			t.Errorf("nobody was asked: %v", err)
		}
	})
}

// A skip of a whole step begins none of its items.
func TestASkipOfAStepDoesNotAskAboutItsItems(t *testing.T) {
	r := &reading{fail: []string{"each.1.1"}}
	r.start(t, "once")
	r.end()
	if _, err := r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "x"}); err != nil {
		t.Fatal(err)
	}
	r.end()
	if _, err := r.r.Skip(r.now(), runner.Skip{Actor: "uid:7", StepID: "each"}); err != nil {
		t.Errorf("%v", err)
	}
}

// What waits for another step that has failed does not come back, and is not asked about.
func TestWhatStaysSkippedIsNotAskedAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
			switch {
			case task.StepID == "a", task.StepID == "b" && task.Attempt == 2, task.StepID == "charge" && count(w.exec.list(), "charge") == 1:
				return exit(65), nil
			}
			return exit(0), nil
		}
		w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge")
		d := dag(func(d *manifests.DAG) {
			d.FailFast = false
			d.Steps[2].Plugin, d.Steps[2].Action, d.Steps[2].DAG = nil, "", "child@1.0.0"
		}, "a", "b", "c<b")
		w.r = w.runner(1)
		run := w.start(d, "{}")
		w.background()
		now, _ := w.later(run.RunID)
		child, _ := w.look(w.childOf(run, "c"))
		if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "b", Downstream: true})); err != nil {
			t.Fatal(err)
		}
		now, _ = w.later(run.RunID)
		if err := second(w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "charge"})); err != nil {
			t.Fatal(err)
		}
		w.later(child.RunID)
		if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "a"})); err != nil {
			t.Errorf("%v", err)
		}
	})
}

// A reset of what cleans up brings nothing ordinary back, and asks about none of it.
func TestAResetOfCleanupAsksAboutNothingOrdinary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		charged := false
		w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
			switch {
			case task.StepID == "other":
				time.Sleep(10 * time.Second)
				return exit(65), nil
			case task.StepID == "charge" && !charged:
				charged = true
				return exit(1), nil
			case task.StepID == "mend" && task.Attempt == 1:
				return hangs(ctx, task)
			}
			return exit(0), nil
		})
		w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge")
		d := parent(func(d *manifests.DAG) {
			d.MaxParallelSteps = 2
			d.Steps[0].Retry = manifests.Retry{MaxAttempts: 3, Backoff: time.Minute, MaxBackoff: time.Minute}
			d.OnFailure = dag(nil, "mend").Steps
		}, "sub", "other")
		w.r = w.runner(3)
		run := w.start(d, "{}")
		w.background()
		w.later(run.RunID)
		child, _ := w.look(w.childOf(run, "sub"))
		if err := second(w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "charge"})); err != nil {
			t.Fatal(err)
		}
		now, _ := w.later(run.RunID)
		if err := second(w.r.Reset(w.opened(now, d), runner.Reset{Actor: "uid:7", StepID: "mend"})); err != nil {
			t.Errorf("%v", err)
		}
	})
}

// A manifest that cannot be read for a moment is a fault of ours, and tried again.
func TestAManifestThatCannotBeReadForAMoment(t *testing.T) {
	for name, report := range map[string]runner.Report{"to be retried": exit(75), "interrupted": {Stop: runner.StopShutdown}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
					if task.Attempt == 1 {
						time.AfterFunc(time.Millisecond, func() { w.sealed.gone.Store(false) })
						w.sealed.gone.Store(true)
						return report, nil
					}
					return exit(0), nil
				}
				d := dag(func(d *manifests.DAG) {
					d.Steps[0].Retry = manifests.Retry{MaxAttempts: 3, Backoff: time.Microsecond, MaxBackoff: time.Microsecond}
				}, "a")
				run := w.start(d, "{}")
				w.background()
				now, steps := w.later(run.RunID)
				if now.Status != state.Completed {
					t.Errorf("%s %v %v", now.Status, steps, w.exec.list())
				}
			})
		})
	}
}

// What is reset is done again, not taken from the cache.
func TestAResetIsNotTakenFromTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) { return exit(0), nil })
		d := dag(func(d *manifests.DAG) {
			d.Steps[0].Cache = &manifests.Cache{TTL: 24 * time.Hour}
			d.Steps[1].Checkpoint = &manifests.Checkpoint{Question: "?"}
		}, "n", "g")
		w.r = w.runner(2)
		run := w.start(d, "{}")
		w.background()
		now := func() runner.Opened { n, _ := w.look(run.RunID); return w.opened(n, d) }
		time.Sleep(time.Second)
		if err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "n", Delay: time.Hour})); err != nil {
			t.Fatal(err)
		}
		if err := second(w.r.Fail(now(), "uid:7", state.FailedByHand, "")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := second(w.r.Reset(now(), runner.Reset{Actor: "uid:7", StepID: "n"})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := count(w.exec.list(), "n."); n != 2 {
			t.Errorf("n was done %d times: %v", n, w.exec.list())
		}
	})
}

// What cleans up is done with each failure, with all of its items and sub-runs.
func TestCleanupIsDoneWithEachFailure(t *testing.T) {
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "a" {
			return exit(65), nil
		}
		return exit(0), nil
	})
	w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge")
	d := dag(func(d *manifests.DAG) {
		d.OnFailure = parent(func(d *manifests.DAG) {
			d.Steps[0].ForEach, d.Steps[1].ForEach = []any{int64(0), int64(1)}, []any{int64(0), int64(1)}
			d.Steps[1].Action = "once"
		}, "mend", "tell<mend").Steps
	}, "a")
	run := w.start(d, "{}")
	now, steps := w.finish(run.RunID)
	for range 2 {
		w.reopen()
		if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "a"})); err != nil {
			t.Fatal(err)
		}
		w.reopen()
		now, _ = w.look(run.RunID)
		if err := w.r.Resume(context.Background(), "uid:7", w.opened(now, d)); err != nil {
			t.Fatal(err)
		}
		now, steps = w.finish(run.RunID)
	}
	if count(w.exec.list(), "charge.") != 6 || count(w.exec.list(), "tell.") != 6 {
		t.Errorf("%s %v: %v", now.Status, steps, w.exec.list())
	}
}
