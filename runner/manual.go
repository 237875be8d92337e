package runner

import (
	"fmt"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Everything that people do to runs by hand. Each is an entry with who did it and
// why; what is final or under way is left alone.

// A RequestError is something asked for that makes no sense.
type RequestError struct{ Text string }

func (e *RequestError) Error() string { return "runner: " + e.Text }

// A ConflictError is something that cannot be done to a run or step as it is now.
type ConflictError struct {
	Text string
	Hint string
}

func (e *ConflictError) Error() string { return "runner: " + e.Text }

func conflict(format string, a ...any) error { return &ConflictError{Text: fmt.Sprintf(format, a...)} }

// stopped is a cause with which an attempt ends, and its reason in words.
type stopped struct {
	cause   error
	message string
}

func (s *stopped) Error() string { return s.message }

func (s *stopped) Is(target error) bool { return target == s.cause }

// operate lets f decide on a run, whether it is being executed here or not. f refuses
// before it decides anything, and commits what it decides. What is executed here goes
// on here.
func (r *Runner) operate(o Opened, f func(*execution) error) (state.Run, error) {
	if err := r.hold(); err != nil {
		return o.Run, err
	}
	defer r.release()
	if r.opt.Executor != nil { // a run that is reopened goes on here
		if err := r.inheritLocks(); err != nil {
			return o.Run, err
		}
	}
	r.opening.Lock()
	var later []func()
	e, err := r.model(o)
	if err == nil && e.overdue() { // nobody has looked at its time
		e.timeUp()
		err = r.commit(e)
		later, e.later = e.later, nil
		e.mu.Unlock()
		if err == nil {
			e, err = r.model(o)
		}
	}
	run := o.Run
	if err == nil {
		executed := !e.detached
		if err = f(e); err != nil && len(e.batch) > 0 {
			err = r.unwritten(e, executed, err)
		} else {
			run = e.run
		}
		later, e.later = append(later, e.later...), nil
		e.mu.Unlock()
	}
	r.worked.forget()
	r.opening.Unlock()
	for _, f := range later {
		f()
	}
	return run, err
}

// unwritten sees to a model on which something was decided that was not written: nothing
// more may be decided on it, or that would be written along. What was executed before
// is given up as after any write that has failed. A run that was only to be reopened is
// let go of, and whoever comes next begins with its records. The caller holds e.mu.
func (r *Runner) unwritten(e *execution, executed bool, err error) error {
	e.batch, e.later = nil, nil
	switch {
	case e.ended.Load(): // the write itself has failed, and that was seen to; or nobody has the model
	case executed:
		return r.broken(e, err)
	case !e.detached:
		e.setEnded()
		r.drop(e)
	}
	return err
}

// model is the model of a run, locked: the one that is executed here, or one made
// from its records for one decision. Whoever ends a run holds its lock until that
// is written; records are not read before. The caller holds opening.
func (r *Runner) model(o Opened) (*execution, error) {
	r.mu.Lock()
	e := r.execs[o.Run.RunID]
	r.mu.Unlock()
	if e != nil {
		e.mu.Lock()
		if !e.ended.Load() {
			return e, nil
		}
		gaveUp := e.gaveUp
		e.mu.Unlock()
		if gaveUp != nil {
			return nil, gaveUp
		}
	}
	e, err := r.open(o)
	if err != nil {
		return nil, err
	}
	e.detached = true
	if t, ok := r.opt.Store.(*trial); ok {
		t.live(e)
	}
	e.mu.Lock()
	return e, nil
}

// record commits what was decided without drawing consequences: of a run that
// may have ended. The caller holds e.mu.
func (r *Runner) record(e *execution) error {
	run, err := r.opt.Store.Commit(e.run.RunID, e.batch...)
	if err != nil {
		return r.broken(e, err)
	}
	e.run, e.batch = run, e.batch[:0]
	return nil
}

// allowed says whether a step that is begun again may do twice what it has done: where
// somebody says so, or has named it, unless it has done it in a sub-run.
func (n *node) allowed(named, repeat bool) bool { return repeat || named && n.plan.SubPlan == "" }

// reopen lets a failed run go on, in a new generation, for a step of it. Its cleanup is
// pending again, since it is about a later failure. Where the step is one that cleans up, it
// is about the same: the run stays failed for what it failed for, and what is done is done.
func (e *execution) reopen(actor, reason string, n *node) {
	cleanup := n.phase != ordinary
	e.run.Reopen(stamp.Format(e.r.opt.Now()), cleanup) // until the entry does
	e.run.Status = state.Running
	e.run.Generation++
	e.proposeBy(actor, ledger.RunReopened, nil, &ledger.RunGeneration{Generation: e.run.Generation, Reason: clip(reason), Cleanup: cleanup})
	e.ended.Store(false)
	e.late, e.timeout, e.failing, e.swept = e.late && cleanup, e.timeout && cleanup, false, false
	e.setDeadline()
	for _, x := range e.all() {
		x.now = false
		if x.phase != ordinary && !cleanup {
			e.invalidate(actor, x, ledger.StepInvalidation{Reason: state.Reopened, Repeat: true})
		}
	}
	if e.r.opt.Executor != nil {
		e.r.adopt(e)
		e.r.watch(e)
		for _, n := range e.all() {
			if former := n.former; former != "" {
				e.later = append(e.later, func() { e.r.resumeFormer(actor, former) })
			}
		}
	}
}

// lostTurn says whether a step was skipped only because of what others did.
func (n *node) lostTurn() bool { return n.status == state.Skipped && state.LostTurn(n.reason) }

// stopped says whether a step has failed since its run was ended, and not by itself.
func (n *node) stopped() bool { return n.status == state.Failed && state.Stopped(n.reason) }

// target is the step or item that is meant: the one that is named, else the step for
// which the run has failed, else the last that fails it.
func (e *execution) target(stepID string) (*node, error) {
	if stepID != "" {
		if n := e.find(stepID); n != nil {
			return n, nil
		}
		return nil, e.noStep(stepID)
	}
	last := e.byID[e.run.FailedStep]
	if last != nil && last.status != state.Failed {
		last = nil
	}
	if last == nil {
		for _, n := range e.nodes {
			if n.phase == ordinary && n.status == state.Failed && !n.settled() && (last == nil || n.order > last.order) {
				last = n
			}
		}
	}
	for _, n := range e.nodes { // somebody failed the run, or its time was over, before any step had failed
		if last == nil && e.givenUp(n) {
			last = n
		}
	}
	if last == nil {
		return nil, e.noFailedStep()
	}
	if x := last.heldBy(nil, map[*node]bool{}); x != nil { // it would not begin before that one
		return x, nil
	}
	return last, nil
}

// givenUp says whether a step has not had its turn in a run that has failed.
func (e *execution) givenUp(n *node) bool {
	return e.run.Status == state.Failed && n.phase == ordinary && n.lostTurn()
}

// open is the step that is meant, if the run takes something of the kind.
func (e *execution) open(stepID, what string) (*node, error) {
	if err := e.closedTo(what); err != nil {
		return nil, err
	}
	n, err := e.target(stepID)
	if err != nil {
		return nil, err
	}
	return n, e.overtaken(n)
}
