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
		named := q.StepID != "" || n.id == e.run.FailedStep // what a run says that it has failed for
		if err := e.retryTwice(n, q, named); err != nil {
			return err
		}
		h := hand{q.Actor, q.Reason, q.Repeat}
		inv := ledger.StepInvalidation{Reason: "retry", Repeat: n.allowed(named, q.Repeat)}
		if len(q.Input) > 0 {
			raw, err := patchOf("the input", q.Input)
			if err != nil {
				return err
			}
			if err := e.checkOverlay(n, raw); err != nil {
				return err
			}
			if inv.Overlay, err = r.opt.Sealed.Put(raw); err != nil {
				return err
			}
		}
		if q.Delay > 0 {
			inv.After = stamp.Format(r.opt.Now().Add(q.Delay))
		}
		if e.run.Status == state.Failed {
			e.reopen(h, n.owner())
		}
		for _, x := range e.behind(q.Downstream, n.owner()) {
			e.invalidateAll(q.Actor, x, true, ledger.StepInvalidation{Reason: "retry", Repeat: x.allowed(q.Downstream, q.Repeat)})
		}
		if n.parent != nil {
			e.invalidate(q.Actor, n, inv)
			e.goOnWithItems(h, n.parent)
		} else {
			e.invalidateAll(q.Actor, n, !n.keeps(), inv)
		}
		if err := e.reconsider(h); err != nil {
			return err
		}
		return r.commit(e)
	})
}

// retryTwice refuses a retry that would do again what must not be done twice. With
// downstream somebody has named what comes after the step as well.
func (e *execution) retryTwice(n *node, q Retry, named bool) error {
	behind := e.behind(q.Downstream, n.owner())
	d := redone{others: slices.Concat(e.comeBack(false, append(behind, n.owner())...), e.leftItems(n))}
	if again := e.redoNamed(n); named {
		d.named = again
	} else {
		d.others = append(d.others, again...)
	}
	if all := redoAll(behind); q.Downstream {
		d.named = append(d.named, all...)
	} else {
		d.others = append(d.others, all...)
	}
	err := e.notTwice(d, "a retry", q.Repeat)
	if c := (*ConflictError)(nil); !named && errors.As(err, &c) {
		c.Hint = fmt.Sprintf("the run names no step that it has failed for: stella orch run retry %s --step %s does, if that one is meant; %s", e.runID, n.id, c.Hint)
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
	case n.status == state.Failed, n.status == state.Completed, e.givenUp(n):
	case n.status == state.CheckpointPending:
		return e.withPeople(n)
	default:
		return conflict("step %s is %s; only what has failed or completed can be begun again", n.id, n.status)
	}
	if err := cmp.Or(e.held(n), e.failingBeside(n, q), e.sameList(n)); err != nil {
		return err
	}
	for _, x := range e.downstream(n.owner()) {
		if err := e.underWay(x); err != nil { // each attempt of it reads what the step gives
			return err
		}
		if x.status == state.CheckpointPending {
			return e.asksAbout(x, n.owner(), fmt.Sprintf("stella orch run reset %s --step %s withdraws it, and begins both again", e.runID, n.owner().id))
		}
	}
	return nil
}
