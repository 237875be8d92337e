package runner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// beside refuses to reopen a run where another sub-run of the step that had begun it, or of
// one above, has done, or does, what this one would do. With repeat it is what they do. What
// had ended for good when this one was begun was asked about then.
func (e *execution) beside(what string, repeat bool) (all work, err error) {
	if e.run.Status != state.Failed {
		return all, nil // it is that one that goes on
	}
	for run := e.run; run.ParentRunID != ""; {
		step, err := e.r.opt.Store.Step(run.ParentRunID, run.ParentStepID)
		if err != nil {
			return all, err
		}
		parent, err := e.r.opt.Store.Run(run.ParentRunID)
		if err != nil {
			return all, err
		}
		others, err := e.r.subruns(parent, step)
		if err != nil {
			return all, err
		}
		cleans := e.r.cleansUp(parent, run.ParentStepID)
		for _, other := range others {
			if other.RunID == run.RunID || cleans && (other.CreatedUTC < parent.EndSince()) != (run.CreatedUTC < parent.EndSince()) {
				continue // itself, or it has cleaned up after another end
			}
			w, err := e.r.workOf(other.RunID, run.ParentStepID+"/", false)
			if err != nil {
				return all, err
			}
			if w.until < run.FirstSeq {
				continue
			}
			if why := w.word(); why != "" && !repeat {
				return all, &ConflictError{Text: fmt.Sprintf("step %s of run %s has gone on with run %s (%s): %s would do the same here", run.ParentStepID, run.ParentRunID, other.RunID, why, what),
					Hint: "with --repeat you take that upon yourself; --repeat --dry-run shows before all of what is done again"}
			}
			all.add(w)
		}
		if cleans {
			return all, nil // it is about the end of that run, and another has an end of its own
		}
		run = parent
	}
	return all, nil
}

// cleansUp says whether a step of a run is one of on_failure or on_cancel.
func (r *Runner) cleansUp(run state.Run, stepID string) bool {
	d, err := r.opt.Sealed.DAG(run.DAGDigest)
	if err != nil {
		return false // nobody knows
	}
	stepID, _, _ = strings.Cut(stepID, ".")
	is := func(s manifests.Step) bool { return s.ID == stepID }
	return slices.ContainsFunc(d.OnFailure, is) || slices.ContainsFunc(d.OnCancel, is)
}
