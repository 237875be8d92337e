package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/diff"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

func newRunDiffCmd(a *app) *cobra.Command {
	exitCode := false
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two runs: why did it work yesterday?",
		Long: "Compare two runs, from A to B: the inputs value by value; the plan, which is the bytes that\n" +
			"ran, so DAG version, plugins, interpreters, data and platform; metadata, trust and fences; and\n" +
			"what came of it, step by step, with the hashes of what a step was given and gave out. Times\n" +
			"and durations alone do not make two runs differ; a step that took much longer is named apart.",
		Example: "  stella orch run diff 01935b1e-… 01935f02-…",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return runRunDiff(c.Context(), a, args[0], args[1], exitCode)
		},
	}
	addExitCode(c, &exitCode)
	return c
}

// runDiff is how two runs differ.
type runDiff struct {
	A          state.Run     `json:"a"`
	B          state.Run     `json:"b"`
	Same       bool          `json:"same"` // but for times and durations
	Inputs     []diff.Change `json:"inputs"`
	Plan       []diff.Change `json:"plan"`
	Conditions []diff.Change `json:"conditions"` // metadata, trust, fences
	Outcome    []diff.Change `json:"outcome"`
	Outputs    []diff.Change `json:"outputs"`
	Steps      []stepPair    `json:"steps"`
}

// stepPair is one step in both runs; nil where a run has none of that id.
type stepPair struct {
	StepID  string     `json:"stepId"`
	Differs bool       `json:"differs"`
	A       *stepState `json:"a,omitempty"`
	B       *stepState `json:"b,omitempty"`
}

type stepState struct {
	Status      string `json:"status"`
	Attempts    int    `json:"attempts"`
	ErrorCode   string `json:"errorCode,omitempty"`
	Reason      string `json:"reason,omitempty"`
	InputsHash  string `json:"inputsHash,omitempty"`
	OutputsHash string `json:"outputsHash,omitempty"`
	Cached      bool   `json:"cached,omitempty"` // the outputs came from the cache
	DurationMs  int64  `json:"durationMs"`
}

func runRunDiff(ctx context.Context, a *app, from, to string, exitCode bool) error {
	var x, y api.RunInspection
	err := a.withSite(ctx, func(ctx context.Context, r *reached) (err error) {
		if x, err = r.InspectRun(ctx, from); err == nil {
			y, err = r.InspectRun(ctx, to)
		}
		return err
	})
	if err != nil {
		return err
	}
	d, changes, err := compareRuns(x, y)
	if err != nil {
		return err
	}
	if err := a.emit(d, func(s *screen) { renderRunDiff(s, &d) }); err != nil {
		return err
	}
	return differ(from, to, changes, exitCode)
}

// compareRuns compares two runs and counts the changes.
func compareRuns(a, b api.RunInspection) (d runDiff, changes int, err error) {
	d = runDiff{A: a.Run, B: b.Run, Steps: []stepPair{}}
	for _, part := range []struct {
		to   *[]diff.Change
		tree func(*api.RunInspection) (any, error)
	}{
		{&d.Inputs, func(in *api.RunInspection) (any, error) { return jsonTree(in.Inputs) }},
		{&d.Plan, planTree},
		{&d.Conditions, conditionTree},
		{&d.Outcome, outcomeTree},
		{&d.Outputs, func(in *api.RunInspection) (any, error) { return jsonTree(in.Outputs) }},
	} {
		x, err := part.tree(&a)
		if err != nil {
			return d, 0, fmt.Errorf("run %s: %w", a.Run.RunID, err)
		}
		y, err := part.tree(&b)
		if err != nil {
			return d, 0, fmt.Errorf("run %s: %w", b.Run.RunID, err)
		}
		*part.to = append([]diff.Change{}, diff.Values(x, y)...)
		changes += len(*part.to)
	}
	d.Same = changes == 0
	d.Steps = pairSteps(a.Steps, b.Steps)
	return d, changes, nil
}

func jsonTree(raw json.RawMessage) (any, error) {
	if len(raw) == 0 {
		return map[string]any{}, nil
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

// planTree is a plan with its steps, and their data, by name.
func planTree(in *api.RunInspection) (any, error) {
	v, err := jsonTree(in.Plan)
	plan, ok := v.(map[string]any)
	if err != nil || !ok {
		return v, err
	}
	plan["step"] = byKey(plan["steps"], "stepId")
	delete(plan, "steps")
	for _, s := range plan["step"].(map[string]any) {
		if step, ok := s.(map[string]any); ok && step["data"] != nil {
			step["data"] = byKey(step["data"], "ref")
		}
	}
	return plan, nil
}

// byKey makes a map of a list of objects, by one of their fields.
func byKey(list any, key string) map[string]any {
	out := map[string]any{}
	items, _ := list.([]any)
	for i, item := range items {
		m, _ := item.(map[string]any)
		name, ok := m[key].(string)
		if !ok {
			name = strconv.Itoa(i)
		}
		delete(m, key)
		out[name] = item
	}
	return out
}

// conditionTree is what a run met that neither inputs nor plan say.
func conditionTree(in *api.RunInspection) (any, error) {
	tree, meta := map[string]any{}, map[string]any{}
	for k, v := range in.Run.Metadata {
		meta[k] = v
	}
	tree["metadata"] = meta
	tiers := diff.Set{}
	for _, at := range in.Attempts {
		if at.Start != nil && at.Start.Tier != "" && !slices.Contains(tiers, at.Start.Tier) {
			tiers = append(tiers, at.Start.Tier)
		}
	}
	tree["tier"] = tiers
	if len(in.Entries) == 0 || len(in.Entries[0].Data) == 0 { // it may have been erased
		return tree, nil
	}
	var first struct {
		Data ledger.RunStart `json:"data"`
	}
	if err := json.Unmarshal(in.Entries[0].Data, &first); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(first.Data.Trust)
	if err != nil {
		return nil, err
	}
	tree["trust"], err = jsonTree(raw)
	return tree, err
}

func outcomeTree(in *api.RunInspection) (any, error) {
	steps := map[string]any{}
	for i := range in.Steps {
		st := newStepState(&in.Steps[i])
		steps[st.StepID] = map[string]any{
			"status": st.Status, "attempts": unlessZero(st.Attempts), "errorCode": unlessEmpty(st.ErrorCode),
			"reason": unlessEmpty(st.Reason), "inputsHash": unlessEmpty(st.InputsHash), "outputsHash": unlessEmpty(st.OutputsHash), "cached": st.Cached,
		}
	}
	r := in.Run
	return map[string]any{
		"status": string(r.Status), "failureReason": unlessEmpty(r.FailureReason), "failedStep": unlessEmpty(r.FailedStep),
		"cancelledBy": unlessEmpty(r.CancelledBy), "cancelReason": unlessEmpty(r.CancelReason), "overridden": r.Overridden, "step": steps,
	}, nil
}

// namedState is a stepState with its name, for a moment.
type namedState struct {
	StepID string
	stepState
}

func newStepState(s *api.StepInfo) namedState {
	return namedState{s.StepID, stepState{
		Status: string(s.Status), Attempts: s.Attempt, ErrorCode: s.ErrorCode, Reason: s.Reason,
		InputsHash: s.InputsHash, OutputsHash: s.OutputsHash, Cached: s.Cached != nil, DurationMs: s.DurationMs,
	}}
}

// pairSteps pairs the steps of two runs: those of the second in their order,
// after them those that it lacks.
func pairSteps(a, b []api.StepInfo) []stepPair {
	first := map[string]*stepState{}
	for i := range a {
		st := newStepState(&a[i])
		first[st.StepID] = &st.stepState
	}
	out := []stepPair{}
	for i := range b {
		st := newStepState(&b[i])
		old := first[st.StepID]
		delete(first, st.StepID)
		out = append(out, stepPair{st.StepID, differs(old, &st.stepState), old, &st.stepState})
	}
	for i := range a {
		if old := first[a[i].StepID]; old != nil {
			out = append(out, stepPair{a[i].StepID, true, old, nil})
		}
	}
	return out
}

// differs compares two steps, but for how long they took.
func differs(a, b *stepState) bool {
	if a == nil || b == nil {
		return a != b
	}
	x, y := *a, *b
	x.DurationMs, y.DurationMs = 0, 0
	return x != y
}

func renderRunDiff(s *screen, d *runDiff) {
	rows := [][]string{}
	for _, r := range []struct {
		name string
		run  state.Run
	}{{"A", d.A}, {"B", d.B}} {
		rows = append(rows, []string{r.name, r.run.RunID, r.run.DAGID + " " + r.run.DAGVersion, string(r.run.Status),
			seconds(r.run.CreatedUTC), duration(r.run.DurationMs, r.run.Status), reason(r.run)})
	}
	s.table([]string{"", "RUN", "DAG", "STATUS", "CREATED", "DURATION", "REASON"}, rows)
	s.printf("\n")
	renderPart(s, "inputs", d.Inputs, short(d.A.InputsHash))
	renderPart(s, "plan", d.Plan, short(d.A.PlanHash))
	renderPart(s, "metadata, trust and fences", d.Conditions, "")
	outcome := slices.DeleteFunc(slices.Clone(d.Outcome), func(c diff.Change) bool { return c.Path[0] == "step" })
	renderPart(s, "outcome", outcome, string(d.A.Status))
	renderPart(s, "outputs", d.Outputs, short(d.A.OutputsHash))
	renderSteps(s, d.Steps)
}

// renderPart writes one part of the comparison; same says what both have where
// nothing differs.
func renderPart(s *screen, name string, changes []diff.Change, same string) {
	if len(changes) == 0 {
		s.printf("%s: %s\n", name, strings.TrimSuffix("the same, "+same, ", "))
		return
	}
	s.printf("%s: %s\n", name, count(len(changes), "change", "changes"))
	renderChanges(s, "    ", changes, []string{"step"})
}

// slower says whether the durations of a step are worth a line: the longer one
// is a second or more, and twice the other.
func (p *stepPair) slower() bool {
	if p.A == nil || p.B == nil {
		return false
	}
	most, least := max(p.A.DurationMs, p.B.DurationMs), min(p.A.DurationMs, p.B.DurationMs)
	return most >= 1000 && most >= 2*least
}

func renderSteps(s *screen, steps []stepPair) {
	var rows [][]string
	var slow []string
	for i := range steps {
		p := &steps[i]
		if p.Differs {
			rows = append(rows, []string{p.StepID, stepText(p.A, p.B), stepText(p.B, p.A)})
		}
		if p.slower() {
			slow = append(slow, fmt.Sprintf("%s %s → %s", p.StepID, milliseconds(p.A.DurationMs), milliseconds(p.B.DurationMs)))
		}
	}
	if len(slow) > 0 {
		s.printf("took another time: %s\n", strings.Join(slow, ", "))
	}
	if len(rows) == 0 {
		s.printf("steps: the same, %d\n", len(steps))
		return
	}
	s.printf("steps: %d of %d differ\n\n", len(rows), len(steps))
	s.table([]string{"STEP", "A", "B"}, rows)
}

func milliseconds(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

// stepText is a step of one run: its status, and what is otherwise in the other.
func stepText(st, other *stepState) string {
	if st == nil {
		return "none"
	}
	if other == nil {
		other = &stepState{}
	}
	text := st.Status
	if st.Cached {
		text += ", from the cache"
	}
	if st.Attempts > 1 || st.Attempts > 0 && other.Attempts > 0 && st.Attempts != other.Attempts {
		text += ", " + count(st.Attempts, "attempt", "attempts")
	}
	for _, h := range []struct{ name, hash, other string }{
		{"inputs", st.InputsHash, other.InputsHash}, {"outputs", st.OutputsHash, other.OutputsHash},
	} {
		if h.hash != "" && h.hash != h.other {
			text += ", " + h.name + " " + short(h.hash)
		}
	}
	if why := whyStep(st.ErrorCode, st.Reason); why != "" {
		text += ", " + why
	}
	return text
}
