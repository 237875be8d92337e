package telemetry_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/stellarun/stella/telemetry"
)

func redactor(t interface{ Fatal(...any) }, secrets ...telemetry.Secret) *telemetry.Redactor {
	r, err := telemetry.NewRedactor([]byte("key"), secrets)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func secret(name, value string) telemetry.Secret {
	return telemetry.Secret{Name: name, Value: []byte(value)}
}

// streamed is what comes of lines, without line feeds, and how many they are.
func streamed(r *telemetry.Redactor, lines ...string) (string, int) {
	var out strings.Builder
	n := 0
	s := r.Stream(func(_ time.Time, line []byte) { out.Write(line); n++ })
	for _, l := range lines {
		s.Line(time.Time{}, []byte(l))
	}
	s.Close()
	return out.String(), n
}

func TestValuesAreMasked(t *testing.T) {
	const v = "p+s/w?rd é<'\"&>"
	r := redactor(t, secret("db", v), secret("pem", "-----BEGIN-----\nMIIEpAIBAAKC\r\nAQEAx6\nshort\n-----END-----"), secret("api", "tokentoken"))
	raw, _ := json.Marshal(v)
	std := base64.StdEncoding
	for name, text := range map[string]string{
		"as it is":            "login " + v + " failed",
		"in base64":           "x " + std.EncodeToString([]byte(v)),
		"in basic auth":       "Authorization: Basic " + std.EncodeToString([]byte("user:"+v)),
		"in base64, shifted":  std.EncodeToString([]byte("us:" + v + "\n")),
		"in base64url":        base64.RawURLEncoding.EncodeToString([]byte("a" + v)),
		"in hex":              hex.EncodeToString([]byte(v)),
		"in upper hex":        strings.ToUpper(hex.EncodeToString([]byte(v))),
		"in a query":          "https://h/?p=" + url.QueryEscape(v),
		"in a path":           "https://h/" + url.PathEscape(v),
		"in a lower-case URL": strings.ToLower(url.QueryEscape(v)),
		"in JSON":             string(raw),
		"wrapped":             "p+s/\nw?rd \r\né<'\"&>",
		"a line of a PEM":     "oops MIIEpAIBAAKC",
		"a PEM in one line":   "-----BEGIN----- MIIEpAIBAAKC",
	} {
		got := r.Text(text)
		if !strings.Contains(got, "[redacted:") || strings.Contains(got, v) || strings.Contains(got, "MIIEpAIBAAKC") {
			t.Errorf("%s: %q became %q", name, text, got)
		}
		if r.Find([]byte(text)) == "" {
			t.Errorf("%s: %q was not found", name, text)
		}
	}
	for _, text := range []string{"", "nothing here", "tokentoke", "short", "p+s/w?rd"} {
		if got := r.Find([]byte(text)); got != "" {
			t.Errorf("%s in %q", got, text)
		}
		if text == "tokentoke" || text == "p+s/w?rd" {
			continue // a beginning, at the end
		}
		if got := r.Text(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	if got := r.Text("it ends in tokento"); !strings.HasPrefix(got, "it ends in [redacted:api:") {
		t.Errorf("a beginning at the end: %q", got)
	}
	if _, err := telemetry.NewRedactor(nil, []telemetry.Secret{secret("db", "fi\nve5")}); err == nil || strings.Contains(err.Error(), "ve5") {
		t.Errorf("a short value: %v", err)
	}
}

func TestAMarkerNamesTheSecretAndTellsEqualValues(t *testing.T) {
	a, b := redactor(t, secret("db", "the same value")), redactor(t, secret("api", "the same value"))
	tag := func(s string) string { return s[strings.LastIndexByte(s, ':'):] }
	x, y := a.Text("the same value"), b.Text("the same value")
	if !strings.HasPrefix(x, "[redacted:db:") || len(x) != len("[redacted:db:01234567]") || tag(x) != tag(y) {
		t.Errorf("markers %s and %s", x, y)
	}
	if got := a.Find([]byte("the same value")); got != "db" {
		t.Errorf("Find = %q", got)
	}
}

// TestLinesComeInOrderWithTheirTimes: a secret that begins in one line and ends in
// the third leaves three lines.
func TestLinesComeInOrderWithTheirTimes(t *testing.T) {
	r := redactor(t, secret("db", "one two three"))
	type line struct {
		at   int64
		text string
	}
	var got []line
	s := r.Stream(func(at time.Time, l []byte) { got = append(got, line{at.Unix(), string(l)}) })
	for i, l := range []string{"before", "x one", " two", " three y one two three", "after", "one "} {
		s.Line(time.Unix(int64(i), 0), []byte(l))
	}
	if len(got) != 5 {
		t.Errorf("before the end there are %d lines: %v", len(got), got)
	}
	s.Close()
	marker := r.Text("one two three")
	want := []line{{0, "before"}, {1, "x " + marker}, {2, ""}, {3, " y " + marker}, {4, "after"}, {5, "one "}}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("line %d is %v, want %v", i, got[i], want[i])
		}
	}
}

// TestNothingLeaksWhateverTheSplit: however a text is cut into lines, the same
// comes out, no form of a secret among it.
func TestNothingLeaksWhateverTheSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.SampledFrom([]rune("xyzXYZ +'\n"))
		value := rapid.StringOfN(letters, 10, 24, -1).Filter(func(s string) bool { return len(strings.ReplaceAll(s, "\n", "")) >= 6 })
		var all []telemetry.Secret
		for i, v := range rapid.SliceOfN(value, 1, 3).Draw(t, "secrets") {
			all = append(all, secret([]string{"S0", "S1", "S2"}[i], v))
		}
		r := redactor(t, all...)
		needles := telemetry.Forms(all)
		var text strings.Builder
		for range rapid.IntRange(1, 12).Draw(t, "pieces") {
			n := rapid.SampledFrom(needles).Draw(t, "needle")
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				text.WriteString(rapid.StringOfN(letters, 0, 9, -1).Draw(t, "noise"))
			case 1:
				text.Write(n[:rapid.IntRange(0, len(n)).Draw(t, "part")])
			default:
				text.Write(n)
			}
		}
		// Line feeds come from the cuts alone, so that the whole is comparable.
		whole := strings.ReplaceAll(text.String(), "\n", "")
		want, _ := streamed(r, whole)
		for _, n := range needles {
			if strings.Contains(want, string(n)) {
				t.Fatalf("%q is in %q, of %q", n, want, whole)
			}
		}
		check := func(lines []string) {
			if got, n := streamed(r, lines...); got != want || n != len(lines) {
				t.Fatalf("%q became %d lines %q, want %d lines %q", lines, n, got, len(lines), want)
			}
		}
		for i := range whole {
			check([]string{whole[:i], whole[i:]})
		}
		check(strings.Split(whole, "")) // one byte each: the letters are ASCII
		var parts []string
		for rest := whole; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
		if len(parts) > 0 {
			check(parts)
		}
	})
}

func TestAGuardEndsAtASecret(t *testing.T) {
	r := redactor(t, secret("db", "hunter2hunter2"))
	for _, text := range []string{"before hunter2hunter2 after", "hunter2\nhunter2"} {
		got, err := io.ReadAll(r.Guard(iotest.OneByteReader(strings.NewReader(text))))
		var leak *telemetry.LeakError
		if !errors.As(err, &leak) || leak.Name != "db" || bytes.Contains(got, []byte("hunter2hunter2")) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if got, err := io.ReadAll(r.Guard(strings.NewReader("hunter2 hunter2"))); err != nil || string(got) != "hunter2 hunter2" {
		t.Errorf("what is harmless: %q, %v", got, err)
	}
}

func TestALongSecretIsMasked(t *testing.T) {
	v := strings.Repeat("0123456789abcdefghij", 64<<10/20)
	r := redactor(t, secret("big", v))
	if got, _ := streamed(r, "a"+v[:30000], v[30000:]+"b"); got != "a"+r.Text(v)+"b" {
		t.Errorf("%d bytes are left", len(got))
	}
	if got, n := streamed(r, strings.Repeat("x", 10<<20)); len(got) != 10<<20 || n != 1 {
		t.Errorf("10 MiB without a line feed became %d lines, %d bytes", n, len(got))
	}
}
