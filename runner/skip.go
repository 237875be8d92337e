package runner

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Skip says how a step is passed over by hand.
type Skip struct {
	Actor, Reason string
	StepID        string          // or an item; "" means the step that has failed the run
	Repeat        bool            // what goes on after it may do twice what it has done and is not idempotent
	Only          bool            // what nobody has named, and must not be done twice, stays as it is
	Output        json.RawMessage // replaces its outputs; nil for none
}

// Skip passes over a step by hand, where the spec allows it: its dependents go on
// as if it had succeeded. A failed run is reopened. What was passed over already can be
// given other outputs: those that could not read the old ones begin again.
func (r *Runner) Skip(o Opened, q Skip) (state.Run, error) {
	return r.operate(o, func(e *execution) error {
		n, err := e.open(q.StepID, "skip")
		if err != nil {
			return err
		}
		if err := e.skippable(n, q); err != nil {
			return err
		}
		d, err := e.decide(choice{about: []*node{n.owner()}, passed: n, repeat: q.Repeat, only: q.Only}, func(d redone) { e.afterSkip(d, n) }, func(d redone) error {
			return e.notTwice(d, n.phase != ordinary, "a skip")
		})
		if err != nil {
			return err
		}
		outputs, err := e.replaced(n, q.Output)
		if err != nil {
			return err
		}
		hash, err := r.seal(outputs, state.ContractViolation)
		if err != nil {
			return err
		}
		if e.run.Status == state.Failed {
			e.reopen(q.Actor, q.Reason, n)
		}
		goOn := e.beginAgain(q.Actor, d)
		if n.status == state.CheckpointPending {
			e.closeApproval(n, q.Actor, ledger.ApprovalClosing{Result: state.ApprovalWithdrawn})
		}
		ended := n.status.Ended()
		n.outputs, n.artifacts, n.outputsHash = outputs, nil, hash
		e.endBy(q.Actor, n, ledger.StepSkipped, state.Skipped, state.SkippedByHand, ledger.StepEnd{OutputsHash: hash, Note: clip(q.Reason), Overridden: true})
		e.withdraw(q.Actor, "its step was passed over", n.every)
		if ended || n.parent != nil && n.parent.status != state.Running { // its dependents were told before, or its step goes on below
			e.todo = e.todo[:len(e.todo)-1]
		}
		if err := e.reconsider(goOn...); err != nil {
			return err
		}
		return r.commit(e)
	})
}

// afterSkip lists what is begun again when a step or an item is passed over, without that.
func (e *execution) afterSkip(d redone, n *node) {
	inv := ledger.StepInvalidation{Reason: "retry"}
	unread := e.unread(n)
	d.comeBack(e, false, append(slices.Clone(unread), n, n.owner())...)
	d.steps(e, e.behind(false, n.owner()), false, inv)
	d.steps(e, unread, false, inv)
	if n.parent != nil {
		d.goOn(e, n, inv)
	}
	maps.DeleteFunc(d.of, func(x *node, _ redoing) bool { return x == n || x.parent == n })
}

func (e *execution) skippable(n *node, q Skip) error {
	switch {
	case !n.step.AllowSkip:
		return &ConflictError{Text: "the spec does not allow step " + n.id + " to be skipped", Hint: "allow_skip = true, in a new version of the DAG"}
	case n.parent == nil && n.step.Checkpoint != nil && n.step.Checkpoint.Required:
		return conflict("the approval of step %s is required", n.id)
	case n.claimed || n.status == state.Running || n.status == state.Queued:
		return e.underWay(n)
	case n.parent != nil && n.parent.unlisted():
		return conflict("step %s is %s; its items are looked at when it begins", n.parent.id, n.parent.status)
	case n.byHand():
		return e.replaceable(n, q)
	case n.lostTurn(), n.stopped():
		if q.StepID == "" {
			return conflict("step %s has not failed by itself; name it, if it is meant: --step %s", n.id, n.id)
		}
	case n.status == state.Completed || n.status == state.Skipped || n.status == state.Cancelled:
		return conflict("step %s is %s already", n.id, n.status)
	}
	return cmp.Or(e.builtUpon(n.owner(), "end the run first"), e.sameList(n))
}

// replaceable says why what was passed over by hand is not given other outputs.
func (e *execution) replaceable(n *node, q Skip) error {
	if q.Output == nil {
		return &ConflictError{Text: "step " + n.id + " is skipped already", Hint: "with an output it is given another: --set NAME=VALUE, or --outputs FILE"}
	}
	if n.owner().status == state.CheckpointPending { // people look at what its items gave
		return e.withPeople(n.owner())
	}
	instead := fmt.Sprintf("end the run, stella orch run fail %s --reason TEXT, and skip then: that lets it go on, and asks anew", e.runID)
	return cmp.Or(e.builtUpon(n.owner(), instead), e.sameList(n))
}

// unread are the steps that failed since they could not read what a step had given that
// was passed over by hand.
func (e *execution) unread(n *node) []*node {
	if !n.byHand() {
		return nil
	}
	return slices.DeleteFunc(e.downstream(n.owner()), func(x *node) bool {
		return x.status != state.Failed || x.reason != state.ExpressionInvalid
	})
}
