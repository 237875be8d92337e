package runner_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// lacks is a run that has failed, with steps and p, the first of them: p.0 has failed by itself,
// which what comes after p does not mind; p.1 has lost its turn, and its sub-run has charged
// since; p.2 has lost its turn. Step x, if there is one, was stopped.
func lacks(t *testing.T, ids ...string) (*world, *manifests.DAG, state.Run) {
	t.Helper()
	w := newWorld(t, stops(unhurried(slowAt(chargeAfter(3, endsWith(nil, nil)), "x.1"))))
	d := dag(func(d *manifests.DAG) {
		charges(w, &d.Steps[0])
		p := &d.Steps[0]
		d.MaxParallelSteps, p.ForEach, p.MaxParallel, p.ContinueOnError = 8, []any{"a", "b", "c"}, 1, true
		p.Retry = manifests.Retry{MaxAttempts: 2, Backoff: 30 * time.Second, MaxBackoff: 30 * time.Second}
	}, ids...)
	w.r = w.runner(8)
	run := w.start(d, "{}")
	w.background()
	for range 40 {
		if _, steps := w.look(run.RunID); strings.HasPrefix(steps["p.0"], "failed") && steps["p.1"] == "queued" {
			break
		}
		time.Sleep(5 * time.Second)
	}
	w.fail(t, run.RunID, d)
	time.Sleep(time.Minute)
	w.charge(t, run, "p.1")
	return w, d, run
}

// What needs a step whose items have lost their turn begins when they are done, whatever it is
// that begins, and with whatever it comes back.
func TestNothingBeginsAheadOfItemsThatLostTheirTurn(t *testing.T) {
	retry := func(q runner.Retry) func(*world, runner.Opened) error {
		return func(w *world, o runner.Opened) error {
			q.Actor = "uid:7"
			return second(w.r.Retry(o, q))
		}
	}
	for name, c := range map[string]struct {
		act     func(*world, runner.Opened) error
		refused string
	}{
		"beside":           {retry(runner.Retry{StepID: "x", Only: true}), ""},
		"by name":          {retry(runner.Retry{StepID: "q"}), "step q needs step p"},
		"an item":          {retry(runner.Retry{StepID: "p.2", Only: true}), ""},
		"an item, repeat":  {retry(runner.Retry{StepID: "p.2", Only: true, Repeat: true}), ""},
		"downstream":       {retry(runner.Retry{StepID: "a", Downstream: true}), ""},
		"downstream, only": {retry(runner.Retry{StepID: "a", Downstream: true, Only: true, Repeat: true}), ""},
		"an item is passed over": {func(w *world, o runner.Opened) error {
			return second(w.r.Skip(o, runner.Skip{Actor: "uid:7", StepID: "p.2", Only: true}))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, d, run := lacks(t, "p", "a", "q<p,a", "x")
				err := c.act(w, w.asIs(run.RunID, d))
				if c.refused == "" && err != nil {
					t.Fatal(refusal(t, err))
				} else if c.refused != "" && !strings.Contains(refusal(t, err), c.refused) {
					t.Error(err)
				}
				time.Sleep(10 * time.Minute)
				if now, steps := w.look(run.RunID); now.Status != state.Failed || steps["q"] == "completed" || !strings.HasPrefix(steps["p.1"], "skipped RUN_") {
					t.Fatalf("the run is %s: %v", now.Status, steps)
				}
				w.skip(t, run.RunID, d, runner.Skip{StepID: "p.1"})
				time.Sleep(10 * time.Minute)
				now, steps := w.look(run.RunID)
				if now.Status == state.Failed { // x is left
					w.retry(t, run.RunID, d, runner.Retry{StepID: "x"})
					time.Sleep(10 * time.Minute)
					now, steps = w.look(run.RunID)
				}
				if now.Status != state.Completed || !strings.HasPrefix(steps["p.2"], "completed") && !strings.HasPrefix(steps["p.2"], "skipped SKIPPED_BY_HAND") || steps["q"] != "completed" {
					t.Errorf("the run is %s %s: %v", now.Status, now.FailureReason, steps)
				}
			})
		})
	}
}

// While nothing ordinary begins any more in an open run, what needs a step that lacks items may be
// passed over: whatever reopens the run gives those their turn.
func TestWhatNeedsAStepThatLacksItemsIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(endsWith(map[string][]int{"p.0": {65}, "z": {65}}, map[string]time.Duration{"z": 30 * time.Second, "p.1": time.Minute, "slow": time.Hour}))))
		d := dag(func(d *manifests.DAG) {
			p := &d.Steps[0]
			d.MaxParallelSteps, p.ForEach, p.MaxParallel, p.ContinueOnError = 8, []any{"a", "b", "c"}, 1, true
			d.Steps[1].AllowSkip = true
		}, "p", "q<p", "z", "slow")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(2 * time.Minute)
		w.skip(t, run.RunID, d, runner.Skip{StepID: "q"})
		time.Sleep(2 * time.Hour)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "z"})
		time.Sleep(2 * time.Hour)
		if now, steps := w.look(run.RunID); now.Status != state.Completed || steps["p.2"] != "completed" {
			t.Errorf("the run is %s: %v", now.Status, steps)
		}
	})
}
