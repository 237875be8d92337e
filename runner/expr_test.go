package runner_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// Each name that an expression cannot use is named, once.
func TestNamesInExpressions(t *testing.T) {
	const fields = "runId, dagId, dagVersion, tenant, createdUtc, runToken"
	for name, tc := range map[string]struct {
		when string // of step c, which needs b, which needs a
		want string // "" if it may be used
	}{
		"what there is":        {`inputs.env == "x" && inputs["env"] != run.runId && steps.a.status == steps["b"].status`, ""},
		"all of run":           {`run.runId + run.dagId + run.dagVersion + run.tenant + run.createdUtc + run["runToken"] == ""`, ""},
		"names by computation": {`inputs[inputs.env] == "x"`, ""},
		"fields of a value":    {`steps.a.outputs.inputs.nope == 1`, ""},
		"inside a text":        {`inputs.env == "inputs.nope"`, ""},
		"no such input":        {`inputs.nope == 1`, `character 1: there is no input "nope"`},
		"no such input, twice": {`inputs["nope"] == 1 || inputs.nope == 2`, `character 1: there is no input "nope"`},
		"has":                  {`has(inputs.nope)`, `character 5: there is no input "nope"`},
		"a leading dot":        {`.inputs.nope == 1`, `character 2: there is no input "nope"`},
		"inside a macro":       {`[1].exists(x, x == inputs.nope)`, `character 20: there is no input "nope"`},
		"no such step":         {`steps["nope"].status == "completed"`, `character 1: there is no step "nope"`},
		"a step not needed":    {`steps.d.status == "completed"`, `character 1: it uses steps["d"], which is not among the steps it needs`},
		"itself":               {`steps.c.status == "completed"`, `character 1: it uses steps["c"], which is not among the steps it needs`},
		"no such field of run": {`run.id == run["user"]`, `character 1: run has no field "id"; it has ` + fields + "\n" + `character 11: run has no field "user"; it has ` + fields},
		"another meaning":      {`[{"nope": 1}].exists(inputs, inputs.nope == 1)`, `"inputs" cannot be the name of a variable here`},
	} {
		t.Run(name, func(t *testing.T) {
			d := dag(func(d *manifests.DAG) {
				d.Inputs = map[string]manifests.Input{"env": {Type: "string"}}
				d.Steps[2].When = tc.when
			}, "a", "b<a", "c<b", "d")
			if diff := cmp.Diff(tc.want, faultTexts(runner.Validate(d))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.when, diff)
			}
		})
	}
}

func TestNamesInOutputs(t *testing.T) {
	d := dag(func(d *manifests.DAG) {
		d.OnFailure, d.Steps = d.Steps[1:], d.Steps[:1]
		d.Outputs = map[string]any{"x": "${ steps.a.status }${ steps.b.status }${ steps.nope.status }${ inputs.nope }"}
	}, "a", "b")
	want := `in ${ steps.b.status }, character 1: it uses steps["b"], which is not one of [[step]]` + "\n" +
		`in ${ steps.nope.status }, character 1: there is no step "nope"` + "\n" + `in ${ inputs.nope }, character 1: there is no input "nope"`
	if diff := cmp.Diff(want, faultTexts(runner.Validate(d))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func faultTexts(faults manifests.Faults) string {
	texts := make([]string, len(faults))
	for i, f := range faults {
		texts[i] = f.Text
	}
	return strings.Join(texts, "\n")
}
