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
	var twice []string
	var records map[string]state.Step
	for i, n := range slices.Concat(named, others) {
		if n.plan.SubPlan == "" {
			continue
		}
		kept, since := i < len(named) && n.keeps(), n.owner().readSince(map[*node]bool{})
		at := append([]*node{n}, n.items...)
		if i < len(named) && n.parent != nil { // what goes with it, see dropOutdated
			at = append(at, slices.DeleteFunc(n.parent.outdated(), func(x *node) bool { return x == n })...)
		}
		if records == nil { // once: they are those of the whole run
			var err error
			if records, err = e.r.opt.Store.Steps(e.runID); err != nil {
				return err
			}
		}
		for _, x := range at {
			c := records[x.id].Child
			switch {
			case c == nil, x.child == "" && !x.status.Ended() && x.status != state.CheckpointPending: // it was decided on before
				continue
			case x != n && x.status == state.Completed && kept && x.order > since:
				continue
			}
			below, err := e.r.doneOnce(c.RunID, x.id+"/")
			if err != nil {
				return err
			}
			twice = append(twice, below...)
		}
	}
	if len(twice) > 0 {
		return NotTwice(twice, what)
	}
	return nil
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
		if err != nil {
			return nil, err
		}
		if steps[stepID].Idempotent && m.Plugin.Actions[p.Action].Idempotent {
			continue
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
	if err != nil || left.dead.StepID != "" || run.Status == state.Completed || n.failures+1 >= n.step.Retry.MaxAttempts {
		return left, err
	}
	left.once, err = e.r.doneOnce(run.RunID, n.id+"/")
	return left, err
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
