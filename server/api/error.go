package api

import "net/http"

// Code is the stable name of a failure. The strings are part of the interface:
// never change or reuse one.
type Code string

// Codes of requests. Besides these, a refusal carries the reject reason of
// package verify as its code.
const (
	CodeInvalid          Code = "INVALID_REQUEST"
	CodeNotFound         Code = "NOT_FOUND"
	CodeTenantRequired   Code = "TENANT_REQUIRED"
	CodeForbidden        Code = "FORBIDDEN"
	CodeUnauthenticated  Code = "UNAUTHENTICATED"
	CodeRunTokenConflict Code = "RUN_TOKEN_CONFLICT"
	CodeRunEnded         Code = "RUN_ENDED"
	CodeNotCompleted     Code = "RUN_NOT_COMPLETED" // only a run that ended well can be attested
	CodeConflict         Code = "CONFLICT"
	CodeAlreadyDecided   Code = "ALREADY_DECIDED"
	CodeStale            Code = "STALE" // the decision is about something else than what waits
	CodeApprovalExpired  Code = "APPROVAL_EXPIRED"
	CodeNotApprover      Code = "NOT_APPROVER"
	CodeStarterExcluded  Code = "STARTER_EXCLUDED"
	CodeDAGInvalid       Code = "DAG_INVALID"
	CodeInputsInvalid    Code = "INPUTS_INVALID"
	CodeDAGIDTaken       Code = "DAG_ID_TAKEN"
	CodeDAGDisabled      Code = "DAG_DISABLED"
	CodePlainForbidden   Code = "PLAIN_NOT_ALLOWED"
	CodeWindowOpen       Code = "WINDOW_OPEN"
	CodeLocked           Code = "SITE_LOCKED"    // somebody else holds the site and does not answer
	CodeNotExecuting     Code = "NOT_EXECUTING"  // the holder of the site does not execute steps; try again
	CodeQueueDraining    Code = "QUEUE_DRAINING" // no start is accepted for now; try again
	CodeStopping         Code = "STOPPING"       // the holder is shutting down; try again
	CodeNoSite           Code = "NO_SITE"
	CodeNewer            Code = "SITE_NEWER"   // a newer stella has written the site
	CodeNotWritable      Code = "NOT_WRITABLE" // the home is read-only, or not ours, or its disk fails
	CodeSiteExists       Code = "SITE_EXISTS"
	CodeClockBehind      Code = "CLOCK_BEHIND"
	CodeClockAhead       Code = "CLOCK_AHEAD"
	CodeFloorLost        Code = "FLOOR_LOST"  // what bounds the ledger from outside is gone
	CodeFloorAhead       Code = "FLOOR_AHEAD" // what bounds it covers more than was restored
	CodeRestoring        Code = "RESTORING"   // a restore was cut off
	CodeTrustChanged     Code = "TRUST_CHANGED"
	CodeDamaged          Code = "DAMAGED"
	CodeArchiveAway      Code = "ARCHIVE_AWAY" // it lies in an archive of runs that is not in the home
	CodeNoSpace          Code = "NO_SPACE"
	CodeMedium           Code = "MEDIUM_FAILED" // a medium could not be read
	CodeInternal         Code = "INTERNAL"

	// CodeArchiveUnreadable is of what lies in an archive of runs of which the file cannot be opened.
	CodeArchiveUnreadable Code = "ARCHIVE_UNREADABLE"
)

// Refusal is what a judgement says when it turns a bundle away.
type Refusal struct {
	Reason  string  `json:"reason"`
	Stage   string  `json:"stage,omitempty"`   // of the judgement, when it was found
	Subject string  `json:"subject,omitempty"` // the file, signer or field
	Detail  string  `json:"detail,omitempty"`
	Hint    string  `json:"hint,omitempty"`   // what to do next
	Offset  int64   `json:"offset,omitempty"` // bytes read
	SHA256  string  `json:"sha256,omitempty"` // of these bytes, which need not be the whole file
	Digest  string  `json:"digest,omitempty"` // of the manifest, where it was read
	Seq     int64   `json:"seq,omitempty"`    // of the rejection's entry
	Report  *Report `json:"report,omitempty"` // who signed, and what each check found
}

// An Error is a request that was not done. It travels as
// {"error":{"code","message",…}}.
type Error struct {
	Code    Code     `json:"code"`
	Message string   `json:"message"`
	Hint    string   `json:"hint,omitempty"` // what to do next
	TraceID string   `json:"trace_id,omitempty"`
	Faults  []string `json:"faults,omitempty"` // one line each, where there are several
	Refusal *Refusal `json:"refusal,omitempty"`
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Status is the HTTP status that carries the error.
func (e *Error) Status() int {
	if e.Refusal != nil {
		return http.StatusUnprocessableEntity
	}
	switch e.Code {
	case CodeInvalid, CodeDAGInvalid, CodeInputsInvalid:
		return http.StatusBadRequest
	case CodeNotFound, CodeNoSite:
		return http.StatusNotFound
	case CodeUnauthenticated:
		return http.StatusUnauthorized
	case CodeTenantRequired, CodeForbidden, CodePlainForbidden, CodeNotApprover, CodeStarterExcluded:
		return http.StatusForbidden
	case CodeRunTokenConflict, CodeRunEnded, CodeNotCompleted, CodeConflict, CodeDAGIDTaken, CodeDAGDisabled, CodeSiteExists, CodeWindowOpen, CodeNewer,
		CodeAlreadyDecided, CodeStale, CodeApprovalExpired, CodeArchiveAway, CodeArchiveUnreadable:
		return http.StatusConflict
	case CodeLocked, CodeNotWritable, CodeNotExecuting, CodeQueueDraining, CodeStopping, CodeClockBehind, CodeClockAhead, CodeTrustChanged:
		return http.StatusServiceUnavailable
	case CodeNoSpace:
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}
