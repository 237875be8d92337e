package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// maxPlanBytes bounds a sealed plan.
const maxPlanBytes = 16 << 20

// setDeadline finds out when the time of the run is over.
func (e *execution) setDeadline() {
	e.deadline = time.Time{}
	if e.dag.Timeout == 0 {
		return
	}
	now := e.r.opt.Now()
	since, err := stamp.Parse(e.run.Since())
	if err != nil {
		since = now // it was reopened a moment ago, and the entry is still to be written
	}
	e.deadline = now.Add(since.Add(e.dag.Timeout).Sub(now))
}

// overdue says whether the time of the run is over, and nothing was done about it.
// What cleans up has its own deadlines.
func (e *execution) overdue() bool {
	return !e.deadline.IsZero() && !e.ended.Load() && !e.late && e.left > 0 && !e.r.opt.Now().Before(e.deadline)
}

// timeUp ends the run because its time is over. The caller commits.
func (e *execution) timeUp() {
	e.late, e.timeout, e.swept = true, !slices.ContainsFunc(e.nodes, (*node).failsByItself), false
	e.propose(ledger.RunTimedOut, nil, &ledger.Note{})
	e.stopAll(errRunTimeout, "the deadline of the run has passed")
}

// watch ends the run when its own deadline passes. The caller holds e.mu.
func (r *Runner) watch(e *execution) {
	if e.setDeadline(); e.deadline.IsZero() || e.ended.Load() || e.late {
		return
	}
	e.after(e.deadline.Sub(r.opt.Now()), func() {
		if err := r.timeOut(e); err != nil {
			r.fail(err)
		}
	}, nil)
}

func (r *Runner) timeOut(e *execution) error {
	if r.hold() != nil {
		return nil // we are ending; the deadline is looked at again by whoever goes on
	}
	defer r.release()
	return r.within(e, func() error {
		if e.ended.Load() || e.late || e.left == 0 {
			return nil
		}
		e.timeUp()
		return r.commit(e)
	})
}

var errRunTimeout = errors.New("runner: the run's deadline has passed")

// Opened is what the engine knows of a run that is taken up again.
type Opened struct {
	Run    state.Run
	DAG    *manifests.DAG
	Plan   *Plan
	Inputs []byte
	Damage error // what of the others could not be read, nil if all could
}

// Recover ends the attempts of a run that nobody executes any more: after a
// crash every attempt that was under way is interrupted, at once. It decides
// about their steps like a live runner, and executes nothing. It returns how
// many attempts it found. When all runs are done, [Runner.Recovered] is called.
func (r *Runner) Recover(_ context.Context, o Opened) (int, error) {
	e, err := r.open(o)
	if err != nil {
		return 0, err
	}
	e.detached = true
	found := 0
	later, err := e.locked(func() (err error) {
		found, err = r.recover(e)
		return err
	})
	if err == nil && len(later) > 0 {
		r.mu.Lock()
		r.recovered = append(r.recovered, later...)
		r.mu.Unlock()
	}
	return found, err
}

// Recovered does what follows for other runs from what [Runner.Recover] has decided: a
// run that has ended with it tells its parent. It comes after all that are to be recovered,
// since until then the records show attempts that are under way no more.
func (r *Runner) Recovered() {
	r.mu.Lock()
	later := r.recovered
	r.recovered = nil
	r.mu.Unlock()
	for _, f := range later {
		f()
	}
}

func (r *Runner) recover(e *execution) (found int, err error) {
	var open []*node
	var ids []string
	for _, n := range e.all() {
		if n.status == state.Running && n.child == "" && n.items == nil && (n.list == "" || n.parent != nil) {
			open, ids = append(open, n), append(ids, n.id)
		}
	}
	if len(open) == 0 {
		return 0, nil
	}
	restarted, err := r.opt.Store.Restarted(e.runID, ids)
	if err != nil {
		return 0, err
	}
	for _, n := range open {
		a, err := r.opt.Store.Attempt(e.run.RunID, n.id, n.attempt)
		if err != nil {
			return found, err
		}
		if a.End != nil {
			return found, fmt.Errorf("runner: run %s: step %s is running without an attempt", e.run.RunID, n.id)
		}
		found++
		end := &ledger.AttemptEnd{
			Generation: e.run.Generation, Outcome: string(state.Interrupted),
			Message: "stella ended while the attempt was under way",
		}
		repeatable := r.repeatable(n)
		if n.again = restarted[n.id]; n.again { // whoever wanted it stopped has said that it be begun again
			end.Orderly = true
		} else if !repeatable {
			end.ErrorCode = string(state.Indeterminate)
		}
		if a.Start != nil && len(a.Start.Secrets) > 0 {
			if err := r.PurgeWorkspace(e.run.RunID, n.id, n.attempt); err != nil {
				r.opt.Log.Error("after a crash", "error", err)
			}
		}
		if end.Logs, err = r.sealLog(e.run.RunID, n.id, n.attempt); err != nil {
			return found, err
		}
		e.endAttempt(n, end)
		r.decide(e, n, repeatable, end)
	}
	return found, r.commit(e)
}

// open builds the model of a run from its records. Where that cannot be done it is a
// *[DamageError].
func (r *Runner) open(o Opened) (*execution, error) {
	if o.Damage != nil {
		return nil, damageOf(o.Run.RunID, o.Damage)
	}
	e, err := r.opened(o)
	return e, damageOf(o.Run.RunID, err)
}

func (r *Runner) opened(o Opened) (*execution, error) {
	prog, err := r.compiled(o.DAG, o.Plan.DAG.Digest)
	if err != nil {
		return nil, err
	}
	inputs, wrong := resolveInputs(o.DAG, o.Inputs)
	if len(wrong) > 0 {
		return nil, &InputsError{wrong}
	}
	run, err := r.opt.Store.Run(o.Run.RunID) // the caller's copy may be old
	if err != nil {
		return nil, err
	}
	records, err := r.opt.Store.Steps(run.RunID)
	if err != nil {
		return nil, err
	}
	e, err := newExecution(run, o.DAG, o.Plan, prog, inputs, records)
	if err != nil {
		return nil, err
	}
	e.r = r
	e.setDeadline()
	most := itemsOf(records)
	for _, n := range e.nodes {
		if err := e.restoreItems(n, records, most[n.id]); err != nil {
			return nil, err
		}
	}
	e.restoreOrder(records)
	for _, n := range e.all() {
		if err := e.restoreResults(n, records[n.id]); err != nil {
			return nil, err
		}
	}
	return e, e.remember(records)
}

// itemsOf says how many items of each step are on record, be they in its list still or
// not.
func itemsOf(records map[string]state.Step) map[string]int {
	out := map[string]int{}
	for id := range records {
		if step, number, ok := strings.Cut(id, "."); ok {
			if i, err := strconv.Atoi(number); err == nil {
				out[step] = max(out[step], i+1)
			}
		}
	}
	return out
}

// restoreResults reads back what a step has given to those that come after it.
func (e *execution) restoreResults(n *node, rec state.Step) (err error) {
	switch {
	case n.status == state.CheckpointPending, n.status == state.Completed, n.status.Ended() && n.outputsHash != "":
	default:
		return nil
	}
	if n.outputs, err = e.r.outputs(n.outputsHash); err != nil {
		return err
	}
	n.artifacts = map[string]any{}
	switch {
	case n.reason == state.SkippedByHand: // its outputs were given by hand
	case rec.Cached != nil:
		n.artifacts = artifactsOf(rec.Cached.Artifacts)
	case n.attempt > 0 && n.plan.Plugin != nil && n.step.ForEach == nil || n.parent != nil && n.plan.Plugin != nil && n.attempt > 0:
		a, err := e.r.opt.Store.Attempt(e.runID, n.id, n.attempt)
		if err != nil {
			return err
		}
		n.secret = n.secret || a.Start != nil && len(a.Start.Secrets) > 0
		if a.End != nil {
			n.artifacts = artifactsOf(a.End.Artifacts)
		}
	}
	return nil
}

// Resume takes care of an open run from now on. A run that is taken care of
// already is left alone.
func (r *Runner) Resume(_ context.Context, actor string, o Opened) error {
	if err := r.hold(); err != nil {
		return err
	}
	defer r.release()
	switch {
	case r.opt.Executor == nil:
		return ErrNotExecuting
	case o.Run.Status.Ended():
		return ErrEnded
	}
	if err := r.inheritLocks(); err != nil {
		return err
	}
	r.opening.Lock()
	e, err := r.resume(actor, o)
	if err != nil || e == nil {
		r.opening.Unlock()
		return err
	}
	// From here on others find the run and wait for its lock, so that its records
	// need not be kept from them: runs that are taken up together are written
	// together.
	r.opening.Unlock()
	err = r.commit(e)
	later := e.later
	e.later = nil
	e.mu.Unlock()
	if err != nil {
		return err
	}
	for _, f := range later {
		f()
	}
	return nil
}

// resume makes the model of a run that goes on here, with what is to be written of
// that. It returns it locked, and nil where there is nothing to do. The caller holds
// opening.
func (r *Runner) resume(actor string, o Opened) (_ *execution, err error) {
	if r.Executes(o.Run.RunID) {
		return nil, nil
	}
	e, err := r.open(o)
	if err != nil {
		return nil, err
	}
	orphan, err := r.orphaned(e.run)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer func() {
		if err != nil {
			e.setEnded() // whatever was decided is not written
			r.drop(e)
			e.mu.Unlock()
		}
	}()
	if e.ended.Load() {
		return nil, ErrEnded
	}
	e.proposeBy(actor, ledger.RunResumed, nil, &ledger.Note{})
	if orphan && !e.run.CancelRequested() {
		e.requestCancel(ledger.RunCancelRequested, "system:runner", "its parent does not wait for it any more")
	}
	if e.overdue() {
		e.timeUp()
	}
	if err := e.begin(); err != nil {
		return nil, err
	}
	r.adopt(e)
	r.watch(e)
	if err := e.reconcile(true); err != nil {
		return nil, err
	}
	for _, n := range e.all() {
		if former := n.former; former != "" {
			e.later = append(e.later, func() { r.resumeFormer(actor, former) })
		}
		if n.child == "" { // it has ended, or must not go on
			continue
		}
		child := n.child
		e.later = append(e.later, func() { _ = r.resumeChild(actor, child) })
	}
	return e, nil
}

// orphaned says whether a run is a sub-run that its parent gave up, and could not
// cancel any more before the process ended. One that somebody has reopened since goes on
// by itself.
func (r *Runner) orphaned(run state.Run) (bool, error) {
	switch {
	case run.ParentRunID == "":
		return false, nil
	case run.ReopenedUTC != "":
		s, err := r.opt.Store.Step(run.ParentRunID, run.ParentStepID)
		return err == nil && s.Child != nil && s.Child.RunID == run.RunID && run.ReopenedUTC <= s.Child.LeftUTC, err
	}
	r.mu.Lock()
	parent := r.execs[run.ParentRunID]
	r.mu.Unlock()
	if parent != nil {
		parent.mu.Lock()
		defer parent.mu.Unlock()
		n := parent.find(run.ParentStepID)
		return n == nil || n.child != run.RunID, nil
	}
	steps, err := r.opt.Store.Steps(run.ParentRunID)
	if err != nil {
		return false, err
	}
	s := steps[run.ParentStepID]
	return s.Status != state.Running || s.Child == nil || s.Child.RunID != run.RunID || s.Child.Status != "", nil
}

// resumeChild takes care of a sub-run whose parent goes on.
func (r *Runner) resumeChild(actor, runID string) error {
	o, err := r.load(runID)
	if err == nil && !o.Run.Status.Ended() {
		err = r.Resume(context.Background(), actor, o)
	}
	if errors.Is(err, ErrEnded) {
		return nil
	}
	if err != nil && !errors.Is(err, ErrStopping) {
		r.opt.Log.Error("a sub-run cannot be taken up", "runId", runID, "error", err)
	}
	return err
}

// Cancel asks for the end of a run. It is best effort: attempts under way are
// told to stop, what has not started is cancelled, and the run ends as soon as
// nothing of it is left. [ErrEnded] when it ended otherwise; cancelling what
// is cancelled is no error.
func (r *Runner) Cancel(actor, reason string, o Opened) (state.Run, error) {
	switch {
	case o.Run.Status == state.Cancelled:
		return o.Run, nil
	case o.Run.Status.Ended():
		return o.Run, ErrEnded
	}
	return r.operate(o, func(e *execution) error {
		switch {
		case e.run.Status == state.Cancelled:
			return nil
		case e.ended.Load():
			return ErrEnded
		case e.run.CancelRequested() && e.detached: // the process that was to see it through has ended
			e.passOn()
			return r.commit(e)
		case e.run.CancelRequested():
			return nil
		}
		e.requestCancel(ledger.RunCancelRequested, actor, reason)
		return r.commit(e)
	})
}
