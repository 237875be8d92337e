package runner

import (
	"math"
	"slices"

	"github.com/stellarun/stella/runner/state"
)

// What depends on a step reads what the step gives. Where that is done again, nothing
// of a step that is begun after it stays as it was: of a for_each, no item either, or
// some would have read the old and some the new.

// behind are the steps that are begun after others are done again: with every, all that
// depend on them, else those that have not had their turn.
func (e *execution) behind(every bool, steps ...*node) []*node {
	return slices.DeleteFunc(e.downstream(steps...), func(x *node) bool { return !every && !x.yetToBegin() })
}

// yetToBegin says whether a step has not had its turn, or has lost it by what became of
// others. Items of it may have completed in an earlier one.
func (n *node) yetToBegin() bool {
	return n.status == state.Pending || n.lostTurn()
}

// passed says whether an item counts as done: it has completed, or somebody has passed
// over it.
func (n *node) passed() bool {
	return n.status == state.Completed || n.byHand()
}

// byHand says whether somebody has passed over a step or an item.
func (n *node) byHand() bool { return n.status == state.Skipped && n.reason == state.SkippedByHand }

// keeps says whether a step that somebody names keeps the items that are done, unless
// they are outdated: others are not, and it is about those.
func (n *node) keeps() bool {
	return n.status != state.Completed && n.status != state.CheckpointPending
}

// readSince says of steps since when they have read what they depend on, each looked at once:
// the order of the last of these steps that has ended, beyond all orders if one has not.
type readSince map[*node]int

func (since readSince) of(n *node) int {
	if at, known := since[n]; known {
		return at
	}
	last := 0
	for _, x := range n.needs {
		if !x.status.Ended() {
			last = math.MaxInt
			break
		}
		last = max(last, x.order, since.of(x))
	}
	since[n] = last
	return last
}

// outdated are the items of a step that were done with what a step before it gave that
// was done again since, or is to be. They are kept nowhere.
func (d redone) outdated(n *node) []*node {
	if len(n.items) == 0 {
		return nil
	}
	since := d.since.of(n)
	return slices.DeleteFunc(slices.Clone(n.items), func(x *node) bool { return !x.passed() || x.order > since })
}

// begunAgain is a step before another that has not ended, however far before it: nil where
// there is none.
func (n *node) begunAgain(seen map[*node]bool) *node {
	for _, x := range n.needs {
		if seen[x] {
			continue
		}
		if seen[x] = true; !x.status.Ended() {
			return x
		}
		if far := x.begunAgain(seen); far != nil {
			return far
		}
	}
	return nil
}
