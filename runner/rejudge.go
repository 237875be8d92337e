package runner

import (
	"context"
	"errors"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// revoked is the cause with which an attempt ends that trust no longer allows.
type revoked struct {
	error
	reason string
}

func (r *revoked) Is(target error) bool { return target == ErrRevoked }

// judge judges again what an attempt of n in a run of a DAG is made of: the DAG,
// the plugin, its data. The refusal is an error with a Reason() string.
func (r *Runner) judge(dag string, n *node) (ledger.TrustRef, error) {
	trust, err := r.opt.Sealed.Judge(dag)
	if err == nil {
		trust, err = r.opt.Sealed.Judge(n.plan.Plugin.Digest)
	}
	for _, d := range n.plan.Data {
		if err != nil {
			break
		}
		_, err = r.opt.Sealed.Judge(d.Digest)
	}
	return trust, err
}

// Rejudge is to be called after trust has changed. It judges again what the
// attempts under way are made of, and ends those that trust no longer allows
// (THREATS 15); it returns how many. An attempt that was judged before and is
// claimed only now is judged again when it is claimed.
func (r *Runner) Rejudge() int {
	r.trusts.Add(1)
	r.mu.Lock()
	all := make([]*execution, 0, len(r.execs))
	for _, e := range r.execs {
		all = append(all, e)
	}
	r.mu.Unlock()
	ended := 0
	for _, e := range all {
		e.mu.Lock()
		for id, cancel := range e.cancels {
			var why interface{ Reason() string }
			n := e.find(id)
			_, err := r.judge(e.run.DAGDigest, n)
			if err == nil {
				err = r.mayHave(e, e.run.DAGDigest, n, n.given)
			}
			if err != nil && errors.As(err, &why) {
				cancel(&revoked{err, why.Reason()})
				ended++
			}
		}
		e.mu.Unlock()
	}
	return ended
}

// stoppedAs puts the reason for which an attempt was stopped into its end.
func stoppedAs(ctx context.Context, end *ledger.AttemptEnd) {
	var why *revoked
	var halt *stopped
	var lost *lockLost
	switch {
	case errors.As(context.Cause(ctx), &lost):
		lost.end(end)
	case end.Outcome == string(state.Rejected) && errors.As(context.Cause(ctx), &why):
		end.ErrorCode, end.Message = why.reason, clip(why.Error())
	case end.Outcome == string(state.Interrupted) && errors.As(context.Cause(ctx), &halt):
		end.Message = clip(halt.message)
	}
}
