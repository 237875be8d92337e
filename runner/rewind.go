package runner

import (
	"errors"
	"fmt"
	"slices"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// A decision can go back to an earlier step. What lies between that and the step that
// waits is done again, and whatever else was built on it stays as it is, unless that is
// wanted, too. Nobody who decides need know what all of that does: what is not
// idempotent and is not named in the decision is done again only by who says so.

// backTo is the step that a retry begins with.
func (e *execution) backTo(n *node, d Decision) *node {
	if d.BackTo != "" {
		return e.byID[d.BackTo]
	}
	return n
}

// rewound are the steps that are done again when a decision about n goes back, that one
// first, as far as they have done anything.
func (e *execution) rewound(n *node, d Decision) []*node {
	back := e.backTo(n, d)
	between := e.prog.before(n)
	out := []*node{back}
	for _, x := range e.downstream(back) {
		_, lies := slices.BinarySearch(between, x.id)
		if d.Downstream || lies || x == n || x.yetToBegin() {
			out = append(out, x)
		}
	}
	return out
}

// checkRewind says why a decision about n cannot go back as it wants.
func (e *execution) checkRewind(n *node, d Decision) error {
	back := e.backTo(n, d)
	switch {
	case back == nil || back != n && !slices.Contains(e.prog.before(n), d.BackTo):
		return &RequestError{Text: fmt.Sprintf("step %s does not come before %s", d.BackTo, n.id)}
	case back.phase != n.phase: // it sees the step, and does not follow from it
		return &RequestError{Text: fmt.Sprintf("step %s cleans up after %s, and does not go back to it", n.id, back.id)}
	}
	again := e.rewound(n, d)
	for _, x := range again {
		if _, between := slices.BinarySearch(e.prog.before(n), x.id); between || x == back || x == n || d.Downstream {
			if err := e.held(x, again...); err != nil {
				return err
			}
		}
	}
	for _, x := range append(e.downstream(back), back) { // it reads what back gives, also where it is not done again
		if x.claimed || x.status == state.Running || x.status == state.Queued {
			return &ConflictError{Text: fmt.Sprintf("step %s is under way; going back to %s would take it away", x.id, back.id),
				Hint: "wait for it, or decide something else"}
		}
		if x.status == state.CheckpointPending && !slices.Contains(again, x) {
			return e.asksAbout(x, back, "--downstream withdraws it, and asks again")
		}
	}
	return nil
}

// afterRewind lists what is begun again when a decision about n goes back, with the parameters
// of the step that it goes back to changed by a sealed patch, "" for none.
func (e *execution) afterRewind(again redone, n *node, d Decision, patch string) {
	back := e.backTo(n, d)
	steps := e.rewound(n, d)
	again.comeBack(e, false, steps...)
	for _, x := range steps {
		inv := ledger.StepInvalidation{Reason: "rewind"}
		if x == back {
			inv.Overlay = patch
		}
		again.step(e, x, true, x == n || x == back, inv)
	}
}

// rewindTwice refuses to go back where that would do again what must not be done twice.
func (e *execution) rewindTwice(n *node, d Decision, again redone) error {
	err := e.notTwice(again, n.phase != ordinary, "going back to "+e.backTo(n, d).id)
	if c := (*ConflictError)(nil); errors.As(err, &c) && slices.ContainsFunc(n.approval.Decisions, func(x state.Decision) bool { return !x.Repeat }) {
		c.Hint = fmt.Sprintf("others have decided without --repeat, and with it this is another decision: stella orch run reset %s --step %s asks all again", e.runID, n.id)
	}
	return err
}

// builtOn are the steps that stay as they are although what they were built on is done
// again, or gives something else.
func (x *tried) builtOn(e *execution) []string {
	seen := map[*node]bool{}
	var todo []*node
	for _, n := range e.nodes {
		if x.was[n.id].Status.Ended() && !x.is[n.id].Status.Ended() || givesElse(x.was[n.id], x.is[n.id]) {
			todo = append(todo, n)
		}
	}
	var out []string
	for ; len(todo) > 0; todo = todo[1:] {
		for _, d := range todo[0].dependents {
			if seen[d] {
				continue
			}
			seen[d] = true
			todo = append(todo, d)
			was, is := x.was[d.id], x.is[d.id]
			if was.Status.Ended() && is.Status == was.Status && is.EndedUTC == was.EndedUTC && !state.LostTurn(state.Code(was.Reason)) {
				out = append(out, d.id)
			}
		}
	}
	slices.Sort(out)
	return out
}
