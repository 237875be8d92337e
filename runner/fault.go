package runner

import (
	"fmt"

	"github.com/stellarun/stella/runner/state"
)

// A FaultError is a run on which the state machine and the runner disagree: a fault of
// ours. Nothing of what was decided last is written, and nothing more is decided about
// the run by this process: what of it is under way is stopped, and whoever takes it up
// next begins with its records.
type FaultError struct {
	RunID string
	Err   error
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("runner: run %s: a fault in stella: %v", e.RunID, e.Err)
}

func (e *FaultError) Unwrap() error { return e.Err }

// faulty gives up a run where its fault is to be no other run's, nil where it is not of
// that kind. The caller holds e.mu.
func (r *Runner) faulty(e *execution, err error) error {
	if !r.opt.Contain || e.detached || e.gaveUp == nil && !state.Disagrees(err) {
		return nil
	}
	if e.gaveUp != nil {
		return e.gaveUp
	}
	e.gaveUp = &FaultError{e.runID, err}
	e.given.Store(true)
	e.setEnded()
	for _, cancel := range e.cancels {
		cancel(&stopped{ErrShutdown, "its run was given up"})
	}
	r.opt.Log.Error("a run was given up for a fault in stella; it goes on with the next start of the daemon", "runId", e.runID, "dagId", e.dag.ID, "error", err)
	return e.gaveUp
}

// broken ends the runner: the model is ahead of the store, and nothing may be
// decided on it any more. Whoever opens the site next reads what is recorded.
func (r *Runner) broken(e *execution, err error) error {
	if fault := r.faulty(e, err); fault != nil {
		return fault
	}
	err = fmt.Errorf("runner: run %s: %w", e.run.RunID, err)
	if !e.detached { // such a model is thrown away with the error
		e.setEnded()
		r.fail(err)
	}
	return err
}

// Fault says why a run was given up, nil if it was not.
func (r *Runner) Fault(runID string) error {
	e := r.executed(runID)
	if e == nil || !e.given.Load() { // a busy run is not asked
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.gaveUp
}
