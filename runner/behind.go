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

// outdated are the items of a step that were done with what a step before it gave that
// was done again since, or is to be. They are kept nowhere.
func (n *node) outdated() []*node {
	if len(n.items) == 0 {
		return nil
	}
	since := n.readSince(map[*node]bool{})
	return slices.DeleteFunc(slices.Clone(n.items), func(x *node) bool { return !x.passed() || x.order > since })
}

// readSince is when the last of the steps has ended that this one depends on: beyond
// all orders, if one of them has not.
func (n *node) readSince(seen map[*node]bool) int {
	last := 0
	for _, x := range n.needs {
		if seen[x] {
			continue
		}
		seen[x] = true
		if !x.status.Ended() {
			return math.MaxInt
		}
		last = max(last, x.order, x.readSince(seen))
	}
	return last
}
