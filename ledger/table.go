package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/stellarun/stella/internal/jcs"
)

// TypeInfo describes one type of entry.
type TypeInfo struct {
	Type    Type
	Version int          // schema version that new entries carry
	Doc     string       // what such an entry records, one line
	data    reflect.Type // the struct of its data
}

// New returns a pointer to a zero struct of the type's data.
func (i TypeInfo) New() any { return reflect.New(i.data).Interface() }

// table is the one list of all types. A new version of a type may only add
// fields that are omitted when absent, so that one struct decodes all versions.
var table = [...]TypeInfo{
	{SiteInitialized, 1, "The site came to be: its id, keys and first trust. Always the first entry.", reflect.TypeFor[SiteInit]()},
	{SiteStarted, 1, "Something that may execute steps started: which program, which configuration.", reflect.TypeFor[SiteStart]()},
	{SiteStopped, 1, "An orderly end of what site.started began.", reflect.TypeFor[SiteStop]()},
	{TrustChanged, 1, "Root, policy, revocations or trusted root changed; the digests of all that are now in force.", reflect.TypeFor[TrustChange]()},
	{TrustExtended, 1, "Trust that has expired goes on for a while: break-glass, by enough of the root's role.", reflect.TypeFor[TrustExtension]()},
	{ClockAccepted, 1, "The clock was behind the ledger or far ahead of it, and somebody typed the time.", reflect.TypeFor[ClockAcceptance]()},
	{FloorWaived, 1, "A floor outside the ledger was lost or is ahead of it, and somebody decided to go on without it.", reflect.TypeFor[FloorWaiver]()},
	{EpochBegun, 1, "The ledger goes on under another origin after it was restored or recovered.", reflect.TypeFor[EpochStart]()},
	{BundleAdmitted, 1, "A bundle was judged and let in, with the verdict.", reflect.TypeFor[BundleAdmission]()},
	{BundlesRemembered, 1, "Admissions were lost with the ledger that was there before; their sequences and references hold.", reflect.TypeFor[BundleMemory]()},
	{BundleRejected, 1, "A bundle was judged and refused, with the reason.", reflect.TypeFor[BundleRejection]()},
	{BundlesRejected, 1, "Bundles were refused faster than one entry each.", reflect.TypeFor[BundleRejections]()},
	{ImportReceived, 1, "A medium was imported: what came of each file is in the sealed receipt.", reflect.TypeFor[MediaImport]()},
	{GCCompleted, 1, "Blobs that nothing needs were given up, and contents of superseded bundles if that was asked for.", reflect.TypeFor[GarbageCollection]()},
	{ErasureRequested, 1, "Somebody wants what people have said in entries erased; somebody else must agree.", reflect.TypeFor[ErasureRequest]()},
	{DataErased, 1, "Somebody else agreed: the data lines of these entries are erased. Their envelopes stay.", reflect.TypeFor[Erasure]()},
	{CheckpointCosigned, 1, "A checkpoint came back with signatures of witnesses.", reflect.TypeFor[Cosigning]()},
	{SnapshotCreated, 1, "A copy of the site was made, whole and checked.", reflect.TypeFor[SnapshotCreation]()},
	{SiteCompacted, 1, "ledger.db was rewritten without its free pages.", reflect.TypeFor[Compaction]()},
	{ArchiveCreated, 1, "What ended runs have left was written to an archive and read back; the originals go.", reflect.TypeFor[RunArchive]()},
	{WorkspacesRemoved, 1, "Workspaces of attempts whose runs have ended were removed.", reflect.TypeFor[WorkspaceRemoval]()},
	{DAGPublished, 1, "A version of a DAG can be started from now on.", reflect.TypeFor[DAGPublication]()},
	{DAGDisabled, 1, "A version of a DAG cannot be started any more; runs of it that are under way go on.", reflect.TypeFor[DAGSwitch]()},
	{DAGEnabled, 1, "A version of a DAG that was disabled can be started again.", reflect.TypeFor[DAGSwitch]()},
	{ExportCreated, 1, "An archive left the site.", reflect.TypeFor[ExportCreation]()},
	{OutboxDead, 1, "A sink of the outbox was given an event as often as it may be; it is set aside.", reflect.TypeFor[OutboxDeath]()},
	{OutboxRequeued, 1, "Somebody has events of the outbox delivered again.", reflect.TypeFor[OutboxRequeue]()},
	{OutboxForgotten, 1, "A sink that is configured no more was given up, with what it had not taken.", reflect.TypeFor[OutboxForget]()},
	{QueuePaused, 1, "Nothing is claimed any more, of one tenant or of all; starts are accepted.", reflect.TypeFor[QueueChange]()},
	{QueueResumed, 1, "A pause or a drain of the queue has ended.", reflect.TypeFor[QueueChange]()},
	{QueueDraining, 1, "No start is accepted any more; what is open goes on.", reflect.TypeFor[QueueChange]()},
	{LockReclaimed, 1, "A lock was taken from a holder that had not executed for too long.", reflect.TypeFor[LockLoss]()},
	{LockForced, 1, "Somebody took a lock from its holder by hand.", reflect.TypeFor[LockLoss]()},
	{CacheCleared, 1, "Somebody emptied the cache, or the part of it that is one DAG's.", reflect.TypeFor[CacheClearing]()},
	{ScheduleAdded, 1, "A DAG is started again and again from now on, at instants that the entry gives.", reflect.TypeFor[ScheduleAddition]()},
	{SchedulePaused, 1, "A schedule starts nothing until it is resumed.", reflect.TypeFor[ScheduleSwitch]()},
	{ScheduleResumed, 1, "A schedule that was paused starts runs again; what fell into the pause is not made up for.", reflect.TypeFor[ScheduleSwitch]()},
	{ScheduleRemoved, 1, "A schedule is no more.", reflect.TypeFor[ScheduleSwitch]()},
	{ScheduleFired, 1, "An instant of a schedule has come: the run that it started, or why it, or several, started none.", reflect.TypeFor[ScheduleFiring]()},
	{SecretSet, 1, "A secret came to be. The value is in no entry, nor are its length or hash.", reflect.TypeFor[SecretChange]()},
	{SecretRotated, 1, "A secret has a new version: attempts that start from now on get it.", reflect.TypeFor[SecretChange]()},
	{SecretRemoved, 1, "A version of a secret was removed.", reflect.TypeFor[SecretRemoval]()},
	{RunStarted, 1, "A run was accepted and its plan frozen. The first entry of a run.", reflect.TypeFor[RunStart]()},
	{RunCancelRequested, 1, "Somebody asked for the end of a run.", reflect.TypeFor[Note]()},
	{RunAbortRequested, 1, "Somebody asked for the end of a run at once, without cleanup.", reflect.TypeFor[Note]()},
	{RunFailRequested, 1, "A run is to end as failed: by hand, because it was stuck, for too many entries, or for its outputs.", reflect.TypeFor[RunFailing]()},
	{RunResumed, 1, "A run goes on after the program that executed it ended.", reflect.TypeFor[Note]()},
	{RunTimedOut, 1, "The deadline of a run has passed: nothing ordinary starts any more.", reflect.TypeFor[Note]()},
	{RunReopened, 1, "A failed run goes on by hand, in a new generation.", reflect.TypeFor[RunGeneration]()},
	{RunReset, 1, "A run was reset by hand: what was under way counts no more.", reflect.TypeFor[RunGeneration]()},
	{RunStuck, 1, "Nothing has moved in a run for too long.", reflect.TypeFor[Stuckness]()},
	{RunNudged, 1, "A run was looked at again: waiting times are over.", reflect.TypeFor[Nudge]()},
	{RunRestarted, 1, "Attempts of a run were stopped to be begun again.", reflect.TypeFor[Nudge]()},
	{RunCompared, 1, "A replay has ended, and its outputs were compared with the first run's.", reflect.TypeFor[RunComparison]()},
	{RunAttested, 1, "A signed statement about a completed run has left the site: what it was made of, and what became of it.", reflect.TypeFor[RunAttestation]()},
	{RunCompleted, 1, "A run ended well.", reflect.TypeFor[RunEnd]()},
	{RunFailed, 1, "A run failed, and why.", reflect.TypeFor[RunEnd]()},
	{RunCancelled, 1, "A run ended because somebody asked for it.", reflect.TypeFor[RunEnd]()},
	{StepQueued, 1, "A step may be claimed, at once or from a due time on; also for a further attempt.", reflect.TypeFor[StepQueue]()},
	{StepSkipped, 1, "A step will not run, and why.", reflect.TypeFor[StepEnd]()},
	{StepCompleted, 1, "A step ended well.", reflect.TypeFor[StepEnd]()},
	{StepFailed, 1, "A step failed, and why.", reflect.TypeFor[StepEnd]()},
	{StepCancelled, 1, "A step ended because somebody asked for the end of its run.", reflect.TypeFor[StepEnd]()},
	{StepExpanded, 1, "The items of a step were counted; each is a step id.N of its own.", reflect.TypeFor[StepExpansion]()},
	{StepCached, 1, "A step had been done before with the same inputs; its outputs are taken from the cache.", reflect.TypeFor[CacheHit]()},
	{StepInvalidated, 1, "What became of a step counts no more; it is pending again.", reflect.TypeFor[StepInvalidation]()},
	{RepeatWithdrawn, 1, "What somebody had said of an item, that it may do twice what it has done, holds no more.", reflect.TypeFor[Note]()},
	{SubrunStarted, 1, "A step started a run of another DAG. In the transaction of that run's first entry.", reflect.TypeFor[SubrunStart]()},
	{SubrunEnded, 1, "The run that a step had started has ended.", reflect.TypeFor[SubrunEnd]()},
	{ApprovalRequested, 1, "A step waits for people.", reflect.TypeFor[ApprovalRequest]()},
	{ApprovalDecided, 1, "One person has decided.", reflect.TypeFor[ApprovalDecision]()},
	{ApprovalRefused, 1, "A decision came too late, was about something else, or was not this person's to make.", reflect.TypeFor[ApprovalRefusal]()},
	{ApprovalClosed, 1, "An approval is closed: enough people agreed, or its time was over.", reflect.TypeFor[ApprovalClosing]()},
	{AttemptStarted, 1, "An attempt is about to start. On disk before any process exists.", reflect.TypeFor[AttemptStart]()},
	{AttemptEnded, 1, "An attempt ended, and how.", reflect.TypeFor[AttemptEnd]()},
}

// Types lists all types of entries, in the order of their documentation.
func Types() []TypeInfo { return slices.Clone(table[:]) }

// Known says whether this version of stella writes and reads entries of type t.
func Known(t Type) bool {
	_, ok := lookup(t)
	return ok
}

// Known says whether this version of stella reads the type of an entry in its version. A
// version that it does not know may mean anything, though the type has the same name.
func (e *Envelope) Known() bool {
	info, ok := lookup(e.Type)
	return ok && e.V <= info.Version
}

func lookup(t Type) (TypeInfo, bool) {
	for i := range table {
		if table[i].Type == t {
			return table[i], true
		}
	}
	return TypeInfo{}, false
}

// DecodeData returns a pointer to the struct of t that raw, the data of a
// [DataLine], encodes. Fields that the struct does not have, fields that it
// demands and raw lacks, and every encoding but the canonical one are refused
// as a *[FormError]; a type that is not [Known] is [ErrUnknownType].
func DecodeData(t Type, raw json.RawMessage) (any, error) {
	info, ok := lookup(t)
	if !ok {
		return nil, fmt.Errorf("ledger: %q: %w", string(t), ErrUnknownType)
	}
	data := info.New()
	if err := decode("data of "+string(t), raw, data); err != nil {
		return nil, err
	}
	return data, nil
}

// Encoded is the data of an entry together with its canonical encoding, for who
// makes that before it is [Seal]'s turn: entries are written one after the other,
// their data can be encoded at the same time.
type Encoded struct {
	Data any // as given
	raw  []byte
	of   Type
}

// Encode encodes data for an entry of type t; see [Seal].
func Encode(t Type, data any) (Encoded, error) {
	info, ok := lookup(t)
	if !ok {
		return Encoded{}, fmt.Errorf("ledger: %q: %w", string(t), ErrUnknownType)
	}
	raw, err := encodeData(info, data)
	return Encoded{Data: data, raw: raw, of: t}, err
}

// encodeData returns the canonical encoding of data, which must be of the
// struct of info or a pointer to it. Nil stands for the zero struct, for types
// whose fields may all be absent.
func encodeData(info TypeInfo, data any) ([]byte, error) {
	if e, ok := data.(Encoded); ok && e.of == info.Type {
		return e.raw, nil
	}
	if data == nil {
		data = info.New()
		if raw, err := jcs.Marshal(data); err != nil || string(raw) != "{}" {
			return nil, fmt.Errorf("ledger: %s without data", info.Type)
		}
	}
	got := reflect.TypeOf(data)
	if got != info.data && (got.Kind() != reflect.Pointer || got.Elem() != info.data) {
		return nil, fmt.Errorf("ledger: data of %s is %T, not %s", info.Type, data, info.data)
	}
	raw, err := jcs.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("ledger: data of %s: %w", info.Type, err)
	}
	if raw[0] != '{' {
		return nil, fmt.Errorf("ledger: data of %s is a nil %T", info.Type, data)
	}
	return raw, nil
}

// decode fills v, a pointer to a struct, from raw if raw is the canonical
// encoding of what v then is. That one test refuses unknown and missing
// fields, other spellings of a field, duplicates, null and white space.
func decode(what string, raw []byte, v any) error {
	if err := json.Unmarshal(raw, v); err != nil {
		return &FormError{What: what, Err: err}
	}
	again, err := jcs.Marshal(v)
	if err != nil {
		return &FormError{What: what, Err: err}
	}
	if bytes.Equal(raw, again) {
		return nil
	}
	if err := jcs.Check(raw); err != nil {
		return &FormError{What: what, Err: err}
	}
	return &FormError{What: what, Err: errFields}
}
