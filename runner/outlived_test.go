package runner_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// slow is an executor whose attempts, but for those of quick steps, end only when they
// are told to, however they are stopped. Two of them are never to be inside at a time.
type slow struct {
	mu     sync.Mutex
	inside []string
	fault  string
	begun  chan string
	leave  chan bool
}

func newSlow() *slow { return &slow{begun: make(chan string, 9), leave: make(chan bool)} }

func (s *slow) run(ctx context.Context, task runner.Task) (runner.Report, error) {
	if task.StepID != "c" {
		return exit(0), nil
	}
	s.mu.Lock()
	if len(s.inside) > 0 {
		s.fault = fmt.Sprintf("%s of %s is inside beside %v", task.StepID, task.RunID, s.inside)
	}
	s.inside = append(s.inside, task.RunID)
	s.mu.Unlock()
	s.begun <- task.RunID
	<-s.leave
	s.mu.Lock()
	s.inside = s.inside[:len(s.inside)-1]
	s.mu.Unlock()
	switch {
	case errors.Is(context.Cause(ctx), runner.ErrCancelled):
		return runner.Report{Stop: runner.StopCancel}, nil
	case ctx.Err() != nil:
		return runner.Report{Stop: runner.StopShutdown}, nil
	}
	return exit(0), nil
}

// What a step holds stays taken until a sub-run that it gave up has ended, and nothing
// of it is under way any more: for other runs, and for its own next sub-run.
func TestASubRunThatWasGivenUpKeepsWhatItsStepHolds(t *testing.T) {
	for _, c := range []struct {
		name string
		lock bool
		give func(w *world, o, child runner.Opened) error
		next bool // its step starts another
	}{
		{"reset", true, func(w *world, o, _ runner.Opened) error {
			_, err := w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "sub", Repeat: true})
			return err
		}, true},
		{"reset without a lock", false, func(w *world, o, _ runner.Opened) error {
			_, err := w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: "sub", Repeat: true})
			return err
		}, true},
		{"the sub-run is reset and ends before what it had begun", true, func(w *world, _, child runner.Opened) error {
			if _, err := w.r.Reset(child, runner.Reset{Actor: "uid:7", StepID: "c", Repeat: true}); err != nil {
				return err
			}
			_, err := w.r.Cancel("uid:7", "", child)
			return err
		}, false},
		{"another lock is lost", true, func(w *world, o, _ runner.Opened) error {
			held, err := w.db.Locks("")
			if err != nil || len(held) != 2 {
				return fmt.Errorf("held %+v, %w", held, err)
			}
			h := held[1].Holders[0]
			return w.r.LoseLock(ledger.LockForced, "uid:7", "default", ledger.LockLoss{Kind: "lock", Name: held[1].Name, RunID: h.RunID, StepID: h.StepID, Fence: h.Fence})
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSlow()
			w := newWorld(t, s.run)
			w.r = w.runner(3)
			w.child(nil, "c")
			d := parent(func(d *manifests.DAG) {
				if c.lock {
					d.Steps[0].Locks = []string{"l", "m"}
				}
			}, "sub")
			run := w.start(d, "{}")
			w.background()
			child := <-s.begun
			rec, err := w.db.Run(child)
			if err != nil {
				t.Fatal(err)
			}
			var other state.Run
			if c.lock {
				of := dag(func(d *manifests.DAG) { d.ID, d.Steps[0].Locks = "other", []string{"l"} }, "c")
				other = w.start(of, "{}")
			}
			if err := c.give(w, w.opened(run, d), w.opened(rec, w.sealed.dags["child@1.0.0"])); err != nil {
				t.Fatal(err)
			}
			quick := dag(func(d *manifests.DAG) { d.ID = "quick" }, "q") // passes when what may begin has
			w.ended(w.start(quick, "{}").RunID)
			if why := w.r.Waits(other.RunID, "c"); c.lock && !strings.Contains(why, "lock l") {
				t.Errorf("who wants the lock waits for %q", why)
			}
			if why := w.r.Waits(run.RunID, "sub"); c.next && !strings.Contains(why, child) {
				t.Errorf("the next sub-run waits for %q", why)
			}
			close(s.leave)
			w.ended(run.RunID)
			if c.lock {
				w.ended(other.RunID)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.fault != "" {
				t.Error(s.fault)
			}
		})
	}
}
