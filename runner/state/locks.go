package state

// LockRecord is the projection of a lock or semaphore that somebody holds.
type LockRecord struct {
	Tenant  string       `json:"tenant"`
	Kind    string       `json:"kind"` // lock | semaphore
	Name    string       `json:"name"`
	Holders []LockHolder `json:"holders"` // in the order in which they came
}

// LockHolder is one attempt or sub-run that holds it.
type LockHolder struct {
	RunID    string `json:"runId"`
	StepID   string `json:"stepId"`
	Attempt  int    `json:"attempt"`
	Weight   int64  `json:"weight"`
	Fence    int64  `json:"fence"` // seq of the entry that took it; it only grows
	SinceUTC string `json:"sinceUtc"`
}

// QueueState is what somebody has stopped. Keys are tenants, "" is the site.
type QueueState struct {
	Paused   map[string]QueueNote `json:"paused,omitempty"`
	Draining map[string]QueueNote `json:"draining,omitempty"`
}

// QueueNote says who did it, when and why.
type QueueNote struct {
	Actor   string `json:"actor"`
	TimeUTC string `json:"timeUtc"`
	Reason  string `json:"reason,omitempty"`
}
