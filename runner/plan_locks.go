package runner

import (
	"fmt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

// A step that holds a lock while its sub-run waits for the same would wait for ever.

// wanted are the locks that a sub-run waits for somewhere, with the step that does.
type wanted map[ledger.Lock]string

func (w wanted) add(l ledger.Lock, who string) {
	l.Weight = 0
	if w[l] == "" {
		w[l] = who
	}
}

// wants collects what the steps of a DAG wait for, those of its sub-runs included.
func (pl *planner) wants(d *manifests.DAG, above []string) wanted {
	out := wanted{}
	for _, s := range allSteps(d) {
		for _, l := range locksOf(s) {
			out.add(l, fmt.Sprintf("step %s of its sub-run %s@%s", s.ID, d.ID, d.Version))
		}
		if s.DAG == "" {
			continue
		}
		for l, who := range pl.sub(s.DAG, above).wants {
			out.add(l, who)
		}
	}
	return out
}

// crossed says which lock of a step its own sub-run would wait for.
func (s subPlan) crossed(step *manifests.Step) error {
	for _, l := range locksOf(step) {
		l.Weight = 0
		if who := s.wants[l]; who != "" {
			return fmt.Errorf("%s %s: %s waits for it, which this step holds until the sub-run has ended", l.Kind, l.Name, who)
		}
	}
	return nil
}
