package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// tidy puts in order what a process that died has left behind.
func (e *Engine) tidy(ctx context.Context) error {
	if err := e.recoverRuns(ctx); err != nil {
		return err
	}
	if err := e.sweepLogs(); err != nil {
		return err
	}
	if err := e.db.FlushRejections("system:engine"); err != nil && clockError(err) == nil {
		return err
	}
	return nil
}

// recoverRuns ends what a crash interrupted: we hold the lock, so no attempt
// that is open in the records can be under way.
func (e *Engine) recoverRuns(ctx context.Context) error {
	runs, err := e.db.ActiveRuns()
	if err != nil {
		return err
	}
	errs := make([]error, len(runs))
	each(runs, func(run state.Run) bool { return run.Open > 0 }, func(i int, run state.Run) { errs[i] = e.recoverRun(ctx, run) })
	if err := errors.Join(errs...); err != nil {
		return err
	}
	e.runner.Recovered()
	return nil
}

func (e *Engine) recoverRun(ctx context.Context, run state.Run) error {
	o, err := e.opened(run)
	n := 0
	if err == nil {
		n, err = e.runner.Recover(ctx, o)
	}
	if noSpace(err) {
		return fmt.Errorf("run %s: %w", run.RunID, err) // nothing of it is damaged
	}
	if err != nil {
		// What the run was made of is damaged: nobody can know whether its
		// attempts may be repeated. The site must open all the same.
		e.opt.Log.Error("a run cannot be taken up", "runId", run.RunID, "error", err)
		if n, err = e.interrupt(run); err != nil && e.db.Failure() == nil {
			e.opt.Log.Error("attempts of a run cannot be ended", "runId", run.RunID, "error", err)
			err = nil
		}
		if err != nil {
			return fmt.Errorf("run %s: %w", run.RunID, err)
		}
	}
	if n > 0 {
		e.opt.Log.Warn("attempts were interrupted", "runId", run.RunID, "attempts", n)
	}
	return nil
}

// interrupt ends the open attempts of a run whose plan or plugins cannot be
// read: none of them is started again.
func (e *Engine) interrupt(run state.Run) (int, error) {
	steps, err := e.db.Steps(run.RunID)
	if err != nil {
		return 0, err
	}
	var all []state.Proposal
	n := 0
	for id, s := range steps {
		if !s.Open {
			continue
		}
		n++
		if a, err := e.db.Attempt(run.RunID, id, s.Attempt); err == nil && a.Start != nil && len(a.Start.Secrets) > 0 {
			if err := e.runner.PurgeWorkspace(run.RunID, id, s.Attempt); err != nil {
				e.opt.Log.Error("after a crash", "error", err)
			}
		}
		all = append(all,
			state.Proposal{Type: ledger.AttemptEnded, Actor: "system:engine", StepID: id, Attempt: s.Attempt, Data: &ledger.AttemptEnd{
				Generation: run.Generation, Outcome: string(state.Interrupted), ErrorCode: string(state.Indeterminate),
				Message: "stella ended while the attempt was under way, and the run's sealed files cannot be read",
			}},
			state.Proposal{Type: ledger.StepFailed, Actor: "system:engine", StepID: id, Data: &ledger.StepEnd{ErrorCode: string(state.Indeterminate)}})
	}
	if n == 0 {
		return 0, nil
	}
	_, err = e.db.Commit(run.RunID, all...)
	return n, err
}
