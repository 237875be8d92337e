package runner_test

import (
	"fmt"
	"slices"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// What is under way, whatever the record says of it, is seen in the box alone. These
// rules hold the record against that.

// beside is called before entries are written: a run neither ends nor begins to clean
// up beside what of it is under way.
func (s *stage) beside(id string, all []state.Proposal) {
	run, err := s.disk.Run(id)
	if err != nil {
		return // whoever writes hears of it
	}
	d := s.model.dags[run.DAGID]
	for _, p := range all {
		x, what := "", ""
		switch p.Type {
		case ledger.RunCompleted, ledger.RunFailed, ledger.RunCancelled:
			what, x = "it ends", s.under(id, func(string) bool { return true })
		case ledger.StepQueued, ledger.StepExpanded, ledger.ApprovalRequested, ledger.AttemptStarted, ledger.SubrunStarted:
			if ph := phaseOf(d, p.StepID); ph > 0 {
				what, x = "step "+p.StepID+" begins", s.under(id, func(step string) bool { return phaseOf(d, step) != ph })
			}
		}
		if x != "" {
			s.box.note(fmt.Sprintf("run %s: %s (%s) beside %s", id, what, p.Type, x))
		}
	}
}

// under is an attempt under way of a run, or of sub-runs, that belongs to a step of it
// of which f wants to know.
func (s *stage) under(id string, f func(step string) bool) string {
	for _, x := range s.box.list(nil) {
		step, of := x.task.StepID, x.task.RunID
		for of != id && of != "" {
			run, err := s.disk.Run(of)
			if err != nil || run.ReopenedUTC != "" { // it goes on by itself
				of = ""
				break
			}
			step, of = run.ParentStepID, run.ParentRunID
		}
		if of != "" && f(step) {
			return fmt.Sprintf("attempt %d of step %s of run %s", x.task.Attempt, x.task.StepID, x.task.RunID)
		}
	}
	return ""
}

// phaseOf is 0 for an ordinary step, and else which list of cleanup it is in.
func phaseOf(d *manifests.DAG, id string) int {
	for i, list := range [][]manifests.Step{d.OnFailure, d.OnCancel} {
		if slices.ContainsFunc(list, func(s manifests.Step) bool { return s.ID == stepOf(id) }) {
			return i + 1
		}
	}
	return 0
}

// known: whatever is under way is so on record, or was taken back; no step has two
// sub-runs of which something is under way; and what was aborted knows it.
func (s *stage) known() error {
	kin := map[string]string{} // step of a run → sub-run
	for _, x := range s.box.list(s.model.order()) {
		r := s.model.runs[x.task.RunID]
		who := fmt.Sprintf("attempt %d of step %s of run %s", x.task.Attempt, x.task.StepID, x.task.RunID)
		step, err := r.step(x.task.StepID)
		if err != nil {
			return err
		}
		if open := step.open && step.attempt == x.task.Attempt; !open && s.r.Strays(x.task.RunID)[x.task.StepID] != x.task.Attempt {
			return fmt.Errorf("%s is under way, and nobody knows of it", who)
		}
		aborted := false
		for id := x.task.RunID; ; {
			aborted = aborted || r.aborted
			if r.parent == "" || r.alone {
				break
			}
			at := r.parent + " " + r.parentStep
			if other := kin[at]; other != "" && other != id {
				return fmt.Errorf("step %s has the sub-runs %s and %s, and something of both is under way", at, other, id)
			}
			kin[at] = id
			id = r.parent
			r = s.model.runs[id]
		}
		if aborted && !closed(x.task.Aborted) {
			return fmt.Errorf("%s was aborted, and does not know it", who)
		}
	}
	return nil
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
