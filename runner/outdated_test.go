package runner_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// Items that completed with what a step gave before it was done again are not kept
// beside others that read what it gives now, however their step is begun again; what is
// not idempotent is asked about first.
func TestOutdatedItemsAreNotKept(t *testing.T) {
	before := map[string]func(*reading) error{
		"a retry": func(r *reading) error {
			return second(r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "x"}))
		},
		"a reset": func(r *reading) error {
			return second(r.r.Reset(r.now(), runner.Reset{Actor: "uid:7", StepID: "x"}))
		},
	}
	after := map[string]func(r *reading, repeat bool) error{
		"their step is retried": func(r *reading, repeat bool) error {
			return second(r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "each", Repeat: repeat}))
		},
		"another item is retried": func(r *reading, repeat bool) error {
			return second(r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "each.1", Repeat: repeat}))
		},
		"their step is reset": func(r *reading, repeat bool) error {
			return second(r.r.Reset(r.now(), runner.Reset{Actor: "uid:7", StepID: "each", Repeat: repeat}))
		},
	}
	for what, again := range before {
		for how, goOn := range after {
			for _, action := range []string{"go", "once"} {
				t.Run(what+", "+how+", "+action, func(t *testing.T) {
					r := &reading{fail: []string{"each.1.1"}}
					r.start(t, action)
					r.end()
					if err := again(r); err != nil {
						t.Fatal(err)
					}
					r.end()
					r.reopen() // what is outdated is known of the record
					if action == "once" {
						bad := (*runner.ConflictError)(nil)
						if err := goOn(r, false); !errors.As(err, &bad) || !strings.Contains(bad.Text, "step each.0 is not idempotent") {
							t.Fatal(err)
						}
					}
					if err := goOn(r, true); err != nil {
						t.Fatal(err)
					}
					steps := r.end()
					if diff := cmp.Diff(map[string]string{"each.0": `{"x":2}`, "each.1": `{"x":2}`}, r.gave()); diff != "" {
						t.Errorf("they gave (-want +got):\n%s%v", diff, steps)
					}
				})
			}
		}
	}
}

// An item that completed after the last end of all that its step reads is kept.
func TestItemsThatAreUpToDateAreKept(t *testing.T) {
	r := &reading{fail: []string{"each.1.1"}}
	r.start(t, "once")
	r.end()
	r.reopen()
	if _, err := r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "each"}); err != nil {
		t.Fatal(err)
	}
	r.end()
	if diff := cmp.Diff([]string{"x.1", "each.0.1", "each.1.1", "each.1.2"}, r.exec.seen); diff != "" {
		t.Error(diff)
	}
}

// A skip of an item goes on with its step, and asks about the others.
func TestASkipDoesNothingTwiceUnasked(t *testing.T) {
	r := &reading{fail: []string{"each.1.1"}}
	r.start(t, "once")
	r.end()
	if _, err := r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "x"}); err != nil {
		t.Fatal(err)
	}
	r.end()
	_, err := r.r.Skip(r.now(), runner.Skip{Actor: "uid:7", StepID: "each.1"})
	bad := (*runner.ConflictError)(nil)
	if !errors.As(err, &bad) || !strings.Contains(bad.Text, "step each.0 is not idempotent") || !strings.Contains(bad.Hint, "--repeat") {
		t.Fatal(err)
	}
	if _, err := r.r.Skip(r.now(), runner.Skip{Actor: "uid:7", StepID: "each.1", Repeat: true}); err != nil {
		t.Fatal(err)
	}
	steps := r.end()
	if diff := cmp.Diff(map[string]string{"each.0": `{"x":2}`, "each.1": "{}"}, r.gave()); diff != "" {
		t.Errorf("they gave (-want +got):\n%s%v", diff, steps)
	}
}

// Items that are sub-runs are outdated alike, and what they have done is asked about.
func TestOutdatedSubRunsAreAskedAbout(t *testing.T) {
	for _, named := range []string{"each", "each.1"} {
		t.Run(named, func(t *testing.T) {
			w := newWorld(t, nil)
			fail := true
			w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
				switch {
				case task.StepID == "x":
					r := exit(0)
					r.Output.Values = map[string]json.RawMessage{"x": json.RawMessage(fmt.Sprint(task.Attempt))}
					return r, nil
				case bytes.Contains(task.Request, []byte(`"i":1`)) && fail:
					fail = false
					return exit(3), nil
				}
				return says(ctx, task)
			}
			w.child(func(d *manifests.DAG) {
				d.Inputs = map[string]manifests.Input{"x": {Type: "integer"}, "i": {Type: "integer"}}
				d.Steps[0].Action = "once"
				d.Steps[0].With = map[string]any{"x": "${ inputs.x }", "i": "${ inputs.i }"}
				d.Outputs = map[string]any{"x": "${ steps.charge.outputs.x }"}
			}, "charge")
			d := dag(func(d *manifests.DAG) {
				s := &d.Steps[1]
				s.AllowSkip = true
				s.Plugin, s.Action, s.DAG = nil, "", "child@1.0.0"
				s.ForEach, s.MaxParallel = []any{int64(0), int64(1)}, 1
				s.With = map[string]any{"x": "${ steps.x.outputs.x }", "i": "${ item }"}
			}, "x", "each<x")
			run := w.start(d, "{}")
			again := func(q runner.Retry) error {
				now, _ := w.look(run.RunID)
				q.Actor = "uid:7"
				return second(w.r.Retry(w.opened(now, d), q))
			}
			if now, steps := w.finish(run.RunID); now.Status != state.Failed || steps["each.0"] != "completed" {
				t.Fatalf("%s: %v", now.Status, steps)
			}
			w.r = w.runner(1)
			if err := again(runner.Retry{StepID: "x"}); err != nil {
				t.Fatal(err)
			}
			w.finish(run.RunID)
			w.r = w.runner(1)
			bad := (*runner.ConflictError)(nil)
			if err := again(runner.Retry{StepID: named}); !errors.As(err, &bad) || !strings.Contains(bad.Text, "step each.0/charge is not idempotent") {
				t.Fatal(err)
			}
			now, _ := w.look(run.RunID)
			_, err := w.r.Skip(w.opened(now, d), runner.Skip{Actor: "uid:7", StepID: "each.1"})
			if !errors.As(err, &bad) || !strings.Contains(bad.Text, "step each.0/charge is not idempotent") || !strings.Contains(bad.Hint, "--repeat") {
				t.Fatalf("a skip: %v", err)
			}
			if err := again(runner.Retry{StepID: named, Repeat: true}); err != nil {
				t.Fatal(err)
			}
			now, steps := w.finish(run.RunID)
			recs, _ := w.db.Steps(run.RunID)
			if now.Status != state.Completed || w.blob(recs["each.0"].OutputsHash) != `{"x":2}` || w.blob(recs["each.1"].OutputsHash) != `{"x":2}` {
				t.Errorf("%s: %v", now.Status, steps)
			}
		})
	}
}

// While the clock stands all ends have one time, and an item is rather done again than
// kept with what counts no more: it is asked about.
func TestItemsAreOutdatedWhileTheClockStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reading{fail: []string{"each.1.1"}}
		r.start(t, "once")
		r.end()
		if _, err := r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "x"}); err != nil {
			t.Fatal(err)
		}
		r.end()
		bad := (*runner.ConflictError)(nil)
		if _, err := r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "each"}); !errors.As(err, &bad) {
			t.Errorf("nobody was asked: %v", err)
		}
	})
}
