package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// maxListBytes bounds the list of a for_each in canonical form.
const maxListBytes = 4 << 20

// A step with for_each becomes its items: steps id.0, id.1 … that run its action
// with the variables item and index, at most max_parallel of them at a time. It
// succeeds when all of them have, and its outputs are {"items": [outputs of each]}.

// listOf evaluates for_each: the list, and its canonical form. Where there is none, why
// says so.
func (e *execution) listOf(n *node) (list []any, raw []byte, code state.Code, why string) {
	t := e.prog.forEach[n.step.ID]
	v, err := t.eval(context.Background(), e.scope(n, t.named()))
	list, isList := v.([]any)
	if err == nil && !isList {
		err = fmt.Errorf("it gives a value of type %s", typeName(v))
	}
	if err != nil {
		return nil, nil, state.ExpressionInvalid, "for_each: " + err.Error()
	}
	if len(list) > e.r.opt.MaxItems {
		return nil, nil, state.TooManyItems, fmt.Sprintf("for_each gives %d items; at most %d (max_items in site.toml)", len(list), e.r.opt.MaxItems)
	}
	raw, err = jcs.Marshal(list)
	if err == nil && len(raw) > maxListBytes {
		err = fmt.Errorf("the items have %d bytes in canonical form; at most %d", len(raw), maxListBytes)
	}
	if err != nil {
		return nil, nil, state.ExpressionInvalid, "for_each: " + err.Error()
	}
	return list, raw, "", ""
}

// expand evaluates for_each and makes the items. Items that had completed when
// the step was begun anew, with the same list, stay as they are.
func (e *execution) expand(n *node) error {
	list, raw, code, why := e.listOf(n)
	if why != "" {
		e.end(n, ledger.StepFailed, state.Failed, code, ledger.StepEnd{Reason: clip(why)})
		return nil
	}
	digest, err := e.r.opt.Sealed.Put(raw)
	if err != nil {
		return e.fault("for_each of "+n.id, err)
	}
	if digest != n.list { // other items now: what became of the old ones counts no more
		if err := e.dropItems(n, len(list)); err != nil {
			return err
		}
	}
	n.attempt++ // its items have attempts of their own; this one names what people are asked about
	e.propose(ledger.StepExpanded, n, &ledger.StepExpansion{Items: digest, Count: len(list)})
	n.status, n.list, n.repeat = state.Running, digest, false
	e.enter(n)
	e.makeItems(n, list)
	e.withdraw("system:runner", "the list has it no more", n.every[len(list):])
	if n.left == 0 {
		return e.allItems(n)
	}
	e.feed(n)
	return nil
}

// dropItems makes items pending that are about other values from now on. What somebody
// had given one of them alone goes with its value; whether they may do twice what they
// have done, whoever let their step begin has said. That is for as many as the new list
// has, be they in the last one or in one before it.
func (e *execution) dropItems(n *node, size int) error {
	for _, item := range n.every {
		inv := ledger.StepInvalidation{Reason: "retry", Overlay: n.overlay, Repeat: n.repeat && item.index < size}
		if item.overlay != "" && n.overlay == "" {
			digest, err := e.r.opt.Sealed.Put([]byte("{}"))
			if err != nil {
				return e.fault("for_each of "+n.id, err)
			}
			inv.Overlay = digest
		}
		e.invalidate("system:runner", item, inv)
	}
	return nil
}

// makeItems makes the nodes of the items, or adapts those that there are.
func (e *execution) makeItems(n *node, list []any) {
	n.reserve(len(list))
	n.items = n.every[:len(list)]
	for i, v := range list {
		n.items[i].item = v
	}
	n.recount()
}

// reserve makes the nodes of so many items. Those that a shorter list has no more stay:
// in a longer one they are the same steps again, with their attempts.
func (n *node) reserve(most int) {
	for i := len(n.every); i < most; i++ {
		n.every = append(n.every, &node{
			id: fmt.Sprintf("%s.%d", n.id, i), step: n.step, plan: n.plan, phase: n.phase, locks: n.locks,
			parent: n, index: i, status: state.Pending,
		})
	}
}

// patch is the merge patch on the parameters of a step, "" where there is none. An
// item that was not there when somebody gave one to its step has that of its step.
func (n *node) patch() string {
	if n.overlay == "" && n.parent != nil {
		return n.parent.overlay
	}
	return n.overlay
}

// notBefore is when an item may be claimed, the zero time where at once.
func (n *node) notBefore() time.Time {
	if n.parent.after.After(n.after) {
		return n.parent.after
	}
	return n.after
}

// feed queues as many items as may run beside those that do.
func (e *execution) feed(n *node) {
	most := n.step.MaxParallel
	if most == 0 {
		most = len(n.items)
	}
	failed := false
	for _, item := range n.items {
		failed = failed || item.status == state.Failed && item.now && !item.settled()
		if item.live {
			most--
		}
	}
	if failed && e.dag.FailFast || e.over(n.phase) {
		for _, item := range n.items {
			if item.status == state.Pending || item.status == state.Queued && !item.claimed {
				e.end(item, ledger.StepSkipped, state.Skipped, state.RunFailing, ledger.StepEnd{})
			}
		}
		return
	}
	for n.fed < len(n.items) && most > 0 {
		if item := n.items[n.fed]; item.status == state.Pending {
			e.queue(item, "ready", item.notBefore())
			most--
		}
		n.fed++
	}
}

// itemEnded goes on with the next item, or with the step when it was the last.
func (e *execution) itemEnded(n, item *node) error {
	if n.status != state.Running {
		return nil
	}
	if n.left--; n.left > 0 {
		e.feedAfter(n, item)
		return nil
	}
	return e.allItems(n)
}

// feedAfter queues the next item after one has ended, without looking at all.
func (e *execution) feedAfter(n, item *node) {
	if item.status == state.Failed && !item.settled() || item.reason == state.SkippedByHand || e.over(n.phase) {
		e.feed(n) // it may have had no turn
		return
	}
	for n.fed < len(n.items) {
		next := n.items[n.fed]
		n.fed++
		if next.status == state.Pending {
			e.queue(next, "ready", next.notBefore())
			return
		}
	}
}

// allItems ends a step whose items have all ended.
func (e *execution) allItems(n *node) error {
	outputs := make([]any, len(n.items))
	var failed *node
	cancelled := false
	for i, item := range n.items {
		cancelled = cancelled || item.status == state.Cancelled
		if item.passed() {
			outputs[i] = item.view()["outputs"]
			continue
		}
		if item.status == state.Failed && (failed == nil || item.failsBefore(failed)) {
			failed = item
		}
	}
	switch {
	case cancelled:
		e.end(n, ledger.StepCancelled, state.Cancelled, state.RunCancelled, ledger.StepEnd{})
		return nil
	case failed != nil:
		e.end(n, ledger.StepFailed, state.Failed, failed.reason, ledger.StepEnd{Reason: "item " + failed.id})
		return nil
	}
	for _, item := range n.items {
		if item.status == state.Skipped && item.reason != state.SkippedByHand { // the run went down meanwhile
			e.end(n, ledger.StepSkipped, state.Skipped, item.reason, ledger.StepEnd{})
			return nil
		}
	}
	digest, err := e.r.sealItems(outputs)
	if bad := (*valueError)(nil); errors.As(err, &bad) {
		e.end(n, ledger.StepFailed, state.Failed, bad.code, ledger.StepEnd{Reason: clip(bad.text)})
		return nil
	}
	if err != nil {
		return e.fault("outputs of "+n.id, err)
	}
	n.outputs = map[string]any{"items": outputs}
	e.acted(n, digest)
	return nil
}

// failsBefore says which of two failed items fails their step: the first, but that no
// rule passes over one of which nobody knows how far it came.
func (n *node) failsBefore(other *node) bool {
	if unclear := n.reason == state.Indeterminate; unclear != (other.reason == state.Indeterminate) {
		return unclear
	}
	if settled := n.settled(); settled != other.settled() {
		return !settled // one that the end of the run has stopped, where the others may fail
	}
	return n.order < other.order
}

// restoreItems makes the items of a step that was expanded, from their records.
func (e *execution) restoreItems(n *node, records map[string]state.Step, most int) error {
	if n.list == "" {
		return nil
	}
	raw, err := e.r.opt.Sealed.Read(n.list, maxListBytes)
	if err != nil {
		return e.fault("items of "+n.id, err)
	}
	v, err := decodeJSON(raw)
	list, ok := v.([]any)
	if err != nil || !ok {
		return fmt.Errorf("runner: run %s: items of %s: not a list", e.runID, n.id)
	}
	n.reserve(most)
	e.makeItems(n, list)
	for _, item := range n.every {
		if rec, ok := records[item.id]; ok {
			e.restore(item, rec)
		}
	}
	n.recount()
	return nil
}
