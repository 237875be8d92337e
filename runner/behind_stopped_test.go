package runner_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// What the end of a run has stopped is in nobody's way behind a step that fails by itself when
// it is begun again: it could not be seen to before.
func TestWhatWasStoppedBehindAFailureIsInNobodysWay(t *testing.T) {
	for name, act := range map[string]func(*world, runner.Opened) error{
		"retry": func(w *world, o runner.Opened) error {
			return second(w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "x1"}))
		},
		"retry without a step": func(w *world, o runner.Opened) error { return second(w.r.Retry(o, runner.Retry{Actor: "uid:7"})) },
		"skip": func(w *world, o runner.Opened) error {
			return second(w.r.Skip(o, runner.Skip{Actor: "uid:7", StepID: "x1"}))
		},
		"reset": func(w *world, o runner.Opened) error {
			return second(w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "x1"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stops(endsWith(map[string][]int{"x1": {0, 65}}, map[string]time.Duration{"x2": time.Hour})))
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps = 8
					for i := range 2 {
						d.Steps[i].Action, d.Steps[i].AllowSkip = "once", true
					}
				}, "x1", "x2<x1", "y<x2")
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				w.fail(t, run.RunID, d)
				time.Sleep(time.Minute)
				w.retry(t, run.RunID, d, runner.Retry{StepID: "x1"})
				time.Sleep(time.Minute)
				if err := act(w, w.asIs(run.RunID, d)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if now, _ := w.look(run.RunID); now.Status != state.Failed || now.FailedStep != "x2" {
					t.Errorf("%s for %q", now.Status, now.FailedStep)
				}
				w.skip(t, run.RunID, d, runner.Skip{StepID: "x2"})
				time.Sleep(time.Minute)
				now, steps := w.look(run.RunID)
				if rec, _ := w.db.Step(run.RunID, "x2"); now.Status != state.Completed || rec.Attempt != 1 {
					t.Errorf("%s %s: %v", now.Status, now.FailureReason, steps)
				}
			})
		})
	}
}

// No item of a for_each that was stopped stays done with what a step before it gave, when that
// is done again.
func TestItemsOfWhatWasStoppedReadWhatIsNew(t *testing.T) {
	for _, once := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, stops(unhurried(slowAtFirst(endsWith(nil, nil), "p.1"))))
			d := dag(func(d *manifests.DAG) {
				d.MaxParallelSteps = 8
				p := &d.Steps[1]
				if p.ForEach = []any{"a", "b", "c"}; once {
					p.Action, p.AllowSkip = "once", true
				}
			}, "a", "p<a")
			w.r = w.runner(8)
			run := w.start(d, "{}")
			w.background()
			time.Sleep(time.Minute)
			w.fail(t, run.RunID, d)
			time.Sleep(time.Minute)
			w.retry(t, run.RunID, d, runner.Retry{StepID: "a"})
			time.Sleep(10 * time.Minute)
			now, steps := w.look(run.RunID)
			recs, _ := w.db.Steps(run.RunID)
			want, attempt := state.Completed, 2
			if once { // it stays, and is named in its turn
				want, attempt = state.Failed, 1
			}
			if now.Status != want || recs["p.0"].Attempt != attempt || recs["p.1"].Attempt != attempt {
				t.Errorf("once %v: %s %s, attempts %d and %d: %v", once, now.Status, now.FailureReason, recs["p.0"].Attempt, recs["p.1"].Attempt, steps)
			}
		})
	}
}

// A step is not begun again behind what stays, though somebody has passed over what lies
// between: it would only lose what it has given.
func TestWhatHasCompletedIsNotBegunAgainBehindWhatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(endsWith(nil, nil)))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			d.Steps[0].Action, d.Steps[0].Checkpoint = "once", &manifests.Checkpoint{Question: "?", Required: true}
			d.Steps[1].AllowSkip = true
			d.Steps[3].Plugin, d.Steps[3].Action, d.Steps[3].Checkpoint = nil, "", &manifests.Checkpoint{Question: "?"}
		}, "x", "m<x", "n<m", "z")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.skip(t, run.RunID, d, runner.Skip{StepID: "m"})
		rec, _ := w.db.Step(run.RunID, "x")
		if err := second(w.r.Decide(w.asIs(run.RunID, d), decision(rec, "uid:9", "continue"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "x"})
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		time.Sleep(time.Minute)
		bad := (*runner.ConflictError)(nil)
		if err := second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "n"})); !errors.As(err, &bad) || !strings.Contains(bad.Text, "step n needs step x") {
			t.Error(err)
		}
		if _, steps := w.look(run.RunID); steps["n"] != "completed" {
			t.Errorf("n has lost what it gave: %v", steps)
		}
	})
}

// A skip that names nothing does not say of what was stopped that it is done.
func TestASkipWithoutAStepPassesOverNothingThatWasStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(endsWith(nil, map[string]time.Duration{"deploy": time.Hour})))
		d := dag(func(d *manifests.DAG) { d.Steps[0].Action, d.Steps[0].AllowSkip = "once", true }, "deploy", "y<deploy")
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
