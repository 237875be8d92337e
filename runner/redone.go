package runner

import (
	"fmt"
	"slices"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// A decision makes one list of what it begins again, asks about it ([execution.notTwice]),
// and makes pending what is on it ([execution.beginAgain]): steps, and of a for_each its
// items. Where a node is added twice, what was said last of it holds.

// redone is what a decision begins again.
type redone struct {
	repeat bool // what is not idempotent may do twice what it has done
	leaves bool // what would come back, has begun before, and is not to be done twice, stays as it is
	of     map[*node]redoing
}

// redoing is how a decision begins a step or an item again.
type redoing struct {
	named bool // somebody has named it, which says so of what it has done itself and has ended, not of its sub-runs: nobody sees from a step what is below
	later bool // not by the decision itself, but by what follows from it
	inv   ledger.StepInvalidation
}

func newRedone(repeat, leaves bool) redone {
	return redone{repeat: repeat, leaves: leaves, of: map[*node]redoing{}}
}

// add puts nodes on the list. Who names a step does not say so of items of it that
// somebody has passed over, or that have left its list.
func (d redone) add(named bool, inv ledger.StepInvalidation, nodes ...*node) {
	for _, x := range nodes {
		mine := named && (x.parent == nil || !x.byHand() && x.index < len(x.parent.items))
		given := inv
		given.Repeat = x.allowed(mine, d.repeat)
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
		d.add(false, inv, n.outdated()...)
		d.add(named, inv, slices.DeleteFunc(slices.Clone(n.items), (*node).passed)...)
		d.addLater(e.relisted(n)...)
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
	d.add(false, inv, p.outdated()...)
	d.addLater(e.relisted(p)...)
	for _, x := range p.items {
		if x.status == state.Pending { // it may do so with what is said now
			d.add(false, inv, x)
		}
	}
	d.add(false, inv, p)
}

// comeBack puts steps on the list that get their turn again when others, which had not
// succeeded, are begun again or passed over, and the run fails no more. What waits for
// another that has failed gets none. With forgets, what has failed fails the run no more.
// Where others clean up, the run is failed as before, and none comes back.
func (d redone) comeBack(e *execution, forgets bool, others ...*node) {
	if slices.ContainsFunc(others, func(n *node) bool { return n.phase != ordinary }) {
		return
	}
	if !e.run.Status.Ended() {
		if e.cleaning() || e.run.CancelRequested() || e.run.FailRequested() || e.late || !forgets && e.dag.FailFast && e.failsBeside(others) {
			return
		}
	}
	named := map[*node]bool{} // they are seen to by whoever begins them
	for _, n := range others {
		named[n] = true
	}
	behind := map[*node]bool{}
	for _, n := range e.downstream(others...) {
		behind[n] = true
	}
	waits := map[*node]bool{}
	for _, n := range e.nodes {
		fails := !named[n] && (n.failsByItself() || d.leaves && n.phase == ordinary && e.stays(n))
		begins := named[n] || !n.settled() || n.byHand() // what was passed over stands for what it needs
		waits[n] = fails || begins && slices.ContainsFunc(n.needs, func(x *node) bool { return waits[x] })
		if n.phase == ordinary && !named[n] && !waits[n] {
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
	case n.status == state.Failed && n.settled() && n.itemLostTurn() && !behind: // what has failed of it stays so
		d.add(false, inv, n.outdated()...)
		d.addLater(e.relisted(n)...)
		d.addLost(n, inv)
		d.add(false, inv, n)
	case n.lostTurn(), n.stopped(), n.status == state.Failed && n.settled() && n.itemLostTurn():
		d.step(e, n, behind, false, inv)
		d.anew(append([]*node{n}, n.every...)...)
	}
}

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

// stays says whether a step that would come back has begun before, and is not to be done
// twice, or has sub-runs, of which nobody sees that. In an open run only what an earlier end
// has left does.
func (e *execution) stays(n *node) bool {
	if !n.lostTurn() && !n.stopped() || !e.run.Status.Ended() && n.now {
		return false
	}
	return slices.ContainsFunc(append([]*node{n}, n.every...), func(x *node) bool {
		return x.attempt > 0 && (x.plan.SubPlan != "" || x.plan.Plugin != nil && !e.r.repeatable(x))
	})
}

// oneByOne is what a decision about a step begins again, as fill lists it. Of several steps that
// an end of the run has stopped, or kept from their turn, each is looked at for itself: where not
// all may come back with this one, those that must not be done twice stay as they are. People are
// asked about them where that reopens the run, the step has failed by itself, and they are beside
// it: what is behind it could not be seen to before.
func (e *execution) oneByOne(n *node, repeat bool, fill func(redone), ask func(redone) error) (redone, error) {
	list := func(leaves bool) (redone, error) {
		d := newRedone(repeat, leaves)
		fill(d)
		return d, ask(d)
	}
	d, err := list(false)
	if err != nil {
		some, still := list(true)
		if still != nil || e.run.Status.Ended() && n.status == state.Failed && !n.stopped() && e.leftBeside(n, d, some) {
			return d, err
		}
		d = some
	}
	return d, e.ahead(n, n.owner(), d, map[*node]bool{})
}

// leftBeside says whether something stays, of all that would come back with a step, that does
// not depend on it.
func (e *execution) leftBeside(n *node, all, d redone) bool {
	behind := e.downstream(n.owner())
	for x := range all.of {
		if _, in := d.of[x]; !in && e.stays(x.owner()) && !slices.Contains(behind, x.owner()) {
			return true
		}
	}
	return false
}

// ahead says that a step needs another, perhaps through others that were passed over, that has
// ended, not as it should, and stays so.
func (e *execution) ahead(n, from *node, d redone, seen map[*node]bool) error {
	for _, x := range from.needs {
		_, again := d.of[x]
		switch {
		case again, seen[x], !x.status.Ended():
		case x.byHand():
			seen[x] = true
			if err := e.ahead(n, x, d, seen); err != nil {
				return err
			}
		case !x.settled():
			how := fmt.Sprintf("stella orch run reset %s --step %s", e.runID, x.id)
			if x.status == state.Failed || e.run.Status.Ended() {
				how = fmt.Sprintf("stella orch run retry %s --step %s, or run reset", e.runID, x.id)
			}
			return &ConflictError{Text: fmt.Sprintf("step %s needs step %s, which is %s, and stays so", n.id, x.id, x.status),
				Hint: "see to that one first: " + how + ", or run skip where the spec allows it"}
		}
	}
	return nil
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
