package runner

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// A run is stuck when nothing has moved in it for long: no entry, no line of
// output, no progress. Nothing is guessed of processes that may have died: an
// attempt lives while its process does. A run that waits for people, for a time, for
// a sub-run, for a worker or for a limit is not stuck, nor is one whose tenant is
// paused. One that waits for a lock is said to be, since whoever holds it may wait
// for it in turn; but only an attempt that is under way is done something about.

// watchStuck looks after runs until ctx is done.
func (r *Runner) watchStuck(ctx context.Context) {
	if r.opt.Stuck.Warn <= 0 {
		return
	}
	t := time.NewTicker(max(r.opt.Stuck.Warn/10, 100*time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			r.lookForStuck()
		}
	}
}

func (r *Runner) lookForStuck() {
	r.mu.Lock()
	all := make([]*execution, 0, len(r.execs))
	for _, e := range r.execs {
		if _, paused := r.queue.stopped.Paused[""]; paused && r.executing == 0 {
			break
		}
		if _, paused := r.queue.stopped.Paused[e.tenant]; !paused {
			all = append(all, e)
		}
	}
	r.mu.Unlock()
	for _, e := range all {
		if e.idle() < r.opt.Stuck.Warn || r.hold() != nil {
			continue
		}
		if err := r.within(e, func() error { return e.stuck(e.idle()) }); err != nil {
			r.fail(err)
		}
		r.release()
	}
}

// stuck notes that nothing has moved for a while, and does what the site allows.
func (e *execution) stuck(idle time.Duration) error {
	if e.ended.Load() || idle < e.r.opt.Stuck.Warn || e.waits() {
		return nil
	}
	rule := e.r.opt.Stuck
	switch {
	case e.run.Stuck == "":
		return e.sayStuck("warning", idle)
	case e.run.Stuck == "warning" && idle >= rule.Stalled:
		return e.sayStuck("stalled", idle)
	case e.run.Stuck != "stalled" || !rule.Chain || !slices.ContainsFunc(e.all(), func(n *node) bool { return n.claimed }):
		return nil
	}
	now := e.r.opt.Now()
	switch {
	case e.chained.Add(e.chainWait).After(now):
		return nil
	case e.run.Nudges < rule.Nudges:
		e.chained, e.chainWait = now, rule.NudgeWait
		return e.keepIdle(func() error { return e.nudge("system:runner", "stalled") })
	case e.run.Restarts < rule.Restarts && e.restartable():
		e.chained, e.chainWait = now, rule.RestartWait
		return e.keepIdle(func() error { return e.restart("system:runner", "stalled", "", false) })
	}
	why := fmt.Sprintf("nothing has moved for %s, and %d nudges and %d restarts did not help", idle.Round(time.Second), e.run.Nudges, e.run.Restarts)
	switch {
	case e.run.Aborted, e.run.FailRequested() && !e.cleaning():
		return nil // it is ending already
	case e.run.CancelRequested():
		e.requestCancel(ledger.RunAbortRequested, "system:runner", why)
	default:
		e.requestFailure("system:runner", state.Stalled, why)
	}
	return e.r.commit(e)
}

// keepIdle does something that is no movement of the run's own.
func (e *execution) keepIdle(f func() error) error {
	moved := e.moved.Load()
	err := f()
	e.moved.Store(moved)
	return err
}

// waits says whether there is a reason for which nothing moves. An attempt that is
// under way is none, whatever else of the run waits for people or a time.
func (e *execution) waits() bool {
	now := e.r.opt.Now()
	reason, locked := e.asked > 0, false
	e.r.mu.Lock()
	defer e.r.mu.Unlock()
	for _, n := range e.all() {
		if n.claimed {
			return false
		}
		reason = reason || n.child != "" || n.status == state.Queued && n.due.After(now)
		locked = locked || n.status == state.Queued && n.at != nil && n.at.lock != nil
	}
	return reason || !locked
}

func (e *execution) sayStuck(level string, idle time.Duration) error {
	s := ledger.Stuckness{Level: level, IdleMs: idle.Milliseconds()}
	for _, n := range e.all() {
		if n.claimed && len(s.Steps) < 20 {
			s.Steps = append(s.Steps, n.id)
		}
	}
	e.r.opt.Log.Warn("a run does not move", "tenant", e.tenant, "dagId", e.dag.ID, "runId", e.runID, "level", level, "idle", idle.Round(time.Second).String(), "steps", s.Steps)
	return e.keepIdle(func() error {
		e.propose(ledger.RunStuck, nil, &s)
		return e.r.commit(e)
	})
}

// restartable says whether everything under way may be begun again.
func (e *execution) restartable() bool {
	return len(e.cancels) > 0 && !slices.ContainsFunc(e.all(), func(n *node) bool {
		return e.cancels[n.id] != nil && (e.over(n.phase) || !e.r.repeatable(n))
	})
}
