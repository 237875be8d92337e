package runner_test

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// An item that had completed, and comes back in another list, is asked about, also where
// its step is named.
func TestAnItemThatComesBackIsAskedAbout(t *testing.T) {
	for _, middle := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			lists := []string{`["a","b"]`, `["c"]`, `["d","e"]`}
			if !middle {
				lists = []string{`["a","b"]`, `["d","e"]`}
			}
			w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
				switch {
				case task.StepID == "x":
					r := exit(0)
					r.Output.Values = map[string]json.RawMessage{"list": json.RawMessage(lists[min(task.Attempt, len(lists))-1])}
					return r, nil
				case task.StepID == "each.0" && task.Attempt <= 2:
					return exit(1), nil
				}
				return exit(0), nil
			}
			d := dag(func(d *manifests.DAG) {
				d.FailFast = false
				s := &d.Steps[1]
				s.Action, s.ForEach, s.MaxParallel = "once", "${ steps.x.outputs.list }", 1
			}, "x", "each<x")
			w.r = w.runner(2)
			run := w.start(d, "{}")
			w.background()
			w.later(run.RunID)
			retry := func(step string, repeat bool) error {
				now, _ := w.look(run.RunID)
				err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: step, Repeat: repeat}))
				w.later(run.RunID)
				return err
			}
			retry("x", false)
			if middle {
				if err := retry("each", false); err == nil {
					t.Fatal("1: nobody asked")
				}
				retry("each", true)
				retry("x", false)
			}
			if err := retry("each", false); codeOf(err) != "CONFLICT" {
				t.Errorf("middle %v: each.1 had completed, and nobody was asked: %v", middle, w.exec.list())
			}
		})
	}
}

// That a manifest could not be read counts for no longer than it cannot.
func TestAManifestThatCanBeReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		var after atomic.Int32
		w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
			if task.StepID == "after" && after.Add(1) == 1 {
				w.sealed.gone.Store(true)
				return exit(65), nil
			}
			return exit(0), nil
		}
		w.child(nil, "first", "after<first")
		d := parent(func(d *manifests.DAG) {
			d.Steps[0].Retry = manifests.Retry{MaxAttempts: 2, Backoff: time.Minute, MaxBackoff: time.Minute}
		}, "sub")
		w.r = w.runner(2)
		run := w.start(d, "{}")
		w.background()
		w.later(run.RunID)
		w.sealed.gone.Store(false)
		retry := func() error {
			now, _ := w.look(run.RunID)
			return second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: "sub"}))
		}
		if err := retry(); err != nil {
			t.Error(err)
		}
		w.later(run.RunID)
	})
}

// Two sub-runs that a rule has begun for one cleanup step do the same.
func TestCleanupBySeveralSubRunsIsAskedAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		var firsts atomic.Int32
		w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
			if task.StepID == "work" || task.StepID == "first" && firsts.Add(1) == 1 {
				return exit(1), nil
			}
			return exit(0), nil
		}
		k := dag(func(d *manifests.DAG) { d.ID, d.Steps[1].Action = "clean", "once" }, "first", "refund<first")
		w.sealed.publish(k)
		d := dag(func(d *manifests.DAG) {
			d.OnFailure = dag(func(d *manifests.DAG) {
				d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG = nil, "", "clean@1.0.0"
				d.Steps[0].Retry = manifests.Retry{MaxAttempts: 2, Backoff: time.Minute, MaxBackoff: time.Minute}
			}, "k").Steps
		}, "work")
		w.r = w.runner(2)
		run := w.start(d, "{}")
		w.background()
		time.Sleep(time.Second)
		k1 := w.childOf(run, "k")
		w.later(run.RunID)
		r, _ := w.look(k1)
		if err := second(w.r.Retry(w.opened(r, k), runner.Retry{Actor: "uid:7", StepID: "first"})); codeOf(err) != "CONFLICT" {
			t.Errorf("nobody was asked: %v", err)
		}
		w.later(run.RunID)
		if n := count(w.exec.list(), "refund."); n != 1 {
			t.Errorf("refund was done %d times: %v", n, w.exec.list())
		}
	})
}

// The same for one of which nothing was said but the name of its step, and that was
// withdrawn.
func TestANameDoesNotCoverAnItemThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		lists := []string{`["a","b"]`, `["c"]`, `["d","e"]`}
		w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
			switch {
			case task.StepID == "x":
				r := exit(0)
				r.Output.Values = map[string]json.RawMessage{"list": json.RawMessage(lists[min(task.Attempt, len(lists))-1])}
				return r, nil
			case task.StepID == "each.0" && task.Attempt == 2, task.StepID == "z" && task.Attempt == 1:
				return exit(1), nil
			}
			return exit(0), nil
		}
		d := dag(func(d *manifests.DAG) {
			d.FailFast = false
			s := &d.Steps[1]
			s.Action, s.ForEach, s.MaxParallel = "once", "${ steps.x.outputs.list }", 1
		}, "x", "each<x", "z")
		w.r = w.runner(2)
		run := w.start(d, "{}")
		w.background()
		w.later(run.RunID)
		retry := func(step string) error {
			now, _ := w.look(run.RunID)
			err := second(w.r.Retry(w.opened(now, d), runner.Retry{Actor: "uid:7", StepID: step}))
			w.later(run.RunID)
			return err
		}
		retry("x")
		retry("each") // it had completed: each of its items is named
		if stories := w.story(run.RunID, "repeat.withdrawn"); stories != 1 {
			t.Fatalf("withdrawn %d times", stories)
		}
		retry("x")
		if err := retry("each"); codeOf(err) != "CONFLICT" {
			t.Errorf("each.1 had completed, what was said of it was withdrawn, and nobody was asked: %v", w.exec.list())
		}
	})
}

// story counts the entries of one type of a run.
func (w *world) story(runID, typ string) (n int) {
	for l := range w.db.Entries(0, w.db.Size()) {
		env, _ := ledger.ParseEnvelope(l.Envelope)
		if env.RunID == runID && string(env.Type) == typ {
			n++
		}
	}
	return n
}

// What a reset with repeat would do twice is named, also where the sub-run that is given
// up waits for people.
func TestATrialOfAResetNamesWhatIsDoneTwice(t *testing.T) {
	for _, gate := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
				if task.StepID == "ask" {
					time.Sleep(time.Hour)
				}
				return exit(0), nil
			})
			w.child(func(d *manifests.DAG) {
				d.Steps[0].Action = "once"
				if gate {
					d.Steps[1].Plugin, d.Steps[1].Action, d.Steps[1].Checkpoint = nil, "", &manifests.Checkpoint{}
				}
			}, "charge", "ask<charge")
			d := parent(nil, "sub", "after<sub")
			w.r = w.runner(2)
			run := w.start(d, "{}")
			w.background()
			now, _ := w.later(run.RunID)
			reset := func(repeat bool) (runner.Effects, error) {
				return w.r.Try(w.opened(now, d), func(r *runner.Runner) (state.Run, error) {
					return r.Reset(w.opened(now, d), runner.Reset{Actor: "uid:7", StepID: "sub", Repeat: repeat})
				})
			}
			_, err := reset(false)
			eff, err2 := reset(true)
			if err2 != nil {
				t.Fatal(err2)
			}
			if codeOf(err) != "CONFLICT" || len(eff.Twice) != 1 {
				t.Errorf("gate %v: without repeat %v; with repeat it names %v", gate, err, eff.Twice)
			}
		})
	}
}
