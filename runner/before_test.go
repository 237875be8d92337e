package runner_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// gives lets steps give outputs by attempt, the last of them from then on.
func gives(of map[string][]string, run func(context.Context, runner.Task) (runner.Report, error)) func(context.Context, runner.Task) (runner.Report, error) {
	return func(ctx context.Context, task runner.Task) (runner.Report, error) {
		rep, err := run(ctx, task)
		if l := of[task.StepID]; len(l) > 0 && rep.ExitCode != nil && *rep.ExitCode == 0 {
			rep.Output = runner.Output{Values: map[string]json.RawMessage{"v": json.RawMessage(l[min(task.Attempt, len(l))-1])}}
		}
		return rep, err
	}
}

// A step whose condition has become false is not needed, nor are its items that had lost
// their turn before: the run does not fail for them.
func TestItemsOfAStepThatIsNotNeededMissNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, gives(map[string][]string{"a": {"true", "false"}}, endsWith(map[string][]int{"p.0": {65}, "p.1": {65}}, nil)))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			d.Steps[1].ForEach, d.Steps[1].MaxParallel = []any{"a", "b", "c"}, 2
			d.Steps[1].When = "steps.a.outputs.v"
		}, "a", "p<a", "z<p")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "a"})
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "p.0"})
		time.Sleep(time.Minute)
		if now, steps := w.look(run.RunID); now.Status != state.Completed || steps["p"] != "skipped CONDITION_FALSE" || steps["z"] != "completed" {
			t.Errorf("the run is %s %s: %v", now.Status, now.FailureReason, steps)
		}
	})
}

// A step that has failed and may is not passed over while what reads it is under way, or
// people are asked about that.
func TestNothingIsPassedOverBeneathItsReaders(t *testing.T) {
	for _, ask := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, endsWith(map[string][]int{"a": {65}}, map[string]time.Duration{"z": 10 * time.Minute}))
			d := dag(func(d *manifests.DAG) {
				d.MaxParallelSteps = 8
				d.Steps[0].ContinueOnError, d.Steps[0].AllowSkip = true, true
				d.Steps[1].With = map[string]any{"v": "${ steps.a.status }"}
				if ask {
					d.Steps[1].Checkpoint = &manifests.Checkpoint{Question: "?"}
				}
			}, "a", "z<a")
			w.r = w.runner(8)
			run := w.start(d, "{}")
			w.background()
			time.Sleep(time.Minute)
			if ask {
				time.Sleep(time.Hour)
			}
			_, before := w.look(run.RunID)
			refused(t, second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "a"})))
			refused(t, second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7", StepID: "a", Output: json.RawMessage(`{"v":1}`)})))
			if _, after := w.look(run.RunID); !maps.Equal(before, after) {
				t.Errorf("it was %v, and is %v", before, after)
			}
		})
	}
}

// Nobody goes back to a step where one in between needs another that has failed meanwhile.
func TestNobodyGoesBackOverWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, endsWith(map[string][]int{"f": {0, 65}}, map[string]time.Duration{"slow": time.Minute}))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps, d.FailFast = 8, false
			d.Steps[4].Checkpoint = &manifests.Checkpoint{Question: "?"}
		}, "a", "f", "x<a,f", "slow", "z<x,slow")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(10 * time.Second)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "f"})
		time.Sleep(2 * time.Minute)
		recs, _ := w.db.Steps(run.RunID)
		back := decision(recs["z"], "uid:7", "retry")
		back.BackTo = "a"
		refused(t, second(w.r.Decide(w.asIs(run.RunID, d), back)))
		if _, steps := w.look(run.RunID); steps["x"] != "completed" || steps["z"] != "checkpoint_pending" {
			t.Errorf("the steps are %v", steps)
		}
	})
}

// A step does not begin while something before it is done again, though what lies between
// stays as it is.
func TestAStepWaitsForAllThatComesBeforeIt(t *testing.T) {
	for _, how := range []string{"retry", "reset"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, gives(map[string][]string{"a": {"1", "2"}}, endsWith(nil, map[string]time.Duration{"a": 5 * time.Minute, "slow": 8 * time.Minute, "d.0": time.Minute, "d.1": 10 * time.Minute})))
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps, d.FailFast = 8, false
					d.Steps[3].With = map[string]any{"v": "${ has(steps.a.outputs.v) ? steps.a.outputs.v : 0 }"}
					d.Steps[3].ForEach, d.Steps[3].MaxParallel = []any{"x", "y", "z"}, 1
				}, "a", "b<a", "slow", "d<b,slow")
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				if how == "retry" {
					time.Sleep(6 * time.Minute)
					w.retry(t, run.RunID, d, runner.Retry{StepID: "a"})
				} else {
					time.Sleep(8*time.Minute + 10*time.Second)
					if err := second(w.r.Reset(w.asIs(run.RunID, d), runner.Reset{Actor: "uid:7", StepID: "a"})); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Hour)
				recs, _ := w.db.Steps(run.RunID)
				for _, id := range []string{"d.0", "d.1", "d.2"} {
					a, _ := w.db.Attempt(run.RunID, id, recs[id].Attempt)
					raw, _ := w.sealed.Read(a.Start.InputsHash, 1000)
					if string(raw) != `{"v":2}` {
						t.Errorf("%s, begun at %s, was given %s; a had ended at %s", id, recs[id].StartedUTC, raw, recs["a"].EndedUTC)
					}
				}
			})
		})
	}
}

// What the end of the run has stopped has not failed by itself: where it may fail, the run is
// not completed without it.
func TestWhatTheEndOfTheRunHasStoppedIsNotDone(t *testing.T) {
	for _, how := range []string{"fail", "timeout"} {
		for _, each := range []bool{false, true} {
			t.Run(fmt.Sprint(how, " ", each), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, stops(endsWith(nil, map[string]time.Duration{"x": 20 * time.Minute, "x.0": 20 * time.Minute, "x.1": 20 * time.Minute})))
					d := dag(func(d *manifests.DAG) {
						d.MaxParallelSteps = 8
						d.Steps[0].ContinueOnError = true
						if each {
							d.Steps[0].ForEach = []any{"a", "b"}
						}
						if how == "timeout" {
							d.Timeout = 10 * time.Minute
						}
					}, "x", "y<x")
					w.r = w.runner(8)
					run := w.start(d, "{}")
					w.background()
					time.Sleep(time.Minute)
					if how == "fail" {
						if err := second(w.r.Fail(w.asIs(run.RunID, d), "uid:7", state.FailedByHand, "stop")); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(15 * time.Minute)
					w.retry(t, run.RunID, d, runner.Retry{})
					time.Sleep(5 * time.Minute)
					if now, steps := w.look(run.RunID); now.Status != state.Running || steps["x"] != "running" || steps["y"] != "pending" {
						t.Errorf("the run is %s: %v", now.Status, steps)
					}
				})
			})
		}
	}
}
