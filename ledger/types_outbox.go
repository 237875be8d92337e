package ledger

// OutboxDeath is the data of [OutboxDead]: a sink was given an event as often as
// it may be, and the event is set aside.
type OutboxDeath struct {
	Sink     string `json:"sink"`
	Event    int64  `json:"event"` // seq of the event's entry
	Topic    string `json:"topic"` // its type
	RunID    string `json:"runId,omitempty"`
	Attempts int    `json:"attempts"`
}

// OutboxRequeue is the data of [OutboxRequeued]: somebody has events tried again.
type OutboxRequeue struct {
	Sink   string `json:"sink"`
	Events int    `json:"events"` // how many
	Reset  bool   `json:"reset"`  // their attempts are counted from the beginning
}

// OutboxForget is the data of [OutboxForgotten]: a sink that is configured no
// more is given up, with what it had not taken.
type OutboxForget struct {
	Sink    string `json:"sink"`
	Next    int64  `json:"next"`    // seq of the first entry that it had not seen
	Dropped int    `json:"dropped"` // events that it had seen and not taken
}
