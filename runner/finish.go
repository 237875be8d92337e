package runner

import (
	"cmp"
	"context"
	"errors"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// firstFailed is the step that fails the run: of those that failed in this generation the
// first, else of the others, rather one that has failed by itself; nil while none does.
func (e *execution) firstFailed() *node {
	if n := e.byID[e.run.FailedStep]; e.run.SameEndSince != "" && n != nil && n.phase == ordinary && n.status == state.Failed && !n.settled() {
		return n // reopened for its cleanup alone
	}
	rank := func(n *node) int {
		switch {
		case n.now:
			return 0
		case !n.stopped():
			return 1
		}
		return 2
	}
	var first *node
	for _, n := range e.nodes {
		if n.phase != ordinary || n.status != state.Failed || n.settled() {
			continue
		}
		if first == nil || cmp.Or(cmp.Compare(rank(n), rank(first)), cmp.Compare(n.order, first.order)) < 0 {
			first = n
		}
	}
	return first
}

// failsByItself says whether a step fails the run, and no end of that has stopped it.
func (n *node) failsByItself() bool {
	return n.phase == ordinary && n.status == state.Failed && !n.settled() && !n.stopped()
}

// finish is called when nothing is under way: it starts the cleanup steps or ends
// the run. It returns whether there is more to advance.
func (e *execution) finish() (more bool, err error) {
	now := e.phaseNow()
	for _, n := range e.nodes {
		if n.phase == now && now != ordinary && n.status == state.Pending && n.waiting == 0 {
			if err := e.consider(n); err != nil {
				return false, err
			}
			more = true
		}
	}
	if more {
		return true, nil
	}
	failed := e.firstFailed()
	unreached := func(n *node) {
		e.endRun(ledger.RunFailed, state.Failed, ledger.RunEnd{FailureReason: string(state.UnreachableSteps), FailedStep: n.id})
	}
	for _, n := range e.nodes {
		if n.phase == now && n.status == state.Pending && !e.run.Aborted {
			unreached(n)
			return false, nil
		}
	}
	missed := e.missed()
	switch {
	case e.run.Aborted:
		e.endRun(ledger.RunCancelled, state.Cancelled, ledger.RunEnd{FailureReason: string(state.RunAborted)})
	case e.run.CancelRequested():
		e.endRun(ledger.RunCancelled, state.Cancelled, ledger.RunEnd{FailureReason: string(state.RunCancelled)})
	case e.run.FailRequested():
		e.endRun(ledger.RunFailed, state.Failed, ledger.RunEnd{FailureReason: e.run.FailCode, Message: e.run.FailNote})
	case e.timeout:
		e.endRun(ledger.RunFailed, state.Failed, ledger.RunEnd{FailureReason: string(state.RunTimeout)})
	case failed != nil:
		e.endRun(ledger.RunFailed, state.Failed, ledger.RunEnd{FailureReason: string(failed.reason), FailedStep: failed.id, Message: failed.why})
	case missed != nil:
		unreached(missed)
	default:
		return e.complete()
	}
	return false, nil
}

// missed is a step, or an item of one, that has lost its turn and not got it back: a skip has
// left it. A run is not completed with it, though nothing else fails that.
func (e *execution) missed() *node {
	for _, n := range e.nodes {
		if n.phase == ordinary && (n.lostTurn() || n.status != state.Skipped && n.itemLostTurn()) {
			return n
		}
	}
	return nil
}

// complete seals the outputs of the run and ends it. What they cannot be fails it, as
// somebody could: that is on record before anything cleans up, and is not found out
// anew after a restart. It returns whether there is more to advance.
func (e *execution) complete() (more bool, err error) {
	v, err := e.prog.outputs.eval(context.Background(), e.scope(nil, e.prog.outputs.named()))
	if err != nil {
		e.requestFailure("system:runner", state.ExpressionInvalid, "outputs: "+err.Error())
		return true, nil
	}
	hash, err := e.r.seal(v, state.ExpressionInvalid)
	if bad := (*valueError)(nil); errors.As(err, &bad) {
		e.requestFailure("system:runner", bad.code, bad.text)
		return true, nil
	}
	if err != nil {
		return false, e.fault("its outputs", err)
	}
	e.endRun(ledger.RunCompleted, state.Completed, ledger.RunEnd{OutputsHash: hash})
	return false, nil
}

func (e *execution) endRun(t ledger.Type, to state.Status, end ledger.RunEnd) {
	e.run.Status = to
	e.propose(t, nil, &end)
	e.batch = e.r.compared(e.run, e.batch)
	e.setEnded()
}
