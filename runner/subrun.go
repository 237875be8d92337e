package runner

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// MaxDepth bounds how deep sub-runs may be nested.
const MaxDepth = 16

// A step that names a DAG starts a run of it. Parent and child are models of
// their own, and never locked at a time but for the birth of the child; the first
// entry of the child and the one that names it at the parent are one transaction.
// When the child has ended, the parent is told; a parent that nobody executed
// then is told when it is opened.

// birth is a sub-run that is about to be.
type birth struct {
	plan  *Plan
	trust ledger.TrustRef
	fault error // why it cannot be

	replayOf string // the run that this step had started in the run that is replayed
}

// conceive resolves what a sub-run needs that can be had without the run's lock.
func (r *Runner) conceive(n *node) (b birth) {
	if b.plan, b.fault = r.planOf(n.plan.SubPlan); b.fault != nil {
		return b
	}
	if b.fault = r.opt.Sealed.Startable(b.plan.DAG.ID, b.plan.DAG.Version); b.fault != nil {
		return b
	}
	b.trust, b.fault = r.opt.Sealed.Judge(b.plan.DAG.Digest)
	return b
}

// bornThen are the sub-runs of the run that a replay repeats, by step.
type bornThen struct {
	mu sync.Mutex // guards of
	of map[string]string
}

// childOf is the run that a step had started in the run that is replayed. All of them
// are read at once: each would take as much.
func (e *execution) childOf(stepID string) (string, error) {
	e.then.mu.Lock()
	defer e.then.mu.Unlock()
	if e.then.of == nil {
		steps, err := e.r.opt.Store.Steps(e.replayOf)
		if err != nil {
			return "", err
		}
		e.then.of = map[string]string{}
		for id, s := range steps {
			if s.Child != nil {
				e.then.of[id] = s.Child.RunID
			}
		}
	}
	if child := e.then.of[stepID]; child != "" {
		return child, nil
	}
	return "", fmt.Errorf("the run that is replayed had not started a sub-run in step %s", stepID)
}

// startChild claims a step that is a sub-run. It returns whether the child lives.
func (r *Runner) startChild(ctx context.Context, e *execution, n *node, p *prepared) (alive bool, err error) {
	b := r.conceive(n)
	if e.replayOf != "" && b.fault == nil {
		b.replayOf, b.fault = e.childOf(n.id)
	}
	var child *execution
	err = r.withoutReopening(e, n, func() error {
		if ok, err := r.mayClaim(ctx, e, n); !ok {
			return err
		}
		refusal := p.fault
		if refusal == nil {
			refusal = p.refused
		}
		if refusal == nil {
			refusal = b.fault
		}
		if refusal == nil {
			var why string
			var code state.Code
			if code, why, err = e.undecidedChild(n); why != "" {
				n.claimed = false
				e.end(n, ledger.StepFailed, state.Failed, code, ledger.StepEnd{Reason: clip(why)})
				return r.commit(e)
			}
		}
		if refusal == nil && err == nil {
			child, refusal, err = r.bear(e, n, p, b)
		}
		if err != nil {
			return err
		}
		if refusal != nil {
			n.claimed = false
			code := state.ChildRefused
			if bad := (*valueError)(nil); errors.As(refusal, &bad) {
				code = bad.code
			}
			e.end(n, ledger.StepFailed, state.Failed, code, ledger.StepEnd{Reason: clip(refusal.Error())})
			return r.commit(e)
		}
		alive = true
		return nil
	})
	if child != nil {
		err = errors.Join(err, r.within(child, func() error {
			r.handOver(child)
			return nil
		}))
	}
	return alive, err
}

// withoutReopening is [Runner.within] for a step that may begin another sub-run: meanwhile nobody
// reopens one that it has begun before.
func (r *Runner) withoutReopening(e *execution, n *node, f func() error) error {
	e.mu.Lock()
	first := n.attempt == 0
	e.mu.Unlock()
	if first {
		return r.within(e, f)
	}
	r.opening.Lock()
	later, err := e.locked(f)
	r.opening.Unlock()
	for _, f := range later {
		f()
	}
	return err
}

// subToken is the run token of the sub-run that an attempt of a step is.
func subToken(runID, stepID string, attempt int) string {
	return fmt.Sprintf("stella:sub:%s:%s:%d", runID, stepID, attempt)
}

// bear makes the child, and writes its first entries together with the parent's.
// The refusal is why the child cannot be; the error is a write that failed, which
// ends the runner. The caller holds the parent's mu.
func (r *Runner) bear(e *execution, n *node, p *prepared, b birth) (child *execution, refusal, err error) {
	dag, err := r.opt.Sealed.DAG(b.plan.DAG.Digest)
	if err != nil {
		return nil, err, nil
	}
	if e.run.Depth+1 > MaxDepth {
		return nil, fmt.Errorf("sub-runs are nested more than %d deep", MaxDepth), nil
	}
	var start *ledger.RunStart
	child, start, err = r.newRun(Start{
		Tenant: e.tenant, Actor: "system:runner", RunToken: subToken(e.runID, n.id, n.attempt+1),
		TraceID: e.run.TraceID, Pinned: b.plan.DAG.Version, DAG: dag, Plan: b.plan, Inputs: p.params, Trust: b.trust,
		Parent: e.runID, ParentStep: n.id, Depth: e.run.Depth + 1, Priority: e.priority,
		ReplayOf: b.replayOf, Rationale: e.run.Rationale,
	})
	if err != nil {
		return nil, err, nil
	}
	child.mu.Lock()
	defer child.mu.Unlock()
	if err := errors.Join(child.begin(), child.advance()); err != nil {
		return nil, err, nil
	}
	n.attempt++
	n.status, n.child, n.claimed, n.repeat = state.Running, child.runID, false, false
	n.round.Add(1)
	e.propose(ledger.SubrunStarted, n, &ledger.SubrunStart{
		Generation: e.run.Generation, RunID: child.runID, DAGID: dag.ID, DAGVersion: dag.Version,
		PlanHash: child.run.PlanHash, InputsHash: child.run.InputsHash, Locks: n.locks,
	})
	r.adopt(child)
	run, err := r.opt.Store.StartRun(child.run, start, child.batch, state.Batch{RunID: e.runID, Proposals: e.batch})
	if err == nil {
		child.run, child.batch, e.batch = run, nil, e.batch[:0]
		e.run, err = r.opt.Store.Run(e.runID)
	}
	if err != nil {
		r.drop(child)
		child.setEnded()
		return nil, nil, r.broken(e, err)
	}
	e.touch()
	e.limitChild(n, run)
	if child.ended.Load() {
		r.tellParent(child)
	}
	r.watch(child)
	return child, nil, nil
}

// tellParent lets the parent of a run that has ended know, see [Runner.tellWhenQuiet].
// The caller holds e.mu.
func (r *Runner) tellParent(e *execution) {
	if e.run.ParentRunID == "" {
		return
	}
	run := e.run
	e.later = append(e.later, func() {
		if err := r.childEnded(run); err != nil && !errors.Is(err, ErrStopping) {
			r.opt.Log.Error("the parent of a run could not be told of its end", "runId", run.RunID, "parent", run.ParentRunID, "error", err)
		}
	})
}

func (r *Runner) childEnded(run state.Run) error {
	if err := errors.Join(r.gone(run.RunID), r.compareLocks(run.Tenant, run.ParentRunID, run.ParentStepID)); err != nil {
		return err
	}
	r.mu.Lock()
	parent := r.execs[run.ParentRunID]
	r.mu.Unlock()
	if parent != nil {
		return r.within(parent, func() error {
			if err := parent.childDone(run); err != nil {
				return err
			}
			return r.commit(parent)
		})
	}
	o, err := r.load(run.ParentRunID)
	if err == nil && !o.Run.Status.Ended() {
		_, err = r.operate(o, func(e *execution) error {
			if err := e.reconcile(false); err != nil {
				return err
			}
			return r.commit(e)
		})
	}
	if bad := (*DamageError)(nil); errors.As(err, &bad) && (o.Run.Aborted || o.Run.FailRequested()) {
		_, err = r.endDamaged(o, nil) // its end was asked for, and has waited for this
	}
	return err
}

// tellIdle tells a parent that nobody executes of the end of its sub-run: the process
// may have ended before it was told.
func (r *Runner) tellIdle(run state.Run) {
	if r.Executes(run.ParentRunID) {
		return // it was told, or has looked when it was taken up
	}
	if err := r.childEnded(run); err != nil && !errors.Is(err, ErrStopping) {
		r.opt.Log.Error("the parent of a run could not be told of its end", "runId", run.RunID, "parent", run.ParentRunID, "error", err)
	}
}

// childDone decides about the step whose sub-run has ended.
func (e *execution) childDone(run state.Run) error {
	n := e.find(run.ParentStepID)
	if e.ended.Load() || n == nil || n.child != run.RunID {
		return nil // its step went another way
	}
	outputs, fault := e.r.outputs(run.OutputsHash) // before anything is decided on
	left, err := e.leftBelow(n, run)
	if err != nil {
		return err
	}
	e.endChild(n, &ledger.SubrunEnd{
		RunID: run.RunID, Status: string(run.Status), OutputsHash: run.OutputsHash, FailureReason: run.FailureReason, Overridden: run.Overridden,
	})
	if run.Status == state.Completed {
		if fault != nil {
			e.end(n, ledger.StepFailed, state.Failed, state.CodeInfra, ledger.StepEnd{Reason: clip("the outputs of run " + run.RunID + " cannot be read: " + fault.Error())})
			return nil
		}
		n.outputs = outputs
		e.acted(n, run.OutputsHash)
		return nil
	}
	if e.run.CancelRequested() {
		e.end(n, ledger.StepCancelled, state.Cancelled, state.RunCancelled, ledger.StepEnd{})
		return nil
	}
	e.childFailed(n, run, left)
	return nil
}

// childFailed decides about a step whose sub-run has not succeeded: by the step's
// retry rule, as if it had been an attempt. Where a step below goes on only with a
// person, so does this one; and what has been done below and is not idempotent no rule
// does again.
func (e *execution) childFailed(n *node, run state.Run, left leftover) {
	dead := left.dead
	n.failures++
	end := &ledger.AttemptEnd{Outcome: string(run.Status), ErrorCode: run.FailureReason}
	code, why := state.ChildFailed, fmt.Sprintf("run %s is %s: %s", run.RunID, run.Status, run.FailureReason)
	if run.FailedStep != "" {
		why += " in " + run.FailedStep
	}
	late := overdue(n, run)
	if late {
		end.Outcome, end.ErrorCode = string(state.TimedOut), string(state.Timeout)
		code, why = state.Timeout, fmt.Sprintf("run %s was not done within %s", run.RunID, n.step.Timeout)
	}
	if dead.StepID != "" {
		if code = state.Code(dead.ErrorCode); dead.StepID != run.FailedStep {
			why += "; " + dead.ErrorCode + " in " + dead.StepID
		}
	}
	if stop := e.stopCode(n.phase); stop != "" && code == state.ChildFailed && run.Status == state.Cancelled {
		code = stop
	}
	again := dead.StepID == "" && e.mayRepeat(n, run, n.failures)
	again = again && (retries(n.step.Retry, end) || retries(n.step.Retry, &ledger.AttemptEnd{ErrorCode: string(code)}))
	switch {
	case again && left.word() == "":
		e.queue(n, "retry", e.r.opt.Now().Add(e.r.backoff(n.step.Retry, n.failures, 0)))
		return
	case again:
		why += "; not tried again: " + left.word()
	}
	e.end(n, ledger.StepFailed, state.Failed, code, ledger.StepEnd{Reason: clip(why)})
}

// pastDeadline is why a sub-run is cancelled that takes longer than its step may. It
// tells from other cancels, on record, which code the step fails with.
const pastDeadline = "the deadline of its step has passed"

func overdue(n *node, run state.Run) bool {
	return n.step.Timeout > 0 && run.Status == state.Cancelled && run.CancelledBy == "system:runner" && run.CancelReason == becauseOf(pastDeadline)
}

// becauseOf is the reason of a cancel that comes from the parent.
func becauseOf(why string) string { return clip("its parent: " + why) }

// limitChild cancels the sub-run of a step when the step's timeout is over. It is
// counted from the first entry of the sub-run, so that it outlives the process. The
// caller holds e.mu.
func (e *execution) limitChild(n *node, child state.Run) {
	since, err := stamp.Parse(child.CreatedUTC)
	if n.step.Timeout == 0 || e.detached || err != nil {
		return
	}
	e.after(max(0, since.Add(n.step.Timeout).Sub(e.r.opt.Now())), func() {
		if e.r.hold() != nil {
			return // we are ending; whoever goes on looks at it again
		}
		defer e.r.release()
		_ = e.r.within(e, func() error {
			if n.child == child.RunID && !e.ended.Load() {
				e.cancelLater(child.RunID, pastDeadline, ErrCancelled)
			}
			return nil
		})
	}, nil)
}

// endChild notes that the sub-run of a step is over, and gives back what it held.
func (e *execution) endChild(n *node, d *ledger.SubrunEnd) {
	e.propose(ledger.SubrunEnded, n, d)
	n.child = ""
	e.freed = append(e.freed, freed{n, ""})
}

// dropChild cancels the sub-run of a step that does not wait for it any more.
func (e *execution) dropChild(n *node, why string) {
	if n.child == "" {
		return
	}
	e.cancelLater(n.child, why, ErrCancelled)
	e.leaveChild(n)
}

// cancelChild cancels a sub-run, or aborts it, whether it is executed here or not.
func (r *Runner) cancelChild(runID, why string, abort bool) {
	o, err := r.load(runID)
	bad := (*DamageError)(nil)
	if errors.As(err, &bad) {
		err = nil // whoever executes it needs none of what cannot be read
	}
	if err == nil && o.Run.Status.Ended() {
		r.tellIdle(o.Run)
		return
	}
	if err == nil && abort {
		_, err = r.Abort(o, "system:runner", becauseOf(why))
	} else if err == nil {
		_, err = r.Cancel("system:runner", becauseOf(why), o)
	}
	if errors.As(err, &bad) { // nothing of it is under way, and nothing can clean up
		_, err = r.Abort(o, "system:runner", becauseOf(why))
	}
	if err != nil && !errors.Is(err, ErrEnded) && !errors.Is(err, ErrStopping) {
		r.opt.Log.Error("a sub-run could not be cancelled", "runId", runID, "error", err)
	}
}

// reconcile looks at what became of the sub-runs of a run that was opened. Those
// that are open go on with it, unless a lock was lost meanwhile. A model that is fresh
// has not looked at them before.
func (e *execution) reconcile(fresh bool) error {
	held, err := e.r.opt.Store.Locks(e.tenant)
	if err != nil {
		return err
	}
	for _, n := range e.all() {
		if n.former != "" && e.run.Aborted && !e.detached {
			e.cancelLater(n.former, "aborted", ErrAborted)
		}
		if n.child == "" {
			continue
		}
		run, err := e.r.opt.Store.Run(n.child)
		if err != nil {
			return err
		}
		if name := lostLock(e, n, held); name != "" { // also of one that has ended: it was not alone
			if err := e.loseChild(n, name, name+" was taken away while nobody executed the run", run); err != nil {
				return err
			}
			continue
		}
		if run.Status.Ended() {
			if err := e.childDone(run); err != nil {
				return err
			}
			continue
		}
		if fresh {
			e.limitChild(n, run)
		}
		switch { // what the end of the process has kept from being passed on
		case e.detached:
		case e.run.Aborted:
			e.cancelLater(n.child, "aborted", ErrAborted)
		case e.over(n.phase) && (e.run.CancelRequested() || e.run.FailRequested() || e.late):
			e.cancelLater(n.child, "it is being ended", ErrCancelled)
		}
	}
	return nil
}

// lostLock names a lock that the sub-run of n should hold and does not.
func lostLock(e *execution, n *node, held []state.LockRecord) string {
	for _, want := range n.locks {
		found := false
		for _, rec := range held {
			if rec.Kind != want.Kind || rec.Name != want.Name {
				continue
			}
			for _, h := range rec.Holders {
				found = found || h.RunID == e.runID && h.StepID == n.id && h.Attempt == n.attempt
			}
		}
		if !found {
			return want.Kind + " " + want.Name
		}
	}
	return ""
}

// load gathers what is needed of a run that exists.
func (r *Runner) load(runID string) (Opened, error) {
	run, err := r.opt.Store.Run(runID)
	if err != nil {
		return Opened{}, err
	}
	o := Opened{Run: run}
	if o.DAG, o.Damage = r.opt.Sealed.DAG(run.DAGDigest); o.Damage == nil {
		o.Plan, o.Damage = r.planOf(run.PlanHash)
	}
	if o.Damage == nil {
		o.Inputs, o.Damage = r.opt.Sealed.Read(run.InputsHash, MaxInputsBytes)
	}
	return o, damageOf(runID, o.Damage)
}
