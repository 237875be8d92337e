package api

import "context"

// Queue is what waits to be executed, what keeps it, and what only people let go
// on.
type Queue interface {
	QueueStatus(ctx context.Context, q QueueQuery) (QueueStatus, error)
	// PauseQueue lets nothing more be claimed until ResumeQueue; starts are accepted.
	PauseQueue(ctx context.Context, req QueueRequest) (QueueChanged, error)
	// DrainQueue refuses starts until ResumeQueue; what is open goes on.
	DrainQueue(ctx context.Context, req QueueRequest) (QueueChanged, error)
	ResumeQueue(ctx context.Context, req QueueRequest) (QueueChanged, error)
	// WaitQueue returns once nothing is queued or under way. It fails when nothing
	// would change that: the queue is paused, or nobody executes steps.
	WaitQueue(ctx context.Context, q QueueQuery) (QueueStatus, error)
	// ListDead lists the steps that only a person lets go on, of the oldest runs first.
	ListDead(ctx context.Context, limit int) ([]DeadStep, error)
}

// QueueQuery asks about the tenant's part of the queue, or about all of it.
type QueueQuery struct {
	All bool `json:"all,omitempty"` // tenants
}

// QueueRequest changes the tenant's part of the queue, or all of it.
type QueueRequest struct {
	All    bool   `json:"-"` // tenants; a route of its own
	Reason string `json:"reason,omitempty"`
}

// QueueStatus is the queue at one moment.
type QueueStatus struct {
	Tenant     string        `json:"tenant,omitempty"` // whose part it is; "" is all
	Mode       string        `json:"mode"`             // of the process that holds the site
	Executes   bool          `json:"executes"`         // it executes steps
	Workers    int           `json:"workers"`
	Depth      int           `json:"depth"`               // steps that may be claimed, or wait for a limit or a lock
	Delayed    int           `json:"delayed"`             // that wait for a time
	Executing  int           `json:"executing"`           // attempts under way
	Runs       int           `json:"runs"`                // open
	Unattended int           `json:"unattended"`          // open runs that nobody executes, and that do not wait for people
	OldestUTC  string        `json:"oldestUtc,omitempty"` // when the oldest that waits was queued
	OldestMs   int64         `json:"oldestMs,omitempty"`  // its age
	AtRest     bool          `json:"atRest"`              // nothing is queued or under way; runs may wait for people
	Tenants    []QueueTenant `json:"tenants"`
	Waits      []QueueWait   `json:"waits"`
	Paused     []QueueStop   `json:"paused"`
	Draining   []QueueStop   `json:"draining"`
}

// QueueTenant is one tenant's part of the queue.
type QueueTenant struct {
	Tenant    string `json:"tenant"`
	Depth     int    `json:"depth"`
	Delayed   int    `json:"delayed"`
	Executing int    `json:"executing"`
	Runs      int    `json:"runs"`
}

// QueueWait is something that is waited for, and by how many steps.
type QueueWait struct {
	For   string `json:"for"`
	Steps int    `json:"steps"`
}

// QueueStop says who has paused or drains the queue of a tenant, "" is all, and why.
type QueueStop struct {
	Tenant  string `json:"tenant,omitempty"`
	Actor   string `json:"actor"`
	TimeUTC string `json:"timeUtc"`
	Reason  string `json:"reason,omitempty"`
}

// QueueChanged is the queue after a change.
type QueueChanged struct {
	Changed bool        `json:"changed"` // false: it was so before
	Status  QueueStatus `json:"status"`
}

// DeadStep is a step that has failed in a way that only a person can judge.
type DeadStep struct {
	RunID         string `json:"runId"`
	DAGID         string `json:"dagId"`
	DAGVersion    string `json:"dagVersion"`
	StepID        string `json:"stepId"`
	Attempt       int    `json:"attempt"`
	Interruptions int    `json:"interruptions,omitempty"`
	ErrorCode     string `json:"errorCode"` // POISON_PILL | INDETERMINATE
	Message       string `json:"message,omitempty"`
	EndedUTC      string `json:"endedUtc"`
	AllowSkip     bool   `json:"allowSkip"`
	Next          string `json:"next"` // command that lets it go on
}
