package runner_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// What needs a step that has failed would not begin: nothing is decided, and nothing cleans
// up once more for it.
func TestWhatWouldNotBeginIsNotBegunAgain(t *testing.T) {
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "a" {
			return exit(65), nil
		}
		return exit(0), nil
	})
	d := dag(func(d *manifests.DAG) {
		d.OnFailure = dag(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "mail").Steps
	}, "a", "b<a", "c<b")
	run := w.start(d, "{}")
	before, _ := w.finish(run.RunID)
	w.r = w.runner(1)
	for _, step := range []string{"b", "c"} {
		for what, err := range map[string]error{
			"a retry": second(w.r.Retry(w.opened(before, d), runner.Retry{Actor: "uid:7", StepID: step, Repeat: true})),
			"a reset": second(w.r.Reset(w.opened(before, d), runner.Reset{Actor: "uid:7", StepID: step, Repeat: true})),
		} {
			if want := "runner: step " + step + " needs step a, which has failed: it would not begin"; codeOf(err) != "CONFLICT" || err.Error() != want {
				t.Errorf("%s of %s: %v", what, step, err)
			}
		}
	}
	after, _ := w.look(run.RunID)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("something was decided:\n%s", diff)
	}
}

// A trial says what is done twice, and what is begun anew although it looks as before.
func TestATrialSaysWhatIsDoneTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, now := mended(t, "sub", func(*manifests.Step) {})
		for what, act := range map[string]func(*runner.Runner) (state.Run, error){
			"a retry": func(r *runner.Runner) (state.Run, error) {
				return r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "other", Repeat: true})
			},
			"a skip": func(r *runner.Runner) (state.Run, error) {
				return r.Skip(now(), runner.Skip{Actor: "uid:7", StepID: "other", Repeat: true})
			},
			"a reset": func(r *runner.Runner) (state.Run, error) {
				return r.Reset(now(), runner.Reset{Actor: "uid:7", StepID: "other", Repeat: true})
			},
		} {
			eff, err := w.r.Try(now(), act)
			if diff := cmp.Diff([]string{"sub/charge"}, eff.Twice); err != nil || diff != "" {
				t.Errorf("%s: %v %s", what, err, diff)
			}
		}
		if err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "other", Delay: time.Hour, Repeat: true})); err != nil {
			t.Fatal(err)
		}
		eff, err := w.r.Try(now(), func(r *runner.Runner) (state.Run, error) {
			return r.Reset(now(), runner.Reset{Actor: "uid:7", StepID: "other", Repeat: true})
		})
		if want := (runner.Effect{StepID: "other", From: state.Queued, To: state.Queued}); err != nil || !slices.Contains(eff.Steps, want) {
			t.Errorf("a reset of what is put off: %+v, %v", eff.Steps, err)
		}
	})
}

// After a crash the step above is told at once of a sub-run that has ended with it.
func TestAStepKnowsAtOnceThatItsSubRunEndedWithACrash(t *testing.T) {
	child := dag(func(d *manifests.DAG) { d.ID = "child"; d.Steps[0].Action = "once" }, "a")
	top := parent(func(d *manifests.DAG) { d.Steps[0].Locks = []string{"m"} }, "sub")
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		w, runs := crashed(t, false, top, child)
		for _, i := range order {
			if _, err := w.r.Recover(context.Background(), w.opened(runs[i], []*manifests.DAG{top, child}[i])); err != nil {
				t.Fatal(err)
			}
		}
		w.r.Recovered()
		got, steps := w.look(runs[0].RunID)
		if got.Status != state.Failed || got.FailureReason != string(state.Indeterminate) {
			t.Errorf("order %v: the run is %s, %v", order, got.Status, steps)
		}
		if held, err := w.db.Locks(""); err != nil || len(held) > 0 {
			t.Errorf("held: %+v, %v", held, err)
		}
	}
}
