package runner_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// An item that somebody has passed over counts as done: what lets its step go on keeps it.
func TestAnItemThatWasPassedOverIsNotDoneAgain(t *testing.T) {
	for _, how := range []string{"default retry", "retry each", "reset each"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
				switch {
				case task.StepID == "each.0" && task.Attempt == 1:
					return runner.Report{Stop: runner.StopShutdown}, nil
				case task.StepID == "each.1" && task.Attempt == 1:
					return exit(3), nil
				}
				return exit(0), nil
			})
			d := dag(func(d *manifests.DAG) {
				s := &d.Steps[0]
				s.Action, s.AllowSkip, s.ForEach, s.MaxParallel = "once", true, []any{int64(0), int64(1)}, 1
			}, "each")
			run := w.start(d, "{}")
			now, _ := w.finish(run.RunID)
			w.r = w.runner(1)
			if err := second(w.r.Skip(w.opened(now, d), runner.Skip{Actor: "uid:7", StepID: "each.0", Reason: "it is done"})); err != nil {
				t.Fatal(err)
			}
			now, _ = w.finish(run.RunID)
			w.r = w.runner(1)
			var err error
			switch how {
			case "default retry":
				err = second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7"}))
			case "retry each":
				err = second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "each"}))
			default:
				err = second(w.r.Reset(w.opened(now, d), runner.Reset{Actor: "uid:7", StepID: "each"}))
			}
			if err != nil {
				t.Fatal(err)
			}
			now, steps := w.finish(run.RunID)
			if now.Status != state.Completed {
				t.Errorf("the run is %s: %v", now.Status, steps)
			}
			if n := count(w.exec.list(), "each.0."); n != 1 {
				t.Errorf("each.0 was begun %d times: %v", n, w.exec.list())
			}
		})
	}
}

// The run goes down while a step goes on of which an item was passed over: a retry of
// what has failed is about neither.
func TestAnItemThatWasPassedOverComesBackWithItsStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
			switch {
			case task.StepID == "each.0" && task.Attempt == 1:
				return runner.Report{Stop: runner.StopShutdown}, nil
			case task.StepID == "each.1":
				time.Sleep(20 * time.Second)
			case task.StepID == "late" && task.Attempt == 1:
				time.Sleep(10 * time.Second)
				return exit(65), nil
			case task.StepID == "a":
				time.Sleep(5 * time.Second)
			}
			return exit(0), nil
		})
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 3
			s := &d.Steps[0]
			s.Action, s.AllowSkip, s.ForEach, s.MaxParallel = "once", true, []any{int64(0), int64(1), int64(2)}, 1
		}, "each", "a", "late<a")
		w.r = w.runner(3)
		run := w.start(d, "{}")
		w.background()
		now, _ := w.later(run.RunID)
		if err := second(w.r.Skip(w.opened(now, d), runner.Skip{Actor: "uid:7", StepID: "each.0", Reason: "it is done"})); err != nil {
			t.Fatal(err)
		}
		now, _ = w.later(run.RunID)
		if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "late"})); err != nil {
			t.Fatal(err)
		}
		now, steps := w.later(run.RunID)
		if now.Status != state.Completed {
			t.Errorf("the run is %s: %v", now.Status, steps)
		}
		if n := count(w.exec.list(), "each.0."); n != 1 {
			t.Errorf("each.0 was begun %d times: %v", n, w.exec.list())
		}
	})
}

// What somebody has given for an item stays when its step is retried.
func TestTheOutputGivenForAnItemIsKept(t *testing.T) {
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.Attempt == 1 {
			return exit(3), nil
		}
		return says(ctx, task)
	})
	d := dag(func(d *manifests.DAG) {
		s := &d.Steps[0]
		s.AllowSkip, s.ForEach, s.MaxParallel = true, []any{int64(0), int64(1)}, 1
		s.With = map[string]any{"v": "${ item }"}
	}, "each")
	run := w.start(d, "{}")
	now, _ := w.finish(run.RunID)
	w.r = w.runner(1)
	if err := second(w.r.Skip(w.opened(now, d), runner.Skip{Actor: "uid:7", StepID: "each.0", Output: json.RawMessage(`{"v":"by hand"}`)})); err != nil {
		t.Fatal(err)
	}
	now, _ = w.finish(run.RunID)
	w.r = w.runner(1)
	if err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7"})); err != nil {
		t.Fatal(err)
	}
	now, steps := w.finish(run.RunID)
	recs, _ := w.db.Steps(run.RunID)
	if got := w.blob(recs["each"].OutputsHash); !strings.Contains(got, "by hand") {
		t.Errorf("%s %v: %s", now.Status, steps, got)
	}
}

// Skipping an item that has not had its turn lets no more run at a time than may.
func TestASkipOfAnItemKeepsToMaxParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
			time.Sleep(time.Minute)
			return exit(0), nil
		})
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 4
			s := &d.Steps[0]
			s.AllowSkip, s.ForEach, s.MaxParallel = true, []any{int64(0), int64(1), int64(2), int64(3)}, 1
		}, "each")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Second)
		now, _ := w.look(run.RunID)
		if err := second(w.r.Skip(w.opened(now, d), runner.Skip{Actor: "uid:7", StepID: "each.3"})); err != nil {
			t.Fatal(err)
		}
		got, steps := w.later(run.RunID)
		if w.exec.peak() != 1 {
			t.Errorf("%d ran at once: %s %v %v", w.exec.peak(), got.Status, steps, w.exec.list())
		}
	})
}
