package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// changing is a run whose step each, which is not idempotent, has completed, and then has
// another list: of one item, and then of two again.
func changing(t *testing.T) (w *world, now func() runner.Opened, retry func(step string, down bool) error) {
	w = newWorld(t, nil)
	lists := []string{`["a","b"]`, `["c"]`, `["d","e"]`}
	w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
		r := exit(0)
		switch task.StepID {
		case "x":
			r.Output.Values = map[string]json.RawMessage{"list": json.RawMessage(lists[min(task.Attempt, len(lists))-1])}
		case "z":
			r = exit(65)
		}
		return r, nil
	}
	d := dag(func(d *manifests.DAG) {
		d.FailFast = false
		s := &d.Steps[1]
		s.Action, s.AllowSkip, s.ForEach, s.MaxParallel = "once", true, "${ steps.x.outputs.list }", 1
	}, "x", "each<x", "z")
	w.r = w.runner(2)
	run := w.start(d, "{}")
	w.background()
	w.later(run.RunID)
	now = func() runner.Opened { r, _ := w.look(run.RunID); return w.opened(r, d) }
	return w, now, func(step string, down bool) error {
		err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: step, Downstream: down}))
		w.later(run.RunID)
		return err
	}
}

// An item that has left the list of a completed step is asked about where the step is begun
// again by its name.
func TestANameDoesNotCoverWhatHasLeftTheList(t *testing.T) {
	for name, act := range map[string]func(w *world, now func() runner.Opened, retry func(string, bool) error) error{
		"retry": func(_ *world, _ func() runner.Opened, retry func(string, bool) error) error {
			if err := retry("x", false); err != nil {
				return err
			}
			return retry("each", false)
		},
		"downstream": func(_ *world, _ func() runner.Opened, retry func(string, bool) error) error { return retry("x", true) },
		"reset": func(w *world, now func() runner.Opened, retry func(string, bool) error) error {
			if err := retry("x", false); err != nil {
				return err
			}
			return second(w.r.Reset(now(), runner.Reset{Actor: "uid:7", StepID: "each"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, now, retry := changing(t)
				if err := errors.Join(retry("x", false), retry("each", false)); err != nil {
					t.Fatal(err)
				}
				if err := act(w, now, retry); codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "each.1") {
					t.Errorf("nobody was asked: %v: %v", err, w.exec.list())
				}
				time.Sleep(time.Hour)
				if n := count(w.exec.list(), "each.1."); n != 1 {
					t.Errorf("each.1 was done %d times", n)
				}
			})
		})
	}
}

// What somebody says of an item would be lost where its step goes on with another list.
func TestAnItemOfAnOldListIsNotNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, now, retry := changing(t)
		if err := errors.Join(retry("x", false), retry("each", false), retry("x", false)); err != nil {
			t.Fatal(err)
		}
		var c *runner.ConflictError
		err := retry("each.0", false)
		if !errors.As(err, &c) || !strings.Contains(c.Text, "another value") || !strings.Contains(c.Hint, "all of step each") {
			t.Errorf("a retry: %v", err)
		}
		err = second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "each", Repeat: true}))
		if err != nil {
			t.Errorf("the step: %v", err)
		}
		time.Sleep(time.Hour)
	})
}

// An item of a step that was passed over ends while its step begins again: it is counted
// once.
func TestASkipOfAPendingItemIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		ys := 0
		w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
			switch {
			case task.StepID == "y":
				if ys++; ys == 2 {
					time.Sleep(5 * time.Minute)
				}
			case task.StepID == "z":
				return exit(65), nil
			case task.Attempt == 1 && strings.HasPrefix(task.StepID, "each."):
				return exit(1), nil
			case strings.HasPrefix(task.StepID, "each."):
				time.Sleep(time.Minute)
			}
			return exit(0), nil
		}
		d := dag(func(d *manifests.DAG) {
			d.FailFast = false
			d.Steps[1].AllowSkip, d.Steps[1].ForEach = true, []any{int64(0), int64(1), int64(2)}
		}, "y", "each<y", "after<each", "z")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		w.later(run.RunID)
		now := func() runner.Opened { r, _ := w.look(run.RunID); return w.opened(r, d) }
		if err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "y", Downstream: true})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := second(w.r.Skip(now(), runner.Skip{Actor: "uid:7", StepID: "each", Reason: "x"})); err != nil {
			t.Fatal(err)
		}
		w.later(run.RunID)
		if err := second(w.r.Skip(now(), runner.Skip{Actor: "uid:7", StepID: "each.1", Reason: "x"})); err != nil {
			t.Fatal(err)
		}
		for range 300 {
			time.Sleep(time.Second)
			if err := w.r.Invariants(); err != nil {
				t.Fatal(err)
			}
		}
		if _, steps := w.look(run.RunID); steps["each"] != "completed" || steps["each.2"] != "completed" || steps["each.1"] != "skipped SKIPPED_BY_HAND" {
			t.Errorf("%v", steps)
		}
	})
}

// What was done at one end of a run keeps no rule from cleaning up after another.
func TestCleanupAtASecondEndIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		var firsts atomic.Int32
		w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
			switch {
			case task.StepID == "work":
				return exit(65), nil
			case task.StepID == "first" && firsts.Add(1) == 2: // at the second end
				return exit(1), nil
			}
			return exit(0), nil
		}
		k := dag(func(d *manifests.DAG) { d.ID, d.Steps[1].Action = "clean", "once" }, "first", "refund<first")
		w.sealed.publish(k)
		d := dag(func(d *manifests.DAG) {
			d.OnFailure = dag(func(d *manifests.DAG) {
				d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG = nil, "", "clean@1.0.0"
				d.Steps[0].Retry = manifests.Retry{MaxAttempts: 3, Backoff: time.Minute, MaxBackoff: time.Minute}
			}, "k").Steps
		}, "work")
		w.r = w.runner(2)
		run := w.start(d, "{}")
		w.background()
		now, _ := w.later(run.RunID)
		if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "work"})); err != nil {
			t.Fatal(err)
		}
		w.later(run.RunID)
		if n := count(w.exec.list(), "refund."); n != 2 {
			t.Errorf("refund ran %d times at two ends: %v", n, w.exec.list())
		}
	})
}

// While a step before it is done again, which all items will read, nothing is said of one
// of them: it would be lost.
func TestNothingIsSaidOfAnItemThatIsToBeDoneAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ys := 0
		w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
			switch task.StepID {
			case "y":
				if ys++; ys == 2 {
					time.Sleep(time.Minute)
				}
			case "each.0":
				return runner.Report{Stop: runner.StopResource}, nil
			}
			return exit(0), nil
		})
		d := dag(func(d *manifests.DAG) {
			d.Steps[1].Action, d.Steps[1].AllowSkip, d.Steps[1].ForEach = "once", true, []any{int64(0), int64(1)}
		}, "y", "each<y")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		w.later(run.RunID)
		now := func() runner.Opened { r, _ := w.look(run.RunID); return w.opened(r, d) }
		if err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "y"})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		skip := func() error {
			return second(w.r.Skip(now(), runner.Skip{Actor: "uid:7", StepID: "each.0", Reason: "it is done"}))
		}
		var c *runner.ConflictError
		if err := skip(); !errors.As(err, &c) || !strings.Contains(c.Hint, "wait for that") {
			t.Errorf("while y is under way: %v", err)
		}
		w.later(run.RunID)
		if err := skip(); err != nil {
			t.Errorf("after it: %v", err)
		}
		_, steps := w.later(run.RunID)
		if n := count(w.exec.list(), "each.0."); n != 1 || steps["each"] != "completed" {
			t.Errorf("each.0 was begun %d times: %v", n, steps)
		}
	})
}
