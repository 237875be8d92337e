package api

import "context"

// Workspaces are the folders that attempts worked in, as far as they are kept.
type Workspaces interface {
	// ListWorkspaces lists them, at most 1000.
	ListWorkspaces(ctx context.Context, q WorkspaceQuery) (WorkspacePage, error)
	// CleanWorkspaces removes those that are stale. That some could not be
	// removed is no error: the report says so.
	CleanWorkspaces(ctx context.Context, req WorkspaceCleanup, p Progress) (WorkspaceReport, error)
}

// WorkspaceQuery narrows a list of workspaces.
type WorkspaceQuery struct {
	Stale bool   `json:"stale,omitempty"` // only those that a cleanup removes
	RunID string `json:"runId,omitempty"`
}

// WorkspacePage is a list of workspaces.
type WorkspacePage struct {
	Workspaces []Workspace `json:"workspaces"`
	More       int         `json:"more,omitempty"` // that the list leaves out
}

// States of a workspace.
const (
	WorkspaceActive = "active" // its attempt is under way
	WorkspaceKept   = "kept"   // its attempt has ended, its run has not
	WorkspaceStale  = "stale"  // its run has ended, or nobody knows of it
)

// Workspace is one folder below runs/ in the home.
type Workspace struct {
	Path     string `json:"path"` // below runs/
	RunID    string `json:"runId,omitempty"`
	DAGID    string `json:"dagId,omitempty"`
	StepID   string `json:"stepId,omitempty"`
	Attempt  int    `json:"attempt,omitempty"`
	State    string `json:"state"`
	Why      string `json:"why"` // it is in this state
	EndedUTC string `json:"endedUtc,omitempty"`
	Files    int64  `json:"files"`
	Bytes    int64  `json:"bytes"`
	Partial  bool   `json:"partial,omitempty"` // it holds more than was counted
}

// WorkspaceCleanup asks for the removal of stale workspaces.
type WorkspaceCleanup struct {
	DryRun      bool  `json:"dryRun,omitempty"`
	OlderThanMs int64 `json:"olderThanMs,omitempty"` // only those whose attempts ended as long ago as this
}

// WorkspaceReport is what a cleanup removed, or would remove.
type WorkspaceReport struct {
	DryRun     bool               `json:"dryRun"`
	Workspaces []Workspace        `json:"workspaces"` // at most 1000 of them
	Count      int64              `json:"count"`
	Files      int64              `json:"files"`
	Bytes      int64              `json:"bytes"`
	Partial    bool               `json:"partial,omitempty"` // there is more than was counted
	Failed     []WorkspaceFailure `json:"failed"`            // at most 100 of them
	FailedMore int                `json:"failedMore,omitempty"`
	Seq        int64              `json:"seq,omitempty"` // the entry
}

// WorkspaceFailure is a workspace that could not be removed.
type WorkspaceFailure struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}
