package runner

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/stellarun/stella/runner/state"
)

// Of several steps that an end of the run has stopped, or kept from their turn, each is looked
// at for itself. A decision about one brings the others back with it, if they may be: what
// must not be done twice stays as it is, and so does what needs that.

// choice is what a decision is about, and what whoever makes it says of the rest.
type choice struct {
	about  []*node // steps
	named  []*node // steps, each with its items, and items: what repeat is about together with only
	passed *node   // the step or item that is passed over
	repeat bool    // what is not idempotent may do twice what it has done
	only   bool    // what must not be done twice, and is not named, stays, and is not asked about
	all    bool    // nothing stays
	whole  bool    // nobody can say only
}

// decide makes the list of what a decision begins again, which fill fills, and refuses one that
// would do again what must not be done twice, which ask says, or begin what cannot.
func (e *execution) decide(c choice, fill func(redone), ask func(redone) error) (redone, error) {
	all, _, err := e.list(c, fill, false)
	if err != nil {
		return all, err
	}
	var refused *ConflictError
	if !c.only {
		if err = ask(all); err == nil || c.all || !errors.As(err, &refused) {
			return all, cmp.Or(err, e.ahead(all, c))
		}
	}
	some, left, err := e.list(c, fill, true)
	if err != nil {
		return some, err
	}
	if err = ask(some); refused == nil || err == nil && !e.asksOf(left, c.about) {
		return some, cmp.Or(err, e.ahead(some, c))
	}
	if !c.whole {
		refused.Hint += e.onlyHint(c, fill, ask)
	}
	return all, refused
}

// onlyHint says what would stay as it is with --only; nothing, where that does not help.
func (e *execution) onlyHint(c choice, fill func(redone), ask func(redone) error) string {
	c.only = true
	some, left, err := e.list(c, fill, true)
	if err != nil || len(left) == 0 {
		return ""
	}
	asked := ask(some)
	if e.ahead(some, c) != nil {
		return ""
	}
	var ids []string
	for _, n := range left {
		ids = append(ids, n.id)
	}
	if asked == nil {
		return "; with --only these stay as they are: " + listed(ids)
	}
	return "; with --repeat --only these are not among that, and stay as they are: " + listed(ids)
}

// list makes the list. With leave, what must not be done twice is not on it; it is returned.
func (e *execution) list(c choice, fill func(redone), leave bool) (d redone, left []*node, err error) {
	d = redone{repeat: c.repeat, only: c.only, named: c.named, of: map[*node]redoing{}, since: readSince{}, stuck: map[*node]*node{}}
	fill(d)
	records := sync.OnceValues(func() (map[string]state.Step, error) { return e.r.opt.Store.Steps(e.runID) })
	stays := func(nodes ...*node) (bool, error) {
		if leave && (c.only || e.run.Status.Ended() || !nodes[0].now) { // of an open run what an earlier end has left
			return e.worksTwice(d, nodes, records)
		}
		return false, nil
	}
	for _, n := range e.nodes {
		redo, in := d.of[n]
		whole := in && !redo.named && !slices.Contains(c.about, n) && n.phase == c.about[0].phase && (n.lostTurn() || n.stopped() || n.lacksItems())
		stay := whole && d.before(n) != nil
		if whole && !stay {
			if stay, err = stays(append([]*node{n}, n.every...)...); err != nil {
				return d, nil, err
			}
			if stay {
				left = append(left, n)
			}
		}
		switch {
		case stay:
			delete(d.of, n)
			for _, x := range n.every {
				delete(d.of, x)
			}
		case !whole:
			more, err := d.leaveItems(n, stays)
			if left = append(left, more...); err != nil {
				return d, nil, err
			}
		}
		d.stuck[n] = d.stuckBy(n, c.passed)
	}
	return d, left, nil
}

// leaveItems takes those items of a step that goes on off the list that stay as they are.
func (d redone) leaveItems(n *node, stays func(...*node) (bool, error)) (left []*node, err error) {
	for _, x := range n.every {
		if redo, in := d.of[x]; !in || redo.named || !x.lostTurn() && !x.stopped() {
			continue
		}
		stay, err := stays(x)
		if err != nil {
			return nil, err
		}
		if stay {
			delete(d.of, x)
			left = append(left, x)
		}
	}
	return left, nil
}

// before is what keeps a step from its turn, for all that it needs: nil where nothing does.
func (d redone) before(n *node) *node {
	for _, x := range n.needs {
		if why := d.stuck[x]; why != nil {
			return why
		}
	}
	return nil
}

// stuckBy is the step for which another will not have ended as it should, with what is on the
// list done again, so that what needs it does not begin: nil where there is none. What is passed
// over stands for what it needs.
func (d redone) stuckBy(n, passed *node) *node {
	_, in := d.of[n]
	switch {
	case in, n == passed, n.byHand(), n.status == state.Pending:
		return d.before(n)
	case n.status == state.Failed && (!n.settled() || n.lacksItems()):
		return n
	case n.status.Ended() && !n.settled():
		return cmp.Or(d.before(n), n)
	}
	return nil
}

// badItem is an item that stays as it is, as it does if its list does, and for which its step, which
// is on the list, fails once more, or lacks it; unless that step is not needed then, so it keeps nothing from coming back.
func (d redone) badItem(n, passed *node) *node {
	if _, in := d.of[n]; !in {
		return nil
	}
	for _, x := range n.items {
		if redo, in := d.of[x]; (!in || redo.later) && x != passed && (x.status == state.Failed && !x.settled() || x.lostTurn()) {
			return x
		}
	}
	return nil
}

// asksOf says whether people are asked about what would be left: where the run is reopened for a
// step that has failed by itself, and it is beside that. What is behind it could not be seen to before.
func (e *execution) asksOf(left, about []*node) bool {
	if n := about[0]; !e.run.Status.Ended() || n.status != state.Failed || n.stopped() {
		return false
	}
	behind := e.downstream(about...)
	return slices.ContainsFunc(left, func(x *node) bool { return !slices.Contains(behind, x.owner()) })
}

// ahead refuses to begin, or to pass over, a step ahead of what keeps it from its turn, and to take
// from a step what it has given where it could not begin again.
func (e *execution) ahead(d redone, c choice) error {
	for _, n := range e.nodes {
		d.stuck[n] = cmp.Or(d.stuckBy(n, c.passed), d.badItem(n, c.passed))
		redo, in := d.of[n]
		if takes := in && !redo.later && n.passed(); !takes && !slices.Contains(c.about, n) { // what its items have given is outdated where it could not begin
			continue
		}
		why := d.before(n)
		switch {
		case why == nil:
		case n == c.passed && why.lacksItems() && !e.run.Status.Ended() && e.over(n.phase): // nothing begins before the run is reopened, and that gives them their turn
		default:
			return e.keptBy(n, why)
		}
	}
	return nil
}

// keptBy says that a step would not begin for another, or an item, that stays as it is.
func (e *execution) keptBy(n, why *node) error {
	how := fmt.Sprintf("stella orch run reset %s --step %s", e.runID, why.owner().id)
	if why.status == state.Failed || e.run.Status.Ended() {
		how = fmt.Sprintf("stella orch run retry %s --step %s, or run reset", e.runID, why.id)
	}
	what := "step"
	if why.parent != nil {
		what = "item"
	}
	return &ConflictError{Text: fmt.Sprintf("step %s needs %s %s, which is %s, and stays so", n.id, what, why.id, why.status),
		Hint: "see to that one first: " + how + ", or run skip where the spec allows it"}
}
