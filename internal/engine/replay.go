package engine

import (
	"cmp"
	"context"
	"fmt"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
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
	if req.DryRun {
		steps, _, err := s.replayed(first)
		return api.StartResult{Run: first, DryRun: true, Steps: steps}, err
	}
	if err := e.executes(); err != nil {
		return api.StartResult{}, err
	}
	e.gate.RLock()
	defer e.gate.RUnlock()
	if err := s.accepts(false); err != nil {
		return api.StartResult{}, err
	}
	o, err := e.opened(first)
	if err != nil {
		return api.StartResult{}, dbError(err)
	}
	if _, err := e.sealed.Judge(first.DAGDigest); err != nil {
		return api.StartResult{}, judged(first.DAGID+" "+first.DAGVersion, err)
	}
	if _, twice, err := s.replayed(first); err != nil || twice != nil && !req.Repeat {
		return api.StartResult{}, cmp.Or(err, twice)
	}
	behalf, err := s.starters(first)
	if err != nil {
		return api.StartResult{}, err
	}
	run, err := e.runner.StartRun(ctx, runner.Start{
		Tenant: s.tenant, Actor: s.actor, RunToken: "stella:replay:" + first.RunID + ":" + runner.NewTraceID()[:16], TraceID: runner.NewTraceID(),
		Pinned: first.DAGVersion, Metadata: first.Metadata, DAG: o.DAG, Plan: o.Plan, Inputs: o.Inputs, Trust: e.currentTrust().Ref(),
		Behalf: behalf, ReplayOf: first.RunID, Rationale: req.Rationale, Priority: first.Priority,
	})
	if err != nil {
		return api.StartResult{}, dbError(err)
	}
	return api.StartResult{Run: run}, nil
}

// replayed says what a replay of a run would do; twice, if that does again what is not
// idempotent.
func (s *site) replayed(first state.Run) (steps []api.ReplayStep, twice, err error) {
	o, err := s.e.opened(first)
	if err != nil {
		return nil, nil, dbError(err)
	}
	recs, err := s.e.db.Steps(first.RunID)
	if err != nil {
		return nil, nil, dbError(err)
	}
	var again []string
	for phase, list := range [][]manifests.Step{o.DAG.Steps, o.DAG.OnFailure, o.DAG.OnCancel} {
		for i := range list {
			rec, p := recs[list[i].ID], o.Plan.Step(list[i].ID)
			rec.Status = cmp.Or(rec.Status, state.Pending)
			x := api.ReplayStep{StepID: list[i].ID, Runs: "people are asked", Was: state.Shown(&first, rec, phase > 0).Status, Begun: rec.Attempt > 0}
			switch {
			case p.Plugin != nil:
				x.Runs = fmt.Sprintf("%s/%s@%s %s", p.Plugin.Publisher, p.Plugin.Name, p.Plugin.Version, p.Action)
			case p.SubPlan != "":
				x.Runs = "a run of " + list[i].DAG
			}
			if x.Once, err = s.e.runner.Once(p, list[i].Idempotent); err != nil {
				return nil, nil, dbError(err)
			}
			if x.Begun {
				again = append(again, x.Once...)
			}
			steps = append(steps, x)
		}
	}
	if len(again) > 0 {
		return steps, dbError(runner.NotTwice(again, "a replay")), nil
	}
	return steps, nil, nil
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
