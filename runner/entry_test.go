package runner_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// A DAG whose steps do not fit into their entries is not started: the process would end
// with the first of them, and each time it goes on.
func TestWhatFitsIntoNoEntryIsNotStarted(t *testing.T) {
	var names, people []string
	for i := range 1500 {
		names = append(names, fmt.Sprintf("%s-%d", strings.Repeat("l", 50), i))
		people = append(people, "token:"+names[i])
	}
	for _, c := range []struct {
		name   string
		change func(*manifests.DAG)
		sub    bool
	}{
		{"locks of an attempt", func(d *manifests.DAG) { d.Steps[0].Locks = names }, false},
		{"locks of a sub-run", func(d *manifests.DAG) { d.Steps[0].Locks = names }, true},
		{"approvers", func(d *manifests.DAG) {
			d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "?", Quorum: 1, Approvers: people}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, ok)
			w.child(nil, "c")
			d := dag(c.change, "a", "b")
			if c.sub {
				d = parent(c.change, "a", "b")
			}
			_, err := w.tryStart(d, "{}")
			var plan *runner.PlanError
			if !errors.As(err, &plan) || len(plan.Faults) != 1 || !strings.Contains(plan.Faults[0].Text, "bytes in each entry") {
				t.Errorf("the start: %.200v", err)
			}
			if faults := runner.Validate(d); len(faults) != 1 {
				t.Errorf("it is valid: %v", faults)
			}
		})
	}
}
