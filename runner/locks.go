package runner

import (
	"fmt"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// staleAfter is how long the holder of a lock may not be executing before the
// lock may be taken from it.
const staleAfter = 60 * time.Second

// locks is who holds which lock, as far as this process gives them out. The
// store holds the same: an entry takes them, and an entry gives them back, before
// memory does. The runner's mu guards it.
type locks struct {
	capacity map[string]int64 // of semaphores
	all      map[lockID]*lock
}

type lockID struct{ tenant, kind, name string }

// lock is one lock, or semaphore.
type lock struct {
	id       lockID
	capacity int64
	held     int64
	holders  []holder
	line     line
}

type holder struct {
	runID, stepID string
	weight        int64
	fence         int64 // 0 until it is known
	since         time.Time
}

func newLocks(semaphores map[string]int64) *locks {
	return &locks{capacity: semaphores, all: map[lockID]*lock{}}
}

func (l *locks) get(tenant string, want ledger.Lock) *lock {
	id := lockID{tenant, want.Kind, want.Name}
	x := l.all[id]
	if x == nil {
		x = &lock{id: id, capacity: 1}
		if want.Kind == "semaphore" {
			x.capacity = max(1, l.capacity[want.Name])
		}
		l.all[id] = x
	}
	return x
}

// taken is the first lock that an item needs and cannot have, nil if it can have
// all. One that waits in line for a lock is not overtaken by one that asks for it
// first now, so that a heavy weight is not starved by light ones.
func (l *locks) taken(it item) *lock {
	for _, want := range it.n.locks {
		x := l.get(it.e.tenant, want)
		if x.held+want.Weight > x.capacity || len(x.line.waiting) > 0 && it.n.called != &x.line {
			return x
		}
	}
	return nil
}

func (l *locks) take(it item) {
	for _, want := range it.n.locks {
		x := l.get(it.e.tenant, want)
		x.held += want.Weight
		x.holders = append(x.holders, holder{runID: it.e.runID, stepID: it.n.id, weight: want.Weight})
	}
}

// release gives back what a step holds, and calls those that wait.
func (l *locks) release(q *queue, e *execution, n *node) {
	for _, want := range n.locks {
		x := l.get(e.tenant, want)
		x.drop(func(h holder) bool { return h.runID == e.runID && h.stepID == n.id })
		l.wake(q, x)
	}
}

// wake calls the line of a lock. What has no holder and no line is forgotten.
func (l *locks) wake(q *queue, x *lock) {
	if len(x.line.waiting) > 0 {
		q.call(&x.line)
		return
	}
	if len(x.holders) == 0 {
		delete(l.all, x.id)
	}
}

func (x *lock) drop(meant func(holder) bool) (found bool) {
	kept := x.holders[:0]
	for _, h := range x.holders {
		if meant(h) {
			x.held -= h.weight
			found = true
			continue
		}
		kept = append(kept, h)
	}
	x.holders = kept
	return found
}

// describe says for people what an item waits for.
func (x *lock) describe() string {
	s := x.id.kind + " " + x.id.name
	if len(x.holders) > 0 {
		s += fmt.Sprintf(", held by step %s of run %s", x.holders[0].stepID, x.holders[0].runID)
	}
	return s
}

// loadLocks takes over what is held on record: by sub-runs that go on.
func (r *Runner) loadLocks() error {
	recs, err := r.opt.Store.Locks("")
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range recs {
		x := r.queue.locks.get(rec.Tenant, ledger.Lock{Kind: rec.Kind, Name: rec.Name})
		for _, h := range rec.Holders {
			since, _ := stamp.Parse(h.SinceUTC) // of our own record
			if x.drop(func(old holder) bool { return old.runID == h.RunID && old.stepID == h.StepID }) {
				since = time.Time{} // it holds it in this process
			}
			x.held += h.Weight
			x.holders = append(x.holders, holder{h.RunID, h.StepID, h.Weight, h.Fence, since})
		}
	}
	return nil
}

// LoseLock takes a lock away from the holder with a fence number, and ends what
// relied on it. The type is [ledger.LockForced] or [ledger.LockReclaimed].
func (r *Runner) LoseLock(t ledger.Type, actor, tenant string, loss ledger.LockLoss) error {
	if err := r.opt.Store.LoseLock(t, actor, tenant, loss); err != nil {
		return err
	}
	r.mu.Lock()
	e := r.execs[loss.RunID]
	r.mu.Unlock()
	if e != nil { // before anybody else gets it
		if err := r.within(e, func() error { return r.lost(e, loss) }); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.queue.locks.get(tenant, ledger.Lock{Kind: loss.Kind, Name: loss.Name})
	x.drop(func(h holder) bool { return h.runID == loss.RunID && h.stepID == loss.StepID })
	r.queue.locks.wake(r.queue, x)
	r.dispatch()
	return nil
}

// lost ends what relied on a lock: an attempt is stopped, a sub-run cancelled and
// its step failed. The caller holds e.mu.
func (r *Runner) lost(e *execution, loss ledger.LockLoss) error {
	n := e.byID[loss.StepID]
	if n == nil || e.ended.Load() {
		return nil
	}
	if cancel := e.cancels[n.id]; cancel != nil {
		cancel(&stopped{cause: ErrShutdown, message: loss.Kind + " " + loss.Name + " was taken away"})
		return nil
	}
	if n.child == "" {
		return nil
	}
	e.cancelLater(n.child, "its parent lost "+loss.Kind+" "+loss.Name, ErrCancelled)
	e.endChild(n, &ledger.SubrunEnd{RunID: n.child, Status: string(state.Failed), FailureReason: string(state.LockLost)})
	e.end(n, ledger.StepFailed, state.Failed, state.LockLost, ledger.StepEnd{Reason: clip(loss.Kind + " " + loss.Name + " was taken away")})
	return r.commit(e)
}

// watchLocks arranges for locks to be taken from holders that do not execute, if
// somebody waits for them. The caller holds mu.
func (r *Runner) watchLocks() {
	for _, x := range r.queue.locks.all {
		if len(x.line.waiting) == 0 {
			continue
		}
		for _, h := range x.holders {
			if _, alive := r.execs[h.runID]; alive || h.fence == 0 || r.reclaiming[h.fence] != nil {
				continue
			}
			tenant, loss := x.id.tenant, ledger.LockLoss{
				Kind: x.id.kind, Name: x.id.name, RunID: h.runID, StepID: h.stepID, Fence: h.fence,
				Reason: "its holder has not been executing for " + staleAfter.String(),
			}
			wait := max(0, staleAfter-r.opt.Now().Sub(h.since))
			r.reclaiming[h.fence] = time.AfterFunc(wait, func() { r.reclaim(tenant, loss) })
		}
	}
}

// reclaim takes a lock from a holder that is still not executing.
func (r *Runner) reclaim(tenant string, loss ledger.LockLoss) {
	if r.hold() != nil {
		return
	}
	defer r.release()
	r.mu.Lock()
	delete(r.reclaiming, loss.Fence)
	_, alive := r.execs[loss.RunID]
	r.mu.Unlock()
	if alive {
		return
	}
	if err := r.LoseLock(ledger.LockReclaimed, "system:runner", tenant, loss); err != nil {
		r.opt.Log.Warn("a stale lock could not be reclaimed", "lock", loss.Name, "error", err)
	}
}
