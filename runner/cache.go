package runner

import (
	"slices"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// cacheKey names everything that decides what an action does: the tenant, the
// step's part of the plan and the DAG it stands in, the parameters with the
// artifacts and data that they bring along, and behind which fences it runs. "" for
// a step that keeps nothing: what may come from a secret is never kept (THREATS 19).
func (r *Runner) cacheKey(e *execution, n *node, p *prepared, tier string) string {
	if n.step.Cache == nil || p.fault != nil || p.refused != nil || r.secretive(e, n, p) {
		return ""
	}
	part := *n.plan
	part.StepID = "" // the same work under another name is the same work
	artifacts, data := []string{}, []string{}
	for sum := range p.artifacts {
		artifacts = append(artifacts, sum)
	}
	slices.Sort(artifacts)
	for _, d := range n.plan.Data {
		data = append(data, d.Digest)
	}
	raw, err := jcs.Marshal([]any{
		e.tenant, part, e.plan.DAG.Digest, n.plan.Action, p.inputsHash, artifacts, data, append([]string{tier}, n.step.Require...),
	})
	if err != nil {
		return "" // it is of our own making, and of text
	}
	return Hash(raw)
}

// lookUp finds what was done before in the same way. What cannot be read any more
// was not.
func (r *Runner) lookUp(e *execution, n *node, p *prepared, afresh bool) {
	if p.cacheKey = r.cacheKey(e, n, p, r.opt.Executor.Tier()); p.cacheKey == "" || afresh {
		return // what is done afresh takes the place of what is kept
	}
	hit, ok, err := r.opt.Store.CachedOutputs(p.cacheKey, stamp.Format(r.opt.Now()))
	if err != nil || !ok {
		return
	}
	if hit.OutputsHash != "" {
		if p.kept, err = r.outputs(hit.OutputsHash); err != nil {
			return
		}
	}
	for _, a := range hit.Artifacts {
		f, err := r.opt.Sealed.Open(a.SHA256)
		if err != nil {
			return
		}
		f.Close()
	}
	p.hit = &hit
}

// takeHit does a step by what was done before. The caller holds e.mu.
func (r *Runner) takeHit(e *execution, n *node, p *prepared) error {
	hit := *p.hit
	hit.Trust = p.trust
	n.claimed, n.repeat = false, false
	n.status = state.Running
	n.outputs, n.artifacts = p.kept, artifactsOf(hit.Artifacts)
	n.attempt++ // so that what people are asked about has a name of its own
	e.propose(ledger.StepCached, n, &hit)
	e.acted(n, hit.OutputsHash)
	return r.commit(e)
}

// keep lets others take what an attempt has made.
func (r *Runner) keep(n *node, p *prepared, end *ledger.AttemptEnd) {
	if p.cacheKey == "" {
		return
	}
	end.CacheKey = p.cacheKey
	end.CacheExpires = stamp.Format(r.opt.Now().Add(n.step.Cache.TTL))
}
