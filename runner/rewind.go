package runner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
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
	for _, x := range append(e.downstream(back), back) { // it reads what back gives, also where it is not done again
		if x.claimed || x.status == state.Running || x.status == state.Queued {
			return &ConflictError{Text: fmt.Sprintf("step %s is under way; going back to %s would take it away", x.id, back.id),
				Hint: "wait for it, or decide something else"}
		}
		if x.status == state.CheckpointPending && !slices.Contains(again, x) {
			return e.asksAbout(x, back, "--downstream withdraws it, and asks again")
		}
	}
	if d.Repeat {
		return nil
	}
	var twice []string
	for _, x := range again {
		if x == n || x == back || x.plan.SubPlan != "" || !x.begun() {
			continue
		}
		once, err := e.r.onlyOnce(x)
		if err != nil {
			return err
		}
		if once {
			twice = append(twice, x.id)
		}
	}
	if len(twice) > 0 {
		return NotTwice(twice, "going back to "+back.id)
	}
	return e.notTwiceBelow(nil, again, "going back to "+back.id)
}

// NotTwice refuses to do again what is not idempotent.
func NotTwice(ids []string, what string) error {
	subject := "step " + ids[0] + " is"
	if len(ids) > 1 {
		subject = "steps " + strings.Join(ids, ", ") + " are"
	}
	return &ConflictError{Text: fmt.Sprintf("%s not idempotent: %s would do twice what has been done", subject, what),
		Hint: "--dry-run shows all of what is done again; with --repeat you take that upon yourself"}
}

// begun says whether a step has done something, and nobody has decided yet that it is
// done again.
func (n *node) begun() bool {
	return n.status != state.Pending && n.attempt > 0 || slices.ContainsFunc(n.items, (*node).begun)
}

// Once names what must not be done twice without asking of a step: itself, or steps of
// its sub-run.
func (r *Runner) Once(p *PlanStep, idempotent bool) ([]string, error) {
	return r.once(p, idempotent, "")
}

// onlyOnce says whether what a step does, or one in its sub-run, must not be done
// twice without asking.
func (r *Runner) onlyOnce(n *node) (bool, error) {
	list, err := r.once(n.plan, n.step.Idempotent, "")
	return len(list) > 0, err
}

// once names what is not idempotent of a step: itself, or steps of its sub-run.
func (r *Runner) once(p *PlanStep, idempotent bool, under string) ([]string, error) {
	switch {
	case p.Plugin != nil:
		m, err := r.opt.Sealed.Manifest(p.Plugin.Digest)
		if err != nil {
			return nil, err
		}
		if idempotent && m.Plugin.Actions[p.Action].Idempotent {
			return nil, nil
		}
		return []string{under + p.StepID}, nil
	case p.SubPlan == "":
		return nil, nil
	}
	plan, err := r.planOf(p.SubPlan)
	if err != nil {
		return nil, err
	}
	d, err := r.opt.Sealed.DAG(plan.DAG.Digest)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, list := range [][]manifests.Step{d.Steps, d.OnFailure, d.OnCancel} {
		for i := range list {
			more, err := r.once(plan.Step(list[i].ID), list[i].Idempotent, under+p.StepID+"/")
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		}
	}
	return out, nil
}

// goBack makes pending again what a decision wants done again.
func (e *execution) goBack(n *node, d Decision, rec ledger.ApprovalDecision) {
	back := e.backTo(n, d)
	again := e.rewound(n, d)
	slices.Reverse(again)
	for _, x := range again {
		inv := ledger.StepInvalidation{Reason: "rewind"}
		if x == back {
			inv.Overlay = rec.Modifications
		}
		e.invalidateAll(d.Actor, x, true, inv)
	}
}

// builtOn are the steps that stay as they are although what they were built on is done
// again.
func (x *tried) builtOn(e *execution) []string {
	seen := map[*node]bool{}
	var todo []*node
	for _, n := range e.nodes {
		if x.was[n.id].Status.Ended() && !x.is[n.id].Status.Ended() {
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
			if was.Status.Ended() && is.Status == was.Status && is.EndedUTC == was.EndedUTC && !machine(state.Code(was.Reason)) {
				out = append(out, d.id)
			}
		}
	}
	slices.Sort(out)
	return out
}
