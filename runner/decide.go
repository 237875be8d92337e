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
			return all, cmp.Or(err, e.ahead(all, c.about))
		}
	}
	some, left, err := e.list(c, fill, true)
	if err != nil {
		return some, err
	}
	if err = ask(some); refused == nil || err == nil && !e.asksOf(left, c.about) {
		return some, cmp.Or(err, e.ahead(some, c.about))
	}
	var ids []string
	for _, n := range left {
		ids = append(ids, n.id)
	}
	switch {
	case len(left) == 0 || c.whole:
	case err == nil && e.ahead(some, c.about) == nil:
		refused.Hint += "; with --only these stay as they are: " + listed(ids)
	default:
		refused.Hint += "; with --repeat --only these are not among that, and stay as they are: " + listed(ids)
	}
	return all, refused
}

// list makes the list. With leave, what must not be done twice is not on it; it is returned.
func (e *execution) list(c choice, fill func(redone), leave bool) (d redone, left []*node, err error) {
	d = redone{repeat: c.repeat, only: c.only, named: c.named, of: map[*node]redoing{}}
	fill(d)
	records := sync.OnceValues(func() (map[string]state.Step, error) { return e.r.opt.Store.Steps(e.runID) })
	stays := func(nodes ...*node) (bool, error) {
		if leave && (c.only || e.run.Status.Ended() || !nodes[0].now) { // of an open run what an earlier end has left
			return e.worksTwice(d, nodes, records)
		}
		return false, nil
	}
	waits := map[*node]bool{} // what needs it does not begin
	for _, n := range e.nodes {
		redo, in := d.of[n]
		about := slices.Contains(c.about, n) // what comes before it is seen to in ahead
		waits[n] = slices.ContainsFunc(n.needs, func(x *node) bool { return waits[x] })
		switch {
		case !in && !about:
			waits[n] = n.status.Ended() && (!n.settled() || n.lacksItems()) || waits[n] && (!n.settled() || n.byHand()) // what was passed over stands for what it needs
		case !about && !redo.named && n.phase == c.about[0].phase && (n.lostTurn() || n.stopped() || n.lacksItems()):
			if !waits[n] {
				if waits[n], err = stays(append([]*node{n}, n.every...)...); err != nil {
					return d, nil, err
				}
				if waits[n] {
					left = append(left, n)
				}
			}
			if waits[n] {
				delete(d.of, n)
				for _, x := range n.every {
					delete(d.of, x)
				}
			}
			continue
		}
		for _, x := range n.every { // of a step that goes on they stay one by one
			if redo, in := d.of[x]; !in || redo.named || !x.lostTurn() && !x.stopped() {
				continue
			}
			stay, err := stays(x)
			if err != nil {
				return d, nil, err
			}
			if stay {
				delete(d.of, x)
				left = append(left, x)
			}
		}
	}
	return d, left, nil
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

// ahead refuses to begin a step that a decision is about, and to take from another what it has
// given, where it needs one that has ended, not as it should, perhaps through others that were
// passed over, and stays so.
func (e *execution) ahead(d redone, about []*node) error {
	seen := map[*node]bool{}
	for _, n := range e.nodes {
		if redo, in := d.of[n]; slices.Contains(about, n) || in && !redo.later && d.takes(n) {
			if err := e.aheadOf(n, n, d, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// takes says whether a step, or an item of it, loses what it has given.
func (d redone) takes(n *node) bool {
	return n.passed() || slices.ContainsFunc(n.every, func(x *node) bool {
		redo, in := d.of[x]
		return in && !redo.later && x.passed()
	})
}

func (e *execution) aheadOf(n, from *node, d redone, seen map[*node]bool) error {
	for _, x := range from.needs {
		_, again := d.of[x]
		switch {
		case seen[x]:
		case again, x.byHand():
			seen[x] = true
			if err := e.aheadOf(n, x, d, seen); err != nil {
				return err
			}
		case x.status.Ended() && (!x.settled() || x.lacksItems() && (e.run.Status.Ended() || !e.over(x.phase))): // else nothing begins before the run is reopened
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
