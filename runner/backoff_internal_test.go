package runner

import (
	"testing"
	"time"

	"github.com/stellarun/stella/manifests"
)

func TestNoBackoffIsLongerThanItsMaximum(t *testing.T) {
	rule := manifests.Retry{Backoff: time.Second, MaxBackoff: 10 * time.Second, Jitter: 0.5}
	for _, c := range []struct {
		chance   float64
		failures int
		after    int64
		want     time.Duration
	}{
		{1, 1, 0, 1500 * time.Millisecond}, {0, 1, 0, 500 * time.Millisecond},
		{1, 9, 0, 10 * time.Second}, {1, 4, 0, 10 * time.Second}, {0, 9, 0, 5 * time.Second},
		{1, 1, 60_000, time.Minute}, // the plugin knows better
	} {
		r := &Runner{opt: Options{Rand: func() float64 { return c.chance }}}
		if got := r.backoff(rule, c.failures, c.after); got != c.want {
			t.Errorf("chance %v, %d failures: %s, want %s", c.chance, c.failures, got, c.want)
		}
	}
}

func TestWhatWasWrongWithTheOutputOfAFailureIsSaid(t *testing.T) {
	code := 75
	v := Classify(Report{ExitCode: &code, Output: Output{Fault: `line 1: "retry_after" is not known`}}, "")
	if want := `exit code 75; its output counts for nothing: line 1: "retry_after" is not known`; v.Message != want || v.Code != "STEP_RETRYABLE" {
		t.Errorf("%s: %s, want %s", v.Code, v.Message, want)
	}
}
