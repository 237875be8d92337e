package runner

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// What is done again with a sub-run is more than whoever names its step can see. So
// what the sub-run has done that is not idempotent is done again only by who says so,
// also where the step itself is named.

// notTwiceBelow refuses to begin steps again whose sub-runs have done what is not
// idempotent: those that somebody has named, and others with all of their items.
func (e *execution) notTwiceBelow(named, others []*node, what string) error {
	var all []*node
	for i, n := range slices.Concat(named, others) {
		if n.plan.SubPlan == "" {
			continue
		}
		kept := i < len(named) && n.keeps() // for what is outdated of that see notTwiceOutdated
		all = append(all, n)
		for _, x := range n.items {
			if !kept || x.status != state.Completed {
				all = append(all, x)
			}
		}
	}
	twice, err := e.doneBelow(all)
	if err == nil && len(twice) > 0 {
		err = NotTwice(twice, what)
	}
	return err
}

// doneBelow names what the last sub-runs of steps and items have done and is not
// idempotent.
func (e *execution) doneBelow(list []*node) (twice []string, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	records, err := e.r.opt.Store.Steps(e.runID)
	if err != nil {
		return nil, err
	}
	for _, x := range list {
		c := records[x.id].Child
		if c == nil || x.child == "" && x.failures == 0 && !x.status.Ended() && x.status != state.CheckpointPending { // it was decided on before
			continue
		}
		below, err := e.r.doneOnce(c.RunID, x.id+"/")
		if err != nil {
			return nil, err
		}
		twice = append(twice, below...)
	}
	return twice, nil
}

// doneOnce names the steps of a run, and of its sub-runs, that have done something and
// are not idempotent. Of a run that cannot be read nobody knows, and it counts as one.
func (r *Runner) doneOnce(runID, under string) ([]string, error) {
	o, err := r.load(runID)
	if bad := (*DamageError)(nil); errors.As(err, &bad) {
		return []string{strings.TrimSuffix(under, "/")}, nil
	}
	if err != nil {
		return nil, err
	}
	records, err := r.opt.Store.Steps(runID)
	if err != nil {
		return nil, err
	}
	steps := map[string]*manifests.Step{}
	for _, s := range allSteps(o.DAG) {
		steps[s.ID] = s
	}
	var out []string
	for _, id := range sortedKeys(records) {
		rec := records[id]
		stepID, _, _ := strings.Cut(id, ".")
		p := o.Plan.Step(stepID)
		if rec.Child != nil {
			below, err := r.doneOnce(rec.Child.RunID, under+id+"/")
			if err != nil {
				return nil, err
			}
			out = append(out, below...)
		}
		if p == nil || p.Plugin == nil || steps[stepID] == nil {
			continue
		}
		m, err := r.opt.Sealed.Manifest(p.Plugin.Digest)
		if err == nil && steps[stepID].Idempotent && m.Plugin.Actions[p.Action].Idempotent {
			continue // of one that cannot be read nobody knows
		}
		done, err := r.hasDone(runID, rec)
		if err != nil {
			return nil, err
		}
		if done {
			out = append(out, under+id)
		}
	}
	return out, nil
}

// hasDone says whether a step with a plugin, or an item of one, may have done what it
// is there for: by its last attempt, whatever became of the step. Where nothing was begun
// since it was pending, somebody has decided already that it is done again; what is
// queued after an attempt was allowed another.
func (r *Runner) hasDone(runID string, s state.Step) (bool, error) {
	if s.Attempt == 0 || s.StartedUTC == "" || s.Status == state.Queued || s.Cached != nil || s.Items != "" {
		return false, nil
	}
	a, err := r.opt.Store.Attempt(runID, s.StepID, s.Attempt)
	return err == nil && leaves(a.End), err
}

// leaves says whether an attempt that is under way, or has ended so, may have left
// something done: not where the table of the contract's section 8 has it tried again,
// idempotent or not, or where it was not begun or has itself refused. What ended well and
// counts for nothing has, and so has what we stopped.
func leaves(end *ledger.AttemptEnd) bool {
	switch {
	case end == nil:
		return true
	case end.Retryable, end.Outcome == string(state.Infra):
		return false
	case end.ErrorCode == string(state.StepRejected), end.ErrorCode == string(state.BundleInvalid):
		return false
	case end.Outcome == string(state.Rejected):
		return end.Usage != nil // trust was taken from it while it was under way
	}
	return true
}

// leftover is what a sub-run that has failed leaves to people.
type leftover struct {
	dead state.Step // see deadBelow
	once []string   // see doneOnce; only where a retry rule would begin another
}

func (e *execution) leftBelow(n *node, run state.Run) (left leftover, err error) {
	left.dead, err = e.r.deadBelow(run)
	if err != nil || left.dead.StepID != "" || !e.mayRepeat(n, run, n.failures+1) {
		return left, err
	}
	left.once, err = e.r.doneOnce(run.RunID, n.id+"/")
	return left, err
}

// mayRepeat says whether the retry rule of a step, of which so many sub-runs have
// failed, is asked at all after the last has ended so.
func (e *execution) mayRepeat(n *node, run state.Run, failures int) bool {
	return (run.Status == state.Failed || overdue(n, run)) && !e.over(n.phase) && failures < n.step.Retry.MaxAttempts
}

// doneSince names what the sub-run that failed has done since and must not be done
// twice, of a step whose retry rule is about to begin another: somebody may have
// reopened it.
func (e *execution) doneSince(n *node) (code state.Code, reason string, err error) {
	if n.failures == 0 { // no rule begins it
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
	if !run.Status.Ended() {
		return state.ChildFailed, "run " + run.RunID + " had failed; not tried again: it was reopened, and goes on", nil
	}
	dead, err := e.r.deadBelow(run)
	if err != nil {
		return "", "", err
	}
	if dead.StepID != "" {
		return state.Code(dead.ErrorCode), "run " + run.RunID + " had failed; not tried again: " + dead.ErrorCode + " in " + dead.StepID, nil
	}
	once, err := e.r.doneOnce(rec.Child.RunID, n.id+"/")
	if err != nil || len(once) == 0 {
		return "", "", err
	}
	return state.ChildFailed, fmt.Sprintf("run %s had failed; not tried again: %s", rec.Child.RunID, onceDone(once)), nil
}

// onceDone says in words what keeps a step from being done again.
func onceDone(ids []string) string {
	if len(ids) > 1 {
		return fmt.Sprintf("%s and %d more steps are not idempotent, and may have done something", ids[0], len(ids)-1)
	}
	return ids[0] + " is not idempotent, and may have done something"
}

// deadBelow is the step of a run for which only a person lets it go on, without an id
// where there is none: one of which nobody knows how far it came, before one that was
// interrupted too often. A step with a sub-run in which there is one is one itself.
func (r *Runner) deadBelow(run state.Run) (dead state.Step, err error) {
	if run.Status == state.Completed {
		return dead, nil
	}
	records, err := r.opt.Store.Steps(run.RunID)
	for _, id := range sortedKeys(records) {
		switch s := records[id]; {
		case s.Status != state.Failed:
		case s.ErrorCode == string(state.Indeterminate):
			return s, err
		case s.ErrorCode == string(state.PoisonPill) && dead.StepID == "":
			dead = s
		}
	}
	return dead, err
}
