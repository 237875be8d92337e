package state

import (
	"cmp"
	"fmt"
	"maps"

	"github.com/stellarun/stella/ledger"
)

// Change is one entry of a run: its envelope, and its data decoded into a
// pointer to the struct that package ledger names for the type.
type Change struct {
	Envelope ledger.Envelope
	Data     any
}

// View is what a change moves: the run, and where the entry names them, the
// step and the attempt. [Apply] replaces what it changes and leaves the rest
// alone; Step and Attempt are nil before their first entry.
type View struct {
	Run     *Run
	Step    *Step
	Attempt *Attempt
}

// Apply moves v by c. An entry that the machine does not allow is a
// *[TransitionError], and v is then unchanged.
func Apply(v *View, c Change) error {
	if c.Envelope.Type == ledger.RunStarted {
		return applyRunStart(v, c)
	}
	if v.Run == nil {
		return fmt.Errorf("state: %s for the unknown run %q", c.Envelope.Type, c.Envelope.RunID)
	}
	run := *v.Run
	to, err := NextRun(run.Status, c.Envelope.Type)
	if err != nil {
		return err
	}
	run.Status = to
	run.UpdatedUTC, run.LastSeq = c.Envelope.Time, c.Envelope.Seq
	run.Entries++
	if moves(c) {
		run.Stuck, run.Nudges, run.Restarts = "", 0, 0
	}
	if c.Envelope.StepID == "" {
		if err := applyRun(&run, c); err != nil {
			return err
		}
		v.Run = &run
		return nil
	}
	step := Step{StepID: c.Envelope.StepID, Status: Pending}
	if v.Step != nil {
		step = *v.Step
	}
	from := step.Status
	if step.Status, err = NextStep(from, c.Envelope.Type); err != nil {
		return err
	}
	attempt, err := applyStep(&run, &step, v.Attempt, c)
	if err != nil {
		return err
	}
	run.count(from, step.Status)
	if !run.Status.Ended() {
		run.Status = run.open()
	}
	v.Run, v.Step, v.Attempt = &run, &step, attempt
	return nil
}

// moves says whether an entry shows that something happens in a run, as opposed
// to somebody watching it or asking for something. An attempt that was stopped to be
// begun again, and its next, show nothing: else a run that is restarted because it
// is stuck would never have been restarted often enough.
func moves(c Change) bool {
	switch c.Envelope.Type {
	case ledger.RunStuck, ledger.RunNudged, ledger.RunRestarted, ledger.ApprovalRefused, ledger.RunResumed,
		ledger.StepQueued, ledger.AttemptStarted:
		return false
	case ledger.AttemptEnded:
		d, ok := c.Data.(*ledger.AttemptEnd)
		return !ok || Outcome(d.Outcome) != Interrupted
	}
	return true
}

// open is the status of a run that has not ended: while people are waited for it
// is [Checkpoint], and before anything was started [Planning].
func (r *Run) open() Status {
	switch {
	case r.Waiting > 0:
		return Checkpoint
	case r.Status == Planning:
		return Planning
	}
	return Running
}

// count moves one step from one status to another.
func (r *Run) count(from, to Status) {
	if from == to {
		return
	}
	counts := maps.Clone(r.Counts)
	if counts == nil {
		counts = map[Status]int{}
	}
	if from != Pending {
		if counts[from]--; counts[from] == 0 {
			delete(counts, from)
		}
	}
	if to != Pending {
		counts[to]++
	}
	if len(counts) == 0 {
		counts = nil
	}
	r.Counts = counts
}

func applyRunStart(v *View, c Change) error {
	if v.Run != nil {
		return &TransitionError{What: "run", From: v.Run.Status, On: c.Envelope.Type}
	}
	d, ok := c.Data.(*ledger.RunStart)
	if !ok {
		return badData(c)
	}
	e := c.Envelope
	v.Run = &Run{
		Tenant: e.Tenant, RunID: e.RunID, DAGID: e.DAGID, DAGVersion: e.DAGVersion, DAGDigest: d.DAGDigest,
		PlanHash: d.PlanHash, RunToken: d.RunToken, TraceID: e.TraceID, Status: Planning,
		InputsHash: d.InputsHash, Metadata: d.Metadata, ParentRunID: d.Parent, ParentStepID: d.ParentStep, Depth: d.Depth,
		Priority: d.Priority, Behalf: d.Behalf, ReplayOf: d.ReplayOf, Rationale: d.Rationale, Pinned: d.Pinned,
		Actor: e.Actor, Generation: 1, Steps: d.Steps, Entries: 1, FirstSeq: e.Seq, LastSeq: e.Seq,
		CreatedUTC: e.Time, UpdatedUTC: e.Time,
	}
	return nil
}

func applyRun(run *Run, c Change) error {
	illegal := func(why string) error {
		return &TransitionError{What: "run " + run.RunID, From: run.Status, On: c.Envelope.Type, Why: why}
	}
	switch d := c.Data.(type) {
	case *ledger.Note:
		noteRun(run, c, d)
	case *ledger.RunFailing:
		if run.FailCode == "" {
			run.FailCode, run.FailNote = d.Code, d.Reason
		}
		run.NoCleanup = run.NoCleanup || d.Cleanup
	case *ledger.RunGeneration:
		if d.Generation != run.Generation+1 || run.Open > 0 {
			return illegal("generations follow each other, and no attempt is under way between them")
		}
		run.Generation = d.Generation
		if c.Envelope.Type == ledger.RunReopened {
			run.Reopen(c.Envelope.Time, d.Cleanup)
		}
	case *ledger.Stuckness:
		run.Stuck = d.Level
	case *ledger.Nudge:
		if c.Envelope.Type == ledger.RunNudged {
			run.Nudges++
		} else {
			run.Restarts, run.Nudges = run.Restarts+1, 0
		}
	case *ledger.RunComparison, *ledger.RunAttestation:
	case *ledger.RunEnd:
		if run.Open > 0 || run.Waiting > 0 {
			return illegal("an attempt is under way, or an approval is open")
		}
		run.end(d, c.Envelope.Time)
	default:
		return badData(c)
	}
	return nil
}

// noteRun takes over who asked for what.
func noteRun(run *Run, c Change, d *ledger.Note) {
	switch c.Envelope.Type {
	case ledger.RunTimedOut:
		if run.TimedOutUTC == "" {
			run.TimedOutUTC = c.Envelope.Time
		}
	case ledger.RunCancelRequested, ledger.RunAbortRequested:
		run.Aborted = run.Aborted || c.Envelope.Type == ledger.RunAbortRequested
		if run.CancelledBy == "" {
			run.CancelledBy, run.CancelReason = c.Envelope.Actor, d.Reason
		}
	}
}

func (r *Run) end(d *ledger.RunEnd, at string) {
	r.OutputsHash, r.FailureReason, r.FailedStep, r.Message = d.OutputsHash, d.FailureReason, d.FailedStep, d.Message
	r.EndedUTC = at
	from := r.StartedUTC
	if from == "" {
		from = r.CreatedUTC
	}
	r.DurationMs = millis(from, r.EndedUTC)
}

// Reopen takes back what the end of the run said, and what led to it, unless only its cleanup
// goes on: then it ends for the same reason again.
func (r *Run) Reopen(at string, cleanup bool) {
	since := cmp.Or(r.EndSince(), r.CreatedUTC)
	r.OutputsHash, r.FailureReason, r.Message = "", "", ""
	r.EndedUTC, r.DurationMs, r.NoCleanup = "", 0, false
	r.ReopenedUTC, r.SameEndSince = at, since
	if !cleanup {
		r.TimedOutUTC, r.FailCode, r.FailNote, r.SameEndSince, r.FailedStep = "", "", "", "", ""
	}
}

func applyStep(run *Run, step *Step, attempt *Attempt, c Change) (*Attempt, error) {
	at := c.Envelope.Time
	illegal := func(why string) error {
		return &TransitionError{What: "step " + step.StepID, From: step.Status, On: c.Envelope.Type, Why: why}
	}
	refused := c.Envelope.Type == ledger.ApprovalRefused // of an earlier attempt, whatever is under way now
	if !refused && step.Open != (c.Envelope.Type == ledger.AttemptEnded) {
		return nil, illegal("an attempt is open, or none is")
	}
	switch d := c.Data.(type) {
	case *ledger.StepQueue:
		step.Due, step.QueuedUTC, step.After = d.Due, at, ""
		step.Repeat = step.Repeat || d.Repeat
	case *ledger.StepEnd:
		if step.Approval.open() {
			return nil, illegal("its approval is open")
		}
		step.end(run, d, at)
	case *ledger.StepExpansion:
		if c.Envelope.Attempt != step.Attempt+1 {
			return nil, illegal(fmt.Sprintf("attempt %d does not follow %d", c.Envelope.Attempt, step.Attempt))
		}
		run.Items += d.Count - step.Count // those that it had before are the same steps
		step.Attempt, step.Items, step.Count, step.Repeat = c.Envelope.Attempt, d.Items, d.Count, false
		step.begin(run, at)
	case *ledger.StepInvalidation:
		if step.Approval.open() {
			return nil, illegal("its approval is open")
		}
		step.invalidate(run, d, at)
	case *ledger.Note:
		step.Repeat = false
	case *ledger.CacheHit:
		if c.Envelope.Attempt != step.Attempt+1 {
			return nil, illegal(fmt.Sprintf("attempt %d does not follow %d", c.Envelope.Attempt, step.Attempt))
		}
		step.Attempt, step.InputsHash, step.Due, step.Repeat = c.Envelope.Attempt, d.InputsHash, "", false
		step.Cached = &Cached{d.Key, d.RunID, d.StepID, d.Attempt, d.Stored, d.Expires, d.Artifacts}
		step.CacheExpires = d.Expires
		step.begin(run, at)
	case *ledger.SubrunStart:
		if c.Envelope.Attempt != step.Attempt+1 || d.Generation != run.Generation {
			return nil, illegal("it does not follow the last attempt, or is of another generation")
		}
		step.bear(run, d, c.Envelope)
	case *ledger.SubrunEnd:
		if step.Child == nil || step.Child.RunID != d.RunID || step.Child.Status != "" {
			return nil, illegal("not the run that it started last")
		}
		step.bury(run, d, at)
	case *ledger.ApprovalRequest, *ledger.ApprovalDecision, *ledger.ApprovalRefusal, *ledger.ApprovalClosing:
		if why := applyApproval(run, step, c); why != "" {
			return nil, illegal(why)
		}
	case *ledger.AttemptStart:
		if c.Envelope.Attempt != step.Attempt+1 {
			return nil, illegal(fmt.Sprintf("attempt %d does not follow %d", c.Envelope.Attempt, step.Attempt))
		}
		if d.Generation != run.Generation {
			return nil, illegal("stale generation")
		}
		attempt = step.start(run, d, c.Envelope)
	case *ledger.AttemptEnd:
		if attempt == nil || c.Envelope.Attempt != step.Attempt || attempt.End != nil || d.Generation != run.Generation {
			return nil, illegal("not the attempt under way")
		}
		a := *attempt
		a.End, a.EndedUTC = d, at
		attempt = &a
		step.finish(run, d)
	default:
		return nil, badData(c)
	}
	return attempt, nil
}

func badData(c Change) error {
	return fmt.Errorf("state: %s carries %T", c.Envelope.Type, c.Data)
}
