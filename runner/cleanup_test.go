package runner_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// endings are the ways to end a run by hand.
var endings = map[string]func(*world, runner.Opened) (state.Run, error){
	"fail": func(w *world, o runner.Opened) (state.Run, error) {
		return w.r.Fail(o, "uid:7", state.FailedByHand, "")
	},
	"cancel": func(w *world, o runner.Opened) (state.Run, error) { return w.r.Cancel("uid:7", "", o) },
	"abort":  func(w *world, o runner.Opened) (state.Run, error) { return w.r.Abort(o, "uid:7", "") },
}

// A run neither ends nor is begun again while an attempt that was taken back has yet
// to end, and an abort leaves no time to that.
func TestAnAttemptThatWasTakenBackIsItsRunsUntilItEnds(t *testing.T) {
	for what, end := range endings {
		t.Run(what, func(t *testing.T) {
			began, release, cleaned := make(chan string, 9), make(chan struct{}), make(chan bool, 1)
			w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
				if task.StepID != "a" {
					cleaned <- true
					return exit(0), nil
				}
				began <- task.StepID
				select {
				case <-release: // it takes its time to end, whatever it is told
				case <-task.Aborted:
				}
				return runner.Report{Stop: runner.StopShutdown}, nil
			})
			d := dag(func(d *manifests.DAG) {
				d.OnFailure, d.OnCancel = dag(nil, "mend").Steps, dag(nil, "tidy").Steps
			}, "a")
			w.with(func(o *runner.Options) { o.Workers = 2 })
			run := w.start(d, "{}")
			w.background()
			<-began
			if _, err := w.r.Reset(w.opened(run, d), runner.Reset{Actor: "uid:7", StepID: "a"}); err != nil {
				t.Fatal(err)
			}
			got, err := end(w, w.opened(run, d))
			if err != nil {
				t.Fatal(err)
			}
			if what != "abort" {
				if _, steps := w.look(run.RunID); got.Status.Ended() || len(steps) != 1 {
					t.Fatalf("the run is %s: %v", got.Status, steps)
				}
				_, err := w.r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: "a"})
				if conflict := (*runner.ConflictError)(nil); !errors.As(err, &conflict) {
					t.Errorf("a retry beside it: %v", err)
				}
				close(release)
				<-cleaned
			}
			if got, _ = w.ended(run.RunID); len(began) > 0 {
				t.Errorf("the run is %s, and a second attempt began", got.Status)
			}
		})
	}
}

// cleanup is a run that has failed and cleans up: "asks" waits for people, "holds" is
// under way, "then" comes after both.
func cleanup(t *testing.T, change func(*manifests.DAG)) (*world, state.Run, *manifests.DAG) {
	held := make(chan struct{})
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		switch task.StepID {
		case "a":
			return exit(1), nil
		case "holds":
			if task.Attempt == 1 {
				close(held)
			}
			return hangs(ctx, task)
		}
		return exit(0), nil
	})
	d := dag(func(d *manifests.DAG) {
		d.OnFailure, d.OnCancel = dag(nil, "asks", "holds", "then<asks,holds").Steps, dag(nil, "tidy").Steps
		d.OnFailure[0].Checkpoint = &manifests.Checkpoint{Question: "?", Quorum: 1}
		if change != nil {
			change(d)
		}
	}, "a")
	w.with(func(o *runner.Options) { o.Workers, o.Parallel = 2, 2 })
	run := w.start(d, "{}")
	w.background()
	<-held
	w.asked(run.RunID, "asks")
	return w, run, d
}

func TestCleanupEndsWithACancelOrAFailure(t *testing.T) {
	for what, c := range map[string]struct {
		end    func(*world, runner.Opened) (state.Run, error)
		status state.Status
		steps  map[string]string
	}{
		"cancel": {
			func(w *world, o runner.Opened) (state.Run, error) { return w.r.Cancel("uid:7", "", o) }, state.Cancelled,
			map[string]string{"a": "failed STEP_FAILED", "asks": "cancelled RUN_CANCELLED", "holds": "cancelled RUN_CANCELLED", "then": "cancelled RUN_CANCELLED", "tidy": "completed"},
		},
		"fail": {
			func(w *world, o runner.Opened) (state.Run, error) {
				return w.r.Fail(o, "uid:7", state.FailedByHand, "")
			}, state.Failed,
			map[string]string{"a": "failed STEP_FAILED", "asks": "skipped RUN_FAILING", "holds": "failed FAILED_BY_HAND", "then": "skipped RUN_FAILING"},
		},
		"abort": {
			func(w *world, o runner.Opened) (state.Run, error) { return w.r.Abort(o, "uid:7", "") }, state.Cancelled,
			map[string]string{"a": "failed STEP_FAILED", "asks": "cancelled RUN_CANCELLED", "holds": "cancelled RUN_CANCELLED", "then": "cancelled RUN_CANCELLED"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			w, run, d := cleanup(t, nil)
			if _, err := c.end(w, w.opened(run, d)); err != nil {
				t.Fatal(err)
			}
			got, _ := w.ended(run.RunID)
			_, steps := w.look(run.RunID)
			if diff := cmp.Diff(c.steps, steps); diff != "" || got.Status != c.status {
				t.Errorf("the run is %s, its steps (-want +got):\n%s", got.Status, diff)
			}
		})
	}
}

// A crash between the request and the end of what was under way changes nothing.
func TestCleanupThatWasGivenUpIsNotBegunAgainAfterACrash(t *testing.T) {
	held := make(chan struct{})
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "a" {
			return exit(1), nil
		}
		close(held)
		select {}
	})
	d := dag(func(d *manifests.DAG) { d.OnFailure = dag(nil, "holds", "then<holds").Steps }, "a")
	run := w.start(d, "{}")
	go w.r.Run(context.Background(), true) // it never ends
	<-held
	if _, err := w.r.Fail(w.opened(run, d), "uid:7", state.FailedByHand, ""); err != nil {
		t.Fatal(err)
	}
	w.exec = &fake{run: ok}
	w.reopen()
	if _, err := w.r.Recover(context.Background(), w.opened(run, d)); err != nil {
		t.Fatal(err)
	}
	got, steps := w.look(run.RunID)
	if got.FailureReason != string(state.FailedByHand) || steps["holds"] != "skipped RUN_FAILING" || steps["then"] != "skipped RUN_FAILING" {
		t.Errorf("the run is %s %s: %v", got.Status, got.FailureReason, steps)
	}
}

// The chain for what is stuck ends cleanup as well.
func TestCleanupThatHangsIsEnded(t *testing.T) {
	byHand := func(w *world, o runner.Opened) (state.Run, error) {
		return w.r.Fail(o, "uid:7", state.FailedByHand, "")
	}
	cancel := func(w *world, o runner.Opened) (state.Run, error) { return w.r.Cancel("uid:7", "", o) }
	for what, c := range map[string]struct {
		ask    func(*world, runner.Opened) (state.Run, error)
		status state.Status
		reason state.Code
		seen   []string
	}{
		"failed":         {nil, state.Failed, state.Stalled, []string{"a.1", "mend.1", "mend.2", "mend.3"}},
		"failed by hand": {byHand, state.Failed, state.FailedByHand, []string{"mend.1", "mend.2", "mend.3"}},
		"cancelled":      {cancel, state.Cancelled, state.RunAborted, []string{"tidy.1", "tidy.2", "tidy.3"}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
					if task.StepID == "a" {
						return exit(1), nil
					}
					return hangs(ctx, task)
				})
				w.with(func(o *runner.Options) { o.Stuck = chain })
				d := dag(func(d *manifests.DAG) {
					d.OnFailure, d.OnCancel = dag(nil, "mend").Steps, dag(nil, "tidy").Steps
				}, "a")
				run := w.start(d, "{}")
				if c.ask != nil {
					if _, err := c.ask(w, w.opened(run, d)); err != nil {
						t.Fatal(err)
					}
				}
				got, steps := w.finish(run.RunID)
				if got.Status != c.status || got.FailureReason != string(c.reason) {
					t.Errorf("the run is %s %s: %v", got.Status, got.FailureReason, steps)
				}
				if diff := cmp.Diff(c.seen, w.exec.seen); diff != "" {
					t.Errorf("attempts (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// What people want done again in a cleanup does not wait for the rest of it.
func TestCleanupIsBegunAgainBesideOther(t *testing.T) {
	w, run, d := cleanup(t, nil)
	s := w.asked(run.RunID, "asks")
	back := decision(s, "uid:8", "retry")
	back.BackTo = "a"
	_, err := w.r.Decide(w.opened(run, d), back)
	if wrong := (*runner.RequestError)(nil); !errors.As(err, &wrong) {
		t.Errorf("back to what it cleans up after: %v", err)
	}
	if _, err := w.r.Decide(w.opened(run, d), decision(s, "uid:7", "retry")); err != nil {
		t.Fatal(err)
	}
	w.until(run.RunID, func(_ state.Run, steps map[string]state.Step) bool {
		return steps["asks"].Status == state.CheckpointPending && steps["asks"].Attempt == 2
	})
	if _, err := w.r.Abort(w.opened(run, d), "uid:7", ""); err != nil {
		t.Fatal(err)
	}
	w.ended(run.RunID)
}

// The time of a run passes although nobody executes it: what comes too late is told so.
func TestTheDeadlineOfARunHoldsForPeople(t *testing.T) {
	w := newWorld(t, says)
	d := gated(1, func(d *manifests.DAG) { d.Timeout = time.Hour })
	run := w.start(d, "{}")
	if err := w.r.RunUnattended(context.Background()); err != nil {
		t.Fatal(err)
	}
	s := w.asked(run.RunID, "b")
	late := runner.New(runner.Options{Store: w.db, Sealed: w.sealed, Now: func() time.Time { return time.Now().Add(2 * time.Hour) }})
	_, err := late.Decide(w.opened(run, d), decision(s, "uid:7", "continue"))
	if err == nil {
		t.Error("it was decided")
	}
	got, steps := w.look(run.RunID)
	if got.Status != state.Failed || got.FailureReason != string(state.RunTimeout) || steps["b"] != "skipped RUN_TIMEOUT" {
		t.Errorf("%v; the run is %s %s: %v", err, got.Status, got.FailureReason, steps)
	}
}

// Nobody is asked about a step that has done its part when its run is ending already.
func TestNobodyIsAskedInARunThatIsEnding(t *testing.T) {
	for what, c := range map[string]struct {
		end  func(*world, runner.Opened) (state.Run, error)
		step string
	}{
		"fail": {func(w *world, o runner.Opened) (state.Run, error) {
			return w.r.Fail(o, "uid:7", state.FailedByHand, "")
		}, "skipped RUN_FAILING"},
		"cancel": {func(w *world, o runner.Opened) (state.Run, error) { return w.r.Cancel("uid:7", "", o) }, "cancelled RUN_CANCELLED"},
		"abort":  {func(w *world, o runner.Opened) (state.Run, error) { return w.r.Abort(o, "uid:7", "") }, "cancelled RUN_CANCELLED"},
	} {
		t.Run(what, func(t *testing.T) {
			began, release := make(chan bool), make(chan bool)
			w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
				close(began)
				<-release
				return exit(0), nil
			})
			d := dag(func(d *manifests.DAG) { d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "?"} }, "a")
			run := w.start(d, "{}")
			w.background()
			<-began
			if _, err := c.end(w, w.opened(run, d)); err != nil {
				t.Fatal(err)
			}
			close(release)
			w.ended(run.RunID)
			if _, steps := w.look(run.RunID); steps["a"] != c.step {
				t.Errorf("steps %v", steps)
			}
		})
	}
}

// A reset of what cleans up is about that alone: what was given up before stays so.
func TestAResetOfCleanupBringsNothingBack(t *testing.T) {
	w, run, d := cleanup(t, func(d *manifests.DAG) { d.MaxParallelSteps, d.Steps = 1, dag(nil, "a", "b").Steps })
	if _, err := w.r.Reset(w.opened(run, d), runner.Reset{Actor: "uid:7", StepID: "asks"}); err != nil {
		t.Fatal(err)
	}
	if _, steps := w.look(run.RunID); steps["b"] != "skipped RUN_FAILING" {
		t.Errorf("steps %v", steps)
	}
	if _, err := w.r.Abort(w.opened(run, d), "uid:7", ""); err != nil {
		t.Fatal(err)
	}
	w.ended(run.RunID)
}

// What cleans up can be passed over ahead: the rest has its turn all the same, and not
// before.
func TestCleanupThatIsPassedOverAheadHasNotBegun(t *testing.T) {
	began, release := make(chan bool, 9), make(chan struct{})
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "a" {
			began <- true
			<-release
			return runner.Report{Stop: runner.StopCancel}, nil
		}
		return exit(0), nil
	})
	d := dag(func(d *manifests.DAG) {
		d.OnFailure = dag(nil, "m", "n").Steps
		d.OnFailure[0].AllowSkip = true
	}, "a")
	w.with(func(o *runner.Options) { o.Workers = 2 })
	run := w.start(d, "{}")
	w.background()
	<-began
	o := w.opened(run, d)
	_, err := w.r.Skip(o, runner.Skip{Actor: "uid:7", StepID: "m"})
	_, reset := w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "a"})
	_, failed := w.r.Fail(o, "uid:7", state.FailedByHand, "")
	_, nudged := w.r.Nudge(o, "uid:7", "")
	if err = errors.Join(err, reset, failed, nudged); err != nil {
		t.Fatal(err)
	}
	if _, steps := w.look(run.RunID); steps["n"] != "" {
		t.Errorf("it cleans up beside what was taken back: %v", steps)
	}
	close(release)
	w.ended(run.RunID)
	if _, steps := w.look(run.RunID); steps["n"] != "completed" {
		t.Errorf("steps %v", steps)
	}
}

// What the end of the process has kept from being seen through can be asked for again.
func TestAnEndCanBeAskedForAgainAfterACrash(t *testing.T) {
	for what, end := range endings {
		t.Run(what, func(t *testing.T) {
			held := make(chan struct{})
			w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
				close(held)
				select {}
			})
			d := dag(nil, "a")
			run := w.start(d, "{}")
			go w.r.Run(context.Background(), true) // it never ends
			<-held
			o := w.opened(run, d)
			_, err := w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "a"})
			_, asked := end(w, o)
			if err = errors.Join(err, asked); err != nil {
				t.Fatal(err)
			}
			w.exec = &fake{run: ok}
			w.reopen()
			if got, err := end(w, o); err != nil || !got.Status.Ended() {
				t.Errorf("the run is %s, %v", got.Status, err)
			}
		})
	}
}

// What a step has given it has given, although people said no to it or the run was
// cancelled before they did: cleanup that undoes it knows it, in the process that saw it
// and in the next.
func TestCleanupKnowsWhatAStepHasGiven(t *testing.T) {
	d := dag(func(d *manifests.DAG) {
		d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "?", Quorum: 1}
		d.Steps[0].With = map[string]any{"y": "made"}
		d.OnCancel = dag(nil, "first", "second<first").Steps
		d.OnCancel[1].With = map[string]any{"y": "${ has(steps.g.outputs.y) ? steps.g.outputs.y : 'gone' }"}
	}, "g")
	for what, end := range map[string]func(*world, state.Run) error{
		"cancel": func(w *world, run state.Run) error { return second(w.r.Cancel("uid:7", "", w.opened(run, d))) },
		"abort": func(w *world, run state.Run) error {
			return second(w.r.Decide(w.opened(run, d), runner.Decision{Actor: "uid:7", StepID: "g", Attempt: 1, PlanHash: run.PlanHash, Decision: "abort"}))
		},
	} {
		for _, dies := range []bool{false, true} {
			t.Run(fmt.Sprint(what, " dies ", dies), func(t *testing.T) {
				began := make(chan bool, 9)
				w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
					if task.StepID == "first" && dies {
						began <- true
						return hangs(ctx, task)
					}
					return says(ctx, task)
				})
				run := w.start(d, "{}")
				ctx, stop := context.WithCancel(context.Background())
				ran := make(chan error, 1)
				go func() { ran <- w.r.Run(ctx, false) }()
				w.until(run.RunID, func(r state.Run, _ map[string]state.Step) bool { return r.Waiting == 1 })
				if err := end(w, run); err != nil {
					t.Fatal(err)
				}
				if dies {
					<-began
					stop()
					<-ran
					w.exec.run = says
					w.reopen()
					w.background()
					if err := w.r.Resume(context.Background(), "uid:0", w.opened(run, d)); err != nil {
						t.Fatal(err)
					}
				}
				_, steps := w.ended(run.RunID)
				stop()
				if got, _ := w.sealed.Read(steps["second"].OutputsHash, 1<<20); string(got) != `{"y":"made"}` {
					t.Errorf("cleanup was told %s", got)
				}
			})
		}
	}
}
