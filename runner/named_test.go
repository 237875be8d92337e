package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// A retry that names no step says of none that it may do twice what it has done, but of
// the one for which the run has failed: of a run that was ended from outside, which one it
// is about is by chance.
func TestARetryThatNamesNothingAsks(t *testing.T) {
	for name, end := range map[string]func(w *world, o runner.Opened) error{
		"its time is over": nil,
		"somebody fails it": func(w *world, o runner.Opened) error {
			return second(w.r.Fail(o, "uid:7", state.FailedByHand, "x"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(ctx context.Context, _ runner.Task) (runner.Report, error) {
					<-ctx.Done()
					if errors.Is(context.Cause(ctx), runner.ErrCancelled) {
						return runner.Report{Stop: runner.StopCancel}, nil
					}
					return runner.Report{Stop: runner.StopShutdown}, nil
				})
				d := dag(func(d *manifests.DAG) {
					d.Steps[0].Action, d.Steps[1].Action = "once", "once"
					if end == nil {
						d.Timeout = time.Minute
					}
				}, "hold", "pay")
				w.r = w.runner(4)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Second)
				now := func() runner.Opened { r, _ := w.look(run.RunID); return w.opened(r, d) }
				if end != nil {
					if err := end(w, now()); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Hour)
				if r, _ := w.look(run.RunID); r.Status != state.Failed || r.FailedStep != "" {
					t.Fatalf("%s in %q", r.Status, r.FailedStep)
				}
				err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:7"}))
				var c *runner.ConflictError
				if !errors.As(err, &c) || !strings.Contains(c.Hint, "--step ") {
					t.Errorf("nobody was asked: %v", err)
				}
				if err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", Repeat: true})); err != nil {
					t.Errorf("with --repeat: %v", err)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

// Who names a step that has completed says so of what it has done, and not of the items
// that somebody else has passed over.
func TestANameDoesNotCoverWhatAnotherHasPassedOver(t *testing.T) {
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		switch {
		case task.StepID == "each.0":
			return runner.Report{Stop: runner.StopResource}, nil
		case task.StepID == "z":
			return exit(65), nil
		}
		return exit(0), nil
	})
	d := dag(func(d *manifests.DAG) {
		d.Steps[0].Action, d.Steps[0].AllowSkip, d.Steps[0].ForEach = "once", true, []any{int64(0), int64(1)}
	}, "each", "z<each")
	run := w.start(d, "{}")
	now, steps := w.finish(run.RunID)
	w.r = w.runner(1)
	if err := second(w.r.Skip(w.opened(now, d), runner.Skip{Actor: "uid:7", StepID: "each.0", Reason: "it is done"})); err != nil {
		t.Fatal(err)
	}
	if now, steps = w.finish(run.RunID); steps["each"] != "completed" || now.Status != state.Failed {
		t.Fatal(now.Status, steps)
	}
	w.r = w.runner(1)
	err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:8", StepID: "each"}))
	if codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "step each.0 is not idempotent") {
		t.Errorf("nobody was asked of each.0 alone: %v", err)
	}
	if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:8", StepID: "each", Repeat: true})); err != nil {
		t.Errorf("with --repeat: %v", err)
	}
}

// What was passed over without outputs can be given some later: what could not read them
// goes on.
func TestWhatWasPassedOverCanBeGivenOutputs(t *testing.T) {
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "pay" {
			return runner.Report{Stop: runner.StopResource}, nil
		}
		return says(ctx, task)
	})
	d := dag(func(d *manifests.DAG) {
		d.Steps[0].Action, d.Steps[0].AllowSkip = "once", true
		d.Steps[1].With = map[string]any{"v": "${ steps.pay.outputs.v }"}
		d.Outputs = map[string]any{"v": "${ steps.after.outputs.v }"}
	}, "pay", "after<pay")
	run := w.start(d, "{}")
	now, _ := w.finish(run.RunID)
	skip := func(output string) error {
		w.r = w.runner(1)
		q := runner.Skip{Actor: "uid:7", StepID: "pay", Reason: "it did pay"}
		if output != "" {
			q.Output = json.RawMessage(output)
		}
		err := second(w.r.Skip(w.opened(now, d), q))
		if err == nil {
			now, _ = w.finish(run.RunID)
		}
		return err
	}
	if err := skip(""); err != nil || now.Status != state.Failed || now.FailureReason != string(state.ExpressionInvalid) {
		t.Fatalf("%v: %s %s", err, now.Status, now.FailureReason)
	}
	var c *runner.ConflictError
	if err := skip(""); !errors.As(err, &c) || !strings.Contains(c.Hint, "--set") {
		t.Errorf("without outputs: %v", err)
	}
	if err := skip(`{"v":"x"}`); err != nil || now.Status != state.Completed || w.blob(now.OutputsHash) != `{"v":"x"}` {
		t.Errorf("with outputs: %v: %s %s %s", err, now.Status, now.FailureReason, now.Message)
	}
	if n := count(w.exec.list(), "pay."); n != 1 {
		t.Errorf("pay was begun %d times", n)
	}
	if err := skip(`{"v":"y"}`); !errors.Is(err, runner.ErrEnded) {
		t.Errorf("after its end: %v", err)
	}
}
