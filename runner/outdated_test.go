package runner_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/runner"
)

// Items that completed with what a step gave before it was done again are not kept
// beside others that read what it gives now, however their step is begun again; what is
// not idempotent is asked about first.
func TestOutdatedItemsAreNotKept(t *testing.T) {
	before := map[string]func(*reading) error{
		"a retry": func(r *reading) error {
			return second(r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "x"}))
		},
		"a reset": func(r *reading) error { return second(r.r.Reset(r.now(), "uid:7", "", "x", false)) },
	}
	after := map[string]func(r *reading, repeat bool) error{
		"their step is retried": func(r *reading, repeat bool) error {
			return second(r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "each", Repeat: repeat}))
		},
		"another item is retried": func(r *reading, repeat bool) error {
			return second(r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "each.1", Repeat: repeat}))
		},
		"their step is reset": func(r *reading, repeat bool) error {
			return second(r.r.Reset(r.now(), "uid:7", "", "each", repeat))
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

// A skip of an item goes on with its step, and does not ask.
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
	if !errors.As(err, &bad) || !strings.Contains(bad.Text, "step each.0 is not idempotent") || !strings.Contains(bad.Hint, "--step each --repeat") {
		t.Fatal(err)
	}
	if _, err := r.r.Retry(r.now(), runner.Retry{Actor: "uid:7", StepID: "each", Repeat: true}); err != nil {
		t.Fatal(err)
	}
	steps := r.end()
	if diff := cmp.Diff(map[string]string{"each.0": `{"x":2}`, "each.1": `{"x":2}`}, r.gave()); diff != "" {
		t.Errorf("they gave (-want +got):\n%s%v", diff, steps)
	}
}
