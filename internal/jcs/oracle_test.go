package jcs_test

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	"pgregory.net/rapid"

	"github.com/stellarun/stella/internal/jcs"
)

// agree holds the properties of an accepted value: its canonical form is
// canonical, means the same, and is what the reference implementation says.
func agree(t interface{ Fatalf(string, ...any) }, in, out []byte) {
	again, err := jcs.Canonicalize(out)
	if err != nil || !bytes.Equal(again, out) {
		t.Fatalf("Canonicalize(%q) = %q, and of that %q, %v", in, out, again, err)
	}
	if err := jcs.Check(out); err != nil {
		t.Fatalf("Check(%q) = %v", out, err)
	}
	var before, after any
	if err := json.Unmarshal(in, &before); err != nil {
		t.Fatalf("Canonicalize accepts %q, encoding/json says %v", in, err)
	}
	if err := json.Unmarshal(out, &after); err != nil || !reflect.DeepEqual(before, after) {
		t.Fatalf("Canonicalize(%q) = %q: %v became %v, %v", in, out, before, after, err)
	}
	// The reference takes only objects and arrays at the top.
	wrapped := append(append([]byte{'['}, in...), ']')
	want, err := jsoncanonicalizer.Transform(wrapped)
	if err != nil || string(want) != "["+string(out)+"]" {
		t.Fatalf("Canonicalize(%q) = %q, the reference says %q, %v", in, out, want, err)
	}
}

func FuzzCanonicalize(f *testing.F) {
	for _, seed := range []string{
		`null`, `{"b":[1,-0,1.5e-7,1e3],"a":{"\u0062":"\ud83d\ude00\/\u0007"},"\ufb33":true}`, `"\ud83d"`,
		`{"a":1,"\u0061":2}`, `[9007199254740991,9007199254740992,1e-400]`, "{\"\xf0\x9f\x98\x80\":1,\"\xee\x80\x80\":2}", ` [ "\u2028<" ] `,
		`[[[[[[[[[[]]]]]]]]]]`, `0.000001`, "\"\xff\"", `[4.35,0.1e1,123456.789e-3]`, `{"a":{"c":1,"b":{"e":[],"d":{}}},"A":false}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := jcs.Canonicalize(in)
		if err != nil {
			return
		}
		agree(t, in, out)
		if len(out) > 4*len(in) {
			t.Fatalf("%d bytes became %d", len(in), len(out))
		}
	})
}

// value draws what encoding/json decodes to.
func value(depth int) *rapid.Generator[any] {
	text := rapid.StringOfN(rapid.OneOf(rapid.Rune(), rapid.SampledFrom([]rune{0, '\b', '"', '\\', '/', '<', 0x7f, 0x2028, 0xe000, 0xfb33, 0xfffd, 0xffff, 0x1f600, 0x10ffff})), 0, 6, -1)
	kinds := []*rapid.Generator[any]{
		rapid.Just[any](nil), rapid.Bool().AsAny(), text.AsAny(),
		rapid.Float64Range(-(1<<53 - 1), 1<<53-1).AsAny(),
		rapid.Custom(func(t *rapid.T) float64 { // all exponents alike
			f := math.Float64frombits(rapid.Uint64().Draw(t, "bits"))
			if !(math.Abs(f) < 1<<53) {
				f = 1 / f
			}
			if math.IsNaN(f) {
				f = 0
			}
			return f
		}).AsAny(),
		rapid.Custom(func(t *rapid.T) float64 { return float64(rapid.Int64Range(-(1<<53-1), 1<<53-1).Draw(t, "int")) }).AsAny(),
	}
	if depth > 0 {
		kinds = append(kinds, rapid.SliceOfN(value(depth-1), 0, 5).AsAny(), rapid.MapOfN(text, value(depth-1), 0, 6).AsAny())
	}
	return rapid.OneOf(kinds...)
}

func TestAnyValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := value(4).Draw(t, "value")
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out, err := jcs.Marshal(v)
		if err != nil {
			t.Fatalf("Marshal(%s) = %v", raw, err)
		}
		agree(t, raw, out)
		// Another spelling of the same value: indented, and not escaped for HTML.
		var other bytes.Buffer
		enc := json.NewEncoder(&other)
		enc.SetEscapeHTML(false)
		enc.SetIndent("\t", "  ")
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
		if same, err := jcs.Canonicalize(other.Bytes()); err != nil || !bytes.Equal(same, out) {
			t.Fatalf("two spellings of one value: %q and %q, %v", out, same, err)
		}
	})
}

// line is as large as the line of a ledger entry.
type line struct {
	Actor      string `json:"actor"`
	Attempt    int    `json:"attempt,omitempty"`
	DAGID      string `json:"dagId"`
	DAGVersion string `json:"dagVersion"`
	DataHash   string `json:"dataHash"`
	RunID      string `json:"runId"`
	Seq        int64  `json:"seq"`
	StepID     string `json:"stepId"`
	Tenant     string `json:"tenant"`
	Time       string `json:"time"`
	TraceID    string `json:"traceId"`
	Type       string `json:"type"`
	V          int    `json:"v"`
}

func BenchmarkMarshal(b *testing.B) {
	v := line{
		Actor: "uid:1000(operator)", Attempt: 1, DAGID: "nightly.audit", DAGVersion: "1.4.0",
		DataHash: "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", RunID: "0193a5d4-7f2c-7c3a-9d1e-5b2f4a6c8e01",
		Seq: 123456, StepID: "collect", Tenant: "default", Time: "2026-11-22T08:21:00.123456789Z",
		TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Type: "attempt.started", V: 1,
	}
	b.Run("encoding/json alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := jcs.Marshal(v); err != nil {
				b.Fatal(err)
			}
		}
	})
	raw, err := jcs.Marshal(v)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Check", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			if err := jcs.Check(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("reference", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := jsoncanonicalizer.Transform(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}
