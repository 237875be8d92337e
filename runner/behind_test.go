package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// reading is a run whose items each.0 and each.1, one after the other, give again what
// x gives, which is the number of its attempt.
type reading struct {
	*world
	d     *manifests.DAG
	run   state.Run
	fail  []string    // attempts that fail: each.1.1
	hang  string      // one that says that it has begun, and goes on until it is told to end
	swept bool        // step bad fails while each.0 is under way, and each.1 has no turn
	begun chan string // receives what hangs
}

func (r *reading) start(t *testing.T, action string) {
	r.begun = make(chan string, 9)
	r.world = newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		at := fmt.Sprint(task.StepID, ".", task.Attempt)
		switch {
		case slices.Contains(r.fail, at):
			return exit(3), nil
		case r.hang == at:
			r.begun <- at
			return hangs(ctx, task)
		case r.swept && at == "bad.1":
			<-r.begun
			return exit(3), nil
		case r.swept && at == "each.0.1":
			r.begun <- at
			r.until(task.RunID, func(_ state.Run, s map[string]state.Step) bool { return s["bad"].Status == state.Failed })
		case task.StepID == "x":
			report := exit(0)
			report.Output.Values = map[string]json.RawMessage{"x": json.RawMessage(fmt.Sprint(task.Attempt))}
			return report, nil
		}
		return says(ctx, task)
	})
	r.r = r.runner(2)
	r.d = dag(func(d *manifests.DAG) {
		d.MaxParallelSteps = 2
		s := &d.Steps[1]
		d.Steps[0].AllowSkip, s.AllowSkip = true, true
		s.Action, s.ForEach, s.MaxParallel = action, []any{int64(0), int64(1)}, 1
		s.With = map[string]any{"x": "${ steps.x.outputs.x }"}
		if !r.swept {
			d.Steps = d.Steps[:2]
		}
	}, "x", "each<x", "bad")
	r.run = r.world.start(r.d, "{}")
}

// end lets the run end, and a runner stand by that has not begun to work.
func (r *reading) end() map[string]string {
	_, steps := r.finish(r.run.RunID)
	r.r = r.runner(2)
	return steps
}

func (r *reading) now() runner.Opened {
	run, err := r.db.Run(r.run.RunID)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.opened(run, r.d)
}

// gave is what the items gave.
func (r *reading) gave() map[string]string {
	recs, err := r.db.Steps(r.run.RunID)
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]string{}
	for _, id := range []string{"each.0", "each.1"} {
		if hash := recs[id].OutputsHash; hash != "" {
			out[id] = r.blob(hash)
		}
	}
	return out
}

// What reads a step is done again with it, and all of its items: none keeps what the
// step gave before.
func TestItemsAreDoneAgainWithWhatTheyRead(t *testing.T) {
	for name, c := range map[string]struct {
		r   *reading
		act func(*reading) error
	}{
		"a retry, with what depends on it": {&reading{fail: []string{"each.1.1"}}, func(r *reading) error {
			return second(r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "x", Downstream: true}))
		}},
		"a retry, and their step had lost its turn": {&reading{swept: true}, func(r *reading) error {
			return second(r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "x"}))
		}},
		"a reset, and their step had lost its turn": {&reading{swept: true}, func(r *reading) error {
			return second(r.r.Reset(r.now(), runner.Reset{Actor: "uid:7", StepID: "x"}))
		}},
		"a skip": {&reading{fail: []string{"each.1.1", "x.2"}}, func(r *reading) error {
			if _, err := r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "x", Downstream: true}); err != nil {
				return err // x fails, and each loses its turn
			}
			r.end()
			return second(r.r.Skip(r.now(), runner.Skip{Actor: "uid:7", StepID: "x", Output: json.RawMessage(`{"x":2}`)}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c.r.start(t, "go")
			c.r.end()
			if got := c.r.gave(); got["each.0"] != `{"x":1}` {
				t.Fatalf("before, the items gave %v", got)
			}
			if err := c.act(c.r); err != nil {
				t.Fatal(err)
			}
			steps := c.r.end()
			if diff := cmp.Diff(map[string]string{"each.0": `{"x":2}`, "each.1": `{"x":2}`}, c.r.gave()); diff != "" {
				t.Errorf("they gave (-want +got):\n%s%v", diff, steps)
			}
		})
	}
}

func TestItemsAreDoneAgainWithAResetOfWhatTheyRead(t *testing.T) {
	r := &reading{hang: "each.1.1"}
	r.start(t, "go")
	r.background()
	<-r.begun
	if _, err := r.r.Reset(r.now(), runner.Reset{Actor: "uid:7", StepID: "x"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := r.ended(r.run.RunID); got.Status != state.Completed {
		t.Errorf("the run is %s", got.Status)
	}
	if diff := cmp.Diff(map[string]string{"each.0": `{"x":2}`, "each.1": `{"x":2}`}, r.gave()); diff != "" {
		t.Errorf("they gave (-want +got):\n%s", diff)
	}
}

// Items that have completed, and are not idempotent, are done again only where somebody
// says so, or has named what comes before with what depends on it. Until then their step stays.
func TestItemsThatNobodyHasNamedAreNotDoneTwiceUnasked(t *testing.T) {
	retry := func(q runner.Retry) func(*reading) error {
		return func(r *reading) error {
			q.Actor, q.StepID = "uid:7", "x"
			return second(r.r.Retry(r.now(), q))
		}
	}
	for name, c := range map[string]struct {
		r    *reading
		act  func(*reading) error
		left bool
	}{
		"a retry of what they read":       {&reading{swept: true}, retry(runner.Retry{}), true},
		"a retry with what depends on it": {&reading{swept: true}, retry(runner.Retry{Downstream: true}), false},
		"a reset of what they read": {&reading{swept: true}, func(r *reading) error {
			return second(r.r.Reset(r.now(), runner.Reset{Actor: "uid:7", StepID: "x"}))
		}, true},
		"a retry, and their step stays failed": {&reading{fail: []string{"each.1.1", "x.2"}}, retry(runner.Retry{}), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.r
			r.start(t, "once")
			r.end()
			if err := c.act(r); err != nil {
				t.Fatal(err)
			}
			steps := r.end()
			if rec, err := r.db.Step(r.run.RunID, "each.0"); err != nil || c.left && rec.Attempt != 1 {
				t.Fatalf("each.0 is in attempt %d: %v, %v", rec.Attempt, steps, err)
			}
			if !c.left {
				return
			}
			for _, repeat := range []bool{false, true} {
				err := second(r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "each", Repeat: repeat}))
				if asked := codeOf(err) == "CONFLICT" && strings.Contains(err.Error(), "each.0 is not idempotent"); asked == repeat || !asked && err != nil {
					t.Errorf("a retry of their step, repeat %v: %v", repeat, err)
				}
			}
		})
	}
}

// Of sub-runs that have all completed a retry begins all again, and asks before.
func TestItemsOfSubRunsThatHaveCompletedAreNotDoneTwiceUnasked(t *testing.T) {
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "after" {
			return exit(65), nil
		}
		return exit(0), nil
	})
	w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "first")
	d := parent(func(d *manifests.DAG) { d.Steps[0].ForEach = []any{int64(0)} }, "sub", "after<sub")
	run := w.start(d, "{}")
	w.background()
	w.ended(run.RunID)
	for what, err := range map[string]error{
		"a retry": second(w.r.Retry(w.opened(run, d), runner.Retry{Actor: "uid:7", StepID: "sub"})),
		"a reset": second(w.r.Reset(w.opened(run, d), runner.Reset{Actor: "uid:7", StepID: "sub"})),
	} {
		if codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "sub.0/first") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What people are asked about a step is built on what comes before it. Where that is
// done again the question is withdrawn, or the other is refused.
func TestWhatPeopleAreAskedIsNotBuiltOnWhatIsDoneAgain(t *testing.T) {
	ask := &manifests.Checkpoint{Question: "?"}
	begin := func(t *testing.T) (*world, func() runner.Opened, state.Run) {
		w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
			if task.StepID == "side" && task.Attempt == 2 {
				return hangs(ctx, task)
			}
			return exit(0), nil
		})
		d := dag(func(d *manifests.DAG) {
			for i := range d.Steps[:3] {
				d.Steps[i].Checkpoint = ask
			}
			d.Steps[1].Action = "once"
		}, "a", "c<a", "side<a", "d<c")
		run := w.start(d, "{}")
		w.background()
		s := w.asked(run.RunID, "a")
		if _, err := w.r.Decide(w.opened(run, d), decision(s, "uid:7", "continue")); err != nil {
			t.Fatal(err)
		}
		w.asked(run.RunID, "c")
		w.asked(run.RunID, "side")
		return w, func() runner.Opened {
			run, _ := w.look(run.RunID)
			return w.opened(run, d)
		}, run
	}
	t.Run("a reset", func(t *testing.T) {
		w, now, run := begin(t)
		old := w.asked(run.RunID, "c")
		if _, err := w.r.Reset(now(), runner.Reset{Actor: "uid:7", StepID: "a"}); codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "step c is not idempotent") {
			t.Fatalf("without repeat: %v", err)
		}
		reset := func(r *runner.Runner) (state.Run, error) {
			return r.Reset(now(), runner.Reset{Actor: "uid:7", StepID: "a", Repeat: true})
		}
		tried, err := w.r.Try(now(), reset)
		if want := (runner.Effect{StepID: "c", From: state.CheckpointPending, To: state.Pending}); err != nil || !slices.Contains(tried.Steps, want) {
			t.Errorf("what would be is %+v, %v", tried.Steps, err)
		}
		if _, err := reset(w.r); err != nil {
			t.Fatal(err)
		}
		again := w.askedAgain(run.RunID, "a", 2)
		if _, err := w.r.Decide(now(), decision(old, "uid:7", "continue")); codeOf(err) != "ALREADY_DECIDED" {
			t.Errorf("a decision about what was withdrawn: %v", err)
		}
		if _, steps := w.look(run.RunID); steps["c"] != "pending" || steps["side"] != "pending" || steps["d"] != "" {
			t.Errorf("while a asks again: %v", steps)
		}
		if _, err := w.r.Decide(now(), decision(again, "uid:7", "continue")); err != nil {
			t.Fatal(err)
		}
		w.askedAgain(run.RunID, "c", 2)
	})
	t.Run("a retry", func(t *testing.T) {
		w, now, _ := begin(t)
		for _, downstream := range []bool{false, true} {
			_, err := w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "a", Downstream: downstream, Repeat: true})
			var conflict *runner.ConflictError
			if !errors.As(err, &conflict) || !strings.Contains(conflict.Text, "step c waits for people") || !strings.Contains(conflict.Hint, "run reset") {
				t.Errorf("downstream %v: %v", downstream, err)
			}
		}
	})
	t.Run("a decision to go back", func(t *testing.T) {
		w, now, run := begin(t)
		d := decision(w.asked(run.RunID, "c"), "uid:7", "retry")
		d.BackTo = "a"
		var conflict *runner.ConflictError
		if _, err := w.r.Decide(now(), d); !errors.As(err, &conflict) || !strings.Contains(conflict.Text, "step side waits for people") || !strings.Contains(conflict.Hint, "--downstream") {
			t.Fatalf("beside what is asked of side: %v", err)
		}
		d.Downstream = true
		if _, err := w.r.Decide(now(), d); err != nil {
			t.Fatal(err)
		}
		if _, steps := w.look(run.RunID); steps["c"] != "pending" || steps["side"] != "pending" {
			t.Errorf("afterwards: %v", steps)
		}
	})
	t.Run("a decision to go back, beside what is under way", func(t *testing.T) {
		w, now, run := begin(t)
		if _, err := w.r.Decide(now(), decision(w.asked(run.RunID, "side"), "uid:7", "retry")); err != nil {
			t.Fatal(err)
		}
		d := decision(w.asked(run.RunID, "c"), "uid:7", "retry")
		d.BackTo, d.Downstream = "a", true
		if _, err := w.r.Decide(now(), d); codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "step side is under way") {
			t.Errorf("it is: %v", err)
		}
	})
}

// askedAgain waits until people are asked about an attempt of a step.
func (w *world) askedAgain(id, step string, attempt int) state.Step {
	w.t.Helper()
	_, steps := w.until(id, func(_ state.Run, s map[string]state.Step) bool {
		return s[step].Status == state.CheckpointPending && s[step].Attempt == attempt
	})
	return steps[step]
}
