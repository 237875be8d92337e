package state

import (
	"cmp"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

// Run is the projection of one run: what its entries, folded in order, say.
// Times are in the form of package stamp, empty where they have not come.
type Run struct {
	Tenant        string            `json:"tenant"`
	RunID         string            `json:"runId"`
	DAGID         string            `json:"dagId"`
	DAGVersion    string            `json:"dagVersion"`
	DAGDigest     string            `json:"dagDigest"`
	PlanHash      string            `json:"planHash"`
	RunToken      string            `json:"runToken"`
	TraceID       string            `json:"traceId"`
	Status        Status            `json:"status"`
	CurrentStep   string            `json:"currentStep,omitempty"` // the step that was started last
	FailureReason string            `json:"failureReason,omitempty"`
	FailedStep    string            `json:"failedStep,omitempty"`
	InputsHash    string            `json:"inputsHash"`
	OutputsHash   string            `json:"outputsHash,omitempty"`
	Metadata      map[string]string `json:"metadata,omitempty"`
	ParentRunID   string            `json:"parentRunId,omitempty"`
	ParentStepID  string            `json:"parentStepId,omitempty"`
	Depth         int               `json:"depth,omitempty"`
	Priority      int64             `json:"priority,omitempty"`
	ReplayOf      string            `json:"replayOf,omitempty"`
	Rationale     string            `json:"rationale,omitempty"` // of a replay
	Pinned        string            `json:"pinned,omitempty"`
	Overridden    bool              `json:"overridden,omitempty"` // somebody changed an input, an output or a step's end by hand
	Actor         string            `json:"actor"`                // who started it
	Behalf        []string          `json:"behalf,omitempty"`     // for whom: they count as its starters, too
	Afresh        bool              `json:"afresh,omitempty"`     // somebody wants it done again: nothing is taken from the cache
	Generation    int               `json:"generation"`
	Steps         int               `json:"steps"`             // in the plan
	Items         int               `json:"items,omitempty"`   // steps id.N that for_each has added
	Counts        map[Status]int    `json:"counts,omitempty"`  // steps and items that are not pending, by status
	Open          int               `json:"open,omitempty"`    // attempts under way
	Waiting       int               `json:"waiting,omitempty"` // approvals that are open
	Message       string            `json:"message,omitempty"` // with failureReason: in words
	Aborted       bool              `json:"aborted,omitempty"` // its end was asked for at once, without cleanup
	FailCode      string            `json:"failCode,omitempty"`
	FailNote      string            `json:"failNote,omitempty"`
	NoCleanup     bool              `json:"noCleanup,omitempty"` // it was to fail while it cleaned up: that ends, too
	Stuck         string            `json:"stuck,omitempty"`     // warning | stalled, until something moves
	Nudges        int               `json:"nudges,omitempty"`
	Restarts      int               `json:"restarts,omitempty"`
	ReopenedUTC   string            `json:"reopenedUtc,omitempty"`
	SameEndSince  string            `json:"sameEndSinceUtc,omitempty"` // see EndSince, where that is not reopenedUtc
	CancelledBy   string            `json:"cancelledBy,omitempty"`
	CancelReason  string            `json:"cancelReason,omitempty"`
	TimedOutUTC   string            `json:"timedOutUtc,omitempty"` // when its own deadline passed
	Entries       int               `json:"entries"`               // of the run so far
	FirstSeq      int64             `json:"firstSeq"`
	LastSeq       int64             `json:"lastSeq"`
	CreatedUTC    string            `json:"createdUtc"`
	UpdatedUTC    string            `json:"updatedUtc"`
	StartedUTC    string            `json:"startedUtc,omitempty"`
	EndedUTC      string            `json:"endedUtc,omitempty"`
	DurationMs    int64             `json:"durationMs,omitempty"` // of an ended run, from its start
}

// Starters are who started the run, and for whom. Of a sub-run those of the run above
// all count.
func (r *Run) Starters() []string { return append([]string{r.Actor}, r.Behalf...) }

// CancelRequested says whether somebody asked for the end of the run.
func (r *Run) CancelRequested() bool { return r.CancelledBy != "" }

// FailRequested says whether it is to end as failed, whatever its steps do.
func (r *Run) FailRequested() bool { return r.FailCode != "" }

// Since is when the time of the run began to count: with its start, or with its
// reopening.
func (r *Run) Since() string {
	if r.ReopenedUTC != "" {
		return r.ReopenedUTC
	}
	return r.CreatedUTC
}

// EndSince is since when the run is about the end that it is about now: since its reopening
// if that was not for its cleanup alone, "" since its start.
func (r *Run) EndSince() string { return cmp.Or(r.SameEndSince, r.ReopenedUTC) }

// Pending is how many steps nothing has happened to, or nothing that counts.
func (r *Run) Pending() int {
	n := r.Steps + r.Items
	for _, c := range r.Counts {
		n -= c
	}
	return n
}

// Unneeded is how many of them a run has ended without, see [Shown]. What nothing
// could make runnable counts as pending still.
func (r *Run) Unneeded() int {
	if !r.Status.Ended() || r.FailureReason == string(UnreachableSteps) {
		return 0
	}
	return r.Pending()
}

// Shown is a step as people and programs see it: a step of on_failure or on_cancel
// that a run has ended without will not run, and is no more than skipped. No entry
// says so, and a reopened run may need it yet.
func Shown(run *Run, s Step, cleanup bool) Step {
	if !cleanup || !run.Status.Ended() || s.Status != Pending {
		return s
	}
	s.Status, s.Reason = Skipped, string(NotNeeded)
	if run.Aborted {
		s.Reason = string(RunAborted)
	}
	return s
}

// Step is the projection of one step of a run. A step without entries has no
// record and is [Pending].
type Step struct {
	StepID        string    `json:"stepId"`
	Status        Status    `json:"status"`
	Attempt       int       `json:"attempt"`                 // number of the last attempt, from 1; never reused
	Failures      int       `json:"failures,omitempty"`      // attempts that count against max_attempts
	Interruptions int       `json:"interruptions,omitempty"` // attempts that were interrupted
	InfraFaults   int       `json:"infraFaults,omitempty"`
	Open          bool      `json:"open,omitempty"` // an attempt is under way
	Due           string    `json:"due,omitempty"`  // of a queued step: not before
	QueuedUTC     string    `json:"queuedUtc,omitempty"`
	Owner         string    `json:"owner,omitempty"`
	StartedUTC    string    `json:"startedUtc,omitempty"`
	EndedUTC      string    `json:"endedUtc,omitempty"`
	DurationMs    int64     `json:"durationMs,omitempty"`
	InputsHash    string    `json:"inputsHash,omitempty"`
	OutputsHash   string    `json:"outputsHash,omitempty"`
	ErrorCode     string    `json:"errorCode,omitempty"`
	Reason        string    `json:"reason,omitempty"`
	Retryable     bool      `json:"retryable,omitempty"`
	Note          string    `json:"note,omitempty"`         // of whoever ended it by hand
	Overlay       string    `json:"overlay,omitempty"`      // SHA-256 of a merge patch on its parameters
	After         string    `json:"after,omitempty"`        // of a pending step: it may not be claimed before
	Afresh        bool      `json:"afresh,omitempty"`       // somebody wants it done again: nothing is taken from the cache
	Repeat        bool      `json:"repeat,omitempty"`       // what it has done may be done twice: somebody has said so since it was begun last
	Generation    int       `json:"generation,omitempty"`   // of the run when it ended
	Items         string    `json:"items,omitempty"`        // SHA-256 of the list of for_each
	Count         int       `json:"count,omitempty"`        // of its items
	Child         *Child    `json:"child,omitempty"`        // the run that it started last
	Cached        *Cached   `json:"cached,omitempty"`       // where its outputs came from, if not from an attempt
	CacheExpires  string    `json:"cacheExpires,omitempty"` // until then its outputs are kept for others
	Approval      *Approval `json:"approval,omitempty"`     // its last
	LogsRef       string    `json:"logsRef,omitempty"`      // SHA-256 of the last attempt's log segment
	MetricsRef    string    `json:"metricsRef,omitempty"`
	Plugin        *Plugin   `json:"plugin,omitempty"` // filled from the plan by whoever shows the step
}

// Plugin names the plugin of a step, as the plan froze it.
type Plugin struct {
	Publisher string `json:"publisher"`
	Name      string `json:"name"`
	Version   string `json:"version"`
	Digest    string `json:"digest"`
}

// Child is the run that a step has started.
type Child struct {
	RunID         string        `json:"runId"`
	DAGID         string        `json:"dagId"`
	DAGVersion    string        `json:"dagVersion"`
	Status        string        `json:"status,omitempty"` // once it has ended
	FailureReason string        `json:"failureReason,omitempty"`
	Locks         []ledger.Lock `json:"locks,omitempty"`
	Fence         int64         `json:"fence,omitempty"`   // seq of its start, under which the locks are held
	LeftUTC       string        `json:"leftUtc,omitempty"` // when its step gave it up, where it had not ended
}

// Cached is the source of outputs that a step took from the cache.
type Cached struct {
	Key       string            `json:"key"`
	RunID     string            `json:"runId"`
	StepID    string            `json:"stepId"`
	Attempt   int               `json:"attempt"`
	Stored    string            `json:"stored"`
	Expires   string            `json:"expires"`
	Artifacts []ledger.Artifact `json:"artifacts,omitempty"`
}

// Results of an approval.
const (
	ApprovalPending   = "pending"
	ApprovalApproved  = "approved"  // enough people said continue, or retry
	ApprovalRejected  = "rejected"  // somebody said abort
	ApprovalExpired   = "expired"   // nobody said enough in time
	ApprovalWithdrawn = "withdrawn" // the run ended, or went back, without it
)

// Approval is the projection of one time that a step waits for people. Its id
// is [ApprovalID] of run, step and attempt.
type Approval struct {
	Attempt      int                    `json:"attempt"`
	Request      ledger.ApprovalRequest `json:"request"`
	Status       string                 `json:"status"`
	Decisions    []Decision             `json:"decisions,omitempty"`
	RequestedUTC string                 `json:"requestedUtc"`
	ClosedUTC    string                 `json:"closedUtc,omitempty"`
	Decision     string                 `json:"decision,omitempty"` // that closed it
}

// Decision is what one person has decided.
type Decision struct {
	Actor   string `json:"actor"`
	TimeUTC string `json:"timeUtc"`
	ledger.ApprovalDecision
}

// Attempt is the projection of one attempt.
type Attempt struct {
	StepID     string               `json:"stepId"`
	Attempt    int                  `json:"attempt"`
	Generation int                  `json:"generation"`
	Start      *ledger.AttemptStart `json:"start"`
	StartedUTC string               `json:"startedUtc"`
	EndedUTC   string               `json:"endedUtc,omitempty"`
	End        *ledger.AttemptEnd   `json:"end,omitempty"` // nil while it is under way
	Actor      string               `json:"actor"`
}

// millis is the time from a to b in whole milliseconds; 0 if either is absent.
func millis(a, b string) int64 {
	x, err := stamp.Parse(a)
	if err != nil {
		return 0
	}
	y, err := stamp.Parse(b)
	if err != nil {
		return 0
	}
	return max(0, y.Sub(x).Milliseconds())
}

// DueTime is when a queued step may be claimed; the zero time means at once.
func (s *Step) DueTime() time.Time {
	t, err := stamp.Parse(s.Due)
	if err != nil {
		return time.Time{}
	}
	return t
}
