package engine

import (
	"fmt"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// parentOf says what a sub-run is to the run that has started it; nil of a run that
// nothing has started.
func (s *site) parentOf(run state.Run) (*api.Parent, error) {
	if run.ParentRunID == "" {
		return nil, nil
	}
	above, err := s.e.db.Run(run.ParentRunID)
	if err != nil {
		return nil, dbError(err)
	}
	step, err := s.e.db.Step(above.RunID, run.ParentStepID)
	if err != nil && !store.IsNotFound(err) {
		return nil, dbError(err)
	}
	out := &api.Parent{RunID: above.RunID, Status: above.Status, StepID: run.ParentStepID, StepStatus: step.Status}
	c := step.Child
	out.Waits = !above.Status.Ended() && step.Status == state.Running && c != nil && c.RunID == run.RunID && c.Status == ""
	if out.Waits {
		return out, nil
	}
	what := fmt.Sprintf("step %s of run %s", out.StepID, out.RunID)
	retry := fmt.Sprintf("stella orch run retry %s --step %s", out.RunID, out.StepID)
	switch {
	case above.Status == state.Completed, above.Status == state.Cancelled:
		out.Note = fmt.Sprintf("run %s is %s, which is final: whatever becomes of this run changes nothing there", out.RunID, above.Status)
	case c != nil && c.RunID != run.RunID:
		out.Note = fmt.Sprintf("%s is %s and has run %s by now: whatever becomes of this run changes nothing there", what, step.Status, c.RunID)
	case step.Status == state.Failed:
		out.Note = fmt.Sprintf("%s has failed, and does not wait for this run any more: %s starts another one for it, with --repeat where what this one has done is not idempotent", what, retry)
	default:
		out.Note = fmt.Sprintf("%s is %s, and does not wait for this run any more", what, step.Status)
	}
	return out, nil
}
