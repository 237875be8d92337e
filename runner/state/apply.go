package state

import (
	"fmt"

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
	if step.Status, err = NextStep(step.Status, c.Envelope.Type); err != nil {
		return err
	}
	attempt, err := applyStep(&run, &step, v.Attempt, c)
	if err != nil {
		return err
	}
	v.Run, v.Step, v.Attempt = &run, &step, attempt
	return nil
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
		InputsHash: d.InputsHash, Metadata: d.Metadata, ParentRunID: d.Parent, Pinned: d.Pinned,
		Actor: e.Actor, Generation: 1, Steps: d.Steps, FirstSeq: e.Seq, LastSeq: e.Seq,
		CreatedUTC: e.Time, UpdatedUTC: e.Time,
	}
	return nil
}

func applyRun(run *Run, c Change) error {
	switch d := c.Data.(type) {
	case *ledger.Note:
		if c.Envelope.Type == ledger.RunTimedOut && run.TimedOutUTC == "" {
			run.TimedOutUTC = c.Envelope.Time
		}
		if c.Envelope.Type == ledger.RunCancelRequested && run.CancelledBy == "" {
			run.CancelledBy, run.CancelReason = c.Envelope.Actor, d.Reason
		}
	case *ledger.RunEnd:
		if run.Open > 0 {
			return &TransitionError{What: "run " + run.RunID, From: Running, On: c.Envelope.Type, Why: "an attempt is under way"}
		}
		run.OutputsHash, run.FailureReason, run.FailedStep = d.OutputsHash, d.FailureReason, d.FailedStep
		run.EndedUTC = c.Envelope.Time
		from := run.StartedUTC
		if from == "" {
			from = run.CreatedUTC
		}
		run.DurationMs = millis(from, run.EndedUTC)
	default:
		return badData(c)
	}
	return nil
}

func applyStep(run *Run, step *Step, attempt *Attempt, c Change) (*Attempt, error) {
	at := c.Envelope.Time
	illegal := func(why string) error {
		return &TransitionError{What: "step " + step.StepID, From: step.Status, On: c.Envelope.Type, Why: why}
	}
	if step.Open != (c.Envelope.Type == ledger.AttemptEnded) {
		return nil, illegal("an attempt is open, or none is")
	}
	switch d := c.Data.(type) {
	case *ledger.StepQueue:
		step.Due, step.QueuedUTC = d.Due, at
	case *ledger.StepEnd:
		step.OutputsHash, step.ErrorCode, step.Reason = d.OutputsHash, d.ErrorCode, d.Reason
		step.EndedUTC = at
		step.DurationMs = millis(step.StartedUTC, at)
	case *ledger.AttemptStart:
		if c.Envelope.Attempt != step.Attempt+1 {
			return nil, illegal(fmt.Sprintf("attempt %d does not follow %d", c.Envelope.Attempt, step.Attempt))
		}
		if d.Generation != run.Generation {
			return nil, illegal("stale generation")
		}
		step.Attempt, step.Open, step.Owner = c.Envelope.Attempt, true, d.Owner
		step.InputsHash, step.Due = d.InputsHash, ""
		if step.StartedUTC == "" {
			step.StartedUTC = at
		}
		if run.StartedUTC == "" {
			run.StartedUTC = at
		}
		run.CurrentStep = step.StepID
		run.Open++
		attempt = &Attempt{
			StepID: step.StepID, Attempt: step.Attempt, Generation: d.Generation,
			Start: d, StartedUTC: at, Actor: c.Envelope.Actor,
		}
	case *ledger.AttemptEnd:
		if attempt == nil || c.Envelope.Attempt != step.Attempt || attempt.End != nil || d.Generation != run.Generation {
			return nil, illegal("not the attempt under way")
		}
		a := *attempt
		a.End, a.EndedUTC = d, at
		attempt = &a
		step.Open = false
		run.Open--
		step.ErrorCode, step.Retryable = d.ErrorCode, d.Retryable
		if d.Logs != nil {
			step.LogsRef = d.Logs.SHA256
		}
		switch Outcome(d.Outcome) {
		case Interrupted:
			if !d.Orderly { // an operator who stops stella is no fault of the step
				step.Interruptions++
			}
		case Infra:
			step.InfraFaults++
		case Succeeded, OutcomeCancelled:
		default:
			step.Failures++
		}
	default:
		return nil, badData(c)
	}
	return attempt, nil
}

func badData(c Change) error {
	return fmt.Errorf("state: %s carries %T", c.Envelope.Type, c.Data)
}
