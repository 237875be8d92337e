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
	Priority                         int64
	Behalf                           []string // for whom, if not for the actor alone
	ReplayOf, Rationale              string   // of a replay
	Parent, ParentStep               string   // of a sub-run
	Depth                            int
}

// An InputsError lists what is wrong with the inputs of a start.
type InputsError struct{ Faults []string }

func (e *InputsError) Error() string { return fmt.Sprintf("runner: inputs: %v", e.Faults) }

// Validate says everything that is wrong with the expressions of a DAG, what of it
// cannot do what it is for, and what it uses that this version does not execute.
func Validate(d *manifests.DAG) manifests.Faults {
	p, faults := compile(d)
	return append(append(faults, unsupported(d)...), useless(d, p)...)
}

// unsupported names the parts of the language that are read but not executed yet, and
// what no entry has room for; a DAG that uses them is refused rather than run without
// them.
func unsupported(d *manifests.DAG) manifests.Faults {
	var faults manifests.Faults
	for _, s := range allSteps(d) {
		for _, f := range []struct {
			used bool
			key  string
		}{
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
	return append(faults, oversized(d)...)
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
	if err := errors.Join(ctx.Err(), r.inheritLocks()); err != nil {
		return state.Run{}, err
	}
	e, start, err := r.newRun(s)
	if err != nil {
		return state.Run{}, err
	}
	var run state.Run
	err = r.within(e, func() error {
		if err := errors.Join(e.begin(), e.advance()); err != nil {
			return err
		}
		r.adopt(e) // before anybody can find the run in the store and take it up
		if run, err = r.opt.Store.StartRun(e.run, start, e.batch); err != nil {
			r.drop(e)
			e.setEnded()
			return err
		}
		e.run, e.batch = run, nil
		r.watch(e)
		r.handOver(e)
		return nil
	})
	return run, err
}

// newRun makes the model of a run that is about to start, and its first entry. The
// plan and the inputs are sealed before they are named.
func (r *Runner) newRun(s Start) (*execution, *ledger.RunStart, error) {
	prog, err := r.compiled(s.DAG, s.Plan.DAG.Digest)
	if err != nil {
		return nil, nil, err
	}
	inputs, wrong := resolveInputs(s.DAG, s.Inputs)
	if len(wrong) > 0 {
		return nil, nil, &InputsError{wrong}
	}
	start, run, err := r.first(s)
	if err != nil {
		return nil, nil, err
	}
	e, err := newExecution(run, s.DAG, s.Plan, prog, inputs, nil)
	if err != nil {
		return nil, nil, err
	}
	e.r = r
	return e, start, nil
}

// compiled compiles the expressions of a DAG version once.
func (r *Runner) compiled(d *manifests.DAG, digest string) (*program, error) {
	if prog := r.progs.get(digest); prog != nil {
		return prog, nil
	}
	prog, faults := compile(d)
	if faults = append(faults, unsupported(d)...); len(faults) > 0 {
		return nil, &PlanError{faults}
	}
	r.progs.put(digest, prog)
	return prog, nil
}

// first makes the first entry of a run and the record that goes with it.
func (r *Runner) first(s Start) (*ledger.RunStart, state.Run, error) {
	if err := fits("the inputs", len(s.Inputs), MaxInputsBytes); err != nil {
		return nil, state.Run{}, err
	}
	raw, err := s.Plan.Encode()
	if err != nil {
		return nil, state.Run{}, err
	}
	for _, sub := range s.Plan.subs {
		if _, err := r.opt.Sealed.Put(sub); err != nil {
			return nil, state.Run{}, err
		}
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
		PlanHash: planHash, InputsHash: inputsHash, DAGDigest: s.Plan.DAG.Digest, Priority: s.Priority, Behalf: s.Behalf, ReplayOf: s.ReplayOf,
		ParentRunID: s.Parent, ParentStepID: s.ParentStep, Depth: s.Depth,
	}
	return &ledger.RunStart{
		RunToken: s.RunToken, PlanHash: planHash, InputsHash: inputsHash, DAGDigest: s.Plan.DAG.Digest,
		Pinned: s.Pinned, Metadata: s.Metadata, Trust: s.Trust, Steps: len(s.Plan.Steps), Priority: s.Priority,
		Behalf: s.Behalf, ReplayOf: s.ReplayOf, Rationale: clip(s.Rationale), Parent: s.Parent, ParentStep: s.ParentStep, Depth: s.Depth,
	}, run, nil
}

// newRunID makes a UUIDv7 (RFC 9562): the ids of later runs sort later.
func newRunID(now time.Time) string {
	b := inTime(now)
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// NewRunToken makes a run token, of 32 hex digits, for a start without one. Later
// ones sort later, so that the index of tokens grows at its end: with random ones
// each start would write a page of its own.
func NewRunToken(now time.Time) string {
	b := inTime(now)
	return hex.EncodeToString(b[:])
}

// NewTraceID makes a trace id of 32 hex digits.
func NewTraceID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// inTime is random but for its first six bytes, a time in milliseconds.
func inTime(now time.Time) (b [16]byte) {
	rand.Read(b[:])
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint16(b[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(ms))
	return b
}
