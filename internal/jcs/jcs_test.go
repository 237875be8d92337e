package jcs_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/jcs"
)

func TestCanonicalize(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"literals stand", `[null,true,false]`, `[null,true,false]`},
		{"white space goes", " \t\r\n{ \"a\" : [ 1 , 2 ] , \"b\":{ } , \"c\":[ ] } \n", `{"a":[1,2],"b":{},"c":[]}`},
		{"a bare string is a value", `"x"`, `"x"`},
		{"keys are sorted at each level", `{"b":{"d":1,"c":2},"a":[{"f":1,"e":2}]}`, `{"a":[{"e":2,"f":1}],"b":{"c":2,"d":1}}`},
		{"a shorter key comes first", `{"ab":1,"":2,"a":3}`, `{"":2,"a":3,"ab":1}`},
		{"capitals come first", `{"a":1,"B":2}`, `{"B":2,"a":1}`},
		{"keys are compared unescaped", `{"\"":1,"!":2,"#":3}`, `{"!":2,"\"":1,"#":3}`},
		{"an escaped key is sorted as what it means", `{"c":1,"\u0062":2,"a":3}`, `{"a":3,"b":2,"c":1}`},
		{"keys are compared by UTF-16", "{\"\ufb33\":1,\"\U0001F600\":2,\"\u20ac\":3}", "{\"\u20ac\":3,\"\U0001F600\":2,\"\ufb33\":1}"},
		{"many keys in reverse", `{"z":1,"y":2,"x":3,"w":{"v":1,"u":2},"t":5}`, `{"t":5,"w":{"u":2,"v":1},"x":3,"y":2,"z":1}`},
		{"needless escapes go", `"\u0041\/\u003c\u2028\u20AC\ud83d\ude00"`, "\"A/<\u2028\u20ac\U0001F600\""},
		{"needed escapes are the short ones", `"\u0008\u0009\u000a\u000C\u000d\u0022\u005c"`, `"\b\t\n\f\r\"\\"`},
		{"other controls are lower-case hex", `"\u0000\u001F\u000b"`, `"\u0000\u001f\u000b"`},
		{"delete stands", "\"\x7f\"", "\"\x7f\""},
		{"replacement character stands", "\"\ufffd\\ufffd\"", "\"\ufffd\ufffd\""},
		{"zero", `[0,-0,0.0,-0.0,0e9,-0E-9]`, `[0,0,0,0,0,0]`},
		{"integers", `[1,-1,9007199254740991,-9007199254740991]`, `[1,-1,9007199254740991,-9007199254740991]`},
		{"integers in other forms", `[1.0,10e-1,1e3,1E+3,-2.50e1]`, `[1,1,1000,1000,-25]`},
		{"fractions are the shortest", `[0.1,0.10,1.5e-3,333333333.33333329,0.1000000000000000055511151231257827]`, `[0.1,0.1,0.0015,333333333.3333333,0.1]`},
		{"small numbers", `[0.000001,0.0000001,1.5e-7,1e-10,5e-324,1e-400]`, `[0.000001,1e-7,1.5e-7,1e-10,5e-324,0]`},
		{"depth of 64", strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat("[", 64) + strings.Repeat("]", 64)},
	} {
		got, err := jcs.Canonicalize([]byte(tc.in))
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: Canonicalize(%s) = %s, %v; want %s", tc.name, tc.in, got, err, tc.want)
			continue
		}
		if err := jcs.Check(got); err != nil {
			t.Errorf("%s: Check(%s) = %v", tc.name, got, err)
		}
		if tc.in != tc.want && jcs.Check([]byte(tc.in)) == nil {
			t.Errorf("%s: Check accepts %s", tc.name, tc.in)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		at       int
		problem  string
	}{
		{"nothing", ``, 0, "ends"},
		{"only white space", `  `, 2, "ends"},
		{"a second value", `{} {}`, 3, "after"},
		{"a byte order mark", "\ufeff{}", 0, "no value"},
		{"a trailing NUL", "{}\x00", 2, "after"},
		{"a form feed", "\f1", 0, "no value"},
		{"an unknown word", `nul`, 0, "no value"},
		{"a word with a tail", `nullx`, 4, "after"},
		{"a trailing comma", `[1,]`, 3, "no value"},
		{"no comma", `[1 2]`, 3, "comma"},
		{"an open array", `[1`, 2, "ends"},
		{"an open object", `{"a":1`, 6, "ends"},
		{"a comma before the end", `{"a":1,}`, 7, "no key"},
		{"no colon", `{"a" 1}`, 5, "no colon"},
		{"no value", `{"a":}`, 5, "no value"},
		{"a bare key", `{a:1}`, 1, "no key"},
		{"a duplicate key", `{"a":1,"a":2}`, 7, "duplicate"},
		{"a duplicate key in disguise", `{"b":1,"a":2,"\u0062":3}`, 13, "duplicate"},
		{"a duplicate key within", `[{"x":{"k":1,"j":1,"k":2}}]`, 19, "duplicate"},
		{"a line feed in a string", "\"a\nb\"", 2, "control"},
		{"an open string", `"abc`, 4, "without end"},
		{"an open escape", `"abc\`, 4, "escape"},
		{"an open escape of a character", `"\u00`, 1, "escape"},
		{"an unknown escape", `"\x41"`, 1, "escape"},
		{"a bad digit in an escape", `"\u00g0"`, 1, "escape"},
		{"invalid UTF-8", "\"a\xff\"", 2, "UTF-8"},
		{"invalid UTF-8 after an escape", "\"\\n\xff\"", 3, "UTF-8"},
		{"invalid UTF-8 in a key", "{\"\xc3\":1}", 2, "UTF-8"},
		{"an overlong form", "\"\xc0\x80\"", 1, "UTF-8"},
		{"a raw surrogate", "\"\xed\xa0\x80\"", 1, "UTF-8"},
		{"a lone high surrogate", `"\ud83d"`, 1, "surrogate"},
		{"a lone low surrogate", `"\ude00"`, 1, "surrogate"},
		{"two low surrogates", `"\ude00\ude00"`, 1, "surrogate"},
		{"two high surrogates", `"\ud83d\ud83d"`, 1, "surrogate"},
		{"a high surrogate and another escape", `"\ud83d\n"`, 1, "surrogate"},
		{"a high surrogate and the end", `"\ud83d\`, 1, "surrogate"},
		{"a high surrogate and half an escape", `"\ud83d\ude0"`, 1, "surrogate"},
		{"2^53", `9007199254740992`, 0, "2^53"},
		{"-2^53", `[-9007199254740992]`, 1, "2^53"},
		{"2^53+1", `9007199254740993`, 0, "2^53"},
		{"2^53 with an exponent", `9007199254.740992e6`, 0, "2^53"},
		{"1e16", `1e16`, 0, "2^53"},
		{"a fraction that rounds to 2^53", `9007199254740991.9`, 0, "2^53"},
		{"beyond doubles", `1e999`, 0, "2^53"},
		{"many digits", `-` + strings.Repeat("9", 400), 0, "2^53"},
		{"a leading zero", `01`, 0, "malformed"},
		{"a leading zero of a fraction", `-00.5`, 0, "malformed"},
		{"a lone minus", `-`, 0, "malformed"},
		{"a plus", `+1`, 0, "no value"},
		{"no digit before the point", `.5`, 0, "no value"},
		{"no digit after the point", `1.`, 0, "malformed"},
		{"no digit in the exponent", `1e+`, 0, "malformed"},
		{"a hex number", `0x10`, 1, "after"},
		{"not a number", `NaN`, 0, "no value"},
		{"depth of 65", strings.Repeat("[", 65) + strings.Repeat("]", 65), 64, "deep"},
		{"depth of 65 in objects", strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65), 320, "deep"},
	} {
		out, err := jcs.Canonicalize([]byte(tc.in))
		var e *jcs.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: Canonicalize(%q) = %q, %v; want *jcs.Error", tc.name, tc.in, out, err)
			continue
		}
		if e.Offset != tc.at || !strings.Contains(e.Problem, tc.problem) {
			t.Errorf("%s: Canonicalize(%q) = %v; want %q at byte %d", tc.name, tc.in, err, tc.problem, tc.at)
		}
		if out != nil {
			t.Errorf("%s: Canonicalize(%q) returns %q beside its error", tc.name, tc.in, out)
		}
		if jcs.Check([]byte(tc.in)) == nil {
			t.Errorf("%s: Check accepts %q", tc.name, tc.in)
		}
	}
}

func TestCheckSaysWhere(t *testing.T) {
	var e *jcs.Error
	if err := jcs.Check([]byte(`{"a":1,"b": 2}`)); !errors.As(err, &e) || e.Offset != 11 {
		t.Errorf("Check = %v, want an error at byte 11", err)
	}
	if err := jcs.Check([]byte("1 ")); !errors.As(err, &e) || e.Offset != 1 {
		t.Errorf("Check = %v, want an error at byte 1", err)
	}
}

func TestResultSharesNoMemory(t *testing.T) {
	in := []byte(`{"b":"x","a":"y"}`)
	out, err := jcs.Canonicalize(in)
	if err != nil {
		t.Fatal(err)
	}
	for i := range in {
		in[i] = '?'
	}
	if string(out) != `{"a":"y","b":"x"}` {
		t.Errorf("changing the input changed the result to %s", out)
	}
}

// texty encodes itself as text.
type texty string

func (x texty) MarshalText() ([]byte, error) { return []byte(x), nil }

type embedded struct{ Inner string }

func TestMarshal(t *testing.T) {
	type fields struct {
		Z   string            `json:"z"`
		A   *int              `json:"a,omitempty"`
		M   map[string]string `json:"m"`
		Raw json.RawMessage   `json:"raw"`
	}
	for _, tc := range []struct {
		name string
		v    any
		want string
	}{
		{"fields are sorted", fields{Z: "<&>\u2028", M: map[string]string{"\U0001F600": "1", "\ufb33": "2"}, Raw: json.RawMessage(`{"y": 1.0, "x":"\u0041"}`)},
			"{\"m\":{\"\U0001F600\":\"1\",\"\ufb33\":\"2\"},\"raw\":{\"x\":\"A\",\"y\":1},\"z\":\"<&>\u2028\"}"},
		{"nil is null", nil, `null`},
		{"the largest integer", int64(1<<53 - 1), `9007199254740991`},
		{"a replacement character", "a\ufffdb", "\"a\ufffdb\""},
		{"an escaped replacement character", json.RawMessage(`{"a":"\ufffd"}`), "{\"a\":\"\ufffd\"}"},
		{"an escaped one beside good strings", []any{"x", json.RawMessage(`"\ufffd"`), texty("y"), fields{Raw: json.RawMessage(`1`)}, (*fields)(nil)},
			"[\"x\",\"\ufffd\",\"y\",{\"m\":null,\"raw\":1,\"z\":\"\"},null]"},
		{"text that looks like the escape", `\ufffd`, `"\\ufffd"`},
	} {
		got, err := jcs.Marshal(tc.v)
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: Marshal = %s, %v; want %s", tc.name, got, err, tc.want)
		}
	}
}

func TestMarshalRefuses(t *testing.T) {
	bad := "a\xffb"
	for _, tc := range []struct {
		name string
		v    any
	}{
		{"a string", bad},
		{"a field behind a pointer", &struct{ A any }{&bad}},
		{"an element", []any{1, "x", [1]string{bad}}},
		{"a value of a map", map[string]any{"a": map[string]string{"b": bad}}},
		{"a key of a map", map[string]int{bad: 1}},
		{"text of a method", []texty{texty(bad)}},
		{"a field of an embedded struct", struct{ embedded }{embedded{bad}}},
		{"raw bytes", json.RawMessage("\"\xff\"")},
		{"2^53", int64(1 << 53)},
		{"an unsigned integer", uint64(math.MaxUint64)},
		{"a large float", 1e300},
		{"a duplicate key", json.RawMessage(`{"a":1,"a":1}`)},
	} {
		out, err := jcs.Marshal(tc.v)
		var e *jcs.Error
		if !errors.As(err, &e) || out != nil {
			t.Errorf("%s: Marshal = %q, %v; want *jcs.Error", tc.name, out, err)
		}
	}
	for _, v := range []any{math.NaN(), math.Inf(1), make(chan int), func() {}} {
		if out, err := jcs.Marshal(v); err == nil {
			t.Errorf("Marshal(%T) = %s, want an error", v, out)
		}
	}
}
