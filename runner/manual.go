package runner

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

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

// hand is who does something to a run, and why.
type hand struct {
	actor, reason string
	repeat        bool // what is not idempotent may do twice what it has done
}

// allowed says whether a step that is begun again may do twice what it has done: where
// somebody says so, or has named it, unless it has done it in a sub-run.
func (n *node) allowed(named, repeat bool) bool { return repeat || named && n.plan.SubPlan == "" }

// reopen lets a failed run go on, in a new generation. What had been skipped for
// its failure, and its cleanup, are pending again, but for what the caller sees to.
func (e *execution) reopen(h hand, but ...*node) {
	e.run.Status, e.run.FailCode, e.run.TimedOutUTC, e.run.NoCleanup = state.Running, "", "", false
	e.run.ReopenedUTC = stamp.Format(e.r.opt.Now()) // until the entry says so
	e.run.Generation++
	e.proposeBy(h.actor, ledger.RunReopened, nil, &ledger.RunGeneration{Generation: e.run.Generation, Reason: clip(h.reason)})
	e.ended.Store(false)
	e.late, e.timeout, e.failing, e.swept = false, false, false, false
	e.setDeadline()
	for _, n := range e.all() {
		n.now = false
		switch {
		case n.parent != nil:
		case slices.Contains(but, n):
		case n.phase != ordinary: // it is about a later failure
			e.invalidateAll(h.actor, n, true, ledger.StepInvalidation{Reason: "reopened", Repeat: true})
		case n.lostTurn():
			e.invalidateAll(h.actor, n, false, ledger.StepInvalidation{Reason: "reopened", Repeat: h.repeat})
		}
	}
	if e.r.opt.Executor != nil {
		e.r.adopt(e)
		e.r.watch(e)
		for _, n := range e.all() {
			if former := n.former; former != "" {
				e.later = append(e.later, func() { e.r.resumeFormer(h.actor, former) })
			}
		}
	}
}

// bringBack makes pending again what was skipped because the run was failing, now
// that it fails no more.
func (e *execution) bringBack(h hand) {
	inv := ledger.StepInvalidation{Reason: "retry", Repeat: h.repeat}
	for _, n := range e.nodes {
		switch {
		case n.phase != ordinary:
		case n.status == state.Running:
			e.bringBackItems(h, n)
		case n.status == state.Skipped && n.reason == state.RunFailing:
			for _, x := range append(e.downstream(n), n) {
				if x.lostTurn() {
					e.invalidateAll(h.actor, x, false, inv)
				}
			}
		}
	}
}

// comeBack are the nodes of steps that get their turn again when others, which had not
// succeeded, are begun again or passed over, and the run fails no more. What waits for
// another that has failed gets none. With forgets, what has failed fails the run no more.
func (e *execution) comeBack(forgets bool, others ...*node) (out []*node) {
	if !e.run.Status.Ended() && e.cleaning() {
		return nil
	}
	waits := map[*node]bool{}
	for _, n := range e.nodes {
		failed := n.phase == ordinary && n.status == state.Failed && !n.settled() && !slices.Contains(others, n)
		if failed && !forgets && n.now && e.dag.FailFast && !e.run.Status.Ended() {
			return nil // it goes on failing
		}
		waits[n] = failed || slices.ContainsFunc(n.needs, func(x *node) bool { return waits[x] })
		switch {
		case n.phase != ordinary || waits[n]:
		case n.lostTurn():
			out = append(append(out, n.redo(false)...), e.relisted(n)...)
			out = append(out, n.outdated()...)
		case n.status == state.Running && len(n.failedItems()) == 0: // else they stay given up
			for _, item := range n.items {
				if item.lostTurn() {
					out = append(out, item)
				}
			}
		}
	}
	return out
}

// lostTurn says whether a step was skipped only because of what others did.
func (n *node) lostTurn() bool { return n.status == state.Skipped && machine(n.reason) }

// machine says whether a step was skipped only because of what others did.
func machine(code state.Code) bool {
	switch code {
	case state.UpstreamFailed, state.RunFailing, state.RunTimeout:
		return true
	}
	return false
}

// invalidateAll makes a step pending again, and of its items with all each, also those
// that its list has had before, else those that are not done. What somebody gives a step
// with that is given to each of them.
func (e *execution) invalidateAll(actor string, n *node, all bool, d ledger.StepInvalidation) {
	if !all {
		e.dropOutdated(actor, n, d)
	}
	for _, x := range n.redo(all) {
		if x != n {
			e.invalidate(actor, x, d)
		}
	}
	e.invalidate(actor, n, d)
}

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

// Retry says how a step is begun again by hand.
type Retry struct {
	Actor, Reason string
	StepID        string // or an item; "" means the step that has failed the run
	Downstream    bool   // what depends on it is done again as well
	Repeat        bool   // also what a sub-run, or something that nobody has named, has done and is not idempotent
	Delay         time.Duration
	Input         json.RawMessage // a merge patch (RFC 7396) on the parameters; nil for none
}

// Retry begins a step again by hand. A failed run is reopened.
func (r *Runner) Retry(o Opened, q Retry) (state.Run, error) {
	return r.operate(o, func(e *execution) error {
		n, err := e.open(q.StepID, "retry")
		if err != nil {
			return err
		}
		if err := cmp.Or(e.underWay(n), e.retryable(n, q)); err != nil {
			return err
		}
		if err := e.retryTwice(n, q); err != nil {
			return err
		}
		h := hand{q.Actor, q.Reason, q.Repeat}
		inv := ledger.StepInvalidation{Reason: "retry", Repeat: n.allowed(true, q.Repeat)}
		if len(q.Input) > 0 {
			raw, err := patchOf("the input", q.Input)
			if err != nil {
				return err
			}
			if err := e.checkOverlay(n, raw); err != nil {
				return err
			}
			if inv.Overlay, err = r.opt.Sealed.Put(raw); err != nil {
				return err
			}
		}
		if q.Delay > 0 {
			inv.After = stamp.Format(r.opt.Now().Add(q.Delay))
		}
		if e.run.Status == state.Failed {
			e.reopen(h, n.owner())
		}
		for _, x := range e.behind(q.Downstream, n.owner()) {
			e.invalidateAll(q.Actor, x, true, ledger.StepInvalidation{Reason: "retry", Repeat: x.allowed(q.Downstream, q.Repeat)})
		}
		if n.parent != nil {
			e.invalidate(q.Actor, n, inv)
			e.goOnWithItems(h, n.parent)
		} else {
			e.invalidateAll(q.Actor, n, !n.keeps(), inv)
		}
		if err := e.reconsider(h); err != nil {
			return err
		}
		return r.commit(e)
	})
}

// retryTwice refuses a retry that would do again what must not be done twice. With
// downstream somebody has named what comes after the step as well.
func (e *execution) retryTwice(n *node, q Retry) error {
	behind := e.behind(q.Downstream, n.owner())
	d := redone{e.redoNamed(n), slices.Concat(e.comeBack(false, append(behind, n.owner())...), e.leftItems(n))}
	if all := redoAll(behind); q.Downstream {
		d.named = append(d.named, all...)
	} else {
		d.others = append(d.others, all...)
	}
	return e.notTwice(d, "a retry", q.Repeat)
}

// retryable says why a step cannot be begun again.
func (e *execution) retryable(n *node, q Retry) error {
	switch {
	case n.parent != nil:
		if err := e.itemRetryable(n); err != nil {
			return err
		}
	case q.Delay > 0 && n.gate():
		return &RequestError{Text: "step " + n.id + " is an approval gate: it waits for people, and cannot be put off"}
	case n.status == state.Failed, n.status == state.Completed, e.givenUp(n):
	case n.status == state.CheckpointPending:
		return e.withPeople(n)
	default:
		return conflict("step %s is %s; only what has failed or completed can be begun again", n.id, n.status)
	}
	if err := cmp.Or(e.held(n), e.failingBeside(n, q)); err != nil {
		return err
	}
	for _, x := range e.downstream(n.owner()) {
		if err := e.underWay(x); err != nil { // each attempt of it reads what the step gives
			return err
		}
		if x.status == state.CheckpointPending {
			return e.asksAbout(x, n.owner(), fmt.Sprintf("stella orch run reset %s --step %s withdraws it, and begins both again", e.runID, n.owner().id))
		}
	}
	return nil
}

// Skip says how a step is passed over by hand.
type Skip struct {
	Actor, Reason string
	StepID        string          // or an item; "" means the step that has failed the run
	Repeat        bool            // what goes on after it may do twice what it has done and is not idempotent
	Output        json.RawMessage // replaces its outputs; nil for none
}

// Skip passes over a step by hand, where the spec allows it: its dependents go on
// as if it had succeeded. A failed run is reopened.
func (r *Runner) Skip(o Opened, q Skip) (state.Run, error) {
	return r.operate(o, func(e *execution) error {
		n, err := e.open(q.StepID, "skip")
		if err != nil {
			return err
		}
		if err := e.skippable(n); err != nil {
			return err
		}
		if err := e.skipTwice(n, q); err != nil {
			return err
		}
		outputs, err := e.replaced(n, q.Output)
		if err != nil {
			return err
		}
		hash, err := r.seal(outputs, state.ContractViolation)
		if err != nil {
			return err
		}
		h := hand{q.Actor, q.Reason, q.Repeat}
		if e.run.Status == state.Failed {
			e.reopen(h)
		}
		for _, x := range e.behind(false, n.owner()) {
			e.invalidateAll(q.Actor, x, true, ledger.StepInvalidation{Reason: "retry", Repeat: q.Repeat})
		}
		if n.status == state.CheckpointPending {
			e.closeApproval(n, q.Actor, ledger.ApprovalClosing{Result: state.ApprovalWithdrawn})
		}
		ended := n.status.Ended()
		n.outputs, n.artifacts, n.outputsHash = outputs, nil, hash
		e.endBy(q.Actor, n, ledger.StepSkipped, state.Skipped, state.SkippedByHand, ledger.StepEnd{OutputsHash: hash, Note: clip(q.Reason), Overridden: true})
		e.withdraw(q.Actor, "its step was passed over", n.every)
		if ended { // its dependents were told before
			e.todo = e.todo[:len(e.todo)-1]
		}
		if p := n.parent; p != nil && p.status.Ended() {
			e.goOnWithItems(h, p)
		}
		if err := e.reconsider(h); err != nil {
			return err
		}
		return r.commit(e)
	})
}

// skipTwice refuses a skip after which something would do twice what it has done.
func (e *execution) skipTwice(n *node, q Skip) error {
	others := slices.Concat(e.comeBack(false, n.owner()), redoAll(e.behind(false, n.owner())))
	if n.parent != nil { // else it goes on without its items
		others = append(others, e.leftItems(n)...)
	}
	others = slices.DeleteFunc(others, func(x *node) bool { return x == n || x.parent == n })
	return e.notTwice(redone{others: others}, "a skip", q.Repeat)
}

func (e *execution) skippable(n *node) error {
	switch {
	case !n.step.AllowSkip:
		return &ConflictError{Text: "the spec does not allow step " + n.id + " to be skipped", Hint: "allow_skip = true, in a new version of the DAG"}
	case n.status == state.CheckpointPending && n.step.Checkpoint.Required:
		return conflict("the approval of step %s is required", n.id)
	case n.claimed || n.status == state.Running || n.status == state.Queued:
		return e.underWay(n)
	case n.status == state.Completed || n.status == state.Skipped || n.status == state.Cancelled:
		return conflict("step %s is %s already", n.id, n.status)
	}
	return nil
}
