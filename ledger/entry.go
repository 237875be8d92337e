package ledger

// Envelope is the first line of an entry: what happened, when, to what, by
// whom. Its JSON form is canonical (RFC 8785); absent fields are omitted,
// except tenant, which is "" for entries of the site. The leaf of the tree is
// SHA-256(0x00 ‖ line).
type Envelope struct {
	Actor      string `json:"actor"`
	Attempt    int    `json:"attempt,omitempty"`
	DAGID      string `json:"dagId,omitempty"`
	DAGVersion string `json:"dagVersion,omitempty"`
	DataHash   string `json:"dataHash"` // SHA-256 of the data line
	RunID      string `json:"runId,omitempty"`
	Seq        int64  `json:"seq"` // leaf index from 0
	StepID     string `json:"stepId,omitempty"`
	Tenant     string `json:"tenant"`
	Time       string `json:"time"` // never below the previous entry's
	TraceID    string `json:"traceId,omitempty"`
	Type       Type   `json:"type"`
	V          int    `json:"v"` // schema version of the type
}
