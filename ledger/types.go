package ledger

import "slices"

// Type names what an entry records. Types reach disk, archives and auditors:
// never change or reuse one. The comment names the data fields, which are the
// JSON fields of the struct of the same name.
type Type string

// Entry types. Those of runs, steps and attempts move the state machine in
// package state; the others describe the site.
const (
	SiteInitialized    Type = "site.initialized"    // SiteInit; always seq 0
	SiteStarted        Type = "site.started"        // SiteStart; each start of something that may execute steps
	SiteStopped        Type = "site.stopped"        // SiteStop; an orderly end
	TrustChanged       Type = "trust.changed"       // TrustChange
	TrustExtended      Type = "trust.extended"      // TrustExtension; break-glass
	ClockAccepted      Type = "clock.accepted"      // ClockAcceptance
	FloorWaived        Type = "floor.waived"        // FloorWaiver
	EpochBegun         Type = "epoch.begun"         // EpochStart; what follows is of another origin
	BundleAdmitted     Type = "bundle.admitted"     // BundleAdmission
	BundleRejected     Type = "bundle.rejected"     // BundleRejection
	BundlesRemembered  Type = "bundles.remembered"  // BundleMemory; of admissions that were lost
	BundlesRejected    Type = "bundles.rejected"    // BundleRejections; what came faster than one entry each
	ImportReceived     Type = "import.received"     // MediaImport; after the entries of the bundles themselves
	GCCompleted        Type = "gc.completed"        // GarbageCollection; on disk before anything is moved away
	ErasureRequested   Type = "erasure.requested"   // ErasureRequest
	DataErased         Type = "data.erased"         // Erasure; on disk before anything is erased
	CheckpointCosigned Type = "checkpoint.cosigned" // Cosigning; what came back from witnesses
	SnapshotCreated    Type = "snapshot.created"    // SnapshotCreation; after it is in its place
	SiteCompacted      Type = "site.compacted"      // Compaction
	ArchiveCreated     Type = "archive.created"     // RunArchive; after the file is whole and on disk, before anything is moved away
	DAGPublished       Type = "dag.published"       // DAGPublication
	WorkspacesRemoved  Type = "workspaces.removed"  // WorkspaceRemoval; after they are gone
	DAGDisabled        Type = "dag.disabled"        // DAGSwitch
	DAGEnabled         Type = "dag.enabled"         // DAGSwitch
	ExportCreated      Type = "export.created"      // ExportCreation
	OutboxDead         Type = "outbox.dead"         // OutboxDeath
	OutboxRequeued     Type = "outbox.requeued"     // OutboxRequeue
	OutboxForgotten    Type = "outbox.forgotten"    // OutboxForget

	QueuePaused   Type = "queue.paused"   // QueueChange; nothing is claimed, starts are accepted
	QueueResumed  Type = "queue.resumed"  // QueueChange; ends a pause, and a drain
	QueueDraining Type = "queue.draining" // QueueChange; no start is accepted, what is open goes on
	LockReclaimed Type = "lock.reclaimed" // LockLoss; the holder had not executed for too long
	LockForced    Type = "lock.forced"    // LockLoss; somebody took it away by hand
	CacheCleared  Type = "cache.cleared"  // CacheClearing

	ScheduleAdded   Type = "schedule.added"   // ScheduleAddition
	SchedulePaused  Type = "schedule.paused"  // ScheduleSwitch
	ScheduleResumed Type = "schedule.resumed" // ScheduleSwitch
	ScheduleRemoved Type = "schedule.removed" // ScheduleSwitch
	ScheduleFired   Type = "schedule.fired"   // ScheduleFiring; after the first entry of the run

	SecretSet     Type = "secret.set"     // SecretChange; its encrypted file is on disk before
	SecretRotated Type = "secret.rotated" // SecretChange; attempts that start from now on get the new version
	SecretRemoved Type = "secret.removed" // SecretRemoval; before its file is

	RunStarted         Type = "run.started"          // RunStart; first entry of a run, freezes the plan
	RunCancelRequested Type = "run.cancel_requested" // Note
	RunAbortRequested  Type = "run.abort_requested"  // Note; like a cancel, at once and without cleanup
	RunFailRequested   Type = "run.fail_requested"   // RunFailing; it ends as failed, whatever its steps do
	RunResumed         Type = "run.resumed"          // Note
	RunTimedOut        Type = "run.timed_out"        // Note; its own deadline has passed
	RunReopened        Type = "run.reopened"         // RunGeneration; a failed run goes on by hand
	RunReset           Type = "run.reset"            // RunGeneration; what was under way counts no more
	RunStuck           Type = "run.stuck"            // Stuckness; nothing has moved for too long
	RunNudged          Type = "run.nudged"           // Nudge; looked at again by hand or by the chain for stuck runs
	RunRestarted       Type = "run.restarted"        // Nudge; attempts under way are stopped and begun again
	RunCompared        Type = "run.compared"         // RunComparison; of a replay that has ended
	RunAttested        Type = "run.attested"         // RunAttestation; after its end, and before the statement leaves
	RunCompleted       Type = "run.completed"        // RunEnd
	RunFailed          Type = "run.failed"           // RunEnd
	RunCancelled       Type = "run.cancelled"        // RunEnd

	StepQueued      Type = "step.queued"      // StepQueue; also a retry, with its due time
	StepSkipped     Type = "step.skipped"     // StepEnd
	StepCompleted   Type = "step.completed"   // StepEnd
	StepFailed      Type = "step.failed"      // StepEnd
	StepCancelled   Type = "step.cancelled"   // StepEnd
	StepExpanded    Type = "step.expanded"    // StepExpansion; for_each has been evaluated
	StepCached      Type = "step.cached"      // CacheHit; done before, in the same way
	StepInvalidated Type = "step.invalidated" // StepInvalidation; pending again
	RepeatWithdrawn Type = "repeat.withdrawn" // Note; of an item: Repeat of what came before holds no more

	SubrunStarted Type = "subrun.started" // SubrunStart; in the transaction of the child's first entry
	SubrunEnded   Type = "subrun.ended"   // SubrunEnd

	ApprovalRequested Type = "approval.requested" // ApprovalRequest
	ApprovalDecided   Type = "approval.decided"   // ApprovalDecision; by one person
	ApprovalRefused   Type = "approval.refused"   // ApprovalRefusal; a decision that did not count
	ApprovalClosed    Type = "approval.closed"    // ApprovalClosing

	AttemptStarted Type = "attempt.started" // AttemptStart; on disk before any process exists
	AttemptEnded   Type = "attempt.ended"   // AttemptEnd
)

// SiteInit is the data of [SiteInitialized].
type SiteInit struct {
	SiteID string            `json:"siteId"` // 32 hex digits
	Keys   map[string]string `json:"keys"`   // purpose → base64 SPKI DER
	Root   string            `json:"root"`   // SHA-256 of root/1.toml
	Policy string            `json:"policy"` // SHA-256 of policy.toml
}

// SiteStart is the data of [SiteStarted].
type SiteStart struct {
	Stella       string `json:"stella"`       // version
	BinarySHA256 string `json:"binarySha256"` // of the running executable
	ConfigSHA256 string `json:"configSha256"` // of site.toml
	BootID       string `json:"bootId"`
	PID          int    `json:"pid"`
	Mode         string `json:"mode"` // daemon | foreground
}

// SiteStop is the data of [SiteStopped].
type SiteStop struct {
	Reason string `json:"reason"`
}

// TrustChange is the data of [TrustChanged]: the digests of all trust files in
// force after the change. Every file is a sealed blob.
type TrustChange struct {
	Root             string   `json:"root"`
	RootVersion      int64    `json:"rootVersion"`
	Policy           string   `json:"policy"`
	PolicySerial     int64    `json:"policySerial"`
	Revocations      string   `json:"revocations,omitempty"`
	RevocationSerial int64    `json:"revocationSerial,omitempty"`
	TrustedRoot      string   `json:"trustedRoot,omitempty"`
	Signatures       []string `json:"signatures"` // SHA-256 of each role signature file, sorted
	Reason           string   `json:"reason"`
}

// Same says whether two changes put the same files in force, for whatever reason.
func (c TrustChange) Same(d TrustChange) bool {
	c.Reason, d.Reason = "", ""
	return slices.Equal(c.Signatures, d.Signatures) && c.Ref() == d.Ref()
}

// Ref is the trust that c puts in force. An extension comes later.
func (c TrustChange) Ref() TrustRef {
	return TrustRef{
		Root: c.Root, RootVersion: c.RootVersion, Policy: c.Policy, PolicySerial: c.PolicySerial,
		Revocations: c.Revocations, RevocationSerial: c.RevocationSerial, TrustedRoot: c.TrustedRoot,
	}
}

// TrustExtension is the data of [TrustExtended]: enough of the root's break_glass
// role decided to go on for a while with what has expired.
type TrustExtension struct {
	File       string   `json:"file"`   // SHA-256 of extension.toml
	Serial     int64    `json:"serial"` // its
	Root       string   `json:"root"`   // digests of the trust files that it extends
	Policy     string   `json:"policy"`
	Until      string   `json:"until"`
	Signatures []string `json:"signatures"` // SHA-256 of each signature file, sorted
	Signers    []string `json:"signers"`    // ids of their keys, sorted
	Reason     string   `json:"reason" erase:"text"`
}

// ClockAcceptance is the data of [ClockAccepted]: somebody typed the time because
// the clock was behind the ledger, or far ahead of it.
type ClockAcceptance struct {
	Before   string `json:"before"`   // time of the last entry
	Accepted string `json:"accepted"` // the typed time
	Clock    string `json:"clock"`    // the machine's
	Reason   string `json:"reason" erase:"text"`
}

// FloorWaiver is the data of [FloorWaived]: a floor outside the ledger was lost, or is
// ahead of a ledger that was restored, and somebody decided to go on without it.
type FloorWaiver struct {
	Floor  string `json:"floor"`          // path of the copy of checkpoint.note, or checkpoint.note
	Fault  string `json:"fault"`          // lost | ahead
	Note   string `json:"note,omitempty"` // that was ahead, without cosignatures
	Reason string `json:"reason" erase:"text"`
}

// EpochStart is the data of [EpochBegun], the first entry of an epoch: the same tree goes on
// under another origin, since entries of the old one that came after the first Size are lost
// or may be. Its seq is Size.
type EpochStart struct {
	Epoch     int64  `json:"epoch"`
	Cause     string `json:"cause"`              // restored | recovered
	OldOrigin string `json:"oldOrigin"`          // of the entries before this one
	Size      int64  `json:"size"`               // entries that were adopted
	Root      string `json:"root"`               // of the tree of these
	Known     string `json:"known,omitempty"`    // the highest checkpoint known of the site, a signed note without cosignatures
	Snapshot  string `json:"snapshot,omitempty"` // id of what was restored
	Evidence  string `json:"evidence,omitempty"` // SHA-256 of the sealed list of what could not be adopted
	Reason    string `json:"reason"`             // it cannot be erased: the entry says what is

	// Entries, by seq, whose data was adopted though the ledger that was there before had
	// erased it: it is erased again.
	Erased []ErasedData `json:"erased,omitempty"`
}

// ErasureRequest is the data of [ErasureRequested]: somebody wants the data lines of entries
// erased, which somebody else must agree to.
type ErasureRequest struct {
	Entries []int64 `json:"entries"` // seqs, ascending, at most [MaxErased]
	Reason  string  `json:"reason"`
}

// Erasure is the data of [DataErased]: somebody else agreed. The data lines of these entries
// leave ledger.db, and are in no archive from now on.
type Erasure struct {
	Request int64        `json:"request"` // seq of the request, or of the beginning of an epoch that had more to erase again
	Entries []ErasedData `json:"entries"` // by seq
}

// ErasedData is an entry whose data is erased, and the SHA-256 of what remains of that in the
// site, which a replay needs (see [Remains]).
type ErasedData struct {
	Seq     int64  `json:"seq"`
	Remains string `json:"remains"`
}

// Cosigning is the data of [CheckpointCosigned]: a checkpoint came back with signatures of
// witnesses, which were verified.
type Cosigning struct {
	Size      int64    `json:"size"` // entries that it covers
	Root      string   `json:"root"`
	Note      string   `json:"note"`      // SHA-256 of the sealed note, with these signatures only
	Witnesses []string `json:"witnesses"` // their keys, name+id+base64
}

// SnapshotCreation is the data of [SnapshotCreated].
type SnapshotCreation struct {
	ID        string `json:"id"`
	Size      int64  `json:"size"` // entries in it
	Root      string `json:"root"` // of their tree
	Files     int64  `json:"files"`
	Bytes     int64  `json:"bytes"`
	Sums      string `json:"sums"`                // SHA-256 of its SHA256SUMS
	Encrypted bool   `json:"encrypted,omitempty"` // to the site's recovery recipients
}

// Compaction is the data of [SiteCompacted]: ledger.db was rewritten without its free pages.
type Compaction struct {
	Before int64 `json:"before"` // bytes
	After  int64 `json:"after"`
}

// RunArchive is the data of [ArchiveCreated]. From this entry on the artifacts and log segments
// in the list may lie in that file only; runs are told apart by what their own entries say.
type RunArchive struct {
	File      string `json:"file"`   // its name in archives/ when it was made
	SHA256    string `json:"sha256"` // of the file
	Bytes     int64  `json:"bytes"`  // of the file
	List      string `json:"list"`   // SHA-256 of the sealed list, which is also the first file in it
	Before    string `json:"before"` // the runs had ended by then
	Runs      int64  `json:"runs"`   // whose artifacts or logs are in it
	Artifacts int64  `json:"artifacts"`
	Logs      int64  `json:"logs"`
	Content   int64  `json:"content"` // bytes, before compression
}

// TrustRef names the trust that a judgement was made under.
type TrustRef struct {
	Root             string `json:"root"`
	RootVersion      int64  `json:"rootVersion"`
	Policy           string `json:"policy"`
	PolicySerial     int64  `json:"policySerial"`
	Revocations      string `json:"revocations,omitempty"`
	RevocationSerial int64  `json:"revocationSerial,omitempty"`
	TrustedRoot      string `json:"trustedRoot,omitempty"`
	Extension        string `json:"extension,omitempty"` // SHA-256 of extension.toml, while one is on record
}

// SignerRef is one signer that a verdict counted.
type SignerRef struct {
	ID        string `json:"id"`               // SHA-256 of the verifying key's SPKI DER
	Publisher string `json:"publisher"`        // policy entry that names it
	Flow      string `json:"flow"`             // key | certificate
	Issuer    string `json:"issuer,omitempty"` // certificate flow
	SAN       string `json:"san,omitempty"`    // certificate flow
	File      string `json:"file"`             // SHA-256 of the signature file
}

// Verdict is the judgement under which a bundle was admitted or an attempt
// allowed. It is part of [BundleAdmission].
type Verdict struct {
	Decision     string      `json:"decision"` // admitted | admitted_under_audit
	Digest       string      `json:"digest"`   // SHA-256 of the manifest
	Kind         string      `json:"kind"`
	Publisher    string      `json:"publisher"`
	Name         string      `json:"name"`
	Version      string      `json:"version"`
	Sequence     int64       `json:"sequence"`
	Threshold    int         `json:"threshold"`
	Signers      []SignerRef `json:"signers"`
	Ignored      []string    `json:"ignored,omitempty"`      // signature ids that no trust file names
	Attestations []string    `json:"attestations,omitempty"` // SHA-256 of each verified attestation file
	Softened     []string    `json:"softened,omitempty"`     // reasons that level audit let pass
	Trust        TrustRef    `json:"trust"`
	TrustedTime  string      `json:"trustedTime,omitempty"` // newest time that a log or TSA vouches for
	Now          string      `json:"now"`                   // the clock that was used
	Checks       []string    `json:"checks"`
}

// BundleAdmission is the data of [BundleAdmitted].
type BundleAdmission struct {
	Verdict       Verdict  `json:"verdict"`
	FileSHA256    string   `json:"fileSha256"` // of the container as read
	FileBytes     int64    `json:"fileBytes"`
	ContentDigest string   `json:"contentDigest"`
	Signatures    []string `json:"signatures"`             // SHA-256 of each sealed signature file
	Attestations  []string `json:"attestations,omitempty"` // SHA-256 of each sealed attestation file
	Epoch         int64    `json:"epoch,omitempty"`        // sequence epoch of the name in the policy
	Blobs         int      `json:"blobs"`                  // files named by the manifest
	Bytes         int64    `json:"bytes"`                  // their size
}

// BundleMemory is the data of [BundlesRemembered]: the ledger that this one has taken the place
// of had admitted these bundles, and their admissions are lost. What is older than they are is
// refused all the same, and so are other bytes under their names; they themselves are not here
// before they are admitted again.
type BundleMemory struct {
	Bundles []RememberedBundle `json:"bundles"` // at most [MaxRemembered]
}

// MaxRemembered bounds how many bundles one entry names.
const MaxRemembered = 100

// RememberedBundle is what counts of an admission that is lost.
type RememberedBundle struct {
	Kind      string `json:"kind"`
	Publisher string `json:"publisher"`
	Name      string `json:"name"`
	Version   string `json:"version"`
	Sequence  int64  `json:"sequence"`
	Epoch     int64  `json:"epoch,omitempty"` // of the sequence
	Digest    string `json:"digest"`
}

// Ref is publisher/name@version.
func (b RememberedBundle) Ref() string { return b.Publisher + "/" + b.Name + "@" + b.Version }

// BundleRejection is the data of [BundleRejected]. It holds no text chosen by
// the sender.
type BundleRejection struct {
	Reason     string `json:"reason"`
	FileSHA256 string `json:"fileSha256"` // over the bytes read up to offset
	Offset     int64  `json:"offset"`
	Digest     string `json:"digest,omitempty"` // of the manifest, where it could be read
}

// BundleRejections is the data of [BundlesRejected]: refusals of a minute in
// which there were too many for an entry each.
type BundleRejections struct {
	Count   int64            `json:"count"`
	Reasons map[string]int64 `json:"reasons"` // reason → how many
	Since   string           `json:"since"`   // when the minute began
}

// MediaImport is the data of [ImportReceived]: what came from outside in one
// go, with the digest of the sealed receipt that lists every file.
type MediaImport struct {
	Receipt     string   `json:"receipt"`                        // SHA-256 of the receipt
	Carrier     string   `json:"carrier,omitempty" erase:"text"` // who brought it, as the importer said
	Media       []Medium `json:"media" erase:"text"`
	Started     string   `json:"started"`
	Ended       string   `json:"ended"`
	Files       int64    `json:"files"`    // bundles that were looked at
	Admitted    int64    `json:"admitted"` // for the first time
	Again       int64    `json:"again"`    // admitted before, and judged anew
	Refused     int64    `json:"refused"`
	Failed      int64    `json:"failed"`  // could not be read or kept
	Skipped     int64    `json:"skipped"` // files that are no bundles
	Bytes       int64    `json:"bytes"`   // that were read of bundles
	Interrupted bool     `json:"interrupted,omitempty"`
}

// Medium is where bundles came from, as far as the machine could tell. Label
// is what somebody called the file system: it proves nothing.
type Medium struct {
	Mount  string `json:"mount,omitempty"`
	Device string `json:"device,omitempty"`
	FSType string `json:"fsType,omitempty"`
	UUID   string `json:"uuid,omitempty"`
	Label  string `json:"label,omitempty"`
}

// GarbageCollection is the data of [GCCompleted]. From this entry on the listed
// blobs are not at the site, until an import brings them again.
type GarbageCollection struct {
	Bundles []string `json:"bundles,omitempty"` // digests of bundles whose contents go; their evidence stays
	Blobs   int64    `json:"blobs"`
	Bytes   int64    `json:"bytes"`
	List    string   `json:"list"` // SHA-256 of the sealed list of blobs
}

// WorkspaceRemoval is the data of [WorkspacesRemoved].
type WorkspaceRemoval struct {
	Count       int64    `json:"count"` // workspaces
	Files       int64    `json:"files"`
	Bytes       int64    `json:"bytes"`
	Runs        []string `json:"runs,omitempty"`        // ids of their runs, sorted, at most 1000
	MoreRuns    int64    `json:"moreRuns,omitempty"`    // beyond those
	OlderThanMs int64    `json:"olderThanMs,omitempty"` // what was asked for
	Failed      int64    `json:"failed,omitempty"`      // workspaces that could not be removed, or not all of them
}

// DAGPublication is the data of [DAGPublished].
type DAGPublication struct {
	DAGID     string `json:"dagId"`
	Version   string `json:"version"`
	Digest    string `json:"digest"` // of the bundle's manifest
	Spec      string `json:"spec"`   // SHA-256 of the spec file
	Publisher string `json:"publisher"`
}

// DAGSwitch is the data of [DAGDisabled] and [DAGEnabled].
type DAGSwitch struct {
	DAGID   string `json:"dagId"`
	Version string `json:"version"`
	Reason  string `json:"reason,omitempty" erase:"text"`
}

// ExportCreation is the data of [ExportCreated].
type ExportCreation struct {
	From     string `json:"from"`
	To       string `json:"to"`
	FirstSeq int64  `json:"firstSeq"`
	Count    int64  `json:"count"`
	TreeSize int64  `json:"treeSize"`
	Root     string `json:"root"`
	Manifest string `json:"manifest"` // SHA-256 of manifest.json
	SHA256   string `json:"sha256"`   // of the archive
	Withheld int64  `json:"withheld"`
}
