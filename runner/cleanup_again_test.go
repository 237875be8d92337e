package runner_test

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// cleanedUp is a run of a step a, and of b beside it, that ends with its cleanup half done:
// k has completed, of keach the first item has, the second has failed, last has had no turn.
func cleanedUp(t *testing.T, w *world, d *manifests.DAG, codes map[string][]int) string {
	t.Helper()
	codes["keach.1"] = []int{65}
	d.OnFailure = dag(nil, "k", "keach<k", "last<keach").Steps
	for i := range d.OnFailure {
		d.OnFailure[i].Action, d.OnFailure[i].AllowSkip = "once", true
	}
	d.OnFailure[2].Action = "go"
	d.OnFailure[1].ForEach, d.OnFailure[1].MaxParallel = []any{"a", "b"}, 1
	return w.start(d, "{}").RunID
}

// unhurried takes its time to end, so that it ends after what has stopped it.
func unhurried(f func(context.Context, runner.Task) (runner.Report, error)) func(context.Context, runner.Task) (runner.Report, error) {
	return func(ctx context.Context, task runner.Task) (runner.Report, error) {
		defer time.Sleep(time.Second)
		return f(ctx, task)
	}
}

// A retry, a skip or a reset of a part of the cleanup is about that part and what waits for
// it: what is done is not done again, and the run stays failed for what it failed for.
func TestCleanupThatIsDoneStaysDone(t *testing.T) {
	ends := map[string]func(*testing.T, *world, *manifests.DAG, string){
		"a step failed": func(*testing.T, *world, *manifests.DAG, string) {},
		"failed by hand": func(t *testing.T, w *world, d *manifests.DAG, id string) {
			if err := second(w.r.Fail(w.asIs(id, d), "uid:7", state.FailedByHand, "no more")); err != nil {
				t.Fatal(err)
			}
		},
		"its time was over": func(*testing.T, *world, *manifests.DAG, string) {},
	}
	acts := map[string]func(*testing.T, *world, *manifests.DAG, string){
		"retry": func(t *testing.T, w *world, d *manifests.DAG, id string) {
			w.retry(t, id, d, runner.Retry{StepID: "keach"})
		},
		"retry of an item": func(t *testing.T, w *world, d *manifests.DAG, id string) {
			w.retry(t, id, d, runner.Retry{StepID: "keach.1"})
		},
		"skip": func(t *testing.T, w *world, d *manifests.DAG, id string) {
			w.skip(t, id, d, runner.Skip{StepID: "keach"})
		},
		"skip of an item": func(t *testing.T, w *world, d *manifests.DAG, id string) {
			w.skip(t, id, d, runner.Skip{StepID: "keach.1"})
		},
		"reset": func(t *testing.T, w *world, d *manifests.DAG, id string) {
			if err := second(w.r.Reset(w.asIs(id, d), runner.Reset{Actor: "uid:7", StepID: "keach"})); err != nil {
				t.Fatal(err)
			}
		},
	}
	for end, ending := range ends {
		for what, act := range acts {
			for _, restarts := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, restarts %v", end, what, restarts), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						codes := map[string][]int{}
						if end == "a step failed" {
							codes["a"] = []int{65}
						}
						w := newWorld(t, unhurried(endsWith(codes, map[string]time.Duration{"a": time.Minute, "last": time.Minute})))
						d := dag(func(d *manifests.DAG) {
							if end == "its time was over" {
								d.Timeout = 30 * time.Second
							}
						}, "a", "b<a")
						w.r = w.runner(4)
						id := cleanedUp(t, w, d, codes)
						stop := w.executing()
						time.Sleep(10 * time.Second)
						ending(t, w, d, id)
						time.Sleep(10 * time.Minute)
						was, before := w.look(id)
						if was.Status != state.Failed || before["k"] != "completed" || before["last"] != "skipped UPSTREAM_FAILED" {
							t.Fatalf("the run is %s: %v", was.Status, before)
						}
						act(t, w, d, id)
						if restarts {
							time.Sleep(10 * time.Second)
							stop()
							w.reopen()
							stop = w.again(t, id, d, 4)
						}
						time.Sleep(10 * time.Minute)
						stop()
						now, after := w.look(id)
						want := maps.Clone(before)
						want["last"] = "completed"
						switch what {
						case "skip":
							want["keach"] = "skipped SKIPPED_BY_HAND"
						case "skip of an item":
							want["keach"], want["keach.1"] = "completed", "skipped SKIPPED_BY_HAND"
						default:
							want["keach"], want["keach.1"] = "completed", "completed"
						}
						if diff := cmp.Diff(want, after); diff != "" {
							t.Errorf("steps (-want +got):\n%s", diff)
						}
						type reason struct{ status, code, step, text string }
						of := func(r state.Run) reason { return reason{string(r.Status), r.FailureReason, r.FailedStep, r.Message} }
						if of(now) != of(was) {
							t.Errorf("it ended with %v, and now with %v", of(was), of(now))
						}
						recs, _ := w.db.Steps(id)
						if k, i, a := recs["k"].Attempt, recs["keach.0"].Attempt, recs["a"].Attempt; k != 1 || i != 1 || a != 1 {
							t.Errorf("attempts of k %d, of keach.0 %d, of a %d", k, i, a)
						}
					})
				})
			}
		}
	}
}

// Another end has a cleanup of its own, whole, also after the one before was repaired.
func TestAnotherEndCleansUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		codes := map[string][]int{"a": {65, 65}}
		w := newWorld(t, endsWith(codes, nil))
		d := dag(nil, "a")
		w.r = w.runner(4)
		w.background()
		id := cleanedUp(t, w, d, codes)
		time.Sleep(time.Minute)
		w.retry(t, id, d, runner.Retry{StepID: "keach"})
		time.Sleep(time.Minute)
		w.retry(t, id, d, runner.Retry{StepID: "a"})
		time.Sleep(time.Minute)
		recs, _ := w.db.Steps(id)
		got := map[string]int{}
		for _, s := range []string{"a", "k", "keach.0", "keach.1", "last"} {
			got[s] = recs[s].Attempt
		}
		if diff := cmp.Diff(map[string]int{"a": 2, "k": 2, "keach.0": 2, "keach.1": 3, "last": 2}, got); diff != "" {
			t.Errorf("attempts (-want +got):\n%s", diff)
		}
	})
}

// What waits for a part of the cleanup that has failed is not begun without it.
func TestCleanupIsHeldByCleanup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		codes := map[string][]int{"a": {65}, "c1": {65}}
		w := newWorld(t, endsWith(codes, nil))
		d := dag(func(d *manifests.DAG) { d.OnFailure = dag(nil, "c1", "c2<c1").Steps }, "a")
		w.r = w.runner(4)
		w.background()
		id := w.start(d, "{}").RunID
		time.Sleep(time.Minute)
		refused(t, second(w.r.Reset(w.asIs(id, d), runner.Reset{Actor: "uid:7", StepID: "c2", Repeat: true})))
		w.retry(t, id, d, runner.Retry{StepID: "c1"})
		time.Sleep(time.Minute)
		if _, now := w.look(id); now["c1"] != "completed" || now["c2"] != "completed" {
			t.Errorf("%v", now)
		}
	})
}

// A sub-run that has cleaned up after this end counts as what has been done, also once the
// run was reopened for another part of its cleanup.
func TestASubrunOfTheSameEndIsAskedAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		codes := map[string][]int{"a": {65}, "k": {65}, "x": {65}}
		w := newWorld(t, endsWith(codes, nil))
		w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "pay", "x<pay")
		d := dag(func(d *manifests.DAG) {
			d.OnFailure = dag(nil, "k", "sub").Steps
			d.OnFailure[1].Plugin, d.OnFailure[1].Action, d.OnFailure[1].DAG = nil, "", "child@1.0.0"
		}, "a")
		w.r = w.runner(4)
		w.background()
		id := w.start(d, "{}").RunID
		time.Sleep(time.Minute)
		w.retry(t, id, d, runner.Retry{StepID: "k"})
		time.Sleep(time.Minute)
		refused(t, second(w.r.Retry(w.asIs(id, d), runner.Retry{Actor: "uid:7", StepID: "sub"})))
	})
}
