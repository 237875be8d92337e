package api

import (
	"context"
	"encoding/json"
)

// Outbox is what is told to receivers outside, and what of it they have not taken.
type Outbox interface {
	// ListOutbox lists sinks, and events that they have not taken.
	ListOutbox(ctx context.Context, q OutboxQuery) (OutboxPage, error)
	// ShowEvent takes the id of an event, with or without its hash, and adds what
	// the sink is sent.
	ShowEvent(ctx context.Context, id string) (OutboxEvent, error)
	// RequeueEvents has events tried again at once.
	RequeueEvents(ctx context.Context, req RequeueRequest) (RequeueResult, error)
	// ForgetSink gives up a sink that is configured no more.
	ForgetSink(ctx context.Context, req ForgetRequest) (ForgetResult, error)
}

// States of an event at a sink.
const (
	EventPending   = "pending"   // not taken yet
	EventFailing   = "failing"   // pending, and an attempt has failed
	EventDead      = "dead"      // given up, until somebody requeues it
	EventDelivered = "delivered" // taken; only ShowEvent knows such
)

// OutboxQuery narrows and pages a list of events, by sink and then the oldest first.
type OutboxQuery struct {
	State     string `json:"state,omitempty"` // pending, which failing ones are too | failing | dead; "" for all
	Sink      string `json:"sink,omitempty"`
	PageSize  int    `json:"pageSize,omitempty"` // default 50, at most 500
	PageToken string `json:"pageToken,omitempty"`
}

// OutboxPage is the sinks, and one page of events; NextPageToken is empty on the last.
type OutboxPage struct {
	Sinks         []Sink        `json:"sinks"`
	Events        []OutboxEvent `json:"events"`
	NextPageToken string        `json:"nextPageToken,omitempty"`
}

// Sink is one receiver of events.
type Sink struct {
	Name       string   `json:"name"`
	Kind       string   `json:"kind,omitempty"`   // file | socket | webhook; "" where site.toml does not name it
	Target     string   `json:"target,omitempty"` // path, or scheme and host of a URL
	Topics     []string `json:"topics,omitempty"`
	Tenant     string   `json:"tenant,omitempty"`
	Configured bool     `json:"configured"` // in the site.toml of the process that holds the site
	Delivering bool     `json:"delivering"` // that process sends events
	Begun      bool     `json:"begun"`      // something that executes has run since it was configured
	Next       int64    `json:"next"`       // seq of the first entry that it has not seen
	Behind     int64    `json:"behind"`     // entries that it has not seen, of whatever type
	Pending    int      `json:"pending"`    // events, failing ones among them
	Failing    int      `json:"failing"`
	Dead       int      `json:"dead"`
	AtLeast    bool     `json:"atLeast,omitempty"` // there is more behind than was counted
	Delivered  int64    `json:"delivered"`
	LastUTC    string   `json:"lastUtc,omitempty"` // when it took the last one
}

// OutboxEvent is one event at one sink.
type OutboxEvent struct {
	ID         string `json:"id"` // SINK/SEQ/HASH
	Sink       string `json:"sink"`
	Seq        int64  `json:"seq"` // of its entry
	Topic      string `json:"topic"`
	RunID      string `json:"runId,omitempty"`
	Tenant     string `json:"tenant,omitempty"`
	State      string `json:"state"`
	Attempts   int    `json:"attempts"`
	LastError  string `json:"lastError,omitempty"`
	CreatedUTC string `json:"createdUtc"`       // of its entry
	DueUTC     string `json:"dueUtc,omitempty"` // not tried before
	// Payload is what the sink is sent, exactly; only ShowEvent fills it.
	Payload json.RawMessage `json:"payload,omitempty"`
}

// RequeueRequest names events by id, or all that are dead, of one sink or of all.
type RequeueRequest struct {
	IDs           []string `json:"ids,omitempty"`
	AllDead       bool     `json:"allDead,omitempty"`
	Sink          string   `json:"sink,omitempty"`
	ResetAttempts bool     `json:"resetAttempts,omitempty"` // else each is tried once more
}

// RequeueResult is how many events of each sink are tried again.
type RequeueResult struct {
	Sinks      []RequeuedSink `json:"sinks"`
	Delivering bool           `json:"delivering"` // the process that holds the site sends events
}

// RequeuedSink is one of them.
type RequeuedSink struct {
	Sink   string `json:"sink"`
	Events int    `json:"events"`
}

// ForgetRequest names a sink. A dry run only says what would be given up.
type ForgetRequest struct {
	Sink   string `json:"sink"`
	DryRun bool   `json:"dryRun,omitempty"`
}

// ForgetResult is what was given up.
type ForgetResult struct {
	Sink    string `json:"sink"`
	Next    int64  `json:"next"`    // seq of the first entry that it had not seen
	Dropped int    `json:"dropped"` // events that it had seen and not taken
	DryRun  bool   `json:"dryRun,omitempty"`
}
