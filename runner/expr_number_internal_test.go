package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"cel.dev/cel-go/cel"
	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/manifests"
)

// numberScope is what expressions see of one number, given as JSON: as an input of type
// number, and as an output, whose type nobody declares.
func numberScope(t *testing.T, n string) Scope {
	t.Helper()
	canonical, _, err := CanonicalInputs(json.RawMessage(`{"n":` + n + `}`))
	if err != nil {
		t.Fatal(err)
	}
	d := &manifests.DAG{Inputs: map[string]manifests.Input{"n": {Type: "number"}, "i": {Type: "integer", Default: int64(7)}}}
	inputs, faults := resolveInputs(d, canonical)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	outputs, err := decodeJSON(canonical)
	if err != nil {
		t.Fatal(err)
	}
	return Scope{Inputs: inputs, Steps: map[string]any{"a": map[string]any{"outputs": outputs}}}
}

// Whatever number n is, an expression that works with one works with the others.
func TestTheValueOfANumberNeverDecidesWhetherAnExpressionWorks(t *testing.T) {
	for _, form := range []string{
		"%s * 1.5 > 2.0", "1.5 * %s > 2", "%s + 0.5 < 100.5", "%s - 0.5 >= 0", "0.5 - %s <= 1.0", "%s / 0.5 != 3.0", "%s / 3 > 0",
		"%s %% 2 == 0", "%s %% 2.5 == 0.0", "%s + 1 > 2", "1 + %s > 2.5", "-%s < 0", "%s == 2", "%s == 2.0", "%s in [1, 2]", "%s in [1.0, 2.0]",
		"%s > inputs.n * 2.0", "%s + steps.a.outputs.n == 4.0", "%s * inputs.i > 1.5", `string(%s) == "2"`, "double(%s) == 2.0", "int(%s) == 2",
		"[%s, 1.5].exists(x, x * 2.0 == 3.0)", "%s > 1 ? %s * 2 > 1.5 : %s * 1.5 > 1.0",
	} {
		for _, where := range []string{"inputs.n", "steps.a.outputs.n"} {
			text := strings.ReplaceAll(strings.ReplaceAll(form, "%s", where), "%%", "%")
			x, err := compileExpr(text)
			if err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			for _, n := range []string{"2", "2.0", "2.5", "1e3", "-0.0", "0", "-7", "0.1", "1e-7", "9007199254740991"} {
				if v, err := x.eval(context.Background(), numberScope(t, n)); err != nil {
					t.Errorf("%s with n = %s: %v", text, n, err)
				} else if _, ok := v.(bool); !ok {
					t.Errorf("%s with n = %s: %T", text, n, v)
				}
			}
		}
	}
}

// What arithmetic gives, in the form in which it is hashed and put into text.
func TestArithmetic(t *testing.T) {
	for _, tc := range []struct{ text, n, want, inText string }{
		{"inputs.n * 1.5", "2", "3", "3"},
		{"inputs.n", "2.0", "2", "2"},
		{"inputs.n", "-0.0", "0", "0"},
		{"-inputs.n", "0", "0", "0"},
		{"inputs.n", "1e6", "1000000", "1000000"},
		{"string(inputs.n)", "1e6", `"1000000"`, "1000000"},
		{"string(inputs.n)", "1234567.5", `"1234567.5"`, "1234567.5"},
		{"string(steps.a.outputs.n)", "1e6", `"1000000"`, "1000000"},
		{"string(-inputs.n)", "0", `"0"`, "0"},
		{"inputs.n / 2", "5", "2.5", "2.5"},            // a number is no integer
		{"inputs.n / 2", "4", "2", "2"},                //
		{"inputs.i / 2", "5", "3", "3"},                // 7 / 2 of integers
		{"steps.a.outputs.n / 2", "5", "2", "2"},       // nobody has said that it is a number
		{"steps.a.outputs.n / 2.0", "5", "2.5", "2.5"}, //
		{"steps.a.outputs.n / inputs.n", "5", "1", "1"},
		{"7 / 2", "0", "3", "3"},
		{"inputs.n % 3", "-7", "-1", "-1"},
		{"-7 % 3", "0", "-1", "-1"},
		{"inputs.n % 2", "2.5", "0.5", "0.5"},
		{"[10, 20, 30][inputs.n]", "2", "30", "30"},
		{`{1: "one", 2: "two"}[inputs.n]`, "2", `"two"`, "two"},
		{"string(timestamp(inputs.n))", "1e9", `"2001-09-09T01:46:40Z"`, "2001-09-09T01:46:40Z"},
		{`"a" + "b"`, "0", `"ab"`, "ab"},
		{"size([1] + [2])", "0", "2", "2"},
		{`string(timestamp("2026-01-01T00:00:00Z") + duration("1h"))`, "0", `"2026-01-01T01:00:00Z"`, "2026-01-01T01:00:00Z"},
		{`string(timestamp("2026-01-01T00:00:00Z") - duration("1h"))`, "0", `"2025-12-31T23:00:00Z"`, "2025-12-31T23:00:00Z"},
		{"7u / 2u + 7u % 2u", "0", "4", "4"},
	} {
		t.Run(tc.text+" with "+tc.n, func(t *testing.T) {
			tmpl, err := compileTemplate(map[string]any{"v": "${ " + tc.text + " }", "text": "${ " + tc.text + " }."})
			if err != nil {
				t.Fatal(err)
			}
			v, err := tmpl.eval(context.Background(), numberScope(t, tc.n))
			if err != nil {
				t.Fatal(err)
			}
			got, err := jcs.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fmt.Sprintf(`{"text":"%s.","v":%s}`, tc.inText, tc.want), string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What is no number, or gives none, fails as it did, whatever the number is.
func TestArithmeticThatCannotWork(t *testing.T) {
	for text, want := range map[string]string{
		`inputs.n + "x" == "2x"`:        "no such overload",
		`inputs.n * dyn(true) == 1`:     "no such overload",
		"inputs.n / 0 > 1":              "division by zero",
		"inputs.n / 0.0 > 1.0":          "division by zero",
		"steps.a.outputs.n / 0.0 > 1.0": "division by zero",
		"steps.a.outputs.n % 0 == 0":    "modulus by zero",
		"inputs.n % (0 * inputs.n) > 1": "modulus by zero",
		"dyn([1]) - inputs.n == 1":      "no such overload",
		"dyn([1]) / inputs.n == 1":      "no such overload",
		"dyn([1]) % inputs.n == 1":      "no such overload",
		`dyn("a") * inputs.n == 1`:      "no such overload",
		"dyn(true) + inputs.n == 1":     "no such overload",
	} {
		x, err := compileExpr(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, n := range []string{"2", "2.5"} {
			if v, err := x.eval(context.Background(), numberScope(t, n)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s with %s = %v, %v; want an error with %q", text, n, v, err, want)
			}
		}
	}
}

// What the checker knows to be wrong, it says, with what helps.
func TestTypesOfNumbersThatAreKnown(t *testing.T) {
	for text, want := range map[string]string{
		"1.5 * 2 > 1.0":               "character 5: * does not take (double, int) (convert one of them: double(x), int(x))",
		`"total: " + (inputs.n * 2)`:  "character 11: + does not take (string, int) (make text of it: string(x))",
		"inputs.n * 2 ? true : false": "character 14: ?_: does not take (int, bool, bool)",
	} {
		if _, err := compileExpr(text); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	if x, err := compileExpr("inputs.n * 2"); err != nil || x.kind != cel.IntKind {
		t.Errorf("inputs.n * 2 is of kind %v, %v", x.kind, err)
	}
}

func TestDeclaredNumbers(t *testing.T) {
	d := &manifests.DAG{Inputs: map[string]manifests.Input{
		"number": {Type: "number", Default: int64(2)}, "integer": {Type: "integer", Default: int64(2)},
		"some": {Type: "number", Enum: []any{0.5, 1.0, int64(2)}}, "lists": {Type: "array", Enum: []any{[]any{1.0, int64(2)}}},
	}}
	got, faults := resolveInputs(d, []byte(`{"lists":[1,2],"some":1}`))
	want := map[string]any{"number": 2.0, "integer": int64(2), "some": 1.0, "lists": []any{int64(1), int64(2)}}
	if diff := cmp.Diff(want, got); diff != "" || len(faults) > 0 {
		t.Errorf("%v (-want +got):\n%s", faults, diff)
	}
}
