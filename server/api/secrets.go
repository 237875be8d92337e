package api

import (
	"context"
	"log/slog"
)

// Secrets are values that steps are given as files. What comes back of them are
// names, versions and uses, never a value.
type Secrets interface {
	// SetSecret makes the first version of a secret, or the next after all were
	// removed; CONFLICT while there is one.
	SetSecret(ctx context.Context, req SecretRequest) (Secret, error)
	// RotateSecret makes a further version. Attempts that start from then on get
	// it.
	RotateSecret(ctx context.Context, req SecretRequest) (Secret, error)
	// ListSecrets lists those of the tenant by name.
	ListSecrets(ctx context.Context) ([]Secret, error)
	// SecretUses says which DAG versions, runs and attempts were given a secret,
	// and which published DAGs name it.
	SecretUses(ctx context.Context, name string) (SecretUses, error)
	// RemoveSecret removes one version or all.
	RemoveSecret(ctx context.Context, req SecretRemoval) (SecretRemoved, error)
}

// SecretValue is the value of a secret on its way to the site. It prints as
// [redacted]; only its JSON form, which travels to the holder of the site, holds
// it.
type SecretValue []byte

// String, GoString and LogValue keep the value out of logs and messages.
func (SecretValue) String() string       { return "[redacted]" }
func (SecretValue) GoString() string     { return "[redacted]" }
func (SecretValue) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// SecretRequest makes a version of a secret.
type SecretRequest struct {
	Name   string      `json:"name"`
	Value  SecretValue `json:"value"` // exact bytes, 6 of them at least
	Reason string      `json:"reason,omitempty"`
}

// Secret is a secret as far as it is told.
type Secret struct {
	Name     string          `json:"name"`
	Version  int64           `json:"version"`  // that attempts are given; 0 if all were removed
	Versions []SecretVersion `json:"versions"` // that are here, oldest first
	Granted  []SecretGrant   `json:"granted"`  // by the policy in force
	LastUsed *SecretUse      `json:"lastUsed,omitempty"`
}

// SecretVersion is one version of a secret.
type SecretVersion struct {
	Version  int64  `json:"version"`
	SinceUTC string `json:"sinceUtc"`
	By       string `json:"by"`
	Reason   string `json:"reason,omitempty"`
	Uses     int64  `json:"uses"` // attempts that were given it
}

// SecretGrant says who may be given a secret.
type SecretGrant struct {
	Publisher string   `json:"publisher"` // of the plugins
	Plugins   []string `json:"plugins"`
	DAGs      []string `json:"dags"`
}

// SecretUse is an attempt that was given a version of a secret.
type SecretUse struct {
	Version    int64  `json:"version"`
	DAGID      string `json:"dagId"`
	DAGVersion string `json:"dagVersion"`
	RunID      string `json:"runId"`
	StepID     string `json:"stepId"`
	Attempt    int    `json:"attempt"`
	TimeUTC    string `json:"timeUtc"`
	Outcome    string `json:"outcome,omitempty"` // "" while it is under way
	ErrorCode  string `json:"errorCode,omitempty"`
	RunStatus  string `json:"runStatus,omitempty"`
}

// SecretDAG is a DAG version that has to do with a secret.
type SecretDAG struct {
	DAGID      string   `json:"dagId"`
	DAGVersion string   `json:"dagVersion"`
	Enabled    bool     `json:"enabled"`
	Steps      []string `json:"steps"` // whose spec names it
	Attempts   int64    `json:"attempts"`
	LastUTC    string   `json:"lastUtc,omitempty"`
}

// SecretUses is what has to do with a secret.
type SecretUses struct {
	Name     string      `json:"name"`
	DAGs     []SecretDAG `json:"dags"`
	Attempts []SecretUse `json:"attempts"` // newest first, at most 500
	More     int64       `json:"more,omitempty"`
}

// SecretRemoval names what goes: a version, or all.
type SecretRemoval struct {
	Name    string `json:"name"`
	Version int64  `json:"version,omitempty"`
	All     bool   `json:"all,omitempty"`
	Reason  string `json:"reason,omitempty"`
	DryRun  bool   `json:"dryRun,omitempty"`
}

// SecretRemoved is what went, or would go.
type SecretRemoved struct {
	DryRun  bool    `json:"dryRun,omitempty"`
	Removed []int64 `json:"removed"`
	Secret  Secret  `json:"secret"` // as it is now
}
