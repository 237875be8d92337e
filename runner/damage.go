package runner

import (
	"errors"
	"fmt"
	"slices"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// A DamageError is a run of which something cannot be read that it was made of, or
// that it has made: nobody can go on with it, and only [Runner.Abort] and [Runner.Fail]
// end it.
type DamageError struct {
	RunID string
	Err   error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("runner: run %s is damaged: %v", e.RunID, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

// damageOf is err as the damage of a run.
func damageOf(runID string, err error) error {
	var known *DamageError
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &DamageError{runID, err}
}

// Readable says what keeps a run from being gone on with, nil if nothing does.
func (r *Runner) Readable(o Opened) error {
	if r.Executes(o.Run.RunID) {
		return nil
	}
	_, err := r.open(o)
	return err
}

// ending is how a run that cannot be read ends.
type ending struct {
	r     *Runner
	run   state.Run
	steps map[string]state.Step
	dead  map[string]state.Step // by step, see deadBelow: of its sub-run
	batch []state.Proposal
}

// endDamaged ends a run by its records alone: nothing of it is executed, so nothing
// has to be stopped but its sub-runs, whose ends are waited for, and nothing can clean
// up. The request is nil where it is on record.
func (r *Runner) endDamaged(o Opened, request *state.Proposal) (state.Run, error) {
	if err := r.hold(); err != nil {
		return o.Run, err
	}
	defer r.release()
	r.opening.Lock()
	x, open, err := r.ending(o, request)
	if err == nil && len(x.batch) > 0 {
		x.run, err = r.opt.Store.Commit(o.Run.RunID, x.batch...)
	}
	if err == nil && x.run.Status.Ended() {
		r.letGoOf(x.run)
	}
	r.opening.Unlock()
	if err != nil {
		return x.run, err
	}
	for _, child := range open {
		r.cancelChild(child, "its parent cannot be read any more", x.run.Aborted)
	}
	if x.run.Status.Ended() && x.run.ParentRunID != "" {
		err = r.childEnded(x.run)
	}
	if len(open) > 0 && err == nil {
		x.run, err = r.opt.Store.Run(o.Run.RunID)
	}
	return x.run, err
}

// ending collects what is to be written, and which sub-runs have to end first. The
// caller holds opening.
func (r *Runner) ending(o Opened, request *state.Proposal) (*ending, []string, error) {
	x := &ending{r: r, dead: map[string]state.Step{}}
	var err error
	if x.run, err = r.opt.Store.Run(o.Run.RunID); err != nil {
		return x, nil, err
	}
	switch {
	case x.run.Status.Ended():
		return x, nil, fmt.Errorf("%w: run %s is %s", ErrEnded, x.run.RunID, x.run.Status)
	case r.Executes(x.run.RunID):
		return x, nil, conflict("run %s was taken up a moment ago", x.run.RunID)
	}
	if x.steps, err = r.opt.Store.Steps(x.run.RunID); err != nil {
		return x, nil, err
	}
	if request != nil && !(x.run.Aborted || x.run.FailRequested() && request.Type == ledger.RunFailRequested) {
		x.batch = append(x.batch, *request)
		if d, ok := request.Data.(*ledger.RunFailing); ok {
			x.run.FailCode, x.run.FailNote = d.Code, d.Reason
		} else {
			x.run.Aborted = true
		}
	}
	var open []string
	children := map[string]state.Run{}
	for id, s := range x.steps {
		former, err := r.givenUp(s)
		if err != nil {
			return x, nil, err
		}
		if former != "" {
			open = append(open, former)
		}
		if s.Status != state.Running || s.Open || s.Child == nil || s.Child.Status != "" {
			continue
		}
		if children[id], err = r.opt.Store.Run(s.Child.RunID); err != nil {
			return x, nil, err
		}
		if !children[id].Status.Ended() {
			open = append(open, s.Child.RunID)
		}
		if x.dead[id], err = r.deadBelow(children[id]); err != nil {
			return x, nil, err
		}
	}
	if len(open) > 0 {
		slices.Sort(open)
		return x, open, nil
	}
	for _, id := range x.order(o) {
		x.end(id, children)
	}
	end := &ledger.RunEnd{FailureReason: x.run.FailCode, Message: x.run.FailNote}
	t := ledger.RunFailed
	if x.run.Aborted {
		t, end = ledger.RunCancelled, &ledger.RunEnd{FailureReason: string(state.RunAborted)}
	}
	x.propose(t, "", 0, end)
	x.batch = r.compared(x.run, x.batch)
	return x, nil, nil
}

// order is the steps that have a record, and where the spec can be read the ordinary
// ones that have none.
func (x *ending) order(o Opened) []string {
	ids := sortedKeys(x.steps)
	if o.DAG == nil {
		return ids
	}
	for i := range o.DAG.Steps {
		if id := o.DAG.Steps[i].ID; x.steps[id].StepID == "" {
			ids = append(ids, id)
		}
	}
	return ids
}

func (x *ending) propose(t ledger.Type, stepID string, attempt int, data any) {
	x.batch = append(x.batch, state.Proposal{Type: t, Actor: "system:runner", StepID: stepID, Attempt: attempt, Data: data})
}

// end ends what is under way of a step, and the step.
func (x *ending) end(id string, children map[string]state.Run) {
	s := x.steps[id]
	child, sub := children[id]
	switch {
	case s.Status.Ended():
		return
	case s.Open:
		x.propose(ledger.AttemptEnded, id, s.Attempt, &ledger.AttemptEnd{
			Generation: x.run.Generation, Outcome: string(state.Interrupted), ErrorCode: string(state.Indeterminate),
			Message: "nobody executes the run any more, and its files cannot be read",
		})
	case sub:
		x.propose(ledger.SubrunEnded, id, s.Attempt, &ledger.SubrunEnd{
			RunID: child.RunID, Status: string(child.Status), OutputsHash: child.OutputsHash, FailureReason: child.FailureReason,
			Overridden: child.Overridden,
		})
	case s.Status == state.CheckpointPending && s.Approval != nil:
		x.propose(ledger.ApprovalClosed, id, s.Approval.Attempt, &ledger.ApprovalClosing{Result: state.ApprovalWithdrawn})
	}
	switch {
	case x.run.Aborted:
		x.propose(ledger.StepCancelled, id, 0, &ledger.StepEnd{Reason: string(state.RunCancelled)})
	case s.Open: // nobody knows how far it came, and no rule above may do it again
		x.propose(ledger.StepFailed, id, 0, &ledger.StepEnd{ErrorCode: string(state.Indeterminate)})
	case s.Status == state.Running && x.dead[id].StepID != "":
		dead := x.dead[id]
		x.propose(ledger.StepFailed, id, 0, &ledger.StepEnd{ErrorCode: dead.ErrorCode, Reason: clip(dead.ErrorCode + " in " + dead.StepID + " of run " + child.RunID)})
	case s.Status == state.Running:
		x.propose(ledger.StepFailed, id, 0, &ledger.StepEnd{ErrorCode: x.run.FailCode})
	default:
		x.propose(ledger.StepSkipped, id, 0, &ledger.StepEnd{Reason: string(state.RunFailing)})
	}
}

// letGoOf gives back what was held on record by a run that has ended so.
func (r *Runner) letGoOf(run state.Run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.queue.locks.all {
		if l.id.tenant == run.Tenant {
			r.queue.locks.drop(r.queue, l, func(h holder) bool { return h.owner == nil && h.runID == run.RunID })
		}
	}
	r.dispatch()
}
