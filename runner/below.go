package runner

import (
	"errors"
	"slices"
	"strings"

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
	for i, n := range slices.Concat(named, others) {
		if n.plan.SubPlan == "" {
			continue
		}
		kept := i < len(named) && n.keeps()
		records, err := e.r.opt.Store.Steps(e.runID)
		if err != nil {
			return err
		}
		for _, x := range append([]*node{n}, n.items...) {
			c := records[x.id].Child
			switch {
			case c == nil, x.child == "" && !x.status.Ended() && x.status != state.CheckpointPending: // it was decided on before
				continue
			case x != n && x.status == state.Completed && kept:
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
		if p == nil || p.Plugin == nil || steps[stepID] == nil || !hasDone(rec) {
			continue
		}
		m, err := r.opt.Sealed.Manifest(p.Plugin.Digest)
		if err != nil {
			return nil, err
		}
		if !steps[stepID].Idempotent || !m.Plugin.Actions[p.Action].Idempotent {
			out = append(out, under+id)
		}
	}
	return out, nil
}

// hasDone says whether a step may have done what it is there for: an attempt that has
// failed by itself counts as one that has not, as it does for the retry rule.
func hasDone(s state.Step) bool {
	switch s.Status {
	case state.Completed, state.CheckpointPending:
		return s.Attempt > 0 && s.Cached == nil && s.Items == ""
	case state.Cancelled:
		return s.Attempt > 0 && s.StartedUTC != "" && s.Items == ""
	case state.Failed:
		return s.ErrorCode == string(state.Indeterminate)
	}
	return s.Open
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
