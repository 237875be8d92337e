package state

import (
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
	Pinned        string            `json:"pinned,omitempty"`
	Overridden    bool              `json:"overridden,omitempty"`
	Actor         string            `json:"actor"` // who started it
	Generation    int               `json:"generation"`
	Steps         int               `json:"steps"`          // in the plan
	Open          int               `json:"open,omitempty"` // attempts under way
	CancelledBy   string            `json:"cancelledBy,omitempty"`
	CancelReason  string            `json:"cancelReason,omitempty"`
	TimedOutUTC   string            `json:"timedOutUtc,omitempty"` // when its own deadline passed
	FirstSeq      int64             `json:"firstSeq"`
	LastSeq       int64             `json:"lastSeq"`
	CreatedUTC    string            `json:"createdUtc"`
	UpdatedUTC    string            `json:"updatedUtc"`
	StartedUTC    string            `json:"startedUtc,omitempty"`
	EndedUTC      string            `json:"endedUtc,omitempty"`
	DurationMs    int64             `json:"durationMs,omitempty"` // of an ended run, from its start
}

// CancelRequested says whether somebody asked for the end of the run.
func (r *Run) CancelRequested() bool { return r.CancelledBy != "" }

// Step is the projection of one step of a run. A step without entries has no
// record and is [Pending].
type Step struct {
	StepID        string  `json:"stepId"`
	Status        Status  `json:"status"`
	Attempt       int     `json:"attempt"`                 // number of the last attempt, from 1; never reused
	Failures      int     `json:"failures,omitempty"`      // attempts that count against max_attempts
	Interruptions int     `json:"interruptions,omitempty"` // attempts that were interrupted
	InfraFaults   int     `json:"infraFaults,omitempty"`
	Open          bool    `json:"open,omitempty"` // an attempt is under way
	Due           string  `json:"due,omitempty"`  // of a queued step: not before
	QueuedUTC     string  `json:"queuedUtc,omitempty"`
	Owner         string  `json:"owner,omitempty"`
	StartedUTC    string  `json:"startedUtc,omitempty"`
	EndedUTC      string  `json:"endedUtc,omitempty"`
	DurationMs    int64   `json:"durationMs,omitempty"`
	InputsHash    string  `json:"inputsHash,omitempty"`
	OutputsHash   string  `json:"outputsHash,omitempty"`
	ErrorCode     string  `json:"errorCode,omitempty"`
	Reason        string  `json:"reason,omitempty"`
	Retryable     bool    `json:"retryable,omitempty"`
	LogsRef       string  `json:"logsRef,omitempty"` // SHA-256 of the last attempt's log segment
	MetricsRef    string  `json:"metricsRef,omitempty"`
	Plugin        *Plugin `json:"plugin,omitempty"` // filled from the plan by whoever shows the step
}

// Plugin names the plugin of a step, as the plan froze it.
type Plugin struct {
	Publisher string `json:"publisher"`
	Name      string `json:"name"`
	Version   string `json:"version"`
	Digest    string `json:"digest"`
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
