package runner_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// A step that a worker has taken, and not begun, when what it reads is reset does not
// begin with what that gave before.
func TestAResetIsAlsoAboutWhatIsAboutToBegin(t *testing.T) {
	for name, c := range map[string]struct {
		reader func(*manifests.Step)
		id     string
	}{
		"a step": {func(s *manifests.Step) { s.With = map[string]any{"v": "${ steps.x.outputs.list[0] }"} }, "y"},
		"an item": {func(s *manifests.Step) {
			s.ForEach, s.With = "${ steps.x.outputs.list }", map[string]any{"v": "${ item }"}
		}, "y.0"},
	} {
		t.Run(name, func(t *testing.T) {
			var block atomic.Bool
			blocked, release := make(chan struct{}), make(chan struct{})
			w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
				if task.StepID != "x" {
					return says(ctx, task)
				}
				block.Store(task.Attempt == 1)
				report := exit(0)
				report.Output.Values = map[string]json.RawMessage{"list": json.RawMessage(fmt.Sprintf("[%d]", task.Attempt))}
				return report, nil
			})
			w.sealed.judged = func(digest string) (ledger.TrustRef, error) { // of the plugin, before y begins
				if digest == strings.Repeat("1", 64) && block.CompareAndSwap(true, false) {
					close(blocked)
					<-release
				}
				return ledger.TrustRef{}, nil
			}
			w.with(func(o *runner.Options) { o.Workers = 2 })
			d := dag(func(d *manifests.DAG) {
				d.MaxParallelSteps = 2
				c.reader(&d.Steps[1])
			}, "x", "y<x")
			run := w.start(d, "{}")
			w.background()
			<-blocked
			now, _ := w.look(run.RunID)
			if _, err := w.r.Reset(w.opened(now, d), runner.Reset{Actor: "uid:7", StepID: "x"}); err != nil {
				t.Fatal(err)
			}
			w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool {
				return s["x"].Attempt == 2 && s["x"].Status == state.Completed && s[c.id].Status == state.Queued && s["y"].Status != state.Pending
			})
			close(release)
			_, steps := w.ended(run.RunID)
			if got := w.blob(steps[c.id].OutputsHash); got != `{"v":2}` {
				t.Errorf("%s gave %s", c.id, got)
			}
		})
	}
}

// aboutToBegin starts a run of which a worker has taken a step, and has not begun it: the
// step "y" after the first attempt of "x", or the only one.
func aboutToBegin(t *testing.T, steps ...string) (w *world, d *manifests.DAG, run state.Run, second, release chan struct{}) {
	t.Helper()
	var block atomic.Bool
	block.Store(len(steps) == 1)
	blocked, release, second := make(chan struct{}), make(chan struct{}), make(chan struct{})
	w = newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "x" && task.Attempt == 2 {
			<-second
		}
		block.CompareAndSwap(false, task.StepID == "x" && task.Attempt == 1)
		return exit(0), nil
	})
	w.sealed.judged = func(digest string) (ledger.TrustRef, error) {
		if digest == strings.Repeat("1", 64) && block.CompareAndSwap(true, false) {
			close(blocked)
			<-release
		}
		return ledger.TrustRef{}, nil
	}
	w.with(func(o *runner.Options) { o.Workers = 2 })
	d = dag(func(d *manifests.DAG) { d.MaxParallelSteps = 2 }, steps...)
	run = w.start(d, "{}")
	w.background()
	<-blocked
	now, _ := w.look(run.RunID)
	if _, err := w.r.Reset(w.opened(now, d), runner.Reset{Actor: "uid:7", StepID: "x"}); err != nil {
		t.Fatal(err)
	}
	return w, d, run, second, release
}

// A cancel ends what a reset has queued anew, also while nothing is taken from the queue.
func TestACancelEndsWhatAResetHasQueued(t *testing.T) {
	w, d, run, _, release := aboutToBegin(t, "x")
	w.r.StopQueue(state.QueueState{Paused: map[string]state.QueueNote{"": {Actor: "uid:7"}}})
	now, _ := w.look(run.RunID)
	if _, err := w.r.Cancel("uid:7", "", w.opened(now, d)); err != nil {
		t.Fatal(err)
	}
	close(release)
	if got, _ := w.ended(run.RunID); got.Status != state.Cancelled {
		t.Errorf("the run is %s", got.Status)
	}
}

// A step that was about to begin, and is pending by a reset, is no reason for a cancelled
// run to fail.
func TestACancelEndsWhatWasAboutToBegin(t *testing.T) {
	w, d, run, second, release := aboutToBegin(t, "x", "y<x")
	w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool {
		return s["x"].Attempt == 2 && s["x"].Status == state.Running
	})
	now, _ := w.look(run.RunID)
	if _, err := w.r.Cancel("uid:7", "", w.opened(now, d)); err != nil {
		t.Fatal(err)
	}
	close(second) // it succeeds all the same
	w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool { return s["x"].Status.Ended() })
	close(release)
	if got, steps := w.ended(run.RunID); got.Status != state.Cancelled || steps["y"].Status != state.Cancelled {
		t.Errorf("the run is %s %s, y is %s", got.Status, got.FailureReason, steps["y"].Status)
	}
}

// A process that waits until nothing moves without people does not end between the end
// of an attempt and the next of the same step.
func TestNothingEndsBeforeARetryIsQueued(t *testing.T) {
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.Attempt < 4 {
			return exit(1), nil
		}
		return exit(0), nil
	})
	w.now = func() time.Time {
		var pcs [2]uintptr
		frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
		f, _ := frames.Next()
		g, _ := frames.Next()
		if strings.HasSuffix(f.Function, ".handOver") && strings.HasSuffix(g.Function, ".back") {
			for range 1000 { // whoever waits is served first
				runtime.Gosched()
			}
		}
		return time.Now()
	}
	w.r = w.runner(1)
	run := w.start(dag(func(d *manifests.DAG) {
		d.Steps[0].Retry = manifests.Retry{MaxAttempts: 4, Backoff: time.Millisecond, MaxBackoff: time.Millisecond}
	}, "a"), "{}")
	if err := w.r.RunUnattended(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got, steps := w.look(run.RunID); got.Status != state.Completed {
		t.Errorf("the run is %s: %v", got.Status, steps)
	}
}
