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

// refusal is the text and the hint of a conflict.
func refusal(t *testing.T, err error) string {
	t.Helper()
	bad := (*runner.ConflictError)(nil)
	if !errors.As(err, &bad) {
		t.Fatalf("not refused: %v", err)
	}
	return bad.Text + "; " + bad.Hint
}

// say decides an approval of a step.
func (w *world) say(t *testing.T, run state.Run, d *manifests.DAG, step, what, back string) error {
	t.Helper()
	rec, err := w.db.Step(run.RunID, step)
	if err != nil || rec.Approval == nil {
		t.Fatalf("%s: %v %+v", step, err, rec)
	}
	x := decision(rec, "uid:9", what)
	x.BackTo = back
	return second(w.r.Decide(w.asIs(run.RunID, d), x))
}

// A step that has succeeded keeps what it has given where it could not begin again: another that
// it needs has ended otherwise, and stays so.
func TestWhatCouldNotBeginKeepsWhatItHasGiven(t *testing.T) {
	ask := &manifests.Checkpoint{Question: "?"}
	for name, c := range map[string]struct {
		codes map[string][]int
		steps func(d *manifests.DAG)
		ids   []string
		left  bool // the end of the run takes x its approval
		act   func(*testing.T, *world, *manifests.DAG, state.Run) error
	}{
		"a decision goes back": {nil, func(d *manifests.DAG) { d.Steps[3].Checkpoint = ask }, []string{"x", "y<x", "slow", "z<y,slow"}, true,
			func(t *testing.T, w *world, d *manifests.DAG, run state.Run) error {
				w.retry(t, run.RunID, d, runner.Retry{StepID: "slow"})
				time.Sleep(time.Minute)
				return w.say(t, run, d, "z", "retry", "y")
			}},
		"a retry with what depends on it": {nil, nil, []string{"x", "n", "y<x,n", "slow"}, true,
			func(_ *testing.T, w *world, d *manifests.DAG, run state.Run) error {
				return second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "n", Downstream: true}))
			}},
		"the same, and x has failed by itself": {map[string][]int{"x": {0, 65}}, nil, []string{"x", "n", "y<x,n", "slow"}, false,
			func(_ *testing.T, w *world, d *manifests.DAG, run state.Run) error {
				return second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "n", Downstream: true}))
			}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stops(unhurried(slowAtFirst(endsWith(c.codes, nil), "slow"))))
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps, d.FailFast = 8, false
					if d.Steps[0].Action = "once"; c.left {
						d.Steps[0].Checkpoint = ask
					}
					if c.steps != nil {
						c.steps(d)
					}
				}, c.ids...)
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				if c.left {
					if err := w.say(t, run, d, "x", "continue", ""); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Minute)
				}
				w.retry(t, run.RunID, d, runner.Retry{StepID: "x"})
				time.Sleep(time.Minute)
				if c.left {
					w.fail(t, run.RunID, d)
					time.Sleep(time.Minute)
				}
				if got := refusal(t, c.act(t, w, d, run)); !strings.Contains(got, "step y needs step x") {
					t.Error(got)
				}
				time.Sleep(time.Minute)
				if _, steps := w.look(run.RunID); steps["y"] != "completed" {
					t.Errorf("y has lost what it gave: %v", steps)
				}
			})
		})
	}
}

// A for_each of which no item has begun has done nothing: it comes back, and nobody is asked.
func TestAForEachThatHasDoneNothingComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(slowAt(endsWith(nil, nil), "x.1", "z.1"))))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 2
			d.Steps[0].Action = "once"
			d.Steps[2].ForEach, d.Steps[2].Action = []any{"a", "b"}, "once"
		}, "x", "z", "zz")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "z"})
		time.Sleep(time.Minute)
		if now, steps := w.look(run.RunID); now.FailedStep != "x" || steps["zz"] != "completed" {
			t.Errorf("the run has failed for %s: %v", now.FailedStep, steps)
		}
	})
}

// What has lost its approval behind a step that is begun again stays as it is, as docs/orchestration.md says.
func TestWhatLostItsApprovalBehindWhatIsNamedStays(t *testing.T) {
	for name, act := range map[string]func(*world, runner.Opened) error{
		"retry": func(w *world, o runner.Opened) error {
			return second(w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "n"}))
		},
		"reset": func(w *world, o runner.Opened) error {
			return second(w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "n"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stops(endsWith(nil, nil)))
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps = 8
					d.Steps[1].Action, d.Steps[1].Checkpoint = "once", &manifests.Checkpoint{Question: "?"}
				}, "n", "y<n")
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				w.fail(t, run.RunID, d)
				time.Sleep(time.Minute)
				if err := act(w, w.asIs(run.RunID, d)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				now, steps := w.look(run.RunID)
				if rec, _ := w.db.Step(run.RunID, "y"); now.Status != state.Failed || now.FailedStep != "y" || rec.Attempt != 1 {
					t.Errorf("%s for %q, y in attempt %d: %v", now.Status, now.FailedStep, rec.Attempt, steps)
				}
				w.retry(t, run.RunID, d, runner.Retry{StepID: "y"})
				time.Sleep(time.Minute)
				if err := w.say(t, run, d, "y", "continue", ""); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if now, steps := w.look(run.RunID); now.Status != state.Completed {
					t.Errorf("the run is %s: %v", now.Status, steps)
				}
			})
		})
	}
}

// Of what has to be done twice only that is which was named: s, which was stopped as well, stays.
func TestOnlyLeavesWhatNobodyHasNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(slowAt(endsWith(nil, nil), "s.1", "p.2.2"))))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			d.Steps[1].ForEach, d.Steps[1].Action = []any{"a", "b", "c"}, "once"
			d.Steps[2].Action, d.Steps[2].AllowSkip = "once", true
		}, "a", "p<a", "s<p")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "p"})
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "a"}) // p.0 and p.1 have read what it gave before
		time.Sleep(time.Minute)

		o := w.asIs(run.RunID, d)
		if got := refusal(t, second(w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "p"}))); !strings.Contains(got, "steps p.0, p.1, s are not idempotent") || !strings.HasSuffix(got, "with --repeat --only these are not among that, and stay as they are: s") {
			t.Error(got)
		}
		if got := refusal(t, second(w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "p", Only: true}))); !strings.Contains(got, "steps p.0, p.1 are not idempotent") {
			t.Error(got)
		}
		w.retry(t, run.RunID, d, runner.Retry{StepID: "p", Repeat: true, Only: true})
		time.Sleep(time.Minute)
		now, steps := w.look(run.RunID)
		if rec, _ := w.db.Step(run.RunID, "s"); now.Status != state.Failed || now.FailedStep != "s" || steps["p"] != "completed" || rec.Attempt != 1 {
			t.Errorf("%s for %q, s in attempt %d: %v", now.Status, now.FailedStep, rec.Attempt, steps)
		}
		w.skip(t, run.RunID, d, runner.Skip{StepID: "s"})
		time.Sleep(time.Minute)
		if now, steps := w.look(run.RunID); now.Status != state.Completed {
			t.Errorf("the run is %s: %v", now.Status, steps)
		}
	})
}

// A sub-run that somebody mends by itself, and that its step has lost its turn with, is in nobody's
// way: the step before it is begun again, and then it is passed over.
func TestASubRunMendedByItselfIsInNobodysWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(slowAt(endsWith(map[string][]int{"charge": {65}}, nil), "n.2"))))
		w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge")
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			d.Steps[0].Action = "once"
			c := &d.Steps[1]
			c.Plugin, c.Action, c.DAG, c.AllowSkip = nil, "", "child@1.0.0", true
			c.Retry = manifests.Retry{MaxAttempts: 3, Backoff: time.Hour, MaxBackoff: time.Hour}
		}, "n", "c<n")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "n"})
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		time.Sleep(time.Minute)
		now, _ := w.look(run.RunID)
		child := w.childOf(now, "c")
		w.retry(t, child, w.sealed.dags["child@1.0.0"], runner.Retry{StepID: "charge"})
		time.Sleep(time.Minute)

		if got := refusal(t, second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7", StepID: "c"}))); !strings.Contains(got, "retry "+run.RunID+" --step n") {
			t.Error(got)
		}
		w.retry(t, run.RunID, d, runner.Retry{StepID: "n"})
		time.Sleep(time.Minute)
		w.skip(t, run.RunID, d, runner.Skip{StepID: "c"})
		time.Sleep(time.Minute)
		if now, steps := w.look(run.RunID); now.Status != state.Completed {
			t.Errorf("the run is %s: %v", now.Status, steps)
		}
		if now := w.childOf(now, "c"); now != child {
			t.Errorf("another sub-run was begun: %s, before %s", now, child)
		}
	})
}
