package runner_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// counting is a store that counts how often the steps of a run are read.
type counting struct {
	*store.DB
	steps atomic.Int64
}

func (s *counting) Steps(runID string) (map[string]state.Step, error) {
	s.steps.Add(1)
	return s.DB.Steps(runID)
}

// What each sub-run has done is read once, however many a rule begins after it; and once
// more when somebody has done something by hand.
func TestARuleReadsEachSubRunOnce(t *testing.T) {
	reads := func(most int) (n int64) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			w.exec.run = func(context.Context, runner.Task) (runner.Report, error) { return exit(1), nil }
			w.child(func(d *manifests.DAG) { d.Steps[1].Action = "once" }, "first", "charge<first")
			d := parent(func(d *manifests.DAG) {
				d.Steps[0].Retry = manifests.Retry{MaxAttempts: most, Backoff: time.Second, MaxBackoff: time.Second}
			}, "sub")
			s := &counting{DB: w.db}
			w.r = w.on(s, 2)
			run := w.start(d, "{}")
			w.background()
			w.later(run.RunID)
			if steps, err := w.db.Steps(run.RunID); err != nil || steps["sub"].Attempt != most {
				t.Fatalf("%v: %d attempts of %d", err, steps["sub"].Attempt, most)
			}
			n = s.steps.Load()
		})
		return n
	}
	few, many := reads(20), reads(80)
	if many > 5*few {
		t.Errorf("with 20 sub-runs there were %d reads, with 80 there were %d", few, many)
	}
	t.Logf("20 sub-runs: %d reads, 80: %d", few, many)
}
