package runner_test

import (
	"context"
	"errors"
	"strings"
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
					d.OnFailure = dag(nil, "k").Steps
					c.change(d)
				}, "x1", "x2", "y<x1,x2")
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				if d.Timeout == 0 {
					w.fail(t, run.RunID, d)
				}
				time.Sleep(15 * time.Minute)
				w.skip(t, run.RunID, d, runner.Skip{StepID: "x1"})
				time.Sleep(time.Minute)
				if now, steps := w.look(run.RunID); now.Status != state.Failed || now.FailedStep != "x2" || steps["y"] == "completed" {
					t.Errorf("with x1 passed over alone the run is %s for %q: %v", now.Status, now.FailedStep, steps)
				}
				if recs, _ := w.db.Steps(run.RunID); recs["k"].Attempt != 2 || recs["k"].Status != state.Completed {
					t.Errorf("that end has not cleaned up: %s, attempt %d", recs["k"].Status, recs["k"].Attempt)
				}
				bad := (*runner.ConflictError)(nil)
				if err := second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7"})); !errors.As(err, &bad) || !strings.Contains(bad.Text, "not idempotent") {
					t.Errorf("a retry without a step: %v", err)
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

// Those of them that may not be passed over are begun again one by one, by name, and what was
// passed over is given other outputs meanwhile.
func TestWhatWasStoppedIsBegunAgainOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(slowAtFirst(endsWith(nil, nil), "x1", "x2", "x3"))))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			for i := range 3 {
				d.Steps[i].Action, d.Steps[i].AllowSkip = "once", i == 0
			}
		}, "x1", "x2", "x3", "y<x1,x2,x3")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		for i, act := range []func(){
			func() { w.skip(t, run.RunID, d, runner.Skip{StepID: "x1"}) },
			func() { w.skip(t, run.RunID, d, runner.Skip{StepID: "x1", Output: []byte(`{"n":1}`)}) },
			func() { w.retry(t, run.RunID, d, runner.Retry{StepID: "x2"}) },
			func() { w.retry(t, run.RunID, d, runner.Retry{StepID: "x3"}) },
		} {
			time.Sleep(time.Minute)
			if now, steps := w.look(run.RunID); now.Status != state.Failed || steps["y"] == "completed" {
				t.Fatalf("before decision %d the run is %s: %v", i, now.Status, steps)
			}
			act()
		}
		time.Sleep(time.Minute)
		now, steps := w.look(run.RunID)
		recs, _ := w.db.Steps(run.RunID)
		if now.Status != state.Completed || recs["x1"].Attempt != 1 || recs["x2"].Attempt != 2 || recs["x3"].Attempt != 2 {
			t.Errorf("%s %s: %v", now.Status, now.FailureReason, steps)
		}
	})
}

// What comes after something that stays does not begin either, though somebody has passed over
// what lies between.
func TestNothingBeginsBehindWhatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(endsWith(nil, map[string]time.Duration{"z": 20 * time.Minute})))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			d.Steps[0].Action, d.Steps[0].Checkpoint = "once", &manifests.Checkpoint{Question: "?", Required: true}
			d.Steps[1].AllowSkip = true
			d.Steps[3].Action, d.Steps[3].AllowSkip = "once", true
		}, "x1", "x2<x1", "y<x2", "z")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.skip(t, run.RunID, d, runner.Skip{StepID: "x2"})
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		time.Sleep(time.Minute)
		w.skip(t, run.RunID, d, runner.Skip{StepID: "z"})
		time.Sleep(time.Minute)
		if _, steps := w.look(run.RunID); steps["y"] == "completed" {
			t.Error("y has run, and x1 has not been approved")
		}
		w.retry(t, run.RunID, d, runner.Retry{StepID: "x1"})
		time.Sleep(time.Minute)
		rec, _ := w.db.Step(run.RunID, "x1")
		if err := second(w.r.Decide(w.asIs(run.RunID, d), decision(rec, "uid:9", "continue"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if now, steps := w.look(run.RunID); now.Status != state.Completed || steps["y"] != "completed" {
			t.Errorf("%s %s: %v", now.Status, now.FailureReason, steps)
		}
	})
}

// Nor does what comes after a step that failed, where one that it needs has failed since.
func TestASkipIsNoWayAroundWhatHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"x": {0, 65}, "n": {65}}, nil))
		d := dag(func(d *manifests.DAG) { d.Steps[1].AllowSkip = true }, "x", "n<x", "y<n")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "x"})
		time.Sleep(time.Minute)
		bad := (*runner.ConflictError)(nil)
		if err := second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7", StepID: "n"})); !errors.As(err, &bad) || !strings.Contains(bad.Text, "step n needs step x, which is failed") {
			t.Error(err)
		}
	})
}

// While the run is open after the first skip, the next is taken, and then others move.
func TestWhatWasStoppedIsPassedOverWhileTheRunIsOpen(t *testing.T) {
	for _, asked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := endsWith(nil, map[string]time.Duration{"z": 20 * time.Minute})
			if !asked {
				f = slowAtFirst(f, "x1", "x2")
			}
			w := newWorld(t, stops(unhurried(f)))
			d := dag(func(d *manifests.DAG) {
				d.MaxParallelSteps = 8
				for i := range 2 {
					d.Steps[i].Action, d.Steps[i].AllowSkip = "once", true
					if asked {
						d.Steps[i].Checkpoint = &manifests.Checkpoint{Question: "?"}
					}
				}
			}, "x1", "x2", "y<x1,x2", "z")
			w.r = w.runner(8)
			run := w.start(d, "{}")
			w.background()
			time.Sleep(time.Minute)
			w.fail(t, run.RunID, d)
			for _, id := range []string{"x1", "x2"} {
				time.Sleep(time.Minute)
				w.skip(t, run.RunID, d, runner.Skip{StepID: id})
			}
			if now, _ := w.look(run.RunID); now.Status.Ended() {
				t.Fatalf("the run is %s: nothing was tried", now.Status)
			}
			if err := second(w.r.Reset(w.asIs(run.RunID, d), runner.Reset{Actor: "uid:7", StepID: "z"})); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
			if now, steps := w.look(run.RunID); now.Status != state.Completed {
				t.Errorf("%s %s: %v", now.Status, now.FailureReason, steps)
			}
		})
	}
}

// A required approval is not passed over: before anybody is asked, while people are, once the
// end of the run has withdrawn it, or once what is asked about has failed.
func TestARequiredApprovalIsNotPassedOver(t *testing.T) {
	for name, c := range map[string]struct {
		gate bool
		code map[string][]int
		end  bool
	}{
		"not yet asked": {true, map[string][]int{}, false}, "asked": {true, nil, false}, "asked about an action": {false, nil, false},
		"withdrawn": {true, nil, true}, "withdrawn about an action": {false, nil, true}, "failed": {false, map[string][]int{"g": {65}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lasts := map[string]time.Duration{}
				if name == "not yet asked" {
					lasts["a"] = time.Hour
				}
				w := newWorld(t, stops(endsWith(c.code, lasts)))
				d := dag(func(d *manifests.DAG) {
					g := &d.Steps[1]
					g.AllowSkip, g.Checkpoint = true, &manifests.Checkpoint{Question: "?", Required: true}
					if c.gate {
						g.Plugin, g.Action = nil, ""
					}
				}, "a", "g<a", "y<g")
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				if c.end {
					w.fail(t, run.RunID, d)
					time.Sleep(time.Minute)
				}
				bad := (*runner.ConflictError)(nil)
				if err := second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7", StepID: "g"})); !errors.As(err, &bad) || !strings.Contains(bad.Text, "approval of step g is required") {
					t.Error(err)
				}
				time.Sleep(time.Minute)
				if _, steps := w.look(run.RunID); steps["y"] == "completed" {
					t.Error("y has run without the approval")
				}
			})
		})
	}
}

// What comes after a step that is passed over does not begin ahead of what comes before it.
func TestASkipLetsNothingRunAhead(t *testing.T) {
	for _, required := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, stops(endsWith(nil, nil)))
			d := dag(func(d *manifests.DAG) {
				d.MaxParallelSteps = 8
				d.Steps[0].Action, d.Steps[0].AllowSkip, d.Steps[1].AllowSkip = "once", true, true
				d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "?", Required: required}
			}, "x1", "x2<x1", "y<x2")
			w.r = w.runner(8)
			run := w.start(d, "{}")
			w.background()
			time.Sleep(time.Minute)
			w.fail(t, run.RunID, d)
			time.Sleep(time.Minute)
			bad := (*runner.ConflictError)(nil)
			if err := second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7", StepID: "x2"})); !errors.As(err, &bad) || !strings.Contains(bad.Text, "step x2 needs step x1") {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			if _, steps := w.look(run.RunID); steps["y"] == "completed" {
				t.Error("y has run, and x1 is neither approved nor passed over")
			}
			w.retry(t, run.RunID, d, runner.Retry{StepID: "x1"})
			time.Sleep(time.Minute)
			w.skip(t, run.RunID, d, runner.Skip{StepID: "x2"})
			time.Sleep(time.Minute)
			if _, steps := w.look(run.RunID); steps["y"] == "completed" {
				t.Error("y has run, and people are asked about x1 still")
			}
		})
	}
}

// A skip that names nothing passes over nothing that did not fail.
func TestASkipWithoutAStepPassesOverNoGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(endsWith(nil, nil)))
		d := dag(func(d *manifests.DAG) {
			d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].AllowSkip = nil, "", true
			d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "?"}
		}, "g", "deploy<g")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		time.Sleep(time.Minute)
		bad := (*runner.ConflictError)(nil)
		if err := second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7"})); !errors.As(err, &bad) || !strings.Contains(bad.Text, "has not failed by itself") {
			t.Error(err)
		}
	})
}

// What an earlier end has stopped, and a skip has left, does not make another end than it is of
// the deadline that passes next, here or after a restart.
func TestADeadlineAfterASkip(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, stops(endsWith(nil, map[string]time.Duration{"x1": time.Hour, "x2": time.Hour, "z": 2 * time.Hour, "k": 5 * time.Minute})))
			d := dag(func(d *manifests.DAG) {
				d.MaxParallelSteps, d.Timeout = 8, 10*time.Minute
				for i := range 3 {
					d.Steps[i].Action, d.Steps[i].AllowSkip = "once", true
				}
				d.Steps[3].Plugin, d.Steps[3].Action, d.Steps[3].Checkpoint = nil, "", &manifests.Checkpoint{Question: "?"}
				d.OnFailure = dag(nil, "k").Steps
			}, "x1", "x2", "z<g", "g")
			w.r = w.runner(8)
			run := w.start(d, "{}")
			stop := w.executing()
			time.Sleep(time.Hour)
			w.skip(t, run.RunID, d, runner.Skip{StepID: "x1"})
			time.Sleep(time.Minute)
			rec, _ := w.db.Step(run.RunID, "g")
			if err := second(w.r.Decide(w.asIs(run.RunID, d), decision(rec, "uid:9", "continue"))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(11 * time.Minute)
			if restart {
				if now, _ := w.look(run.RunID); now.Status.Ended() {
					t.Fatalf("it is %s: nothing was tried", now.Status)
				}
				stop()
				stop = w.again(t, run.RunID, d, 8)
			}
			time.Sleep(time.Hour)
			if now, steps := w.look(run.RunID); now.FailureReason != "RUN_TIMEOUT" || now.FailedStep != "" || !strings.HasPrefix(steps["z"], "failed") {
				t.Errorf("restarted %v: %s in %q: %v", restart, now.FailureReason, now.FailedStep, steps)
			}
			bad := (*runner.ConflictError)(nil)
			if err := second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7"})); !errors.As(err, &bad) || !strings.Contains(bad.Text, "not idempotent") {
				t.Errorf("a retry without a step: %v", err)
			}
			stop()
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
		w.fail(t, run.RunID, d)
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
		w.fail(t, run.RunID, d)
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
			w.fail(t, run.RunID, d)
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
