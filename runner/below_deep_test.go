package runner_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// count is how many attempts of a step were begun.
func count(seen []string, prefix string) (n int) {
	for _, s := range seen {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

// nested is a run whose sub-run has a sub-run, first and charge, of which somebody has begun
// the failed step first again. Charge, which follows, is not idempotent.
func nested(t *testing.T, rule, mid manifests.Retry) (*world, *manifests.DAG, state.Run) {
	t.Helper()
	w := newWorld(t, nil)
	firsts := 0
	w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "first" {
			firsts++
			switch {
			case firsts == 1:
				return exit(1), nil
			case task.Attempt == 2:
				time.Sleep(10 * time.Minute)
			}
		}
		return exit(0), nil
	}
	g := dag(func(d *manifests.DAG) { d.ID = "grand"; d.Steps[1].Action = "once" }, "first", "charge<first")
	w.sealed.publish(g)
	c := dag(func(d *manifests.DAG) {
		d.ID = "child"
		d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG, d.Steps[0].Retry = nil, "", "grand@1.0.0", mid
	}, "mid")
	w.sealed.publish(c)
	d := parent(func(d *manifests.DAG) {
		d.Steps[0].Retry = rule
	}, "sub")
	w.r = w.runner(4)
	run := w.start(d, "{}")
	w.background()
	time.Sleep(time.Second)
	child, _ := w.look(w.childOf(run, "sub"))
	grand, _ := w.look(w.childOf(child, "mid"))
	if err := second(w.r.Retry(w.opened(grand, g), runner.Retry{Actor: "uid:7", StepID: "first"})); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	return w, d, run
}

// A sub-run, however far down, that somebody has reopened is a run by itself, and goes on
// while another would begin with the same: that is asked about, and no rule does it.
func TestNothingIsBegunBesideAReopenedRunBelow(t *testing.T) {
	none, waits := manifests.Retry{MaxAttempts: 1}, manifests.Retry{MaxAttempts: 3, Backoff: time.Minute, MaxBackoff: time.Minute}
	long := manifests.Retry{MaxAttempts: 3, Backoff: time.Hour, MaxBackoff: time.Hour}
	for name, c := range map[string]struct {
		rule, mid manifests.Retry
		act       func(w *world, o runner.Opened) error
	}{
		"a retry by hand": {none, none, func(w *world, o runner.Opened) error {
			return second(w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "sub"}))
		}},
		"a retry by a rule": {waits, none, nil},
		"a reset": {none, long, func(w *world, o runner.Opened) error {
			return second(w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "sub"}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, d, run := nested(t, c.rule, c.mid)
				now, _ := w.look(run.RunID)
				if c.act != nil {
					if err := c.act(w, w.opened(now, d)); codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "was reopened and goes on") {
						t.Errorf("nobody was asked: %v", err)
					}
				}
				time.Sleep(3 * time.Hour)
				if n := count(w.exec.list(), "charge."); n != 1 {
					t.Errorf("charge was done %d times: %v", n, w.exec.list())
				}
			})
		})
	}
}

// A sub-run that its step has replaced by another is reopened only by who says so.
func TestASubRunIsNotReopenedBesideItsSuccessor(t *testing.T) {
	for _, when := range []time.Duration{2 * time.Minute, time.Hour} {
		t.Run(when.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				firsts := 0
				w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
					if task.StepID == "first" {
						if firsts++; firsts == 1 {
							return exit(1), nil
						}
						time.Sleep(5 * time.Minute)
					}
					return exit(0), nil
				}
				w.child(func(d *manifests.DAG) { d.Steps[1].Action = "once" }, "first", "charge<first")
				d := parent(func(d *manifests.DAG) {
					d.Steps[0].Retry = manifests.Retry{MaxAttempts: 3, Backoff: time.Minute, MaxBackoff: time.Minute}
				}, "sub")
				w.r = w.runner(4)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Second)
				child, _ := w.look(w.childOf(run, "sub"))
				time.Sleep(when)
				err := second(w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "first"}))
				if codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "has gone on with run") {
					t.Errorf("nobody was asked: %v", err)
				}
				time.Sleep(2 * time.Hour)
				if n := count(w.exec.list(), "charge."); n != 1 {
					t.Errorf("charge was done %d times: %v", n, w.exec.list())
				}
			})
		})
	}
}

// An attempt that was not begun hides none before it that has done something.
func TestAnAttemptThatWasNotBegunHidesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
			if task.StepID == "after" {
				return exit(65), nil
			}
			return exit(0), nil
		})
		w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge", "after<charge")
		d := parent(nil, "sub")
		w.r = w.runner(2)
		run := w.start(d, "{}")
		w.background()
		w.later(run.RunID)
		retry := func() error {
			now, _ := w.look(run.RunID)
			return second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "sub"}))
		}
		if err := retry(); codeOf(err) != "CONFLICT" {
			t.Fatalf("nobody was asked: %v", err)
		}
		child, _ := w.look(w.childOf(run, "sub"))
		w.sealed.refuse(errors.New("no"))
		if err := second(w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "charge"})); err != nil {
			t.Fatal(err)
		}
		w.later(child.RunID)
		w.sealed.refuse(nil)
		if err := retry(); codeOf(err) != "CONFLICT" {
			t.Errorf("nobody was asked: %v", err)
		}
	})
}
