package runner

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Effects are what something done by hand does to a run.
type Effects struct {
	Run     state.Run // as it is right afterwards
	Steps   []Effect  // by id
	Subruns []string  // that are asked to end
	Kept    []string  // that stay as they are although what they were built on is done again
	Twice   []string  // steps, also of sub-runs, that are not idempotent and may do twice what they have done
	Changed bool      // false: it was so before
}

// Effect is what becomes of one step, or of one item.
type Effect struct {
	StepID   string
	From, To state.Status
	Code     state.Code // of what fails or is skipped
	Stopped  int        // number of the attempt that is stopped, 0 if none is
}

// Try lets f do something by hand to a run without doing it: f is given a runner
// that works on the records as they are, writes nothing and stops nothing. What it
// would have done, by the same code, is returned.
func (r *Runner) Try(o Opened, f func(*Runner) (state.Run, error)) (Effects, error) {
	if o.Damage == nil {
		if _, err := r.compiled(o.DAG, o.Plan.DAG.Digest); err != nil {
			return Effects{}, damageOf(o.Run.RunID, err)
		}
	}
	t := &trial{Store: r.opt.Store, r: r, runs: map[string]*tried{}}
	opt := r.opt
	opt.Executor, opt.Store, opt.Sealed = nil, t, &triedSealed{Sealed: r.opt.Sealed, put: map[string][]byte{}}
	dry := New(opt)
	dry.progs.of = r.progs.copy()
	if _, err := f(dry); err != nil {
		return Effects{}, err
	}
	return t.effects(o.Run.RunID)
}

// trial is a store that writes nothing. The entries that it is given move copies
// of what the store holds.
type trial struct {
	Store
	r    *Runner
	runs map[string]*tried
}

// tried is a run before and after.
type tried struct {
	old, run state.Run
	was, is  map[string]state.Step
	stopped  map[string]error // by step, of attempts under way: why
	anew     map[string]bool  // steps that are begun anew
	model    *execution       // that was worked on, nil before
}

func (t *trial) of(runID string) (*tried, error) {
	if x := t.runs[runID]; x != nil {
		return x, nil
	}
	x := &tried{is: map[string]state.Step{}, stopped: map[string]error{}}
	var err error
	if x.old, x.was, err = t.r.atOneMoment(runID); err != nil {
		return nil, err
	}
	x.run = x.old
	for id, s := range x.was {
		x.is[id] = s
	}
	t.runs[runID] = x
	return x, nil
}

// atOneMoment reads the records of a run while nobody changes them.
func (r *Runner) atOneMoment(runID string) (run state.Run, steps map[string]state.Step, err error) {
	r.opening.Lock()
	defer r.opening.Unlock()
	r.mu.Lock()
	e := r.execs[runID]
	r.mu.Unlock()
	if e != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
	}
	if run, err = r.opt.Store.Run(runID); err == nil {
		steps, err = r.opt.Store.Steps(runID)
	}
	return run, steps, err
}

// Run implements [Store].
func (t *trial) Run(id string) (state.Run, error) {
	x, err := t.of(id)
	if err != nil {
		return state.Run{}, err
	}
	return x.run, nil
}

// Steps implements [Store].
func (t *trial) Steps(runID string) (map[string]state.Step, error) {
	x, err := t.of(runID)
	if err != nil {
		return nil, err
	}
	return x.is, nil
}

var errTrial = errors.New("runner: nothing is started in a trial")

// StartRun implements [Store].
func (t *trial) StartRun(run state.Run, _ *ledger.RunStart, _ []state.Proposal, _ ...state.Batch) (state.Run, error) {
	return run, errTrial
}

// LoseLock implements [Store].
func (t *trial) LoseLock(ledger.Type, string, string, ledger.LockLoss) error { return errTrial }

// Commit implements [Store].
func (t *trial) Commit(runID string, all ...state.Proposal) (state.Run, error) {
	x, err := t.of(runID)
	if err != nil {
		return state.Run{}, err
	}
	for _, p := range all {
		if err := t.apply(x, p); err != nil {
			return x.run, err
		}
	}
	return x.run, nil
}

func (t *trial) apply(x *tried, p state.Proposal) error {
	env := ledger.Envelope{
		Type: p.Type, Actor: p.Actor, RunID: x.run.RunID, StepID: p.StepID, Attempt: p.Attempt,
		Seq: x.run.LastSeq + 1, Time: stamp.Format(t.r.opt.Now()),
	}
	v := state.View{Run: &x.run}
	if s, ok := x.is[p.StepID]; ok {
		v.Step = &s
	}
	if p.Type == ledger.AttemptEnded {
		a, err := t.Store.Attempt(x.run.RunID, p.StepID, p.Attempt)
		if err != nil {
			return err
		}
		a.End = nil // it may have ended since the records were read
		v.Attempt = &a
	}
	if err := state.Apply(&v, state.Change{Envelope: env, Data: p.Data}); err != nil {
		return err
	}
	x.run = *v.Run
	if p.StepID != "" {
		x.is[p.StepID] = *v.Step
		if p.Type == ledger.StepInvalidated {
			if x.anew == nil {
				x.anew = map[string]bool{}
			}
			x.anew[p.StepID] = true
		}
	}
	return nil
}

// live lets a model believe in the attempts that are under way in truth, and notes
// which of them it stops.
func (t *trial) live(e *execution) {
	x := t.runs[e.runID]
	if x.model != nil { // it was worked on before, and this one takes its place
		e.twice = x.model.twice
	}
	x.model = e
	for id, s := range x.is {
		if s.Open {
			e.cancels[id] = context.CancelCauseFunc(func(cause error) { x.stopped[id] = cause })
		}
	}
}

// tried says whether what is decided on the model is only tried.
func (e *execution) tried() bool {
	_, tried := e.r.opt.Store.(*trial)
	return tried
}

// givesElse says whether a step that had ended has ended with other outputs.
func givesElse(was, is state.Step) bool {
	return was.Status.Ended() && is.Status.Ended() && was.OutputsHash != is.OutputsHash
}

func (t *trial) effects(runID string) (Effects, error) {
	x, err := t.of(runID)
	if err != nil {
		return Effects{}, err
	}
	out := Effects{Run: x.run, Changed: x.run.LastSeq != x.old.LastSeq}
	for id, s := range x.is {
		old := x.was[id]
		if old.Status == "" {
			old.Status = state.Pending
		}
		eff := Effect{StepID: id, From: old.Status, To: s.Status}
		if why := x.stopped[id]; why != nil {
			eff.Stopped = old.Attempt
			if s.Status == state.Running {
				eff.To, eff.Code = x.afterwards(why)
			}
		}
		switch s.Status {
		case state.Failed:
			eff.Code = state.Code(s.ErrorCode)
		case state.Skipped, state.Cancelled:
			eff.Code = state.Code(s.Reason)
		}
		if eff.From != eff.To || eff.Stopped > 0 || eff.To == state.Queued && x.anew[id] || givesElse(old, s) {
			out.Steps = append(out.Steps, eff)
		}
	}
	slices.SortFunc(out.Steps, func(a, b Effect) int { return strings.Compare(a.StepID, b.StepID) })
	for id, other := range t.runs {
		if id != runID && other.run.CancelRequested() && !other.old.CancelRequested() {
			out.Subruns = append(out.Subruns, id)
		}
	}
	slices.Sort(out.Subruns)
	if x.model != nil {
		out.Kept, out.Twice = x.builtOn(x.model), x.model.twice
	}
	return out, nil
}

// afterwards is what becomes of a step whose attempt is stopped.
func (x *tried) afterwards(why error) (state.Status, state.Code) {
	switch {
	case errors.Is(why, ErrShutdown):
		return state.Queued, ""
	case x.run.FailRequested() && !x.run.CancelRequested():
		return state.Failed, state.Code(x.run.FailCode)
	}
	return state.Cancelled, state.RunCancelled
}

// triedSealed keeps in memory what is put.
type triedSealed struct {
	Sealed
	mu  sync.Mutex // guards put
	put map[string][]byte
}

// Put implements [Sealed].
func (s *triedSealed) Put(raw []byte) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	digest := Hash(raw)
	s.put[digest] = slices.Clone(raw)
	return digest, nil
}

// Read implements [Sealed].
func (s *triedSealed) Read(digest string, limit int64) ([]byte, error) {
	s.mu.Lock()
	raw, ok := s.put[digest]
	s.mu.Unlock()
	if ok {
		return raw, nil
	}
	return s.Sealed.Read(digest, limit)
}
