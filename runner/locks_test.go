package runner_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// locking makes a DAG whose first step needs lock l.
func locking(version string, change func(*manifests.DAG), steps ...string) *manifests.DAG {
	return dag(func(d *manifests.DAG) {
		d.Version, d.Steps[0].Locks = version, []string{"l"}
		if change != nil {
			change(d)
		}
	}, steps...)
}

// held is the one holder of lock l.
func (w *world) held() (h state.LockHolder, loss ledger.LockLoss) {
	w.t.Helper()
	recs, err := w.db.Locks("default")
	if err != nil || len(recs) != 1 || len(recs[0].Holders) != 1 {
		w.t.Fatalf("locks: %+v, %v", recs, err)
	}
	h = recs[0].Holders[0]
	return h, ledger.LockLoss{Kind: recs[0].Kind, Name: recs[0].Name, RunID: h.RunID, StepID: h.StepID, Fence: h.Fence, Reason: "test"}
}

func TestAHolderThatLosesItsLockFails(t *testing.T) {
	for _, c := range []struct {
		name string
		late bool // it ends well before it notices
	}{{name: "it is stopped"}, {name: "it comes late", late: true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			begun, goOn := make(chan string, 2), make(chan bool)
			w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
				begun <- task.RunID
				<-goOn
				if c.late || ctx.Err() == nil {
					return exit(0), nil
				}
				return runner.Report{Stop: runner.StopShutdown}, nil
			}
			w.with(func(o *runner.Options) { o.Workers = 2 })
			first, second := w.start(locking("1.0.0", nil, "a"), "{}"), w.start(locking("1.1.0", nil, "a"), "{}")
			done := make(chan error)
			go func() { done <- w.r.Run(context.Background(), true) }()
			if got := <-begun; got != first.RunID {
				t.Fatalf("%s began first", got)
			}
			if got := w.r.Waits(second.RunID, "a"); got != "lock l, held by step a of run "+first.RunID {
				t.Errorf("the second waits for %q", got)
			}
			before, loss := w.held()
			if err := w.r.LoseLock(ledger.LockForced, "uid:7", "default", loss); err != nil {
				t.Fatal(err)
			}
			if got := <-begun; got != second.RunID {
				t.Fatalf("%s began next", got)
			}
			if after, _ := w.held(); after.RunID != second.RunID || after.Fence <= before.Fence {
				t.Errorf("held by %+v, before by %+v", after, before)
			}
			if err := w.r.LoseLock(ledger.LockForced, "uid:7", "default", loss); err == nil {
				t.Error("it was taken from the same holder twice")
			}
			close(goOn)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			run, steps := w.look(first.RunID)
			if run.FailureReason != string(state.LockLost) || !strings.HasPrefix(steps["a"], "failed LOCK_LOST") {
				t.Errorf("the first run failed of %q: %v", run.FailureReason, steps)
			}
			if a, err := w.db.Attempt(first.RunID, "a", 1); err != nil || a.End.Message != "lock l was taken away" || a.End.OutputsHash != "" {
				t.Errorf("its attempt ended as %+v, %v", a.End, err)
			}
			if run, _ := w.look(second.RunID); run.Status != state.Completed {
				t.Errorf("the second run is %s", run.Status)
			}
		})
	}
}

// orphan leaves a run behind whose sub-run holds lock l, and others, and that nobody
// executes.
func orphan(t *testing.T, w *world, more ...string) (run state.Run, d *manifests.DAG) {
	t.Helper()
	w.sealed.publish(dag(func(d *manifests.DAG) { d.ID = "sub" }, "x"))
	d = locking("1.0.0", func(d *manifests.DAG) {
		d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG = nil, "", "sub@1.0.0"
		d.Steps[0].Locks = append(d.Steps[0].Locks, more...)
	}, "a")
	w.exec.run = func(ctx context.Context, _ runner.Task) (runner.Report, error) {
		<-ctx.Done()
		return runner.Report{Stop: runner.StopShutdown}, nil
	}
	run = w.start(d, "{}")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.r.Run(ctx, false) }()
	synctest.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(more) == 0 {
		w.held()
	}
	w.exec.run = ok
	w.reopen()
	return run, d
}

// All locks of a holder that nobody executes are taken from it by somebody who waits for
// them.
func TestALockIsReclaimedBesideAnotherOfItsHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		orphan(t, w, "m")
		time.Sleep(time.Hour)
		w.with(func(*runner.Options) {})
		w.background()
		waits := w.start(locking("1.1.0", func(d *manifests.DAG) { d.Steps[0].Locks = []string{"l", "m"} }, "b"), "{}")
		time.Sleep(time.Hour)
		if got, steps := w.look(waits.RunID); got.Status != state.Completed {
			t.Errorf("the run is %s: %v; %s", got.Status, steps, w.r.Waits(waits.RunID, "b"))
		}
	})
}

// noRoom is a store that takes no loss of a lock until it is told to.
type noRoom struct {
	runner.Store
	room  atomic.Bool
	tries atomic.Int32
}

func (f *noRoom) LoseLock(t ledger.Type, actor, tenant string, d ledger.LockLoss) error {
	f.tries.Add(1)
	time.Sleep(2 * time.Millisecond) // as a write takes
	if !f.room.Load() {
		return errors.New("no room")
	}
	return f.Store.LoseLock(t, actor, tenant, d)
}

// A stale lock whose loss cannot be written is tried again in a while, and not at once
// and without end.
func TestALockThatCannotBeReclaimedIsTriedAgainInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		orphan(t, w)
		time.Sleep(time.Hour)
		s := &noRoom{Store: w.db}
		w.with(func(o *runner.Options) { o.Store = s })
		w.background()
		waits := w.start(locking("1.1.0", nil, "b"), "{}")
		for end := time.Now().Add(10*runner.StaleAfter + time.Second); time.Now().Before(end); {
			time.Sleep(time.Millisecond)
			w.r.StopQueue(state.QueueState{}) // lets the queue be looked at, as others' comings and goings do
		}
		if n := s.tries.Load(); n != 10 {
			t.Errorf("it was tried %d times in %s", n, 10*runner.StaleAfter)
		}
		s.room.Store(true)
		w.wait(waits.RunID)
		if n := s.tries.Load(); n != 11 {
			t.Errorf("it was tried %d times", n)
		}
	})
}

func TestALockWhoseHolderNobodyExecutesIsReclaimedWhenItIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		parent, d := orphan(t, w)
		time.Sleep(time.Hour) // however long nobody looked
		begun := time.Now()
		w.with(func(*runner.Options) {})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- w.r.Run(ctx, false) }()
		synctest.Wait()
		w.wait(w.start(locking("1.1.0", nil, "b"), "{}").RunID)
		if took := time.Since(begun); took != runner.StaleAfter {
			t.Errorf("the lock was had after %s", took)
		}
		entries := 0
		for l, err := range w.db.Entries(0, w.db.Size()) {
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(l.Envelope), string(ledger.LockReclaimed)) {
				entries++
			}
		}
		if entries != 1 {
			t.Errorf("%d entries say so, want 1", entries)
		}
		if err := w.r.Resume(ctx, "uid:7", w.opened(parent, d)); err != nil {
			t.Fatal(err)
		}
		if run := w.wait(parent.RunID); run.FailureReason != string(state.LockLost) {
			t.Errorf("the late holder failed of %q", run.FailureReason)
		}
		if child := w.childOf(parent, "a"); w.wait(child).Status != state.Cancelled {
			t.Error("its sub-run went on")
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func (w *world) childOf(run state.Run, step string) string {
	w.t.Helper()
	steps, err := w.db.Steps(run.RunID)
	if err != nil || steps[step].Child == nil {
		w.t.Fatalf("step %s has no sub-run: %v", step, err)
	}
	return steps[step].Child.RunID
}

// A run that is ended by hand while nobody executes it holds nothing up.
func TestALockComesFreeWhenItsHolderIsCancelledWhileNobodyExecutesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		parent, d := orphan(t, w)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- w.r.Run(ctx, false) }()
		synctest.Wait()
		waiting := w.start(locking("1.1.0", nil, "b"), "{}")
		synctest.Wait()
		if !strings.HasPrefix(w.r.Waits(waiting.RunID, "b"), "lock l, held by") {
			t.Error("the other run does not wait")
		}
		begun := time.Now()
		if _, err := w.r.Cancel("uid:7", "", w.opened(parent, d)); err != nil {
			t.Fatal(err)
		}
		w.wait(waiting.RunID)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the lock was had after %s", took)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestASubRunThatWantsWhatItsParentHoldsIsRefused(t *testing.T) {
	w := newWorld(t, ok)
	w.sealed.publish(dag(func(d *manifests.DAG) { d.ID, d.Steps[0].Semaphores = "inner", map[string]int64{"s": 1} }, "x"))
	w.sealed.publish(dag(func(d *manifests.DAG) {
		d.ID = "sub"
		d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG = nil, "", "inner@1.0.0"
	}, "y"))
	_, err := w.tryStart(dag(func(d *manifests.DAG) {
		d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG, d.Steps[0].Semaphores = nil, "", "sub@1.0.0", map[string]int64{"s": 1}
	}, "a"), "{}")
	var plan *runner.PlanError
	if want := "semaphore s: step x of its sub-run inner@1.0.0 waits for it"; !errors.As(err, &plan) || !strings.Contains(err.Error(), want) {
		t.Errorf("it was planned: %v, want %q", err, want)
	}
}
