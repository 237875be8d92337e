package api

import (
	"context"
	"encoding/json"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Approvals are the steps that wait for people, and what people have decided.
type Approvals interface {
	// ListApprovals lists those that are open, of the oldest runs first, or with
	// All or Status others.
	ListApprovals(ctx context.Context, q ApprovalQuery) (ApprovalPage, error)
	ShowApproval(ctx context.Context, id string) (ApprovalDetail, error)
	// DecideApproval records what the caller decides. A decision that does not
	// count is recorded too, and an error: ALREADY_DECIDED, STALE, NOT_APPROVER,
	// STARTER_EXCLUDED, APPROVAL_EXPIRED.
	DecideApproval(ctx context.Context, id string, req DecisionRequest) (Decided, error)
}

// ApprovalQuery narrows and pages a list of approvals.
type ApprovalQuery struct {
	All       bool   `json:"all,omitempty"`    // also those that are closed
	Status    string `json:"status,omitempty"` // pending | approved | rejected | expired | withdrawn
	RunID     string `json:"runId,omitempty"`
	PageSize  int    `json:"pageSize,omitempty"` // default 50, at most 500
	PageToken string `json:"pageToken,omitempty"`
}

// ApprovalPage is one page of approvals; NextPageToken is empty on the last.
type ApprovalPage struct {
	Approvals     []Approval `json:"approvals"`
	NextPageToken string     `json:"nextPageToken,omitempty"`
}

// Approval is one time that a step waits for people.
type Approval struct {
	ID             string                  `json:"id"` // run, step and attempt, with dots
	RunID          string                  `json:"runId"`
	DAGID          string                  `json:"dagId"`
	DAGVersion     string                  `json:"dagVersion"`
	StepID         string                  `json:"stepId"`
	Attempt        int                     `json:"attempt"`
	Status         string                  `json:"status"`
	Overdue        bool                    `json:"overdue,omitempty"`    // its time is over, and nobody has executed the run since
	Deadlocked     bool                    `json:"deadlocked,omitempty"` // those who may still decide are too few for its quorum
	MayDecide      []string                `json:"mayDecide,omitempty"`  // of the approvers those who have not decided, and may
	Note           string                  `json:"note,omitempty"`       // of one that is deadlocked: why, and which commands help
	Question       string                  `json:"question"`
	Options        []ledger.ApprovalOption `json:"options"`
	Approvers      []string                `json:"approvers,omitempty"` // none: whoever may write
	Quorum         int                     `json:"quorum"`
	ExcludeStarter bool                    `json:"excludeStarter,omitempty"`
	StartedBy      string                  `json:"startedBy"`
	StartedFor     []string                `json:"startedFor,omitempty"` // who had a schedule or a replay start it; they count as its starters, too
	Required       bool                    `json:"required,omitempty"`
	PlanHash       string                  `json:"planHash"` // a decision names it
	OutputsHash    string                  `json:"outputsHash,omitempty"`
	RequestedUTC   string                  `json:"requestedUtc"`
	ExpiresUTC     string                  `json:"expiresUtc,omitempty"`
	ClosedUTC      string                  `json:"closedUtc,omitempty"`
	Decision       string                  `json:"decision,omitempty"` // that closed it
	Decisions      []state.Decision        `json:"decisions"`
}

// ApprovalDetail is an approval with what it is about.
type ApprovalDetail struct {
	Approval
	Inputs    json.RawMessage   `json:"inputs"`            // of the run
	Outputs   json.RawMessage   `json:"outputs,omitempty"` // of the action before it
	Artifacts []ledger.Artifact `json:"artifacts"`         // that it made
	// Modifications are the patches that decisions name, by their SHA-256.
	Modifications map[string]json.RawMessage `json:"modifications,omitempty"`
}

// DecisionRequest is what somebody decides.
type DecisionRequest struct {
	Decision      string          `json:"decision,omitempty"`   // continue | retry | abort
	Option        string          `json:"option,omitempty"`     // or the label of an option
	BackTo        string          `json:"backTo,omitempty"`     // of retry: the step to go back to
	Downstream    bool            `json:"downstream,omitempty"` // of retry: also what else depends on that step
	Repeat        bool            `json:"repeat,omitempty"`     // of retry: also what is not idempotent
	DryRun        bool            `json:"dryRun,omitempty"`     // show what would be, and decide nothing
	Notes         string          `json:"notes,omitempty"`
	Modifications json.RawMessage `json:"modifications,omitempty"` // merge patch (RFC 7396): of the outputs with continue, of the parameters with retry
	PlanHash      string          `json:"planHash"`                // of what the caller has seen
}

// Decided is what a decision did.
type Decided struct {
	Approval Approval     `json:"approval"`
	Run      state.Run    `json:"run"`
	DryRun   bool         `json:"dryRun,omitempty"`
	Executed bool         `json:"executed"`        // somebody executes the run, so that it goes on
	Steps    []StepEffect `json:"steps"`           // that it affects at once
	Kept     []string     `json:"kept,omitempty"`  // steps that stay as they are, although what they were built on is done again
	Twice    []string     `json:"twice,omitempty"` // steps, STEP/STEP in sub-runs, that are not idempotent and may do twice what they have done
}
