package api

import "context"

// Sessions are the output streams of attempts.
type Sessions interface {
	// ListSessions lists the sessions of the newest runs first, in each by step
	// and attempt.
	ListSessions(ctx context.Context, q SessionQuery) (SessionPage, error)
	// CaptureSession calls f for each stored line of one session, oldest first.
	CaptureSession(ctx context.Context, q CaptureQuery, f func(LogLine) error) error
}

// SessionQuery narrows and pages a list of sessions. A page holds those of
// PageSize runs.
type SessionQuery struct {
	All       bool   `json:"all,omitempty"` // also those that have ended
	RunID     string `json:"runId,omitempty"`
	PageSize  int    `json:"pageSize,omitempty"` // default 50, at most 500
	PageToken string `json:"pageToken,omitempty"`
}

// SessionPage is one page of sessions; NextPageToken is empty on the last.
type SessionPage struct {
	Sessions      []Session `json:"sessions"`
	NextPageToken string    `json:"nextPageToken,omitempty"`
}

// States of a session.
const (
	SessionActive = "active" // its attempt is under way
	SessionEnded  = "ended"
)

// Session is the output stream of one attempt.
type Session struct {
	RunID         string `json:"runId"`
	DAGID         string `json:"dagId"`
	StepID        string `json:"stepId"`
	Attempt       int    `json:"attempt"`
	State         string `json:"state"`
	Outcome       string `json:"outcome,omitempty"` // of the attempt, once it has ended
	StartedUTC    string `json:"startedUtc"`
	EndedUTC      string `json:"endedUtc,omitempty"`
	Bytes         int64  `json:"bytes"` // as stored
	Lines         int64  `json:"lines"`
	Dropped       int64  `json:"dropped,omitempty"`       // bytes that the cap cut
	LastOutputUTC string `json:"lastOutputUtc,omitempty"` // absent of what lies in an archive of runs
}

// CaptureQuery chooses lines of one session.
type CaptureQuery struct {
	RunID   string `json:"runId"`
	StepID  string `json:"stepId"`
	Attempt int    `json:"attempt,omitempty"` // 0: the last one
	Tail    int    `json:"tail,omitempty"`    // only this many of the lines that are there; 0: all
	Follow  bool   `json:"follow,omitempty"`  // go on until the attempt has ended
}
