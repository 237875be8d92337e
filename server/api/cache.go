package api

import "context"

// Cache is what is kept of steps that would do the same again.
type Cache interface {
	// ListCache lists what counts now, what was kept last first.
	ListCache(ctx context.Context, q CacheQuery) ([]CacheEntry, error)
	ClearCache(ctx context.Context, req CacheClearing) (CacheCleared, error)
	// Warm reads and judges what DAGs need, so that their next run does not pay for it.
	Warm(ctx context.Context, req WarmRequest) (WarmReport, error)
}

// CacheQuery narrows a list; zero fields do not.
type CacheQuery struct {
	DAGID string `json:"dagId,omitempty"`
}

// CacheEntry is the outputs of one step, kept for others that would do the same.
type CacheEntry struct {
	Key         string `json:"key"`
	DAGID       string `json:"dagId"`
	RunID       string `json:"runId"` // that made them
	StepID      string `json:"stepId"`
	Attempt     int    `json:"attempt"`
	InputsHash  string `json:"inputsHash"`
	OutputsHash string `json:"outputsHash,omitempty"`
	Artifacts   int    `json:"artifacts"`
	StoredUTC   string `json:"storedUtc"`
	ExpiresUTC  string `json:"expiresUtc"`
	TTLMs       int64  `json:"ttlMs"` // left
	Hits        int    `json:"hits"`
}

// CacheClearing says what is to be forgotten: all of the tenant, or of one DAG.
type CacheClearing struct {
	DAGID  string `json:"dagId,omitempty"`
	Reason string `json:"reason,omitempty"`
	DryRun bool   `json:"dryRun,omitempty"`
}

// CacheCleared is how much was forgotten.
type CacheCleared struct {
	DAGID  string `json:"dagId,omitempty"`
	Count  int    `json:"count"`
	DryRun bool   `json:"dryRun,omitempty"`
}

// WarmRequest names a DAG, or with "" all that can be started. Without a version
// the highest enabled one of each is meant.
type WarmRequest struct {
	DAGID   string `json:"dagId,omitempty"`
	Version string `json:"version,omitempty"`
}

// WarmReport is what was made ready.
type WarmReport struct {
	DAGs     []WarmDAG `json:"dags"`
	Ready    int       `json:"ready"`    // DAG versions that can be started now
	Bundles  int       `json:"bundles"`  // plugins and data, read and judged
	Schemas  int       `json:"schemas"`  // compiled
	Programs int64     `json:"programs"` // bytes of plugins that were read
	Kept     bool      `json:"kept"`     // by a process that goes on; else most is gone with the command
}

// WarmDAG is one DAG version that was looked at.
type WarmDAG struct {
	DAGID   string   `json:"dagId"`
	Version string   `json:"version"`
	Digest  string   `json:"digest"`
	Steps   int      `json:"steps"`
	Ready   bool     `json:"ready"`
	Code    string   `json:"code,omitempty"` // why it cannot be started now: a reject reason or another code
	Faults  []string `json:"faults,omitempty"`
	Hint    string   `json:"hint,omitempty"`
}
