package runner_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// crashing is a run with a sub-run that is under way, in a process that is about
// to die.
type crashing struct {
	*world
	dag   *manifests.DAG
	run   state.Run
	child string // what is under way
	disk  *mortal
	crash func()
}

// crashDuring starts a run and waits until a step of its sub-run is under way;
// steer may do something to it before, and child are the steps that it cleans up with.
func crashDuring(t *testing.T, d *manifests.DAG, step string, steer func(*world, state.Run), child ...string) *crashing {
	t.Helper()
	begun := make(chan string, 9)
	c := &crashing{dag: d}
	c.world = newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID != "c" {
			return exit(0), nil
		}
		begun <- task.RunID
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), runner.ErrCancelled) {
			return runner.Report{Stop: runner.StopCancel}, nil
		}
		return runner.Report{Stop: runner.StopShutdown}, nil
	})
	c.world.child(func(d *manifests.DAG) {
		if len(child) > 0 {
			d.OnCancel = dag(nil, child...).Steps
		}
	}, "c")
	c.disk = &mortal{DB: c.db, left: -1}
	c.r = c.on(c.disk, 1)
	c.run = c.start(d, "{}")
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.r.Run(ctx, true) }()
	c.crash = func() {
		c.disk.arm(0, false)
		cancel()
		<-ran
	}
	c.child = <-begun
	if steer != nil {
		steer(c.world, c.run)
	}
	_, steps := c.until(c.run.RunID, func(_ state.Run, s map[string]state.Step) bool {
		return s[step].Child != nil && s[step].Child.Status == ""
	})
	if c.child != steps[step].Child.RunID {
		c.child = <-begun
	}
	return c
}

// resumed lets the next process go on until everything has ended.
func (c *crashing) resumed() (run, child state.Run) {
	c.t.Helper()
	c.crash()
	c.exec = &fake{run: ok}
	c.reopen()
	active, err := c.db.ActiveRuns()
	if err != nil {
		c.t.Fatal(err)
	}
	of := map[string]*manifests.DAG{"d": c.dag, "child": c.sealed.dags["child@1.0.0"]}
	for _, r := range active {
		if _, err := c.r.Recover(context.Background(), c.opened(r, of[r.DAGID])); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, r := range active {
		if err := c.r.Resume(context.Background(), "uid:0", c.opened(r, of[r.DAGID])); err != nil && !errors.Is(err, runner.ErrEnded) {
			c.t.Fatal(err)
		}
	}
	run, _ = c.finish(c.run.RunID)
	child, _ = c.look(c.child)
	return run, child
}

// A parent gives up its sub-run, and the process dies before it could cancel it:
// what goes on afterwards is not the sub-run.
func TestASubRunThatWasGivenUpDoesNotGoOnAfterACrash(t *testing.T) {
	for _, c := range []struct {
		what   string
		writes int // of giving it up
		give   func(c *crashing, o runner.Opened) error
		want   state.Status
	}{
		{"reset", 1, func(c *crashing, o runner.Opened) error {
			return second(c.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "sub", Repeat: true}))
		}, state.Completed},
		{"fail", 1, func(c *crashing, o runner.Opened) error {
			return second(c.r.Fail(o, "uid:7", state.FailedByHand, ""))
		}, state.Failed},
		{"lock", 2, func(c *crashing, o runner.Opened) error {
			held, err := c.db.Locks("")
			if err != nil {
				return err
			}
			return c.r.LoseLock(ledger.LockForced, "uid:7", "default", ledger.LockLoss{
				Kind: "lock", Name: "l", RunID: o.Run.RunID, StepID: "sub", Fence: held[0].Holders[0].Fence,
			})
		}, state.Failed},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := crashDuring(t, parent(func(d *manifests.DAG) { d.Steps[0].Locks = []string{"l"} }, "sub"), "sub", nil)
			w.disk.arm(c.writes, true)
			if err := c.give(w, w.opened(w.run, w.dag)); !errors.Is(err, errDead) {
				t.Fatalf("the process lives: %v", err)
			}
			run, child := w.resumed()
			if child.Status != state.Cancelled || run.Status != c.want {
				t.Errorf("the sub-run that was given up is %s; the run is %s, want %s", child.Status, run.Status, c.want)
			}
		})
	}
}

// A sub-run that cleans up after a cancel goes on after a crash: it is not what
// was cancelled.
func TestASubRunThatCleansUpGoesOnAfterACrash(t *testing.T) {
	d := parent(func(d *manifests.DAG) {
		d.OnCancel = parent(nil, "tidy").Steps
	}, "sub")
	w := crashDuring(t, d, "tidy", func(w *world, run state.Run) {
		if _, err := w.r.Cancel("uid:7", "", w.opened(run, d)); err != nil {
			t.Fatal(err)
		}
	})
	run, child := w.resumed()
	if run.Status != state.Cancelled || child.Status != state.Completed {
		t.Errorf("the run is %s, the sub-run of its cleanup is %s", run.Status, child.Status)
	}
}

// A run whose sub-run has ended behind its back, since the process ended before it was
// told, can be ended although nobody executes it.
func TestARunThatWasNotToldOfItsSubRunCanBeEnded(t *testing.T) {
	for what, end := range endings {
		t.Run(what, func(t *testing.T) {
			w := crashDuring(t, parent(nil, "sub"), "sub", nil)
			child, err := w.db.Run(w.child)
			if err != nil {
				t.Fatal(err)
			}
			w.disk.arm(2, true)
			if _, err := w.r.Cancel("uid:7", "", w.opened(child, w.sealed.dags["child@1.0.0"])); err != nil {
				t.Fatal(err)
			}
			w.until(w.child, func(r state.Run, _ map[string]state.Step) bool { return r.Status.Ended() })
			w.crash()
			w.reopen()
			if _, err := end(w.world, w.opened(w.run, w.dag)); err != nil {
				t.Fatal(err)
			}
			if got, steps := w.look(w.run.RunID); !got.Status.Ended() {
				t.Errorf("the run is %s: %v", got.Status, steps)
			}
		})
	}
}

// givingUp is a run that has given up its sub-run, under a lock, in the last moment of a
// process. The sub-run has yet to clean up.
func givingUp(t *testing.T) *crashing {
	t.Helper()
	w := crashDuring(t, parent(func(d *manifests.DAG) { d.Steps[0].Locks = []string{"l"} }, "sub"), "sub", nil, "tidy")
	w.disk.arm(1, true)
	if err := second(w.r.Reset(w.opened(w.run, w.dag), runner.Reset{Actor: "uid:7", StepID: "sub"})); !errors.Is(err, errDead) {
		t.Fatalf("the process lives: %v", err)
	}
	w.crash()
	return w
}

// What a step held for a sub-run that it gave up stays held across a crash until that
// has cleaned up, whatever becomes of the parent.
func TestASubRunThatWasGivenUpHoldsWhatItsStepDidAfterACrash(t *testing.T) {
	for _, c := range []struct {
		what string
		ends bool // the parent is cancelled before anybody executes it, and ends after
	}{{"its parent goes on", false}, {"its parent is cancelled", true}} {
		t.Run(c.what, func(t *testing.T) {
			w := givingUp(t)
			tidies, leave := make(chan string, 9), make(chan bool)
			w.exec = &fake{run: func(_ context.Context, task runner.Task) (runner.Report, error) {
				if task.StepID == "tidy" {
					tidies <- task.RunID
					<-leave
				}
				return exit(0), nil
			}}
			w.reopen()
			w.r = w.on(w.db, 4)
			child, err := w.db.Run(w.child)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.r.Recover(context.Background(), w.opened(child, w.sealed.dags["child@1.0.0"])); err != nil {
				t.Fatal(err)
			}
			if c.ends {
				if run, err := w.r.Cancel("uid:7", "", w.opened(w.run, w.dag)); err != nil || run.Status.Ended() {
					t.Fatalf("the run is %s, %v", run.Status, err)
				}
			}
			other := w.start(dag(func(d *manifests.DAG) { d.ID, d.Steps[0].Locks = "other", []string{"l"} }, "x"), "{}")
			w.background()
			let := sync.OnceFunc(func() { close(leave) })
			t.Cleanup(let)
			if err := w.r.Resume(context.Background(), "uid:0", w.opened(child, w.sealed.dags["child@1.0.0"])); err != nil {
				t.Fatal(err)
			}
			<-tidies
			if err := w.r.Resume(context.Background(), "uid:0", w.opened(w.run, w.dag)); err != nil {
				t.Fatal(err)
			}
			quick := dag(func(d *manifests.DAG) { d.ID = "quick" }, "q") // passes when what may begin has
			w.ended(w.start(quick, "{}").RunID)
			if _, steps := w.look(other.RunID); steps["x"] != "queued" {
				t.Errorf("who wants the lock is %v", steps)
			}
			if run, _ := w.look(w.run.RunID); run.Status.Ended() {
				t.Errorf("the run is %s before its sub-run has ended", run.Status)
			}
			let()
			w.ended(w.run.RunID)
			w.ended(other.RunID)
			if held, err := w.db.Locks(""); err != nil || len(held) != 0 {
				t.Errorf("held is %+v, %v", held, err)
			}
		})
	}
}

// A sub-run that was given up and that nothing can take up holds nothing up: what its
// step held for it is taken from it, with an entry.
func TestASubRunThatWasGivenUpAndCannotGoOnHoldsNothing(t *testing.T) {
	w := givingUp(t)
	w.exec = &fake{run: ok}
	w.reopen()
	delete(w.sealed.dags, "child@1.0.0")
	other := w.start(dag(func(d *manifests.DAG) { d.ID, d.Steps[0].Locks = "other", []string{"l"} }, "x"), "{}")
	w.background()
	if err := w.r.Resume(context.Background(), "uid:0", w.opened(w.run, w.dag)); err != nil {
		t.Fatal(err)
	}
	w.ended(other.RunID)
	if run, _ := w.ended(w.run.RunID); run.Status != state.Failed {
		t.Errorf("the run is %s", run.Status)
	}
	if child, err := w.db.Run(w.child); err != nil || child.Status.Ended() {
		t.Errorf("the sub-run is %s, %v", child.Status, err)
	}
	taken := 0
	for l := range w.db.Entries(0, w.db.Size()) {
		if env, err := ledger.ParseEnvelope(l.Envelope); err != nil || env.Type == ledger.LockReclaimed {
			taken++
		}
	}
	if taken != 1 {
		t.Errorf("%d entries say so", taken)
	}
}

// A sub-run that was given up and is not taken up because the process is ending keeps
// what its step holds: the next process takes it up.
func TestAShutdownTakesNothingFromASubRunThatWasGivenUp(t *testing.T) {
	w := givingUp(t)
	w.exec = &fake{run: ok}
	w.reopen()
	disk := &mortal{DB: w.db, left: -1}
	w.r = w.on(disk, 1)
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	disk.see = func(runID string, _ []state.Proposal) {
		if runID != w.run.RunID {
			return
		}
		stop() // after the run was taken up, and before its sub-run is
		for err := error(nil); !errors.Is(err, runner.ErrStopping); {
			_, err = w.r.StartRun(ctx, runner.Start{})
		}
	}
	go func() { ran <- w.r.Run(ctx, false) }()
	if err := w.r.Resume(context.Background(), "uid:0", w.opened(w.run, w.dag)); err != nil {
		t.Fatal(err)
	}
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if h, _ := w.held(); h.RunID != w.run.RunID {
		t.Errorf("held by %+v", h)
	}
}

// A run that cannot be read any more does not end beside a sub-run that it had given up.
func TestADamagedRunWaitsForASubRunThatItHasGivenUp(t *testing.T) {
	w := givingUp(t)
	tidies, leave := make(chan bool, 9), make(chan bool)
	w.exec = &fake{run: func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "tidy" {
			tidies <- true
			<-leave
		}
		return exit(0), nil
	}}
	w.reopen()
	w.r = w.on(w.db, 4)
	child, err := w.db.Run(w.child)
	if err != nil {
		t.Fatal(err)
	}
	of := w.opened(child, w.sealed.dags["child@1.0.0"])
	if _, err := w.r.Recover(context.Background(), of); err != nil {
		t.Fatal(err)
	}
	other := w.start(dag(func(d *manifests.DAG) { d.ID, d.Steps[0].Locks = "other", []string{"l"} }, "x"), "{}")
	w.background()
	let := sync.OnceFunc(func() { close(leave) })
	t.Cleanup(let)
	if err := w.r.Resume(context.Background(), "uid:0", of); err != nil {
		t.Fatal(err)
	}
	<-tidies
	delete(w.sealed.dags, "d@1.0.0")
	run, err := w.r.Fail(runner.Opened{Run: w.run, Damage: errors.New("its spec is gone")}, "uid:7", state.FailedByHand, "")
	if err != nil || run.Status.Ended() {
		t.Errorf("the run is %s, %v", run.Status, err)
	}
	quick := dag(func(d *manifests.DAG) { d.ID = "quick" }, "q") // passes when what may begin has
	w.ended(w.start(quick, "{}").RunID)
	if _, steps := w.look(other.RunID); steps["x"] != "queued" {
		t.Errorf("who wants the lock is %v", steps)
	}
	let()
	if run, _ := w.ended(w.run.RunID); run.Status != state.Failed {
		t.Errorf("the run is %s", run.Status)
	}
	w.ended(other.RunID)
}
