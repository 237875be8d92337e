package runner_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// What was said of an item that could not be begun is over with a skip of its step.
func TestWhatWasSaidOfAnItemThatDidNotBeginIsOverWithASkip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zs := 0
		w := newWorld(t, nil)
		w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
			switch task.StepID {
			case "z":
				if zs++; zs <= 2 {
					return exit(65), nil
				}
			case "after":
				return exit(65), nil
			}
			return exit(0), nil
		}
		w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge", "after<charge")
		d := dag(func(d *manifests.DAG) {
			d.FailFast = false
			s := &d.Steps[0]
			s.AllowSkip = true
			s.ForEach = []any{int64(0), int64(1)}
			s.Plugin, s.Action, s.DAG = nil, "", "child@1.0.0"
		}, "each", "z<each")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Hour)
		now := func() runner.Opened { r, _ := w.look(run.RunID); return w.opened(r, d) }
		w.sealed.mu.Lock()
		w.sealed.disabled["child@1.0.0"] = true
		w.sealed.mu.Unlock()
		if err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "each", Repeat: true})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if err := second(w.r.Skip(now(), runner.Skip{Actor: "uid:8", StepID: "each", Reason: "it is done, do not repeat"})); err != nil {
			t.Fatal("skip: ", err)
		}
		time.Sleep(time.Hour)
		w.sealed.mu.Lock()
		w.sealed.disabled["child@1.0.0"] = false
		w.sealed.mu.Unlock()
		n1 := count(w.exec.list(), "charge")
		if err := second(w.r.Reset(now(), runner.Reset{Actor: "uid:9", StepID: "each"})); codeOf(err) != "CONFLICT" {
			t.Errorf("a reset asks nobody: %v", err)
		}
		if err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:9", StepID: "each.0", Repeat: true})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if n := count(w.exec.list(), "charge"); n != n1+1 {
			t.Errorf("n %d %d", n, n1)
		}
		if err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:9", StepID: "each.1"})); codeOf(err) != "CONFLICT" {
			t.Errorf("a retry asks nobody: %v", err)
		}
		time.Sleep(time.Hour)
		if n := count(w.exec.list(), "charge"); n > n1+1 {
			t.Errorf("charge was begun %d times, before %d: %v", n, n1+1, w.exec.list())
		}
	})
}
