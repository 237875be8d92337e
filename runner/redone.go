package runner

import (
	"slices"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// A decision makes one list of what it begins again ([execution.decide]): it fills that with
// all that may begin again, takes off what cannot or is to stay, asks about the rest
// ([execution.notTwice]), and makes pending what is on it ([execution.beginAgain]): steps, and
// of a for_each its items. Where a node is added twice, what was said last of it holds.

// redone is what a decision begins again.
type redone struct {
	repeat bool    // what is not idempotent may do twice what it has done
	only   bool    // repeat is about what is named, and about nothing else
	named  []*node // steps, each with its items, and items
	of     map[*node]redoing
	since  readSince       // as long as the list is made
	stuck  map[*node]*node // of steps, the one for which what needs them does not begin: see [redone.stuckBy]
}

// repeats says whether somebody takes it upon himself that a node does twice what it has done.
func (d redone) repeats(x *node) bool {
	return d.repeat && (!d.only || slices.Contains(d.named, x) || x.parent != nil && slices.Contains(d.named, x.parent))
}

// redoing is how a decision begins a step or an item again.
type redoing struct {
	named bool // somebody has named it, which says so of what it has done itself and has ended, not of its sub-runs: nobody sees from a step what is below
	later bool // not by the decision itself, but by what follows from it
	inv   ledger.StepInvalidation
}

// add puts nodes on the list. Who names a step does not say so of items of it that
// somebody has passed over, or that have left its list.
func (d redone) add(named bool, inv ledger.StepInvalidation, nodes ...*node) {
	for _, x := range nodes {
		mine := named && (x.parent == nil || !x.byHand() && x.index < len(x.parent.items))
		given := inv
		given.Repeat = x.allowed(mine, d.repeats(x))
		d.of[x] = redoing{named: mine, inv: given}
	}
}

// addLater puts nodes on the list that follow, unless they are on it.
func (d redone) addLater(nodes ...*node) {
	for _, x := range nodes {
		if _, is := d.of[x]; !is {
			d.of[x] = redoing{later: true}
		}
	}
}

// step puts a step on the list: with all, with each of its items, also those that its list
// has had before, else with those that are not done, or not with what there is now. What
// somebody gives a step with that is given to each of them.
func (d redone) step(e *execution, n *node, all, named bool, inv ledger.StepInvalidation) {
	switch {
	case all:
		d.add(named, inv, n.every...)
	default:
		d.add(false, inv, d.outdated(n)...)
		d.add(named, inv, slices.DeleteFunc(slices.Clone(n.items), (*node).passed)...)
		d.addLater(d.relisted(e, n)...)
	}
	d.add(named, inv, n)
}

// steps puts steps on the list with all of their items. What has lost its turn, and nobody
// has named, gets it now: it may be taken from the cache.
func (d redone) steps(e *execution, steps []*node, named bool, inv ledger.StepInvalidation) {
	for _, x := range steps {
		d.step(e, x, true, named, inv)
		for _, y := range append([]*node{x}, x.every...) {
			if first := d.of[y]; !named && y.lostTurn() {
				first.inv.Reason = state.Turn
				d.of[y] = first
			}
		}
	}
}

// addLost puts the items of a step on the list that have lost their turn.
func (d redone) addLost(p *node, inv ledger.StepInvalidation) {
	for _, x := range p.items {
		if x.lostTurn() {
			d.add(false, inv, x)
		}
	}
}

// goOn puts on the list what goes on, unnamed, with an item that is begun again or passed
// over: its step, if that has ended, and other items. Once no item fails the step any more,
// those that were given up for that get their turn.
func (d redone) goOn(e *execution, item *node, inv ledger.StepInvalidation) {
	p := item.parent
	stays := p.status == state.Running && e.over(p.phase) || slices.ContainsFunc(p.failedItems(), func(x *node) bool { return x != item })
	turn := inv
	turn.Reason = state.Turn
	if !stays {
		d.addLost(p, turn)
	}
	if !p.status.Ended() {
		return
	}
	d.add(false, inv, d.outdated(p)...)
	d.addLater(d.relisted(e, p)...)
	for _, x := range p.items {
		if x.status == state.Pending { // it may do so with what is said now
			d.add(false, inv, x)
		}
	}
	d.add(false, inv, p)
}

// comeBack puts steps on the list that get their turn again when others, which had not
// succeeded, are begun again or passed over, and the run fails no more. With forgets, what has
// failed fails the run no more. Where others clean up, the run is failed as before, and none
// comes back.
func (d redone) comeBack(e *execution, forgets bool, others ...*node) {
	if slices.ContainsFunc(others, func(n *node) bool { return n.phase != ordinary }) {
		return
	}
	if !e.run.Status.Ended() {
		if e.cleaning() || e.run.CancelRequested() || e.run.FailRequested() || e.late || !forgets && e.dag.FailFast && e.failsBeside(others) {
			return
		}
	}
	seen := map[*node]bool{} // others are seen to by whoever begins them
	for _, n := range others {
		seen[n] = true
	}
	behind := map[*node]bool{}
	for _, n := range e.downstream(others...) {
		behind[n] = true
	}
	for _, n := range e.nodes {
		if n.phase == ordinary && !seen[n] {
			d.turn(e, n, behind[n])
		}
	}
}

// turn puts on the list what a step, or items of it, have lost of their turn, and what the end
// of the run has stopped. Behind what is done again no item of such a step stays as it is.
func (d redone) turn(e *execution, n *node, behind bool) {
	inv := ledger.StepInvalidation{Reason: state.Turn}
	switch {
	case n.status == state.Running && len(n.failedItems()) == 0: // else they stay given up
		d.addLost(n, inv)
	case n.lacksItems() && !behind: // what has failed of it stays so
		d.add(false, inv, d.outdated(n)...)
		d.addLater(d.relisted(e, n)...)
		d.addLost(n, inv)
		d.add(false, inv, n)
	case n.lostTurn(), n.stopped(), n.lacksItems():
		d.step(e, n, behind, false, inv)
		d.anew(append([]*node{n}, n.every...)...)
	}
}

// lacksItems says whether a step has failed, which its dependents do not mind, and items of it
// have lost their turn.
func (n *node) lacksItems() bool { return n.status == state.Failed && n.settled() && n.itemLostTurn() }

// anew keeps what has been stopped from the cache: it had begun, and perhaps because
// somebody wanted it done again.
func (d redone) anew(nodes ...*node) {
	for _, x := range nodes {
		if first, in := d.of[x]; in && x.stopped() && !first.later {
			first.inv.Reason = "retry"
			d.of[x] = first
		}
	}
}

// failsBeside says whether a step that is not among others fails the run.
func (e *execution) failsBeside(others []*node) bool {
	return slices.ContainsFunc(e.nodes, func(n *node) bool {
		return n.phase == ordinary && n.status == state.Failed && n.now && !n.settled() && !slices.Contains(others, n)
	})
}

// beginAgain makes pending what is on the list: what comes last first, items before
// their step. It returns the steps that go on with some of their items.
func (e *execution) beginAgain(actor string, d redone) (goOn []*node) {
	for _, n := range slices.Backward(e.nodes) {
		changed := false
		for _, item := range n.every {
			changed = e.makePending(actor, item, d) || changed
		}
		if !e.makePending(actor, n, d) && changed && n.status == state.Running {
			n.recount()
			goOn = append(goOn, n)
		}
	}
	return goOn
}

// makePending makes a node pending if it is on the list, and says whether it is.
func (e *execution) makePending(actor string, n *node, d redone) bool {
	x, in := d.of[n]
	if !in || x.later {
		return false
	}
	e.invalidate(actor, n, x.inv)
	return true
}
