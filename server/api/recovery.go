package api

import (
	"context"
	"encoding/json"

	"github.com/stellarun/stella/runner/state"
)

// Recovery is what people do to runs by hand. Each is recorded with who did it and
// why. What is under way is left alone: CONFLICT. A run that is final, or would have
// to be open, is RUN_ENDED. With DryRun nothing is done.
type Recovery interface {
	// RetryRun begins a step again, and reopens a run that has failed.
	RetryRun(ctx context.Context, id string, req RetryRequest) (Recovered, error)
	// SkipStep passes over a step as if it had succeeded, where its spec allows it.
	SkipStep(ctx context.Context, id string, req SkipRequest) (Recovered, error)
	// AbortRun ends a run at once: no grace, no cleanup.
	AbortRun(ctx context.Context, id string, req EndRequest) (Recovered, error)
	// FailRun ends a run as failed, and lets on_failure clean up.
	FailRun(ctx context.Context, id string, req EndRequest) (Recovered, error)
	// RestartRun stops what is under way and begins it again.
	RestartRun(ctx context.Context, id string, req AgainRequest) (Recovered, error)
	// NudgeRun ends waiting times, and repeats nothing.
	NudgeRun(ctx context.Context, id string, req NudgeRequest) (Recovered, error)
	// ResetRun takes steps out of whatever hands they are in, and begins them anew.
	ResetRun(ctx context.Context, id string, req AgainRequest) (Recovered, error)
}

// RetryRequest begins a step again.
type RetryRequest struct {
	StepID     string          `json:"stepId,omitempty"`     // or an item of it; "": the one for which the run has failed
	Downstream bool            `json:"downstream,omitempty"` // with everything that depends on it
	DelayMs    int64           `json:"delayMs,omitempty"`    // not before this time has passed, at most a day
	Repeat     bool            `json:"repeat,omitempty"`     // also what is not idempotent and was not named
	Only       bool            `json:"only,omitempty"`       // what was stopped or has lost its turn, was not named, and must not be done twice, stays so
	Input      json.RawMessage `json:"input,omitempty"`      // merge patch (RFC 7396) on its parameters
	Reason     string          `json:"reason,omitempty"`
	DryRun     bool            `json:"dryRun,omitempty"`
}

// SkipRequest passes over a step.
type SkipRequest struct {
	StepID  string          `json:"stepId,omitempty"`  // or an item of it; "": the one for which the run has failed
	Outputs json.RawMessage `json:"outputs,omitempty"` // an object that stands for its outputs
	Repeat  bool            `json:"repeat,omitempty"`  // what goes on after it may do twice what it has done
	Only    bool            `json:"only,omitempty"`    // as of a retry
	Reason  string          `json:"reason,omitempty"`  // required
	DryRun  bool            `json:"dryRun,omitempty"`
}

// EndRequest ends a run.
type EndRequest struct {
	Reason string `json:"reason,omitempty"` // required
	DryRun bool   `json:"dryRun,omitempty"`
}

// AgainRequest begins again what is under way.
type AgainRequest struct {
	StepID string `json:"stepId,omitempty"` // "": everything
	Repeat bool   `json:"repeat,omitempty"` // also what is not idempotent
	Only   bool   `json:"only,omitempty"`   // of a reset, as of a retry
	Reason string `json:"reason,omitempty"`
	DryRun bool   `json:"dryRun,omitempty"`
}

// NudgeRequest looks at a run again.
type NudgeRequest struct {
	Reason string `json:"reason,omitempty"`
}

// Recovered is what was done to a run by hand, or would be.
type Recovered struct {
	Run      state.Run    `json:"run"`
	DryRun   bool         `json:"dryRun,omitempty"`
	Changed  bool         `json:"changed"`          // false: it was so before
	Executed bool         `json:"executed"`         // somebody executes the run, so that it goes on
	Steps    []StepEffect `json:"steps"`            // that it affects at once
	Subruns  []string     `json:"subruns"`          // that are asked to end
	Kept     []string     `json:"kept,omitempty"`   // steps that stay as they are, although what they were built on is done again
	Twice    []string     `json:"twice,omitempty"`  // steps, STEP/STEP in sub-runs, that are not idempotent and may do twice what they have done
	Parent   *Parent      `json:"parent,omitempty"` // of a sub-run
}

// StepEffect is what becomes of one step, or of one item of it.
type StepEffect struct {
	StepID  string       `json:"stepId"`
	From    state.Status `json:"from"`
	To      state.Status `json:"to"`
	Code    state.Code   `json:"code,omitempty"`    // of what fails or is skipped
	Stopped int          `json:"stopped,omitempty"` // number of the attempt that is stopped
}
