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

// Cleanup that was ended by hand can be begun again, also what had not had its turn.
func TestCleanupThatWasEndedByHandCanBeBegunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(endsWith(map[string][]int{"a": {65}}, map[string]time.Duration{"k": 10 * time.Minute})))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 1
			d.OnFailure = dag(nil, "k", "m", "n<m").Steps
		}, "a")
		w.r = w.runner(1)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		if err := second(w.r.Fail(w.asIs(run.RunID, d), "uid:7", state.FailedByHand, "stop")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "k"})
		time.Sleep(time.Hour)
		if err := second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "m"})); err != nil {
			t.Errorf("m cannot be begun again: %v", err)
		}
		time.Sleep(time.Hour)
		if now, steps := w.look(run.RunID); now.FailureReason != string(state.FailedByHand) || steps["k"] != "completed" || steps["m"] != "completed" || steps["n"] != "completed" {
			t.Errorf("the run is %s %s: %v", now.Status, now.FailureReason, steps)
		}
	})
}

// The run fails again for the step that it had failed for, where others had failed before.
func TestTheRunFailsForWhatItHadFailedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"a": {65}, "b": {1, 1}, "k": {0, 65}}, map[string]time.Duration{"b": 10 * time.Second}))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps, d.FailFast = 8, false
			d.OnFailure = dag(nil, "k").Steps
		}, "a", "b")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "b"})
		time.Sleep(time.Minute)
		was, _ := w.look(run.RunID)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "k"})
		time.Sleep(time.Minute)
		now, _ := w.look(run.RunID)
		if now.FailureReason != was.FailureReason || now.FailedStep != was.FailedStep {
			t.Errorf("it failed for %s of %q, now for %s of %q", was.FailureReason, was.FailedStep, now.FailureReason, now.FailedStep)
		}
	})
}

// A run that has written too much stays failed, and can be reopened, when its cleanup is begun again.
func TestARunOfTooManyEntriesStaysFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(endsWith(map[string][]int{"k": {65}}, nil)))
		w.with(func(o *runner.Options) { o.MaxEntries = 14 })
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 1
			d.OnFailure = dag(nil, "k", "l<k").Steps
		}, "x1", "x2", "x3", "a")
		run := w.start(d, "{}")
		w.background()
		time.Sleep(10 * time.Minute)
		was, _ := w.look(run.RunID)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "k"})
		time.Sleep(10 * time.Minute)
		now, _ := w.look(run.RunID)
		if now.FailureReason != was.FailureReason {
			t.Errorf("%s %s", now.Status, now.FailureReason)
		}
	})
}

// A sub-run that is reopened for its cleanup alone keeps its step from nothing.
func TestTheCleanupOfASubRunIsInNobodysWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"c": {1}, "k": {65}}, map[string]time.Duration{"k": time.Minute}))
		w.child(func(d *manifests.DAG) {
			d.OnFailure = dag(nil, "k").Steps
		}, "c")
		top, child := parent(func(d *manifests.DAG) {
			d.Steps[0].Retry = manifests.Retry{MaxAttempts: 2, Backoff: 2 * time.Minute, MaxBackoff: 2 * time.Minute}
		}, "sub"), w.sealed.dags["child@1.0.0"]
		w.r = w.runner(4)
		run := w.start(top, "{}")
		w.background()
		time.Sleep(90 * time.Second)
		rec, _ := w.db.Step(run.RunID, "sub")
		first := rec.Child.RunID
		time.Sleep(60 * time.Second)
		w.retry(t, first, child, runner.Retry{StepID: "k"})
		time.Sleep(time.Hour)
		rec, _ = w.db.Step(run.RunID, "sub")
		if rec.Attempt != 2 {
			t.Errorf("the rule has begun no other sub-run: %s", rec.Reason)
		}
	})
}

// Nor does another sub-run keep it from its cleanup, whether something waits for that or not.
func TestTheCleanupOfASubRunIsBegunAgainBesideAnother(t *testing.T) {
	for name, c := range map[string]struct {
		cleanup []string
		act     func(*world, runner.Opened) error
	}{
		"retry": {[]string{"k"}, func(w *world, o runner.Opened) error {
			return second(w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "k"}))
		}},
		"skip": {[]string{"k"}, func(w *world, o runner.Opened) error {
			return second(w.r.Skip(o, runner.Skip{Actor: "uid:7", StepID: "k"}))
		}},
		"skip with something after": {[]string{"k", "l<k"}, func(w *world, o runner.Opened) error {
			return second(w.r.Skip(o, runner.Skip{Actor: "uid:7", StepID: "k"}))
		}},
		"reset": {[]string{"k"}, func(w *world, o runner.Opened) error {
			return second(w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "k"}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				ends := endsWith(map[string][]int{"k": {65}}, nil)
				w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
					if task.StepID == "c" {
						if n++; n == 1 {
							return exit(1), nil
						}
					}
					return ends(ctx, task)
				})
				w.child(func(d *manifests.DAG) {
					d.Steps[1].Action = "once"
					d.OnFailure = dag(nil, c.cleanup...).Steps
					d.OnFailure[0].AllowSkip = true
				}, "c", "o<c")
				top, child := parent(func(d *manifests.DAG) {
					d.Steps[0].Retry = manifests.Retry{MaxAttempts: 2, Backoff: time.Minute, MaxBackoff: time.Minute}
				}, "sub"), w.sealed.dags["child@1.0.0"]
				w.r = w.runner(4)
				run := w.start(top, "{}")
				w.background()
				time.Sleep(30 * time.Second)
				rec, _ := w.db.Step(run.RunID, "sub")
				first := rec.Child.RunID
				time.Sleep(time.Hour)
				if err := c.act(w, w.asIs(first, child)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What cleans up after a cancel reopens no run that has failed.
func TestCleanupOfAnotherEndReopensNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"a": {65}}, nil))
		d := dag(func(d *manifests.DAG) {
			d.OnCancel = dag(nil, "k").Steps
			d.OnCancel[0].AllowSkip = true
		}, "a")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		for what, err := range map[string]error{
			"retry": second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "k"})),
			"skip":  second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7", StepID: "k"})),
			"reset": second(w.r.Reset(w.asIs(run.RunID, d), runner.Reset{Actor: "uid:7", StepID: "k", Repeat: true})),
		} {
			if c := (*runner.ConflictError)(nil); !errors.As(err, &c) || !strings.Contains(c.Text, "after a cancel") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if now, _ := w.look(run.RunID); now.Generation != 1 {
			t.Errorf("the run is in generation %d", now.Generation)
		}
	})
}

// bounded refuses what is written beyond a number of commits, if that is set.
type bounded struct {
	runner.Store
	n, most int
}

func (b *bounded) Commit(id string, p ...state.Proposal) (state.Run, error) {
	if b.most > 0 {
		if b.n++; b.n > b.most {
			return state.Run{}, errors.New("it writes without end")
		}
	}
	return b.Store.Commit(id, p...)
}

// A run that was reopened for its cleanup, has written too much, and is cancelled or aborted
// then, ends: what bounds it asks for no other end of it.
func TestTheEndOfARunThatHasWrittenTooMuch(t *testing.T) {
	for _, how := range []string{"cancel", "abort"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const most = 30
				ends := endsWith(map[string][]int{"k": {65}}, nil)
				w := newWorld(t, stops(func(ctx context.Context, task runner.Task) (runner.Report, error) {
					if task.StepID == "a" || task.StepID == "k" && task.Attempt == 2 {
						<-ctx.Done()
						time.Sleep(5 * time.Second)
					}
					return ends(ctx, task)
				}))
				b := &bounded{Store: w.db}
				w.with(func(o *runner.Options) { o.Store, o.MaxEntries = b, most })
				d := dag(func(d *manifests.DAG) { d.OnFailure, d.OnCancel = dag(nil, "k").Steps, dag(nil, "oc").Steps }, "a")
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				if err := second(w.r.Fail(w.asIs(run.RunID, d), "uid:7", state.FailedByHand, "stop")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				w.retry(t, run.RunID, d, runner.Retry{StepID: "k"})
				time.Sleep(time.Minute)
				for now, _ := w.look(run.RunID); now.Entries < 2*most; now, _ = w.look(run.RunID) {
					if err := second(w.r.Nudge(w.asIs(run.RunID, d), "uid:7", "")); err != nil {
						t.Fatal(err)
					}
				}
				b.most = 200
				var err error
				if how == "cancel" {
					err = second(w.r.Cancel("uid:7", "no", w.asIs(run.RunID, d)))
				} else {
					err = second(w.r.Abort(w.asIs(run.RunID, d), "uid:7", "no"))
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				if now, _ := w.look(run.RunID); now.Status != state.Cancelled || now.Entries > 3*most {
					t.Errorf("the run is %s with %d entries", now.Status, now.Entries)
				}
			})
		})
	}
}

// A cleanup step that needs another, which has lost its turn, too, is not begun before that.
func TestCleanupThatLostItsTurnBeginsInItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(slowAtFirst(endsWith(map[string][]int{"a": {65}}, nil), "k"))))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 1
			d.OnFailure = dag(nil, "k", "l", "m<l").Steps
		}, "a")
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		time.Sleep(time.Hour)
		var bad *runner.ConflictError
		err := second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "m"}))
		if !errors.As(err, &bad) || !strings.Contains(bad.Text, "needs step l") || !strings.Contains(bad.Hint, "retry "+run.RunID+" --step l") {
			t.Errorf("a retry of m: %v", err)
		}
		for _, id := range []string{"l", "m"} {
			w.retry(t, run.RunID, d, runner.Retry{StepID: id})
			time.Sleep(time.Hour)
		}
		if _, steps := w.look(run.RunID); steps["m"] != "completed" {
			t.Errorf("the cleanup has ended with %v", steps)
		}
	})
}

// A run fails rather for a step that has failed by itself than for one that an end has stopped.
func TestARunFailsForWhatFailedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(endsWith(map[string][]int{"y": {65}}, map[string]time.Duration{"x1": time.Hour, "x2": time.Hour})))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			for i := range 2 {
				d.Steps[i].Action, d.Steps[i].AllowSkip = "once", i == 0
			}
		}, "x1", "x2", "z", "y<x1")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		time.Sleep(time.Minute)
		w.skip(t, run.RunID, d, runner.Skip{StepID: "x1"})
		time.Sleep(time.Minute)
		for _, then := range []string{"", "z"} {
			if then != "" {
				w.retry(t, run.RunID, d, runner.Retry{StepID: then})
				time.Sleep(time.Minute)
			}
			if now, steps := w.look(run.RunID); now.Status != state.Failed || now.FailedStep != "y" {
				t.Errorf("after a retry of %q: %s for %q: %v", then, now.Status, now.FailedStep, steps)
			}
		}
	})
}
