package runner_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// keeps says that a decision is refused, and why, and that steps which have completed stay so.
func (w *world) keeps(t *testing.T, id string, err error, want string, steps ...string) {
	t.Helper()
	if got := refusal(t, err); !strings.HasPrefix(got, want) {
		t.Errorf("it says %q, not %q", got, want)
	}
	time.Sleep(3 * time.Hour)
	_, now := w.look(id)
	for _, s := range steps {
		if now[s] != "completed" {
			t.Errorf("%s is %s", s, now[s])
		}
	}
}

// overtaken is an open run that is failing for z; p, which was passed over while r and q, which
// need it, completed, lacks items, and the sub-run of p.1 has charged since.
func overtaken(t *testing.T, z ...int) (*world, *manifests.DAG, string) {
	t.Helper()
	var now atomic.Bool
	others := chargeAfter(3, endsWith(map[string][]int{"z": append([]int{0, 65, 65}, z...)}, map[string]time.Duration{"slow": 10 * time.Hour, "g": 30 * time.Second}))
	w := newWorld(t, stops(unhurried(func(ctx context.Context, task runner.Task) (runner.Report, error) {
		for task.StepID == "z" && (task.Attempt == 2 || task.Attempt == 3) && !now.Load() && ctx.Err() == nil {
			time.Sleep(time.Second)
		}
		return others(ctx, task)
	})))
	d := dag(func(d *manifests.DAG) {
		charges(w, &d.Steps[0])
		p := &d.Steps[0]
		d.MaxParallelSteps, p.ForEach, p.MaxParallel, p.ContinueOnError = 8, []any{"a", "b", "c"}, 1, true
		p.Retry = manifests.Retry{MaxAttempts: 2, Backoff: 30 * time.Second, MaxBackoff: 30 * time.Second}
	}, "p<g", "z", "q<p,z", "slow", "g", "r<p")
	w.r = w.runner(8)
	run := w.start(d, "{}")
	w.background()
	time.Sleep(10 * time.Second)
	w.skip(t, run.RunID, d, runner.Skip{StepID: "p"})
	time.Sleep(2 * time.Minute)
	w.retry(t, run.RunID, d, runner.Retry{StepID: "z"})
	time.Sleep(5 * time.Second)
	if err := second(w.r.Reset(w.asIs(run.RunID, d), runner.Reset{Actor: "uid:7", StepID: "p"})); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		if _, steps := w.look(run.RunID); strings.HasPrefix(steps["p.0"], "failed") && strings.HasPrefix(steps["p.1"], "queued") {
			break
		}
		time.Sleep(3 * time.Second)
	}
	now.Store(true)
	time.Sleep(10 * time.Second)
	w.charge(t, run, "p.1")
	if _, steps := w.look(run.RunID); steps["q"] != "completed" || steps["r"] != "completed" || !strings.HasPrefix(steps["p.1"], "skipped RUN_") || !strings.HasPrefix(steps["z"], "failed") {
		t.Fatalf("%v", steps)
	}
	return w, d, run.RunID
}

// Of an open run that a decision lets go on, nothing is taken from a step that could not begin
// again, since items of what it needs are left without their turn.
func TestWhatLacksItemsStaysInTheWayOfARunThatGoesOn(t *testing.T) {
	for name, act := range map[string]func(*world, runner.Opened) error{
		"q": func(w *world, o runner.Opened) error {
			return second(w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "z", Downstream: true, Only: true}))
		},
		"r": func(w *world, o runner.Opened) error {
			return second(w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "r", Only: true}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, d, id := overtaken(t)
				w.keeps(t, id, act(w, w.asIs(id, d)), "step "+name+" needs step p, which is failed, and stays so", "q", "r")
			})
		})
	}
	t.Run("left before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, d, id := overtaken(t, 65)
			w.fail(t, id, d)
			time.Sleep(time.Minute)
			w.retry(t, id, d, runner.Retry{StepID: "slow", Only: true})
			time.Sleep(10 * time.Second)
			w.retry(t, id, d, runner.Retry{StepID: "z"})
			time.Sleep(time.Minute)
			w.keeps(t, id, second(w.r.Reset(w.asIs(id, d), runner.Reset{Actor: "uid:7", StepID: "r"})), "step r needs step p, which is failed", "q", "r")
		})
	})
}

// With one item done again a step fails, or lacks one, as long as another stays as it is: what
// depends on it keeps what it has given.
func TestAnItemThatStaysIsInTheWayOfWhatDependsOnItsStep(t *testing.T) {
	for name, c := range map[string]struct {
		codes   map[string][]int
		stopped string
	}{
		"failed":  {map[string][]int{"p.0": {0, 65}, "p.1": {0, 65}}, ""},
		"stopped": {map[string][]int{"p.0": {0, 65}}, "p.1.2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, stops(unhurried(slowAt(endsWith(c.codes, map[string]time.Duration{"slow": 10 * time.Hour}), c.stopped))))
				d := dag(func(d *manifests.DAG) {
					d.MaxParallelSteps, d.FailFast, d.Steps[0].ForEach, d.Steps[0].Action = 8, false, []any{"a", "b"}, "once"
				}, "p", "r<p", "slow")
				w.r = w.runner(8)
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				w.retry(t, run.RunID, d, runner.Retry{StepID: "p"})
				time.Sleep(time.Minute)
				w.fail(t, run.RunID, d)
				time.Sleep(time.Minute)
				again := runner.Retry{Actor: "uid:7", StepID: "p.0", Downstream: true}
				w.keeps(t, run.RunID, second(w.r.Retry(w.asIs(run.RunID, d), again)), "step r needs item p.1, which is failed, and stays so", "r")
				w.retry(t, run.RunID, d, runner.Retry{StepID: "p.1"})
				time.Sleep(time.Minute)
				w.retry(t, run.RunID, d, again) // now that nothing else stays
				time.Sleep(time.Minute)
				if _, steps := w.look(run.RunID); steps["p"] != "completed" || steps["r"] != "completed" {
					t.Errorf("%v", steps)
				}
			})
		})
	}
	t.Run("its list is made anew", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ends := endsWith(map[string][]int{"p.0": {0, 65}, "p.1": {0, 65}}, map[string]time.Duration{"slow": 10 * time.Hour})
			w := newWorld(t, stops(unhurried(gives(map[string][]string{"l": {`["a", "b"]`}}, ends))))
			d := dag(func(d *manifests.DAG) {
				d.MaxParallelSteps, d.FailFast, d.Steps[1].ForEach, d.Steps[1].Action = 8, false, "${ steps.l.outputs.v }", "once"
			}, "l", "p<l", "r<p", "slow")
			w.r = w.runner(8)
			run := w.start(d, "{}")
			w.background()
			time.Sleep(time.Minute)
			w.retry(t, run.RunID, d, runner.Retry{StepID: "p"})
			time.Sleep(time.Minute)
			w.retry(t, run.RunID, d, runner.Retry{StepID: "l"})
			time.Sleep(time.Minute)
			again := runner.Retry{Actor: "uid:7", StepID: "p.0", Downstream: true}
			w.keeps(t, run.RunID, second(w.r.Retry(w.asIs(run.RunID, d), again)), "step r needs item p.1, which is failed, and stays so", "r")
		})
	})
	t.Run("lost its turn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, d, id := overtaken(t)
			w.fail(t, id, d)
			time.Sleep(time.Minute)
			w.retry(t, id, d, runner.Retry{StepID: "z", Only: true})
			time.Sleep(time.Minute)
			w.fail(t, id, d)
			time.Sleep(time.Minute)
			err := second(w.r.Retry(w.asIs(id, d), runner.Retry{Actor: "uid:7", StepID: "p.2", Downstream: true}))
			if got := refusal(t, err); strings.Contains(got, "--only") {
				t.Errorf("it names --only, which is refused: %s", got)
			}
			err = second(w.r.Retry(w.asIs(id, d), runner.Retry{Actor: "uid:7", StepID: "p.2", Downstream: true, Only: true}))
			w.keeps(t, id, err, "step r needs item p.1, which is skipped, and stays so", "r")
		})
	})
}

// A step that waits, and will not begin for one that has failed, is in the way of others as that is.
func TestWhatWillNotBeginIsInTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(slowAt(endsWith(map[string][]int{"w": {0, 65}}, map[string]time.Duration{"stay": 10 * time.Hour}), "slow.2"))))
		d := dag(func(d *manifests.DAG) { d.MaxParallelSteps, d.FailFast = 8, false }, "w", "slow", "x<w,slow", "a", "n<x,a", "stay")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		for _, id := range []string{"slow", "x", "w"} {
			w.retry(t, run.RunID, d, runner.Retry{StepID: id})
		}
		time.Sleep(time.Minute)
		if _, steps := w.look(run.RunID); steps["x"] != "pending" || steps["n"] != "completed" {
			t.Fatalf("%v", steps)
		}
		err := second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "a", Downstream: true}))
		w.keeps(t, run.RunID, err, "step n needs step w, which is failed, and stays so", "n")
	})
}

// A refusal names what is to be seen to, and not what could not begin either.
func TestARefusalNamesWhatHasFailed(t *testing.T) {
	for _, open := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, stops(unhurried(endsWith(map[string][]int{"w": {65}}, map[string]time.Duration{"slow": time.Hour}))))
			ids := []string{"w", "x<w", "y<x"}
			if open {
				ids = append(ids, "slow")
			}
			d := dag(func(d *manifests.DAG) { d.MaxParallelSteps, d.FailFast, d.Steps[2].AllowSkip = 8, false, true }, ids...)
			w.r = w.runner(8)
			run := w.start(d, "{}")
			w.background()
			time.Sleep(time.Minute)
			got := refusal(t, second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7", StepID: "y"})))
			if !strings.Contains(got, "step y needs step w") || !strings.Contains(got, "run retry "+run.RunID+" --step w") {
				t.Error(got)
			}
			w.retry(t, run.RunID, d, runner.Retry{StepID: "w"})
			time.Sleep(2 * time.Hour)
		})
	}
}

// What items have given that is outdated already counts for nothing, and keeps nobody from anything.
func TestOutdatedItemsKeepNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(slowAt(endsWith(map[string][]int{"q.1": {65}, "m": {0, 65}}, nil), "slow.1"))))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps, d.FailFast = 8, false
			d.Steps[2].Action, d.Steps[2].ForEach = "once", []any{"a", "b"}
		}, "a", "m", "q<a,m", "slow")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "m"})
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "a", Downstream: true})
		time.Sleep(time.Minute)
		if _, steps := w.look(run.RunID); steps["a"] != "completed" {
			t.Errorf("%v", steps)
		}
	})
}

// While a step far before it is done again nothing is said of one item of another, since all of
// its items begin anew after that.
func TestAnItemWaitsForWhatIsDoneAgainFarBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stops(unhurried(slowAt(endsWith(map[string][]int{"p.0": {0, 65}}, map[string]time.Duration{"slow": 10 * time.Hour}), "h.2"))))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps, d.FailFast, d.Steps[2].ForEach, d.Steps[2].AllowSkip = 8, false, []any{"a", "b"}, true
		}, "h", "g<h", "p<g", "slow")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "p"})
		time.Sleep(time.Minute)
		w.retry(t, run.RunID, d, runner.Retry{StepID: "h"})
		time.Sleep(time.Minute)
		want := "step p is begun again when step h has ended"
		for what, err := range map[string]error{
			"retry": second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "p.0"})),
			"skip":  second(w.r.Skip(w.asIs(run.RunID, d), runner.Skip{Actor: "uid:7", StepID: "p.0"})),
		} {
			if got := refusal(t, err); !strings.HasPrefix(got, want) {
				t.Errorf("%s: it says %q, not %q", what, got, want)
			}
		}
	})
}

// What an open run has just lost is asked about, and --only is named where that leaves it.
func TestOnlyIsNamedForWhatAnOpenRunHasJustLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := chargeAfter(1, endsWith(map[string][]int{"z": {65}}, map[string]time.Duration{"z": 10 * time.Minute, "slow": 10 * time.Hour}))
		w := newWorld(t, stops(unhurried(ends)))
		d := dag(func(d *manifests.DAG) {
			d.MaxParallelSteps = 8
			charges(w, &d.Steps[0])
		}, "c", "z", "slow")
		w.r = w.runner(8)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Minute)
		w.charge(t, run, "c")
		time.Sleep(15 * time.Minute)
		if _, steps := w.look(run.RunID); !strings.HasPrefix(steps["c"], "skipped RUN_") || !strings.HasPrefix(steps["z"], "failed") {
			t.Fatalf("%v", steps)
		}
		got := refusal(t, second(w.r.Retry(w.asIs(run.RunID, d), runner.Retry{Actor: "uid:7", StepID: "z"})))
		if !strings.Contains(got, "with --only these stay as they are: c") {
			t.Errorf("it says %q", got)
		}
		w.retry(t, run.RunID, d, runner.Retry{StepID: "z", Only: true})
	})
}
