package runner

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/stellarun/stella/runner/state"
)

// What depends on a step reads what the step gives. Where that is done again, nothing
// of a step that is begun after it stays as it was: of a for_each, no item either, or
// some would have read the old and some the new.

// behind are the steps that are begun after n is done again: with every, all that
// depend on it, else those that have not had their turn.
func (e *execution) behind(n *node, every bool) []*node {
	return slices.DeleteFunc(e.downstream(n.owner()), func(x *node) bool { return !every && !x.yetToBegin() })
}

// yetToBegin says whether a step has not had its turn, or has lost it by what became of
// others. Items of it may have completed in an earlier one.
func (n *node) yetToBegin() bool {
	return n.status == state.Pending || n.status == state.Skipped && machine(n.reason)
}

// keeps says whether a step that somebody names keeps the items that have completed,
// unless they are outdated: others have not, and it is about those.
func (n *node) keeps() bool {
	return n.status != state.Completed && n.status != state.CheckpointPending
}

// outdated are the items of a step that have completed with what a step before it gave
// that was done again since, or is to be. They are kept nowhere.
func (n *node) outdated() []*node {
	if len(n.items) == 0 {
		return nil
	}
	since := n.readSince(map[*node]bool{})
	return slices.DeleteFunc(slices.Clone(n.items), func(x *node) bool { return x.status != state.Completed || x.order > since })
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

// notTwiceOutdated refuses to begin a step again, or an item of it, where items that
// nobody has named are outdated and would do again what is not idempotent.
func (e *execution) notTwiceOutdated(n *node, what string) error {
	old := n.owner().outdated()
	if len(old) == 0 || n.plan.SubPlan != "" || n.parent == nil && !n.keeps() { // for sub-runs see notTwiceBelow
		return nil
	}
	once, err := e.r.onlyOnce(n)
	if err != nil || !once {
		return err
	}
	var twice []string
	for _, x := range old {
		if x != n {
			twice = append(twice, x.id)
		}
	}
	if len(twice) == 0 {
		return nil
	}
	return NotTwice(twice, what)
}

// done says whether a step, or one of its items, may have done what it is there for, see
// [hasDone].
func (n *node) done() bool {
	switch {
	case n.step.ForEach != nil && n.parent == nil:
		return slices.ContainsFunc(n.items, (*node).done)
	case n.status == state.Completed, n.status == state.CheckpointPending:
		return n.attempt > 0
	}
	return n.status == state.Failed && n.reason == state.Indeterminate
}

// notTwiceBehind refuses to do again what steps that nobody has named have done and is
// not idempotent.
func (e *execution) notTwiceBehind(behind []*node, what string) error {
	twice, err := e.doneBehind(behind)
	if err == nil && len(twice) > 0 {
		err = NotTwice(twice, what)
	}
	return err
}

func (e *execution) doneBehind(behind []*node) (twice []string, err error) {
	for _, x := range behind {
		if x.plan.SubPlan != "" || !x.done() { // for sub-runs see notTwiceBelow
			continue
		}
		once, err := e.r.onlyOnce(x)
		if err != nil {
			return nil, err
		}
		if once {
			twice = append(twice, x.id)
		}
	}
	return twice, nil
}

// notTwiceBySkip refuses to pass over an item where others are outdated, and would do
// again with their step what is not idempotent: a skip does not ask.
func (e *execution) notTwiceBySkip(n *node) error {
	if n.parent == nil {
		return nil
	}
	err := e.notTwiceOutdated(n, "its step, which goes on after a skip,")
	if bad := (*ConflictError)(nil); errors.As(err, &bad) {
		bad.Hint = fmt.Sprintf("stella orch run retry %s --step %s --repeat takes that upon you; then skip", e.runID, n.parent.id)
	}
	return err
}
