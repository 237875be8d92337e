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
	if n.parent == nil && !n.keeps() {
		return nil // all of them were named
	}
	old := slices.DeleteFunc(n.owner().outdated(), func(x *node) bool { return x == n })
	if len(old) == 0 {
		return nil
	}
	twice, err := e.onceOf(old)
	if err == nil && len(twice) > 0 {
		err = NotTwice(twice, what)
	}
	return err
}

// onceOf names those of the items of one step that are not idempotent, or what their
// sub-runs have done that is not.
func (e *execution) onceOf(items []*node) (twice []string, err error) {
	if items[0].plan.SubPlan != "" {
		return e.doneBelow(items)
	}
	once, err := e.r.onlyOnce(items[0])
	if err != nil || !once {
		return nil, err
	}
	for _, x := range items {
		twice = append(twice, x.id)
	}
	return twice, nil
}

// done is the step, or the first of its items, that may have done what it is there for,
// see [Runner.hasDone]; nil where none has.
func (e *execution) done(n *node, records map[string]state.Step) (*node, error) {
	all := []*node{n}
	if n.step.ForEach != nil && n.parent == nil {
		all = n.items
	}
	for _, x := range all {
		rec := records[x.id]
		if n.plan.SubPlan == "" {
			if done, err := e.r.hasDone(e.runID, rec); done || err != nil {
				return x, err
			}
			continue
		}
		if rec.Child == nil || rec.StartedUTC == "" {
			continue
		}
		if below, err := e.r.doneOnce(rec.Child.RunID, x.id+"/"); len(below) > 0 || err != nil {
			return x, err
		}
	}
	return nil, nil
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
	if len(behind) == 0 {
		return nil, nil
	}
	records, err := e.r.opt.Store.Steps(e.runID)
	if err != nil {
		return nil, err
	}
	for _, x := range behind {
		if x.plan.SubPlan != "" { // see notTwiceBelow
			continue
		}
		once, err := e.r.onlyOnce(x)
		if err != nil {
			return nil, err
		}
		if !once {
			continue
		}
		done, err := e.done(x, records)
		if err != nil {
			return nil, err
		}
		if done != nil {
			twice = append(twice, x.id)
		}
	}
	return twice, nil
}

// notTwiceBySkip refuses to pass over a step or an item where items that nobody has named
// would do again what is not idempotent: a skip does not ask.
func (e *execution) notTwiceBySkip(n *node) error {
	records, err := e.r.opt.Store.Steps(e.runID)
	if err != nil {
		return err
	}
	for _, x := range e.behind(n, false) { // what has completed is outdated, and was dropped; not so what was stopped
		if len(x.items) == 0 {
			continue
		}
		once, err := e.r.onlyOnce(x)
		if err != nil {
			return err
		}
		if !once {
			continue
		}
		done, err := e.done(x, records)
		if err != nil {
			return err
		}
		if done != nil {
			return &ConflictError{Text: fmt.Sprintf("step %s is not idempotent: what its items have done with what %s gave before would be done twice", x.id, n.id),
				Hint: fmt.Sprintf("stella orch run retry %s --step %s --repeat takes that upon you, for each item that has done something; then skip", e.runID, done.id)}
		}
	}
	if n.parent == nil {
		return nil
	}
	err = e.notTwiceOutdated(n, "its step, which goes on after a skip,")
	if bad := (*ConflictError)(nil); errors.As(err, &bad) {
		bad.Hint = fmt.Sprintf("stella orch run retry %s --step %s --repeat takes that upon you; then skip", e.runID, n.parent.id)
	}
	return err
}
