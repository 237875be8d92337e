package runner_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

func hangs(ctx context.Context, _ runner.Task) (runner.Report, error) {
	<-ctx.Done()
	if errors.Is(context.Cause(ctx), runner.ErrShutdown) {
		return runner.Report{Stop: runner.StopShutdown}, nil
	}
	return runner.Report{Stop: runner.StopCancel}, nil
}

var chain = manifests.Stuck{
	Warn: time.Minute, Stalled: 10 * time.Minute, Chain: true, Nudges: 1, NudgeWait: time.Minute, Restarts: 2, RestartWait: 5 * time.Minute,
}

// stuckTypes are what entries of a run say about its being stuck.
func (w *world) stuckTypes(id string) []ledger.Type {
	w.t.Helper()
	var out []ledger.Type
	for l, err := range w.db.RunEntries(id) {
		if err != nil {
			w.t.Fatal(err)
		}
		e, err := ledger.ParseEnvelope(l.Envelope)
		if err != nil {
			w.t.Fatal(err)
		}
		if slices.Contains([]ledger.Type{ledger.RunStuck, ledger.RunNudged, ledger.RunRestarted, ledger.RunFailRequested}, e.Type) {
			out = append(out, e.Type)
		}
	}
	return out
}

func TestWhatIsStalledIsNudgedThenRestartedThenFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hangs)
		w.with(func(o *runner.Options) { o.Stuck = chain })
		run := w.start(dag(nil, "a"), "{}")
		got, steps := w.finish(run.RunID)
		if got.FailureReason != string(state.Stalled) || steps["a"] != "failed STALLED" {
			t.Errorf("the run failed of %q: %v", got.FailureReason, steps)
		}
		want := []ledger.Type{
			ledger.RunStuck, ledger.RunStuck, ledger.RunNudged, ledger.RunRestarted, ledger.RunNudged, ledger.RunRestarted, ledger.RunNudged, ledger.RunFailRequested,
		}
		if diff := cmp.Diff(want, w.stuckTypes(run.RunID)); diff != "" {
			t.Errorf("what was done (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"a.1", "a.2", "a.3"}, w.exec.seen); diff != "" {
			t.Errorf("attempts (-want +got):\n%s", diff)
		}
	})
}

// A run whose steps wait for a worker is not stuck, and one whose step waits for a
// lock is only said to be.
func TestWhatWaitsInTheQueueIsNotFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
			if task.StepID == "long" {
				for range 3 * 60 {
					time.Sleep(time.Minute)
					task.Log("stdout", time.Now(), []byte("still here"))
				}
			}
			return exit(0), nil
		})
		w.with(func(o *runner.Options) { o.Stuck, o.Workers = chain, 2 })
		w.start(locking("1.0.0", nil, "long"), "{}")
		locked := w.start(locking("1.1.0", nil, "locked"), "{}")
		w.start(dag(func(d *manifests.DAG) { d.Version = "1.2.0" }, "long"), "{}")
		waits := w.start(dag(func(d *manifests.DAG) { d.Version = "1.3.0" }, "waits"), "{}")
		if got, _ := w.finish(waits.RunID); got.Status != state.Completed {
			t.Errorf("the run that waited for a worker is %s %s", got.Status, got.FailureReason)
		}
		if got := w.stuckTypes(waits.RunID); len(got) != 0 {
			t.Errorf("it was said to be stuck: %v", got)
		}
		if got, _ := w.look(locked.RunID); got.Status != state.Completed {
			t.Errorf("the run that waited for a lock is %s %s", got.Status, got.FailureReason)
		}
		if diff := cmp.Diff([]ledger.Type{ledger.RunStuck, ledger.RunStuck}, w.stuckTypes(locked.RunID)); diff != "" {
			t.Errorf("what was said of it (-want +got):\n%s", diff)
		}
	})
}
