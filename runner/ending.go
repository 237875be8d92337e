package runner

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// How a run is ended before its steps have: at once, as failed, or cancelled
// ([Runner.Cancel]).

// Abort ends a run at once: what is under way is killed without grace, and
// nothing cleans up.
func (r *Runner) Abort(o Opened, actor, reason string) (state.Run, error) {
	run, err := r.finishBy(o, ledger.RunAbortRequested, func(e *execution) {
		e.requestCancel(ledger.RunAbortRequested, actor, reason)
	}, func(e *execution) bool { return e.run.Aborted })
	if bad := (*DamageError)(nil); errors.As(err, &bad) {
		return r.endDamaged(o, &state.Proposal{Type: ledger.RunAbortRequested, Actor: actor, Data: &ledger.Note{Reason: clip(reason)}})
	}
	return run, err
}

// Fail ends a run as failed, whatever its steps do: what is under way is stopped,
// what waits is skipped, and on_failure runs, or where that was under way, ends. The code is [state.FailedByHand] or
// [state.Stalled].
func (r *Runner) Fail(o Opened, actor string, code state.Code, reason string) (state.Run, error) {
	run, err := r.finishBy(o, ledger.RunFailRequested, func(e *execution) { e.requestFailure(actor, code, reason) }, func(e *execution) bool { return e.run.FailRequested() && !e.cleaning() })
	if bad := (*DamageError)(nil); errors.As(err, &bad) {
		return r.endDamaged(o, &state.Proposal{Type: ledger.RunFailRequested, Actor: actor, Data: &ledger.RunFailing{Code: string(code), Reason: clip(reason)}})
	}
	return run, err
}

func (e *execution) requestFailure(actor string, code state.Code, reason string) {
	cleaning := e.cleaning()
	if !e.run.FailRequested() {
		e.run.FailCode, e.run.FailNote = string(code), clip(reason)
	}
	e.run.NoCleanup, e.swept = cleaning, false
	e.proposeBy(actor, ledger.RunFailRequested, nil, &ledger.RunFailing{Code: string(code), Reason: clip(reason), Cleanup: cleaning})
	e.stopAll(ErrCancelled, reason)
}

// stopCode is what a step fails with that is stopped because its run is to fail, "" where no
// step of its phase is.
func (e *execution) stopCode(p phase) state.Code {
	switch {
	case !e.over(p):
	case e.run.FailRequested():
		if code := state.Code(e.run.FailCode); state.Stopped(code) {
			return code
		}
		return state.FailedByHand // it has failed at its outputs, and its cleanup was ended
	case e.late:
		return state.RunTimeout
	}
	return ""
}

// passOn tells what is left of a run again of the end that was asked for.
func (e *execution) passOn() {
	cause := ErrCancelled
	if e.run.Aborted {
		cause = ErrAborted
	}
	e.stopAll(cause, cmp.Or(e.run.CancelReason, e.run.FailNote))
}

// finishBy asks for the end of an open run.
func (r *Runner) finishBy(o Opened, t ledger.Type, ask func(*execution), asked func(*execution) bool) (state.Run, error) {
	return r.operate(o, func(e *execution) error {
		switch {
		case e.run.Status.Ended():
			return e.hasEnded()
		case asked(e) && e.detached: // the process that was to see it through has ended
			e.passOn()
			return r.commit(e)
		case asked(e):
			return nil
		case t == ledger.RunFailRequested && e.run.CancelRequested():
			return e.ending("it is cancelled, not failed")
		}
		ask(e)
		return r.commit(e)
	})
}

// requestCancel asks for the end of the run and tells what is under way.
func (e *execution) requestCancel(t ledger.Type, actor, reason string) {
	if e.run.CancelledBy == "" {
		e.run.CancelledBy, e.run.CancelReason = actor, clip(reason)
	}
	e.swept = false
	e.proposeBy(actor, t, nil, &ledger.Note{Reason: clip(reason)})
	cause := ErrCancelled
	if t == ledger.RunAbortRequested {
		e.run.Aborted = true
		cause = ErrAborted
	}
	e.stopAll(cause, reason)
}

// stopAll stops the attempts and sub-runs of steps that may not begin any more. An
// abort leaves no time to those that were stopped before.
func (e *execution) stopAll(cause error, why string) {
	for id, cancel := range e.cancels {
		if e.over(e.find(id).phase) {
			cancel(cause)
		}
	}
	for _, s := range e.strays {
		if cause == ErrAborted {
			s.cancel(cause)
		}
	}
	for _, n := range e.all() {
		if n.former != "" && (cause == ErrAborted || e.detached) { // else it is being ended already
			e.cancelLater(n.former, why, cause)
		}
		if n.child != "" && e.over(n.phase) {
			e.cancelLater(n.child, why, cause)
		}
	}
}

// cancelLater asks for the end of a sub-run once this model is let go of. An abort
// is passed on as what it is.
func (e *execution) cancelLater(child, why string, cause error) {
	e.later = append(e.later, func() { e.r.cancelChild(child, why, cause == ErrAborted) })
}

// excessive ends a run that has written more entries than the site allows (THREATS
// 24): as failed, and where its cleanup goes on like that, at once.
func (e *execution) excessive() bool {
	most := e.r.opt.MaxEntries
	switch {
	case e.ended.Load() || e.run.Entries <= most:
		return false
	case !e.run.FailRequested() && !e.run.CancelRequested():
		e.requestFailure("system:runner", state.TooManyEntries, fmt.Sprintf("more than %d entries (max_run_entries in site.toml)", most))
		return true
	case e.run.Entries > 2*most && e.run.SameEndSince != "" && !e.run.CancelRequested(): // it has failed before, and stays so
		if e.run.NoCleanup || !e.cleaning() {
			return false
		}
		e.requestFailure("system:runner", state.TooManyEntries, "its cleanup writes without end")
		return true
	case e.run.Entries > 2*most && !e.run.Aborted:
		e.requestCancel(ledger.RunAbortRequested, "system:runner", "its cleanup writes without end")
		return true
	}
	return false
}
