package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

var errFull = errors.New("no space left")

// full is sealed content on a disk that has room for so many blobs more.
type full struct {
	*memory
	room atomic.Int64
}

func (f *full) Put(raw []byte) (string, error) {
	if f.room.Add(-1) < 0 {
		return "", errFull
	}
	return f.memory.Put(raw)
}

// onDisk lets a world work on a disk with room.
func (w *world) onDisk() *full {
	f := &full{memory: w.sealed}
	f.room.Store(1000)
	w.with(func(o *runner.Options) { o.Sealed, o.Workers = f, 2 })
	return f
}

// A decision whose changes cannot be sealed is none: it can be made again.
func TestADecisionThatCannotBeSealedIsNone(t *testing.T) {
	for room := range int64(2) { // for what is changed, and for what comes of it
		w := newWorld(t, ok)
		disk := w.onDisk()
		d := dag(func(d *manifests.DAG) { d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "?"} }, "a")
		run := w.start(d, "{}")
		w.background()
		dec := decision(w.asked(run.RunID, "a"), "uid:5", "continue")
		dec.Modifications = json.RawMessage(`{"x":1}`)
		disk.room.Store(room)
		if _, err := w.r.Decide(w.opened(run, d), dec); !errors.Is(err, errFull) {
			t.Fatalf("on a full disk: %v", err)
		}
		disk.room.Store(1000)
		if s := w.asked(run.RunID, "a"); len(s.Approval.Decisions) > 0 {
			t.Errorf("on record is %+v", s.Approval.Decisions)
		}
		if _, err := w.r.Decide(w.opened(run, d), dec); err != nil {
			t.Fatalf("once more: %v", err)
		}
		if got, steps := w.ended(run.RunID); got.Status != state.Completed || w.blob(steps["a"].OutputsHash) != `{"x":1}` {
			t.Errorf("the run is %s", got.Status)
		}
	}
}

// A run that could not be reopened is as it was before, and can be reopened later.
func TestARunThatCouldNotBeReopened(t *testing.T) {
	for what, act := range map[string]func(*world, runner.Opened) error{
		"retry": func(w *world, o runner.Opened) error {
			return second(w.r.Retry(o, runner.Retry{Actor: "uid:5", StepID: "each"}))
		},
		"reset": func(w *world, o runner.Opened) error {
			return second(w.r.Reset(o, runner.Reset{Actor: "uid:5", StepID: "each"}))
		},
		"skip": func(w *world, o runner.Opened) error {
			return second(w.r.Skip(o, runner.Skip{Actor: "uid:5", StepID: "a"}))
		},
	} {
		t.Run(what, func(t *testing.T) {
			var calm atomic.Bool
			w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
				if !calm.Load() {
					return exit(65), nil
				}
				return exit(0), nil
			})
			disk := w.onDisk()
			d := dag(func(d *manifests.DAG) {
				d.Steps[0].ForEach, d.Steps[1].AllowSkip = []any{int64(1), int64(2)}, true
				if what == "skip" {
					d.Steps[0].Needs = []string{"a"}
				} else {
					d.Steps = d.Steps[:1]
				}
			}, "each", "a")
			run := w.start(d, "{}")
			w.background()
			run, _ = w.ended(run.RunID)
			calm.Store(true)
			disk.room.Store(map[string]int64{"skip": 1}[what]) // for the outputs
			before := w.db.Size()
			if err := act(w, w.opened(run, d)); !errors.Is(err, errFull) {
				t.Fatalf("on a full disk: %v", err)
			}
			disk.room.Store(1000)
			if _, err := w.r.Nudge(w.opened(run, d), "uid:6", ""); !errors.Is(err, runner.ErrEnded) {
				t.Errorf("a nudge of what has failed: %v", err)
			}
			if w.r.Executes(run.RunID) || w.db.Size() != before {
				t.Errorf("it is executed: %v; %d entries were written", w.r.Executes(run.RunID), w.db.Size()-before)
			}
			if err := act(w, w.opened(run, d)); err != nil {
				t.Fatalf("once more: %v", err)
			}
			w.until(run.RunID, func(r state.Run, _ map[string]state.Step) bool { return r.Status == state.Completed })
		})
	}
}

// What is decided on a run that goes on and cannot be written ends the runner, as any
// write that fails: nothing of it is written with what is decided next.
func TestADecisionOnARunThatGoesOnIsNotWrittenLater(t *testing.T) {
	began := make(chan string, 9)
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		began <- task.StepID
		if task.StepID == "long" && task.Attempt == 1 {
			return hangs(ctx, task)
		}
		if task.StepID != "long" && task.Attempt == 1 {
			return exit(65), nil
		}
		return exit(0), nil
	})
	disk := w.onDisk()
	d := dag(func(d *manifests.DAG) {
		d.FailFast, d.MaxParallelSteps, d.Steps[0].ForEach = false, 2, []any{int64(1)}
	}, "each", "long")
	run := w.start(d, "{}")
	ran := make(chan error, 1)
	go func() { ran <- w.r.Run(context.Background(), false) }()
	w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool {
		return s["each"].Status == state.Failed && s["long"].Open
	})
	disk.room.Store(0)
	if _, err := w.r.Retry(w.opened(run, d), runner.Retry{Actor: "uid:5", StepID: "each"}); !errors.Is(err, errFull) {
		t.Fatalf("on a full disk: %v", err)
	}
	disk.room.Store(1000)
	_, _ = w.r.Nudge(w.opened(run, d), "uid:6", "") // it may be too late for that
	if err := <-ran; !errors.Is(err, errFull) {
		t.Errorf("the runner ended with %v", err)
	}
	if s, _ := w.db.Steps(run.RunID); s["each"].Status != state.Failed {
		t.Errorf("each is %s", s["each"].Status)
	}
	w.reopen()
	if _, err := w.r.Recover(context.Background(), w.opened(run, d)); err != nil {
		t.Fatal(err)
	}
	if err := w.r.Resume(context.Background(), "uid:0", w.opened(run, d)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.r.Retry(w.opened(run, d), runner.Retry{Actor: "uid:5", StepID: "each"}); err != nil {
		t.Fatal(err)
	}
	_, steps := w.finish(run.RunID)
	if diff := cmp.Diff(map[string]string{"each": "completed", "each.0": "completed", "long": "completed"}, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

// A reset that cannot be written leaves sub-runs alone.
func TestAResetThatCannotBeWrittenEndsNoSubRun(t *testing.T) {
	began := make(chan string, 9)
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		began <- task.StepID
		return hangs(ctx, task)
	})
	disk := w.onDisk()
	w.child(nil, "first")
	d := parent(func(d *manifests.DAG) { d.Steps[0].ForEach = []any{int64(0)} }, "sub")
	run := w.start(d, "{}")
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.r.Run(ctx, false) }()
	<-began
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	disk.room.Store(0)
	idle := runner.New(runner.Options{Store: w.db, Sealed: disk, Now: w.now})
	before := w.db.Size()
	if _, err := idle.Reset(w.opened(run, d), runner.Reset{Actor: "uid:5", StepID: "sub", Repeat: true}); !errors.Is(err, errFull) {
		t.Fatalf("on a full disk: %v", err)
	}
	if child, err := w.db.Run(w.childOf(run, "sub.0")); err != nil || child.CancelRequested() || w.db.Size() != before {
		t.Errorf("its sub-run: cancelled %v, %v; %d entries were written", child.CancelRequested(), err, w.db.Size()-before)
	}
}
