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

// A step that was passed over stands for what it needs itself: what comes after it does not run
// where that fails since, or where a gate between them is not passed any more.
func TestWhatWasPassedOverStandsForWhatItNeeds(t *testing.T) {
	gate := func(s *manifests.Step) {
		s.Plugin, s.Action, s.Checkpoint = nil, "", &manifests.Checkpoint{Question: "?", Required: true}
	}
	for name, c := range map[string]struct {
		steps []string
		fails bool // the run is ended by hand before the skip
	}{
		"after an end": {[]string{"a", "n<a", "y<n"}, true},
		"gate":         {[]string{"a", "g<a", "n<g", "y<n"}, true},
		"gate, open":   {[]string{"a", "g<a", "n<g", "y<n"}, false},
		"two, open":    {[]string{"a", "g<a", "m<g", "n<m", "y<n"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stops(endsWith(map[string][]int{"a": {0, 65}}, nil)))
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps, d.FailFast = 8, false
					for i := range d.Steps {
						d.Steps[i].AllowSkip = true
						if d.Steps[i].ID == "g" {
							gate(&d.Steps[i])
						}
					}
				}, c.steps...)
				if len(c.steps) == 3 { // there is no gate at which the run would wait
					w.exec.run = stops(unhurried(slowAtFirst(endsWith(map[string][]int{"a": {0, 65}}, nil), "a")))
				}
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				if c.fails {
					w.fail(t, run.RunID, d)
					time.Sleep(time.Minute)
				}
				if len(c.steps) == 5 {
					w.skip(t, run.RunID, d, runner.Skip{StepID: "m"})
				}
				w.skip(t, run.RunID, d, runner.Skip{StepID: "n"})
				time.Sleep(time.Minute)
				if len(c.steps) > 3 {
					if err := second(w.r.Reset(w.asIs(run.RunID, d), runner.Reset{Actor: "uid:7", StepID: "a", Repeat: true})); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Minute)
				}
				now, steps := w.look(run.RunID)
				if now.Status != state.Failed || now.FailedStep != "a" || steps["y"] != "skipped UPSTREAM_FAILED" {
					t.Errorf("%s for %q: %v", now.Status, now.FailedStep, steps)
				}

				bad := (*runner.ConflictError)(nil)
				if err := second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "y"})); !errors.As(err, &bad) || !strings.Contains(bad.Text, "needs step a") {
					t.Errorf("a retry of y: %v", err)
				}
				w.retry(t, run.RunID, d, runner.Retry{StepID: "a"})
				time.Sleep(time.Minute)
				if rec, err := w.db.Step(run.RunID, "g"); err == nil && rec.Status == state.CheckpointPending {
					if err := second(w.r.Decide(w.asIs(run.RunID, d), decision(rec, "uid:9", "continue"))); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Minute)
				}
				if now, steps := w.look(run.RunID); now.Status != state.Completed || steps["y"] != "completed" {
					t.Errorf("with a done the run is %s %s: %v", now.Status, now.FailureReason, steps)
				}
			})
		})
	}
}

// What a skip has left is nobody's matter while the run is open: others are reset, retried and
// done again by people beside it.
func TestWhatASkipHasLeftIsInNobodysWay(t *testing.T) {
	for name, act := range map[string]func(*world, *manifests.DAG, state.Run) error{
		"reset": func(w *world, d *manifests.DAG, run state.Run) error {
			return second(w.r.Reset(w.asIs(run.RunID, d), runner.Reset{Actor: "uid:7", StepID: "z"}))
		},
		"retry": func(w *world, d *manifests.DAG, run state.Run) error {
			return second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "done"}))
		},
		"decision": func(w *world, d *manifests.DAG, run state.Run) error {
			rec, err := w.db.Step(run.RunID, "g")
			if err != nil {
				return err
			}
			return second(w.r.Decide(w.asIs(run.RunID, d), decision(rec, "uid:9", "retry")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stops(endsWith(nil, map[string]time.Duration{"x1": time.Hour, "x2": time.Hour, "z": 30 * time.Minute})))
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps = 8
					for i := range 2 {
						d.Steps[i].Action, d.Steps[i].AllowSkip = "once", i == 0
					}
					d.Steps[2].Checkpoint = &manifests.Checkpoint{Question: "?"}
				}, "x1", "x2", "g", "z", "done", "y<x1,x2")
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				w.fail(t, run.RunID, d)
				time.Sleep(time.Minute)
				w.skip(t, run.RunID, d, runner.Skip{StepID: "x1"})
				time.Sleep(time.Minute)
				if err := act(w, d, run); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				rec, _ := w.db.Step(run.RunID, "g")
				if err := second(w.r.Decide(w.asIs(run.RunID, d), decision(rec, "uid:9", "continue"))); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				now, steps := w.look(run.RunID)
				if rec, _ := w.db.Step(run.RunID, "x2"); now.Status != state.Failed || now.FailedStep != "x2" || rec.Attempt != 1 {
					t.Errorf("%s for %q: %v", now.Status, now.FailedStep, steps)
				}
			})
		})
	}
}
