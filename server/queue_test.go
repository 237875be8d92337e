package server_test

import (
	"context"
	"fmt"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

func (f *fake) queue(all bool) api.QueueStatus {
	st := api.QueueStatus{Tenant: "default", Mode: "daemon", Executes: true, Depth: 3, OldestUTC: "now", Waits: []api.QueueWait{{For: "<&>", Steps: 3}}}
	if all {
		st.Tenant = ""
	}
	return st
}

func (f *fake) QueueStatus(_ context.Context, q api.QueueQuery) (api.QueueStatus, error) {
	return f.queue(q.All), nil
}

func (f *fake) change(what string, req api.QueueRequest) (api.QueueChanged, error) {
	st := f.queue(req.All)
	st.Paused = []api.QueueStop{{Actor: what, Reason: req.Reason}}
	return api.QueueChanged{Changed: true, Status: st}, nil
}

func (f *fake) PauseQueue(_ context.Context, req api.QueueRequest) (api.QueueChanged, error) {
	if req.Reason == "none" {
		return api.QueueChanged{}, &api.Error{Code: api.CodeInvalid, Message: "a reason"}
	}
	return f.change("pause", req)
}

func (f *fake) DrainQueue(_ context.Context, req api.QueueRequest) (api.QueueChanged, error) {
	return f.change("drain", req)
}

func (f *fake) ResumeQueue(_ context.Context, req api.QueueRequest) (api.QueueChanged, error) {
	return f.change("resume", req)
}

func (f *fake) WaitQueue(_ context.Context, q api.QueueQuery) (api.QueueStatus, error) {
	st := f.queue(q.All)
	st.AtRest = true
	return st, nil
}

func (f *fake) ListDead(_ context.Context, limit int) ([]api.DeadStep, error) {
	if limit == 0 {
		return nil, nil
	}
	return []api.DeadStep{{StepID: "a", ErrorCode: "POISON_PILL", Next: fmt.Sprint(limit)}}, nil
}

func (f *fake) ListLocks(_ context.Context, q api.LockQuery) ([]api.Lock, error) {
	if q == (api.LockQuery{}) {
		return nil, nil
	}
	return []api.Lock{{Kind: q.Kind, Name: "merge", Holders: []api.LockHolder{{LockHolder: state.LockHolder{RunID: "r", Fence: 4}, Stale: q.Stale}}}}, nil
}

func (f *fake) ShowLock(_ context.Context, name string) ([]api.Lock, error) {
	return []api.Lock{{Kind: "lock", Name: name, Waiting: []api.LockWaiter{{RunID: "r"}}}}, nil
}

func (f *fake) ReleaseLock(_ context.Context, name string, req api.LockRelease) (api.LockReleased, error) {
	if name == "free" {
		return api.LockReleased{}, notFound("lock " + name)
	}
	return api.LockReleased{Lock: api.Lock{Kind: req.Kind, Name: name}, Lost: api.LockHolder{DAGID: req.Reason, LockHolder: state.LockHolder{RunID: req.RunID, StepID: req.StepID}}, DryRun: req.DryRun}, nil
}

func (f *fake) ListCache(_ context.Context, q api.CacheQuery) ([]api.CacheEntry, error) {
	if q.DAGID == "" {
		return nil, nil
	}
	return []api.CacheEntry{{DAGID: q.DAGID, Hits: 2}}, nil
}

func (f *fake) ClearCache(_ context.Context, req api.CacheClearing) (api.CacheCleared, error) {
	return api.CacheCleared{DAGID: req.DAGID + req.Reason, Count: 2, DryRun: req.DryRun}, nil
}

func (f *fake) PlanRun(_ context.Context, req api.StartRequest) (api.RunPlan, error) {
	if req.DAGID == "nope" {
		return api.RunPlan{}, notFound("dag")
	}
	return api.RunPlan{DAGID: req.DAGID, InputsHash: string(req.Inputs), Priority: req.Priority, Steps: []api.PlannedStep{{StepID: "a/b", DecidedLater: []string{"<when>"}}}}, nil
}

func (f *fake) Warm(_ context.Context, req api.WarmRequest) (api.WarmReport, error) {
	if req.DAGID == "nope" {
		return api.WarmReport{}, notFound("dag")
	}
	return api.WarmReport{DAGs: []api.WarmDAG{{DAGID: req.DAGID, Version: req.Version, Faults: []string{"<x>"}}}, Kept: true}, nil
}

// queueCalls asks what can be asked of queue, locks and cache.
func queueCalls() []siteCall {
	call := func(name, method string, do func(context.Context, api.Site) (any, error)) siteCall {
		return siteCall{name, method, do}
	}
	var out []siteCall
	for _, all := range []bool{false, true} {
		req := api.QueueRequest{All: all, Reason: "why <&>"}
		out = append(out,
			call("queue", "QueueStatus", func(ctx context.Context, s api.Site) (any, error) {
				return s.QueueStatus(ctx, api.QueueQuery{All: all})
			}),
			call("pause the queue", "PauseQueue", func(ctx context.Context, s api.Site) (any, error) { return s.PauseQueue(ctx, req) }),
			call("drain the queue", "DrainQueue", func(ctx context.Context, s api.Site) (any, error) { return s.DrainQueue(ctx, req) }),
			call("resume the queue", "ResumeQueue", func(ctx context.Context, s api.Site) (any, error) { return s.ResumeQueue(ctx, req) }),
			call("wait for the queue", "WaitQueue", func(ctx context.Context, s api.Site) (any, error) { return s.WaitQueue(ctx, api.QueueQuery{All: all}) }))
	}
	return append(out,
		call("pause for no reason", "PauseQueue", func(ctx context.Context, s api.Site) (any, error) {
			return s.PauseQueue(ctx, api.QueueRequest{Reason: "none"})
		}),
		call("dead steps", "ListDead", func(ctx context.Context, s api.Site) (any, error) { return s.ListDead(ctx, 7) }),
		call("no dead steps", "ListDead", func(ctx context.Context, s api.Site) (any, error) { return s.ListDead(ctx, 0) }),
		call("locks", "ListLocks", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListLocks(ctx, api.LockQuery{Stale: true, Kind: "lock"})
		}),
		call("no locks", "ListLocks", func(ctx context.Context, s api.Site) (any, error) { return s.ListLocks(ctx, api.LockQuery{}) }),
		call("a lock", "ShowLock", func(ctx context.Context, s api.Site) (any, error) { return s.ShowLock(ctx, "mer.ge") }),
		call("release", "ReleaseLock", func(ctx context.Context, s api.Site) (any, error) {
			return s.ReleaseLock(ctx, "merge", api.LockRelease{Kind: "lock", RunID: "r", StepID: "a.1", Reason: "<x>", DryRun: true})
		}),
		call("release of what is free", "ReleaseLock", func(ctx context.Context, s api.Site) (any, error) {
			return s.ReleaseLock(ctx, "free", api.LockRelease{Reason: "x"})
		}),
		call("cache", "ListCache", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListCache(ctx, api.CacheQuery{DAGID: "a b"})
		}),
		call("no cache", "ListCache", func(ctx context.Context, s api.Site) (any, error) { return s.ListCache(ctx, api.CacheQuery{}) }),
		call("clear the cache", "ClearCache", func(ctx context.Context, s api.Site) (any, error) {
			return s.ClearCache(ctx, api.CacheClearing{DAGID: "a", Reason: "b", DryRun: true})
		}),
		call("warm", "Warm", func(ctx context.Context, s api.Site) (any, error) {
			return s.Warm(ctx, api.WarmRequest{DAGID: "a", Version: "1.0.0"})
		}),
		call("plan", "PlanRun", func(ctx context.Context, s api.Site) (any, error) {
			return s.PlanRun(ctx, api.StartRequest{DAGID: "audit", Inputs: []byte(`{"a":"<&>"}`), Priority: -4})
		}),
		call("plan nothing", "PlanRun", func(ctx context.Context, s api.Site) (any, error) {
			return s.PlanRun(ctx, api.StartRequest{DAGID: "nope"})
		}),
		call("warm nothing", "Warm", func(ctx context.Context, s api.Site) (any, error) { return s.Warm(ctx, api.WarmRequest{DAGID: "nope"}) }))
}
