package runner_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// siblings is a run whose step "sub" has begun two sub-runs, which failed before their
// step "charge", and of which somebody has finished the older one since.
func siblings(t *testing.T, most int) (w *world, now func() runner.Opened, younger func() runner.Opened) {
	t.Helper()
	w = newWorld(t, nil)
	var firsts atomic.Int32
	w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "first" && firsts.Add(1) <= 2 {
			return exit(1), nil
		}
		return exit(0), nil
	}
	w.child(func(d *manifests.DAG) { d.Steps[1].Action = "once" }, "first", "charge<first")
	d := parent(func(d *manifests.DAG) {
		d.Steps[0].Retry = manifests.Retry{MaxAttempts: most, Backoff: time.Hour, MaxBackoff: time.Hour}
	}, "sub")
	w.r = w.runner(4)
	run := w.start(d, "{}")
	w.background()
	time.Sleep(time.Second)
	older := w.childOf(run, "sub")
	time.Sleep(time.Hour)
	last := w.childOf(run, "sub")
	c, _ := w.look(older)
	if err := second(w.r.Retry(w.opened(c, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "first"})); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	if n := count(w.exec.list(), "charge."); n != 1 || older == last {
		t.Fatalf("charge was done %d times", n)
	}
	return w, func() runner.Opened {
			now, _ := w.look(run.RunID)
			return w.opened(now, d)
		}, func() runner.Opened {
			now, _ := w.look(last)
			return w.opened(now, w.sealed.dags["child@1.0.0"])
		}
}

// Every sub-run that a step has begun counts, also one that another has followed.
func TestAnOlderSubRunCounts(t *testing.T) {
	for name, act := range map[string]func(w *world, now, younger func() runner.Opened) error{
		"a retry of the step": func(w *world, now, _ func() runner.Opened) error {
			return second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "sub"}))
		},
		"a reset of the step": func(w *world, now, _ func() runner.Opened) error {
			return second(w.r.Reset(now(), runner.Reset{Actor: "uid:7", StepID: "sub"}))
		},
		"a retry of the younger one": func(w *world, _, younger func() runner.Opened) error {
			return second(w.r.Retry(younger(), runner.Retry{Actor: "uid:7", StepID: "first"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, now, younger := siblings(t, 2)
				if err := act(w, now, younger); codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "sub/charge") {
					t.Errorf("nobody was asked: %v", err)
				}
			})
		})
	}
	t.Run("a rule", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, now, _ := siblings(t, 5)
			time.Sleep(5 * time.Hour)
			if n := count(w.exec.list(), "charge."); n != 1 {
				t.Errorf("charge was done %d times: %s %v", n, now().Run.Status, w.exec.list())
			}
		})
	})
}

// beforeBirth is a store that calls a function when a sub-run is about to be written.
type beforeBirth struct {
	*store.DB
	second atomic.Pointer[func()]
	births atomic.Int32
}

func (s *beforeBirth) StartRun(run state.Run, d *ledger.RunStart, p []state.Proposal, more ...state.Batch) (state.Run, error) {
	if f := s.second.Load(); f != nil && run.ParentRunID != "" && s.births.Add(1) == 2 {
		(*f)()
	}
	return s.DB.StartRun(run, d, p, more...)
}

// Who reopens a sub-run while a rule is about to begin another, waits for that and is
// asked.
func TestASubRunIsNotReopenedWhileAnotherIsBegun(t *testing.T) {
	w := newWorld(t, nil)
	var firsts atomic.Int32
	w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "first" && firsts.Add(1) == 1 {
			return exit(1), nil
		}
		return exit(0), nil
	}
	w.child(func(d *manifests.DAG) { d.Steps[1].Action = "once" }, "first", "charge<first")
	d := parent(func(d *manifests.DAG) {
		d.Steps[0].Retry = manifests.Retry{MaxAttempts: 3, Backoff: time.Millisecond, MaxBackoff: time.Millisecond}
	}, "sub")
	s := &beforeBirth{DB: w.db}
	w.r = w.on(s, 4)
	answer := make(chan error, 1)
	run := w.start(d, "{}")
	reopen := func() {
		child, _ := w.look(w.childOf(run, "sub"))
		tried := make(chan bool)
		go func() {
			close(tried)
			answer <- second(w.r.Retry(w.opened(child, w.sealed.dags["child@1.0.0"]), runner.Retry{Actor: "uid:7", StepID: "first"}))
		}()
		<-tried
		select { // it would be answered at once, if it did not wait
		case err := <-answer:
			answer <- err
		case <-time.After(100 * time.Millisecond):
		}
	}
	s.second.Store(&reopen)
	w.background()
	w.ended(run.RunID)
	if err := <-answer; codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "has gone on with run") {
		t.Errorf("nobody was asked: %v", err)
	}
	if n := count(w.exec.list(), "charge."); n != 1 {
		t.Errorf("charge was done %d times: %v", n, w.exec.list())
	}
}
