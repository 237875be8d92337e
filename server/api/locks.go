package api

import (
	"context"

	"github.com/stellarun/stella/runner/state"
)

// Locks are the locks and semaphores of a tenant.
type Locks interface {
	// ListLocks lists what is held, and the semaphores of site.toml.
	ListLocks(ctx context.Context, q LockQuery) ([]Lock, error)
	// ShowLock shows the lock and the semaphore of a name. A lock that nobody holds
	// is free, whatever its name.
	ShowLock(ctx context.Context, name string) ([]Lock, error)
	// ReleaseLock takes a lock from its holder, and ends what relied on it.
	ReleaseLock(ctx context.Context, name string, req LockRelease) (LockReleased, error)
}

// LockQuery narrows a list of locks; zero fields do not.
type LockQuery struct {
	Stale bool   `json:"stale,omitempty"` // only those that a stale holder has
	Kind  string `json:"kind,omitempty"`  // lock | semaphore
}

// Lock is one lock or semaphore.
type Lock struct {
	Tenant   string       `json:"tenant"`
	Kind     string       `json:"kind"` // lock | semaphore
	Name     string       `json:"name"`
	Capacity int64        `json:"capacity"`
	Held     int64        `json:"held"`
	Holders  []LockHolder `json:"holders"`
	Waiting  []LockWaiter `json:"waiting"` // as far as their runs are executed
}

// LockHolder is a step that holds a lock.
type LockHolder struct {
	state.LockHolder
	DAGID     string `json:"dagId"`
	Executing bool   `json:"executing"`
	Stale     bool   `json:"stale"`             // it has not been executing for 60 s
	Lingers   string `json:"lingers,omitempty"` // what it still waits for although its step does not; without a fence the lock is free on record
	LastUTC   string `json:"lastUtc,omitempty"` // when something was last recorded of a holder that is not executing
}

// LockWaiter is a step that waits for a lock.
type LockWaiter struct {
	RunID     string `json:"runId"`
	StepID    string `json:"stepId"`
	Weight    int64  `json:"weight"`
	QueuedUTC string `json:"queuedUtc"`
}

// LockRelease says from whom a lock is taken. Without kind, run and step there must
// be only one holder.
type LockRelease struct {
	Kind   string `json:"kind,omitempty"`
	RunID  string `json:"runId,omitempty"`
	StepID string `json:"stepId,omitempty"`
	Reason string `json:"reason"`
	DryRun bool   `json:"dryRun,omitempty"`
}

// LockReleased is who has lost a lock, and the lock as it was before.
type LockReleased struct {
	Lock   Lock       `json:"lock"`
	Lost   LockHolder `json:"lost"`
	DryRun bool       `json:"dryRun,omitempty"`
}
