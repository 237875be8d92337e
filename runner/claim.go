package runner

import (
	"context"
	"errors"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// mayClaim says whether a step may begin now; where not, what becomes of it is
// written. The caller holds e.mu.
func (r *Runner) mayClaim(ctx context.Context, e *execution, n *node) (bool, error) {
	switch {
	case n.status != state.Queued || !n.claimed:
		n.claimed = false // taken away meanwhile
		return false, nil
	case ctx.Err() != nil:
		n.claimed = false
		return false, nil // it stays queued for whoever opens the site next
	case e.ended.Load():
		n.claimed = false
		return false, nil
	case e.over(n.phase):
		n.claimed, e.swept = false, false
		return false, r.commit(e)
	case e.overdue():
		n.claimed = false
		e.timeUp()
		return false, r.commit(e)
	}
	return true, nil
}

// claim writes attempt.started, after which a process may exist. It returns
// false when the attempt ended without one.
func (r *Runner) claim(ctx context.Context, e *execution, n *node, p *prepared, cancel context.CancelCauseFunc) (started bool, err error) {
	err = r.within(e, func() error {
		if ok, err := r.mayClaim(ctx, e, n); !ok {
			return err
		}
		if p.fault != nil {
			n.claimed = false
			e.end(n, ledger.StepFailed, state.Failed, state.ExpressionInvalid, ledger.StepEnd{Reason: clip("with: " + p.fault.Error())})
			return r.commit(e)
		}
		if p.refused == nil && p.trusts != r.trusts.Load() {
			if p.trust, p.refused = r.judge(e.run.DAGDigest, n); p.refused == nil {
				p.refused = r.mayHave(e, e.run.DAGDigest, n, p.secrets.names)
			}
		}
		if p.hit != nil && p.refused == nil {
			return r.takeHit(e, n, p)
		}
		if p.refused == nil {
			why, err := e.undecided(n, p)
			if err != nil {
				return err
			}
			if why != "" {
				n.claimed = false
				e.end(n, ledger.StepFailed, state.Failed, state.Indeterminate, ledger.StepEnd{Reason: clip(why)})
				return r.commit(e)
			}
		}
		started, err = r.launch(e, n, p, cancel)
		return err
	})
	return started, err
}

// launch writes the start of an attempt. The caller holds e.mu.
func (r *Runner) launch(e *execution, n *node, p *prepared, cancel context.CancelCauseFunc) (bool, error) {
	n.attempt++
	n.status, p.attempt = state.Running, n.attempt
	n.round.Add(1)
	start := &ledger.AttemptStart{
		Generation: e.run.Generation, Owner: r.opt.Owner, Tier: r.opt.Executor.Tier(), Plugin: n.plan.Plugin.Digest,
		Entry: n.plan.Entry, InputsHash: p.inputsHash, PlanHash: e.run.PlanHash, Trust: p.trust, Locks: n.locks, Overlay: p.overlay,
	}
	if p.timeout > 0 {
		start.Deadline = stamp.Format(r.opt.Now().Add(p.timeout))
	}
	refusal := r.refusal(n, p)
	if refusal == nil {
		start.Secrets, n.given, n.secret = p.secrets.uses, p.secrets.names, n.secret || len(p.secrets.names) > 0
	}
	e.propose(ledger.AttemptStarted, n, start)
	if refusal != nil {
		return false, r.conclude(e, n, p, refusal)
	}
	e.cancels[n.id] = cancel
	if err := r.commit(e); err != nil {
		return false, err
	}
	p.run = e.run
	return true, failpoint.Hit(failpoint.RunnerClaim)
}

// refusal is the end of an attempt that must not start: trust no longer allows
// it, or its parameters do not satisfy the action's schema.
func (r *Runner) refusal(n *node, p *prepared) *ledger.AttemptEnd {
	var reason interface{ Reason() string }
	switch {
	case p.refused != nil && errors.As(p.refused, &reason):
		return &ledger.AttemptEnd{Outcome: string(state.Rejected), ErrorCode: reason.Reason(), Message: clip(p.refused.Error())}
	case errors.Is(p.refused, errPlainSecrets):
		return &ledger.AttemptEnd{Outcome: string(state.Infra), ErrorCode: string(state.FenceUnavailable), Message: clip(p.refused.Error())}
	case p.refused != nil:
		return &ledger.AttemptEnd{Outcome: string(state.Infra), ErrorCode: string(state.CodeInfra), Message: clip(p.refused.Error())}
	}
	if fault := r.invalid(p.manifest, p.action.Params, p.params); fault != "" {
		return &ledger.AttemptEnd{Outcome: string(state.Rejected), ErrorCode: string(state.StepRejected), Message: clip("params: " + fault)}
	}
	return nil
}
