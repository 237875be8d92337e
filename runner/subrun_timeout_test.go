package runner_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// lasting is an executor whose step "c" goes on until it is stopped.
func lasting(ctx context.Context, task runner.Task) (runner.Report, error) {
	if task.StepID != "c" {
		return exit(0), nil
	}
	<-ctx.Done()
	if errors.Is(context.Cause(ctx), runner.ErrCancelled) {
		return runner.Report{Stop: runner.StopCancel}, nil
	}
	return runner.Report{Stop: runner.StopShutdown}, nil
}

// The deadline of a step holds for its sub-run, and is neither lost nor hurried by the
// end of the process.
func TestTheTimeoutOfAStepEndsItsSubRun(t *testing.T) {
	for _, c := range []struct {
		name     string
		action   string
		crash    bool
		tries    int
		retryOn  []string
		want     time.Duration
		failures int
	}{
		{"once", "go", false, 1, nil, 10 * time.Minute, 1},
		{"again by the retry rule", "go", false, 2, []string{"timed_out"}, 20*time.Minute + time.Millisecond, 2},
		{"not again where what was stopped is not idempotent", "once", false, 2, nil, 10 * time.Minute, 1},
		{"not again where the retry rule has another code", "go", false, 2, []string{"STEP_FAILED"}, 10 * time.Minute, 1},
		{"after a restart of the process", "go", true, 1, nil, 10 * time.Minute, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, lasting)
				w.child(func(d *manifests.DAG) { d.Steps[0].Action = c.action }, "c")
				d := parent(func(d *manifests.DAG) {
					s := &d.Steps[0]
					s.Timeout, s.Retry.MaxAttempts, s.Retry.RetryOn = 10*time.Minute, c.tries, c.retryOn
					d.OnFailure = dag(nil, "mend").Steps
				}, "sub", "b<sub")
				begun := time.Now()
				run := w.start(d, "{}")
				if c.crash {
					ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
					if err := w.r.Run(ctx, true); err != nil {
						t.Fatal(err)
					}
					cancel()
					w.reopen()
					if err := w.r.Resume(context.Background(), "uid:0", w.opened(run, d)); err != nil {
						t.Fatal(err)
					}
				}
				got, steps := w.finish(run.RunID)
				if got.FailureReason != string(state.Timeout) || got.FailedStep != "sub" || steps["mend"] != "completed" {
					t.Fatalf("the run is %s %s: %v", got.Status, got.FailureReason, steps)
				}
				if took := time.Since(begun).Truncate(time.Millisecond); took != c.want {
					t.Errorf("it took %s, want %s", took, c.want)
				}
				recs, err := w.db.Steps(run.RunID)
				if err != nil {
					t.Fatal(err)
				}
				child, _ := w.look(recs["sub"].Child.RunID)
				if child.Status != state.Cancelled || child.CancelReason != "its parent: the deadline of its step has passed" || recs["sub"].Failures != c.failures {
					t.Errorf("the sub-run is %s: %q; step %+v", child.Status, child.CancelReason, recs["sub"])
				}
			})
		})
	}
}
