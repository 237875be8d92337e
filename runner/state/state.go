// Package state is the machine of runs, steps and attempts: the statuses they
// can have, the ledger entries that move them, and nothing else. It does no
// I/O and reads no clock, so every transition can be tested from a table and
// replayed from the ledger. The same [Apply] serves the live write and the
// replay, so a projection that disagrees with its ledger is a fault of storage.
package state

import (
	"errors"
	"fmt"

	"github.com/stellarun/stella/ledger"
)

// ErrNotFound is what a store says of a record that it does not have.
var ErrNotFound = errors.New("not found")

// Status is the state of a run or of a step. The strings reach disk and JSON:
// never change or reuse one.
type Status string

// Statuses. Planning and Checkpoint belong to runs; Pending, Queued, Skipped
// and CheckpointPending to steps; the others to both.
const (
	Planning          Status = "planning"           // accepted; left by the first attempt, or by an end without any
	Running           Status = "running"            // something was started; left by an end
	Checkpoint        Status = "checkpoint"         // waits for people; left by their decision
	Completed         Status = "completed"          // final
	Failed            Status = "failed"             // of a run: closed, only reopened by hand
	Cancelled         Status = "cancelled"          // final
	Pending           Status = "pending"            // waits for its needs; left by the scheduler
	Queued            Status = "queued"             // may be claimed once due; left by a worker
	CheckpointPending Status = "checkpoint_pending" // its action is done, people decide
	Skipped           Status = "skipped"            // will not run; final while the run is open
)

// RunStatuses are those that a run can have, in the order in which it has them.
func RunStatuses() []string {
	var out []string
	for _, s := range []Status{Planning, Running, Checkpoint, Completed, Failed, Cancelled} {
		out = append(out, string(s))
	}
	return out
}

// Ended says whether a run or step of this status does nothing more by itself.
func (s Status) Ended() bool {
	switch s {
	case Completed, Failed, Cancelled, Skipped:
		return true
	}
	return false
}

// Outcome is how an attempt ended. The strings reach disk.
type Outcome string

// Outcomes, in the words of the contract's section 8.
const (
	Succeeded        Outcome = "succeeded"
	OutcomeFailed    Outcome = "failed"
	Rejected         Outcome = "rejected"    // the plugin refuses the input, or trust no longer allows it
	Crashed          Outcome = "crashed"     // died of its own signal or trap
	OOM              Outcome = "oom"         // memory limit
	TimedOut         Outcome = "timed_out"   // deadline
	OutcomeCancelled Outcome = "cancelled"   // somebody asked
	Infra            Outcome = "infra"       // a fault of ours: fence, exec, disk
	Interrupted      Outcome = "interrupted" // we stopped or died after it started
)

// Code says why a step, an attempt or a run did not succeed. The strings reach
// disk, JSON and scripts.
type Code string

// Codes of attempts, steps and runs.
const (
	ContractViolation Code = "CONTRACT_VIOLATION"
	StepFailed        Code = "STEP_FAILED"
	StepRetryable     Code = "STEP_RETRYABLE"
	StepRejected      Code = "STEP_REJECTED"
	BundleInvalid     Code = "BUNDLE_INVALID"
	StepCrashed       Code = "STEP_CRASHED"
	OutOfMemory       Code = "OUT_OF_MEMORY"
	ResourceLimit     Code = "RESOURCE_LIMIT"
	Timeout           Code = "TIMEOUT"
	Stalled           Code = "STALLED" // of an attempt or a run: nothing moved for too long
	CodeInfra         Code = "INFRA"
	FenceUnavailable  Code = "FENCE_UNAVAILABLE"
	Indeterminate     Code = "INDETERMINATE"
	PoisonPill        Code = "POISON_PILL"
	UpstreamFailed    Code = "UPSTREAM_FAILED"
	ConditionFalse    Code = "CONDITION_FALSE" // its when was false
	StepDisabled      Code = "DISABLED"
	RunCancelled      Code = "RUN_CANCELLED"
	RunTimeout        Code = "RUN_TIMEOUT"
	RunFailing        Code = "RUN_FAILING" // fail_fast: another step failed first
	UnreachableSteps  Code = "UNREACHABLE_STEPS"
	ExpressionInvalid Code = "EXPRESSION_INVALID" // a when, with, for_each or output could not be evaluated
	TooManyItems      Code = "TOO_MANY_ITEMS"     // for_each gave more than the site allows
	TooManyEntries    Code = "TOO_MANY_ENTRIES"   // the run has written more than the site allows
	SkippedByHand     Code = "SKIPPED_BY_HAND"
	NotNeeded         Code = "NOT_NEEDED" // shown of a cleanup step that a run has ended without; in no entry
	FailedByHand      Code = "FAILED_BY_HAND"
	RunAborted        Code = "RUN_ABORTED"
	ChildFailed       Code = "orchestration.child.failed"
	ChildRefused      Code = "CHILD_REFUSED" // the sub-run could not be started
	LockLost          Code = "LOCK_LOST"     // a lock was taken away while the step relied on it
	ApprovalRefused   Code = "APPROVAL_REJECTED"
	ApprovalTimedOut  Code = "APPROVAL_EXPIRED"
	SecretNotGranted  Code = "SECRET_NOT_GRANTED" // the action's manifest does not ask for it, or the policy does not grant it
	SecretMissing     Code = "SECRET_MISSING"     // there is none of that name
)

// A TransitionError is an entry that the machine does not allow.
type TransitionError struct {
	What string // run, step or attempt, with its name
	From Status
	On   ledger.Type
	Why  string // may be empty
}

func (e *TransitionError) Error() string {
	s := fmt.Sprintf("state: %s is %s: %s is not allowed", e.What, e.From, e.On)
	if e.Why != "" {
		s += " (" + e.Why + ")"
	}
	return s
}

// A HeldError is an attempt that takes a lock which another step holds on record.
type HeldError struct{ Lock, RunID, StepID string }

func (e *HeldError) Error() string {
	return fmt.Sprintf("state: lock %s is held by step %s of run %s", e.Lock, e.StepID, e.RunID)
}

// Disagrees says whether an error is an entry that the record refuses: whoever proposed
// it has another picture of the run than the record gives.
func Disagrees(err error) bool {
	var illegal *TransitionError
	var held *HeldError
	return errors.As(err, &illegal) || errors.As(err, &held)
}

// open are the entries that an open run takes without changing its status; what
// people wait for is counted besides, see [Apply].
func open(s Status) map[ledger.Type]Status {
	m := map[ledger.Type]Status{
		ledger.RunCompleted: Completed, ledger.RunFailed: Failed, ledger.RunCancelled: Cancelled,
	}
	for _, t := range []ledger.Type{
		ledger.StepQueued, ledger.StepSkipped, ledger.StepCancelled, ledger.StepFailed, ledger.StepExpanded, ledger.StepInvalidated,
		ledger.RepeatWithdrawn, ledger.RunCancelRequested, ledger.RunAbortRequested, ledger.RunFailRequested, ledger.RunResumed, ledger.RunTimedOut,
		ledger.RunReset, ledger.RunStuck, ledger.RunNudged, ledger.RunRestarted,
		ledger.ApprovalDecided, ledger.ApprovalRefused, ledger.ApprovalClosed,
	} {
		m[t] = s
	}
	for _, t := range []ledger.Type{ledger.AttemptStarted, ledger.SubrunStarted, ledger.StepCached, ledger.StepCompleted} {
		m[t] = Running
	}
	m[ledger.ApprovalRequested] = Checkpoint
	return m
}

// begun is what holds once something has started: it can end, too.
func begun(s Status) map[ledger.Type]Status {
	m := open(s)
	for _, t := range []ledger.Type{ledger.AttemptStarted, ledger.AttemptEnded, ledger.SubrunStarted, ledger.SubrunEnded, ledger.StepCached, ledger.StepCompleted} {
		m[t] = s
	}
	return m
}

// runTable is the machine of runs. A pair that is absent is illegal.
var runTable = map[Status]map[ledger.Type]Status{
	Planning:   open(Planning),
	Running:    begun(Running),
	Checkpoint: begun(Checkpoint),
	Failed:     {ledger.RunReopened: Running, ledger.ApprovalRefused: Failed, ledger.RunCompared: Failed},
	Completed:  {ledger.ApprovalRefused: Completed, ledger.RunCompared: Completed, ledger.RunAttested: Completed},
	Cancelled:  {ledger.ApprovalRefused: Cancelled, ledger.RunCompared: Cancelled},
}

// stepTable is the machine of steps. A step without a record is pending.
var stepTable = map[Status]map[ledger.Type]Status{
	Pending: {
		ledger.StepQueued: Queued, ledger.StepSkipped: Skipped, ledger.StepCancelled: Cancelled,
		ledger.StepFailed:        Failed,            // its condition or its inputs could not be evaluated
		ledger.StepExpanded:      Running,           // it is its items from now on
		ledger.ApprovalRequested: CheckpointPending, // a gate, which runs nothing
		ledger.StepInvalidated:   Pending,           // what it has done may be done twice
		ledger.RepeatWithdrawn:   Pending,
	},
	Queued: {
		ledger.AttemptStarted: Running, ledger.StepCancelled: Cancelled, ledger.StepFailed: Failed,
		ledger.StepSkipped: Skipped, ledger.StepCached: Running, ledger.SubrunStarted: Running,
		ledger.StepQueued: Queued, ledger.StepInvalidated: Pending,
	},
	Running: {
		ledger.AttemptEnded: Running, ledger.SubrunEnded: Running,
		ledger.StepQueued: Queued, ledger.StepCompleted: Completed, ledger.StepFailed: Failed,
		ledger.StepCancelled: Cancelled, ledger.StepSkipped: Skipped,
		ledger.ApprovalRequested: CheckpointPending, ledger.StepInvalidated: Pending,
	},
	CheckpointPending: {
		ledger.ApprovalDecided: CheckpointPending, ledger.ApprovalRefused: CheckpointPending, ledger.ApprovalClosed: CheckpointPending,
		ledger.StepCompleted: Completed, ledger.StepFailed: Failed, ledger.StepCancelled: Cancelled, ledger.StepSkipped: Skipped,
		ledger.StepInvalidated:   Pending,
		ledger.ApprovalRequested: CheckpointPending, // again, since what was decided may be lost
	},
	Completed: {ledger.StepInvalidated: Pending},
	Failed:    {ledger.StepInvalidated: Pending, ledger.StepSkipped: Skipped, ledger.RepeatWithdrawn: Failed},
	Skipped:   {ledger.StepInvalidated: Pending, ledger.RepeatWithdrawn: Skipped, ledger.StepSkipped: Skipped}, // by hand, with other outputs
	Cancelled: {ledger.StepInvalidated: Pending, ledger.RepeatWithdrawn: Cancelled},
}

// NextRun returns the status of a run after an entry. An illegal pair is a
// *[TransitionError].
func NextRun(from Status, on ledger.Type) (Status, error) {
	to, ok := runTable[from][on]
	if !ok {
		return from, &TransitionError{What: "run", From: from, On: on}
	}
	return to, nil
}

// NextStep returns the status of a step after an entry. An illegal pair is a
// *[TransitionError].
func NextStep(from Status, on ledger.Type) (Status, error) {
	if on == ledger.ApprovalRefused { // whatever has become of the step meanwhile
		return from, nil
	}
	to, ok := stepTable[from][on]
	if !ok {
		return from, &TransitionError{What: "step", From: from, On: on}
	}
	return to, nil
}
