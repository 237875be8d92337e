package runner

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Retry says how a step is begun again by hand.
type Retry struct {
	Actor, Reason string
	StepID        string // or an item; "" means the step that has failed the run
	Downstream    bool   // what depends on it is done again as well
	Repeat        bool   // also what a sub-run, or something that nobody has named, has done and is not idempotent
	Only          bool   // what nobody has named, and must not be done twice, stays as it is
	Delay         time.Duration
	Input         json.RawMessage // a merge patch (RFC 7396) on the parameters; nil for none
}

// Retry begins a step again by hand. A failed run is reopened.
func (r *Runner) Retry(o Opened, q Retry) (state.Run, error) {
	return r.operate(o, func(e *execution) error {
		n, err := e.open(q.StepID, "retry")
		if err != nil {
			return err
		}
		if err := cmp.Or(e.underWay(n), e.retryable(n, q)); err != nil {
			return err
		}
		if len(q.Input) > 0 {
			if q.Input, err = patchOf("the input", q.Input); err != nil {
				return err
			}
			if err := e.checkOverlay(n, q.Input); err != nil {
				return err
			}
		}
		named := []*node{n}
		switch {
		case q.Only && !e.names(n, q):
			return &ConflictError{Text: "nobody has named a step, and the run names none that has failed it by itself", Hint: "only is about others than the one that is named: --step"}
		case q.Downstream:
			named = append(named, e.downstream(n.owner())...)
		}
		d, err := e.decide(choice{about: []*node{n.owner()}, named: named, repeat: q.Repeat, only: q.Only, all: !e.names(n, q)},
			func(d redone) { e.retried(d, n, q) }, func(d redone) error { return e.retryTwice(n, q, d) })
		if err != nil {
			return err
		}
		if len(q.Input) > 0 {
			if _, err := r.opt.Sealed.Put(q.Input); err != nil {
				return err
			}
		}
		if e.run.Status == state.Failed {
			e.reopen(q.Actor, q.Reason, n)
		}
		if err := e.reconsider(e.beginAgain(q.Actor, d)...); err != nil {
			return err
		}
		return r.commit(e)
	})
}

// retried lists what a retry begins again.
func (e *execution) retried(d redone, n *node, q Retry) {
	behind := e.behind(q.Downstream, n.owner())
	d.comeBack(e, false, append(behind, n, n.owner())...)
	inv := ledger.StepInvalidation{Reason: "retry"}
	d.steps(e, behind, q.Downstream, inv) // with downstream somebody has named them as well
	if n.parent != nil {
		d.goOn(e, n, inv)
	}
	if len(q.Input) > 0 {
		inv.Overlay = Hash(q.Input)
	}
	if q.Delay > 0 {
		inv.After = stamp.Format(e.r.opt.Now().Add(q.Delay))
	}
	named := e.names(n, q)
	if n.parent != nil {
		d.add(named, inv, n)
	} else {
		d.step(e, n, !n.keeps(), named, inv)
	}
}

// names says whether a retry names the step that it begins again: it does, or the run says
// that it has failed for it, and it has failed by itself, with all of its items that failed.
func (e *execution) names(n *node, q Retry) bool {
	return q.StepID != "" || n.id == e.run.FailedStep && n.status == state.Failed && !n.stopped() && !slices.ContainsFunc(n.items, (*node).stopped)
}

// retryTwice refuses a retry that would do again what must not be done twice.
func (e *execution) retryTwice(n *node, q Retry, d redone) error {
	err := e.notTwice(d, n.phase != ordinary, "a retry")
	if c := (*ConflictError)(nil); !e.names(n, q) && errors.As(err, &c) {
		c.Hint = fmt.Sprintf("the run names no step that has failed it by itself: stella orch run retry %s --step %s does, if that one is meant; %s", e.runID, n.id, c.Hint)
	}
	return err
}

// retryable says why a step cannot be begun again.
func (e *execution) retryable(n *node, q Retry) error {
	switch {
	case n.parent != nil:
		if err := e.itemRetryable(n); err != nil {
			return err
		}
	case q.Delay > 0 && n.gate():
		return &RequestError{Text: "step " + n.id + " is an approval gate: it waits for people, and cannot be put off"}
	case n.status == state.Failed, n.status == state.Completed, e.run.Status == state.Failed && n.lostTurn():
	case n.status == state.CheckpointPending:
		return e.withPeople(n)
	default:
		c := &ConflictError{Text: fmt.Sprintf("step %s is %s; only what has failed or completed can be begun again", n.id, n.status)}
		if n.lostTurn() {
			c.Hint = fmt.Sprintf("it has lost its turn: stella orch run reset %s --step %s gives it that", e.runID, n.id)
		}
		return c
	}
	instead := fmt.Sprintf("stella orch run reset %s --step %s withdraws it, and begins both again", e.runID, n.owner().id)
	return cmp.Or(e.held(n), e.failingBeside(n, q), e.sameList(n), e.builtUpon(n.owner(), instead))
}
