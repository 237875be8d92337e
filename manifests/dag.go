package manifests

import "time"

// DAG is a DAG spec (CONTRACT section 5).
type DAG struct {
	ID               string // dag_id
	Version          string
	Description      string
	Inputs           map[string]Input
	MaxParallelSteps int           // 0: the site's default
	Timeout          time.Duration // of a whole run; 0: none
	FailFast         bool          // default true
	Steps            []Step        // in the order of the file
	OnFailure        []Step
	OnCancel         []Step
	Outputs          map[string]any // values, strings with ${ CEL } included
	Lines            map[string]int // where inputs and expressions of outputs stand, by path: inputs.text, outputs.said
}

// Input is one [inputs.NAME].
type Input struct {
	Type        string // string | integer | number | boolean | array | object
	Description string
	Required    bool
	Default     any // nil when absent
	Enum        []any
	Pattern     string // RE2, must match the whole string
	Secret      bool
}

// Ref is publisher/name@version.
type Ref struct{ Publisher, Name, Version string }

func (r Ref) String() string { return r.Publisher + "/" + r.Name + "@" + r.Version }

// Step is one [[step]], [[on_failure]] or [[on_cancel]].
type Step struct {
	ID               string
	Line             int            // where it stands in the spec
	Lines            map[string]int // where its expressions stand, by path: when, with.list[0]
	Plugin           *Ref           // with Action; or
	Action           string
	DAG              string // id@version, a sub-run; or neither: an approval gate
	Needs            []string
	With             map[string]any
	When             string // CEL; "" is true
	ForEach          any    // a list, or a string with ${ CEL }; nil when absent
	MaxParallel      int
	Data             []Ref
	Timeout          time.Duration
	Retry            Retry
	MaxInterruptions int // default 3
	Cache            *Cache
	Checkpoint       *Checkpoint
	Secrets          []string
	Locks            []string
	Semaphores       map[string]int64
	Priority         int64
	ContinueOnError  bool
	AllowSkip        bool
	Disabled         bool
	Idempotent       bool // default true; the action must agree
	Require          []string
}

// Retry is a step's retry rule. The zero value of a file is one attempt.
type Retry struct {
	MaxAttempts int           // default 1; includes the first
	Backoff     time.Duration // default 1s
	MaxBackoff  time.Duration // default 5m
	Jitter      float64       // 0..1, default 0.2
	RetryOn     []string      // error codes or outcomes; empty means any that may be retried
}

// Cache is a step's cache rule.
type Cache struct{ TTL time.Duration }

// Checkpoint is a step's approval (CONTRACT section 9).
type Checkpoint struct {
	Question       string
	Options        []Option
	Required       bool
	Approvers      []string
	Quorum         int
	ExcludeStarter bool
	Expires        time.Duration
}

// Option is one answer that a checkpoint offers.
type Option struct{ Label, Decision string }
