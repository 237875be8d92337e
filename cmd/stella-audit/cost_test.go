package main

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/jcs"
)

// nested is text that stands in so many lists.
func nested(depth int, text string) string {
	return strings.Repeat("[", depth) + text + strings.Repeat("]", depth)
}

// JSON has one form, which is demanded before anything is made of it.
func TestJSONHasOneForm(t *testing.T) {
	for name, c := range map[string]struct{ raw, says string }{
		"an object":                   {`{"":{},"a":[],"b":[{"c":"\"\\"},1,-1.5,1e-7,true,null,""],"é":"\u0001\n<>&` + "\u2028" + `"}`, "ok"},
		"in the order of UTF-16":      {`{"` + "\U0001F600" + `":1,"` + "\uFB33" + `":2}`, "ok"},
		"64 deep":                     {`{"a":` + nested(63, `"x"`) + `}`, "ok"},
		"64 deep, and braces in text": {`{"a":` + nested(63, `"\"[[[{{{"`) + `}`, "ok"},
		"65 deep":                     {`{"a":` + nested(64, `"x"`) + `}`, "64 deep"},
		"65 deep, without a value":    {`{"a":` + nested(64, "") + `}`, "64 deep"},
		"not in the order of UTF-16":  {`{"` + "\uFB33" + `":1,"` + "\U0001F600" + `":2}`, "form"},
		"another order":               {`{"b":1,"a":2}`, "form"},
		"another order, deep":         {`{"a":[{"b":1,"a":2}]}`, "form"},
		"a name twice":                {`{"a":1,"a":2}`, "form"},
		"an empty name twice":         {`{"":1,"":2}`, "form"},
		"white space":                 {`{"a": 1}`, "form"},
		"white space, deep":           {`{"a":[1 ]}`, "form"},
		"a line feed":                 {"{\"a\":1}\n", "end"},
		"another escape":              {`{"a":"\u0041"}`, "form"},
		"an escaped slash":            {`{"a":"\/"}`, "form"},
		"an escaped name":             {`{"\u0061":1}`, "form"},
		"a lone surrogate":            {`{"a":"\ud800"}`, "form"},
		"not UTF-8":                   {"{\"a\":\"\xff\"}", "no JSON"},
		"a large number":              {`{"a":9007199254740992}`, "form"},
		"a huge number":               {`{"a":1e999}`, ""},
		"minus zero":                  {`{"a":-0}`, "form"},
		"another number":              {`{"a":1.0}`, "form"},
		"another exponent":            {`{"a":1E3}`, "form"},
		"two values":                  {`{}{}`, ""},
		"cut short":                   {`{"a":"`, ""},
		"no object":                   {`[]`, ""},
		"nothing":                     {``, ""},
	} {
		found := outcome(func() { decode([]byte(c.raw), "") })
		if found.status+found.text != "ok" && c.says == "ok" || found.status == "ok" && c.says != "ok" || c.says != "ok" && !strings.Contains(found.text, c.says) {
			t.Errorf("%s: %s %s, want %q", name, found.status, found.text, c.says)
		}
	}
}

// What is one form for the other judge is one here, whatever is changed in it.
func TestOneFormForBoth(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	good := 0
	for range 30_000 {
		raw := randomJSON(r, 0)
		if i := r.IntN(len(raw)); r.IntN(2) == 0 {
			raw = raw[:i] + []string{"", " ", "\"", "\\", ",", "{", "]", ":", "0", "-", "\n", "\xff"}[r.IntN(12)] + raw[i+r.IntN(2):]
		}
		raw = `{"":` + raw + `}`
		other := jcs.Check([]byte(raw)) == nil
		if found := outcome(func() { decode([]byte(raw), "") }); (found.status == "ok") != other {
			t.Fatalf("%q: %s %s, and the other judge takes it: %t", raw, found.status, found.text, other)
		}
		if other {
			good++
		}
	}
	if good < 3_000 || good > 27_000 {
		t.Errorf("%d of them were good: too few to compare", good)
	}
}

// randomJSON is often in its one form.
func randomJSON(r *rand.Rand, depth int) string {
	text := []string{`""`, `"a"`, `"b"`, `"\\"`, `"\""`, `"\\\""`, "\"\u2028<é\"", `"\u001f"`, `"\u0020"`, "\"\U0001F600\"", "\"\uFB33\""}
	some := []string{}
	switch n := r.IntN(7); {
	case depth > 4 || n < 2:
		return append(text, "0", "1.5", "-1", "1e3", "-0", "1e-7", "1e+21", "null", "true", "9007199254740991", "9007199254740992")[r.IntN(len(text)+11)]
	case n < 4:
		for range r.IntN(4) {
			some = append(some, randomJSON(r, depth+1))
		}
		return "[" + strings.Join(some, ",") + "]"
	}
	for range r.IntN(3) {
		some = append(some, text[r.IntN(len(text))]+":"+randomJSON(r, depth+1))
	}
	return "{" + strings.Join(some, ",") + "}"
}
