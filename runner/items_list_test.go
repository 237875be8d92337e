package runner_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// listing is a run whose step each is about the list that x gives: with each attempt
// another.
func listing(t *testing.T, action string, lists []string, does func(task runner.Task) *runner.Report) (*world, *manifests.DAG, state.Run) {
	w := newWorld(t, nil)
	w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "x" {
			r := exit(0)
			r.Output.Values = map[string]json.RawMessage{"list": json.RawMessage(lists[min(task.Attempt, len(lists))-1])}
			return r, nil
		}
		if does != nil {
			if r := does(task); r != nil {
				return *r, nil
			}
		}
		return says(ctx, task)
	}
	d := dag(func(d *manifests.DAG) {
		s := &d.Steps[1]
		s.AllowSkip = true
		s.Action, s.ForEach, s.MaxParallel = action, "${ steps.x.outputs.list }", 1
		s.With = map[string]any{"v": "${ item }"}
	}, "x", "each<x")
	return w, d, w.start(d, "{}")
}

// What somebody has given one item is not given to the next that has its number.
func TestWhatAnItemWasGivenGoesWithItsValue(t *testing.T) {
	w, d, run := listing(t, "go", []string{`["a","b"]`, `["c","d"]`}, func(task runner.Task) *runner.Report {
		if task.StepID == "each.1" && task.Attempt <= 2 {
			r := exit(3)
			return &r
		}
		return nil
	})
	now, _ := w.finish(run.RunID)
	for _, q := range []runner.Retry{{StepID: "each.1", Input: json.RawMessage(`{"v":"mended b"}`)}, {StepID: "x", Downstream: true}} {
		q.Actor = "uid:7"
		w.r = w.runner(1)
		if err := second(w.r.Retry(w.opened(now, d), q)); err != nil {
			t.Fatal(err)
		}
		now, _ = w.finish(run.RunID)
	}
	recs, _ := w.db.Steps(run.RunID)
	got := []string{w.blob(recs["each.0"].OutputsHash), w.blob(recs["each.1"].OutputsHash)}
	if !slices.Equal(got, []string{`{"v":"c"}`, `{"v":"d"}`}) {
		t.Errorf("%s: the items gave %v", now.Status, got)
	}
}

// What somebody gives a step each of its items gets, also one that is pending already.
func TestWhatAStepIsGivenPendingItemsGet(t *testing.T) {
	w := newWorld(t, nil)
	lists := []string{`["a","b"]`, `7`, `["a","b"]`}
	w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
		switch {
		case task.StepID == "x":
			r := exit(0)
			r.Output.Values = map[string]json.RawMessage{"list": json.RawMessage(lists[min(task.Attempt, 3)-1])}
			return r, nil
		case task.StepID == "each.1" && task.Attempt <= 2:
			return exit(3), nil
		}
		return says(ctx, task)
	}
	d := dag(func(d *manifests.DAG) {
		d.FailFast = false
		s := &d.Steps[1]
		s.ForEach, s.MaxParallel = "${ steps.x.outputs.list }", 1
		s.With = map[string]any{"v": "${ item }"}
	}, "x", "each<x")
	run := w.start(d, "{}")
	now, _ := w.finish(run.RunID)
	for _, q := range []runner.Retry{
		{StepID: "each.1", Input: json.RawMessage(`{"v":"A"}`)}, // fails again
		{StepID: "x", Downstream: true},                         // gives no list: each fails, its items are pending
		{StepID: "x"},                                           // gives a list again, each stays failed
		{StepID: "each", Input: json.RawMessage(`{"v":"B"}`)},
	} {
		q.Actor = "uid:7"
		w.r = w.runner(1)
		if err := second(w.r.Retry(w.opened(now, d), q)); err != nil {
			t.Fatal(err)
		}
		now, _ = w.finish(run.RunID)
	}
	recs, _ := w.db.Steps(run.RunID)
	got := []string{w.blob(recs["each.0"].OutputsHash), w.blob(recs["each.1"].OutputsHash)}
	if !slices.Equal(got, []string{`{"v":"B"}`, `{"v":"B"}`}) {
		t.Errorf("%s: the items gave %v", now.Status, got)
	}
}

// An item that comes back with a longer list may be done where that was said of its step.
func TestAListThatShrinksAndGrowsIsDoneWhereThatWasAllowed(t *testing.T) {
	w, d, run := listing(t, "once", []string{`["a","b","c"]`, `["d","e"]`, `["f","g","h"]`}, func(task runner.Task) *runner.Report {
		switch {
		case task.StepID == "each.1" && task.Attempt == 1:
			r := exit(3)
			return &r
		case task.StepID == "each.2" && task.Attempt == 1:
			return &runner.Report{Stop: runner.StopShutdown}
		case task.StepID == "each.1" && task.Attempt == 2:
			r := exit(3)
			return &r
		}
		return nil
	})
	now, _ := w.finish(run.RunID)
	w.r = w.runner(1)
	if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "each.2", Repeat: true})); err != nil {
		t.Fatal(err)
	}
	now, steps := w.finish(run.RunID)
	for _, q := range []runner.Retry{
		{StepID: "x", Repeat: true},
		{StepID: "each", Repeat: true}, // the list is shorter now: each.2 is dropped
		{StepID: "x", Downstream: true, Repeat: true},
	} {
		q.Actor = "uid:7"
		w.r = w.runner(1)
		if err := second(w.r.Retry(w.opened(now, d), q)); err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		now, steps = w.finish(run.RunID)
	}
	if now.Status != state.Completed {
		t.Errorf("with --repeat the run is %s: %v", now.Status, steps)
	}
}

// A list that changes, of which one item was named with repeat, is done.
func TestAListThatChangesIsDoneWhereThatWasAllowed(t *testing.T) {
	w, d, run := listing(t, "once", []string{`["a","b"]`, `["c","d"]`}, func(task runner.Task) *runner.Report {
		switch {
		case task.StepID == "each.0" && task.Attempt == 1:
			return &runner.Report{Stop: runner.StopShutdown}
		case task.StepID == "each.1" && task.Attempt == 1:
			r := exit(3)
			return &r
		}
		return nil
	})
	now, _ := w.finish(run.RunID)
	w.r = w.runner(1)
	if err := second(w.r.Skip(w.opened(now, d), runner.Skip{Actor: "uid:7", StepID: "each.0"})); err != nil {
		t.Fatal(err)
	}
	now, steps := w.finish(run.RunID)
	for _, q := range []runner.Retry{{StepID: "x", Repeat: true}, {StepID: "each", Repeat: true}} {
		q.Actor = "uid:7"
		w.r = w.runner(1)
		if err := second(w.r.Retry(w.opened(now, d), q)); err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		now, steps = w.finish(run.RunID)
	}
	if now.Status != state.Completed {
		t.Errorf("with --repeat the run is %s: %v", now.Status, steps)
	}
}

// Repeat says so of all: also of an item that comes back with a longer list.
func TestRepeatCoversAnItemThatComesBack(t *testing.T) {
	for _, step := range []string{"each"} {
		t.Run(step, func(t *testing.T) {
			w, d, run := listing(t, "once", []string{`["a","b"]`, `["c"]`, `["d","e"]`}, func(task runner.Task) *runner.Report {
				if task.StepID == "each.1" && task.Attempt == 1 {
					return &runner.Report{Stop: runner.StopResource}
				}
				if task.StepID == "each.0" && task.Attempt == 2 {
					r := exit(3)
					return &r
				}
				return nil
			})
			now, steps := w.finish(run.RunID)
			for _, q := range []runner.Retry{
				{StepID: "x", Downstream: true, Repeat: true}, // the list is shorter
				{StepID: "x", Repeat: true},                   // and longer again; each stays failed
				{StepID: step, Repeat: true},
			} {
				q.Actor = "uid:7"
				w.r = w.runner(1)
				if err := second(w.r.Retry(w.opened(now, d), q)); err != nil {
					t.Fatalf("%+v: %v", q, err)
				}
				now, steps = w.finish(run.RunID)
			}
			if now.Status != state.Completed {
				t.Errorf("with --repeat the run is %s: %v", now.Status, steps)
			}
		})
	}
}
