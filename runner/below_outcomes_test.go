package runner_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// outcome is one line of the table of outcomes, as the step "charge" of a sub-run brings
// it about.
type outcome struct {
	name string
	does func(w *world, ctx context.Context, task runner.Task) (runner.Report, error) // the attempts in the first sub-run
	code string                                                                       // of the parent's step; "" is that of any sub-run that fails
	done bool                                                                         // it may have left something done
}

func outcomes() []outcome {
	reports := func(r runner.Report) func(*world, context.Context, runner.Task) (runner.Report, error) {
		return func(*world, context.Context, runner.Task) (runner.Report, error) { return r, nil }
	}
	stopped := func(by func(*world, runner.Opened) error) func(*world, context.Context, runner.Task) (runner.Report, error) {
		return func(w *world, ctx context.Context, task runner.Task) (runner.Report, error) {
			run, err := w.db.Run(task.RunID)
			if err == nil {
				err = by(w, w.opened(run, w.sealed.dags["child@1.0.0"]))
			}
			<-ctx.Done()
			return runner.Report{Stop: runner.StopCancel}, err
		}
	}
	malformed := exit(0)
	malformed.Output.Fault = "not a line of it"
	return []outcome{
		{"it succeeds, and what comes after fails", reports(exit(0)), "", true},
		{"its outputs break the contract", reports(malformed), "", true},
		{"it fails", reports(exit(1)), "", false},
		{"it fails for the moment", reports(exit(75)), "", false},
		{"it rejects what it is given", reports(exit(65)), "", false},
		{"it cannot be executed", reports(exit(126)), "", false},
		{"it never began", reports(runner.Report{Stop: runner.StopUnstarted}), "", false},
		{"it crashes", reports(runner.Report{Signal: "SIGSEGV"}), "", false},
		{"it has too little memory", reports(runner.Report{Stop: runner.StopMemory}), "", true},
		{"it meets a limit", reports(runner.Report{Stop: runner.StopResource}), "", true},
		{"its deadline passes", reports(runner.Report{Stop: runner.StopDeadline}), "", false},
		{"trust is taken from it", func(w *world, ctx context.Context, _ runner.Task) (runner.Report, error) {
			w.sealed.refuse(reason("REVOKED"))
			defer w.sealed.refuse(nil)
			w.r.Rejudge()
			<-ctx.Done()
			return runner.Report{Stop: runner.StopRevoked}, nil
		}, "", true},
		{"a fault of ours", func(*world, context.Context, runner.Task) (runner.Report, error) {
			return runner.Report{}, errors.New("no fence")
		}, "", false},
		{"it is interrupted", func(_ *world, _ context.Context, task runner.Task) (runner.Report, error) {
			if task.Attempt > 1 { // an idempotent one was begun again
				return exit(1), nil
			}
			return runner.Report{Stop: runner.StopShutdown}, nil
		}, string(state.Indeterminate), true},
		{"its run is failed by hand", stopped(func(w *world, o runner.Opened) error {
			return second(w.r.Fail(o, "uid:7", state.FailedByHand, ""))
		}), "", true},
		{"its run is cancelled by hand", stopped(func(w *world, o runner.Opened) error {
			return second(w.r.Cancel("uid:7", "", o))
		}), "", true},
		{"it loses its lock and has succeeded", func(w *world, _ context.Context, task runner.Task) (runner.Report, error) {
			_, loss := w.held()
			return exit(0), w.r.LoseLock(ledger.LockForced, "uid:7", "default", loss)
		}, "", true},
	}
}

// begin starts a run whose sub-run has the outcome, and executes it until it ends.
func (c outcome) begin(t *testing.T, action string, tries int) (w *world, d *manifests.DAG, run state.Run, begun map[string]bool) {
	begun = map[string]bool{} // sub-runs in which it was
	first := ""
	w = newWorld(t, nil)
	w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "charge" {
			begun[task.RunID] = true
		}
		if first == "" {
			first = task.RunID
		}
		switch {
		case task.RunID != first:
			return exit(0), nil
		case task.StepID == "charge":
			return c.does(w, ctx, task)
		}
		return exit(65), nil
	}
	w.child(func(d *manifests.DAG) {
		d.Steps[0].Action, d.Steps[0].Locks = action, []string{"l"}
	}, "charge", "last<charge")
	d = parent(func(d *manifests.DAG) { d.Steps[0].Retry.MaxAttempts = tries }, "sub")
	run = w.start(d, "{}")
	run, _ = w.finish(run.RunID)
	return w, d, run, begun
}

// A sub-run is begun again by no rule, and by hand only by who takes it upon himself,
// where an attempt in it may have done what is not idempotent: which those are goes with
// their outcome, as for a step that is tried again by itself.
func TestWhatAnAttemptInASubRunMayHaveDoneGoesWithItsOutcome(t *testing.T) {
	for _, c := range outcomes() {
		for _, action := range []string{"go", "once"} {
			once := action == "once" && c.done
			t.Run(c.name+", "+action, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { c.byRule(t, action, once) })
			})
			t.Run(c.name+", "+action+", by hand", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { c.byHand(t, action, once) })
			})
		}
	}
}

func (c outcome) byRule(t *testing.T, action string, once bool) {
	w, _, run, begun := c.begin(t, action, 2)
	again := 2
	if once || strings.Contains(c.name, "cancelled by hand") {
		again = 1
	}
	if len(begun) != again {
		_, steps := w.look(run.RunID)
		t.Errorf("by the rule it was begun in %d sub-runs, want %d: %v", len(begun), again, steps)
	}
}

func (c outcome) byHand(t *testing.T, action string, once bool) {
	w, d, run, begun := c.begin(t, action, 1)
	w.reopen()
	code := string(state.ChildFailed)
	if c.code != "" && action == "once" {
		code = c.code
	}
	if run.Status != state.Failed || run.FailureReason != code {
		t.Errorf("the run is %s %s, want %s", run.Status, run.FailureReason, code)
	}
	dead, err := w.db.DeadSteps("default", 9)
	if want := map[bool]int{true: 2}[c.code != "" && action == "once"]; err != nil || len(dead) != want {
		t.Errorf("%d steps wait for people, %v; want %d", len(dead), err, want)
	}
	_, err = w.r.Retry(w.opened(run, d), runner.Retry{Actor: "uid:7"})
	if asked := codeOf(err) == "CONFLICT" && strings.Contains(err.Error(), "sub/charge"); asked != once || !asked && err != nil {
		t.Errorf("a retry without repeat: %v", err)
	}
	if once {
		if _, err := w.r.Retry(w.opened(run, d), runner.Retry{Actor: "uid:7", Repeat: true}); err != nil {
			t.Fatal(err)
		}
	}
	if got, steps := w.finish(run.RunID); got.Status != state.Completed || len(begun) != 2 {
		t.Errorf("the run is %s, %v; it was begun in %v", got.Status, steps, slices.Collect(maps.Keys(begun)))
	}
}

// What trust did not allow to begin has done nothing; what it was taken from has.
func TestWhatTrustRefusesHasDoneNothing(t *testing.T) {
	refused := &ledger.AttemptEnd{Outcome: string(state.Rejected), ErrorCode: "REVOKED"}
	stopped := &ledger.AttemptEnd{Outcome: string(state.Rejected), ErrorCode: "REVOKED", Usage: &ledger.Usage{}}
	if runner.Leaves(refused) || !runner.Leaves(stopped) || !runner.Leaves(nil) {
		t.Errorf("refused %v, stopped %v, under way %v", runner.Leaves(refused), runner.Leaves(stopped), runner.Leaves(nil))
	}
}

// Nobody decides anything: a sub-run that hangs is failed by the site's chain, and what
// was under way in it is no more begun again than in a step without one.
func TestAStalledSubRunIsNotDoneAgain(t *testing.T) {
	for _, below := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, hangs)
			w.with(func(o *runner.Options) { o.Stuck = chain })
			d := dag(func(d *manifests.DAG) { d.Steps[0].Action, d.Steps[0].Retry.MaxAttempts = "once", 2 }, "charge")
			if below {
				w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge")
				d = parent(func(d *manifests.DAG) { d.Steps[0].Retry.MaxAttempts = 2 }, "sub")
			}
			got, steps := w.finish(w.start(d, "{}").RunID)
			if diff := cmp.Diff([]string{"charge.1"}, w.exec.seen); diff != "" {
				t.Errorf("in a sub-run %v: the run is %s: %v; begun (-want +got):\n%s", below, got.Status, steps, diff)
			}
			if why := "not tried again: sub/charge is not idempotent, and may have done something"; below && !strings.Contains(steps["sub"], why) {
				t.Errorf("the step is %s; it should say: %s", steps["sub"], why)
			}
		})
	}
}
