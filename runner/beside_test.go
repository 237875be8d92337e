package runner_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// A trial with repeat names what another sub-run has done.
func TestATrialNamesWhatAnotherSubRunHasDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, younger := siblings(t, 2)
		o := younger()
		eff, err := w.r.Try(o, func(r *runner.Runner) (state.Run, error) {
			return r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "first", Repeat: true})
		})
		if err != nil || !slices.Contains(eff.Twice, "sub/charge") {
			t.Errorf("the trial names %v, %v", eff.Twice, err)
		}
	})
}

// What an older sub-run has done since a younger one was begun beside it is asked about
// where that is reopened.
func TestAnOlderSubRunThatWasOpenCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		var firsts atomic.Int32
		w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
			if task.StepID == "first" {
				switch firsts.Add(1) {
				case 1:
					return exit(65), nil
				case 2: // older one, reopened
					time.Sleep(time.Hour)
				case 3:
					return exit(65), nil
				}
			}
			return exit(0), nil
		}
		w.child(func(d *manifests.DAG) { d.Steps[1].Action = "once" }, "first", "charge<first")
		d := parent(nil, "sub")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		c1 := w.childOf(run, "sub")
		open := func(id string) runner.Opened { r, _ := w.look(id); return w.opened(r, w.sealed.dags["child@1.0.0"]) }
		if err := second(w.r.Retry(open(c1), runner.Retry{Actor: "uid:7", StepID: "first"})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		r, _ := w.look(run.RunID)
		if err := second(w.r.Retry(w.opened(r, d), runner.Retry{Actor: "uid:7", StepID: "sub", Repeat: true})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		c2 := w.childOf(run, "sub")
		time.Sleep(2 * time.Hour)
		if err := second(w.r.Retry(open(c2), runner.Retry{Actor: "uid:8", StepID: "first"})); codeOf(err) != "CONFLICT" {
			t.Errorf("nobody was asked: %v", err)
		}
		time.Sleep(time.Hour)
		if n := count(w.exec.list(), "charge."); n != 1 {
			t.Errorf("charge was done %d times, and who reopened the younger was not asked: %v", n, w.exec.list())
		}
	})
}

// What cleans up in a sub-run that another has followed can be mended.
func TestCleanupBelowAnOlderSubRunGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		var firsts, tidies atomic.Int32
		w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
			if task.StepID == "first" && firsts.Add(1) == 1 {
				return exit(1), nil
			}
			if task.StepID == "tidy" && tidies.Add(1) == 1 {
				return exit(65), nil
			}
			return exit(0), nil
		}
		k := dag(func(d *manifests.DAG) { d.ID = "clean" }, "tidy")
		w.sealed.publish(k)
		w.child(func(d *manifests.DAG) {
			d.Steps[1].Action = "once"
			d.OnFailure = dag(func(d *manifests.DAG) {
				d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG = nil, "", "clean@1.0.0"
			}, "k").Steps
		}, "first", "charge<first")
		d := parent(func(d *manifests.DAG) {
			d.Steps[0].Retry = manifests.Retry{MaxAttempts: 2, Backoff: time.Hour, MaxBackoff: time.Hour}
		}, "sub")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		c1 := w.childOf(run, "sub")
		r1, _ := w.look(c1)
		k1 := w.childOf(r1, "k")
		time.Sleep(3 * time.Hour)
		rk, _ := w.look(k1)
		err := second(w.r.Retry(w.opened(rk, k), runner.Retry{Actor: "uid:7", StepID: "tidy"}))
		if err != nil {
			t.Errorf("the cleanup of the older sub-run cannot be mended: %v", err)
		}
		time.Sleep(time.Hour)
	})
}
