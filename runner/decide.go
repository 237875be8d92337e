package runner

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/stellarun/stella/runner/state"
)

// Of several steps that an end of the run has stopped, or kept from their turn, each is looked
// at for itself. A decision about one brings the others back with it, if they may be: what
// must not be done twice stays as it is, and so does what needs that.

// choice is what a decision is about, and what whoever makes it says of the rest.
type choice struct {
	about  []*node // steps
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
	if len(left) > 0 && !c.whole {
		var ids []string
		for _, n := range left {
			ids = append(ids, n.id)
		}
		refused.Hint = strings.TrimPrefix(refused.Hint+"; with --only stays as it is what nobody has named: "+listed(ids), "; ")
	}
	return all, refused
}

// list makes the list. With leave, what must not be done twice is not on it; it is returned.
func (e *execution) list(c choice, fill func(redone), leave bool) (d redone, left []*node, err error) {
	d = redone{repeat: c.repeat, of: map[*node]redoing{}}
	fill(d)
	records := sync.OnceValues(func() (map[string]state.Step, error) { return e.r.opt.Store.Steps(e.runID) })
	waits := map[*node]bool{} // what needs it does not begin
	for _, n := range e.nodes {
		redo, in := d.of[n]
		waits[n] = slices.ContainsFunc(n.needs, func(x *node) bool { return waits[x] })
		switch about := slices.Contains(c.about, n); {
		case about: // what comes before it is seen to in ahead
		case !in:
			waits[n] = n.status.Ended() && !n.settled() || waits[n] && (!n.settled() || n.byHand()) // what was passed over stands for what it needs
		case !redo.named && n.phase == ordinary && (n.lostTurn() || n.stopped() || n.lacksItems()):
			if leave && !waits[n] && (e.run.Status.Ended() || !n.now) { // of an open run what an earlier end has left
				stays, err := e.worksTwice(d, n, records)
				if err != nil {
					return d, nil, err
				}
				if stays {
					left = append(left, n)
				}
				waits[n] = stays
			}
			if waits[n] {
				delete(d.of, n)
				for _, x := range n.every {
					delete(d.of, x)
				}
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
	return slices.ContainsFunc(left, func(x *node) bool { return !slices.Contains(behind, x) })
}

// ahead refuses to begin a step that a decision is about, and to take what it has given from one
// that had ended as it should, where it needs another that has ended otherwise, perhaps through
// others that were passed over, and stays so.
func (e *execution) ahead(d redone, about []*node) error {
	seen := map[*node]bool{}
	for _, n := range e.nodes {
		if redo, in := d.of[n]; slices.Contains(about, n) || in && !redo.later && n.settled() {
			if err := e.aheadOf(n, n, d, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *execution) aheadOf(n, from *node, d redone, seen map[*node]bool) error {
	for _, x := range from.needs {
		_, again := d.of[x]
		switch {
		case again, seen[x], !x.status.Ended():
		case x.byHand():
			seen[x] = true
			if err := e.aheadOf(n, x, d, seen); err != nil {
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
