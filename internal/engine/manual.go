package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

var _ api.Recovery = (*site)(nil)

// maxDelay bounds how long somebody can put off a retry.
const maxDelay = 24 * time.Hour

// byHand turns what the runner says about something done by hand into what the API
// says; nil for all other errors.
func byHand(err error) *api.Error {
	var request *runner.RequestError
	var conflict *runner.ConflictError
	var decision *runner.DecisionError
	switch {
	case errors.As(err, &request):
		return &api.Error{Code: api.CodeInvalid, Message: request.Text}
	case errors.As(err, &conflict):
		return &api.Error{Code: api.CodeConflict, Message: conflict.Text, Hint: conflict.Hint}
	case errors.As(err, &decision):
		return &api.Error{Code: api.Code(decision.Code), Message: decision.Text}
	}
	return nil
}

// recovery is one thing that is done by hand, by the runner that it is given.
type recovery func(*runner.Runner, runner.Opened) (state.Run, error)

// recover does something by hand to a run, or with dry says what it would do.
func (s *site) recover(id string, dry bool, do recovery) (api.Recovered, error) {
	run, err := s.run(id)
	if err != nil {
		return api.Recovered{}, err
	}
	o, _ := s.e.opened(run) // what cannot be read, the runner finds in it
	eff, err := s.e.runner.Try(o, func(r *runner.Runner) (state.Run, error) { return do(r, o) })
	if err != nil {
		return api.Recovered{}, s.refused(id, err)
	}
	out := api.Recovered{Run: run, DryRun: dry, Changed: eff.Changed, Steps: effects(eff), Subruns: eff.Subruns, Kept: eff.Kept, Twice: eff.Twice}
	if out.Parent, err = s.parentOf(run); err != nil {
		return out, err
	}
	if out.Subruns == nil {
		out.Subruns = []string{}
	}
	if dry {
		out.Run, out.Executed = eff.Run, s.e.runner.Executes(id) || s.e.opt.Executes && run.Status.Ended()
		return out, nil
	}
	if out.Run, err = do(s.e.runner, o); err != nil {
		return out, s.refused(id, err)
	}
	if out.Changed { // unless somebody was faster
		if out.Changed, err = s.wrote(run, out.Run); err != nil {
			return out, dbError(err)
		}
	}
	out.Run, out.Executed, err = s.executed(out.Run)
	return out, err
}

// executed says whether somebody executes a run to which something was done, and how it
// stands where nobody does: with the end of a sub-run it may have ended right away.
func (s *site) executed(run state.Run) (state.Run, bool, error) {
	if s.e.runner.Executes(run.RunID) {
		return run, true, nil
	}
	now, err := s.e.db.Run(run.RunID)
	return now, false, dbError(err)
}

// effects are those of one thing done by hand, as others see them.
func effects(eff runner.Effects) []api.StepEffect {
	out := []api.StepEffect{}
	for _, x := range eff.Steps {
		out = append(out, api.StepEffect(x))
	}
	return out
}

// wrote says whether the caller has written something about a run since it was
// read.
func (s *site) wrote(before, after state.Run) (bool, error) {
	for l, err := range s.e.db.Entries(before.LastSeq+1, after.LastSeq+1) {
		if err != nil {
			return false, err
		}
		env, err := ledger.ParseEnvelope(l.Envelope)
		if err != nil {
			return false, err
		}
		if env.RunID == after.RunID && env.Actor == s.actor {
			return true, nil
		}
	}
	return false, nil
}

// refused says that a run has ended, with how.
func (s *site) refused(id string, err error) error {
	if !errors.Is(err, runner.ErrEnded) {
		return dbError(err)
	}
	run, err := s.run(id)
	if err != nil {
		return &api.Error{Code: api.CodeRunEnded, Message: fmt.Sprintf("run %s has ended", id)}
	}
	return ended(run)
}

// ended says how a run has ended, of which something was asked that needs an open
// one, or one that is not final.
func ended(run state.Run) error {
	e := &api.Error{Code: api.CodeRunEnded, Message: fmt.Sprintf("run %s is %s already", run.RunID, run.Status), Hint: "that is final: start a new run"}
	if run.Status == state.Failed {
		e.Hint = "stella orch run retry " + run.RunID + " lets it go on"
	}
	return e
}

// RetryRun implements [api.Recovery].
func (s *site) RetryRun(_ context.Context, id string, req api.RetryRequest) (api.Recovered, error) {
	delay := time.Duration(req.DelayMs) * time.Millisecond
	if req.DelayMs < 0 || req.DelayMs > maxDelay.Milliseconds() {
		return api.Recovered{}, invalid("a delay is at most %s", maxDelay)
	}
	return s.recover(id, req.DryRun, func(r *runner.Runner, o runner.Opened) (state.Run, error) {
		return r.Retry(o, runner.Retry{Actor: s.actor, Reason: req.Reason, StepID: req.StepID, Downstream: req.Downstream, Repeat: req.Repeat, Only: req.Only, Delay: delay, Input: req.Input})
	})
}

// SkipStep implements [api.Recovery].
func (s *site) SkipStep(_ context.Context, id string, req api.SkipRequest) (api.Recovered, error) {
	if req.Reason == "" {
		return api.Recovered{}, invalid("skipping a step needs a reason")
	}
	return s.recover(id, req.DryRun, func(r *runner.Runner, o runner.Opened) (state.Run, error) {
		return r.Skip(o, runner.Skip{Actor: s.actor, Reason: req.Reason, StepID: req.StepID, Repeat: req.Repeat, Only: req.Only, Output: req.Outputs})
	})
}

// already is err, but for a run that has ended as the caller wants it: asking for
// that again changes nothing.
func already(run state.Run, want state.Status, err error) (state.Run, error) {
	if errors.Is(err, runner.ErrEnded) && run.Status == want {
		err = nil
	}
	return run, err
}

// AbortRun implements [api.Recovery].
func (s *site) AbortRun(_ context.Context, id string, req api.EndRequest) (api.Recovered, error) {
	if req.Reason == "" {
		return api.Recovered{}, invalid("aborting a run needs a reason")
	}
	return s.recover(id, req.DryRun, func(r *runner.Runner, o runner.Opened) (state.Run, error) {
		run, err := r.Abort(o, s.actor, req.Reason)
		return already(run, state.Cancelled, err)
	})
}

// FailRun implements [api.Recovery].
func (s *site) FailRun(_ context.Context, id string, req api.EndRequest) (api.Recovered, error) {
	if req.Reason == "" {
		return api.Recovered{}, invalid("failing a run needs a reason")
	}
	return s.recover(id, req.DryRun, func(r *runner.Runner, o runner.Opened) (state.Run, error) {
		run, err := r.Fail(o, s.actor, state.FailedByHand, req.Reason)
		return already(run, state.Failed, err)
	})
}

// RestartRun implements [api.Recovery].
func (s *site) RestartRun(_ context.Context, id string, req api.AgainRequest) (api.Recovered, error) {
	if req.Only {
		return api.Recovered{}, invalid("only is of a reset: a restart begins nothing but what is under way")
	}
	return s.recover(id, req.DryRun, func(r *runner.Runner, o runner.Opened) (state.Run, error) {
		return r.Restart(o, s.actor, req.Reason, req.StepID, req.Repeat)
	})
}

// NudgeRun implements [api.Recovery].
func (s *site) NudgeRun(_ context.Context, id string, req api.NudgeRequest) (api.Recovered, error) {
	return s.recover(id, false, func(r *runner.Runner, o runner.Opened) (state.Run, error) {
		return r.Nudge(o, s.actor, req.Reason)
	})
}

// ResetRun implements [api.Recovery].
func (s *site) ResetRun(_ context.Context, id string, req api.AgainRequest) (api.Recovered, error) {
	return s.recover(id, req.DryRun, func(r *runner.Runner, o runner.Opened) (state.Run, error) {
		return r.Reset(o, runner.Reset{Actor: s.actor, Reason: req.Reason, StepID: req.StepID, Repeat: req.Repeat, Only: req.Only})
	})
}
