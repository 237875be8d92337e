package runner

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// Start is a start of a run whose DAG was chosen and whose plan is frozen.
type Start struct {
	Tenant, Actor, RunToken, TraceID string
	Pinned                           string // the version that the caller asked for, "" if none
	Metadata                         map[string]string
	DAG                              *manifests.DAG
	Plan                             *Plan
	Inputs                           []byte // canonical JSON, see [CanonicalInputs]
	Trust                            ledger.TrustRef
}

// An InputsError lists what is wrong with the inputs of a start.
type InputsError struct{ Faults []string }

func (e *InputsError) Error() string { return fmt.Sprintf("runner: inputs: %v", e.Faults) }

// Validate says everything that is wrong with the expressions of a DAG, and
// what it uses that this version does not execute.
func Validate(d *manifests.DAG) manifests.Faults {
	_, faults := compile(d)
	return append(faults, unsupported(d)...)
}

// unsupported names the parts of the language that are read but not executed
// yet; a DAG that uses them is refused rather than run without them.
func unsupported(d *manifests.DAG) manifests.Faults {
	var faults manifests.Faults
	for _, s := range allSteps(d) {
		for _, f := range []struct {
			used bool
			key  string
		}{
			{s.Plugin == nil && s.DAG != "", "dag"},
			{s.Plugin == nil && s.DAG == "" || s.Checkpoint != nil, "checkpoint"},
			{s.ForEach != nil, "for_each"},
			{s.Cache != nil, "cache"},
			{len(s.Secrets) > 0, "secrets"},
			{len(s.Locks) > 0, "locks"},
			{len(s.Semaphores) > 0, "semaphores"},
			{len(s.Require) > 0, "require"},
		} {
			if f.used {
				faults = append(faults, manifests.Fault{
					File: "dag.toml", Line: s.Line, Key: "step " + s.ID + " " + f.key,
					Text: "this version of stella does not execute it",
				})
			}
		}
	}
	return faults
}

// StartRun starts a run, and takes care of it from now on. When the token is
// taken it returns the run that has it and the store's error, and nothing is
// started.
func (r *Runner) StartRun(ctx context.Context, s Start) (state.Run, error) {
	if err := r.hold(); err != nil {
		return state.Run{}, err
	}
	defer r.release()
	if r.opt.Executor == nil {
		return state.Run{}, ErrNotExecuting
	}
	prog, err := r.compiled(s.DAG, s.Plan.DAG.Digest)
	if err != nil {
		return state.Run{}, err
	}
	inputs, wrong := resolveInputs(s.DAG, s.Inputs)
	if len(wrong) > 0 {
		return state.Run{}, &InputsError{wrong}
	}
	start, run, err := r.first(s)
	if err != nil {
		return state.Run{}, err
	}
	e, err := newExecution(run, s.DAG, s.Plan, prog, inputs, nil)
	if err != nil {
		return state.Run{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.begin(ctx)
	if err := e.advance(ctx, r); err != nil {
		return state.Run{}, err
	}
	r.adopt(e) // before anybody can find the run in the store and take it up
	if run, err = r.opt.Store.StartRun(run, start, e.batch...); err != nil {
		r.drop(e)
		return run, err
	}
	e.run, e.batch = run, nil
	r.watch(e)
	r.handOver(e)
	return run, nil
}

// compiled compiles the expressions of a DAG version once.
func (r *Runner) compiled(d *manifests.DAG, digest string) (*program, error) {
	if p, ok := r.progs.Load(digest); ok {
		return p.(*program), nil
	}
	prog, faults := compile(d)
	if faults = append(faults, unsupported(d)...); len(faults) > 0 {
		return nil, &PlanError{faults}
	}
	r.progs.Store(digest, prog)
	return prog, nil
}

// first makes the first entry of a run and the record that goes with it. The
// plan and the inputs are sealed before they are named.
func (r *Runner) first(s Start) (*ledger.RunStart, state.Run, error) {
	raw, err := s.Plan.Encode()
	if err != nil {
		return nil, state.Run{}, err
	}
	planHash, err := r.opt.Sealed.Put(raw)
	if err != nil {
		return nil, state.Run{}, err
	}
	inputsHash, err := r.opt.Sealed.Put(s.Inputs)
	if err != nil {
		return nil, state.Run{}, err
	}
	now := r.opt.Now()
	run := state.Run{
		Tenant: s.Tenant, RunID: newRunID(now), DAGID: s.DAG.ID, DAGVersion: s.DAG.Version, TraceID: s.TraceID,
		RunToken: s.RunToken, Actor: s.Actor, Status: state.Planning, Generation: 1, CreatedUTC: stamp.Format(now),
		PlanHash: planHash, InputsHash: inputsHash,
	}
	return &ledger.RunStart{
		RunToken: s.RunToken, PlanHash: planHash, InputsHash: inputsHash, DAGDigest: s.Plan.DAG.Digest,
		Pinned: s.Pinned, Metadata: s.Metadata, Trust: s.Trust, Steps: len(s.Plan.Steps),
	}, run, nil
}

// newRunID makes a UUIDv7 (RFC 9562): the ids of later runs sort later.
func newRunID(now time.Time) string {
	var b [16]byte
	rand.Read(b[:])
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint16(b[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(ms))
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// NewToken makes a run token, or a trace id, of 32 hex digits.
func NewToken() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// watch ends the run when its own deadline passes. The caller holds e.mu.
func (r *Runner) watch(e *execution) {
	if e.dag.Timeout == 0 || e.ended || e.late {
		return
	}
	created, err := stamp.Parse(e.run.CreatedUTC)
	if err != nil {
		return // our own record: the store would have refused it
	}
	e.timers = append(e.timers, time.AfterFunc(created.Add(e.dag.Timeout).Sub(r.opt.Now()), func() {
		if err := r.timeOut(e); err != nil {
			r.fail(err)
		}
	}))
}

func (r *Runner) timeOut(e *execution) error {
	if r.hold() != nil {
		return nil // we are ending; the deadline is looked at again by whoever goes on
	}
	defer r.release()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended || e.late || e.left == 0 {
		return nil // what cleans up has its own deadlines
	}
	e.late, e.timeout = true, e.failed == nil
	e.propose(ledger.RunTimedOut, nil, &ledger.Note{})
	for id, cancel := range e.cancels {
		if e.byID[id].phase == ordinary {
			cancel(errRunTimeout)
		}
	}
	return r.commit(context.Background(), e)
}

var errRunTimeout = errors.New("runner: the run's deadline has passed")

// Opened is what the engine knows of a run that is taken up again.
type Opened struct {
	Run    state.Run
	DAG    *manifests.DAG
	Plan   *Plan
	Inputs []byte
}

// Recover ends the attempts of a run that nobody executes any more: after a
// crash every attempt that was under way is interrupted, at once. It decides
// about their steps like a live runner, and executes nothing. It returns how
// many attempts it found.
func (r *Runner) Recover(ctx context.Context, o Opened) (int, error) {
	e, err := r.open(o)
	if err != nil {
		return 0, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return r.recover(ctx, e)
}

func (r *Runner) recover(ctx context.Context, e *execution) (int, error) {
	found := 0
	for _, n := range e.nodes {
		if n.status != state.Running {
			continue
		}
		a, err := r.opt.Store.Attempt(e.run.RunID, n.step.ID, n.attempt)
		if err != nil {
			return found, err
		}
		if a.End != nil {
			return found, fmt.Errorf("runner: run %s: step %s is running without an attempt", e.run.RunID, n.step.ID)
		}
		m, err := r.opt.Sealed.Manifest(n.plan.Plugin.Digest)
		if err != nil {
			return found, err
		}
		found++
		action := m.Plugin.Actions[n.plan.Action]
		end := &ledger.AttemptEnd{
			Generation: e.run.Generation, Outcome: string(state.Interrupted),
			Message: "stella ended while the attempt was under way",
		}
		if !action.Idempotent || !n.step.Idempotent {
			end.ErrorCode = string(state.Indeterminate)
		}
		if end.Logs, err = r.sealLog(e.run.RunID, n.step.ID, n.attempt); err != nil {
			return found, err
		}
		e.propose(ledger.AttemptEnded, n, end)
		r.decide(e, n, action, end)
	}
	if found == 0 {
		return 0, nil
	}
	e.fresh = e.fresh[:0] // queued for whoever executes
	if err := e.advance(ctx, r); err != nil {
		return found, err
	}
	_, err := r.opt.Store.Commit(e.run.RunID, e.batch...)
	return found, err
}

// open builds the model of a run from its records.
func (r *Runner) open(o Opened) (*execution, error) {
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
	for _, n := range e.nodes {
		if n.status != state.Completed || n.attempt == 0 {
			continue
		}
		a, err := r.opt.Store.Attempt(o.Run.RunID, n.step.ID, n.attempt)
		if err != nil {
			return nil, err
		}
		if n.outputs, n.artifacts, err = r.results(a.End); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// Resume takes care of an open run from now on. A run that is taken care of
// already is left alone.
func (r *Runner) Resume(ctx context.Context, actor string, o Opened) error {
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
	r.opening.Lock()
	defer r.opening.Unlock()
	if r.Executes(o.Run.RunID) {
		return nil
	}
	e, err := r.open(o)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended = e.run.Status.Ended(); e.ended {
		return ErrEnded
	}
	e.batch = append(e.batch, state.Proposal{Type: ledger.RunResumed, Actor: actor, Data: &ledger.Note{}})
	e.begin(ctx)
	r.adopt(e)
	r.watch(e)
	return r.commit(ctx, e)
}

// Cancel asks for the end of a run. It is best effort: attempts under way are
// told to stop, what has not started is cancelled, and the run ends as soon as
// nothing of it is left. [ErrEnded] when it ended otherwise; cancelling what
// is cancelled is no error.
func (r *Runner) Cancel(ctx context.Context, actor, reason string, o Opened) (state.Run, error) {
	switch {
	case o.Run.Status == state.Cancelled:
		return o.Run, nil
	case o.Run.Status.Ended():
		return o.Run, ErrEnded
	}
	r.opening.Lock()
	defer r.opening.Unlock()
	r.mu.Lock()
	e := r.execs[o.Run.RunID]
	r.mu.Unlock()
	if e == nil {
		var err error
		if e, err = r.open(o); err != nil {
			return o.Run, err
		}
		e.detached, e.ended = true, e.run.Status.Ended()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.run.Status == state.Cancelled:
		return e.run, nil
	case e.ended:
		return e.run, ErrEnded
	case e.run.CancelRequested():
		return e.run, nil
	}
	e.run.CancelledBy, e.run.CancelReason = actor, reason
	e.batch = append(e.batch, state.Proposal{Type: ledger.RunCancelRequested, Actor: actor, Data: &ledger.Note{Reason: clip(reason)}})
	for _, cancel := range e.cancels {
		cancel(ErrCancelled)
	}
	if err := r.commit(ctx, e); err != nil {
		return e.run, err
	}
	return e.run, nil
}
