package stamp_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stellarun/stella/internal/stamp"
)

// Package time says what a time is; Parse must agree with it on everything that
// looks like one.
func TestParseIsWhatPackageTimeSays(t *testing.T) {
	agree := func(fail func(string, ...any), s string) {
		want, err := time.Parse(stamp.Layout, s)
		ok := err == nil && want.Format(stamp.Layout) == s
		if got, err := stamp.Parse(s); (err == nil) != ok || ok && got != want {
			fail("Parse(%q) = %v, %v; package time says %v, %v", s, got, err, want, ok)
		}
	}
	for _, s := range []string{
		"", "Z", "2026-11-22T08:21:00.000000000Z", "2024-02-29T00:00:00.000000000Z", "2023-02-29T00:00:00.000000000Z",
		"0000-01-01T00:00:00.000000000Z", "9999-12-31T23:59:59.999999999Z", "2026-11-22T24:00:00.000000000Z",
		"2026-11-22T08:21:60.000000000Z", "2026-00-22T08:21:00.000000000Z", "2026-13-22T08:21:00.000000000Z",
		"2026-11-00T08:21:00.000000000Z", "2026-11-31T08:21:00.000000000Z", "2026-11-22T08:21:00.00000000Z",
		"2026-11-22T08:21:00,000000000Z", "2026-11-22t08:21:00.000000000z", "2026-11-22T08:21:00.000000000+", "+026-11-22T08:21:00.000000000Z",
	} {
		agree(t.Errorf, s)
	}
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(-62167219200, 253402300799).Draw(t, "seconds"), rapid.Int64Range(0, 999999999).Draw(t, "nanoseconds"))
		s := []byte(stamp.Format(at))
		if want := at.UTC().Format(stamp.Layout); string(s) != want {
			t.Fatalf("Format(%v) = %s, package time says %s", at, s, want)
		}
		if got, err := stamp.Parse(string(s)); err != nil || !got.Equal(at) {
			t.Fatalf("Parse(%q) = %v, %v", s, got, err)
		}
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			s[rapid.IntRange(0, len(s)-1).Draw(t, "at")] = rapid.SampledFrom([]byte("0123456789-:.TZ ")).Draw(t, "byte")
		}
		agree(t.Fatalf, string(s))
	})
}
