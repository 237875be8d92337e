package runner_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// disagreeing is a store whose state machine refuses what a run does next, once told.
type disagreeing struct {
	runner.Store
	about atomic.Pointer[string]
}

func (d *disagreeing) Commit(runID string, p ...state.Proposal) (state.Run, error) {
	if id := d.about.Load(); id != nil && *id == runID {
		return state.Run{}, &state.TransitionError{What: "run", From: state.Running, On: ledger.StepQueued, Why: "a fault"}
	}
	return d.Store.Commit(runID, p...)
}

// A fault of ours in one run is that run's: what of it is under way is stopped, the
// others go on, and the next process takes it up from its records.
func TestAFaultOfOneRunIsNoOthers(t *testing.T) {
	began := make(chan string, 9)
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if began <- task.RunID; task.StepID == "long" && task.Attempt == 1 {
			return hangs(ctx, task)
		}
		return exit(0), nil
	})
	d := locking("1.0.0", func(d *manifests.DAG) { d.FailFast = false }, "long", "short")
	s := &disagreeing{Store: w.db}
	w.with(func(o *runner.Options) { o.Store, o.Contain, o.Workers, o.Parallel = s, true, 4, 1 })
	bad := w.start(d, "{}")
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.r.Run(ctx, false) }()
	<-began
	s.about.Store(&bad.RunID)
	var fault *runner.FaultError
	if _, err := w.r.Nudge(w.opened(bad, d), "uid:7", ""); !errors.As(err, &fault) || fault.RunID != bad.RunID {
		t.Fatalf("nudge: %v", err)
	}
	if _, err := w.r.Abort(w.opened(bad, d), "uid:7", ""); !errors.As(err, &fault) {
		t.Errorf("abort: %v", err)
	}
	if err := w.r.Fault(bad.RunID); err == nil {
		t.Error("nobody is told")
	}
	good := w.start(dag(nil, "short"), "{}")
	late := w.start(locking("1.1.0", nil, "late"), "{}") // on record the lock is the other's
	if got, _ := w.ended(good.RunID); got.Status != state.Completed || w.r.Fault(good.RunID) != nil {
		t.Errorf("the other run is %s", got.Status)
	}
	w.ended(w.start(dag(func(d *manifests.DAG) { d.ID = "quick" }, "short"), "{}").RunID) // passes when what may begin has
	if _, steps := w.look(late.RunID); steps["late"] != "queued" || w.r.Fault(late.RunID) != nil {
		t.Errorf("who wants its lock is %v, %v", steps, w.r.Fault(late.RunID))
	}
	stop()
	if err := <-ran; err != nil {
		t.Errorf("the runner ended: %v", err)
	}
	w.reopen()
	if n, err := w.r.Recover(context.Background(), w.opened(bad, d)); n != 1 || err != nil {
		t.Errorf("recovered were %d attempts, %v", n, err)
	}
	if err := w.r.Resume(context.Background(), "uid:0", w.opened(bad, d)); err != nil {
		t.Fatal(err)
	}
	if got, steps := w.finish(bad.RunID); got.Status != state.Completed {
		t.Errorf("the run is %s: %v", got.Status, steps)
	}
}

// taking is a store in which somebody else takes lock l just before a run of ours does.
type taking struct {
	runner.Store
	by  string
	all error
}

func (s *taking) Commit(runID string, p ...state.Proposal) (state.Run, error) {
	for _, x := range p {
		start, ok := x.Data.(*ledger.AttemptStart)
		if ok && len(start.Locks) > 0 && s.by != "" {
			theirs := x
			theirs.StepID, theirs.Attempt = "a", 1
			_, s.all = s.Store.Commit(s.by, theirs)
			s.by = ""
		}
	}
	return s.Store.Commit(runID, p...)
}

// A lock that the record says another has is a fault of the run that was given it, and
// not of the others.
func TestALockThatTheRecordRefusesIsAFaultOfOneRun(t *testing.T) {
	w := newWorld(t, ok)
	w.r = w.runner(1) // which never begins
	other := w.start(locking("1.0.0", nil, "a"), "{}")
	s := &taking{Store: w.db, by: other.RunID}
	w.with(func(o *runner.Options) { o.Store, o.Contain, o.Workers = s, true, 2 })
	w.background()
	bad := w.start(locking("1.1.0", nil, "b"), "{}")
	good := w.start(dag(nil, "c"), "{}")
	if got, _ := w.ended(good.RunID); got.Status != state.Completed || s.all != nil {
		t.Errorf("the other run is %s, %v", got.Status, s.all)
	}
	var fault *runner.FaultError
	var held *state.HeldError
	for w.r.Fault(bad.RunID) == nil {
		runtime.Gosched()
	}
	if err := w.r.Fault(bad.RunID); !errors.As(err, &fault) || !errors.As(err, &held) || held.RunID != other.RunID || held.StepID != "a" {
		t.Errorf("the fault is %v", err)
	}
	if h, _ := w.held(); h.RunID != other.RunID {
		t.Errorf("held by %+v", h)
	}
}
