package runner_test

import (
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// What has failed when it was done again has readers that are under way.
func TestWhatFailedTheSecondTimeIsNotPassedOverBeneathItsReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"a": {0, 65}}, map[string]time.Duration{"slow": time.Minute, "z.0": time.Minute, "z.1": 10 * time.Minute}))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps, d.FailFast = 8, false
			d.Steps[0].AllowSkip = true
			d.Steps[3].With = map[string]any{"v": "${ has(steps.a.outputs.v) ? steps.a.outputs.v : 0 }"}
			d.Steps[3].ForEach, d.Steps[3].MaxParallel = []any{"x", "y", "z"}, 1
		}, "a", "b<a", "slow", "z<b,slow")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(10 * time.Second)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "a"})
		time.Sleep(80 * time.Second)
		refused(t, second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "a"})))
		refused(t, second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7", StepID: "a", Output: json.RawMessage(`{"v":1}`)})))
		time.Sleep(time.Hour)
		recs, _ := w.db.Steps(run.RunID)
		for _, id := range []string{"z.0", "z.1", "z.2"} {
			a, _ := w.db.Attempt(run.RunID, id, recs[id].Attempt)
			_, _ = w.sealed.Read(a.Start.InputsHash, 1000)
		}
	})
}

// Nothing begins behind a step that was passed over before what that needs, whatever is passed
// over then.
func TestNothingBeginsBeforeWhatComesBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"f": {65}}, map[string]time.Duration{"f": 10 * time.Second, "z": 10 * time.Minute}))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps, d.FailFast = 8, false
			d.Steps[0].AllowSkip = true
			d.Steps[2].AllowSkip = true
		}, "f", "p<f", "q<p", "z<q")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(5 * time.Second)
		w.skip(t, run.RunID, d, runner.Skip{StepID: "q"})
		time.Sleep(time.Minute)
		if _, steps := w.look(run.RunID); steps["z"] != "skipped UPSTREAM_FAILED" {
			t.Errorf("f has failed: %v", steps)
		}
		w.skip(t, run.RunID, d, runner.Skip{StepID: "f"})
		time.Sleep(time.Hour)
		if now, _ := w.look(run.RunID); now.Status != state.Completed {
			t.Errorf("%s %s", now.Status, now.FailureReason)
		}
		if got := w.exec.list(); !slices.Equal(got, []string{"f.1", "p.1", "z.1"}) {
			t.Errorf("begun: %v", got)
		}
	})
}

// An item of a step that is not needed is neither begun again nor passed over.
func TestAnItemOfAStepThatIsNotNeededIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, gives(map[string][]string{"a": {"true", "false"}}, endsWith(map[string][]int{"p.0": {65}, "p.1": {65}, "x": {65, 65, 65}}, map[string]time.Duration{"x": time.Minute})))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps, d.FailFast = 8, false
			d.Steps[1].ForEach, d.Steps[1].MaxParallel = []any{"a", "b", "c"}, 2
			d.Steps[1].When = "steps.a.outputs.v"
			d.Steps[1].AllowSkip = true
		}, "a", "p<a", "z<p", "x")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(2 * time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "a"})
		time.Sleep(2 * time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "p.0"})
		time.Sleep(2 * time.Minute)
		refused(t, second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "p.1"})))
		refused(t, second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7", StepID: "p.1"})))
		time.Sleep(2 * time.Minute)
	})
}
