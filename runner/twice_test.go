package runner_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// later looks at a run when a while has passed, in a bubble of [synctest].
func (w *world) later(id string) (state.Run, map[string]string) {
	time.Sleep(10 * time.Minute)
	return w.look(id)
}

// mended is a run that has failed at its step "other" while the retry rule of "sub" was
// waiting, so that sub was given up; and then somebody has finished the sub-run.
func mended(t *testing.T, what string, change func(sub *manifests.Step)) (w *world, now func() runner.Opened) {
	t.Helper()
	charged := false
	w = newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		switch {
		case task.StepID == "other" && task.Attempt == 1:
			time.Sleep(10 * time.Second)
			return exit(65), nil
		case task.StepID == "charge" && !charged:
			charged = true
			return exit(1), nil
		}
		return exit(0), nil
	})
	w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge")
	d := parent(func(d *manifests.DAG) {
		d.MaxParallelSteps = 2
		d.Steps[0].Retry = manifests.Retry{MaxAttempts: 3, Backoff: time.Minute, MaxBackoff: time.Minute}
		d.Steps[1].AllowSkip = true
		change(&d.Steps[0])
	}, "sub", "other")
	w.r = w.runner(2)
	run := w.start(d, "{}")
	w.background()
	w.later(run.RunID)
	child, _ := w.look(w.childOf(run, what))
	if err := second(w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "charge"})); err != nil {
		t.Fatal(err)
	}
	w.later(child.RunID)
	return w, func() runner.Opened {
		run, _ := w.look(run.RunID)
		return w.opened(run, d)
	}
}

// What comes back because the run fails no more is asked about like what somebody names.
func TestWhatComesBackDoesNothingTwiceUnasked(t *testing.T) {
	acts := map[string]func(r *runner.Runner, o runner.Opened, repeat bool) (state.Run, error){
		"a retry": func(r *runner.Runner, o runner.Opened, repeat bool) (state.Run, error) {
			return r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "other", Repeat: repeat})
		},
		"a skip": func(r *runner.Runner, o runner.Opened, repeat bool) (state.Run, error) {
			return r.Skip(o, runner.Skip{Actor: "uid:7", StepID: "other", Repeat: repeat})
		},
		"a reset": func(r *runner.Runner, o runner.Opened, repeat bool) (state.Run, error) {
			return r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "other", Repeat: repeat})
		},
	}
	for what, change := range map[string]func(*manifests.Step){
		"sub":   func(*manifests.Step) {},
		"sub.0": func(s *manifests.Step) { s.ForEach, s.MaxParallel = []any{int64(0), int64(1)}, 1 },
	} {
		for name, act := range acts {
			t.Run(name+" and "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w, now := mended(t, what, change)
					before := len(w.exec.list())
					err := second(act(w.r, now(), false))
					bad := (*runner.ConflictError)(nil)
					if !errors.As(err, &bad) || !strings.Contains(bad.Text, "step "+what+"/charge is not idempotent") || !strings.Contains(bad.Hint, "--repeat") {
						t.Fatalf("nobody was asked: %v", err)
					}
					if diff := cmp.Diff(before, len(w.exec.list())); diff != "" {
						t.Errorf("something was begun: %v", w.exec.list())
					}
					if err := second(act(w.r, now(), true)); err != nil {
						t.Fatal(err)
					}
					if got, steps := w.later(now().Run.RunID); got.Status != state.Completed {
						t.Errorf("the run is %s, %v", got.Status, steps)
					}
				})
			})
		}
	}
}

// A retry that somebody has put off is looked at again when its time comes: the sub-run
// may have been reopened meanwhile.
func TestARetryThatWasPutOffDoesNothingTwiceUnasked(t *testing.T) {
	for name, c := range map[string]struct {
		repeat bool
		seen   []string
		why    string
	}{
		"unasked":     {false, []string{"charge.1", "charge.2"}, "no other was begun: sub/charge is not idempotent"},
		"with repeat": {true, []string{"charge.1", "charge.2", "charge.1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, d, run := charging(t, failsFirst(exit(0)), nil)
				w.background()
				time.Sleep(time.Second)
				child, _ := w.look(w.childOf(run, "sub"))
				now, _ := w.look(run.RunID)
				if err := second(w.r.Fail(w.opened(now, d), "uid:7", state.FailedByHand, "")); err != nil {
					t.Fatal(err)
				}
				now, _ = w.look(run.RunID)
				if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "sub", Delay: time.Hour, Repeat: c.repeat})); err != nil {
					t.Fatal(err)
				}
				if err := second(w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "charge"})); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Hour)
				got, steps := w.look(run.RunID)
				if diff := cmp.Diff(c.seen, w.exec.list()); diff != "" {
					t.Error(diff)
				}
				if done := got.Status == state.Completed; done != c.repeat || !strings.Contains(steps["sub"], c.why) {
					t.Errorf("the run is %s, %v", got.Status, steps)
				}
			})
		})
	}
}

// No sub-run is begun beside one that somebody has reopened, unless that is said.
func TestNoSubRunIsBegunBesideAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
			if task.Attempt == 1 && len(w.exec.list()) == 1 {
				return exit(65), nil
			}
			if task.Attempt == 2 {
				return hangs(ctx, task)
			}
			return exit(0), nil
		}
		w.child(nil, "first")
		d := parent(nil, "sub")
		w.r = w.runner(2)
		run := w.start(d, "{}")
		w.background()
		now, _ := w.later(run.RunID)
		child, _ := w.look(w.childOf(run, "sub"))
		if err := second(w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "first"})); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		retry := func(repeat bool) error {
			return second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "sub", Repeat: repeat}))
		}
		bad := (*runner.ConflictError)(nil)
		if err := retry(false); !errors.As(err, &bad) || !strings.Contains(bad.Text, "run "+child.RunID+" was reopened and goes on") {
			t.Fatalf("nobody was asked: %v", err)
		}
		if err := retry(true); err != nil {
			t.Fatal(err)
		}
		if got, steps := w.later(run.RunID); got.Status != state.Completed {
			t.Errorf("the run is %s, %v", got.Status, steps)
		}
	})
}

// What nobody was asked about is not begun, whoever has made it pending.
func TestWhatNobodyWasAskedAboutIsNotBegun(t *testing.T) {
	for _, c := range []struct {
		action         string
		repeat, begins bool
	}{{"once", false, false}, {"once", true, true}, {"go", false, true}} {
		t.Run(fmt.Sprint(c.action, " repeat ", c.repeat), func(t *testing.T) {
			w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
				if task.StepID == "b" {
					return exit(65), nil
				}
				return exit(0), nil
			})
			d := dag(func(d *manifests.DAG) { d.Steps[0].Action = c.action }, "a", "b<a")
			run := w.start(d, "{}")
			w.finish(run.RunID)
			p := func(typ ledger.Type, step string, data any) state.Proposal {
				return state.Proposal{Type: typ, Actor: "uid:7", StepID: step, Data: data}
			}
			if _, err := w.db.Commit(run.RunID, p(ledger.RunReopened, "", &ledger.RunGeneration{Generation: 2}),
				p(ledger.StepInvalidated, "a", &ledger.StepInvalidation{Reason: "retry", Repeat: c.repeat})); err != nil {
				t.Fatal(err)
			}
			w.reopen()
			now, _ := w.look(run.RunID)
			if err := w.r.Resume(context.Background(), "uid:7", w.opened(now, d)); err != nil {
				t.Fatal(err)
			}
			_, steps := w.finish(run.RunID)
			if begins := slices.Contains(w.exec.list(), "a.2"); begins != c.begins {
				t.Errorf("it has begun %v: %v", w.exec.list(), steps)
			}
			if !c.begins && !strings.Contains(steps["a"], "INDETERMINATE") || !c.begins && !strings.Contains(steps["a"], "attempt 1, or one before it, may have done something") {
				t.Errorf("%v", steps)
			}
		})
	}
}

// What people allow holds for a step that was pending already.
func TestWhatIsPendingIsAllowedToBeDoneTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, failsFirst(exit(0)))
		w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge")
		d := dag(func(d *manifests.DAG) {
			s := &d.Steps[1]
			s.Plugin, s.Action, s.DAG = nil, "", "child@1.0.0"
		}, "up", "sub<up")
		w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
			if task.StepID == "charge" && len(w.exec.list()) == 2 {
				return exit(1), nil
			}
			return exit(0), nil
		}
		w.r = w.runner(2)
		run := w.start(d, "{}")
		w.background()
		w.later(run.RunID)
		child, _ := w.look(w.childOf(run, "sub"))
		now := func() runner.Opened {
			now, _ := w.look(run.RunID)
			return w.opened(now, d)
		}
		if err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "up", Downstream: true, Delay: time.Hour})); err != nil {
			t.Fatal(err)
		}
		if err := second(w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "charge"})); err != nil {
			t.Fatal(err)
		}
		w.later(child.RunID)
		if err := second(w.r.Reset(now(), runner.Reset{Actor: "uid:7", StepID: "up"})); codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "sub/charge") {
			t.Fatalf("nobody was asked: %v", err)
		}
		if err := second(w.r.Reset(now(), runner.Reset{Actor: "uid:7", StepID: "up", Repeat: true})); err != nil {
			t.Fatal(err)
		}
		got, steps := w.later(run.RunID)
		if diff := cmp.Diff([]string{"up.1", "charge.1", "charge.2", "up.2", "charge.1"}, w.exec.list()); diff != "" || got.Status != state.Completed {
			t.Errorf("%s %v", diff, steps)
		}
	})
}

// What cleans up a sub-run is about its end: it keeps nobody from beginning another.
func TestWhatHasCleanedUpASubRunIsNotAskedAbout(t *testing.T) {
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "work" {
			return exit(1), nil
		}
		return exit(0), nil
	})
	w.child(func(d *manifests.DAG) {
		d.Steps[1].Action, d.Steps[1].Needs = "once", nil
		d.Steps, d.OnFailure = d.Steps[:1], d.Steps[1:]
	}, "work", "tell")
	d := parent(func(d *manifests.DAG) {
		d.Steps[0].Retry = manifests.Retry{MaxAttempts: 2, Backoff: time.Millisecond, MaxBackoff: time.Millisecond}
	}, "sub")
	run := w.start(d, "{}")
	w.background()
	now, _ := w.ended(run.RunID)
	if diff := cmp.Diff([]string{"work.1", "tell.1", "work.1", "tell.1"}, w.exec.list()); diff != "" {
		t.Error(diff)
	}
	if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "sub"})); err != nil {
		t.Error(err)
	}
}
