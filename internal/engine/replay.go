package engine

import (
	"context"
	"fmt"

	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/server/api"
)

// ReplayRun runs again what an ended run has run: the plan that it froze, from the
// sealed bundles, with its inputs. When the replay has ended, its outputs are
// compared with the first run's. That its DAG version is disabled is no obstacle;
// that trust no longer allows what it is made of is one.
func (s *site) ReplayRun(ctx context.Context, id string, req api.ReplayRequest) (api.StartResult, error) {
	e := s.e
	if req.Rationale == "" {
		return api.StartResult{}, invalid("a replay needs a rationale: it is recorded")
	}
	first, err := s.run(id)
	if err != nil {
		return api.StartResult{}, err
	}
	if !first.Status.Ended() {
		return api.StartResult{}, &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("run %s is %s; only what has ended can be replayed", id, first.Status)}
	}
	if err := e.executes(); err != nil {
		return api.StartResult{}, err
	}
	e.gate.RLock()
	defer e.gate.RUnlock()
	if err := s.accepts(); err != nil {
		return api.StartResult{}, err
	}
	o, err := e.opened(first)
	if err != nil {
		return api.StartResult{}, dbError(err)
	}
	if _, err := e.sealed.Judge(first.DAGDigest); err != nil {
		return api.StartResult{}, judged(first.DAGID+" "+first.DAGVersion, err)
	}
	behalf, err := s.starters(first)
	if err != nil {
		return api.StartResult{}, err
	}
	run, err := e.runner.StartRun(ctx, runner.Start{
		Tenant: s.tenant, Actor: s.actor, RunToken: "stella:replay:" + first.RunID + ":" + runner.NewToken(), TraceID: runner.NewToken(),
		Pinned: first.DAGVersion, Metadata: first.Metadata, DAG: o.DAG, Plan: o.Plan, Inputs: o.Inputs, Trust: e.currentTrust().Ref(),
		Behalf: behalf, ReplayOf: first.RunID, Rationale: req.Rationale, Priority: first.Priority,
	})
	if err != nil {
		return api.StartResult{}, dbError(err)
	}
	return api.StartResult{Run: run}, nil
}

// executes refuses what only a process can take on that executes steps.
func (e *Engine) executes() error {
	if e.opt.Executor == nil || !e.opt.Executes {
		return dbError(runner.ErrNotExecuting)
	}
	if e.opt.Executor.Tier() == "plain" && !e.site.AllowPlain {
		return plainForbidden()
	}
	return nil
}
