package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// ListLocks implements [api.Locks].
func (s *site) ListLocks(_ context.Context, q api.LockQuery) ([]api.Lock, error) {
	if q.Kind != "" && q.Kind != "lock" && q.Kind != "semaphore" {
		return nil, invalid("a kind is lock or semaphore, not %q", q.Kind)
	}
	all, err := s.locks()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(l api.Lock) bool {
		return q.Kind != "" && l.Kind != q.Kind ||
			q.Stale && !slices.ContainsFunc(l.Holders, func(h api.LockHolder) bool { return h.Stale })
	}), nil
}

// ShowLock implements [api.Locks].
func (s *site) ShowLock(_ context.Context, name string) ([]api.Lock, error) {
	if name == "" {
		return nil, invalid("a lock has a name")
	}
	all, err := s.locks()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(l api.Lock) bool { return l.Name != name })
	if len(all) == 0 {
		all = append(all, s.freeLock("lock", name, 1))
	}
	return all, nil
}

func (s *site) freeLock(kind, name string, capacity int64) api.Lock {
	return api.Lock{Tenant: s.tenant, Kind: kind, Name: name, Capacity: capacity, Holders: []api.LockHolder{}, Waiting: []api.LockWaiter{}}
}

// locks are all that the tenant's steps hold, and the semaphores that it has.
func (s *site) locks() ([]api.Lock, error) {
	e := s.e
	recs, err := e.db.Locks(s.tenant)
	if err != nil {
		return nil, dbError(err)
	}
	all := map[[2]string]*api.Lock{}
	for name, capacity := range e.site.Semaphores {
		l := s.freeLock("semaphore", name, capacity)
		all[[2]string{l.Kind, name}] = &l
	}
	last := lastSigns{e: e}
	lingers := map[string]map[string]runner.Linger{} // by run
	for _, rec := range recs {
		l := s.lockIn(all, rec.Kind, rec.Name)
		for _, h := range rec.Holders {
			holder, err := s.holder(&last, h)
			if err != nil {
				return nil, err
			}
			if lingers[h.RunID] == nil {
				lingers[h.RunID] = e.runner.Lingers(h.RunID)
			}
			holder.Lingers = lingers[h.RunID][h.StepID].Why
			l.Held += h.Weight
			l.Holders = append(l.Holders, holder)
		}
	}
	if err := s.lingering(all); err != nil {
		return nil, err
	}
	for _, w := range e.runner.LockWaiters(s.tenant) {
		if l := all[[2]string{w.Kind, w.Name}]; l != nil {
			l.Waiting = append(l.Waiting, api.LockWaiter{RunID: w.RunID, StepID: w.StepID, Weight: w.Weight, QueuedUTC: stamp.Format(w.Queued)})
		}
	}
	out := make([]api.Lock, 0, len(all))
	for _, l := range all {
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b api.Lock) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Kind, b.Kind))
	})
	return out, nil
}

// lockIn is the lock of that name in all, where it is put if it is not there.
func (s *site) lockIn(all map[[2]string]*api.Lock, kind, name string) *api.Lock {
	key := [2]string{kind, name}
	if all[key] == nil {
		free := s.freeLock(kind, name, 1)
		all[key] = &free
	}
	return all[key]
}

// lingering adds what is free on record and still taken here.
func (s *site) lingering(all map[[2]string]*api.Lock) error {
	for _, x := range s.e.runner.Lingering(s.tenant) {
		l := s.lockIn(all, x.Kind, x.Name)
		run, err := s.e.db.Run(x.RunID)
		if err != nil {
			return dbError(err)
		}
		l.Held += x.Weight
		l.Holders = append(l.Holders, api.LockHolder{
			LockHolder: state.LockHolder{RunID: x.RunID, StepID: x.StepID, Attempt: x.Attempt, Weight: x.Weight}, DAGID: run.DAGID, Executing: true, Lingers: x.Why,
		})
	}
	return nil
}

// holder says what is known of a holder.
func (s *site) holder(last *lastSigns, h state.LockHolder) (api.LockHolder, error) {
	out := api.LockHolder{LockHolder: h, Executing: s.e.runner.Tends(h.RunID, h.StepID)}
	run, err := s.e.db.Run(h.RunID)
	if err != nil {
		return out, dbError(err)
	}
	if out.DAGID = run.DAGID; out.Executing {
		return out, nil
	}
	if out.LastUTC, err = last.of(run); err != nil {
		return out, err
	}
	at, err := stamp.Parse(max(out.LastUTC, h.SinceUTC))
	out.Stale = err == nil && s.e.opt.Now().Sub(at) >= runner.StaleAfter
	return out, nil
}

// lastSigns finds when something was last recorded of a run and of what it has
// started. Nobody writes down when a process dies; but whoever opens the site
// next records what that interrupted.
type lastSigns struct {
	e     *Engine
	below map[string][]state.Run // open runs by parent
}

func (l *lastSigns) of(run state.Run) (string, error) {
	if l.below == nil {
		runs, err := l.e.db.ActiveRuns()
		if err != nil {
			return "", dbError(err)
		}
		l.below = map[string][]state.Run{}
		for _, r := range runs {
			l.below[r.ParentRunID] = append(l.below[r.ParentRunID], r)
		}
	}
	last := run.UpdatedUTC
	for _, child := range l.below[run.RunID] {
		of, err := l.of(child)
		if err != nil {
			return "", err
		}
		last = max(last, of) // times of one form
	}
	return last, nil
}

// ReleaseLock implements [api.Locks].
func (s *site) ReleaseLock(ctx context.Context, name string, req api.LockRelease) (api.LockReleased, error) {
	out := api.LockReleased{DryRun: req.DryRun}
	if req.Reason == "" {
		return out, invalid("taking a lock away needs a reason")
	}
	found, err := s.ShowLock(ctx, name)
	if err != nil {
		return out, err
	}
	n := 0
	for _, l := range found {
		for _, h := range l.Holders {
			if (req.Kind == "" || req.Kind == l.Kind) && (req.RunID == "" || req.RunID == h.RunID) && (req.StepID == "" || req.StepID == h.StepID) {
				out.Lock, out.Lost = l, h
				n++
			}
		}
	}
	switch {
	case n == 0:
		return out, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("nobody holds %q, or not who is named", name), Hint: "stella lock status " + name}
	case n > 1:
		return out, &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("%d hold %q", n, name), Hint: "name one with --run and --step; stella lock status " + name}
	case out.Lost.Fence == 0:
		return out, &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("%q is free on record; step %s of run %s keeps it until %s", name, out.Lost.StepID, out.Lost.RunID, out.Lost.Lingers),
			Hint: "stella orch run abort " + out.Lost.RunID + " leaves that no time"}
	case req.DryRun:
		return out, nil
	}
	err = s.e.runner.LoseLock(ledger.LockForced, s.actor, s.tenant, ledger.LockLoss{
		Kind: out.Lock.Kind, Name: name, RunID: out.Lost.RunID, StepID: out.Lost.StepID, Fence: out.Lost.Fence, Reason: clip(req.Reason),
	})
	if errors.Is(err, store.ErrHeld) {
		return out, &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("run %s does not hold %q any more", out.Lost.RunID, name)}
	}
	return out, dbError(err)
}
