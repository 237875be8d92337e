package runner_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// during is a store in which something happens while an entry is on its way to disk.
type during struct {
	*store.DB
	on   ledger.Type
	once sync.Once
	do   func()
}

func (d *during) Commit(id string, all ...state.Proposal) (state.Run, error) {
	for _, p := range all {
		if p.Type == d.on {
			d.once.Do(d.do)
		}
	}
	return d.DB.Commit(id, all...)
}

// Somebody decides while the run ends for another reason: he is refused, and no
// second model of the run comes to be, which would write beside the first.
func TestADecisionWhileTheRunEnds(t *testing.T) {
	w := newWorld(t, nil)
	d := dag(func(d *manifests.DAG) {
		d.Steps[1].Plugin, d.Steps[1].Action, d.Steps[1].Checkpoint = nil, "", &manifests.Checkpoint{Question: "go on?"}
	}, "a", "b")
	fail := make(chan struct{})
	w.exec.run = func(context.Context, runner.Task) (runner.Report, error) {
		<-fail
		return exit(65), nil
	}
	decided := make(chan error, 1)
	slow := &during{DB: w.db, on: ledger.RunFailed}
	w.r = w.on(slow, 1)
	run := w.start(d, "{}")
	s := w.asked(run.RunID, "b")
	o := w.opened(run, d)
	slow.do = func() {
		go func() {
			_, err := w.r.Decide(o, decision(s, "uid:7", "continue"))
			decided <- err
		}()
		select { // he waits for us, if all is well
		case err := <-decided:
			decided <- err
		case <-time.After(50 * time.Millisecond):
		}
	}
	close(fail)
	got, _ := w.finish(run.RunID)
	var refused *runner.DecisionError
	if err := <-decided; !errors.As(err, &refused) && !errors.Is(err, runner.ErrStopping) {
		t.Errorf("the decision: %v", err)
	}
	if got.Status != state.Failed {
		t.Errorf("the run is %s", got.Status)
	}
}

// meeting is a store in which each write of a type waits until there are two of them.
type meeting struct {
	*store.DB
	on   ledger.Type
	came chan struct{} // of two
	both chan struct{}
}

func (m *meeting) Commit(id string, all ...state.Proposal) (state.Run, error) {
	if all[0].Type == m.on {
		select {
		case m.came <- struct{}{}:
			select {
			case <-m.both:
			case <-time.After(10 * time.Second):
				return state.Run{}, errors.New("no other write has come")
			}
		default: // the second
			close(m.both)
		}
	}
	return m.DB.Commit(id, all...)
}

// Runs that are taken up together are written together: a sync of the disk for each
// would keep a site with many of them from work.
func TestRunsAreTakenUpTogether(t *testing.T) {
	w := newWorld(t, ok)
	d := dag(nil, "a")
	one, two := w.start(d, "{}"), w.start(d, "{}")
	w.reopen()
	w.r = w.on(&meeting{DB: w.db, on: ledger.RunResumed, came: make(chan struct{}, 1), both: make(chan struct{})}, 1)
	var all sync.WaitGroup
	for _, run := range []state.Run{one, two} {
		o := w.opened(run, d)
		all.Go(func() {
			if err := w.r.Resume(context.Background(), "uid:0", o); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	w.finish(one.RunID)
	for _, run := range []state.Run{one, two} {
		if got, err := w.db.Run(run.RunID); err != nil || got.Status != state.Completed {
			t.Errorf("run %s is %s: %v", run.RunID, got.Status, err)
		}
	}
}
