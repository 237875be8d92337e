package runner_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// large says a text of almost 1 MiB, which is what one step may.
func large(_ context.Context, task runner.Task) (runner.Report, error) {
	return giving(strings.Repeat("x", 1<<20-64)), nil
}

func giving(v any) runner.Report {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	out := exit(0)
	out.Output.Values = map[string]json.RawMessage{"x": raw}
	return out
}

// numbersUpTo is a list for for_each.
func numbersUpTo(n int) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = int64(i)
	}
	return out
}

func copies(n int, v any) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = v
	}
	return out
}

// What nobody could read back is refused where it is written: the run fails, says how
// large it is and how large it may be, and the runner goes on.
func TestValuesThatNobodyCouldReadBackFailTheirStep(t *testing.T) {
	deep := any("x")
	for range 62 {
		deep = []any{deep}
	}
	for _, c := range []struct {
		name  string
		says  func(context.Context, runner.Task) (runner.Report, error)
		child func(*manifests.DAG)
		dag   func(*manifests.DAG)
		sub   bool
		code  state.Code
		text  string
	}{
		{name: "the outputs of for_each", says: large, dag: func(d *manifests.DAG) { d.Steps[0].ForEach = numbersUpTo(66) },
			code: state.ResourceLimit, text: "the outputs of its items have 69202"},
		{name: "outputs of for_each that lie too deep", says: func(context.Context, runner.Task) (runner.Report, error) {
			return giving(deep), nil
		}, dag: func(d *manifests.DAG) { d.Steps[0].ForEach = numbersUpTo(2) }, code: state.ContractViolation, text: "nesting too deep"},
		{name: "the inputs of a sub-run", says: large, sub: true, child: func(d *manifests.DAG) {
			d.Inputs = map[string]manifests.Input{"x": {Type: "string"}, "y": {Type: "string"}}
		}, dag: func(d *manifests.DAG) {
			d.Steps[0].Needs = []string{"b"}
			d.Steps[0].With = map[string]any{"x": "${ steps.b.outputs.x }", "y": "${ steps.b.outputs.x }"}
		}, code: state.ResourceLimit, text: "the inputs have 2097"},
		{name: "the outputs of a sub-run", says: large, sub: true, child: func(d *manifests.DAG) {
			d.Outputs = map[string]any{"l": copies(66, "${ steps.c.outputs.x }")}
		}, code: state.ChildFailed, text: "RESOURCE_LIMIT"},
		{name: "the outputs of a run", says: large, dag: func(d *manifests.DAG) {
			d.Outputs = map[string]any{"l": copies(66, "${ steps.a.outputs.x }")}
		}, code: state.ResourceLimit, text: "the outputs have 69201"},
		{name: "outputs that are no number", says: ok, dag: func(d *manifests.DAG) { d.Outputs = map[string]any{"l": "${ 1.7e308 * 10.0 }"} },
			code: state.ExpressionInvalid, text: "the outputs: "},
		{name: "outputs that are too large a number", says: ok, dag: func(d *manifests.DAG) { d.Outputs = map[string]any{"l": "${ 9007199254740993 }"} },
			code: state.ExpressionInvalid, text: "the outputs: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.says)
			w.child(c.child, "c")
			d := dag(c.dag, "a", "b")
			if c.sub {
				d = parent(c.dag, "a", "b")
			}
			run := w.start(d, "{}")
			got, steps := w.finish(run.RunID)
			all := got.Message + steps["a"]
			if got.Status != state.Failed || got.FailureReason != string(c.code) || !strings.Contains(all, c.text) {
				t.Fatalf("the run is %s %s %q; steps %v", got.Status, got.FailureReason, got.Message, steps)
			}
			if _, err := w.r.Try(w.opened(got, d), func(r *runner.Runner) (state.Run, error) {
				return r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: "a"})
			}); err != nil && !strings.Contains(err.Error(), "repeat") {
				t.Errorf("it cannot be opened again: %v", err)
			}
		})
	}
}

// Canonical JSON can be longer than what was given.
func TestTheBoundOfInputsIsThatOfTheirCanonicalForm(t *testing.T) {
	raw := []byte(`{"x":[` + strings.Repeat("1e15,", 200_000) + `0]}`)
	if len(raw) > runner.MaxInputsBytes {
		t.Fatalf("%d bytes", len(raw))
	}
	canonical, _, err := runner.CanonicalInputs(raw)
	if err == nil || !strings.Contains(err.Error(), "canonical form") {
		t.Errorf("%d bytes are taken, %v", len(canonical), err)
	}
}

// A sub-run whose outputs have rotted fails its step; the parent does not hang.
func TestASubRunWhoseOutputsCannotBeReadFailsItsStep(t *testing.T) {
	w := newWorld(t, says)
	w.child(func(d *manifests.DAG) { d.Outputs = map[string]any{"z": int64(41)} }, "c")
	d := parent(func(d *manifests.DAG) { d.Steps[0].Locks = []string{"l"} }, "sub", "b<sub")
	w.sealed.rotten = runner.Hash([]byte(`{"z":41}`))
	run := w.start(d, "{}")
	got, steps := w.finish(run.RunID)
	if got.Status != state.Failed || got.FailureReason != string(state.CodeInfra) || !strings.Contains(steps["sub"], "outputs of run") {
		t.Errorf("the run is %s %s: %v", got.Status, got.FailureReason, steps)
	}
	if held, err := w.db.Locks(""); err != nil || len(held) != 0 {
		t.Errorf("held in the end: %+v, %v", held, err)
	}
}
