package telemetry_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/telemetry"
)

var at = time.Date(2026, 11, 22, 9, 0, 0, 1, time.FixedZone("east", 3600))

func segment(t interface{ Fatalf(string, ...any) }, maxBytes int64, lines ...string) ([]byte, ledger.LogRef) {
	var out bytes.Buffer
	s := telemetry.NewSegment(&out, maxBytes)
	for _, l := range lines {
		if err := s.Line("stdout", at, []byte(l)); err != nil {
			t.Fatalf("Line: %v", err)
		}
	}
	ref, err := s.Close()
	if err != nil {
		t.Fatalf("Close: %v", err)
	}
	return out.Bytes(), ref
}

func readAll(raw []byte, ref ledger.LogRef) (out []telemetry.Record, err error) {
	for r, err := range telemetry.ReadSegment(bytes.NewReader(raw), ref) {
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

func TestSegmentIsTheDocumentedForm(t *testing.T) {
	raw, ref := segment(t, 1<<20, "hello", "a\xffb\xc3\x28", "")
	want := `{"seq":0,"stream":"stdout","text":"hello","time":"2026-11-22T08:00:00.000000001Z"}
{"seq":1,"stream":"stdout","text":"a` + "\uFFFD" + `b` + "\uFFFD" + `(","time":"2026-11-22T08:00:00.000000001Z"}
{"seq":2,"stream":"stdout","text":"","time":"2026-11-22T08:00:00.000000001Z"}
`
	if diff := cmp.Diff(want, string(raw)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if ref.Records != 3 || ref.Bytes != int64(len(raw)) || ref.Dropped != 0 {
		t.Errorf("ref = %+v", ref)
	}
}

func TestSegmentGivesBackWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.SliceOf(rapid.Byte()).Draw(t, "line")
		long := bytes.Repeat([]byte("é"), rapid.SampledFrom([]int{0, 1, telemetry.MaxText/2 + 1, telemetry.MaxText + 3}).Draw(t, "long"))
		raw, ref := segment(t, 1<<30, string(line), string(line)+string(long))
		got, err := readAll(raw, ref)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, r := range got {
			text.WriteString(r.Text)
		}
		want := string([]rune(string(line))) + string([]rune(string(line))) + string(long)
		if text.String() != want {
			t.Fatalf("got %q, want %q", text.String(), want)
		}
		if ref, err := telemetry.Intact(bytes.NewReader(raw)); err != nil || ref.Bytes != int64(len(raw)) {
			t.Fatalf("Intact = %+v, %v; want all %d bytes", ref, err, len(raw))
		}
	})
}

func TestSegmentKeepsAPrefixAndCountsTheRest(t *testing.T) {
	whole, _ := segment(t, 1<<20, "first", "second", "third")
	at := bytes.IndexByte(whole, '\n') + 1
	for _, tc := range []struct {
		max              int64
		records, dropped int64
	}{{0, 0, 16}, {int64(at) - 1, 0, 16}, {int64(at), 1, 11}, {int64(len(whole)), 3, 0}} {
		raw, ref := segment(t, tc.max, "first", "second", "third")
		if ref.Records != tc.records || ref.Dropped != tc.dropped || !bytes.HasPrefix(whole, raw) {
			t.Errorf("max %d: %d records, %d dropped, want %d and %d", tc.max, ref.Records, ref.Dropped, tc.records, tc.dropped)
		}
	}
	// A later, shorter line that would fit must not fill the hole.
	raw, ref := segment(t, int64(at), strings.Repeat("x", 50), "a")
	if len(raw) != 0 || ref.Dropped != 51 {
		t.Errorf("stored %q, dropped %d; want nothing and 51", raw, ref.Dropped)
	}
}

func TestMaskRunsBeforeAnythingIsStored(t *testing.T) {
	var out bytes.Buffer
	s := telemetry.NewSegment(&out, 1<<20)
	s.Mask = func(line []byte) []byte {
		return bytes.ReplaceAll(line, []byte("hunter2\xff"), []byte("[redacted:pw:0]"))
	}
	if err := s.Line("stderr", at, []byte("password hunter2\xff!")); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Contains(got, "hunter2") || !strings.Contains(got, "password [redacted:pw:0]!") {
		t.Errorf("stored %s", got)
	}
}

func TestSegmentReportsTheFaultOfItsWriter(t *testing.T) {
	full := errors.New("disk full")
	s := telemetry.NewSegment(failing{full}, 1<<20)
	if err := s.Line("stdout", at, []byte("x")); !errors.Is(err, full) {
		t.Errorf("Line = %v, want %v", err, full)
	}
	if err := s.Line("stdout", at, []byte("y")); !errors.Is(err, full) {
		t.Errorf("second Line = %v, want %v: a torn segment must not go on", err, full)
	}
	if _, err := s.Close(); !errors.Is(err, full) {
		t.Errorf("Close = %v, want %v", err, full)
	}
	if err := telemetry.NewSegment(io.Discard, 1).Line("Bad Name", at, nil); err == nil {
		t.Error("a bad stream name was taken")
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestClocksOutOfRangeAreReadable(t *testing.T) {
	for _, when := range []time.Time{{}, time.Unix(0, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		var out bytes.Buffer
		s := telemetry.NewSegment(&out, 1<<20)
		if err := s.Line("stdout", when, []byte("x")); err != nil {
			t.Fatal(err)
		}
		ref, _ := s.Close()
		if _, err := readAll(out.Bytes(), ref); err != nil {
			t.Errorf("%v: %v", when, err)
		}
	}
}

func TestReadSegmentRefusesWhatDiffers(t *testing.T) {
	raw, ref := segment(t, 1<<20, "one", "two", "three")
	lines := bytes.SplitAfter(raw, []byte("\n"))
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	replace := func(old, with string) []byte { return bytes.Replace(raw, []byte(old), []byte(with), 1) }
	for name, in := range map[string][]byte{
		"a line is gone":          join(lines[0], lines[1]),
		"a line is doubled":       join(lines[0], lines[0], lines[1], lines[2]),
		"two lines are swapped":   join(lines[1], lines[0], lines[2]),
		"the text differs":        replace("two", "tow"),
		"a number is skipped":     replace(`"seq":2`, `"seq":3`),
		"white space":             replace(`{"seq"`, `{ "seq"`),
		"keys in another order":   replace(`{"seq":0,"stream":"stdout"`, `{"stream":"stdout","seq":0`),
		"a key too many":          replace(`"seq":0`, `"a":1,"seq":0`),
		"a key too few":           replace(`"stream":"stdout",`, ``),
		"a null":                  replace(`"text":"one"`, `"text":null`),
		"another stream":          replace(`"stdout"`, `"STDOUT"`),
		"a time of another form":  replace(`.000000001Z`, `.00000001Z`),
		"no last line feed":       raw[:len(raw)-1],
		"an empty line":           join(raw[:len(lines[0])], []byte("\n"), lines[1], lines[2]),
		"nothing":                 nil,
		"a line without an end":   bytes.Repeat([]byte("x"), 1<<20),
		"text that is too long":   replace("one", strings.Repeat("x", telemetry.MaxText+1)),
		"bytes that are no UTF-8": replace("one", "o\xffe"),
	} {
		_, err := readAll(in, ref)
		var bad *telemetry.SegmentError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v, want a *SegmentError", name, err)
		}
	}
	for name, lie := range map[string]func(*ledger.LogRef){
		"a record fewer": func(r *ledger.LogRef) { r.Records-- }, "a record more": func(r *ledger.LogRef) { r.Records++ },
		"a byte fewer": func(r *ledger.LogRef) { r.Bytes-- }, "a byte more": func(r *ledger.LogRef) { r.Bytes++ },
	} {
		other := ref
		lie(&other)
		if _, err := readAll(raw, other); err == nil {
			t.Errorf("%s is named: no error", name)
		}
	}
	broken := errors.New("bad sector")
	for _, err := range telemetry.ReadSegment(iotest.ErrReader(broken), ref) {
		if !errors.Is(err, broken) {
			t.Errorf("a fault of the reader came out as %v", err)
		}
	}
}

// A reader who follows sees a file that grows between two looks.
func TestAGrowingSegmentIsReadAsFarAsItWasIntact(t *testing.T) {
	raw, _ := segment(t, 1<<20, "one", "two", "three")
	for n := range len(raw) {
		ref, err := telemetry.Intact(bytes.NewReader(raw[:n]))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(raw, ref); err != nil || int64(len(got)) != ref.Records {
			t.Fatalf("at %d bytes: %d records, %v", n, len(got), err)
		}
	}
}

func TestIntactFindsTheLongestPrefix(t *testing.T) {
	raw, _ := segment(t, 1<<20, "one", "two", "three")
	for n := range len(raw) + 1 {
		ref, err := telemetry.Intact(bytes.NewReader(raw[:n]))
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.LastIndexByte(raw[:n], '\n') + 1
		if ref.Bytes != int64(want) {
			t.Fatalf("cut at %d: %d bytes are intact, want %d", n, ref.Bytes, want)
		}
		if _, err := readAll(raw[:want], ref); err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	gap := bytes.Replace(raw, []byte(`"seq":1`), []byte(`"seq":2`), 1)
	if ref, err := telemetry.Intact(bytes.NewReader(gap)); err != nil || ref.Records != 1 {
		t.Errorf("a gap behind record 0: %d records are intact (%v)", ref.Records, err)
	}
	if _, err := telemetry.Intact(iotest.ErrReader(io.ErrUnexpectedEOF)); err == nil {
		t.Error("a fault of the reader was taken for a torn line")
	}
}

func FuzzSegment(f *testing.F) {
	raw, _ := segment(f, 1<<20, "one", "t\x00wo", "\U0001F600")
	f.Add(raw)
	f.Add(bytes.Replace(raw, []byte("one"), []byte(`\u0061`), 1))
	f.Add([]byte(`{"seq":0,"stream":"a","text":"","time":"2026-11-22T08:00:00.000000001Z"}` + "\n"))
	f.Add([]byte(`{"Seq":0,"stream":"a","text":"","time":"2026-11-22T08:00:00.000000001Z"}` + "\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		ref, err := telemetry.Intact(bytes.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		recs, err := readAll(in[:ref.Bytes], ref)
		if err != nil {
			t.Fatalf("Intact took what ReadSegment refuses: %v", err)
		}
		var again []byte
		for _, r := range recs {
			line, err := r.Line()
			if err != nil || !utf8.ValidString(r.Text) {
				t.Fatalf("%+v: %v", r, err)
			}
			again = append(again, line...)
		}
		if !bytes.Equal(again, in[:ref.Bytes]) {
			t.Fatalf("accepted %q, which is written as %q", in[:ref.Bytes], again)
		}
	})
}
