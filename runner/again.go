package runner

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// What hangs is looked at again, begun again, or taken out of the hands it is in.

// Nudge looks at a run again: waiting times of its steps are over, and sub-runs are
// asked for what became of them. It repeats nothing.
func (r *Runner) Nudge(o Opened, actor, reason string) (state.Run, error) {
	return r.operate(o, func(e *execution) error {
		if e.run.Status.Ended() {
			return e.hasEnded()
		}
		return e.nudge(actor, reason)
	})
}

func (e *execution) nudge(actor, reason string) error {
	e.proposeBy(actor, ledger.RunNudged, nil, &ledger.Nudge{Reason: clip(reason)})
	for _, n := range e.all() {
		if n.status == state.Queued && !n.claimed && !n.due.IsZero() {
			e.queue(n, "nudge", time.Time{})
		}
	}
	if err := e.reconsider(); err != nil {
		return err
	}
	if err := e.reconcile(false); err != nil {
		return err
	}
	return e.r.commit(e)
}

// Restart stops what is under way in a run and begins it again. Steps that are not
// idempotent are left alone and named in a *[ConflictError], unless repeat is set.
func (r *Runner) Restart(o Opened, actor, reason, stepID string, repeat bool) (state.Run, error) {
	return r.operate(o, func(e *execution) error {
		if e.run.Status.Ended() {
			return e.hasEnded()
		}
		if stepID != "" && e.find(stepID) == nil {
			return e.noStep(stepID)
		}
		return e.restart(actor, reason, stepID, repeat)
	})
}

// restart stops attempts under way, of which each is to be queued again by its end.
func (e *execution) restart(actor, reason, stepID string, repeat bool) error {
	var meant []*node
	for _, n := range e.all() {
		if e.cancels[n.id] == nil || stepID != "" && n.id != stepID && (n.parent == nil || n.parent.id != stepID) {
			continue
		}
		if err := cmp.Or(e.overtaken(n), e.onlyStopped(n)); err != nil {
			return err
		}
		if !repeat && !e.r.repeatable(n) {
			return &ConflictError{Text: fmt.Sprintf("step %s is not idempotent: what it has done so far would be done twice", n.id),
				Hint: "with --repeat you take that upon yourself"}
		}
		if e.tried() && !e.r.repeatable(n) {
			e.twice = append(e.twice, n.id)
		}
		meant = append(meant, n)
	}
	if len(meant) == 0 {
		return e.nothingToRestart(stepID)
	}
	e.proposeBy(actor, ledger.RunRestarted, nil, &ledger.Nudge{Step: stepID, Reason: clip(reason), Repeat: repeat})
	for _, n := range meant {
		n.again = true
		e.cancels[n.id](&stopped{ErrShutdown, "restarted by " + actor})
	}
	return e.r.commit(e)
}

// Reset says how steps are begun anew.
type Reset struct {
	Actor, Reason string
	StepID        string // "" means every step that is under way
	Repeat        bool   // also what is not idempotent
	Only          bool   // what nobody has named, and must not be done twice, stays as it is
}

// Reset takes steps out of whatever hands they are in and makes them pending, in a
// new generation: a late end of an attempt counts no more.
func (r *Runner) Reset(o Opened, q Reset) (state.Run, error) {
	return r.operate(o, func(e *execution) error {
		if err := e.closedTo("reset"); err != nil {
			return err
		}
		if n := e.find(q.StepID); q.StepID != "" && n == nil {
			return e.noStep(q.StepID)
		} else if n != nil && n.parent != nil {
			return itemNamed(n)
		}
		return e.reset(q)
	})
}

func (e *execution) reset(q Reset) error {
	var named []*node
	for _, n := range e.nodes {
		if n.id == q.StepID || q.StepID == "" && n.live {
			named = append(named, n)
		}
	}
	if len(named) == 0 {
		return &ConflictError{Text: "no step of run " + e.runID + " is under way", Hint: "name the one that is to be reset with --step"}
	}
	readers := e.readers(named)
	again := slices.Concat(named, readers)
	for _, n := range again {
		if err := cmp.Or(e.overtaken(n), e.held(n, named...)); err != nil {
			return err
		}
	}
	d, err := e.decide(choice{about: named, named: named, repeat: q.Repeat, only: q.Only}, func(d redone) { e.afterReset(d, named, readers) }, func(d redone) error {
		return e.notTwice(d, named[0].phase != ordinary, "a reset")
	})
	if err != nil {
		return err
	}
	if e.run.Status == state.Failed {
		e.reopen(q.Actor, q.Reason, named[0])
	} else {
		e.takeBack(q.Actor)
		e.run.Generation++
		for _, n := range e.all() {
			n.now = false // as whoever reads the record sees it
		}
		e.proposeBy(q.Actor, ledger.RunReset, nil, &ledger.RunGeneration{Generation: e.run.Generation, Reason: clip(q.Reason)})
	}
	for _, n := range again {
		e.dropChild(n, "its step was reset")
		for _, item := range n.items {
			e.dropChild(item, "its step was reset")
		}
	}
	if err := e.reconsider(e.beginAgain(q.Actor, d)...); err != nil {
		return err
	}
	return e.r.commit(e)
}

// readers are the steps under way behind those that are to be reset, and those that wait
// for people: their attempts are taken back as well, and the next would read what is not
// there yet; what people are asked is about what counts no more.
func (e *execution) readers(named []*node) []*node {
	return slices.DeleteFunc(e.downstream(named...), func(x *node) bool { return !x.live && x.status != state.CheckpointPending })
}

// afterReset lists what a reset begins again. The generation counts for the whole run, so it
// is about every attempt under way, and about what had lost its turn for another that has
// failed.
func (e *execution) afterReset(d redone, named, readers []*node) {
	again := slices.Concat(named, readers)
	behind := e.behind(false, again...)
	inv := ledger.StepInvalidation{Reason: "reset"}
	d.comeBack(e, true, append(again, behind...)...)
	d.steps(e, behind, false, inv)
	for _, n := range named {
		d.step(e, n, !n.keeps(), true, inv)
	}
	d.steps(e, readers, false, inv)
	for id := range e.cancels {
		d.addLater(e.find(id))
	}
}

// takeBack ends every attempt under way in the record: their workers are told to
// stop, and whatever they report counts no more. The steps are queued anew; those
// that are meant are made pending afterwards.
func (e *execution) takeBack(actor string) {
	for _, n := range e.all() {
		cancel := e.cancels[n.id]
		if cancel == nil {
			continue
		}
		delete(e.cancels, n.id)
		e.strays[n] = stray{n.attempt, cancel}
		e.apart.Store(int32(len(e.strays)))
		e.endAttempt(n, &ledger.AttemptEnd{
			Generation: e.run.Generation, Outcome: string(state.Interrupted), Orderly: true, Message: clip("reset by " + actor),
		})
		n.claimed, n.again = false, false
		e.queue(n, "restart", time.Time{})
		cancel(&stopped{ErrShutdown, "reset by " + actor})
	}
}
