package api

import (
	"context"
	"encoding/json"
)

// Schedules start runs at instants, while a daemon holds the site.
type Schedules interface {
	// AddSchedule adds a schedule; adding the same again changes nothing.
	AddSchedule(ctx context.Context, req ScheduleRequest) (Schedule, error)
	ListSchedules(ctx context.Context, q ScheduleQuery) ([]Schedule, error)
	ShowSchedule(ctx context.Context, name string) (ScheduleDetail, error)
	// NextInstants lists the coming instants of a schedule, at most 1000,
	// whether or not it fires then.
	NextInstants(ctx context.Context, name string, count int) ([]string, error)
	// PauseSchedules keeps schedules from firing until ResumeSchedules. What
	// falls in between is past.
	PauseSchedules(ctx context.Context, sel ScheduleSelection) (ScheduleReport, error)
	ResumeSchedules(ctx context.Context, sel ScheduleSelection) (ScheduleReport, error)
	RemoveSchedules(ctx context.Context, sel ScheduleSelection) (ScheduleReport, error)
}

// ScheduleSpec is what a schedule starts, and when: of Cron and EveryMs one is
// set. Zone belongs to Cron, Anchor to EveryMs.
type ScheduleSpec struct {
	Name      string            `json:"name"`
	DAGID     string            `json:"dagId"`
	Version   string            `json:"version,omitempty"` // "": the highest enabled one at each instant
	Cron      string            `json:"cron,omitempty"`
	Zone      string            `json:"zone,omitempty"` // IANA name; "" is UTC
	EveryMs   int64             `json:"everyMs,omitempty"`
	Anchor    string            `json:"anchor,omitempty"`    // the first instant; "" is one interval from now
	CatchUpMs int64             `json:"catchUpMs,omitempty"` // how late a missed instant is still started
	Overlap   string            `json:"overlap,omitempty"`   // skip (default) | queue | cancel-running | allow
	Metadata  map[string]string `json:"metadata,omitempty"`  // of its runs
}

// Policies of [ScheduleSpec.Overlap].
const (
	OverlapSkip   = "skip"           // an instant that comes while the last run is open is skipped
	OverlapQueue  = "queue"          // it waits for the end of that run
	OverlapCancel = "cancel-running" // it waits too, and that run is cancelled
	OverlapAllow  = "allow"          // it starts another one
)

// ScheduleRequest adds a schedule. Inputs is a JSON object; empty means {}.
type ScheduleRequest struct {
	ScheduleSpec
	Inputs json.RawMessage `json:"inputs,omitempty"`
}

// States of a schedule.
const (
	ScheduleActive  = "active"
	SchedulePaused  = "paused"
	ScheduleStopped = "stopped" // there is no enabled version that it could start
)

// Schedule is one schedule.
type Schedule struct {
	ScheduleSpec
	InputsHash    string `json:"inputsHash"`
	State         string `json:"state"`
	Why           string `json:"why,omitempty"` // of a state that is not active
	Seq           int64  `json:"seq"`           // of the entry that added it
	AddedUTC      string `json:"addedUtc"`
	AddedBy       string `json:"addedBy"`
	Fired         int64  `json:"fired"`                   // runs that it has started
	Skipped       int64  `json:"skipped"`                 // instants that started none
	NextUTC       string `json:"nextUtc,omitempty"`       // the next instant, while it is active
	LastUTC       string `json:"lastUtc,omitempty"`       // the newest instant that something came of
	LastReason    string `json:"lastReason,omitempty"`    // why that one started nothing: OVERLAP, MISSED, DISABLED, REFUSED
	LastErrorCode string `json:"lastErrorCode,omitempty"` // of REFUSED
	LastRunID     string `json:"lastRunId,omitempty"`
	LastRunStatus string `json:"lastRunStatus,omitempty"`
}

// ScheduleDetail is a schedule with the inputs of its runs.
type ScheduleDetail struct {
	Schedule
	Inputs json.RawMessage `json:"inputs"`
}

// ScheduleQuery narrows a list of schedules; zero fields do not.
type ScheduleQuery struct {
	DAGID string `json:"dagId,omitempty"`
	State string `json:"state,omitempty"`
}

// ScheduleSelection names schedules by one of: their name, the DAG that they
// start (with a version: those that are pinned to it), or all of the tenant.
type ScheduleSelection struct {
	Name    string `json:"name,omitempty"`
	DAGID   string `json:"dagId,omitempty"`
	Version string `json:"version,omitempty"`
	All     bool   `json:"all,omitempty"`
	Reason  string `json:"reason,omitempty"`
	DryRun  bool   `json:"dryRun,omitempty"`
}

// ScheduleReport is what a change of schedules did, or would do.
type ScheduleReport struct {
	DryRun    bool       `json:"dryRun,omitempty"`
	Changed   []Schedule `json:"changed"`   // as they are now; before they were removed
	Unchanged int        `json:"unchanged"` // that were so before
}
