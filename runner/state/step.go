package state

import (
	"fmt"
	"strings"

	"github.com/stellarun/stella/ledger"
)

// begin notes that a step does something, for the first time or again.
func (s *Step) begin(run *Run, at string) {
	if s.StartedUTC == "" {
		s.StartedUTC = at
	}
	if run.StartedUTC == "" {
		run.StartedUTC = at
	}
	run.CurrentStep = s.StepID
}

func (s *Step) end(run *Run, d *ledger.StepEnd, at string) {
	s.OutputsHash, s.ErrorCode, s.Reason, s.Note = d.OutputsHash, d.ErrorCode, d.Reason, d.Note
	s.EndedUTC, s.Generation = at, run.Generation
	s.Afresh = s.Afresh && s.Status == Skipped && LostTurn(Code(d.Reason))
	s.Repeat = s.Repeat && d.Reason != string(SkippedByHand) // it was about doing it
	s.DurationMs = millis(s.StartedUTC, at)
	run.Overridden = run.Overridden || d.Overridden
}

// start begins an attempt.
func (s *Step) start(run *Run, d *ledger.AttemptStart, e ledger.Envelope) *Attempt {
	s.Attempt, s.Open, s.Owner = e.Attempt, true, d.Owner
	s.InputsHash, s.Due, s.Cached = d.InputsHash, "", nil
	s.begin(run, e.Time)
	run.Open++
	return &Attempt{
		StepID: s.StepID, Attempt: s.Attempt, Generation: d.Generation, Start: d, StartedUTC: e.Time, Actor: e.Actor,
	}
}

// finish ends the attempt that is open, and counts it.
func (s *Step) finish(run *Run, d *ledger.AttemptEnd) {
	s.Open = false
	run.Open--
	s.ErrorCode, s.Retryable, s.CacheExpires = d.ErrorCode, d.Retryable, d.CacheExpires
	s.Repeat = s.Repeat && !Begun(d)
	if d.Logs != nil {
		s.LogsRef = d.Logs.SHA256
	}
	switch Outcome(d.Outcome) {
	case Interrupted:
		if !d.Orderly { // an operator who stops stella is no fault of the step
			s.Interruptions++
		}
	case Infra:
		s.InfraFaults++
	case Succeeded, OutcomeCancelled:
	default:
		s.Failures++
	}
}

// Begun says whether the program of an attempt that has ended so was started.
func Begun(d *ledger.AttemptEnd) bool {
	switch {
	case Outcome(d.Outcome) == Infra, Outcome(d.Outcome) == Rejected && d.Usage == nil:
		return false
	}
	return Code(d.ErrorCode) != BundleInvalid || d.ExitCode != nil // else the system would not run it
}

// bear begins a sub-run, which counts as an attempt.
func (s *Step) bear(run *Run, d *ledger.SubrunStart, e ledger.Envelope) {
	s.Attempt, s.InputsHash, s.Due, s.Repeat = e.Attempt, d.InputsHash, "", false
	s.Child = &Child{RunID: d.RunID, DAGID: d.DAGID, DAGVersion: d.DAGVersion, Locks: d.Locks, Fence: e.Seq}
	s.begin(run, e.Time)
}

// bury notes the end of the sub-run.
func (s *Step) bury(run *Run, d *ledger.SubrunEnd, at string) {
	run.Overridden = run.Overridden || d.Overridden
	child := *s.Child
	if d.Left {
		child.LeftUTC = at
	}
	child.Status, child.FailureReason = d.Status, d.FailureReason
	s.Child = &child
	if Status(d.Status) != Completed {
		s.Failures++
	}
}

// invalidate makes a step pending again. What counts how often it failed begins
// anew; its attempts keep their numbers.
func (s *Step) invalidate(run *Run, d *ledger.StepInvalidation, at string) {
	afresh := Afresh(d.Reason, s.Afresh)
	if c := s.Child; c != nil && c.RunID == d.Leaves && c.LeftUTC == "" {
		left := *c
		left.LeftUTC = at
		s.Child = &left
	}
	*s = Step{
		StepID: s.StepID, Status: Pending, Attempt: s.Attempt, Overlay: s.Overlay, After: d.After,
		Items: s.Items, Count: s.Count, Child: s.Child, Approval: s.Approval, LogsRef: s.LogsRef,
		Repeat: s.Repeat || d.Repeat,
	}
	if d.Overlay != "" {
		s.Overlay, run.Overridden = d.Overlay, true
	}
	s.Afresh = afresh
}

// LostTurn says whether a step that was skipped for this was so only because of what others
// did.
func LostTurn(code Code) bool {
	switch code {
	case UpstreamFailed, RunFailing, RunTimeout:
		return true
	}
	return false
}

// Stopped says whether a step that failed with this code did so because its run was ended,
// and not by itself.
func Stopped(code Code) bool {
	switch code {
	case RunTimeout, FailedByHand, Stalled, TooManyEntries:
		return true
	}
	return false
}

// Why a step is begun again that nobody wants done again.
const (
	Reopened = "reopened" // it cleans up after another end from now on
	Turn     = "turn"     // it gets the turn that it had lost
)

// Afresh says whether a step that is begun again for this reason takes nothing from the
// cache. One that had lost its turn may have been to before.
func Afresh(reason string, before bool) bool {
	return reason != Reopened && (reason != Turn || before)
}

// open says whether people are waited for.
func (a *Approval) open() bool { return a != nil && a.Status == ApprovalPending }

// applyApproval moves a step's approval; its error is in words, "" if there is none.
func applyApproval(run *Run, step *Step, c Change) string {
	e := c.Envelope
	if r, ok := c.Data.(*ledger.ApprovalRequest); ok {
		switch {
		case step.Approval.open():
			return "its approval is open"
		case e.Attempt != step.Attempt && e.Attempt != step.Attempt+1:
			return fmt.Sprintf("attempt %d does not follow %d", e.Attempt, step.Attempt)
		case r.Generation != run.Generation:
			return "stale generation"
		}
		step.Attempt = e.Attempt // a gate has no attempts of its own
		step.Approval = &Approval{Attempt: e.Attempt, Request: *r, Status: ApprovalPending, RequestedUTC: e.Time}
		step.begin(run, e.Time)
		run.Waiting++
		return ""
	}
	if _, ok := c.Data.(*ledger.ApprovalRefusal); ok {
		return "" // it is on record, and changes nothing
	}
	if !step.Approval.open() || e.Attempt != step.Approval.Attempt {
		return "it is not the approval that is open"
	}
	a := *step.Approval
	switch d := c.Data.(type) {
	case *ledger.ApprovalDecision:
		for _, made := range a.Decisions {
			if Person(made.Actor) == Person(e.Actor) {
				return e.Actor + " has decided"
			}
		}
		// A copy: older views of the step keep their list.
		a.Decisions = append(a.Decisions[:len(a.Decisions):len(a.Decisions)], Decision{Actor: e.Actor, TimeUTC: e.Time, ApprovalDecision: *d})
	case *ledger.ApprovalClosing:
		a.Status, a.Decision, a.ClosedUTC = d.Result, d.Decision, e.Time
		run.Waiting--
		run.Overridden = run.Overridden || d.Modifications != ""
	}
	step.Approval = &a
	return ""
}

// Person is what makes two principals one person: uid:N without the name that
// the machine has for it at the moment.
func Person(actor string) string {
	base, _, _ := strings.Cut(actor, "(")
	return base
}

// ApprovalID names an approval in commands and paths.
func ApprovalID(runID, stepID string, attempt int) string {
	return fmt.Sprintf("%s.%s.%d", runID, stepID, attempt)
}

// ParseApprovalID takes such a name apart.
func ParseApprovalID(id string) (runID, stepID string, attempt int, ok bool) {
	runID, rest, _ := strings.Cut(id, ".")
	i := strings.LastIndexByte(rest, '.')
	if i < 1 {
		return "", "", 0, false
	}
	if _, err := fmt.Sscanf(rest[i+1:], "%d", &attempt); err != nil || attempt < 1 || ApprovalID(runID, rest[:i], attempt) != id {
		return "", "", 0, false
	}
	return runID, rest[:i], attempt, true
}
