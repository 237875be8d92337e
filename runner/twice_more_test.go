package runner_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// Of a step in a sub-run every sub-run counts, not the last alone.
func TestEverySubRunOfAStepBelowCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		firsts := 0
		w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
			switch task.StepID {
			case "first":
				if firsts++; firsts == 2 {
					return exit(65), nil
				}
			case "after":
				if firsts == 1 {
					return exit(65), nil
				}
			}
			return exit(0), nil
		}
		g := dag(func(d *manifests.DAG) { d.ID = "grand"; d.Steps[1].Action = "once" }, "first", "charge<first", "after<charge")
		w.sealed.publish(g)
		c := dag(func(d *manifests.DAG) {
			d.ID = "child"
			d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG = nil, "", "grand@1.0.0"
		}, "mid")
		w.sealed.publish(c)
		d := parent(nil, "sub")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		w.later(run.RunID)
		now, _ := w.look(run.RunID)
		if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "sub"})); codeOf(err) != "CONFLICT" {
			t.Fatalf("before: %v", err)
		}
		child, _ := w.look(w.childOf(run, "sub"))
		if err := second(w.r.Retry(w.opened(child, c), runner.Retry{Actor: "uid:7", StepID: "mid", Repeat: true})); err != nil {
			t.Fatal(err)
		}
		w.later(child.RunID)
		now, _ = w.look(run.RunID)
		if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "sub"})); codeOf(err) != "CONFLICT" {
			t.Errorf("nobody was asked: %v", err)
		}
	})
}

// Every sub-run that has taken the place of another counts, not the last alone.
func TestASubRunIsNotReopenedBesideAnySuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		firsts := 0
		w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
			switch task.StepID {
			case "first":
				if firsts++; firsts == 1 || firsts == 3 {
					return exit(65), nil
				}
			case "after":
				return exit(65), nil
			}
			return exit(0), nil
		}
		w.child(func(d *manifests.DAG) { d.Steps[1].Action = "once" }, "first", "charge<first", "after<charge")
		d := parent(nil, "sub")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		w.later(run.RunID)
		c1, _ := w.look(w.childOf(run, "sub"))
		for _, repeat := range []bool{false, true} {
			now, _ := w.look(run.RunID)
			if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "sub", Repeat: repeat})); err != nil {
				t.Fatal(err)
			}
			w.later(run.RunID)
		}
		err := second(w.r.Retry(w.opened(c1, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "first"}))
		if codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "has gone on with run") {
			t.Errorf("nobody was asked: %v", err)
		}
	})
}

// A reset in a run that is failing lets it go on, and brings back what was given up.
func TestAResetInAFailingRunAsksAboutWhatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		charged := false
		w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
			switch {
			case task.StepID == "other" && task.Attempt == 1:
				time.Sleep(10 * time.Second)
				return exit(65), nil
			case task.StepID == "slow" && task.Attempt == 1:
				return hangs(ctx, task)
			case task.StepID == "charge" && !charged:
				charged = true
				return exit(1), nil
			}
			return exit(0), nil
		})
		w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge")
		d := parent(func(d *manifests.DAG) {
			d.MaxParallelSteps = 4
			d.Steps[0].Retry = manifests.Retry{MaxAttempts: 3, Backoff: time.Minute, MaxBackoff: time.Minute}
		}, "sub", "other", "slow")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(20 * time.Second)
		child, _ := w.look(w.childOf(run, "sub"))
		if err := second(w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "charge"})); err != nil {
			t.Fatal(err)
		}
		w.later(child.RunID)
		now, _ := w.look(run.RunID)
		o := w.opened(now, d)
		eff, err := w.r.Try(o, func(r *runner.Runner) (state.Run, error) {
			return r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "slow", Repeat: true})
		})
		if diff := cmp.Diff([]string{"sub/charge"}, eff.Twice); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
		if err := second(w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "slow"})); codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "sub/charge") {
			t.Errorf("nobody was asked: %v", err)
		}
	})
}

// An item that was given up for others that have failed stays so while one of them does.
func TestAnItemThatStaysGivenUpIsNotAskedAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := ""
		w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
			switch {
			case first == "":
				first = task.RunID
				return exit(1), nil
			case task.RunID == first:
				return exit(0), nil
			case task.Attempt == 1:
				time.Sleep(5 * time.Second)
				return exit(65), nil
			}
			return exit(0), nil
		})
		w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge")
		d := parent(func(d *manifests.DAG) {
			d.MaxParallelSteps = 4
			s := &d.Steps[0]
			s.Retry = manifests.Retry{MaxAttempts: 3, Backoff: time.Minute, MaxBackoff: time.Minute, RetryOn: []string{"STEP_FAILED"}}
			s.ForEach, s.MaxParallel = []any{int64(0), int64(1), int64(2)}, 3
		}, "sub")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		now, steps := w.later(run.RunID)
		child, _ := w.look(first)
		if err := second(w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "charge"})); err != nil {
			t.Fatal(err)
		}
		w.later(child.RunID)
		for id, s := range steps {
			if strings.HasPrefix(s, "failed") && strings.Contains(id, ".") {
				if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: id})); err != nil {
					t.Error(err)
				}
				return
			}
		}
		t.Errorf("no item has failed: %v", steps)
	})
}

func TestATrialOfARestartSaysWhatIsDoneTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) { return hangs(ctx, task) })
		d := dag(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "a")
		w.r = w.runner(2)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Second)
		now, _ := w.look(run.RunID)
		o := w.opened(now, d)
		for what, act := range map[string]func(*runner.Runner) (state.Run, error){
			"a restart": func(r *runner.Runner) (state.Run, error) { return r.Restart(o, "uid:7", "", "a", true) },
			"a reset": func(r *runner.Runner) (state.Run, error) {
				return r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "a", Repeat: true})
			},
		} {
			if eff, err := w.r.Try(o, act); err != nil || !slices.Equal(eff.Twice, []string{"a"}) {
				t.Errorf("%s: %v, %v", what, eff.Twice, err)
			}
		}
	})
}

// While another step fails the run nothing begins: a retry would take back what is done.
func TestARetryInAFailingRunIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
			switch task.StepID {
			case "a":
				time.Sleep(2 * time.Second)
				return exit(65), nil
			case "slow":
				time.Sleep(time.Minute)
			}
			return exit(0), nil
		})
		d := dag(func(d *manifests.DAG) { d.MaxParallelSteps = 4 }, "a", "b", "slow")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(5 * time.Second)
		now, before := w.look(run.RunID)
		err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "b"}))
		if codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "step a has failed, and run") {
			t.Errorf("it is not refused: %v", err)
		}
		if _, after := w.look(run.RunID); cmp.Diff(before, after) != "" {
			t.Errorf("something was decided: %v", after)
		}
	})
}
