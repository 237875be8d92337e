package telemetry_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/stellarun/stella/telemetry"
)

func TestLastRecord(t *testing.T) {
	at := func(second string) string { return "2026-11-22T00:00:" + second + ".000000000Z" }
	line := func(seq, text, second string) string {
		return `{"seq":` + seq + `,"stream":"stdout","text":"` + text + `","time":"` + at(second) + `"}` + "\n"
	}
	long := strings.Repeat("x", telemetry.MaxText)
	for name, c := range map[string]struct {
		segment, want string // time
	}{
		"of none":                   {"", ""},
		"of one":                    {line("0", "a", "01"), at("01")},
		"of several":                {line("0", "a", "01") + line("1", "b", "02"), at("02")},
		"before a torn one":         {line("0", "a", "01") + `{"seq":1,"str`, at("01")},
		"of nothing but a torn one": {`{"seq":0,"str`, ""},
		"after long ones":           {line("0", long, "01") + line("1", long, "02") + line("2", long, "03") + line("3", "b", "04"), at("04")},
	} {
		rec, ok, err := telemetry.Last(bytes.NewReader([]byte(c.segment)), int64(len(c.segment)))
		if err != nil || rec.Time != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, %v, %v, want %q", name, rec.Time, ok, err, c.want)
		}
	}
	bad := "{}\n"
	var fault *telemetry.SegmentError
	if _, _, err := telemetry.Last(strings.NewReader(bad), int64(len(bad))); !errors.As(err, &fault) {
		t.Errorf("a line that is no record gives %v", err)
	}
}
