package engine

import (
	"fmt"
	"strings"

	"github.com/stellarun/stella/runner/state"
)

// starters are who started a run, and for whom; of a sub-run those of the one above all.
func (s *site) starters(run state.Run) ([]string, error) {
	for run.ParentRunID != "" {
		var err error
		if run, err = s.e.db.Run(run.ParentRunID); err != nil {
			return nil, dbError(err)
		}
	}
	return run.Starters(), nil
}

// deadlock says of an approval that can no longer reach its quorum why that is, and
// what helps; "" of all others.
func deadlock(run state.Run, stepID string, a *state.Approval, r state.Reach) string {
	if !r.Lost {
		return ""
	}
	var said []string
	for _, d := range a.Decisions {
		text := d.Actor + " says " + d.Decision
		if d.BackTo != "" {
			text += " back to " + d.BackTo
		}
		if d.Downstream {
			text += " with what depends on it"
		}
		said = append(said, text)
	}
	left := "nobody else may decide"
	switch {
	case len(r.Left) > 0 && r.Abort:
		left = strings.Join(r.Left, " or ") + " can only reject it"
	case len(r.Left) > 0:
		left = strings.Join(r.Left, " and ") + " are not enough"
	}
	why := strings.Join(append(said, left), ", ")
	if r.Never {
		return fmt.Sprintf("it cannot reach its quorum of %d: %s; stella orch run cancel %s ends the run, which then has to be started by somebody else, or in a version of the DAG that asks others",
			a.Request.Quorum, why, run.RunID)
	}
	return fmt.Sprintf("it can no longer reach its quorum of %d: %s; stella orch run reset %s --step %s asks all of them again, stella orch run cancel %s ends the run",
		a.Request.Quorum, why, run.RunID, stepID, run.RunID)
}
