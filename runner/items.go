package runner

import (
	"fmt"
	"slices"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Items of a for_each are begun again and passed over one by one, as steps are: after an
// interruption it may be known of one that it is done, and of another that it is not.
// Their step goes on with them; what became of the others stays as it is.

// owner is the step that a node is, or is an item of.
func (n *node) owner() *node {
	if n.parent != nil {
		return n.parent
	}
	return n
}

// failedItems are those that fail their step.
func (n *node) failedItems() []*node {
	var out []*node
	for _, item := range n.items {
		if item.status == state.Failed && !item.settled() {
			out = append(out, item)
		}
	}
	return out
}

// itemLostTurn says whether an item of a step has lost its turn.
func (n *node) itemLostTurn() bool { return slices.ContainsFunc(n.items, (*node).lostTurn) }

// itemRetryable says why an item cannot be begun again.
func (e *execution) itemRetryable(n *node) error {
	p := n.parent
	switch {
	case p.status == state.CheckpointPending:
		return e.withPeople(p)
	case p.unlisted() || p.status == state.Cancelled:
		return conflict("step %s is %s; its items are looked at when it begins", p.id, p.status)
	case n.status == state.Failed, n.status == state.Completed, e.run.Status == state.Failed && n.lostTurn():
	default:
		return conflict("item %s is %s; only what has failed or completed can be begun again", n.id, n.status)
	}
	for _, x := range p.failedItems() {
		if x != n && x.now && e.dag.FailFast && !e.run.Status.Ended() {
			return &ConflictError{Text: "item " + x.id + " has failed, too, and run " + e.runID + " is failing: item " + n.id + " would not begin again",
				Hint: "wait for the end of the run, which can then be reopened; without an item a retry is about all of step " + p.id}
		}
	}
	return nil
}

// unlisted says whether a step has no items now: it has yet to begin, or is not needed.
func (n *node) unlisted() bool {
	return n.status == state.Pending || n.status == state.Skipped && !n.byHand() && !n.lostTurn()
}

// sameList refuses what is said of one item of a step that has ended, if the step would not
// go on with that item as it was: its list is made anew when it does.
func (e *execution) sameList(n *node) error {
	p := n.parent
	if p == nil || !p.status.Ended() {
		return nil
	}
	hint := fmt.Sprintf("without an item it is about all of step %s", p.id)
	if x := p.begunAgain(map[*node]bool{}); x != nil {
		return &ConflictError{Text: fmt.Sprintf("step %s is begun again when step %s has ended, with all of its items: item %s would not stay as it is made now", p.id, x.id, n.id), Hint: "wait for that; " + hint}
	}
	if !e.prog.forEach[p.step.ID].named().anyStep() {
		return nil
	}
	_, raw, _, why := e.listOf(p)
	switch {
	case why != "":
		return &ConflictError{Text: fmt.Sprintf("step %s would have no list, and no item %s: %s", p.id, n.id, why), Hint: hint}
	case Hash(raw) != p.list:
		return &ConflictError{Text: fmt.Sprintf("the list of step %s is another now: item %s would be about another value", p.id, n.id), Hint: hint}
	}
	return nil
}

// relisted are the items of a step that its next list may have again, with other values:
// the steps that the list is made from have ended once more since.
func (d redone) relisted(e *execution, p *node) []*node {
	if t := e.prog.forEach[p.step.ID]; t == nil || len(p.every) == 0 || !p.status.Ended() || !t.named().anyStep() {
		return nil
	}
	since := d.since.of(p)
	return slices.DeleteFunc(slices.Clone(p.every), func(x *node) bool { return x.order > since })
}

// withdraw takes back on record what was said of items: that they may do twice what they
// have done.
func (e *execution) withdraw(actor, reason string, items []*node) {
	for _, x := range items {
		if x.repeat {
			x.repeat = false
			e.proposeBy(actor, ledger.RepeatWithdrawn, x, &ledger.Note{Reason: reason})
		}
	}
}

// recount looks at all items of a step again: what is to be begun, and what has not ended.
func (n *node) recount() {
	n.left, n.fed = 0, 0
	for _, item := range n.items {
		if !item.status.Ended() {
			n.left++
		}
	}
}
