package runner_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// crashed starts a run, lets the process die when the first attempt is under way, and
// gives what it was to another, which looks at the runs where judged is set. They are
// from the top down.
func crashed(t *testing.T, judged bool, top *manifests.DAG, dags ...*manifests.DAG) (*world, []state.Run) {
	t.Helper()
	ctx, crash := context.WithCancel(context.Background())
	t.Cleanup(crash)
	stuck := make(chan struct{})
	w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
		close(stuck)
		select {} // until the process is gone, which a closed store stands for
	})
	for _, d := range dags {
		w.sealed.publish(d)
	}
	runs := []state.Run{w.start(top, "{}")}
	go w.r.Run(ctx, true) // never returns: its attempt never ends
	<-stuck
	w.exec = &fake{run: ok}
	w.reopen()
	for range dags {
		steps, err := w.db.Steps(runs[len(runs)-1].RunID)
		if err != nil {
			t.Fatal(err)
		}
		child, err := w.db.Run(steps["sub"].Child.RunID)
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, child)
	}
	for i, d := range append([]*manifests.DAG{top}, dags...) {
		if !judged {
			break
		}
		if _, err := w.r.Recover(context.Background(), w.opened(runs[i], d)); err != nil {
			t.Fatal(err)
		}
	}
	return w, runs
}

// What nobody knows of a sub-run waits for a person like what nobody knows of a step:
// neither a retry rule nor continue_on_error goes on over it, however far down it is.
func TestASubRunThatWaitsForAPersonIsNotDoneAgain(t *testing.T) {
	retried := func(s *manifests.Step) { s.Retry.MaxAttempts = 3 }
	chosen := func(s *manifests.Step) {
		s.Retry.MaxAttempts, s.Retry.RetryOn = 3, []string{"failed", "INDETERMINATE", string(state.ChildFailed)}
	}
	passed := func(s *manifests.Step) { s.ContinueOnError = true }
	poison := func(s *manifests.Step) { s.Action, s.MaxInterruptions = "go", 0 }
	unclear := func(s *manifests.Step) { s.Action = "once" }
	for _, c := range []struct {
		name  string
		step  func(*manifests.Step) // of the parents
		first func(*manifests.Step) // of the child
		code  string
		after string
	}{
		{"retry", retried, unclear, "INDETERMINATE", "skipped UPSTREAM_FAILED"},
		{"retry by its codes", chosen, unclear, "INDETERMINATE", "skipped UPSTREAM_FAILED"},
		{"continue_on_error", passed, unclear, "INDETERMINATE", "skipped UPSTREAM_FAILED"},
		{"retry of a poison pill", retried, poison, "POISON_PILL", "skipped UPSTREAM_FAILED"},
		{"a poison pill may be passed over, as in a step", passed, poison, "POISON_PILL", "completed"},
	} {
		for _, deep := range []bool{false, true} {
			t.Run(c.name+map[bool]string{true: ", two deep"}[deep], func(t *testing.T) {
				t.Parallel()
				child := dag(func(d *manifests.DAG) { d.ID = "child"; c.first(&d.Steps[0]) }, "a")
				top, below := parent(func(d *manifests.DAG) { c.step(&d.Steps[0]) }, "sub", "after<sub"), []*manifests.DAG{child}
				if deep {
					middle := parent(func(d *manifests.DAG) { d.ID = "middle"; retried(&d.Steps[0]) }, "sub")
					top.Steps[0].DAG, below = "middle@1.0.0", []*manifests.DAG{middle, child}
				}
				w, runs := crashed(t, true, top, below...)
				if err := w.r.Resume(context.Background(), "uid:0", w.opened(runs[0], top)); err != nil && !errors.Is(err, runner.ErrEnded) {
					t.Fatal(err)
				}
				_, steps := w.finish(runs[0].RunID)
				in := map[bool]string{true: "sub", false: "a"}[deep]
				want := map[string]string{"sub": "failed " + c.code + "run " + runs[1].RunID + " is failed: " + c.code + " in " + in, "after": c.after}
				if diff := cmp.Diff(want, steps); diff != "" {
					t.Errorf("steps (-want +got):\n%s", diff)
				}
				if slices.ContainsFunc(w.exec.seen, func(s string) bool { return strings.HasPrefix(s, "a.") }) {
					t.Errorf("executed after the crash: %v", w.exec.seen)
				}
			})
		}
	}
}

// Only a person does it again, who is asked as for all that a sub-run has done; and
// what is known by then is on record, whoever opens it.
func TestAPersonDoesAgainWhatASubRunLeftUnclear(t *testing.T) {
	child := dag(func(d *manifests.DAG) { d.ID = "child"; d.Steps[0].Action = "once" }, "a")
	top := parent(func(d *manifests.DAG) { d.Steps[0].ContinueOnError, d.Steps[0].AllowSkip = true, true }, "sub", "after<sub")
	for _, skip := range []bool{false, true} {
		w, runs := crashed(t, true, top, child)
		if err := w.r.Resume(context.Background(), "uid:0", w.opened(runs[0], top)); err != nil && !errors.Is(err, runner.ErrEnded) {
			t.Fatal(err)
		}
		w.finish(runs[0].RunID)
		w.reopen()
		got, _ := w.look(runs[0].RunID)
		if got.Status != state.Failed || got.FailureReason != "INDETERMINATE" || got.FailedStep != "sub" {
			t.Fatalf("the run is %s %s in %s", got.Status, got.FailureReason, got.FailedStep)
		}
		o := w.opened(got, top)
		if dead, err := w.db.DeadSteps("default", 10); err != nil || len(dead) != 2 {
			t.Errorf("%d steps wait for people, %v; want that of the sub-run and its parent's", len(dead), err)
		}
		var err error
		if skip {
			_, err = w.r.Skip(o, runner.Skip{Actor: "uid:7", Reason: "it was done"})
		} else {
			if _, err = w.r.Retry(o, runner.Retry{Actor: "uid:7"}); codeOf(err) != "CONFLICT" {
				t.Errorf("a retry without repeat: %v", err)
			}
			_, err = w.r.Retry(o, runner.Retry{Actor: "uid:7", Repeat: true})
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, steps := w.finish(got.RunID); got.Status != state.Completed || slices.Contains(w.exec.seen, "a.1") == skip {
			t.Errorf("skipped %v: the run is %s, steps %v; executed %v", skip, got.Status, steps, w.exec.seen)
		}
	}
}

// The item of which nobody knows how far it came fails its step, also where others
// have failed before and a rule passes over those.
func TestAnUnclearItemIsNotPassedOver(t *testing.T) {
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		switch task.StepID {
		case "a.0":
			return exit(3), nil
		case "a.1":
			return runner.Report{Stop: runner.StopShutdown}, nil
		}
		return exit(0), nil
	})
	d := dag(func(d *manifests.DAG) {
		s := &d.Steps[0]
		s.Action, s.ContinueOnError, s.ForEach, s.MaxParallel = "once", true, []any{int64(0), int64(1)}, 1
	}, "a", "b<a")
	got, steps := w.finish(w.start(d, "{}").RunID)
	want := map[string]string{"a": "failed INDETERMINATEitem a.1", "a.0": "failed STEP_FAILED", "a.1": "failed INDETERMINATE", "b": "skipped UPSTREAM_FAILED"}
	if diff := cmp.Diff(want, steps); diff != "" || got.Status != state.Failed {
		t.Errorf("the run is %s (-want +got):\n%s", got.Status, diff)
	}
}

// The lock that the step has lost meanwhile makes no other failure of it.
func TestALostLockDoesNotHideWhatASubRunLeftUnclear(t *testing.T) {
	child := dag(func(d *manifests.DAG) { d.ID = "child"; d.Steps[0].Action = "once" }, "a")
	top := parent(func(d *manifests.DAG) { d.Steps[0].ContinueOnError, d.Steps[0].Locks = true, []string{"m"} }, "sub", "after<sub")
	w, runs := crashed(t, false, top, child)
	_, loss := w.held()
	if err := w.r.LoseLock(ledger.LockForced, "uid:9", "default", loss); err != nil {
		t.Fatal(err)
	}
	for i, d := range []*manifests.DAG{top, child} {
		if _, err := w.r.Recover(context.Background(), w.opened(runs[i], d)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.r.Resume(context.Background(), "uid:0", w.opened(runs[0], top)); err != nil && !errors.Is(err, runner.ErrEnded) {
		t.Fatal(err)
	}
	_, steps := w.finish(runs[0].RunID)
	want := map[string]string{
		"sub":   "failed INDETERMINATElock m was taken away while nobody executed the run; INDETERMINATE in a of run " + runs[1].RunID,
		"after": "skipped UPSTREAM_FAILED",
	}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}
