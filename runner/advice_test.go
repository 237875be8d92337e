package runner_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

func TestAdvice(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*manifests.DAG)
		want   string
	}{
		"all is used": {func(d *manifests.DAG) {
			d.Steps[0].When = `inputs["in-when"] == "x"`
			d.Steps[0].With = map[string]any{"x": []any{map[string]any{"y": "a ${ inputs.deep } b"}}}
			d.Steps[0].ForEach = "${ inputs.each }"
			d.Outputs = map[string]any{"o": "${ has(inputs.out) }"}
		}, ""},
		"the inputs as a whole": {func(d *manifests.DAG) { d.Steps[0].When = `inputs[run.tenant] == "x"` }, ""},
		"the inputs as a value": {func(d *manifests.DAG) { d.Steps[0].When = `size(inputs) > 3` }, ""},
		"some are not used": {func(d *manifests.DAG) { d.Steps[0].When = `inputs.deep == "inputs.each"` },
			"no expression uses it\nno expression uses it\nno expression uses it"},
		"a field of the same name is none": {func(d *manifests.DAG) {
			d.Inputs = map[string]manifests.Input{"deep": {}}
			d.Steps[1].When = `steps.a.outputs.inputs.deep == 1`
		}, "no expression uses it"},
		"always and never": {func(d *manifests.DAG) {
			d.Inputs = nil
			d.Steps[0].When, d.Steps[1].When = "true || false", "[1].exists(x, x > 1)"
		}, "is always true"},
		"no items": {func(d *manifests.DAG) {
			d.Inputs = nil
			d.Steps[0].ForEach = []any{}
		}, "has no items: nothing runs"},
	} {
		t.Run(name, func(t *testing.T) {
			d := dag(func(d *manifests.DAG) {
				d.Inputs = map[string]manifests.Input{"in-when": {}, "deep": {}, "each": {}, "out": {}}
				tc.change(d)
			}, "a", "b<a")
			if diff := cmp.Diff(tc.want, faultTexts(runner.Advise("f", d))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzCheck: whatever the expressions say, each fault has a text and a place.
func FuzzCheck(f *testing.F) {
	for _, when := range []string{"inputs.a == 'x'", "stps.b[", "[1].exists(x, x > ", "'", "a ? b"} {
		f.Add(when, "${ "+when+" }")
	}
	f.Fuzz(func(t *testing.T, when, with string) {
		d := dag(func(d *manifests.DAG) {
			d.Inputs = map[string]manifests.Input{"a": {Type: "string"}}
			d.Steps[0].When = when
			d.Steps[0].With = map[string]any{"x": with}
		}, "a")
		for _, x := range runner.Validate(d) {
			if x.Text == "" || x.Key == "" {
				t.Errorf("%q, %q: %+v", when, with, x)
			}
		}
		runner.Advise("f", d)
	})
}
