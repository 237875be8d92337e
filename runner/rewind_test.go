package runner_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// A decision that goes back repeats what lies on the way, and of that nothing in
// silence that is not idempotent.
func TestGoingBackRepeatsWhatLiesBetween(t *testing.T) {
	w := newWorld(t, ok)
	d := dag(func(d *manifests.DAG) {
		for i := range d.Steps {
			switch d.Steps[i].ID {
			case "b":
				d.Steps[i].Checkpoint = &manifests.Checkpoint{Question: "?"}
			case "side", "m":
				d.Steps[i].Action = "once"
			}
		}
	}, "a", "m<a", "b<m", "side<a", "aside<side")
	run := w.start(d, "{}")
	w.background()
	settled := func(attempt int) func(state.Run, map[string]state.Step) bool {
		return func(_ state.Run, s map[string]state.Step) bool {
			return s["b"].Status == state.CheckpointPending && s["b"].Attempt == attempt && s["aside"].Status == state.Completed
		}
	}
	_, steps := w.until(run.RunID, settled(1))
	o := w.opened(run, d)
	m := decision(steps["b"], "uid:7", "retry")
	m.BackTo = "a"
	_, err := w.r.Decide(o, m)
	var c *runner.ConflictError
	if !errors.As(err, &c) || !strings.HasPrefix(c.Text, "step m is not idempotent") {
		t.Errorf("back over what is not idempotent: %v", err)
	}
	m.Repeat = true
	trial := func() ([]string, []string) {
		eff, err := w.r.Try(o, func(r *runner.Runner) (state.Run, error) { return r.Decide(o, m) })
		if err != nil {
			t.Fatal(err)
		}
		var again []string
		for _, x := range eff.Steps {
			again = append(again, x.StepID)
		}
		return again, eff.Kept
	}
	again, kept := trial()
	if diff := cmp.Diff([][]string{{"a", "b", "m"}, {"aside", "side"}}, [][]string{again, kept}); diff != "" {
		t.Errorf("what is done again, and what is kept (-want +got):\n%s", diff)
	}
	if _, err := w.r.Decide(o, m); err != nil {
		t.Fatal(err)
	}
	_, steps = w.until(run.RunID, settled(2))
	if a, s := steps["a"].Attempt, steps["side"].Attempt; a != 2 || s != 1 {
		t.Errorf("a has %d attempts, side has %d", a, s)
	}
	m = decision(steps["b"], "uid:7", "retry")
	m.BackTo, m.Downstream = "m", true // on which side was not built
	m.Repeat = true
	if again, kept = trial(); len(again) != 2 || len(kept) != 0 {
		t.Errorf("back to m are done again %v, and kept %v", again, kept)
	}
	m.BackTo, m.Repeat = "a", false
	if _, err := w.r.Decide(o, m); !errors.As(err, &c) || c.Text != "steps m, side are not idempotent: going back to a would do twice what has been done" {
		t.Errorf("downstream over what is not idempotent: %v", err)
	}
	m.Repeat = true
	if _, err := w.r.Decide(o, m); err != nil {
		t.Fatal(err)
	}
	_, steps = w.until(run.RunID, settled(3))
	if steps["side"].Attempt != 2 || steps["aside"].Attempt != 2 {
		t.Errorf("with --downstream side has %d attempts, aside has %d", steps["side"].Attempt, steps["aside"].Attempt)
	}
}

func TestASubRunIsAsIdempotentAsItsSteps(t *testing.T) {
	w := newWorld(t, ok)
	w.child(func(d *manifests.DAG) { d.Steps[1].Action = "once" }, "a", "pay<a")
	d := parent(nil, "sub")
	run := w.start(d, "{}")
	got, err := w.r.Once(w.opened(run, d).Plan.Step("sub"), true)
	if diff := cmp.Diff([]string{"sub/pay"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	w.finish(run.RunID)
}
