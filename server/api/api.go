// Package api is what stella's commands and its HTTP API say to a site: one
// small interface a noun, the shapes that pass through them, and the error that
// all of them return. The engine that holds a site and the client of its socket
// both satisfy [Site], so a command works the same way with and without a
// daemon. It holds no behaviour.
package api

import (
	"context"
	"encoding/json"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Principal is who asks. The name is what the ledger records as actor:
// uid:N(name), token:ID, cert:SAN, schedule:NAME or system:COMPONENT.
type Principal struct {
	Name   string
	Tenant string
}

// Site is everything that can be asked of a site by one principal in one
// tenant.
type Site interface {
	Bundles
	Trust
	DAGs
	Schedules
	Runs
	Recovery
	Approvals
	Artifacts
	Attestations
	Sessions
	Outbox
	Workspaces
	Secrets
	Planning
	Queue
	Locks
	Cache
	Ledger
	Exports
	Maintenance
	Host
}

// Progress receives how far long work has come, in units of its own; total is 0
// when it is not known. It may be nil.
type Progress func(done, total int64)

// Bundles is the door and the sealed store.
type Bundles interface {
	// ImportBundle judges the file and seals what it admits. A refusal is an
	// *[Error] with Refusal set.
	ImportBundle(ctx context.Context, req ImportRequest, p Progress) (ImportResult, error)
	// ImportMedia imports all bundles in files and folders. That some are
	// refused is no error. watch is told how far it is and what comes of each;
	// it may be nil.
	ImportMedia(ctx context.Context, req MediaRequest, watch func(MediaEvent)) (MediaReport, error)
	// VerifyBundle judges the file as an import would, and keeps nothing.
	VerifyBundle(ctx context.Context, req VerifyRequest, p Progress) (ledger.Verdict, error)
	// AuditStorage hashes everything sealed, and reports all that differs from
	// what the ledger names.
	AuditStorage(ctx context.Context, p Progress) (AuditReport, error)
	// CollectGarbage gives up what nothing needs.
	CollectGarbage(ctx context.Context, req GCRequest, p Progress) (GCReport, error)
	ListBundles(ctx context.Context, q BundleQuery) ([]Bundle, error)
	// ShowBundle takes a digest, a unique prefix of one of at least 8 digits,
	// or publisher/name@version.
	ShowBundle(ctx context.Context, ref string) (BundleDetail, error)
}

// DAGs are the published DAG versions.
type DAGs interface {
	// PublishDAG makes the DAG of an admitted bundle startable, after checking
	// that everything it names is here.
	PublishDAG(ctx context.Context, ref string) (DAG, error)
	ListDAGs(ctx context.Context, q DAGQuery) ([]DAG, error)
	// ShowDAG takes the highest enabled version when version is empty.
	ShowDAG(ctx context.Context, id, version string) (DAGDetail, error)
	// DisableDAG keeps a version from being started, until EnableDAG. What is
	// so already is no error; runs under way go on.
	DisableDAG(ctx context.Context, id, version string, req DAGSwitch) (DAGSwitched, error)
	EnableDAG(ctx context.Context, id, version string, req DAGSwitch) (DAGSwitched, error)
}

// Runs are started, watched and ended here.
type Runs interface {
	StartRun(ctx context.Context, req StartRequest) (StartResult, error)
	ListRuns(ctx context.Context, q RunQuery) (RunPage, error)
	GetRun(ctx context.Context, id string) (RunDetail, error)
	// RunOverview is GetRun with the steps that matter now, of a large run only
	// those: what does something, waits for people or has failed, at most 200.
	RunOverview(ctx context.Context, id string) (RunDetail, error)
	InspectRun(ctx context.Context, id string) (RunInspection, error)
	// RunLogs calls f for each stored line, oldest first within an attempt.
	RunLogs(ctx context.Context, q LogQuery, f func(LogLine) error) error
	CancelRun(ctx context.Context, id, reason string) (state.Run, error)
	// TryCancelRun says what CancelRun would do.
	TryCancelRun(ctx context.Context, id, reason string) (Recovered, error)
	// ReplayRun runs again what an ended run has run, and compares every output
	// when that has ended.
	ReplayRun(ctx context.Context, id string, req ReplayRequest) (StartResult, error)
	// ResumeRun lets an interrupted run go on; id "" means all open runs.
	ResumeRun(ctx context.Context, id string) ([]state.Run, error)
	// WaitRun returns when the run has ended, with its last state.
	WaitRun(ctx context.Context, id string) (state.Run, error)
}

// Ledger is the append-only record.
type Ledger interface {
	TailLedger(ctx context.Context, q LedgerQuery) ([]LedgerLine, error)
	ShowLedger(ctx context.Context, seq int64) (LedgerLine, error)
	// VerifyLedger reads all of ledger.db again; in full it also replays it, and hashes what is sealed.
	VerifyLedger(ctx context.Context, req LedgerCheck, p Progress) (LedgerReport, error)
	// Checkpoint issues a signed tree head if the tree has grown, and returns
	// the newest.
	Checkpoint(ctx context.Context) (CheckpointNote, error)
	// ProveEntry returns an inclusion proof as a C2SP tlog-proof file, in the newest tree or
	// in one of so many entries of which there is a checkpoint.
	ProveEntry(ctx context.Context, seq, to int64) ([]byte, error)
	// TakeCosigned takes in a checkpoint that has come back from witnesses.
	TakeCosigned(ctx context.Context, req CosignedRequest) (CosignedNote, error)
	// Cosigned is the newest one that was taken in.
	Cosigned(ctx context.Context) (CosignedNote, error)
	// EraseData asks for the erasure of what people have said in entries, or agrees to
	// what somebody else has asked for.
	EraseData(ctx context.Context, req ErasureRequest) (ErasureReport, error)
	// ProveConsistency proves that a checkpoint extends the tree of the first
	// size entries: the one of a tree of to entries, with 0 the newest.
	ProveConsistency(ctx context.Context, size, to int64) (ConsistencyProof, error)
}

// Maintenance is what keeps a site that lasts.
type Maintenance interface {
	// CreateSnapshot copies the site while it is in use.
	CreateSnapshot(ctx context.Context, req SnapshotRequest, p Progress) (Snapshot, error)
	// ListSnapshots lists those in a folder, oldest first; "" is snapshots/ of the home.
	ListSnapshots(ctx context.Context, dir string) ([]Snapshot, error)
	// ArchiveRuns moves what ended runs have left into archives, and out of the home's way.
	ArchiveRuns(ctx context.Context, req ArchiveRequest, p Progress) (ArchiveReport, error)
	// ListArchives lists the archives of runs on record, oldest first.
	ListArchives(ctx context.Context) ([]Archive, error)
}

// Exports are archives of evidence.
type Exports interface {
	CreateExport(ctx context.Context, req ExportRequest, p Progress) (ExportResult, error)
	ListExports(ctx context.Context) ([]ExportResult, error)
}

// Host is the process that holds the site.
type Host interface {
	Status(ctx context.Context) (SiteStatus, error)
	// Stop asks the daemon to end: attempts are waited for, or with force
	// interrupted.
	Stop(ctx context.Context, force bool) error
}

// ImportRequest names a bundle by a path that the holder of the site can read.
type ImportRequest struct {
	Path string `json:"path"`
	Kind string `json:"kind,omitempty"` // only a bundle of this kind; "" for any
	// Publishable admits a DAG only if it could be published now.
	Publishable bool `json:"publishable,omitempty"`
}

// ImportResult is what an import did.
type ImportResult struct {
	Verdict ledger.Verdict `json:"verdict"`
	Already bool           `json:"already"` // the digest was admitted before, and was judged anew
	Seq     int64          `json:"seq"`     // of the admission's entry
	Bytes   int64          `json:"bytes"`   // of the container

	TrustChanged bool            `json:"trustChanged,omitempty"` // what a trust bundle brought is in force now
	Warnings     []string        `json:"warnings,omitempty"`     // what is about to end of the trust in force, and what waits to be erased
	Refused      []RefusedBundle `json:"refused,omitempty"`      // admitted bundles that a trust bundle refuses from now on
	Ended        int             `json:"ended,omitempty"`        // attempts under way that it ended
}

// VerifyRequest asks for a judgement without an import. AsOf, in the form of
// package stamp, replaces the clock.
type VerifyRequest struct {
	Path string `json:"path"`
	AsOf string `json:"asOf,omitempty"`
}

// BundleQuery narrows a list; zero fields do not.
type BundleQuery struct {
	Kind      string `json:"kind,omitempty"`
	Publisher string `json:"publisher,omitempty"`
	Name      string `json:"name,omitempty"`
}

// Bundle is one admitted bundle.
type Bundle struct {
	Digest      string `json:"digest"`
	Kind        string `json:"kind"`
	Publisher   string `json:"publisher"`
	Name        string `json:"name"`
	Version     string `json:"version"`
	Sequence    int64  `json:"sequence"`
	Decision    string `json:"decision"`
	AdmittedUTC string `json:"admittedUtc"` // for the first time
	FirstSeq    int64  `json:"firstSeq"`    // of that admission
	JudgedUTC   string `json:"judgedUtc"`   // when it was imported last
	Seq         int64  `json:"seq"`         // of that admission, which Decision is of
	Bytes       int64  `json:"bytes"`
	Removed     int64  `json:"removed,omitempty"` // the entry by which the contents were given up
	// Now is ok where the trust in force still admits the bundle, else the reason
	// for which it does not. The evidence is judged anew for each answer.
	Now string `json:"now"`
}

// BundleOK is [Bundle.Now] of a bundle that may be used.
const BundleOK = "ok"

// BundleDetail is an admitted bundle with its evidence.
type BundleDetail struct {
	Bundle
	Admission ledger.BundleAdmission `json:"admission"`
	Report    *Report                `json:"report,omitempty"` // the judgement behind Now, check by check
	Manifest  string                 `json:"manifest"`         // the exact text
	Files     []BundleFile           `json:"files"`
}

// BundleFile is one file of a bundle.
type BundleFile struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	Mode   string `json:"mode"`
}

// DAG is one published DAG version.
type DAG struct {
	DAGID        string `json:"dagId"`
	Version      string `json:"version"`
	Digest       string `json:"digest"`
	Publisher    string `json:"publisher"`
	Description  string `json:"description,omitempty"`
	Enabled      bool   `json:"enabled"`
	PublishedUTC string `json:"publishedUtc"`
	Seq          int64  `json:"seq"`
	SwitchedUTC  string `json:"switchedUtc,omitempty"` // when it was disabled or enabled last
	SwitchedBy   string `json:"switchedBy,omitempty"`
	SwitchReason string `json:"switchReason,omitempty"`
}

// DAGDetail is a DAG version with its text.
type DAGDetail struct {
	DAG
	Spec string `json:"spec"`
}

// StartRequest is a start of a run. Inputs is a JSON object; empty means {}.
type StartRequest struct {
	DAGID    string            `json:"dagId"`
	Version  string            `json:"version,omitempty"` // "" takes the highest enabled one
	Inputs   json.RawMessage   `json:"inputs,omitempty"`
	RunToken string            `json:"runToken,omitempty"` // "" makes one
	Metadata map[string]string `json:"metadata,omitempty"`
	TraceID  string            `json:"traceId,omitempty"`  // "" makes one
	Priority int64             `json:"priority,omitempty"` // higher is served first; -1000000 to 1000000
}

// ReplayRequest asks for a replay, and says why.
type ReplayRequest struct {
	Rationale string `json:"rationale"`
	Repeat    bool   `json:"repeat,omitempty"` // also what is not idempotent
	DryRun    bool   `json:"dryRun,omitempty"` // show what would run, and start nothing
}

// ReplayStep is what a replay does with one step of the run.
type ReplayStep struct {
	StepID string       `json:"stepId"`
	Runs   string       `json:"runs"`           // what: an action, a sub-run, or an approval
	Was    state.Status `json:"was"`            // in the run that is replayed
	Begun  bool         `json:"begun"`          // whether it had done something there
	Once   []string     `json:"once,omitempty"` // what of it is not idempotent
}

// StartResult is a run and whether it was there before.
type StartResult struct {
	Run      state.Run    `json:"run"` // with DryRun the one that would be replayed
	Replayed bool         `json:"replayed"`
	DryRun   bool         `json:"dryRun,omitempty"`
	Steps    []ReplayStep `json:"steps,omitempty"` // of a replay that is only tried
}

// RunQuery narrows and pages a list of runs, newest first.
type RunQuery struct {
	Active    bool   `json:"active,omitempty"`
	DAGID     string `json:"dagId,omitempty"`
	Status    string `json:"status,omitempty"`
	PageSize  int    `json:"pageSize,omitempty"` // default 50, at most 500
	PageToken string `json:"pageToken,omitempty"`
}

// RunPage is one page of runs; NextPageToken is empty on the last.
type RunPage struct {
	Runs          []state.Run `json:"runs"`
	NextPageToken string      `json:"nextPageToken,omitempty"`
}

// RunDetail is a run with all steps of its plan, in topological order.
type RunDetail struct {
	state.Run
	StepList []StepInfo `json:"stepList"`
	LeftOut  int        `json:"leftOut,omitempty"` // steps that an overview does not list
	Parent   *Parent    `json:"parent,omitempty"`  // of a sub-run
	Damage   string     `json:"damage,omitempty"`  // what of it cannot be read, and what helps
}

// Parent is the run, and its step, that has started a sub-run.
type Parent struct {
	RunID      string       `json:"runId"`
	Status     state.Status `json:"status"`
	StepID     string       `json:"stepId"`
	StepStatus state.Status `json:"stepStatus"`
	Waits      bool         `json:"waits"`          // the step waits for the end of the sub-run
	Note       string       `json:"note,omitempty"` // where it does not: what that means, and the command for the parent
}

// StepInfo is a step with what the plan says of it.
type StepInfo struct {
	state.Step
	Needs   []string `json:"needs,omitempty"`
	Action  string   `json:"action,omitempty"`
	Waiting string   `json:"waiting,omitempty"` // what it waits for, in words
	GivenUp string   `json:"givenUp,omitempty"` // sub-run that it has given up, and whose end its run waits for
}

// RunInspection is the whole story of one run.
type RunInspection struct {
	Run      state.Run             `json:"run"`
	Steps    []StepInfo            `json:"stepList"`
	Attempts []state.Attempt       `json:"attempts"`
	Entries  []LedgerLine          `json:"entries"`
	Plan     json.RawMessage       `json:"plan"`
	Inputs   json.RawMessage       `json:"inputs"`
	Outputs  json.RawMessage       `json:"outputs,omitempty"`
	Executed bool                  `json:"executed"`         // somebody is executing it now
	Spec     string                `json:"spec"`             // of the DAG version, exactly
	Bundles  []UsedBundle          `json:"bundles"`          // what it and its sub-runs are made of, as the trust in force sees it
	Children []state.Run           `json:"children"`         // sub-runs that its steps have started, oldest first
	Parent   *Parent               `json:"parent,omitempty"` // of a sub-run
	Damage   string                `json:"damage,omitempty"` // what of it cannot be read, and what helps
	Replay   *ledger.RunComparison `json:"replay,omitempty"` // of a replay that has ended
	// Given is what people have given by hand and entries name by its SHA-256: patches,
	// and outputs that stand for a step's own.
	Given map[string]json.RawMessage `json:"given,omitempty"`
}

// UsedBundle is a bundle that a plan names, with the verdict under which it was
// admitted last, and what the trust in force says of it now.
type UsedBundle struct {
	Ref      string   `json:"ref"` // publisher/name@version
	Kind     string   `json:"kind"`
	Digest   string   `json:"digest"`
	Steps    []string `json:"steps,omitempty"` // that it runs in, or is seen by; those of a sub-run as STEP/STEP
	Decision string   `json:"decision"`
	Signers  []string `json:"signers"` // ids of keys that counted
	Now      string   `json:"now"`     // ok, or the reason for which it may not be used
}

// LogQuery chooses log lines of a run; zero fields do not narrow.
type LogQuery struct {
	RunID   string `json:"runId"`
	StepID  string `json:"stepId,omitempty"`
	Attempt int    `json:"attempt,omitempty"`
	Follow  bool   `json:"follow,omitempty"` // go on until the run has ended
}

// LogLine is one stored line of output.
type LogLine struct {
	Time    string `json:"time"`
	StepID  string `json:"stepId"`
	Attempt int    `json:"attempt"`
	Seq     int64  `json:"seq"`    // of the line within its attempt, from 0
	Stream  string `json:"stream"` // stdout | stderr
	Text    string `json:"text"`
}

// LedgerQuery chooses entries. With Last they are the newest ones, oldest
// first; else those from From on.
type LedgerQuery struct {
	From  int64  `json:"from,omitempty"`
	Last  bool   `json:"last,omitempty"`
	Limit int    `json:"limit,omitempty"` // default 20, at most 1000
	Type  string `json:"type,omitempty"`
	RunID string `json:"runId,omitempty"`
}

// LedgerLine is one entry: its two exact lines. Data is empty when it was
// erased.
type LedgerLine struct {
	Seq      int64           `json:"seq"`
	Envelope json.RawMessage `json:"envelope"`
	Data     json.RawMessage `json:"data,omitempty"` // absent where it was erased
}

// LedgerCheck says how deep a ledger is verified.
type LedgerCheck struct {
	Full bool `json:"full,omitempty"` // also that records follow from entries, and what is sealed
}

// LedgerReport is what a verification of the whole ledger found.
type LedgerReport struct {
	Origin      string `json:"origin"`
	Size        int64  `json:"size"`
	Root        string `json:"root"` // hex
	Checkpoints int    `json:"checkpoints"`
	Full        bool   `json:"full,omitempty"`
	Runs        int    `json:"runs"`
	Blobs       int    `json:"blobs,omitempty"` // sealed files that were hashed, in full
	Millis      int64  `json:"millis"`

	Away    []AwayArchive `json:"away,omitempty"`    // archives of runs that are not here, and could not be looked into
	Spoiled []string      `json:"spoiled,omitempty"` // what is wrong with files in archives/ of which there is a whole copy
}

// CheckpointNote is a signed tree head.
type CheckpointNote struct {
	Size int64  `json:"size"`
	Root string `json:"root"` // hex
	Note string `json:"note"` // the signed note, exactly
	New  bool   `json:"new"`
}

// ConsistencyProof shows that one tree extends another. Hashes are hex.
type ConsistencyProof struct {
	OldSize int64    `json:"oldSize"`
	OldRoot string   `json:"oldRoot"`
	Size    int64    `json:"size"`
	Root    string   `json:"root"`
	Proof   []string `json:"proof"`
	Note    string   `json:"note"`
}

// SiteStatus is the state of a site.
type SiteStatus struct {
	SiteID     string          `json:"siteId"`
	FleetID    string          `json:"fleetId"`
	Epoch      int64           `json:"epoch"`
	Home       string          `json:"home"`
	Version    string          `json:"version"`
	Mode       string          `json:"mode"` // daemon | foreground | command
	PID        int             `json:"pid"`
	StartedUTC string          `json:"startedUtc"`
	Tier       string          `json:"tier"`
	AllowPlain bool            `json:"allowPlain"`
	Workers    int             `json:"workers"`
	ActiveRuns int             `json:"activeRuns"`
	Queued     int             `json:"queued"`
	Executing  int             `json:"executing"`         // attempts under way
	Opening    bool            `json:"opening,omitempty"` // a daemon that has not taken up yet what is open
	Entries    int64           `json:"entries"`
	Checkpoint int64           `json:"checkpoint"` // size of the newest signed tree head
	Bundles    int             `json:"bundles"`
	DAGs       int             `json:"dags"`
	StoreBytes int64           `json:"storeBytes"`
	Trust      ledger.TrustRef `json:"trust"`
	Disk       Disk            `json:"disk"`
	Refuses    *Error          `json:"refuses,omitempty"` // why nothing is accepted; nil where something is
	Warnings   []string        `json:"warnings,omitempty"`
}

// Disk is the room on the disk of a home, in bytes.
type Disk struct {
	Free     int64 `json:"freeBytes"`
	Reserved int64 `json:"reservedBytes"` // of it, for the ledger: less than that, and nothing is imported
}
