package runner_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// slowAtFirst lets the first attempts of some steps end only when they are told to.
func slowAtFirst(f func(context.Context, runner.Task) (runner.Report, error), steps ...string) func(context.Context, runner.Task) (runner.Report, error) {
	return func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.Attempt == 1 && slices.Contains(steps, task.StepID) {
			<-ctx.Done()
		}
		return f(ctx, task)
	}
}

// stops says of an attempt that was told to end that it was.
func stops(f func(context.Context, runner.Task) (runner.Report, error)) func(context.Context, runner.Task) (runner.Report, error) {
	return func(ctx context.Context, task runner.Task) (runner.Report, error) {
		rep, err := f(ctx, task)
		switch {
		case errors.Is(context.Cause(ctx), runner.ErrCancelled):
			rep.Stop = runner.StopCancel
		case errors.Is(context.Cause(ctx), runner.ErrShutdown):
			rep.Stop = runner.StopShutdown
		case ctx.Err() != nil:
			rep.Stop = runner.StopDeadline
		}
		return rep, err
	}
}

// An item that the end of the run has stopped is not done, though another has failed by itself
// and may.
func TestAnItemThatWasStoppedIsNotDone(t *testing.T) {
	for _, how := range []string{"fail", "timeout"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stops(endsWith(map[string][]int{"p.0": {65}}, map[string]time.Duration{"p.1": 20 * time.Minute})))
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps = 8
					d.Steps[0].ContinueOnError = true
					d.Steps[0].ForEach = []any{"a", "b"}
					if how == "timeout" {
						d.Timeout = 10 * time.Minute
					}
				}, "p", "y<p")
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				if how == "fail" {
					if err := second(w.r.Fail(w.asIs(run.RunID, d), "uid:7", state.FailedByHand, "stop")); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(15 * time.Minute)
				_, steps := w.look(run.RunID)
				w.retry(t, run.RunID, d, runner.Retry{})
				time.Sleep(time.Hour)
				now, steps := w.look(run.RunID)
				recs, _ := w.db.Steps(run.RunID)
				if now.Status == state.Completed && recs["p.1"].Attempt == 1 {
					t.Errorf("completed without p.1: %v", steps)
				}
			})
		})
	}
}

// Nor are items that were stopped, and those behind them, whatever is retried.
func TestItemsThatWereStoppedAndThoseBehindThem(t *testing.T) {
	for _, how := range []string{"fail", "timeout"} {
		for _, which := range []string{"", "z", "y"} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stops(endsWith(map[string][]int{"p.0": {65}, "z": {65}}, map[string]time.Duration{"p.1": 20 * time.Minute, "z": time.Second})))
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps, d.FailFast = 8, false
					d.Steps[0].ContinueOnError = true
					d.Steps[0].ForEach, d.Steps[0].MaxParallel = []any{"a", "b", "c"}, 1
					if how == "timeout" {
						d.Timeout = 10 * time.Minute
					}
				}, "p", "y<p", "z")
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				if how == "fail" {
					if err := second(w.r.Fail(w.asIs(run.RunID, d), "uid:7", state.FailedByHand, "stop")); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(15 * time.Minute)
				_ = second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: which}))
				time.Sleep(time.Hour)
				now, steps := w.look(run.RunID)
				if now.Status == state.Completed && steps["p.1"] != "completed" {
					t.Error("completed without p.1")
				}
			})
		}
	}
}

// A retry of the run begins all again that its end has stopped.
func TestARetryBeginsAllThatWasStopped(t *testing.T) {
	for _, may := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, stops(unhurried(slowAtFirst(endsWith(nil, nil), "x1", "x2"))))
			d := dag(func(d *manifests.DAG) {
				d.MaxParallelSteps, d.Timeout = 8, 10*time.Minute
				d.Steps[0].ContinueOnError, d.Steps[1].ContinueOnError = may, may
			}, "x1", "x2", "y<x1,x2")
			w.r = w.runner(8)
			run := w.start(d, "{}")
			w.background()
			time.Sleep(15 * time.Minute)
			w.retry(t, run.RunID, d, runner.Retry{})
			time.Sleep(5 * time.Minute)
			now, _ := w.look(run.RunID)
			if now.Status != state.Completed {
				t.Errorf("a retry of the run has not begun again all that its end had stopped: %s %s of %s", now.Status, now.FailureReason, now.FailedStep)
			}
		})
	}
}

// So does that of the step that the run has failed for.
func TestARetryOfWhatFailedBeginsWhatWasStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(slowAtFirst(endsWith(map[string][]int{"z": {65}}, nil), "x"))))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps, d.Timeout, d.FailFast = 8, 10*time.Minute, false
			d.Steps[0].ContinueOnError = true
		}, "x", "y<x", "z")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(15 * time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{})
		time.Sleep(5 * time.Minute)
		now, _ := w.look(run.RunID)
		if now.Status != state.Completed {
			t.Errorf("%s %s of %s", now.Status, now.FailureReason, now.FailedStep)
		}
	})
}

// Cleanup that somebody ends has not failed by itself, though the run has failed for its outputs.
func TestCleanupThatWasStoppedHasNotFailedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(endsWith(nil, map[string]time.Duration{"k": 10 * time.Minute})))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			d.Outputs = map[string]any{"x": "${ steps.a.outputs.nothing }"}
			d.OnFailure = dag(nil, "k", "last<k").Steps
			d.OnFailure[0].ContinueOnError = true
		}, "a")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		if err := second(w.r.Fail(w.asIs(run.RunID, d), "uid:7", state.FailedByHand, "stop")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		_ = second(w.r.Reset(w.asIs(run.RunID, d), runner.Reset{Actor: "uid:7", StepID: "last", Repeat: true}))
		time.Sleep(time.Hour)
		if _, steps := w.look(run.RunID); steps["last"] == "completed" {
			t.Errorf("last has run after k that was stopped")
		}
	})
}
