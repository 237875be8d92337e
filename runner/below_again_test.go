package runner_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// charging is a world with a run whose step "sub" has a retry rule, and a sub-run with a
// step "charge" that is not idempotent.
func charging(t *testing.T, does func(context.Context, runner.Task) (runner.Report, error), change func(*manifests.DAG)) (w *world, d *manifests.DAG, run state.Run) {
	t.Helper()
	w = newWorld(t, does)
	w.child(func(d *manifests.DAG) {
		d.Steps[0].Action = "once"
		if change != nil {
			change(d)
		}
	}, "charge")
	d = parent(func(d *manifests.DAG) {
		d.Steps[0].Retry = manifests.Retry{MaxAttempts: 3, Backoff: time.Minute, MaxBackoff: time.Minute}
	}, "sub")
	return w, d, w.start(d, "{}")
}

// failsFirst fails the first time, and then does what is given.
func failsFirst(then runner.Report) func(context.Context, runner.Task) (runner.Report, error) {
	first := true
	return func(context.Context, runner.Task) (runner.Report, error) {
		if first {
			first = false
			return exit(1), nil
		}
		return then, nil
	}
}

// A sub-run of which somebody begins a step again, while the retry rule of its step is
// waiting, is looked at before that begins another: what it has done is not done again,
// what nobody knows of it waits for a person, and while it goes on nothing is begun.
func TestARetryRuleLooksAgainBeforeItBeginsAnother(t *testing.T) {
	for name, c := range map[string]struct {
		then  runner.Report
		delay time.Duration
		seen  []string
		want  string
	}{
		"it is finished":    {exit(0), 0, []string{"charge.1", "charge.2"}, "no other was begun: sub/charge is not idempotent"},
		"it is interrupted": {runner.Report{Stop: runner.StopShutdown}, 0, []string{"charge.1", "charge.2"}, "INDETERMINATE"},
		"it goes on":        {exit(0), time.Hour, []string{"charge.1"}, "was reopened, and goes on"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _, run := charging(t, failsFirst(c.then), nil)
				w.background()
				time.Sleep(time.Second)
				child, _ := w.look(w.childOf(run, "sub"))
				if child.Status != state.Failed {
					t.Fatalf("the sub-run is %s", child.Status)
				}
				q := runner.Retry{Actor: "uid:7", StepID: "charge", Delay: c.delay}
				if _, err := w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), q); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Minute)
				got, steps := w.look(run.RunID)
				if diff := cmp.Diff(c.seen, w.exec.list()); diff != "" {
					t.Error(diff)
				}
				if got.Status != state.Failed || !strings.Contains(steps["sub"], c.want) {
					t.Errorf("the run is %s, %v", got.Status, steps)
				}
			})
		})
	}
}

// A reset of a step whose retry rule is waiting asks about what its sub-run has done.
func TestAResetAsksAlsoWhileARuleIsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d, run := charging(t, failsFirst(exit(0)), nil)
		w.background()
		time.Sleep(time.Second)
		child, _ := w.look(w.childOf(run, "sub"))
		if _, err := w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "charge"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		now, _ := w.look(run.RunID)
		bad := (*runner.ConflictError)(nil)
		if _, err := w.r.Reset(w.opened(now, d), runner.Reset{Actor: "uid:7", StepID: "sub"}); !errors.As(err, &bad) || !strings.Contains(bad.Text, "sub/charge") {
			t.Errorf("nobody was asked: %v", err)
		}
	})
}

// The deadline of a sub-run stops what is under way in it: that may have done something.
func TestTheDeadlineOfASubRunLetsNothingBeDoneTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, run := charging(t, hangs, func(d *manifests.DAG) { d.Timeout = time.Second })
		got, _ := w.finish(run.RunID)
		if diff := cmp.Diff([]string{"charge.1"}, w.exec.list()); diff != "" || got.Status != state.Failed {
			t.Errorf("the run is %s; %s", got.Status, diff)
		}
	})
}

// Where the manifest of what a sub-run has done cannot be read, nobody knows whether that
// may be done twice: its run ends nevertheless, and waits for a person.
func TestAManifestThatIsGoneKeepsNoRunFromItsEnd(t *testing.T) {
	for what, end := range endings {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, d, run := charging(t, ok, func(d *manifests.DAG) {
					gate := d.Steps[0]
					gate.ID, gate.Needs, gate.Plugin, gate.Action = "ask", []string{"charge"}, nil, ""
					gate.Checkpoint = &manifests.Checkpoint{Question: "ok?", Options: []manifests.Option{{Label: "y", Decision: "continue"}}}
					d.Steps = append(d.Steps, gate)
				})
				w.background()
				synctest.Wait()
				w.sealed.gone.Store(true)
				child, _ := w.look(w.childOf(run, "sub"))
				if _, err := w.r.Fail(w.opened(child, w.sealed.dags["child@1.0.0"]), "uid:7", state.FailedByHand, ""); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				now, steps := w.look(run.RunID)
				if now.Status != state.Failed || !strings.Contains(steps["sub"], "not tried again: sub/charge is not idempotent") {
					t.Fatalf("the run is %s, %v", now.Status, steps)
				}
				bad := (*runner.ConflictError)(nil)
				if _, err := w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "sub"}); !errors.As(err, &bad) {
					t.Errorf("nobody was asked: %v", err)
				}
				if _, err := w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "sub", Repeat: true}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if now, _ = w.look(run.RunID); now.Status.Ended() {
					return // it cannot be begun without its manifest
				}
				if _, err := end(w, w.opened(now, d)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if now, _ = w.look(run.RunID); !now.Status.Ended() {
					t.Errorf("the run is %s", now.Status)
				}
			})
		})
	}
}
