package runner

import (
	"fmt"
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

// keeps says whether a step that somebody names keeps the items that have completed:
// others have not, and it is about those.
func (n *node) keeps() bool {
	return n.status != state.Completed && n.status != state.CheckpointPending
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

// notTwiceBySkip refuses to pass over a step where items behind it have read what it
// gave before, and must not do so again without asking: a skip does not ask.
func (e *execution) notTwiceBySkip(n *node) error {
	for _, x := range e.behind(n, false) {
		i := slices.IndexFunc(x.items, (*node).done)
		if i < 0 {
			continue
		}
		once, err := e.r.onlyOnce(x)
		if err != nil {
			return err
		}
		if once {
			return &ConflictError{Text: fmt.Sprintf("step %s is not idempotent: what its items have done with what %s gave before would be done twice", x.id, n.id),
				Hint: fmt.Sprintf("stella orch run retry %s --step %s --repeat takes that upon you, for each item that has completed; then skip", e.runID, x.items[i].id)}
		}
	}
	return nil
}
