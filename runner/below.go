package runner

import (
	"cmp"
	"errors"
	"math"
	"strings"
	"sync"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// What the sub-run of a step leaves behind: what it has done that is not idempotent, and
// what of it waits for a person.

// work is what has been done, or is being done, that must not be done twice.
type work struct {
	once []string // steps that are not idempotent and may have done something
	open string   // a run that somebody has reopened, and that goes on

	until   int64 // seq of the last entry of the runs, beyond all if one goes on
	settled bool  // of a run: it has ended, and so have all below it
}

func (w *work) add(more work) {
	w.once = append(w.once, more.once...)
	w.open, w.until = cmp.Or(w.open, more.open), max(w.until, more.until)
}

// workOf is the work of a run and of its sub-runs. Of a run that cannot be read nobody
// knows, and it counts. Steps that clean up do not: what they do is about the end of this
// run, and another has an end of its own. Every attempt counts, since another run would
// begin with the first. With ends, the run is ended first if it goes on.
func (r *Runner) workOf(runID, under string, ends bool) (w work, err error) {
	w, known, turn := r.worked.find(runID) // before the record of the run is read
	run, err := r.opt.Store.Run(runID)
	if err != nil {
		return work{}, err
	}
	if !known || !run.Status.Ended() {
		if w, err = r.workIn(run); err != nil {
			return w, err
		}
		if w.settled {
			r.worked.keep(runID, w, turn)
		}
	}
	if !run.Status.Ended() && run.SameEndSince == "" && (!ends || run.ReopenedUTC != "") {
		w.open = runID
	}
	once := w.once
	w.once = make([]string, len(once))
	for i, id := range once {
		w.once[i] = strings.TrimSuffix(under+id, "/")
	}
	return w, nil
}

// workIn is the work of a run by the ids of its steps, "" where nobody knows.
func (r *Runner) workIn(run state.Run) (w work, err error) {
	if w.until = run.LastSeq; !run.Status.Ended() {
		w.until = math.MaxInt64
	}
	dag, err := r.opt.Sealed.DAG(run.DAGDigest)
	var plan *Plan
	if err == nil {
		plan, err = r.planOf(run.PlanHash)
	}
	if err != nil { // it is damaged
		w.once = []string{""}
		return w, nil
	}
	records, err := r.opt.Store.Steps(run.RunID)
	if err != nil {
		return w, err
	}
	steps := map[string]*manifests.Step{}
	for i := range dag.Steps {
		steps[dag.Steps[i].ID] = &dag.Steps[i]
	}
	w.settled = run.Status.Ended()
	for _, id := range sortedKeys(records) {
		rec := records[id]
		stepID, _, _ := strings.Cut(id, ".")
		spec, p := steps[stepID], plan.Step(stepID)
		if spec == nil || p == nil {
			continue
		}
		children, err := r.subruns(run, rec)
		if err != nil {
			return w, err
		}
		for _, child := range children {
			below, err := r.workOf(child.RunID, id+"/", true)
			if err != nil {
				return w, err
			}
			w.add(below)
			w.settled = w.settled && below.settled
		}
		if p.Plugin == nil || r.repeatable(&node{step: spec, plan: p}) {
			continue
		}
		if _, err := r.opt.Sealed.Manifest(p.Plugin.Digest); err != nil {
			w.settled = false // it may be read again later
		}
		done, err := r.hasDone(run.RunID, rec, true)
		if err != nil {
			return w, err
		}
		if done {
			w.once = append(w.once, id)
		}
	}
	return w, nil
}

// worked keeps the work of runs that are settled. It is for rules that begin many
// sub-runs, of which each has to look at all before. Runs are reopened by hand alone, and
// whatever somebody does forgets it.
type worked struct {
	mu   sync.Mutex // guards what follows
	of   map[string]work
	turn int // counts how often it was forgotten
}

// maxWorked bounds how many runs are kept.
const maxWorked = 10_000

func (k *worked) find(runID string) (w work, known bool, turn int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w, known = k.of[runID]
	return w, known, k.turn
}

// keep takes what was found out since the turn that find has told.
func (k *worked) keep(runID string, w work, turn int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if turn != k.turn {
		return
	}
	if k.of == nil || len(k.of) >= maxWorked {
		k.of = map[string]work{}
	}
	k.of[runID] = w
}

func (k *worked) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.of, k.turn = nil, k.turn+1
}

// subruns are all that a step has begun, the first one first.
func (r *Runner) subruns(run state.Run, s state.Step) (out []state.Run, err error) {
	if s.Child == nil {
		return nil, nil
	}
	for i := 1; i <= s.Attempt; i++ {
		child, err := r.opt.Store.RunByToken(run.Tenant, subToken(run.RunID, s.StepID, i))
		if errors.Is(err, state.ErrNotFound) {
			continue // what people were asked has a number of its own
		}
		if err != nil {
			return nil, err
		}
		out = append(out, child)
	}
	return out, nil
}

// hasDone says whether a step with a plugin, or an item of one, may have done what it
// is there for, whatever became of the step since: in every attempt, or in the last that
// was begun.
func (r *Runner) hasDone(runID string, s state.Step, every bool) (bool, error) {
	if s.Items != "" { // its items have the attempts
		return false, nil
	}
	for i := s.Attempt; i > 0; i-- {
		a, err := r.opt.Store.Attempt(runID, s.StepID, i)
		switch {
		case errors.Is(err, state.ErrNotFound): // the number of what was taken from the cache
		case err != nil || leaves(a.End):
			return err == nil, err
		case !every && state.Begun(a.End):
			return false, nil
		}
	}
	return false, nil
}

// leaves says whether an attempt that is under way, or has ended so, may have left
// something done: not where the table of the contract's section 8 has it tried again,
// idempotent or not, or where it was not begun or has itself refused. What ended well and
// counts for nothing has, and so has what we stopped.
func leaves(end *ledger.AttemptEnd) bool {
	switch {
	case end == nil:
		return true
	case end.Retryable, end.Outcome == string(state.Infra):
		return false
	case end.ErrorCode == string(state.StepRejected), end.ErrorCode == string(state.BundleInvalid):
		return false
	case end.Outcome == string(state.Rejected):
		return end.Usage != nil // trust was taken from it while it was under way
	}
	return true
}

// leftover is what a sub-run that has failed leaves to people.
type leftover struct {
	dead state.Step // see deadBelow
	work            // only where a retry rule would begin another
}

func (e *execution) leftBelow(n *node, run state.Run) (left leftover, err error) {
	left.dead, err = e.r.deadBelow(run)
	if err != nil || left.dead.StepID != "" || !e.mayRepeat(n, run, n.failures+1) {
		return left, err
	}
	rec, err := e.r.opt.Store.Step(e.runID, n.id)
	if err != nil {
		return left, err
	}
	left.work, err = e.workOf(n, rec)
	return left, err
}

// mayRepeat says whether the retry rule of a step, of which so many sub-runs have
// failed, is asked at all after the last has ended so.
func (e *execution) mayRepeat(n *node, run state.Run, failures int) bool {
	return (run.Status == state.Failed || overdue(n, run)) && !e.over(n.phase) && failures < n.step.Retry.MaxAttempts
}

// deadBelow is the step of a run for which only a person lets it go on, without an id
// where there is none: one of which nobody knows how far it came, before one that was
// interrupted too often. A step with a sub-run in which there is one is one itself.
func (r *Runner) deadBelow(run state.Run) (dead state.Step, err error) {
	if run.Status == state.Completed {
		return dead, nil
	}
	records, err := r.opt.Store.Steps(run.RunID)
	for _, id := range sortedKeys(records) {
		switch s := records[id]; {
		case s.Status != state.Failed:
		case s.ErrorCode == string(state.Indeterminate):
			return s, err
		case s.ErrorCode == string(state.PoisonPill) && dead.StepID == "":
			dead = s
		}
	}
	return dead, err
}
