package runner_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

func TestWhatIsGivenToAStepByHandReachesItsItems(t *testing.T) {
	for _, how := range []string{"retry", "decision"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, nil)
			w.takesX()
			bad := how == "retry"
			w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
				if bad && task.StepID == "a.1" {
					return exit(3), nil
				}
				return says(ctx, task)
			}
			d := dag(func(d *manifests.DAG) {
				d.FailFast = false
				d.Steps[0].ForEach, d.Steps[0].MaxParallel = []any{int64(0), int64(1)}, 1
				d.Steps[0].With = map[string]any{"x": "${ item }"}
				if how == "decision" {
					d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "?"}
				}
			}, "a")
			run := w.start(d, "{}")
			want := map[string]string{"a.0": `{"x":0}`, "a.1": `{"x":7}`}
			if how == "retry" {
				got, _ := w.finish(run.RunID)
				bad = false
				w.r = w.runner(1)
				if _, err := w.r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", Input: json.RawMessage(`{"x":7}`)}); err != nil {
					t.Fatal(err)
				}
				w.finish(run.RunID)
			} else {
				w.background()
				m := decision(w.asked(run.RunID, "a"), "uid:7", "retry")
				m.Modifications, want["a.0"] = json.RawMessage(`{"x":7}`), `{"x":7}`
				if _, err := w.r.Decide(w.opened(run, d), m); err != nil {
					t.Fatal(err)
				}
				w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool {
					return s["a"].Status == state.CheckpointPending && s["a"].Attempt == 2
				})
			}
			recs, err := w.db.Steps(run.RunID)
			if err != nil {
				t.Fatal(err)
			}
			for id, out := range want {
				if got := w.blob(recs[id].OutputsHash); got != out {
					t.Errorf("%s gave %s, want %s", id, got, out)
				}
			}
		})
	}
}

func TestADelayByHandHoldsForItems(t *testing.T) {
	w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) { return exit(3), nil })
	d := dag(func(d *manifests.DAG) {
		d.FailFast = false
		d.Steps[0].ForEach = []any{int64(1), int64(2)}
		d.Steps[1].Plugin, d.Steps[1].Action = nil, ""
		d.Steps[1].Checkpoint = &manifests.Checkpoint{Question: "?"}
	}, "a", "gate<a")
	run := w.start(d, "{}")
	got, _ := w.finish(run.RunID)
	r := w.idle()
	before := time.Now()
	if _, err := r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: "gate", Delay: time.Hour}); codeOf(err) != "INVALID" {
		t.Errorf("a gate is put off: %v", err)
	}
	if _, err := r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", Delay: time.Hour}); err != nil {
		t.Fatal(err)
	}
	recs, err := w.db.Steps(run.RunID)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a.0", "a.1"} {
		due, err := stamp.Parse(recs[id].Due)
		if err != nil || due.Before(before.Add(time.Hour)) {
			t.Errorf("%s is %s, due at %q", id, recs[id].Status, recs[id].Due)
		}
	}
}

// Items that were not there yet when somebody changed and put off their step are
// treated like those that were.
func TestItemsThatComeLaterAreGivenWhatTheirStepWas(t *testing.T) {
	w := newWorld(t, nil)
	w.takesX()
	n := int64(0)
	w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "src" {
			r := exit(0)
			r.Output.Values = map[string]json.RawMessage{"x": json.RawMessage(fmt.Sprint(n))}
			return r, nil
		}
		return says(ctx, task)
	}
	d := dag(func(d *manifests.DAG) {
		d.Steps[1].ForEach = "${ steps.src.outputs.x == 0 ? [1] : [1, 2] }"
		d.Steps[1].With = map[string]any{"x": "${ item }"}
	}, "src", "f<src", "stop<f")
	d.Steps[2].When = "1 / 0 == 1"
	run := w.start(d, "{}")
	got, _ := w.finish(run.RunID)
	w.r, n = w.runner(1), 1
	if _, err := w.r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: "f", Input: json.RawMessage(`{"x":9}`)}); err != nil {
		t.Fatal(err)
	}
	got, _ = w.finish(run.RunID)
	w.r = w.runner(1)
	if _, err := w.r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: "src", Downstream: true}); err != nil {
		t.Fatal(err)
	}
	w.finish(run.RunID)
	recs, err := w.db.Steps(run.RunID)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, id := range []string{"f.0", "f.1"} {
		out[id] = w.blob(recs[id].OutputsHash)
	}
	if diff := cmp.Diff(map[string]string{"f.0": `{"x":9}`, "f.1": `{"x":9}`}, out); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
}

// Of items that were interrupted, it may be known of one that it is done, and of
// another that it is not.
func TestItemsAreMendedOneByOne(t *testing.T) {
	bad := true
	var both sync.WaitGroup
	both.Add(2)
	w := newWorld(t, nil)
	w.takesX()
	w.sealed.plugin.Plugin.Actions["once"] = manifests.Action{Params: "x.json", Outputs: "x.json"}
	w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if bad && (task.StepID == "f.0" || task.StepID == "f.1") {
			both.Done()
			both.Wait()
			return runner.Report{Stop: runner.StopShutdown}, nil
		}
		return says(ctx, task)
	}
	d := dag(func(d *manifests.DAG) {
		d.MaxParallelSteps = 2
		s := &d.Steps[0]
		s.Action, s.AllowSkip, s.MaxParallel = "once", true, 2
		s.ForEach, s.With = []any{int64(0), int64(1), int64(2)}, map[string]any{"x": "${ item }"}
		d.Steps[1].With = map[string]any{"x": "${ steps.f.outputs.items.map(i, i.x) == [70, 71, 2] ? 1 : 0 }"}
	}, "f", "after<f")
	w.r = w.runner(2)
	run := w.start(d, "{}")
	got, steps := w.finish(run.RunID)
	if got.FailureReason != "INDETERMINATE" || steps["f.0"] != "failed INDETERMINATE" || steps["f.1"] != "failed INDETERMINATE" {
		t.Fatalf("the run is %s: %v", got.FailureReason, steps)
	}
	bad = false
	if _, err := w.idle().Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: "f.1", Input: json.RawMessage(`{"x":"y"}`)}); codeOf(err) != "INVALID" {
		t.Errorf("an input that an item does not take: %v", err)
	}
	if _, err := w.idle().Skip(w.opened(got, d), runner.Skip{Actor: "uid:7", Reason: "done", StepID: "f.0", Output: json.RawMessage(`{"x":"y"}`)}); codeOf(err) != "INVALID" {
		t.Errorf("an output that is not what an item promises: %v", err)
	}
	again := func(do func(r *runner.Runner, o runner.Opened) error) map[string]string {
		t.Helper()
		run, err := w.db.Run(run.RunID)
		if err != nil {
			t.Fatal(err)
		}
		w.r = w.runner(1)
		if err := do(w.r, w.opened(run, d)); err != nil {
			t.Fatal(err)
		}
		_, steps := w.finish(run.RunID)
		return steps
	}
	steps = again(func(r *runner.Runner, o runner.Opened) error {
		_, err := r.Skip(o, runner.Skip{Actor: "uid:7", Reason: "done", StepID: "f.0", Output: json.RawMessage(`{"x":70}`)})
		return err
	})
	if steps["f.1"] != "failed INDETERMINATE" || steps["f"] != "failed INDETERMINATEitem f.1" || steps["f.2"] != "skipped RUN_FAILING" {
		t.Fatalf("after one was passed over: %v", steps)
	}
	steps = again(func(r *runner.Runner, o runner.Opened) error {
		_, err := r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "f.1", Input: json.RawMessage(`{"x":71}`)})
		return err
	})
	want := map[string]string{"f": "completed", "f.0": "skipped SKIPPED_BY_HAND", "f.1": "completed", "f.2": "completed", "after": "completed"}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	recs, err := w.db.Steps(run.RunID)
	if err != nil {
		t.Fatal(err)
	}
	if out := w.blob(recs["after"].OutputsHash); out != `{"x":1}` || recs["f.0"].Attempt != 1 {
		t.Errorf("after gave %s, f.0 has %d attempts", out, recs["f.0"].Attempt)
	}
}

// Of a step that is begun again each item is still one step: it is counted once.
func TestItemsThatStayAreCounted(t *testing.T) {
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "f.2" {
			return exit(3), nil
		}
		return exit(0), nil
	})
	d := dag(func(d *manifests.DAG) { d.Steps[1].ForEach = []any{int64(0), int64(1), int64(2)} }, "src", "f<src")
	run := w.start(d, "{}")
	got, _ := w.finish(run.RunID)
	for _, step := range []string{"src", "f"} { // so that f waits for src
		var err error
		if got, err = w.idle().Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: step}); err != nil {
			t.Fatal(err)
		}
	}
	if n := got.Pending(); n != 4 { // f and its items, which have not read what src gives now
		t.Errorf("%d steps are pending: %+v of %d items", n, got.Counts, got.Items)
	}
}

// What cleans up after a later failure does so for all items, also for those that had
// completed the first time.
func TestItemsOfCleanupAreDoneAgainAfterAReopening(t *testing.T) {
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "n.0" {
			return exit(0), nil
		}
		return exit(3), nil
	})
	d := dag(func(d *manifests.DAG) {
		d.OnFailure = dag(nil, "n").Steps
		d.OnFailure[0].ForEach, d.OnFailure[0].MaxParallel = []any{int64(0), int64(1)}, 1
	}, "a")
	run := w.start(d, "{}")
	got, _ := w.finish(run.RunID)
	w.r = w.runner(1)
	if _, err := w.r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: "a"}); err != nil {
		t.Fatal(err)
	}
	w.finish(run.RunID)
	recs, err := w.db.Steps(run.RunID)
	if err != nil {
		t.Fatal(err)
	}
	if recs["n.0"].Attempt != 2 {
		t.Errorf("n.0 has %d attempts", recs["n.0"].Attempt)
	}
}
