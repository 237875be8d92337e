package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// A run whose deadline has passed fails, also when a crash comes in between.
func TestTheDeadlineOfARunSurvivesACrash(t *testing.T) {
	inCleanup := make(chan struct{})
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "tidy" {
			close(inCleanup)
			select {}
		}
		<-ctx.Done()
		return runner.Report{Stop: runner.StopCancel}, nil
	})
	d := dag(func(d *manifests.DAG) {
		d.Timeout = 20 * time.Millisecond
		d.OnFailure = dag(nil, "tidy").Steps
	}, "a", "b<a")
	run := w.start(d, "{}")
	go w.r.Run(context.Background(), true) // its cleanup never ends
	<-inCleanup
	w.exec = &fake{run: ok}
	w.reopen()
	run, err := w.db.Run(run.RunID)
	if err != nil || run.TimedOutUTC == "" {
		t.Fatalf("the deadline is not on record: %+v, %v", run, err)
	}
	if _, err := w.r.Recover(context.Background(), w.opened(run, d)); err != nil {
		t.Fatal(err)
	}
	if err := w.r.Resume(context.Background(), "uid:0", w.opened(run, d)); err != nil {
		t.Fatal(err)
	}
	got, steps := w.finish(run.RunID)
	if got.Status != state.Failed || got.FailureReason != "RUN_TIMEOUT" && got.FailureReason != "TIMEOUT" {
		t.Errorf("the run is %s %s: %v", got.Status, got.FailureReason, steps)
	}
	if steps["tidy"] != "completed" {
		t.Errorf("the cleanup is %q: the run's deadline is not its", steps["tidy"])
	}
}

func TestTheDeadlineOfARunLeavesItsCleanupAlone(t *testing.T) {
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "a" {
			return exit(65), nil
		}
		select { // longer than the deadline
		case <-ctx.Done():
			return runner.Report{Stop: runner.StopCancel}, nil
		case <-time.After(1200 * time.Millisecond):
			return exit(0), nil
		}
	})
	d := dag(func(d *manifests.DAG) {
		d.Timeout = time.Second // the first step must end before, also on a busy machine
		d.OnFailure = dag(nil, "tidy").Steps
	}, "a")
	got, steps := w.finish(w.start(d, "{}").RunID)
	if got.FailureReason != "STEP_REJECTED" || steps["tidy"] != "completed" {
		t.Errorf("the run failed with %s, its cleanup is %s", got.FailureReason, steps["tidy"])
	}
}

// brokenSeal fails to seal what attempts hand over.
type brokenSeal struct {
	*memory
	broken bool
}

func (b *brokenSeal) PutFrom(r io.Reader, limit int64) (string, int64, error) {
	if b.broken {
		return "", 0, errors.New("no space left")
	}
	return b.memory.PutFrom(r, limit)
}

// A program that ran, and whose results a fault of ours loses, is not started
// again where that could do something twice.
func TestResultsThatAreLostAreNotMadeTwice(t *testing.T) {
	for action, want := range map[string]string{"once": "failed INDETERMINATE", "go": "failed POISON_PILL"} {
		w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
			r := exit(0)
			r.Output.Artifacts = []runner.ArtifactFile{{Name: "x", Open: func() (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader("x")), nil
			}}}
			return r, nil
		})
		w.r = runner.New(runner.Options{
			Store: w.db, Sealed: &brokenSeal{w.sealed, true}, Executor: w.exec, Workers: 1, RunsDir: w.home + "/runs", LogsDir: w.home + "/logs",
		})
		d := dag(func(d *manifests.DAG) { d.Steps[0].Action = action }, "a")
		_, steps := w.finish(w.start(d, "{}").RunID)
		if steps["a"] != want {
			t.Errorf("action %s: the step is %q, want %q; executed %v", action, steps["a"], want, w.exec.seen)
		}
		if action == "once" && len(w.exec.seen) != 1 {
			t.Errorf("it ran %d times", len(w.exec.seen))
		}
	}
}

// What a plugin hands over may be too much for its entry, but not for stella.
func TestTooManyResultsAreAFaultOfThePlugin(t *testing.T) {
	for name, report := range map[string]func(*runner.Report){
		"artifacts": func(r *runner.Report) {
			for range 256 {
				r.Output.Artifacts = append(r.Output.Artifacts, runner.ArtifactFile{
					Name: strings.Repeat("n", 200), MediaType: strings.Repeat("m", 200),
					Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil },
				})
			}
		},
		"outputs": func(r *runner.Report) {
			long, _ := json.Marshal(strings.Repeat("x", runner.MaxInputsBytes))
			r.Output.Values = map[string]json.RawMessage{"x": long}
		},
	} {
		w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
			r := exit(0)
			report(&r)
			return r, nil
		})
		got, steps := w.finish(w.start(dag(nil, "a"), "{}").RunID)
		if got.Status != state.Failed || steps["a"] != "failed CONTRACT_VIOLATION" {
			t.Errorf("%s: the run is %s, the step %s", name, got.Status, steps["a"])
		}
	}
}

// An operator who stops stella five times makes no poison pill.
func TestOrderlyStopsAreNotCounted(t *testing.T) {
	d := dag(func(d *manifests.DAG) { d.Steps[0].MaxInterruptions = 1 }, "a")
	w := newWorld(t, nil)
	run := w.start(d, "{}")
	for range 5 {
		ctx, stop := context.WithCancel(context.Background())
		w.exec.run = func(actx context.Context, _ runner.Task) (runner.Report, error) {
			stop()
			<-actx.Done()
			return runner.Report{Stop: runner.StopShutdown}, nil
		}
		if err := w.r.Run(ctx, true); err != nil {
			t.Fatal(err)
		}
		w.reopen()
		if err := w.r.Resume(context.Background(), "uid:0", w.opened(run, d)); err != nil {
			t.Fatal(err)
		}
	}
	w.exec.run = ok
	got, steps := w.finish(run.RunID)
	if got.Status != state.Completed {
		t.Errorf("the run is %s: %v", got.Status, steps)
	}
}

// When the store fails, everything under way ends at once.
func TestAFailedCommitEndsTheRunner(t *testing.T) {
	started := make(chan struct{}, 8)
	w := newWorld(t, nil)
	w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
		started <- struct{}{}
		if task.StepID == "b" {
			for range 3 { // both run
				<-started
			}
			w.db.Close() // stands for a disk that takes no more
			return exit(0), nil
		}
		started <- struct{}{}
		<-ctx.Done()
		return runner.Report{Stop: runner.StopShutdown}, nil
	}
	w.r = w.runner(2)
	d := dag(func(d *manifests.DAG) { d.MaxParallelSteps = 2 }, "a", "b")
	run := w.start(d, "{}")
	err := w.r.Run(context.Background(), true)
	if !errors.Is(err, store.ErrClosed) {
		t.Errorf("Run = %v, want the store's error", err)
	}
	w.reopen()
	if got, _ := w.look(run.RunID); got.Open == 0 {
		t.Error("attempts that could not be recorded are recorded")
	}
	if n, err := w.r.Recover(context.Background(), w.opened(run, d)); err != nil || n == 0 {
		t.Errorf("Recover = %d, %v", n, err)
	}
	_, steps := w.look(run.RunID)
	if diff := cmp.Diff(map[string]string{"a": "queued", "b": "queued"}, steps); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A step that failed by its condition has a reason in words beside its code:
// a run that is taken up again must fail with the code.
func TestTheCodeOfAFailureSurvivesACrash(t *testing.T) {
	stuck := make(chan struct{})
	w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
		close(stuck)
		select {}
	})
	w.r = w.runner(1)
	d := dag(func(d *manifests.DAG) {
		d.FailFast = false
		d.Steps[0].When = "1 + 1"
	}, "a", "b")
	run := w.start(d, "{}")
	go w.r.Run(context.Background(), true) // never returns: b never ends
	<-stuck
	w.exec = &fake{run: ok}
	w.reopen()
	run, err := w.db.Run(run.RunID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.r.Recover(context.Background(), w.opened(run, d)); err != nil {
		t.Fatal(err)
	}
	if err := w.r.Resume(context.Background(), "uid:0", w.opened(run, d)); err != nil {
		t.Fatal(err)
	}
	if got, _ := w.finish(run.RunID); got.FailureReason != "EXPRESSION_INVALID" || got.FailedStep != "a" {
		t.Errorf("the run failed with %q in %q", got.FailureReason, got.FailedStep)
	}
}
