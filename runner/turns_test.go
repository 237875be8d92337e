package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// asIs is a run as it is.
func (w *world) asIs(id string, d *manifests.DAG) runner.Opened {
	run, _ := w.look(id)
	return w.opened(run, d)
}

func (w *world) retry(t *testing.T, id string, d *manifests.DAG, q runner.Retry) {
	t.Helper()
	q.Actor = "uid:7"
	if err := second(w.r.Retry(w.asIs(id, d), q)); err != nil {
		t.Fatal(err)
	}
}

func (w *world) fail(t *testing.T, id string, d *manifests.DAG) {
	t.Helper()
	if err := second(w.r.Fail(w.asIs(id, d), "uid:7", state.FailedByHand, "stop")); err != nil {
		t.Fatal(err)
	}
}

func (w *world) skip(t *testing.T, id string, d *manifests.DAG, q runner.Skip) {
	t.Helper()
	q.Actor = "uid:7"
	if err := second(w.r.Skip(w.asIs(id, d), q)); err != nil {
		t.Fatal(err)
	}
}

// executing lets a runner execute until the function that it returns is called.
func (w *world) executing() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.r.Run(ctx, false) }()
	return func() {
		cancel()
		<-done
	}
}

// again is a restart: another runner goes on with the run.
func (w *world) again(t *testing.T, id string, d *manifests.DAG, workers int) (stop func()) {
	t.Helper()
	w.r = w.runner(workers)
	if err := w.r.Resume(context.Background(), "uid:0", w.asIs(id, d)); err != nil {
		t.Fatal(err)
	}
	return w.executing()
}

func refused(t *testing.T, err error) {
	t.Helper()
	var c *runner.ConflictError
	if !errors.As(err, &c) {
		t.Errorf("it is not refused: %v", err)
	}
}

// What is passed over gets other outputs: those that could not read the old ones begin again,
// and with nothing that fails the run any more so does what had lost its turn.
func TestOtherOutputsGiveBackTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"n": {65}}, map[string]time.Duration{"slow": 10 * time.Minute}))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 4
			d.Steps[0].AllowSkip = true
			d.Steps[1].With = map[string]any{"v": "${ steps.n.outputs.v }"}
		}, "n", "y<n", "slow", "z<slow")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(10 * time.Second)
		w.skip(t, run.RunID, d, runner.Skip{StepID: "n"})
		time.Sleep(10 * time.Second)
		w.skip(t, run.RunID, d, runner.Skip{StepID: "n", Output: json.RawMessage(`{"v":1}`)})
		time.Sleep(time.Hour)
		if now, steps := w.look(run.RunID); now.Status != state.Completed || steps["z"] != "completed" {
			t.Errorf("%s %v", now.Status, steps)
		}
	})
}

// Items of a step that may fail get back their turns, too, when the run fails no more.
func TestItemsOfAStepThatMayFailGetTheirTurn(t *testing.T) {
	for _, steps := range [][]string{{"p", "x", "z<p"}, {"p", "x", "slow", "z<p"}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, endsWith(map[string][]int{"p.0": {65}, "x": {65}},
				map[string]time.Duration{"p.1": 10 * time.Second, "x": 5 * time.Second, "slow": 10 * time.Minute}))
			d := dag(func(d *manifests.DAG) {
				d.MaxParallelSteps = 8
				d.Steps[0].ForEach, d.Steps[0].MaxParallel, d.Steps[0].ContinueOnError = []any{"a", "b", "c"}, 1, true
			}, steps...)
			w.r = w.runner(8)
			run := w.start(d, "{}")
			w.background()
			time.Sleep(time.Minute)
			w.retry(t, run.RunID, d, runner.Retry{StepID: "x"})
			time.Sleep(time.Hour)
			if now, steps := w.look(run.RunID); now.Status != state.Completed || steps["p.2"] != "completed" || steps["z"] != "completed" {
				t.Errorf("%s %v", now.Status, steps)
			}
		})
	}
}

// A restart takes no item from its rule, either.
func TestARestartTakesNoItemFromItsRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"each.0": {65}, "each.1": {1}}, map[string]time.Duration{"each.1": 5 * time.Second}))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 4
			d.Steps[0].ForEach = []any{"a", "b"}
			d.Steps[0].Retry = manifests.Retry{MaxAttempts: 2, Backoff: time.Minute, MaxBackoff: time.Minute}
		}, "each")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		stop := w.executing()
		time.Sleep(20 * time.Second)
		stop()
		stop = w.again(t, run.RunID, d, 4)
		time.Sleep(2 * time.Minute)
		if _, steps := w.look(run.RunID); steps["each.1"] != "completed" {
			t.Errorf("%v", steps)
		}
		stop()
	})
}

// An item of a step that will make its list anew is not passed over: nobody knows what it
// will be about.
func TestNoItemIsPassedOverBeforeItsStepBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := endsWith(map[string][]int{"each.1": {65}}, map[string]time.Duration{"y": time.Minute})
		w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
			rep, err := ends(ctx, task)
			if task.StepID == "y" {
				rep.Output = runner.Output{Values: map[string]json.RawMessage{"list": json.RawMessage(`["a","b"]`)}}
			}
			return rep, err
		})
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 4
			d.Steps[1].ForEach, d.Steps[1].AllowSkip = "${ steps.y.outputs.list }", true
		}, "y", "each<y")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(2 * time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "y", Downstream: true})
		time.Sleep(time.Second)
		refused(t, second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7", StepID: "each.1"})))
	})
}

// Nor is one passed over while what reads its step is under way.
func TestNoItemIsPassedOverBeneathItsReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"p.0": {65}}, map[string]time.Duration{"z": 10 * time.Minute}))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			d.Steps[0].ForEach, d.Steps[0].ContinueOnError, d.Steps[0].AllowSkip = []any{"a", "b"}, true, true
		}, "p", "z<p")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		refused(t, second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7", StepID: "p.0"})))
	})
}

// Nobody goes back to a step that would not begin, since another that it needs has failed.
func TestNobodyGoesBackToWhatCannotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"f": {0, 65}}, map[string]time.Duration{"slow": time.Minute}))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps, d.FailFast = 8, false
			d.Steps[3].Checkpoint = &manifests.Checkpoint{Question: "?"}
		}, "f", "y<f", "slow", "z<y,slow")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(10 * time.Second)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "f"})
		time.Sleep(2 * time.Minute)
		recs, _ := w.db.Steps(run.RunID)
		back := decision(recs["z"], "uid:7", "retry")
		back.BackTo = "y"
		refused(t, second(w.r.Decide(w.asIs(run.RunID, d), back)))
		if _, steps := w.look(run.RunID); steps["y"] != "completed" {
			t.Errorf("%v", steps)
		}
	})
}

// Cleanup begins as a whole, also when its beginning is that a part of it is passed over.
func TestCleanupBeginsTogetherAfterASkip(t *testing.T) {
	for _, steps := range []string{"a", "a b<a", "a b<a c<b"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, endsWith(map[string][]int{"a": {65}, "k": {65}}, nil))
			d := dag(func(d *manifests.DAG) {
				d.OnFailure = dag(nil, "k", "g<k", "k3").Steps
				d.OnFailure[0].AllowSkip = true
				d.OnFailure[1].Checkpoint = &manifests.Checkpoint{Question: "?"}
			}, strings.Fields(steps)...)
			w.r = w.runner(8)
			w.background()
			run := w.start(d, "{}")
			time.Sleep(time.Minute)
			w.skip(t, run.RunID, d, runner.Skip{StepID: "k"})
			time.Sleep(time.Hour)
			if _, now := w.look(run.RunID); now["k3"] != "completed" || now["g"] != "checkpoint_pending" {
				t.Errorf("%s: %v", steps, now)
			}
		})
	}
}

// Which step a run has failed for is the same after a restart.
func TestWhatARunFailedForOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"each.0": {65}, "each.1": {1}, "y": {65}},
			map[string]time.Duration{"each.1": 5 * time.Second, "y": 20 * time.Second, "hold": 5 * time.Minute}))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 4
			d.Steps[0].ForEach = []any{"a", "b"}
			d.Steps[0].Retry = manifests.Retry{MaxAttempts: 2, Backoff: time.Minute, MaxBackoff: time.Minute}
			d.OnFailure = dag(nil, "hold").Steps
		}, "each", "y")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		stop := w.executing()
		time.Sleep(time.Minute)
		stop()
		stop = w.again(t, run.RunID, d, 4)
		time.Sleep(time.Hour)
		if now, steps := w.look(run.RunID); now.FailedStep != "y" {
			t.Errorf("it failed for %s: %v", now.FailedStep, steps)
		}
		stop()
	})
}
