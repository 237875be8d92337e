package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// What differs between the steps of two runs is shown; how long they took is no
// difference.
func TestUnitStepsOfTwoRuns(t *testing.T) {
	const x, y = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"
	step := func(id string, change func(*state.Step)) api.StepInfo {
		s := state.Step{StepID: id, Status: state.Completed, Attempt: 1, InputsHash: x, OutputsHash: x, DurationMs: 1000}
		if change != nil {
			change(&s)
		}
		return api.StepInfo{Step: s}
	}
	a := api.RunInspection{Run: state.Run{RunID: "A", Status: state.Completed, Overridden: true}, Steps: []api.StepInfo{
		step("slow", nil), step("retried", nil), step("given", nil), step("gives", nil), step("failed", nil), step("gone", nil),
	}}
	b := api.RunInspection{Run: state.Run{RunID: "B", Status: state.Completed}, Steps: []api.StepInfo{
		step("slow", func(s *state.Step) { s.DurationMs = 9000 }),
		step("retried", func(s *state.Step) { s.Attempt = 3 }),
		step("given", func(s *state.Step) { s.InputsHash = y }),
		step("gives", func(s *state.Step) { s.OutputsHash = y }),
		step("failed", func(s *state.Step) { s.Status, s.OutputsHash, s.ErrorCode = state.Failed, "", "STEP_FAILED" }),
		step("new", func(s *state.Step) { s.Cached = &state.Cached{} }),
	}}
	d, _, err := compareRuns(a, b)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	s := &screen{w: &out}
	renderRunDiff(s, &d)
	_, got, _ := strings.Cut(out.String(), "metadata")
	lines := strings.Split(got, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	want := `, trust and fences: the same
outcome: 1 change
    ~ overridden: true → false
outputs: the same
took another time: slow 1s → 9s
steps: 6 of 7 differ

STEP     A                                                     B
retried  completed, 1 attempt                                  completed, 3 attempts
given    completed, inputs aaaaaaaaaaaa                        completed, inputs bbbbbbbbbbbb
gives    completed, outputs aaaaaaaaaaaa                       completed, outputs bbbbbbbbbbbb
failed   completed, outputs aaaaaaaaaaaa                       failed, STEP_FAILED
new      none                                                  completed, from the cache, inputs aaaaaaaaaaaa, outputs aaaaaaaaaaaa
gone     completed, inputs aaaaaaaaaaaa, outputs aaaaaaaaaaaa  none
`
	if diff := cmp.Diff(want, strings.Join(lines, "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	b.Steps = []api.StepInfo{step("slow", func(s *state.Step) { s.DurationMs = 9000 })}
	a.Steps, a.Run.Overridden = a.Steps[:1], false
	d, changes, err := compareRuns(a, b)
	out.Reset()
	renderSteps(s, d.Steps)
	if want := "took another time: slow 1s → 9s\nsteps: the same, 1\n"; err != nil || changes != 0 || !d.Same || out.String() != want {
		t.Errorf("%v, %d changes, same %v, %q, want %q", err, changes, d.Same, out.String(), want)
	}
}
