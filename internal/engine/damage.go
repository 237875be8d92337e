package engine

import (
	"errors"
	"slices"
	"strings"

	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// damage says what of a run cannot be read, and what helps; "" where nothing is wrong
// with it. Of a run that is executed only what was read now is looked at.
func (e *Engine) damage(o runner.Opened) string {
	err := o.Damage
	if err == nil && !o.Run.Status.Ended() {
		err = e.runner.Readable(o)
	}
	return damageText(o.Run, err)
}

// knownDamage is damage for a run that is too large to be looked at as a whole: what
// was found when it was to be taken up.
func (e *Engine) knownDamage(run state.Run) string {
	if err, ok := e.refused.Load(run.RunID); ok && !run.Status.Ended() && !e.runner.Executes(run.RunID) {
		return damageText(run, err.(error))
	}
	return ""
}

func damageText(run state.Run, err error) string {
	var known *runner.DamageError
	if errors.As(err, &known) {
		err = known.Err
	}
	switch {
	case err == nil:
		return ""
	case run.Status.Ended():
		return err.Error() + "; stella ledger verify --full, and stella bundle audit, name what is damaged"
	}
	return err.Error() + "; " + helpsDamaged(run.RunID)
}

// bareSteps are the records of the steps of a run whose spec cannot be read.
func bareSteps(records map[string]state.Step) []api.StepInfo {
	out := []api.StepInfo{}
	for _, rec := range records {
		out = append(out, api.StepInfo{Step: rec})
	}
	slices.SortFunc(out, func(a, b api.StepInfo) int { return strings.Compare(a.StepID, b.StepID) })
	return out
}
