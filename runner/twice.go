package runner

import (
	"errors"
	"fmt"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// What is not idempotent and has done something is begun again only where somebody has
// said so, on record: see Repeat in [ledger.StepInvalidation]. A decision asks about all
// that it makes pending before it is written ([execution.notTwice]). Whoever is about to
// begin something looks once more ([execution.undecided], [execution.undecidedChild]):
// more may have been done meanwhile, in a sub-run that somebody has reopened.

// redone is what a decision begins again: steps, and of a for_each its items.
type redone struct {
	named  []*node // that somebody has named, which says so of what they have done themselves and have ended, not of their sub-runs: nobody sees from a step what is below
	others []*node
}

// redo are the nodes of a step that are begun when it is begun again: with all, each of
// its items, else those that have not completed.
func (n *node) redo(all bool) (out []*node) {
	if n.step.ForEach == nil || n.parent != nil {
		return []*node{n}
	}
	for _, x := range n.items {
		if all || x.status != state.Completed {
			out = append(out, x)
		}
	}
	return out
}

// redoAll are the nodes of steps that are begun again with all of their items.
func redoAll(steps []*node) (out []*node) {
	for _, x := range steps {
		out = append(out, x.redo(true)...)
	}
	return out
}

// notTwice refuses to begin again what would do twice what it has done.
func (e *execution) notTwice(d redone, what string) error {
	named := map[*node]bool{}
	for _, x := range d.others {
		named[x] = false
	}
	for _, x := range d.named {
		named[x] = true
	}
	var records map[string]state.Step
	var twice []string
	var open error
	for _, x := range e.all() {
		mine, in := named[x]
		if !in || x.attempt == 0 || x.repeat || mine && x.plan.SubPlan == "" && e.cancels[x.id] == nil {
			continue
		}
		if records == nil {
			var err error
			if records, err = e.r.opt.Store.Steps(e.runID); err != nil {
				return err
			}
		}
		ids, err := e.done(x, records[x.id])
		if err != nil {
			return err
		}
		twice = append(twice, ids...)
		if bad := (*ConflictError)(nil); open == nil {
			if open = e.besides(x, records[x.id]); open != nil && !errors.As(open, &bad) {
				return open
			}
		}
	}
	if len(twice) > 0 {
		return NotTwice(twice, what)
	}
	return open
}

// done names what a step or an item has done and is not idempotent: itself, or steps of
// its last sub-run.
func (e *execution) done(n *node, rec state.Step) ([]string, error) {
	switch {
	case n.plan.SubPlan != "" && rec.Child != nil:
		return e.r.doneOnce(rec.Child.RunID, n.id+"/")
	case n.plan.Plugin == nil || e.r.repeatable(n):
		return nil, nil
	}
	if done, err := e.r.hasDone(e.runID, rec); !done || err != nil {
		return nil, err
	}
	return []string{n.id}, nil
}

// besides refuses to begin another sub-run beside one that somebody has reopened.
func (e *execution) besides(n *node, rec state.Step) error {
	if rec.Child == nil || n.child != "" || n.former != "" { // or it is ended first
		return nil
	}
	run, err := e.r.opt.Store.Run(rec.Child.RunID)
	if err != nil || run.Status.Ended() {
		return err
	}
	return &ConflictError{Text: fmt.Sprintf("run %s, the last of step %s, was reopened and goes on: another would do the same beside it", run.RunID, n.id),
		Hint: "wait for its end, or cancel it; with --repeat you take that upon yourself"}
}

// repeatable says whether a step with a plugin may be begun again after an interruption.
// Where its manifest cannot be read nobody knows, and it may not.
func (r *Runner) repeatable(n *node) bool {
	m, err := r.opt.Sealed.Manifest(n.plan.Plugin.Digest)
	return err == nil && n.idempotent(m.Plugin.Actions[n.plan.Action])
}

// undecided says why a step or an item whose turn it is may not begin an attempt, ""
// where it may. Every decision asks before it comes to that; this is what holds if one
// has not.
func (e *execution) undecided(n *node) (string, error) {
	if n.attempt == 0 || n.repeat {
		return "", nil
	}
	rec, err := e.r.opt.Store.Step(e.runID, n.id)
	if err != nil {
		return "", err
	}
	twice, err := e.done(n, rec)
	if err != nil || len(twice) == 0 {
		return "", err
	}
	return fmt.Sprintf("attempt %d may have done something and is not idempotent, and nobody has said that it may be done twice", n.attempt), nil
}

// undecidedChild says why a step or an item whose turn it is may not begin another
// sub-run, "" where it may, and with which code it fails for that. Somebody may have
// reopened the last one since it was decided that there be another.
func (e *execution) undecidedChild(n *node) (code state.Code, why string, err error) {
	if n.attempt == 0 || n.repeat {
		return "", "", nil
	}
	rec, err := e.r.opt.Store.Step(e.runID, n.id)
	if err != nil || rec.Child == nil {
		return "", "", err
	}
	run, err := e.r.opt.Store.Run(rec.Child.RunID)
	if err != nil {
		return "", "", err
	}
	not := func(code state.Code, why string) (state.Code, string, error) {
		return code, "after run " + run.RunID + " no other was begun: " + why, nil
	}
	if !run.Status.Ended() {
		return not(state.ChildFailed, "it was reopened, and goes on")
	}
	if n.failures > 0 { // a rule begins it, and nobody has looked
		dead, err := e.r.deadBelow(run)
		if err != nil {
			return "", "", err
		}
		if dead.StepID != "" {
			return not(state.Code(dead.ErrorCode), dead.ErrorCode+" in "+dead.StepID)
		}
	}
	once, err := e.r.doneOnce(run.RunID, n.id+"/")
	if err != nil || len(once) == 0 {
		return "", "", err
	}
	return not(state.ChildFailed, onceDone(once))
}

// NotTwice refuses to do again what is not idempotent.
func NotTwice(ids []string, what string) error {
	subject := "step " + ids[0] + " is"
	if len(ids) > 1 {
		subject = "steps " + listed(ids) + " are"
	}
	return &ConflictError{Text: fmt.Sprintf("%s not idempotent: %s would do twice what has been done", subject, what),
		Hint: "with --repeat you take that upon yourself; --repeat --dry-run shows before all of what is done again"}
}

// onceDone says in words what keeps a step from being done again.
func onceDone(ids []string) string {
	if len(ids) > 1 {
		return fmt.Sprintf("%s and %d more steps are not idempotent, and may have done something", ids[0], len(ids)-1)
	}
	return ids[0] + " is not idempotent, and may have done something"
}

// Once names what must not be done twice without asking of a step: itself, or steps of
// its sub-run.
func (r *Runner) Once(p *PlanStep, idempotent bool) ([]string, error) {
	return r.once(p, idempotent, "")
}

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
