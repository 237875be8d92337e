package runner_test

import (
	"testing"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// Tokens that are made sort as their starts do, and no two are the same.
func TestTokensThatAreMadeSortByTime(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	last := ""
	for range 100 {
		token := runner.NewRunToken(now)
		if token <= last || !manifests.ValidRunToken(token) {
			t.Fatalf("%s after %s", token, last)
		}
		last, now = token, now.Add(time.Millisecond)
	}
	if a, b := runner.NewRunToken(now), runner.NewRunToken(now); a == b {
		t.Errorf("twice %s", a)
	}
}
