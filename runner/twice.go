package runner

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// What is not idempotent and has done something is begun again only where somebody has
// said so, on record: see Repeat in [ledger.StepInvalidation]. A decision asks about all
// that it makes pending before it is written ([execution.notTwice]). Whoever is about to
// begin something looks once more ([execution.undecided], [execution.undecidedChild]):
// more may have been done meanwhile, in a sub-run that somebody has reopened.
//
// Two sub-runs of a step do the same. No second one goes on beside the first, or after it
// has done something, unless somebody says so: there are two doors, its birth
// ([execution.undecidedChild]) and its reopening ([execution.beside]), and each looks
// at all the others, under one lock. So no attempt looks at other sub-runs.

// notTwice refuses to begin again what would do twice what it has done, here or in another
// sub-run of the same step. Where that is allowed it is noted, of what is only tried. What
// somebody names that cleans up is about the end of this run alone, once it has one.
func (e *execution) notTwice(d redone, cleans bool, what string) error {
	if d.repeat && !d.only && !e.tried() {
		return nil
	}
	var all, twice work // what nobody has allowed, and what somebody has
	if !e.run.Status.Ended() || !cleans {
		w, err := e.beside(what, d.repeat)
		if err != nil {
			return err
		}
		if d.repeat {
			twice = w
		} else {
			all = w
		}
	}
	records := sync.OnceValues(func() (map[string]state.Step, error) { return e.r.opt.Store.Steps(e.runID) })
	for _, x := range e.all() {
		w, err := e.unasked(d, x, records)
		if err != nil {
			return err
		}
		if d.repeats(x) {
			twice.add(w)
		} else {
			all.add(w)
		}
	}
	err := all.refuse(what)
	if bad := (*ConflictError)(nil); d.repeat && errors.As(err, &bad) {
		bad.Hint = "--repeat --only is about what is named alone; --repeat is about that, too"
	}
	if d.repeat && err == nil {
		e.twice = twice.names()
	}
	return err
}

// unasked is the work of a step or an item that a decision would do twice, and that nobody has
// allowed, but for all.
func (e *execution) unasked(d redone, x *node, records func() (map[string]state.Step, error)) (w work, err error) {
	redo, in := d.of[x]
	if !in || x.attempt == 0 || x.step.ForEach != nil && x.parent == nil { // of which the items do it
		return w, nil
	}
	if underWay := e.cancels[x.id] != nil; !underWay && (x.repeat || x.allowed(redo.named, false)) {
		return w, nil
	}
	all, err := records()
	if err != nil {
		return w, err
	}
	return e.workOf(x, all[x.id])
}

// worksTwice says whether one of some nodes would do twice what nobody has allowed.
func (e *execution) worksTwice(d redone, nodes []*node, records func() (map[string]state.Step, error)) (bool, error) {
	for _, x := range nodes {
		if w, err := e.unasked(d, x, records); err != nil || w.refuse("") != nil {
			return err == nil, err
		}
	}
	return false, nil
}

// workOf is the work of a step or an item: its own, or that of all its sub-runs, since
// each may have been reopened.
func (e *execution) workOf(n *node, rec state.Step) (w work, err error) {
	switch {
	case n.plan.SubPlan != "":
		children, err := e.r.subruns(e.run, rec)
		if err != nil {
			return w, err
		}
		for _, child := range children {
			if n.phase != ordinary && child.CreatedUTC < e.run.EndSince() {
				continue // it has cleaned up after another end
			}
			below, err := e.r.workOf(child.RunID, n.id+"/", child.RunID == n.child || child.RunID == n.former)
			if err != nil {
				return w, err
			}
			w.add(below)
		}
		return w, nil
	case n.plan.Plugin == nil || e.r.repeatable(n):
		return w, nil
	}
	done, err := e.r.hasDone(e.runID, rec, false)
	if done {
		w.once = []string{n.id}
	}
	return w, err
}

// refuse is what keeps a decision from being made that would do this work twice, nil
// where nothing does.
func (w work) refuse(what string) error {
	switch {
	case len(w.once) > 0:
		return NotTwice(w.names(), what)
	case w.open != "":
		return &ConflictError{Text: fmt.Sprintf("run %s was reopened and goes on: %s would do the same beside it", w.open, what),
			Hint: "wait for its end, or cancel it; with --repeat you take that upon yourself"}
	}
	return nil
}

// names are the steps, each once.
func (w work) names() []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(w.once), func(id string) bool {
		was := seen[id]
		seen[id] = true
		return was
	})
}

// word says what keeps a step from being begun again, "" where nothing does.
func (w work) word() string {
	switch once := w.names(); {
	case len(once) > 1:
		return fmt.Sprintf("%s and %d more steps are not idempotent, and may have done something", once[0], len(once)-1)
	case len(once) == 1:
		return once[0] + " is not idempotent, and may have done something"
	case w.open != "":
		return "run " + w.open + " was reopened, and goes on"
	}
	return ""
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
func (e *execution) undecided(n *node, p *prepared) (string, error) {
	if n.attempt == 0 || n.repeat || n.idempotent(p.action) {
		return "", nil
	}
	rec, err := e.r.opt.Store.Step(e.runID, n.id)
	if err != nil {
		return "", err
	}
	if done, err := e.r.hasDone(e.runID, rec, false); !done || err != nil {
		return "", err
	}
	return fmt.Sprintf("attempt %d, or one before it, may have done something and is not idempotent, and nobody has said that it may be done twice", n.attempt), nil
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
	code = state.ChildFailed
	if n.failures > 0 { // a rule begins it, and nobody has looked
		run, err := e.r.opt.Store.Run(rec.Child.RunID)
		if err != nil {
			return "", "", err
		}
		dead, err := e.r.deadBelow(run)
		if err != nil {
			return "", "", err
		}
		if dead.StepID != "" {
			code, why = state.Code(dead.ErrorCode), dead.ErrorCode+" in "+dead.StepID
		}
	}
	if why == "" {
		w, err := e.workOf(n, rec)
		if err != nil {
			return "", "", err
		}
		why = w.word()
	}
	if why != "" {
		why = "after run " + rec.Child.RunID + " no other was begun: " + why
	}
	return code, why, nil
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
