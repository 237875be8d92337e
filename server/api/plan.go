package api

import (
	"context"

	"github.com/stellarun/stella/runner/state"
)

// Planning says what a start would do.
type Planning interface {
	// PlanRun plans a start without starting anything: nothing is recorded, and the
	// token is as free as before. What would keep the start from being accepted is in
	// Problems, not the error.
	PlanRun(ctx context.Context, req StartRequest) (RunPlan, error)
}

// RunPlan is what a start would do, as far as that is known before.
type RunPlan struct {
	Startable  bool          `json:"startable"` // it would be accepted now
	Problems   []PlanProblem `json:"problems"`
	Run        *state.Run    `json:"run,omitempty"` // the same start has been made before: this run is what it would give
	Tenant     string        `json:"tenant"`
	DAGID      string        `json:"dagId"`
	DAGVersion string        `json:"dagVersion"`
	DAGDigest  string        `json:"dagDigest"`
	PlanHash   string        `json:"planHash,omitempty"` // absent where something is missing
	InputsHash string        `json:"inputsHash"`
	Priority   int64         `json:"priority,omitempty"`
	Tier       string        `json:"tier,omitempty"` // of the fences that stand here; absent where nobody knows
	AllowPlain bool          `json:"allowPlain"`
	Workers    int           `json:"workers"`
	Parallel   int           `json:"maxParallelSteps"`
	TimeoutMs  int64         `json:"timeoutMs,omitempty"` // of the run
	FailFast   bool          `json:"failFast"`
	Limits     []PlanLimit   `json:"limits"` // on attempts at a time
	Paused     []QueueStop   `json:"paused"` // it would be accepted, and wait
	Steps      []PlannedStep `json:"steps"`  // in the order in which they become due
}

// PlanProblem is something that keeps a start from being accepted.
type PlanProblem struct {
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Faults  []string `json:"faults,omitempty"`
	Hint    string   `json:"hint,omitempty"`
}

// PlanLimit is a limit of site.toml that the run is under.
type PlanLimit struct {
	Of    string `json:"of"` // tenant NAME | dag ID | plugin PUBLISHER/NAME
	Limit int    `json:"limit"`
}

// PlannedStep is what would happen to one step.
type PlannedStep struct {
	StepID        string           `json:"stepId"` // of a step of a sub-run: below that of its step, with a /
	Phase         string           `json:"phase"`  // step | on_failure | on_cancel
	Kind          string           `json:"kind"`   // plugin | sub-run | gate
	Needs         []string         `json:"needs,omitempty"`
	Would         string           `json:"would"`                // run | skip | fail | cached
	Why           string           `json:"why,omitempty"`        // of skip and fail
	DecidedLater  []string         `json:"decidedLater"`         // when, for_each, with: known only when it runs
	Items         int              `json:"items,omitempty"`      // of a for_each that is known
	InputsHash    string           `json:"inputsHash,omitempty"` // of its parameters, where they are known
	Cache         string           `json:"cache,omitempty"`      // hit | miss | undecided; absent where nothing is kept
	Hits          int              `json:"hits,omitempty"`       // items that would be hits
	Cached        *CacheEntry      `json:"cached,omitempty"`     // the hit
	Plugin        *state.Plugin    `json:"plugin,omitempty"`
	Action        string           `json:"action,omitempty"`
	Entry         string           `json:"entry,omitempty"` // SHA-256 of the program
	Interpreter   *PlannedFile     `json:"interpreter,omitempty"`
	Data          []PlannedFile    `json:"data,omitempty"`
	DAG           string           `json:"dag,omitempty"` // of a sub-run, id@version
	DAGDigest     string           `json:"dagDigest,omitempty"`
	PlanHash      string           `json:"planHash,omitempty"` // of a sub-run
	Idempotent    bool             `json:"idempotent"`
	MaxAttempts   int              `json:"maxAttempts"`
	Priority      int64            `json:"priority,omitempty"`
	Locks         []PlannedLock    `json:"locks,omitempty"`
	Checkpoint    *PlannedApproval `json:"checkpoint,omitempty"`
	Network       string           `json:"network,omitempty"`
	HostRead      []string         `json:"hostRead,omitempty"`
	Require       []string         `json:"require,omitempty"` // fences without which it must not start
	Secrets       []string         `json:"secrets,omitempty"`
	TimeoutMs     int64            `json:"timeoutMs,omitempty"`
	Memory        int64            `json:"memory,omitempty"`
	CPU           float64          `json:"cpu,omitempty"`
	PIDs          int64            `json:"pids,omitempty"`
	Missing       string           `json:"missing,omitempty"` // why it cannot be planned
	AllowSkip     bool             `json:"allowSkip,omitempty"`
	ContinueOnErr bool             `json:"continueOnError,omitempty"`
}

// PlannedFile names something by its digest.
type PlannedFile struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// PlannedLock is a lock that a step needs, and who has it now.
type PlannedLock struct {
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Weight   int64  `json:"weight"`
	Capacity int64  `json:"capacity"`
	Held     int64  `json:"held"`
}

// PlannedApproval is what people would be asked.
type PlannedApproval struct {
	Question       string   `json:"question"`
	Approvers      []string `json:"approvers,omitempty"` // none: anybody who may write
	Quorum         int      `json:"quorum"`
	ExcludeStarter bool     `json:"excludeStarter,omitempty"`
	Required       bool     `json:"required,omitempty"`
	ExpiresMs      int64    `json:"expiresMs,omitempty"`
}
