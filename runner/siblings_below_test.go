package runner_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// cousins is a run whose step has begun two sub-runs, each with one of its own, which
// failed before their step "charge".
func cousins(t *testing.T) (w *world, mids, grands [2]string) {
	t.Helper()
	w = newWorld(t, nil)
	var firsts atomic.Int32
	w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "first" && firsts.Add(1) <= 2 {
			return exit(1), nil
		}
		return exit(0), nil
	}
	g := dag(func(d *manifests.DAG) { d.ID = "grand"; d.Steps[1].Action = "once" }, "first", "charge<first")
	w.sealed.publish(g)
	c := dag(func(d *manifests.DAG) {
		d.ID = "child"
		d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG = nil, "", "grand@1.0.0"
	}, "mid")
	w.sealed.publish(c)
	top := parent(func(d *manifests.DAG) {
		d.Steps[0].Retry = manifests.Retry{MaxAttempts: 2, Backoff: time.Hour, MaxBackoff: time.Hour}
	}, "sub")
	w.r = w.runner(4)
	run := w.start(top, "{}")
	w.background()
	time.Sleep(time.Second)
	mids[0] = w.childOf(run, "sub")
	m, _ := w.look(mids[0])
	grands[0] = w.childOf(m, "mid")
	time.Sleep(2 * time.Hour)
	mids[1] = w.childOf(run, "sub")
	m, _ = w.look(mids[1])
	grands[1] = w.childOf(m, "mid")
	if mids[0] == mids[1] || grands[0] == grands[1] {
		t.Fatal("there is but one sub-run")
	}
	return w, mids, grands
}

// What somebody has finished below an older sub-run is asked about where the younger one,
// or one below that, is reopened.
func TestWhatIsBelowAnOlderSubRunCounts(t *testing.T) {
	for _, which := range []string{"M2", "G2"} {
		t.Run(which, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, mids, grands := cousins(t)
				open := func(id, dagID string) runner.Opened {
					r, _ := w.look(id)
					return w.opened(r, w.sealed.dags[dagID+"@1.0.0"])
				}
				if err := second(w.r.Retry(open(grands[0], "grand"), runner.Retry{Actor: "uid:7", StepID: "first"})); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if n := count(w.exec.list(), "charge."); n != 1 {
					t.Fatal(n, w.exec.list())
				}
				var err error
				if which == "M2" {
					err = second(w.r.Retry(open(mids[1], "child"), runner.Retry{Actor: "uid:7", StepID: "mid"}))
				} else {
					err = second(w.r.Retry(open(grands[1], "grand"), runner.Retry{Actor: "uid:7", StepID: "first"}))
				}
				if codeOf(err) != "CONFLICT" || !strings.Contains(err.Error(), "has gone on with run") {
					t.Errorf("nobody was asked: %v", err)
				}
			})
		})
	}
}

// That items may do twice what they have done is over when somebody passes over their
// step.
func TestWhatWasSaidOfItemsIsOverWithASkipOfTheirStep(t *testing.T) {
	for _, sub := range []bool{true, false} {
		for _, items := range []bool{true, false} {
			name := map[bool]string{true: "sub-run", false: "plugin"}[sub] + map[bool]string{true: " items", false: " step"}[items]
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ups, zs := 0, 0
					w := newWorld(t, nil)
					w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
						switch task.StepID {
						case "up":
							if ups++; ups == 2 {
								time.Sleep(10 * time.Minute)
							}
						case "z":
							if zs++; zs <= 2 {
								return exit(65), nil
							}
						}
						return exit(0), nil
					}
					w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge")
					d := dag(func(d *manifests.DAG) {
						s := &d.Steps[1]
						s.AllowSkip = true
						s.Action = "once"
						if items {
							s.ForEach = []any{int64(0), int64(1)}
						}
						if sub {
							s.Plugin, s.Action, s.DAG = nil, "", "child@1.0.0"
						}
					}, "up", "charge<up", "z<charge")
					w.r = w.runner(4)
					run := w.start(d, "{}")
					w.background()
					time.Sleep(time.Minute)
					now := func() runner.Opened { r, _ := w.look(run.RunID); return w.opened(r, d) }
					n1 := count(w.exec.list(), "charge")
					if err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "up", Downstream: true, Repeat: true})); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Minute)
					if err := second(w.r.Skip(now(), runner.Skip{Actor: "uid:8", StepID: "charge", Reason: "it is done, do not repeat"})); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Hour)
					if sub {
						_ = second(w.r.Reset(now(), runner.Reset{Actor: "uid:7", StepID: "charge"}))
					} else {
						_ = second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "up", Downstream: false}))
					}
					time.Sleep(time.Hour)
					if n := count(w.exec.list(), "charge"); n != n1 {
						t.Errorf("charge was done %d times, before %d: %v", n, n1, w.exec.list())
					}
				})
			})
		}
	}
}

// That items may do twice what they have done is over when their step has gone on without
// them.
func TestWhatWasSaidOfItemsIsOverWithTheirList(t *testing.T) {
	for _, middle := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			ups, zs := 0, 0
			w := newWorld(t, nil)
			w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
				switch task.StepID {
				case "up":
					list := `[0,1]`
					if ups++; ups == 2 {
						list = `[]`
					}
					rep := exit(0)
					rep.Output = runner.Output{Values: map[string]json.RawMessage{"list": json.RawMessage(list)}}
					return rep, nil
				case "z":
					if zs++; zs <= 2 {
						return exit(65), nil
					}
				}
				return exit(0), nil
			}
			w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "charge")
			d := dag(func(d *manifests.DAG) {
				s := &d.Steps[1]
				s.Plugin, s.Action, s.DAG = nil, "", "child@1.0.0"
				s.ForEach = "${ steps.up.outputs.list }"
			}, "up", "each<up", "z<each")
			w.r = w.runner(4)
			run := w.start(d, "{}")
			w.background()
			time.Sleep(time.Minute)
			now := func() runner.Opened { r, _ := w.look(run.RunID); return w.opened(r, d) }
			n1 := count(w.exec.list(), "charge")
			if middle {
				if err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:7", StepID: "up", Downstream: true, Repeat: true})); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				steps, err := w.db.Steps(run.RunID)
				if err != nil || steps["each.0"].Repeat || steps["each.1"].Repeat {
					t.Errorf("it is on record still: %v %+v %+v", err, steps["each.0"], steps["each.1"])
				}
			}
			if err := second(w.r.Retry(now(), runner.Retry{Actor: "uid:9", StepID: "up", Downstream: true})); codeOf(err) != "CONFLICT" {
				t.Errorf("nobody was asked: %v", err)
			}
			time.Sleep(time.Hour)
			if n := count(w.exec.list(), "charge"); n != n1 {
				t.Errorf("charge was done %d times, before %d: %v", n, n1, w.exec.list())
			}
		})
	}
}
