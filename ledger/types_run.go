package ledger

// RunStart is the data of [RunStarted].
type RunStart struct {
	RunToken   string            `json:"runToken"`
	PlanHash   string            `json:"planHash"`
	InputsHash string            `json:"inputsHash"`
	DAGDigest  string            `json:"dagDigest"`        // manifest of the DAG bundle
	Pinned     string            `json:"pinned,omitempty"` // version the caller asked for
	Metadata   map[string]string `json:"metadata,omitempty" erase:"text"`
	Parent     string            `json:"parent,omitempty"`     // run that this one is a sub-run of
	ParentStep string            `json:"parentStep,omitempty"` // its step
	Depth      int               `json:"depth,omitempty"`      // of sub-runs, 0 for a run that somebody started
	Priority   int64             `json:"priority,omitempty"`
	Behalf     []string          `json:"behalf,omitempty"`                 // for whom the actor starts it: of a schedule who set it up, of a replay who started the first run
	ReplayOf   string            `json:"replayOf,omitempty"`               // run whose outputs this one's are compared with
	Rationale  string            `json:"rationale,omitempty" erase:"text"` // of a replay: why
	Trust      TrustRef          `json:"trust"`
	Steps      int               `json:"steps"`
}

// Note is the data of entries that say who asked for something and why.
type Note struct {
	Reason string `json:"reason,omitempty" erase:"text"`
}

// RunFailing is the data of [RunFailRequested].
type RunFailing struct {
	// FAILED_BY_HAND, STALLED, TOO_MANY_ENTRIES; and where its outputs cannot be,
	// EXPRESSION_INVALID or RESOURCE_LIMIT.
	Code    string `json:"code"`
	Reason  string `json:"reason,omitempty" erase:"text"`
	Cleanup bool   `json:"cleanup,omitempty"` // the run was cleaning up: that ends as well
}

// RunGeneration is the data of [RunReopened] and [RunReset]. Attempts of older
// generations can no longer end.
type RunGeneration struct {
	Generation int    `json:"generation"`
	Reason     string `json:"reason,omitempty" erase:"text"`
	Cleanup    bool   `json:"cleanup,omitempty"` // of [RunReopened]: only what cleans up goes on
}

// Stuckness is the data of [RunStuck].
type Stuckness struct {
	Level  string   `json:"level"` // warning | stalled
	IdleMs int64    `json:"idleMs"`
	Steps  []string `json:"steps,omitempty"` // under way, at most 20
}

// Nudge is the data of [RunNudged] and [RunRestarted].
type Nudge struct {
	Step   string `json:"step,omitempty"` // "" means all
	Reason string `json:"reason,omitempty" erase:"text"`
	Repeat bool   `json:"repeat,omitempty"` // steps that are not idempotent may be begun again
}

// RunComparison is the data of [RunCompared].
type RunComparison struct {
	With    string       `json:"with"` // the run that was replayed
	Same    bool         `json:"same"`
	Steps   int          `json:"steps"`             // that were compared
	Differs []Difference `json:"differs,omitempty"` // the first 100
}

// Difference is one output that is not the same in a replay. StepID "" is the
// run itself.
type Difference struct {
	StepID string `json:"stepId,omitempty"`
	Field  string `json:"field"` // status | outputsHash | artifact NAME
	Was    string `json:"was,omitempty"`
	Is     string `json:"is,omitempty"`
}

// RunEnd is the data of [RunCompleted], [RunFailed] and [RunCancelled].
type RunEnd struct {
	OutputsHash   string `json:"outputsHash,omitempty"`
	FailureReason string `json:"failureReason,omitempty"` // errorCode of the step that failed the run, or one of the run's own
	FailedStep    string `json:"failedStep,omitempty"`
	Message       string `json:"message,omitempty" erase:"text"` // what somebody said about it, or the child's error
}

// RunAttestation is the data of [RunAttested]. The same statement, signed by the same
// key, has one entry, however often it is asked for.
type RunAttestation struct {
	SHA256    string   `json:"sha256"`              // of the Sigstore bundle
	Statement string   `json:"statement"`           // SHA-256 of the in-toto statement in it
	Subjects  int      `json:"subjects"`            // how many it is about
	Artifacts []string `json:"artifacts,omitempty"` // STEP/NAME of each, where it is not about all
}

// StepQueue is the data of [StepQueued].
type StepQueue struct {
	Due    string `json:"due,omitempty"`    // not before this time
	Reason string `json:"reason"`           // ready | retry | interrupted | infra | nudge | restart
	Repeat bool   `json:"repeat,omitempty"` // what it has done may be done twice: somebody has said so
}

// StepEnd is the data of the entries that end a step.
type StepEnd struct {
	OutputsHash string `json:"outputsHash,omitempty"`
	ErrorCode   string `json:"errorCode,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Note        string `json:"note,omitempty" erase:"text"` // what somebody said who ended it by hand
	Overridden  bool   `json:"overridden,omitempty"`        // somebody replaced or changed its outputs
}

// StepExpansion is the data of [StepExpanded].
type StepExpansion struct {
	Items string `json:"items"` // SHA-256 of the sealed list
	Count int    `json:"count"`
}

// StepInvalidation is the data of [StepInvalidated].
type StepInvalidation struct {
	Reason  string `json:"reason"`            // retry | rewind | reset | reopened
	Overlay string `json:"overlay,omitempty"` // SHA-256 of the sealed merge patch (RFC 7396) on its parameters
	After   string `json:"after,omitempty"`   // it may not be claimed before this time
	Leaves  string `json:"leaves,omitempty"`  // the run that it had started and waits for no more: that keeps its locks until it ends
	Repeat  bool   `json:"repeat,omitempty"`  // what it has done may be done twice: somebody has said so, or named the step
}

// CacheHit is the data of [StepCached]: the source, and what it had made.
type CacheHit struct {
	Key         string     `json:"key"` // 64 hex digits
	RunID       string     `json:"runId"`
	StepID      string     `json:"stepId"`
	Attempt     int        `json:"attempt"`
	InputsHash  string     `json:"inputsHash"`
	OutputsHash string     `json:"outputsHash,omitempty"`
	Artifacts   []Artifact `json:"artifacts,omitempty"`
	Stored      string     `json:"stored"`
	Expires     string     `json:"expires"`
	Trust       TrustRef   `json:"trust"` // under which it was judged again
}

// CacheClearing is the data of [CacheCleared].
type CacheClearing struct {
	DAGID  string `json:"dagId,omitempty"` // "" means all of the tenant
	Count  int    `json:"count"`
	Reason string `json:"reason,omitempty" erase:"text"`
}

// SubrunStart is the data of [SubrunStarted].
type SubrunStart struct {
	Generation int    `json:"generation"`
	RunID      string `json:"runId"`
	DAGID      string `json:"dagId"`
	DAGVersion string `json:"dagVersion"`
	PlanHash   string `json:"planHash"`
	InputsHash string `json:"inputsHash"`
	Locks      []Lock `json:"locks,omitempty"`
}

// SubrunEnd is the data of [SubrunEnded].
type SubrunEnd struct {
	RunID         string `json:"runId"`
	Status        string `json:"status"`
	OutputsHash   string `json:"outputsHash,omitempty"`
	FailureReason string `json:"failureReason,omitempty"`
	Overridden    bool   `json:"overridden,omitempty"` // somebody changed something in it by hand; so has he in its parent
	Left          bool   `json:"left,omitempty"`       // it has not ended: its step waits for it no more, and leaves it the locks until it ends
}

// Lock is one lock or a weight of one semaphore, held from the entry that lists
// it to the entry that ends what it was taken for. Its fence number is the seq
// of the first of the two.
type Lock struct {
	Kind   string `json:"kind"` // lock | semaphore
	Name   string `json:"name"`
	Weight int64  `json:"weight"`
}

// LockLoss is the data of [LockReclaimed] and [LockForced].
type LockLoss struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	RunID  string `json:"runId"` // of the holder, with its step
	StepID string `json:"stepId"`
	Fence  int64  `json:"fence"`
	Reason string `json:"reason,omitempty" erase:"text"`
}

// QueueChange is the data of the entries about the queue. Tenant "" is the site.
type QueueChange struct {
	Tenant string `json:"tenant,omitempty"`
	Reason string `json:"reason,omitempty" erase:"text"`
}

// ApprovalRequest is the data of [ApprovalRequested]. Its step and attempt are
// the envelope's; a gate that runs nothing counts its requests as attempts.
type ApprovalRequest struct {
	Generation     int              `json:"generation"`
	PlanHash       string           `json:"planHash"`
	Question       string           `json:"question" erase:"text"`
	Options        []ApprovalOption `json:"options"`
	Approvers      []string         `json:"approvers,omitempty"` // principals; none means anybody who may write
	Quorum         int              `json:"quorum"`
	ExcludeStarter bool             `json:"excludeStarter,omitempty"`
	Required       bool             `json:"required,omitempty"` // cannot be skipped by hand
	Expires        string           `json:"expires,omitempty"`
	OutputsHash    string           `json:"outputsHash,omitempty"` // of the action that it follows
}

// ApprovalOption is one answer that is offered.
type ApprovalOption struct {
	Label    string `json:"label"`
	Decision string `json:"decision"` // continue | retry | abort
}

// ApprovalDecision is the data of [ApprovalDecided]; who decided is the actor.
type ApprovalDecision struct {
	Decision      string `json:"decision"`
	Option        string `json:"option,omitempty"`     // label of the option that was chosen
	BackTo        string `json:"backTo,omitempty"`     // of retry: the step to go back to
	Downstream    bool   `json:"downstream,omitempty"` // of retry: with everything that depends on that step
	Repeat        bool   `json:"repeat,omitempty"`     // of retry: also what is not idempotent
	Notes         string `json:"notes,omitempty" erase:"text"`
	Modifications string `json:"modifications,omitempty"` // SHA-256 of the sealed merge patch (RFC 7396)
	PlanHash      string `json:"planHash"`
}

// ApprovalRefusal is the data of [ApprovalRefused].
type ApprovalRefusal struct {
	Decision string `json:"decision"`
	Code     string `json:"code"` // ALREADY_DECIDED | STALE | NOT_APPROVER | STARTER_EXCLUDED | APPROVAL_EXPIRED
	Notes    string `json:"notes,omitempty" erase:"text"`
}

// ApprovalClosing is the data of [ApprovalClosed].
type ApprovalClosing struct {
	Result        string `json:"result"`             // approved | rejected | expired | withdrawn
	Decision      string `json:"decision,omitempty"` // that reached the quorum
	BackTo        string `json:"backTo,omitempty"`
	Downstream    bool   `json:"downstream,omitempty"`
	Modifications string `json:"modifications,omitempty"`
}

// AttemptStart is the data of [AttemptStarted].
type AttemptStart struct {
	Generation int      `json:"generation"`
	Owner      string   `json:"owner"`  // boot id / pid of the executing process
	Tier       string   `json:"tier"`   // ns | landlock | plain
	Plugin     string   `json:"plugin"` // digest of the plugin's manifest
	Entry      string   `json:"entry"`  // SHA-256 of the bytes that run
	InputsHash string   `json:"inputsHash"`
	PlanHash   string   `json:"planHash"`
	Trust      TrustRef `json:"trust"` // under which the plugin was judged again
	Deadline   string   `json:"deadline,omitempty"`
	Locks      []Lock   `json:"locks,omitempty"`   // held until it ends
	Overlay    string   `json:"overlay,omitempty"` // SHA-256 of the merge patch that its parameters went through
	// Secrets are those that it is given, each in the version that was the newest.
	Secrets []SecretUse `json:"secrets,omitempty"`
}

// AttemptEnd is the data of [AttemptEnded].
type AttemptEnd struct {
	Generation   int        `json:"generation"`
	Outcome      string     `json:"outcome"`
	ErrorCode    string     `json:"errorCode,omitempty"`
	Message      string     `json:"message,omitempty" erase:"text"` // masked, at most 1 KiB
	Retryable    bool       `json:"retryable,omitempty"`
	Orderly      bool       `json:"orderly,omitempty"` // interrupted because stella was told to stop
	RetryAfterMs int64      `json:"retryAfterMs,omitempty"`
	ExitCode     *int       `json:"exitCode,omitempty"`
	Signal       string     `json:"signal,omitempty"`
	OutputsHash  string     `json:"outputsHash,omitempty"`
	Artifacts    []Artifact `json:"artifacts,omitempty"`
	Logs         *LogRef    `json:"logs,omitempty"`
	Usage        *Usage     `json:"usage,omitempty"`
	Fences       []Fence    `json:"fences,omitempty"`
	CacheKey     string     `json:"cacheKey,omitempty"`     // under which its outputs are kept
	CacheExpires string     `json:"cacheExpires,omitempty"` // until then
}

// Artifact is a file that an attempt handed over; its bytes are a sealed blob.
type Artifact struct {
	Name      string `json:"name"`
	SHA256    string `json:"sha256"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType,omitempty"`
}

// LogRef names the log segment of one attempt.
type LogRef struct {
	SHA256  string `json:"sha256"` // of the segment file
	Bytes   int64  `json:"bytes"`
	Records int64  `json:"records"`
	Dropped int64  `json:"dropped"` // bytes that the cap cut
}

// Usage is what one attempt consumed.
type Usage struct {
	WallMs   int64 `json:"wallMs"`
	UserMs   int64 `json:"userMs"`
	SystemMs int64 `json:"systemMs"`
	MaxRSS   int64 `json:"maxRssBytes"`
}

// Fence is one fence of an attempt, with an observation that proves its state.
type Fence struct {
	Name  string `json:"name"`
	State string `json:"state"` // active | degraded | unavailable | off
	Proof string `json:"proof,omitempty"`
}
