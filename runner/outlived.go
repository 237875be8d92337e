package runner

import (
	"errors"
	"slices"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// A step can give up its sub-run before that has ended: by a reset, or because it
// lost a lock. What the step holds, on record and here, it holds until nothing of the
// sub-run is under way, with the slot of the run, and the step starts no other before.

// outlived is what a step has left to a sub-run that it does not wait for any more.
// The runner's mu guards it.
type outlived struct {
	e     *execution // the model of the parent that counts its slot
	n     *node      // the step in it
	owner *node      // who holds the locks, in the place of the step
}

// freed is a step that has no sub-run any more.
type freed struct {
	n      *node
	former string // the sub-run, where it has not ended
}

// leaveChild lets go of a sub-run that has not ended.
func (e *execution) leaveChild(n *node) {
	n.former, n.child = n.child, ""
	e.freed = append(e.freed, freed{n, n.former})
}

// outlive leaves what a step holds to its former sub-run. The caller holds e.mu and mu.
func (r *Runner) outlive(e *execution, n *node) {
	o := r.outlived[n.former]
	if o == nil {
		o = &outlived{owner: &node{id: n.id, step: n.step, locks: n.locks, attempt: n.attempt}}
		r.queue.locks.handDown(e, n, o.owner)
		r.outlived[n.former] = o
	}
	o.e, o.n = e, n
}

// handDown gives what a step holds to another owner.
func (l *locks) handDown(e *execution, n, owner *node) {
	for _, want := range n.locks {
		x := l.get(e.tenant, want)
		for i := range x.holders {
			h := &x.holders[i]
			if h.owner != n && (h.owner != nil || h.runID != e.runID || h.stepID != n.id) {
				continue
			}
			if h.owner == nil {
				l.inherited--
			}
			h.owner = owner
		}
	}
}

// gone gives back what was left to a sub-run, of which nothing is under way any more
// or which nobody executes, and lets the step go on that had it.
func (r *Runner) gone(child string) error {
	r.mu.Lock()
	o := r.outlived[child]
	if o == nil {
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	if err := r.reclaimOf(o, child); err != nil {
		return err
	}
	r.mu.Lock()
	if r.outlived[child] != o {
		r.mu.Unlock()
		return nil // somebody else has been here
	}
	delete(r.outlived, child)
	r.queue.free(&o.e.slots, 1)
	r.queue.locks.release(r.queue, o.e, o.owner)
	r.dispatch()
	r.mu.Unlock()
	return r.within(o.e, func() error {
		e, n := o.e, o.n
		if n.former != child {
			return nil
		}
		n.former = ""
		if e.ended.Load() {
			r.tellWhenQuiet(e)
			return nil
		}
		if n.status == state.Queued && !n.claimed && !n.worker {
			e.fresh = append(e.fresh, n)
		}
		return r.commit(e) // the run may have waited for nothing else
	})
}

// reclaimOf takes what a step holds, on record, from a sub-run that has not ended and
// that nobody can take up.
func (r *Runner) reclaimOf(o *outlived, child string) error {
	run, err := r.opt.Store.Run(child)
	if err != nil || run.Status.Ended() || len(o.owner.locks) == 0 {
		return err
	}
	if err := r.hold(); err != nil {
		return err
	}
	defer r.release()
	recs, err := r.opt.Store.Locks(o.e.tenant)
	if err != nil {
		return err
	}
	for _, rec := range recs {
		for _, h := range rec.Holders {
			if h.RunID != o.e.runID || h.StepID != o.owner.id || h.Attempt != o.owner.attempt {
				continue
			}
			loss := ledger.LockLoss{
				Kind: rec.Kind, Name: rec.Name, RunID: h.RunID, StepID: h.StepID, Fence: h.Fence,
				Reason: "run " + child + ", which its step has given up, cannot be taken up",
			}
			err := r.opt.Store.LoseLock(ledger.LockReclaimed, "system:runner", o.e.tenant, loss)
			if err == nil {
				continue
			}
			if now, lerr := r.recorded(o.e.tenant, loss); lerr != nil || now.Fence != 0 { // else somebody has taken it meanwhile
				return errors.Join(err, lerr)
			}
		}
	}
	return nil
}

// tellWhenQuiet lets the parent of a run that has ended know, once nothing of the run
// is under way any more: neither an attempt that was taken back and has not let go
// yet, nor a sub-run that was given up. The caller holds e.mu.
func (r *Runner) tellWhenQuiet(e *execution) {
	if !e.untold || e.workers > 0 || slices.ContainsFunc(e.all(), func(n *node) bool { return n.former != "" }) {
		return
	}
	e.untold = false
	r.tellParent(e)
}

// remember finds out which sub-runs that the steps of a run have given up go on.
func (e *execution) remember(records map[string]state.Step) (err error) {
	for _, n := range e.all() {
		if n.former, err = e.r.givenUp(records[n.id]); err != nil {
			return err
		}
	}
	return nil
}

// givenUp is the sub-run that a step does not wait for any more and that goes on, "" for
// none. One that was reopened since goes on by itself; one that was before, while it was
// waited for, is to end.
func (r *Runner) givenUp(s state.Step) (string, error) {
	c := s.Child
	switch {
	case c == nil, c.Status != "" && c.FailureReason != string(state.LockLost):
		return "", nil
	case c.Status == "" && s.Status == state.Running && !s.Open: // it is waited for
		return "", nil
	}
	run, err := r.opt.Store.Run(c.RunID)
	if err != nil || run.Status.Ended() || run.ReopenedUTC > c.LeftUTC && !run.CancelRequested() {
		return "", err
	}
	return c.RunID, nil
}

// resumeFormer takes care of a sub-run that a step has given up, so that it ends. If it
// cannot be taken up, its step goes on without waiting for it.
func (r *Runner) resumeFormer(actor, child string) {
	bad := (*DamageError)(nil)
	err := r.resumeChild(actor, child)
	if r.Executes(child) || err != nil && !errors.As(err, &bad) {
		return
	}
	if err := r.gone(child); err != nil && !errors.Is(err, ErrStopping) {
		r.opt.Log.Error("a step cannot go on after its sub-run", "runId", child, "error", err)
	}
}

// loseChild fails a step whose sub-run has lost a lock: it must not go on without.
func (e *execution) loseChild(n *node, name, why string, run state.Run) error {
	child, ended := run.RunID, run.Status.Ended()
	dead, err := e.r.deadBelow(run)
	if err != nil {
		return err
	}
	code := state.LockLost
	if dead.StepID != "" {
		code, why = state.Code(dead.ErrorCode), why+"; "+dead.ErrorCode+" in "+dead.StepID+" of run "+child
	}
	d := &ledger.SubrunEnd{RunID: child, Status: string(state.Failed), FailureReason: string(state.LockLost), Left: !ended}
	if ended {
		e.endChild(n, d)
	} else {
		e.cancelLater(child, "its parent lost "+name, ErrCancelled)
		e.propose(ledger.SubrunEnded, n, d)
		e.leaveChild(n)
	}
	e.end(n, ledger.StepFailed, state.Failed, code, ledger.StepEnd{Reason: clip(why)})
	return nil
}
