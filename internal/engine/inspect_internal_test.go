package engine

import (
	"testing"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// A pending step says what it needs, and where that has ended what before it is done again.
func TestWhatAStepWaitsFor(t *testing.T) {
	d := &manifests.DAG{Steps: []manifests.Step{{ID: "a"}, {ID: "b", Needs: []string{"a"}}, {ID: "c", Needs: []string{"b"}}, {ID: "d", Needs: []string{"c", "b"}}}}
	for want, open := range map[string][]string{"": nil, "needs b, c": {"b", "c", "a"}, "comes after b": {"b"}, "comes after a": {"a"}} {
		records := map[string]state.Step{}
		for _, s := range d.Steps {
			records[s.ID] = state.Step{StepID: s.ID, Status: state.Completed}
		}
		for _, id := range open {
			records[id] = state.Step{StepID: id, Status: state.Pending}
		}
		of := &d.Steps[3]
		if want == "comes after b" {
			of = &manifests.Step{ID: "d", Needs: []string{"c"}}
		}
		if got := waitingForNeeds(d, of, records); got != want {
			t.Errorf("with %v open: %q, want %q", open, got, want)
		}
	}
}
