package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
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

// What people are asked about is not given other outputs behind their backs, and the hint
// is a way that works.
func TestOutputsAreNotReplacedWhilePeopleLook(t *testing.T) {
	conflict := func(err error, hint string) {
		t.Helper()
		var c *runner.ConflictError
		if !errors.As(err, &c) || !strings.Contains(c.Hint, hint) {
			t.Errorf("%v: %+v", err, c)
		}
	}
	t.Run("at its items", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
				if task.StepID == "each.0" {
					return exit(65), nil
				}
				return says(ctx, task)
			})
			d := dag(func(d *manifests.DAG) {
				d.FailFast = false
				d.Steps[0].AllowSkip, d.Steps[0].ForEach, d.Steps[0].Checkpoint = true, []any{int64(0), int64(1)}, &manifests.Checkpoint{}
			}, "each", "after<each")
			w.r = w.runner(2)
			run := w.start(d, "{}")
			w.background()
			w.later(run.RunID)
			skip := func(output string) error {
				now, _ := w.look(run.RunID)
				err := second(w.r.Skip(w.opened(now, d), runner.Skip{Actor: "uid:7", StepID: "each.0", Reason: "x", Output: json.RawMessage(output)}))
				w.later(run.RunID)
				return err
			}
			if err := skip(`{"v":"old"}`); err != nil {
				t.Fatal(err)
			}
			conflict(skip(`{"v":"new"}`), "approvals decide")
		})
	})
	t.Run("behind it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
				if task.StepID == "pay" {
					return exit(65), nil
				}
				return says(ctx, task)
			})
			d := dag(func(d *manifests.DAG) {
				d.Steps[0].AllowSkip = true
				d.Steps[1].Plugin, d.Steps[1].Action, d.Steps[1].Checkpoint = nil, "", &manifests.Checkpoint{}
			}, "pay", "gate<pay")
			w.r = w.runner(2)
			run := w.start(d, "{}")
			w.background()
			w.later(run.RunID)
			now := func() runner.Opened { r, _ := w.look(run.RunID); return w.opened(r, d) }
			skip := func(output string) error {
				err := second(w.r.Skip(now(), runner.Skip{Actor: "uid:7", StepID: "pay", Reason: "x", Output: json.RawMessage(output)}))
				w.later(run.RunID)
				return err
			}
			if err := skip(`{"v":"old"}`); err != nil {
				t.Fatal(err)
			}
			conflict(skip(`{"v":"new"}`), "run fail")
			if err := second(w.r.Fail(now(), "uid:7", state.FailedByHand, "x")); err != nil {
				t.Fatal(err)
			}
			w.later(run.RunID)
			if err := skip(`{"v":"new"}`); err != nil {
				t.Error(err)
			}
			recs, _ := w.db.Steps(run.RunID)
			if recs["gate"].Status != state.CheckpointPending || w.blob(recs["pay"].OutputsHash) != `{"v":"new"}` {
				t.Errorf("%+v", recs)
			}
		})
	})
}

// A dry run of a second skip names the step, and what has read the old outputs.
func TestADryRunNamesWhatHasReadTheOldOutputs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
			if task.StepID == "pay" || task.StepID == "z" {
				return exit(65), nil
			}
			return says(ctx, task)
		})
		d := dag(func(d *manifests.DAG) {
			d.Steps[0].AllowSkip = true
			d.Steps[1].With = map[string]any{"v": "${ steps.pay.outputs.v }"}
		}, "pay", "after<pay", "z<after")
		w.r = w.runner(2)
		run := w.start(d, "{}")
		w.background()
		w.later(run.RunID)
		var eff runner.Effects
		for _, out := range []string{`{"v":"old"}`, `{"v":"new"}`} {
			now, _ := w.look(run.RunID)
			o, q := w.opened(now, d), runner.Skip{Actor: "uid:7", StepID: "pay", Reason: "x", Output: json.RawMessage(out)}
			var err error
			if eff, err = w.r.Try(o, func(r *runner.Runner) (state.Run, error) { return r.Skip(o, q) }); err != nil {
				t.Fatal(err)
			}
			if err := second(w.r.Skip(o, q)); err != nil {
				t.Fatal(err)
			}
			w.later(run.RunID)
		}
		if len(eff.Steps) == 0 || eff.Steps[0].StepID != "pay" || !slices.Contains(eff.Kept, "after") {
			t.Errorf("it names %+v, kept %v", eff.Steps, eff.Kept)
		}
	})
}
