package runner_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

type execFunc = func(context.Context, runner.Task) (runner.Report, error)

// slowAt is an executor of which some attempts, STEP.N, take an hour.
func slowAt(others execFunc, attempts ...string) execFunc {
	return func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if slices.Contains(attempts, fmt.Sprint(task.StepID, ".", task.Attempt)) {
			select {
			case <-time.After(time.Hour):
			case <-ctx.Done():
			}
		}
		return others(ctx, task)
	}
}

// chargeAfter answers for the step charge of sub-runs, which fails so often first.
func chargeAfter(failures int, others execFunc) execFunc {
	left := atomic.Int64{}
	left.Store(int64(failures))
	return func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID != "charge" {
			return others(ctx, task)
		}
		if left.Add(-1) >= 0 {
			return exit(65), nil
		}
		return exit(0), nil
	}
}

// charges makes a step one with sub-runs that charge, which a rule begins again in an hour.
func charges(w *world, s *manifests.Step) {
	w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge")
	s.Plugin, s.Action, s.DAG, s.AllowSkip = nil, "", "child@1.0.0", true
	s.Retry = manifests.Retry{MaxAttempts: 3, Backoff: time.Hour, MaxBackoff: time.Hour}
}

// charge lets somebody see to a sub-run of a step by itself, and returns that.
func (w *world) charge(t *testing.T, run state.Run, step string) string {
	t.Helper()
	now, _ := w.look(run.RunID)
	child := w.childOf(now, step)
	w.retry(t, child, w.sealed.dags["child@1.0.0"], runner.Retry{StepID: "charge"})
	time.Sleep(time.Minute)
	return child
}

// What loses its approval because a run goes down stays with --only also while that is open.
func TestOnlyLeavesWhatAnOpenRunHasLost(t *testing.T) {
	for name, act := range map[string]func(*world, runner.Opened) error{
		"retry": func(w *world, o runner.Opened) error {
			return second(w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "x", Only: true}))
		},
		"retry, repeat": func(w *world, o runner.Opened) error {
			return second(w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "x", Repeat: true, Only: true}))
		},
		"reset": func(w *world, o runner.Opened) error {
			return second(w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "slow", Repeat: true, Only: true}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stops(unhurried(endsWith(map[string][]int{"x": {65}}, map[string]time.Duration{"slow": time.Hour, "x": 30 * time.Second}))))
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps = 8
					d.Steps[1].Action, d.Steps[1].Checkpoint = "once", &manifests.Checkpoint{Question: "?"}
				}, "x", "y", "slow")
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				if err := act(w, w.asIs(run.RunID, d)); err != nil {
					t.Fatal(refusal(t, err))
				}
				time.Sleep(3 * time.Hour)
				now, steps := w.look(run.RunID)
				if rec, _ := w.db.Step(run.RunID, "y"); rec.Attempt != 1 || now.Status != state.Failed {
					t.Errorf("y is in attempt %d, the run %s: %v", rec.Attempt, now.Status, steps)
				}
			})
		})
	}
}

// Items that have lost their turn stay one by one: each is seen to in its own turn, and none is
// begun again that nobody has named.
func TestItemsThatLostTheirTurnAreSeenToOneByOne(t *testing.T) {
	for name, act := range map[string]func(*world, runner.Opened, string) error{
		"skip": func(w *world, o runner.Opened, id string) error {
			return second(w.r.Skip(o, runner.Skip{Actor: "uid:7", StepID: id}))
		},
		"skip, repeat only": func(w *world, o runner.Opened, id string) error {
			return second(w.r.Skip(o, runner.Skip{Actor: "uid:7", StepID: id, Repeat: true, Only: true}))
		},
		"retry, repeat only": func(w *world, o runner.Opened, id string) error {
			return second(w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: id, Repeat: true, Only: true}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stops(unhurried(chargeAfter(2, endsWith(nil, nil)))))
				d := dag(func(d *manifests.DAG) {
					charges(w, &d.Steps[0])
					d.MaxParallelSteps, d.Steps[0].ForEach = 8, []any{"a", "b"}
				}, "p")
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				w.fail(t, run.RunID, d)
				time.Sleep(time.Minute)
				w.charge(t, run, "p.0")
				other := w.charge(t, run, "p.1")
				if err := act(w, w.asIs(run.RunID, d), "p.0"); err != nil {
					t.Fatal(refusal(t, err))
				}
				time.Sleep(time.Minute)
				now, steps := w.look(run.RunID)
				if x := w.childOf(now, "p.1"); x != other || now.Status != state.Failed {
					t.Fatalf("p.1 has run %s, before %s; the run is %s: %v", x, other, now.Status, steps)
				}
				w.skip(t, run.RunID, d, runner.Skip{StepID: "p.1"})
				time.Sleep(time.Minute)
				if now, steps := w.look(run.RunID); now.Status != state.Completed {
					t.Errorf("the run is %s: %v", now.Status, steps)
				}
			})
		})
	}
}

// Repeat of what is named only is no word about what comes back with it: that has done nothing
// yet, and is looked at once more when it begins.
func TestRepeatOnlyIsNotAboutWhatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(slowAt(chargeAfter(1, endsWith(nil, nil)), "n.2"))))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			charges(w, &d.Steps[1])
		}, "n", "c<n")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "n", Repeat: true, Only: true})
		time.Sleep(time.Minute)
		child := w.charge(t, run, "c")
		time.Sleep(2 * time.Hour)
		now, steps := w.look(run.RunID)
		if x := w.childOf(now, "c"); x != child {
			t.Errorf("c has another sub-run: %v", steps)
		}
	})
}

// With what depends on it a step is begun again where some of that has given nothing, and could
// not begin; it is refused where something has that would lose it, also further down.
func TestWhatDependsOnAStepKeepsWhatItHasGiven(t *testing.T) {
	for name, c := range map[string]struct {
		step    func(*manifests.Step)
		y       []int
		again   bool // y has succeeded, and fails when it is begun again
		refused string
	}{
		"disabled":        {func(s *manifests.Step) { s.Disabled = true }, nil, false, ""},
		"condition false": {func(s *manifests.Step) { s.When = "false" }, nil, false, ""},
		"failed":          {func(s *manifests.Step) { s.ContinueOnError = true }, []int{65}, false, ""},
		"further down":    {func(*manifests.Step) {}, []int{0, 65}, true, "step z needs step x"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stops(unhurried(endsWith(map[string][]int{"x": {0, 65}, "m": {65}, "y": c.y}, map[string]time.Duration{"slow": 10 * time.Hour}))))
				ids := []string{"x", "n", "y<x,n", "m<n", "slow"}
				if c.again {
					ids = append(ids, "z<y")
				}
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps, d.FailFast = 8, false
					c.step(&d.Steps[2])
				}, ids...)
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				if c.again {
					w.retry(t, run.RunID, d, runner.Retry{StepID: "y"})
					time.Sleep(time.Minute)
				}
				w.retry(t, run.RunID, d, runner.Retry{StepID: "x"})
				time.Sleep(time.Minute)
				err := second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "n", Downstream: true}))
				if c.refused == "" && err != nil {
					t.Error(refusal(t, err))
				} else if c.refused != "" && !strings.Contains(refusal(t, err), c.refused) {
					t.Error(err)
				}
			})
		})
	}
}

// What the cleanup has lost of its turn stays where it must not be done twice, as in the rest of a run.
func TestCleanupThatMustNotBeDoneTwiceStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(chargeAfter(1, endsWith(map[string][]int{"x": {65}, "c1": {0, 65, 0}}, nil)))))
		d := dag(func(d *manifests.DAG) {
			d.OnFailure = dag(nil, "c1", "c2<c1").Steps
			charges(w, &d.OnFailure[1])
			d.MaxParallelSteps, d.OnFailure[1].Retry = 8, manifests.Retry{}
		}, "x")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "c1", Downstream: true})
		time.Sleep(time.Minute)
		child := w.charge(t, run, "c2")
		w.retry(t, run.RunID, d, runner.Retry{StepID: "c1"})
		time.Sleep(time.Minute)
		w.skip(t, run.RunID, d, runner.Skip{StepID: "c2"})
		time.Sleep(time.Minute)
		now, steps := w.look(run.RunID)
		if x := w.childOf(now, "c2"); x != child || steps["c1"] != "completed" {
			t.Errorf("c2 has run %s, before %s: %v", x, child, steps)
		}
	})
}

// Only is about others than the step that is named: somebody has to name one.
func TestOnlyNeedsAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(endsWith(nil, map[string]time.Duration{"a": time.Hour, "s": time.Hour}))))
		d := dag(func(d *manifests.DAG) { d.MaxParallelSteps, d.Steps[0].Action = 8, "once" }, "a", "s")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.fail(t, run.RunID, d)
		time.Sleep(time.Minute)
		if got := refusal(t, second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", Repeat: true, Only: true}))); !strings.Contains(got, "--step") {
			t.Error(got)
		}
	})
}
