package ledger_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
)

func envelope() ledger.Envelope {
	return ledger.Envelope{Actor: "uid:0(root)", Seq: 7, Time: "2026-11-22T08:21:00.000000000Z", Type: ledger.RunResumed}
}

func TestSeal(t *testing.T) {
	entry, err := ledger.Seal(envelope(), &ledger.Note{Reason: "<&>\u2028"}, [32]byte{0xab, 31: 0x01})
	if err != nil {
		t.Fatal(err)
	}
	salt := "ab" + strings.Repeat("0", 60) + "01"
	if want := "{\"data\":{\"reason\":\"<&>\u2028\"},\"salt\":\"" + salt + "\",\"seq\":7}"; string(entry.Data) != want {
		t.Errorf("data line %s\nwant      %s", entry.Data, want)
	}
	want := `{"actor":"uid:0(root)","dataHash":"` + digest(string(entry.Data)) +
		`","seq":7,"tenant":"","time":"2026-11-22T08:21:00.000000000Z","type":"run.resumed","v":1}`
	if string(entry.Envelope) != want {
		t.Errorf("envelope %s\nwant     %s", entry.Envelope, want)
	}
	for _, line := range [][]byte{entry.Data, entry.Envelope} {
		if err := jcs.Check(line); err != nil || bytes.ContainsRune(line, '\n') {
			t.Errorf("%s: %v; want canonical JSON without a line feed", line, err)
		}
	}
}

// What a Sealer has had before shows in nothing that it makes.
func TestASealerIsSealAgainAndAgain(t *testing.T) {
	var s ledger.Sealer
	rapid.Check(t, func(t *rapid.T) {
		e := envelope()
		e.Actor = rapid.String().Draw(t, "actor")
		note := &ledger.Note{Reason: strings.Repeat("r", rapid.SampledFrom([]int{0, 1, 1000, ledger.MaxData}).Draw(t, "length"))}
		want, wantErr := ledger.Seal(e, note, [32]byte{1})
		got, err := s.Seal(e, note, [32]byte{1})
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (wantErr == nil) {
			t.Errorf("error %v, want %v, %s", err, wantErr, diff)
		}
	})
}

func TestSealRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*ledger.Envelope)
		data any
		want error // nil: any
	}{
		{"an unknown type", func(e *ledger.Envelope) { e.Type = "run.exploded" }, nil, ledger.ErrUnknownType},
		{"no type", func(e *ledger.Envelope) { e.Type = "" }, nil, ledger.ErrUnknownType},
		{"another version", func(e *ledger.Envelope) { e.V = 2 }, nil, ledger.ErrUnknownType},
		{"a negative version", func(e *ledger.Envelope) { e.V = -1 }, nil, ledger.ErrUnknownType},
		{"no actor", func(e *ledger.Envelope) { e.Actor = "" }, nil, nil},
		{"a negative seq", func(e *ledger.Envelope) { e.Seq = -1 }, nil, nil},
		{"a seq beyond JSON", func(e *ledger.Envelope) { e.Seq = 1<<53 - 1 }, nil, nil},
		{"a negative attempt", func(e *ledger.Envelope) { e.Attempt = -1 }, nil, nil},
		{"a time in another form", func(e *ledger.Envelope) { e.Time = "2026-11-22T08:21:00Z" }, nil, nil},
		{"invalid UTF-8 in the envelope", func(e *ledger.Envelope) { e.StepID = "\xff" }, nil, nil},
		{"a long envelope", func(e *ledger.Envelope) { e.DAGID = strings.Repeat("x", ledger.MaxEnvelope) }, nil, ledger.ErrTooLarge},
		{"data of another type", nil, ledger.RunEnd{}, nil},
		{"data of no type", nil, "text", nil},
		{"a nil pointer", nil, (*ledger.Note)(nil), nil},
		{"a pointer to a pointer", nil, new(*ledger.Note), nil},
		{"no data where some is needed", func(e *ledger.Envelope) { e.Type = ledger.RunStarted }, nil, nil},
		{"invalid UTF-8 in the data", nil, ledger.Note{Reason: "a\xff"}, nil},
		{"long data", nil, ledger.Note{Reason: strings.Repeat("x", ledger.MaxData)}, ledger.ErrTooLarge},
	} {
		e := envelope()
		if tc.edit != nil {
			tc.edit(&e)
		}
		entry, err := ledger.Seal(e, tc.data, [32]byte{})
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) || entry.Data != nil || entry.Envelope != nil {
			t.Errorf("%s: Seal = %s, %v; want %v", tc.name, entry.Envelope, err, tc.want)
		}
	}
}

func TestLimitsAreInclusive(t *testing.T) {
	empty, err := ledger.Seal(envelope(), ledger.Note{Reason: "x"}, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	room := 1 + ledger.MaxData - len(empty.Data)
	full, err := ledger.Seal(envelope(), ledger.Note{Reason: strings.Repeat("x", room)}, [32]byte{})
	if err != nil || len(full.Data) != ledger.MaxData {
		t.Fatalf("Seal = %d bytes of data, %v; want the limit", len(full.Data), err)
	}
	if _, err := ledger.ParseData(full.Data); err != nil {
		t.Errorf("ParseData of %d bytes = %v", len(full.Data), err)
	}
	if _, err := ledger.Seal(envelope(), ledger.Note{Reason: strings.Repeat("x", room+1)}, [32]byte{}); !errors.Is(err, ledger.ErrTooLarge) {
		t.Errorf("Seal of one byte more = %v, want ErrTooLarge", err)
	}
	e := envelope()
	e.Tenant = strings.Repeat("x", ledger.MaxEnvelope-len(empty.Envelope))
	if entry, err := ledger.Seal(e, nil, [32]byte{}); err != nil || len(entry.Envelope) != ledger.MaxEnvelope {
		t.Errorf("Seal = %d bytes of envelope, %v; want the limit", len(entry.Envelope), err)
	} else if _, err := ledger.ParseEnvelope(entry.Envelope); err != nil {
		t.Errorf("ParseEnvelope of %d bytes = %v", len(entry.Envelope), err)
	}
}

func TestParseEnvelopeRefuses(t *testing.T) {
	entry, err := ledger.Seal(envelope(), nil, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	good := string(entry.Envelope)
	e, err := ledger.ParseEnvelope(entry.Envelope)
	if err != nil || e.Type != ledger.RunResumed || e.Seq != 7 || e.V != 1 {
		t.Fatalf("ParseEnvelope(%s) = %+v, %v", good, e, err)
	}
	for _, tc := range []struct{ name, line string }{
		{"nothing", ""},
		{"a line feed at the end", good + "\n"},
		{"white space", change(t, good, `,"seq"`, `, "seq"`)},
		{"an unknown field", change(t, good, `,"v":1`, `,"v":1,"w":1`)},
		{"another case", change(t, good, `"actor"`, `"Actor"`)},
		{"a duplicate", change(t, good, `"seq":7`, `"seq":7,"seq":7`)},
		{"no tenant", change(t, good, `"tenant":"",`, ``)},
		{"an empty field that should be absent", change(t, good, `"seq":7`, `"runId":"","seq":7`)},
		{"null", "null"},
		{"a null field", change(t, good, `"tenant":""`, `"tenant":null`)},
		{"seq -1", change(t, good, `"seq":7`, `"seq":-1`)},
		{"seq -0", change(t, good, `"seq":7`, `"seq":-0`)},
		{"seq 07", change(t, good, `"seq":7`, `"seq":07`)},
		{"seq 7.0", change(t, good, `"seq":7`, `"seq":7.0`)},
		{"seq 2^53", change(t, good, `"seq":7`, `"seq":9007199254740992`)},
		{"seq 2^53-1", change(t, good, `"seq":7`, `"seq":9007199254740991`)},
		{"version 0", change(t, good, `"v":1`, `"v":0`)},
		{"no version", change(t, good, `,"v":1`, ``)},
		{"no type", change(t, good, `run.resumed`, ``)},
		{"no actor", change(t, good, `uid:0(root)`, ``)},
		{"a negative attempt", change(t, good, `"dataHash"`, `"attempt":-1,"dataHash"`)},
		{"attempt 0", change(t, good, `"dataHash"`, `"attempt":0,"dataHash"`)},
		{"a time without fractions", change(t, good, `08:21:00.000000000Z`, `08:21:00Z`)},
		{"a time of another zone", change(t, good, `000Z`, `000+00:00`)},
		{"no such day", change(t, good, `11-22`, `11-31`)},
		{"a short digest", change(t, good, `"dataHash":"`+e.DataHash[:2], `"dataHash":"`)},
		{"an upper-case digest", change(t, good, e.DataHash, strings.Repeat("A", 64))},
		{"a needless escape", change(t, good, `uid`, `\u0075id`)},
		{"invalid UTF-8", change(t, good, `uid`, "\xff")},
		{"a lone surrogate", change(t, good, `uid`, `\ud800`)},
		{"too long", change(t, good, `uid`, strings.Repeat("u", ledger.MaxEnvelope))},
		{"an array", "[" + good + "]"},
		{"another bracket", change(t, good, `{"actor"`, `["actor"`)},
	} {
		e, err := ledger.ParseEnvelope([]byte(tc.line))
		var form *ledger.FormError
		if !errors.As(err, &form) || form.What != "envelope" || e != (ledger.Envelope{}) {
			t.Errorf("%s: ParseEnvelope(%.300q) = %v; want a FormError", tc.name, tc.line, err)
		}
	}
	// Types and versions of a newer stella can be read, and are told apart.
	newer := change(t, change(t, good, `"v":1`, `"v":9`), `run.resumed`, `run.exploded`)
	e, err = ledger.ParseEnvelope([]byte(newer))
	if err != nil || e.V != 9 || ledger.Known(e.Type) {
		t.Errorf("ParseEnvelope(%s) = %+v, %v; want an unknown type", newer, e, err)
	}
}

func TestParseDataRefuses(t *testing.T) {
	entry, err := ledger.Seal(envelope(), ledger.Note{Reason: "r"}, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	good := string(entry.Data)
	salt := "01" + strings.Repeat("0", 62)
	d, err := ledger.ParseData(entry.Data)
	if err != nil || string(d.Data) != `{"reason":"r"}` || d.Salt != salt || d.Seq != 7 {
		t.Fatalf("ParseData(%s) = %+v, %v", good, d, err)
	}
	for _, tc := range []struct{ name, line string }{
		{"nothing", ""},
		{"withheld data", `{"seq":7,"withheld":"gdpr"}`},
		{"a line feed at the end", good + "\n"},
		{"white space", change(t, good, `,"seq"`, `, "seq"`)},
		{"white space in the data", change(t, good, `{"reason"`, `{ "reason"`)},
		{"another order", change(t, change(t, good, `"seq":7`, `"salt":"`+salt+`"`), `"salt":"`+salt+`"`, `"seq":7`)},
		{"an unknown field", change(t, good, `"seq":7`, `"seq":7,"x":1`)},
		{"another case", change(t, good, `"data"`, `"Data"`)},
		{"both cases", change(t, good, `{"data"`, `{"Data":{},"data"`)},
		{"a duplicate in the data", change(t, good, `{"reason"`, `{"reason":"q","reason"`)},
		{"no data", change(t, good, `"data":{"reason":"r"},`, ``)},
		{"no salt", change(t, good, `"salt":"`+salt+`",`, ``)},
		{"null data", change(t, good, `{"reason":"r"}`, `null`)},
		{"an array as data", change(t, good, `{"reason":"r"}`, `[]`)},
		{"a string as data", change(t, good, `{"reason":"r"}`, `"r"`)},
		{"a short salt", change(t, good, salt, salt[2:])},
		{"an upper-case salt", change(t, good, salt, strings.Repeat("A", 64))},
		{"a salt of other characters", change(t, good, salt, strings.Repeat("g", 64))},
		{"an escaped salt", change(t, good, salt, `\u0030`+salt[1:])},
		{"a quote in the salt", change(t, good, salt, `\"`+salt[1:])},
		{"seq -1", change(t, good, `"seq":7`, `"seq":-1`)},
		{"seq 7e0", change(t, good, `"seq":7`, `"seq":7e0`)},
		{"seq as a string", change(t, good, `"seq":7`, `"seq":"7"`)},
		{"seq 2^53-1", change(t, good, `"seq":7`, `"seq":9007199254740991`)},
		{"invalid UTF-8", change(t, good, `"r"`, "\"\xff\"")},
		{"too long", change(t, good, `"r"`, `"`+strings.Repeat("r", ledger.MaxData)+`"`)},
	} {
		d, err := ledger.ParseData([]byte(tc.line))
		var form *ledger.FormError
		if !errors.As(err, &form) || form.What != "data line" || d.Data != nil {
			t.Errorf("%s: ParseData(%.300q) = %v; want a FormError", tc.name, tc.line, err)
		}
	}
}

// TestDataMayHoldTheLinesOwnKeys has data that looks like the end of its line.
func TestDataMayHoldTheLinesOwnKeys(t *testing.T) {
	e := envelope()
	e.Type = ledger.RunStarted
	want := &ledger.RunStart{Metadata: map[string]string{"a": "", "salt": digest("x"), "seq": "8", "data": `,"salt":"`}}
	entry, err := ledger.Seal(e, want, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.Clone(entry.Data)
	d, err := ledger.ParseData(line)
	if err != nil || d.Seq != 7 || d.Salt != "01"+strings.Repeat("0", 62) {
		t.Fatalf("ParseData(%s) = %+v, %v", line, d, err)
	}
	clear(line) // the result must not depend on the caller's buffer
	got, err := ledger.DecodeData(ledger.RunStarted, d.Data)
	if diff := cmp.Diff(any(want), got); err != nil || diff != "" {
		t.Errorf("DecodeData = %v (-want +got):\n%s", err, diff)
	}
}

func TestMatch(t *testing.T) {
	seal := func(seq int64, reason string) (ledger.Envelope, []byte) {
		e := envelope()
		e.Seq = seq
		entry, err := ledger.Seal(e, ledger.Note{Reason: reason}, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		if e, err = ledger.ParseEnvelope(entry.Envelope); err != nil {
			t.Fatal(err)
		}
		return e, entry.Data
	}
	env, data := seal(7, "a")
	if _, err := ledger.Match(env, data); err != nil {
		t.Errorf("Match = %v", err)
	}
	_, other := seal(7, "b")
	for _, line := range [][]byte{other, append(bytes.Clone(data), '\n'), nil} {
		if _, err := ledger.Match(env, line); !errors.Is(err, ledger.ErrMismatch) {
			t.Errorf("Match(%q) = %v, want ErrMismatch", line, err)
		}
	}
	// A digest of a line of another seq, and of what is no data line.
	_, eight := seal(8, "a")
	for _, line := range [][]byte{eight, []byte(`{"seq":7,"withheld":"x"}`)} {
		forged := env
		forged.DataHash = digest(string(line))
		if _, err := ledger.Match(forged, line); !errors.Is(err, ledger.ErrMismatch) {
			t.Errorf("Match(%s) = %v, want ErrMismatch", line, err)
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	for _, e := range sample(f) {
		f.Add(e.Envelope)
		f.Add(e.Data)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if e, err := ledger.ParseEnvelope(line); err == nil {
			again, err := jcs.Marshal(e)
			if err != nil || !bytes.Equal(again, line) {
				t.Errorf("envelope %q re-encodes to %q, %v", line, again, err)
			}
		}
		if d, err := ledger.ParseData(line); err == nil {
			again, err := jcs.Marshal(d)
			if err != nil || !bytes.Equal(again, line) {
				t.Errorf("data line %q re-encodes to %q, %v", line, again, err)
			}
			for _, info := range ledger.Types() {
				data, err := ledger.DecodeData(info.Type, d.Data)
				if err != nil {
					continue
				}
				if again, err := jcs.Marshal(data); err != nil || !bytes.Equal(again, d.Data) {
					t.Errorf("data of %s %q re-encodes to %q, %v", info.Type, d.Data, again, err)
				}
			}
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	entries := sample(b)
	line, err := ledger.ParseData(entries[2].Data)
	if err != nil {
		b.Fatal(err)
	}
	data, err := ledger.DecodeData(ledger.AttemptStarted, line.Data)
	if err != nil {
		b.Fatal(err)
	}
	env, err := ledger.ParseEnvelope(entries[2].Envelope)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Seal and StoredHashes", func(b *testing.B) {
		var h hashes
		b.ReportAllocs()
		for b.Loop() {
			e, err := ledger.Seal(env, data, [32]byte{1})
			if err != nil {
				b.Fatal(err)
			}
			more, err := ledger.StoredHashes(env.Seq, e.Envelope, ledger.HashReaderFunc(func(at []int64) ([]ledger.Hash, error) {
				return make([]ledger.Hash, len(at)), nil
			}))
			if err != nil {
				b.Fatal(err)
			}
			if h = append(h, more...); len(h) > 1000 {
				h = h[:0]
			}
			env.Seq++
		}
	})
	b.Run("Verifier", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v, err := ledger.NewVerifier(ledger.VerifierOptions{})
			if err != nil {
				b.Fatal(err)
			}
			for _, e := range entries {
				if _, _, err := v.Add(e.Envelope, e.Data); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(entries)), "ns/entry")
	})
}

// The envelope line is written by hand; encoding/json and package jcs say what
// it must be.
func TestEnvelopeLineIsTheCanonicalEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := func(what string, always bool) string {
			s := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "a\"\\\n\x00\x7f\u2028", "\U0001F600<&>"})).Draw(t, what)
			if s == "" && always {
				return "x"
			}
			return s
		}
		e := ledger.Envelope{
			Actor: text("actor", true), Attempt: rapid.IntRange(0, 3).Draw(t, "attempt"), DAGID: text("dagId", false),
			DAGVersion: text("dagVersion", false), RunID: text("runId", false), Seq: rapid.Int64Range(0, ledger.MaxSize-1).Draw(t, "seq"),
			StepID: text("stepId", false), Tenant: text("tenant", false), Time: "2026-11-22T08:21:00.000000000Z",
			TraceID: text("traceId", false), Type: ledger.RunResumed,
		}
		entry, err := ledger.Seal(e, nil, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		want, err := jcs.Marshal(entry.Head)
		if err != nil || !bytes.Equal(entry.Envelope, want) {
			t.Fatalf("line %s\nwant %s, %v", entry.Envelope, want, err)
		}
		if got, err := ledger.ParseEnvelope(entry.Envelope); err != nil || got != entry.Head {
			t.Fatalf("read back %+v, %v; want %+v", got, err, entry.Head)
		}
	})
}

func BenchmarkParseEnvelope(b *testing.B) {
	line := sample(b)[2].Envelope
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ledger.ParseEnvelope(line); err != nil {
			b.Fatal(err)
		}
	}
}
