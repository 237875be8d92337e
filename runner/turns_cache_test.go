package runner_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

func cached(s *manifests.Step) { s.Cache = &manifests.Cache{TTL: time.Hour} }

// fromCache says whether a step was taken from the cache.
func (w *world) fromCache(t *testing.T, id, step string) bool {
	t.Helper()
	recs, err := w.db.Steps(id)
	if err != nil {
		t.Fatal(err)
	}
	return recs[step].Cached != nil
}

// What somebody wants done again with what comes before it is done again, though it loses its
// turn in between.
func TestWhatIsDoneAgainIsNotTakenFromTheCache(t *testing.T) {
	for name, c := range map[string]struct {
		steps []string
		codes map[string][]int
		act   func(*testing.T, *world, string, *manifests.DAG)
	}{
		"named twice": {[]string{"a", "b<a", "v"}, map[string][]int{"a": {0, 65}}, func(t *testing.T, w *world, id string, d *manifests.DAG) {
			for range 2 {
				w.retry(t, id, d, runner.Retry{StepID: "a", Downstream: true})
				time.Sleep(time.Minute)
			}
		}},
		"put off, and lost its turn": {[]string{"b", "x"}, map[string][]int{"x": {65}}, func(t *testing.T, w *world, id string, d *manifests.DAG) {
			w.retry(t, id, d, runner.Retry{StepID: "b", Delay: time.Minute})
			time.Sleep(time.Minute)
			w.retry(t, id, d, runner.Retry{StepID: "x"})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, endsWith(c.codes, map[string]time.Duration{"x": 10 * time.Second}))
				d := dag(func(d *manifests.DAG) {
					d.FailFast = c.steps[0] == "b"
					if d.FailFast {
						d.MaxParallelSteps = 4
					}
					for i := range d.Steps {
						if d.Steps[i].ID == "b" {
							cached(&d.Steps[i])
						}
					}
				}, c.steps...)
				w.r = w.runner(4)
				w.background()
				run := w.start(d, "{}")
				time.Sleep(2500 * time.Millisecond)
				c.act(t, w, run.RunID, d)
				time.Sleep(time.Minute)
				if w.fromCache(t, run.RunID, "b") {
					t.Error("b was taken from the cache")
				}
			})
		})
	}
}

// What gets the turn that it had lost, and nobody has named, is taken from the cache, whether
// the run had ended or not.
func TestAFirstTurnMayComeFromTheCache(t *testing.T) {
	for _, b := range []string{"b<a", "b<slow"} {
		t.Run(b, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				codes := map[string][]int{}
				w := newWorld(t, endsWith(codes, map[string]time.Duration{"slow": time.Minute}))
				d := dag(func(d *manifests.DAG) { d.MaxParallelSteps = 4; cached(&d.Steps[2]) }, "a", "slow", b)
				w.r = w.runner(4)
				w.background()
				w.start(d, "{}")
				time.Sleep(2 * time.Minute)
				codes["a"] = []int{65}
				run := w.start(d, "{}")
				time.Sleep(10 * time.Second)
				w.retry(t, run.RunID, d, runner.Retry{StepID: "a"})
				time.Sleep(2 * time.Minute)
				if !w.fromCache(t, run.RunID, "b") {
					t.Error("b was done anew")
				}
			})
		})
	}
	t.Run("items", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			codes := map[string][]int{}
			w := newWorld(t, endsWith(codes, nil))
			d := dag(func(d *manifests.DAG) {
				cached(&d.Steps[0])
				d.Inputs = map[string]manifests.Input{"first": {Type: "string"}}
				d.Steps[0].ForEach, d.Steps[0].MaxParallel, d.Steps[0].With = []any{"${ inputs.first }", "b", "c"}, 1, map[string]any{"v": "${ item }"}
			}, "each")
			w.r = w.runner(4)
			w.background()
			w.start(d, `{"first":"a"}`)
			time.Sleep(time.Minute)
			codes["each.0"] = []int{65}
			run := w.start(d, `{"first":"x"}`)
			time.Sleep(time.Minute)
			w.retry(t, run.RunID, d, runner.Retry{StepID: "each.0"})
			time.Sleep(time.Minute)
			for _, id := range []string{"each.1", "each.2"} {
				if !w.fromCache(t, run.RunID, id) {
					t.Errorf("%s was done anew", id)
				}
			}
		})
	})
}
