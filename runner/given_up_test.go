package runner_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// dying is a store that takes nothing any more from a moment on, as that of a process that
// has died.
type dying struct {
	runner.Store
	dead atomic.Bool
	last func(runID string, all []state.Proposal) (before, after bool) // die before, or after, this is written
}

func (s *dying) Commit(runID string, all ...state.Proposal) (state.Run, error) {
	before, after := s.last(runID, all)
	if before {
		s.dead.Store(true)
	}
	if s.dead.Load() {
		return state.Run{}, errors.New("dead")
	}
	run, err := s.Store.Commit(runID, all...)
	if after {
		s.dead.Store(true)
	}
	return run, err
}

func writes(all []state.Proposal, t ledger.Type) bool {
	return slices.ContainsFunc(all, func(p state.Proposal) bool { return p.Type == t })
}

// A sub-run that somebody had reopened while its step waited for it, and that a reset has
// given up, is cancelled and waited for also where the process has died before it could
// cancel it.
func TestASubRunThatWasReopenedAndGivenUpIsCancelledAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"c": {65}}, map[string]time.Duration{"c": 10 * time.Minute}))
		w.child(nil, "c")
		top, child := parent(nil, "sub"), w.sealed.dags["child@1.0.0"]
		run := w.start(top, "{}")
		w.r = w.on(&dying{Store: w.db, last: func(runID string, all []state.Proposal) (bool, bool) {
			return runID == run.RunID && writes(all, ledger.SubrunEnded), false
		}}, 4)
		if err := w.r.Resume(context.Background(), "uid:0", w.asIs(run.RunID, top)); err != nil {
			t.Fatal(err)
		}
		stop := w.executing()
		time.Sleep(11 * time.Minute) // the sub-run has failed, and its step does not know
		stop()
		rec, _ := w.db.Step(run.RunID, "sub")
		first := rec.Child.RunID

		w.r = w.on(&dying{Store: w.db, last: func(runID string, all []state.Proposal) (bool, bool) {
			return false, runID == run.RunID && writes(all, ledger.RunReset)
		}}, 4)
		stop = w.executing()
		w.retry(t, first, child, runner.Retry{StepID: "c"})
		if err := w.r.Resume(context.Background(), "uid:0", w.asIs(run.RunID, top)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := second(w.r.Reset(w.asIs(run.RunID, top), runner.Reset{Actor: "uid:7", StepID: "sub", Repeat: true})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		stop()
		if now, _ := w.look(first); now.Status != state.Running || now.CancelRequested() {
			t.Fatalf("the sub-run is %s, its cancel asked for: %v", now.Status, now.CancelRequested())
		}

		w.exec.seen = nil
		w.r = w.runner(4)
		runs := []struct {
			id string
			d  *manifests.DAG
		}{{run.RunID, top}, {first, child}}
		for _, x := range runs {
			if _, err := w.r.Recover(context.Background(), w.asIs(x.id, x.d)); err != nil {
				t.Fatal(err)
			}
		}
		w.r.Recovered()
		for _, x := range runs {
			if err := w.r.Resume(context.Background(), "uid:0", w.asIs(x.id, x.d)); err != nil && !errors.Is(err, runner.ErrEnded) {
				t.Fatal(err)
			}
		}
		stop = w.executing()
		time.Sleep(time.Hour)
		stop()
		if now, _ := w.look(first); now.Status != state.Cancelled {
			t.Errorf("the sub-run that was given up is %s", now.Status)
		}
		if got := w.exec.list(); !slices.Equal(got, []string{"c.1"}) {
			t.Errorf("executed %v, want that of another sub-run alone", got)
		}
	})
}
