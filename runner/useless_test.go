package runner_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// What an expression is known to give must have a place where it stands: otherwise its
// step would fail after what comes before is done.
func TestWhatHasNoPlaceWhereItStands(t *testing.T) {
	const only = ": only text, numbers and booleans can stand inside text"
	for name, tc := range map[string]struct {
		change func(d *manifests.DAG, text string)
	}{
		"question": {func(d *manifests.DAG, text string) {
			d.Steps[1].Checkpoint = &manifests.Checkpoint{Question: text, Quorum: 1}
		}},
		"with": {func(d *manifests.DAG, text string) {
			d.Steps[1].With = map[string]any{"deep": []any{map[string]any{"x": text}}}
		}},
		"outputs":  {func(d *manifests.DAG, text string) { d.Outputs = map[string]any{"x": text} }},
		"for_each": {func(d *manifests.DAG, text string) { d.Steps[1].ForEach = []any{"a", text} }},
		"cleanup": {func(d *manifests.DAG, text string) {
			d.OnFailure = d.Steps[2:]
			d.Steps = d.Steps[:2]
			d.OnFailure[0].With = map[string]any{"x": text}
		}},
	} {
		for text, want := range map[string]string{
			"go on with ${ [1, 2].map(x, x) }?": "in ${ [1, 2].map(x, x) }: it is of type array" + only,
			`a ${ {"k": inputs.text} }`:         `in ${ {"k": inputs.text} }: it is of type object` + only,
			"a ${ null }":                       "in ${ null }: it is of type null" + only,
			"a ${ inputs.list }":                "in ${ inputs.list }: it is of type array" + only,
			"a ${ inputs.object }":              "in ${ inputs.object }: it is of type object" + only,
			"a ${ inputs.secret }":              "in ${ inputs.secret }: a secret cannot stand inside text, where only its reference would be",
			`a ${ duration("1h") }`:             `in ${ duration("1h") }: a value of type duration has no form in JSON`,
			`${ timestamp(run.createdUtc) }`:    "in ${ timestamp(run.createdUtc) }: a value of type timestamp has no form in JSON",
			`${ b"x" }`:                         `in ${ b"x" }: a value of type bytes has no form in JSON`,
			"${ type(1) }":                      "in ${ type(1) }: a type is no value in JSON",
			"a ${ 1 } ${ 1.5 } ${ true } ${ inputs.text } ${ inputs.n } ${ size([1]) } ${ string(duration('1h')) } ${ run.runId }": "",
			"${ [1, 2].map(x, x) }": "",
			"${ inputs.secret }":    "",
		} {
			t.Run(name+" "+text, func(t *testing.T) {
				d := dag(func(d *manifests.DAG) {
					d.Inputs = map[string]manifests.Input{
						"text": {Type: "string"}, "list": {Type: "array"}, "object": {Type: "object"}, "n": {Type: "number"}, "secret": {Type: "string", Secret: true},
					}
					tc.change(d, text)
				}, "a", "b<a", "c")
				if diff := cmp.Diff(want, faultTexts(runner.Validate(d))); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
}

// One person under two names is one person, as where they decide.
func TestQuorumsOfPeople(t *testing.T) {
	for name, tc := range map[string]struct {
		approvers []string
		quorum    int
		want      string
	}{
		"two people":            {[]string{"uid:0", "uid:1"}, 2, ""},
		"one, and another":      {[]string{"uid:0", "uid:0(root)", "token:t"}, 2, ""},
		"one is enough":         {[]string{"uid:0", "uid:0(root)"}, 1, ""},
		"whoever there is":      {nil, 2, ""},
		"one person":            {[]string{"uid:0", "uid:0(root)"}, 2, "is 2, and the approvers are 1 person: uid:0"},
		"the same, twice":       {[]string{"token:a", "token:a"}, 2, "is 2, and the approvers are 1 person: token:a"},
		"two people in a crowd": {[]string{"uid:0", "uid:1", "uid:0(root)", "uid:1(ann)"}, 3, "is 3, and the approvers are 2 people: uid:0, uid:1"},
	} {
		t.Run(name, func(t *testing.T) {
			d := dag(func(d *manifests.DAG) {
				d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "?", Quorum: tc.quorum, Approvers: tc.approvers}
			}, "a")
			if diff := cmp.Diff(tc.want, faultTexts(runner.Validate(d))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
