package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// failing is a run in which step a has failed and step s goes on until it is told
// to end; what begins is said.
func failing(t *testing.T, change func(*manifests.DAG)) (w *world, run state.Run, d *manifests.DAG, release chan struct{}) {
	release = make(chan struct{})
	began, both := make(chan string, 9), make(chan struct{})
	sBegan := sync.OnceFunc(func() { close(both) })
	w = newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		began <- task.StepID
		switch {
		case task.StepID == "a" && task.Attempt == 1:
			<-both // else its failure keeps s from beginning
			return exit(1), nil
		case task.StepID == "s":
			sBegan()
			<-release
		}
		return exit(0), nil
	})
	d = dag(func(d *manifests.DAG) {
		d.MaxParallelSteps = 2
		change(d)
	}, "a", "s", "t<s")
	w.r = w.runner(2)
	run = w.start(d, "{}")
	w.background()
	for range 2 { // a and s
		<-began
	}
	return w, run, d, release
}

func TestARetryOfAFailingRunBringsBackWhatWasSkippedForIt(t *testing.T) {
	for _, what := range []string{"a step", "items"} {
		t.Run(what, func(t *testing.T) {
			w, run, d, release := failing(t, func(d *manifests.DAG) {
				if what == "items" {
					d.Steps[2].Needs, d.Steps[2].ForEach = nil, []any{int64(0), int64(1)}
				}
			})
			w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool { return s["t"].Status == state.Skipped })
			if _, err := w.r.Retry(w.opened(run, d), runner.Retry{Actor: "uid:7"}); err != nil {
				t.Fatal(err)
			}
			close(release)
			w.ended(run.RunID)
			got, steps := w.look(run.RunID)
			want := map[string]string{"a": "completed", "s": "completed", "t": "completed"}
			if what == "items" {
				want["t.0"], want["t.1"] = "completed", "completed"
			}
			if diff := cmp.Diff(want, steps); got.Status != state.Completed || diff != "" {
				t.Errorf("the run is %s (-want +got):\n%s", got.Status, diff)
			}
		})
	}
}

func TestAnItemIsBroughtBackToAStepThatGoesOn(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		switch {
		case task.StepID == "a" && task.Attempt == 1:
			return exit(1), nil
		case task.StepID == "s.0":
			<-release
		}
		return exit(0), nil
	})
	d := dag(func(d *manifests.DAG) {
		d.MaxParallelSteps = 2
		d.Steps[1].ForEach, d.Steps[1].MaxParallel = []any{int64(0), int64(1)}, 1
	}, "a", "s")
	w.r = w.runner(2)
	run := w.start(d, "{}")
	w.background()
	w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool {
		return s["a"].Status == state.Failed && s["s.1"].Status == state.Skipped
	})
	if _, err := w.r.Retry(w.opened(run, d), runner.Retry{Actor: "uid:7"}); err != nil {
		t.Fatal(err)
	}
	close(release)
	if got, steps := w.ended(run.RunID); got.Status != state.Completed || steps["s.1"].Status != state.Completed {
		t.Errorf("the run is %s, s.1 is %s", got.Status, steps["s.1"].Status)
	}
}

func TestNothingOrdinaryBeginsBesideCleanup(t *testing.T) {
	cleaning := make(chan struct{})
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "a" {
			return exit(1), nil
		}
		close(cleaning)
		<-ctx.Done()
		return runner.Report{Stop: runner.StopCancel}, nil
	})
	d := dag(func(d *manifests.DAG) {
		d.Steps[0].AllowSkip = true
		d.OnFailure = dag(nil, "mend").Steps
	}, "a", "b")
	run := w.start(d, "{}")
	w.background()
	<-cleaning
	o := w.opened(run, d)
	for what, err := range map[string]error{
		"retry": second(w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "a"})),
		"skip":  second(w.r.Skip(o, runner.Skip{Actor: "uid:7", StepID: "a"})),
		"reset": second(w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "a", Repeat: true})),
	} {
		var conflict *runner.ConflictError
		if !errors.As(err, &conflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := w.r.Abort(o, "uid:7", ""); err != nil {
		t.Fatal(err)
	}
	w.ended(run.RunID)
}

func second[T any](_ T, err error) error { return err }

func TestCleanupDoesNotBeginBecauseAPartOfItIsSkipped(t *testing.T) {
	begun, release := make(chan struct{}, 9), make(chan struct{})
	w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
		begun <- struct{}{}
		<-release
		return exit(0), nil
	})
	d := dag(func(d *manifests.DAG) {
		d.OnFailure = dag(func(d *manifests.DAG) { d.Steps[0].AllowSkip = true }, "mend", "mend2<mend").Steps
	}, "a")
	run := w.start(d, "{}")
	w.background()
	<-begun
	if _, err := w.r.Skip(w.opened(run, d), runner.Skip{Actor: "uid:7", StepID: "mend"}); err != nil {
		t.Fatal(err)
	}
	close(release)
	if got, steps := w.ended(run.RunID); got.Status != state.Completed || steps["mend2"].StepID != "" {
		t.Errorf("the run is %s: %+v", got.Status, steps["mend2"])
	}
}

// What failed before a reset stops nothing after it, whether the model has lived
// through the reset or was made from the record.
func TestAResetIsANewGeneration(t *testing.T) {
	w, run, d, release := failing(t, func(*manifests.DAG) {})
	defer close(release)
	w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool { return s["t"].Status == state.Skipped })
	if _, err := w.r.Reset(w.opened(run, d), runner.Reset{Actor: "uid:7", StepID: "s", Repeat: true}); err != nil {
		t.Fatal(err)
	}
	release <- struct{}{}
	release <- struct{}{}
	got, steps := w.ended(run.RunID)
	if got.Status != state.Failed || got.FailedStep != "a" || steps["s"].Status != state.Completed || steps["t"].Status != state.Completed {
		t.Errorf("the run is %s, s is %s, t is %s %s", got.Status, steps["s"].Status, steps["t"].Status, steps["t"].Reason)
	}
}

// A decision that comes too late is refused and on record, whatever the step does
// by then.
func TestADecisionOnWhatIsBeingDoneAgain(t *testing.T) {
	again, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.Attempt == 2 {
			close(again)
			<-release
		}
		return exit(0), nil
	})
	d := dag(func(d *manifests.DAG) { d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "good?"} }, "a")
	run := w.start(d, "{}")
	w.background()
	s := w.asked(run.RunID, "a")
	o := w.opened(run, d)
	if _, err := w.r.Decide(o, decision(s, "uid:7", "retry")); err != nil {
		t.Fatal(err)
	}
	<-again
	var refused *runner.DecisionError
	if _, err := w.r.Decide(o, decision(s, "uid:8", "continue")); !errors.As(err, &refused) || refused.Code != "ALREADY_DECIDED" {
		t.Errorf("the late decision: %v", err)
	}
	close(release)
	if _, err := w.r.Decide(o, decision(w.asked(run.RunID, "a"), "uid:8", "continue")); err != nil {
		t.Fatal(err)
	}
	if got, _ := w.ended(run.RunID); got.Status != state.Completed {
		t.Errorf("the run is %s", got.Status)
	}
}

// In a run that begins nothing more a restart would only stop: it is refused, and
// says what has to be done first.
func TestARestartIsRefusedWhereTheStepWouldNotBeginAgain(t *testing.T) {
	w, run, d, release := failing(t, func(*manifests.DAG) {})
	w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool { return s["t"].Status == state.Skipped })
	conflict := &runner.ConflictError{}
	if _, err := w.r.Restart(w.opened(run, d), "uid:7", "", "s", true); !errors.As(err, &conflict) || conflict.Hint != "stella orch run retry "+run.RunID+" --step a lets it go on" {
		t.Errorf("restart: %v, hint %q", err, conflict.Hint)
	}
	close(release)
	if got, steps := w.ended(run.RunID); got.FailedStep != "a" || steps["s"].Status != state.Completed || steps["s"].Attempt != 1 {
		t.Errorf("the run failed in %s; s is %s, attempt %d", got.FailedStep, steps["s"].Status, steps["s"].Attempt)
	}
}

// Who asks for a restart takes it upon himself for the attempt under way. If that
// fails by itself all the same, the next one is not repeated because of it.
func TestARestartIsAboutOneAttempt(t *testing.T) {
	stopped, third := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		switch task.Attempt {
		case 1:
			close(stopped)
			<-ctx.Done()
			return exit(75), nil // it was about to fail anyway
		case 2:
			close(third)
			<-ctx.Done()
			return runner.Report{Stop: runner.StopShutdown}, nil
		}
		return exit(0), nil
	})
	d := dag(func(d *manifests.DAG) { d.Steps[0].Idempotent, d.Steps[0].Retry.MaxAttempts = false, 2 }, "a")
	run := w.start(d, "{}")
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- w.r.Run(ctx, false) }()
	<-stopped
	if _, err := w.r.Restart(w.opened(run, d), "uid:7", "", "a", true); err != nil {
		t.Fatal(err)
	}
	<-third
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if got, steps := w.look(run.RunID); got.Status != state.Failed || steps["a"] != "failed INDETERMINATE" {
		t.Errorf("the run is %s: %v", got.Status, steps)
	}
}

func TestARetryIsAboutTheStepThatHasFailedTheRun(t *testing.T) {
	w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) { return exit(1), nil })
	d := dag(func(d *manifests.DAG) {
		d.FailFast = false
		d.Steps[1].ContinueOnError = true
	}, "a", "tolerated")
	run := w.start(d, "{}")
	got, steps := w.finish(run.RunID)
	if got.FailedStep != "a" || steps["tolerated"] != "failed STEP_FAILED" {
		t.Fatalf("%s has failed the run: %v", got.FailedStep, steps)
	}
	eff, err := w.idle().Try(w.opened(got, d), func(r *runner.Runner) (state.Run, error) {
		return r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7"})
	})
	if err != nil || len(eff.Steps) != 1 || eff.Steps[0].StepID != "a" {
		t.Errorf("begun again are %+v, %v", eff.Steps, err)
	}
}

// Every attempt reads anew what its step builds on, so that must be there.
func TestNothingReadsWhatIsDoneAgain(t *testing.T) {
	for what, busy := range map[string]bool{"waiting for its next attempt": false, "under way": true} {
		t.Run(what, func(t *testing.T) {
			var calm atomic.Bool
			running := make(chan struct{}, 8)
			w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
				switch {
				case task.StepID == "a":
					return runner.Report{ExitCode: new(int), Output: runner.Output{Values: map[string]json.RawMessage{"x": json.RawMessage("1")}}}, nil
				case calm.Load():
					return exit(0), nil
				}
				running <- struct{}{}
				if !busy {
					return exit(75), nil
				}
				<-ctx.Done()
				return runner.Report{Stop: runner.StopShutdown}, nil
			})
			d := dag(func(d *manifests.DAG) {
				d.Steps[1].With = map[string]any{"x": "${ steps.a.outputs.x }"}
				d.Steps[1].Retry = manifests.Retry{MaxAttempts: 3, Backoff: time.Hour, MaxBackoff: time.Hour}
			}, "a", "b<a")
			run := w.start(d, "{}")
			w.background()
			<-running
			got, _ := w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool {
				return s["b"].Status == state.Queued && s["b"].Due != "" || busy && s["b"].Status == state.Running
			})
			calm.Store(true)
			for _, downstream := range []bool{false, true} {
				_, err := w.r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: "a", Downstream: downstream})
				if conflict := (*runner.ConflictError)(nil); !errors.As(err, &conflict) {
					t.Errorf("a retry, downstream %t: %v", downstream, err)
				}
			}
			if _, err := w.r.Reset(w.opened(got, d), runner.Reset{Actor: "uid:7", StepID: "a"}); err != nil {
				t.Fatal(err)
			}
			got, steps := w.ended(run.RunID)
			if got.Status != state.Completed || steps["a"].Attempt != 2 || steps["b"].Attempt != 2 {
				t.Errorf("the run is %s; %d attempts of a, %d of b (%s)", got.Status, steps["a"].Attempt, steps["b"].Attempt, steps["b"].Reason)
			}
		})
	}
}
