package runner

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// StaleAfter is how long the holder of a lock may not be executing before the
// lock may be taken from it.
const StaleAfter = 60 * time.Second

// locks is who holds which lock, as far as this process gives them out. The
// store holds the same: an entry takes them, and an entry gives them back, before
// memory does. The runner's mu guards it.
type locks struct {
	capacity  map[string]int64 // of semaphores
	all       map[lockID]*lock
	inherited int   // holders that were read from the record
	taken     int64 // how often any was taken
}

type lockID struct{ tenant, kind, name string }

// lock is one lock, or semaphore.
type lock struct {
	id lockID
	gate
	holders []holder
}

// holder is who holds it: a node of this process, or what is on record of one that
// went before it.
type holder struct {
	nth           int64 // which taking it is; 0: inherited
	owner         *node // nil: inherited
	runID, stepID string
	weight        int64
	fence         int64     // of one that is inherited
	since         time.Time // then: for how long this process has seen it
}

func newLocks(semaphores map[string]int64) *locks {
	return &locks{capacity: semaphores, all: map[lockID]*lock{}}
}

func (l *locks) get(tenant string, want ledger.Lock) *lock {
	id := lockID{tenant, want.Kind, want.Name}
	x := l.all[id]
	if x == nil {
		x = &lock{id: id, gate: gate{capacity: 1}}
		x.lock = x
		if want.Kind == "semaphore" {
			x.capacity = max(1, l.capacity[want.Name])
		}
		l.all[id] = x
	}
	return x
}

// release gives back what a step holds. What was taken away from it meanwhile it
// holds no more.
func (l *locks) release(q *queue, e *execution, n *node) {
	for _, want := range n.locks {
		x := l.get(e.tenant, want)
		l.drop(q, x, func(h holder) bool {
			return h.owner == n || h.owner == nil && h.runID == e.runID && h.stepID == n.id
		})
	}
}

// drop takes a lock from the holders that are meant, and lets others try. What
// nobody has or wants is forgotten.
func (l *locks) drop(q *queue, x *lock, meant func(holder) bool) {
	x.holders = slices.DeleteFunc(x.holders, func(h holder) bool {
		if !meant(h) {
			return false
		}
		x.taken -= h.weight
		if h.owner == nil {
			l.inherited--
		}
		return true
	})
	q.open(&x.gate)
	if x.idle() && l.all[x.id] == x {
		delete(l.all, x.id)
	}
}

// describe says for people what a step waits for.
func (x *lock) describe(n *node) string {
	s := x.id.kind + " " + x.id.name
	for _, want := range n.locks {
		if want.Kind == x.id.kind && want.Name == x.id.name && want.Weight > x.capacity {
			return fmt.Sprintf("%s: it wants %d, and site.toml gives %d", s, want.Weight, x.capacity)
		}
	}
	if len(x.holders) > 0 {
		s += fmt.Sprintf(", held by step %s of run %s", x.holders[0].stepID, x.holders[0].runID)
	}
	return s
}

// inheritLocks takes over what is held on record, once, before any run is taken care
// of: by steps whose sub-runs go on. Whoever gives something back writes that before he
// takes mu.
func (r *Runner) inheritLocks() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inherited {
		return nil
	}
	recs, err := r.opt.Store.Locks("")
	if err != nil {
		return err
	}
	now := r.opt.Now()
	for _, rec := range recs {
		x := r.queue.locks.get(rec.Tenant, ledger.Lock{Kind: rec.Kind, Name: rec.Name})
		for _, h := range rec.Holders {
			x.taken += h.Weight
			x.holders = append(x.holders, holder{runID: h.RunID, stepID: h.StepID, weight: h.Weight, fence: h.Fence, since: now})
			r.queue.locks.inherited++
		}
	}
	r.inherited = true
	return nil
}

// giveBack gives back what steps held whose sub-runs are over, now that this is on
// record. A sub-run that was given up keeps it until it has ended: here, and on record.
// The caller holds e.mu.
func (r *Runner) giveBack(e *execution) {
	if len(e.freed) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range e.freed {
		former := f.former
		switch given := former != "" && f.n.former == former; {
		case given && e.detached: // its end is told to whoever looks at this run then
		case given:
			r.outlive(e, f.n)
			if r.execs[former] == nil {
				e.later = append(e.later, func() { r.resumeFormer("system:runner", former) })
			}
		default:
			if !e.detached {
				r.queue.free(&e.slots, 1)
			}
			r.queue.locks.release(r.queue, e, f.n)
		}
	}
	e.freed = e.freed[:0]
	r.dispatch()
}

// LoseLock takes a lock away from the holder with a fence number, and ends what
// relied on it. The type is [ledger.LockForced] or [ledger.LockReclaimed].
func (r *Runner) LoseLock(t ledger.Type, actor, tenant string, loss ledger.LockLoss) error {
	held, err := r.recorded(tenant, loss)
	if err != nil {
		return err
	}
	r.mu.Lock()
	e := r.execs[loss.RunID]
	var meant []int64 // a later attempt of the step has lost nothing
	for _, h := range r.queue.locks.get(tenant, ledger.Lock{Kind: loss.Kind, Name: loss.Name}).holders {
		if h.runID == loss.RunID && h.stepID == loss.StepID {
			meant = append(meant, h.nth)
		}
	}
	r.mu.Unlock()
	if err := r.opt.Store.LoseLock(t, actor, tenant, loss); err != nil {
		return err
	}
	if e != nil { // before anybody else gets it
		if err := r.within(e, func() error { return r.lost(e, loss, held.Attempt) }); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue.locks.drop(r.queue, r.queue.locks.get(tenant, ledger.Lock{Kind: loss.Kind, Name: loss.Name}), func(h holder) bool {
		return h.runID == loss.RunID && h.stepID == loss.StepID && slices.Contains(meant, h.nth)
	})
	r.dispatch()
	return nil
}

// recorded is the holder with a fence number, the zero one if the record has none.
func (r *Runner) recorded(tenant string, loss ledger.LockLoss) (state.LockHolder, error) {
	recs, err := r.opt.Store.Locks(tenant)
	if err != nil {
		return state.LockHolder{}, err
	}
	for _, rec := range recs {
		if rec.Kind != loss.Kind || rec.Name != loss.Name {
			continue
		}
		for _, h := range rec.Holders {
			if h.Fence == loss.Fence {
				return h, nil
			}
		}
	}
	return state.LockHolder{}, nil
}

// lost ends what relied on a lock: an attempt is stopped, a sub-run cancelled and
// its step failed. The caller holds e.mu.
func (r *Runner) lost(e *execution, loss ledger.LockLoss, attempt int) error {
	n := e.find(loss.StepID)
	if n == nil || n.attempt != attempt || e.ended.Load() {
		return nil
	}
	why := clip(loss.Kind + " " + loss.Name + " was taken away")
	if cancel := e.cancels[n.id]; cancel != nil {
		cancel(&lockLost{stopped{ErrShutdown, why}, r.repeatable(n)})
		return nil
	}
	if n.child == "" {
		return nil
	}
	if err := e.loseChild(n, loss.Kind+" "+loss.Name, why, state.Run{RunID: n.child}); err != nil {
		return err
	}
	return r.commit(e)
}

// lockLost is the cause with which an attempt ends that has lost a lock.
type lockLost struct {
	stopped
	again bool // it may be begun again: by the step's retry rule
}

// end is the end of such an attempt, whatever it says of itself: from some moment
// on it was not alone.
func (l *lockLost) end(end *ledger.AttemptEnd) {
	switch state.Outcome(end.Outcome) {
	case state.Interrupted, state.Succeeded:
		end.Outcome, end.ErrorCode, end.Message = string(state.OutcomeFailed), string(state.LockLost), clip(l.message)
		end.OutputsHash, end.Artifacts, end.Orderly, end.Retryable = "", nil, false, l.again
	}
}

// watchLocks arranges for locks to be taken from holders that do not execute, if
// somebody waits for them. The caller holds mu.
func (r *Runner) watchLocks() {
	if r.queue.locks.inherited == 0 {
		return
	}
	for _, x := range r.queue.locks.all {
		l := x.lines[x.id.tenant]
		if l == nil || l.head() == nil {
			continue
		}
		for _, h := range x.holders {
			if h.owner != nil || r.reclaiming[h.fence] != nil || r.alive(h.runID, h.stepID) {
				continue
			}
			tenant, loss := x.id.tenant, ledger.LockLoss{
				Kind: x.id.kind, Name: x.id.name, RunID: h.runID, StepID: h.stepID, Fence: h.fence,
				Reason: "its holder has not been executing for " + StaleAfter.String(),
			}
			wait := max(0, StaleAfter-r.opt.Now().Sub(h.since))
			r.reclaiming[h.fence] = time.AfterFunc(wait, func() { r.reclaim(tenant, loss) })
		}
	}
}

// alive says whether anything of a step that has a sub-run is taken care of here: its
// run, or the sub-run alone, which it may have given up. The caller holds mu.
func (r *Runner) alive(runID, stepID string) bool {
	if r.execs[runID] != nil {
		return true
	}
	for _, e := range r.execs {
		if e.parent == runID && e.parentStep == stepID {
			return true
		}
	}
	return false
}

// Tends says whether anything of a step that has a sub-run is taken care of here.
func (r *Runner) Tends(runID, stepID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.alive(runID, stepID)
}

// reclaim takes a lock from a holder that is still not executing.
func (r *Runner) reclaim(tenant string, loss ledger.LockLoss) {
	if r.hold() != nil {
		return
	}
	defer r.release()
	r.mu.Lock()
	alive := r.alive(loss.RunID, loss.StepID)
	if alive {
		delete(r.reclaiming, loss.Fence)
	}
	r.mu.Unlock()
	if alive {
		return
	}
	err := r.LoseLock(ledger.LockReclaimed, "system:runner", tenant, loss)
	r.reclaimed(loss.Fence, err)
	if err != nil {
		err = errors.Join(err, r.compareLocks(tenant, loss.RunID, loss.StepID))
		r.opt.Log.Warn("a stale lock could not be reclaimed", "lock", loss.Name, "error", err)
	}
}

// reclaimed ends an attempt to reclaim a lock. One that failed lets it be looked at
// again in a while: what kept it from being written may keep on.
func (r *Runner) reclaimed(fence int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.reclaiming, fence)
		r.dispatch() // its holder may hold others, under the same fence
		return
	}
	r.reclaiming[fence] = time.AfterFunc(StaleAfter, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.reclaiming, fence)
		r.dispatch()
	})
}

// compareLocks lets go of what a step holds no more on record, if nobody here gives it
// back.
func (r *Runner) compareLocks(tenant, runID, stepID string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queue.locks.inherited == 0 {
		return nil
	}
	recs, err := r.opt.Store.Locks(tenant)
	if err != nil {
		return err
	}
	fences := map[int64]bool{}
	for _, rec := range recs {
		for _, h := range rec.Holders {
			fences[h.Fence] = true
		}
	}
	var mine []*lock
	for id, x := range r.queue.locks.all {
		if id.tenant == tenant {
			mine = append(mine, x)
		}
	}
	for _, x := range mine {
		r.queue.locks.drop(r.queue, x, func(h holder) bool {
			return h.owner == nil && h.runID == runID && h.stepID == stepID && !fences[h.fence]
		})
	}
	r.dispatch()
	return nil
}

// LockWaiter is a step that waits for a lock.
type LockWaiter struct {
	Kind, Name, RunID, StepID string
	Weight                    int64
	Queued                    time.Time
}

// LockWaiters lists who waits for the locks of a tenant, in the order in which
// they get them.
func (r *Runner) LockWaiters(tenant string) []LockWaiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	var waiting []item
	for id, x := range r.queue.locks.all {
		if id.tenant != tenant {
			continue
		}
		for _, l := range x.lines {
			waiting = append(waiting, l.waiting...)
		}
		waiting = append(waiting, x.never...)
	}
	waiting = slices.DeleteFunc(waiting, item.over)
	slices.SortFunc(waiting, func(a, b item) int {
		if a.less(b) {
			return -1
		}
		return 1
	})
	out := make([]LockWaiter, 0, len(waiting))
	for _, it := range waiting {
		for _, want := range it.n.locks {
			if l := it.n.at.lock; want.Kind == l.id.kind && want.Name == l.id.name {
				out = append(out, LockWaiter{want.Kind, want.Name, it.e.runID, it.n.id, want.Weight, it.queued})
			}
		}
	}
	return out
}
