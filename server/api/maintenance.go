package api

import "encoding/json"

// SnapshotRequest asks for a copy of the site.
type SnapshotRequest struct {
	Dir    string `json:"dir,omitempty"`    // folder that gets it, absolute; "" is snapshots/ of the home
	DryRun bool   `json:"dryRun,omitempty"` // only say how large it becomes
}

// Snapshot is a copy of the site at one moment, without its keys.
type Snapshot struct {
	ID       string `json:"id,omitempty"` // absent of one that was not made
	Path     string `json:"path"`         // its folder, or file; of one that would be made where it would go
	Origin   string `json:"origin"`
	Size     int64  `json:"size"`           // entries
	Root     string `json:"root,omitempty"` // of their tree, hex
	LastTime string `json:"lastTime"`       // of the last entry
	Created  string `json:"created,omitempty"`
	Stella   string `json:"stella,omitempty"`
	Files    int64  `json:"files,omitempty"`
	Bytes    int64  `json:"bytes"`
	Seq      int64  `json:"seq,omitempty"` // of the entry, of one that was made now
	DryRun   bool   `json:"dryRun,omitempty"`

	Encrypted bool     `json:"encrypted,omitempty"` // to the recovery recipients of site.toml: it is one file, and only that is known of it
	Away      []string `json:"away,omitempty"`      // archives of runs that are not in it, since they were not here
}

// ArchiveRequest asks that what runs have left which ended so long ago moves into archives.
type ArchiveRequest struct {
	OlderThanMs int64 `json:"olderThanMs"`
	DryRun      bool  `json:"dryRun,omitempty"` // only say what would move
}

// States of an archive of runs.
const (
	ArchiveHere    = "here"    // it is in archives/ of the home
	ArchiveAway    = "away"    // it is not
	ArchiveDamaged = "damaged" // it is, and is not what was written

	// ArchiveUnreadable is the state where a file of archives/ that may be it cannot be opened.
	ArchiveUnreadable = "unreadable"
)

// Archive is an archive of runs.
type Archive struct {
	File      string `json:"file"`           // name that it was given, in archives/ of the home
	Path      string `json:"path,omitempty"` // where it is now
	State     string `json:"state"`          // here | away | damaged | unreadable
	Seq       int64  `json:"seq"`            // of the entry
	Time      string `json:"time"`
	Before    string `json:"before"` // its runs had ended by then
	Runs      int64  `json:"runs"`
	Artifacts int64  `json:"artifacts"`
	Logs      int64  `json:"logs"`
	Content   int64  `json:"content"` // bytes, before compression
	Bytes     int64  `json:"bytes"`   // of the file
	SHA256    string `json:"sha256"`  // of the file

	Damaged []string `json:"damaged,omitempty"` // files of it that are known to be damaged, and how: by their form, or since they were read
}

// ArchiveReport is what was moved, or would be.
type ArchiveReport struct {
	DryRun    bool      `json:"dryRun"`
	Before    string    `json:"before"`
	Runs      int64     `json:"runs"` // that had ended by then, and have left something that moves
	Artifacts int64     `json:"artifacts"`
	Logs      int64     `json:"logs"`
	Content   int64     `json:"content"`  // bytes, before compression
	Archives  []Archive `json:"archives"` // that were made
	Busy      int64     `json:"busy"`     // files that are in an archive and stay in their places, since somebody relies on them
	Finished  int64     `json:"finished"` // files that an earlier archiving, which was cut off, had not moved away

	TrashFiles   int64  `json:"trashFiles"` // deleted from trash/, a day after they were moved there
	TrashBytes   int64  `json:"trashBytes"`
	TrashedUntil string `json:"trashedUntil,omitempty"` // when what was moved now may be deleted

	Damaged []DamagedRun `json:"damaged,omitempty"` // that stay as they are; a dry run reads nothing, and names what is missing
}

// DamagedRun is a run of which an artifact or a log segment is damaged, or missing.
type DamagedRun struct {
	RunID  string `json:"runId"`
	SHA256 string `json:"sha256"` // of what it was
	What   string `json:"what"`
}

// AwayArchive is an archive of runs that is not in archives/ of the home, and how many files
// that were asked for lie in it.
type AwayArchive struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
	Seq    int64  `json:"seq"`
	Files  int64  `json:"files"`
	Unread string `json:"unread,omitempty"` // why a file of archives/ that may be it cannot be opened
}

// NewEpoch is what both a restore and a recovery tell of: the epoch that follows.
type NewEpoch struct {
	DryRun   bool     `json:"dryRun"`
	Finished bool     `json:"finished,omitempty"` // only the end of one that was cut off was left to do
	Untold   bool     `json:"untold,omitempty"`   // nobody knows any more what it had told: of a snapshot there is the ID, and what is not known is absent
	Origin   string   `json:"origin,omitempty"`   // from now on
	Kept     string   `json:"kept,omitempty"`     // folder with what was replaced
	Known    int64    `json:"known"`              // entries that the site is known to have had; 0: nothing is known
	Lost     int64    `json:"lost"`               // of these, entries that were not adopted
	Unread   int      `json:"unread,omitempty"`   // pages of the ledger that is replaced that cannot be read: more may be lost
	Floors   []string `json:"floors,omitzero"`    // that must be waived before the site opens
	Paused   bool     `json:"paused,omitempty"`   // the queue is, since runs are open or entries are lost
	Runs     []string `json:"runs,omitzero"`      // that are open, the first 20
	Asked    []string `json:"asked,omitempty"`    // approvals that people are asked for again, the first 20
	Erased   []int64  `json:"erased,omitempty"`   // adopted entries whose data had been erased since, and is again
	Waits    string   `json:"waits,omitempty"`    // why that is still on disk: nobody is shown it, and it is tried again (see [ErasureReport])
	Unsure   []int64  `json:"unsure,omitempty"`   // entries whose data is there, and of which only meta of the ledger before says that it was erased

	// What the ledger before had decided and the adopted entries do not say, the first 20 of each:
	// bundles whose sequences and references hold again though they are not here, versions of DAGs
	// that are disabled again, and such that cannot be, since they are not published here.
	Remembered  []string `json:"remembered,omitempty"`
	Disabled    []string `json:"disabled,omitempty"`
	Unpublished []string `json:"unpublished,omitempty"`
	Unclear     int64    `json:"unclear,omitempty"` // its entries beyond these that cannot be read: what else they decided is not known

	Trust *NewerTrust `json:"trust,omitempty"` // that the home had; absent where what is restored has the same
}

// NewerTrust is trust of a home beyond that of the ledger which takes the place of its own.
type NewerTrust struct {
	Root        int64  `json:"root,omitempty"` // versions and serials of its files
	Policy      int64  `json:"policy,omitempty"`
	Revocations int64  `json:"revocations,omitempty"`
	Seq         int64  `json:"seq,omitempty"` // of the entry by which it is in force again
	Why         string `json:"why,omitempty"` // it cannot be, or not all of it: trust goes back

	Lost   []string `json:"lost,omitempty"`   // what it revokes, and what is in force does not, at most 100 of these
	Unsure string   `json:"unsure,omitempty"` // why nobody can tell that the home had no other
}

// Restored is what a restore did, or would do.
type Restored struct {
	Snapshot Snapshot `json:"snapshot,omitzero"`
	Recovery bool     `json:"recovery,omitempty"` // it has finished a recovery of the ledger: there is no snapshot
	NewEpoch
}

// MarshalJSON leaves out what is not known.
func (r Restored) MarshalJSON() ([]byte, error) {
	type all Restored
	if !r.Untold {
		return json.Marshal(all(r))
	}
	return json.Marshal(struct {
		all
		Snapshot *snapshotID `json:"snapshot,omitempty"`
		Known    *int64      `json:"known,omitempty"`
		Lost     *int64      `json:"lost,omitempty"`
	}{all: all(r), Snapshot: idOf(r.Snapshot.ID)})
}

// snapshotID is all that is known of a snapshot.
type snapshotID struct {
	ID string `json:"id"`
}

func idOf(id string) *snapshotID {
	if id == "" {
		return nil
	}
	return &snapshotID{id}
}

// RecoveredLedger is what a recovery of a damaged ledger did, or would do.
type RecoveredLedger struct {
	Snapshot string `json:"snapshot,omitempty"` // it has finished a restore of the snapshot with this ID
	Sound    bool   `json:"sound,omitempty"`    // nothing of the ledger is damaged, and nothing was done to it
	Damage   string `json:"damage,omitempty"`   // the first thing that is wrong
	Size     int64  `json:"size"`               // entries that are adopted
	Survived int64  `json:"survived"`           // of the lost, entries that can be read: they become evidence
	Evidence string `json:"evidence,omitempty"` // SHA-256 of the sealed list of these
	Sealed   int64  `json:"sealed,omitempty"`   // small sealed files, and secrets, that are lost
	Unsent   int64  `json:"unsent,omitempty"`   // events that a sink had not taken and may not be offered, and sinks of which nobody knows what they had

	// TrustAnew is set where trust/ was not what a sound ledger names, and was made anew of sealed
	// files. Kept has what was there, absent if there was nothing.
	TrustAnew bool `json:"trustAnew,omitempty"`
	Resealed  int  `json:"resealed,omitempty"` // files of trust that a sound ledger names, were not sealed any more, and are again
	NewEpoch
}

// MarshalJSON leaves out what is not known.
func (r RecoveredLedger) MarshalJSON() ([]byte, error) {
	type all RecoveredLedger
	if !r.Untold {
		return json.Marshal(all(r))
	}
	return json.Marshal(struct {
		all
		Size     *int64 `json:"size,omitempty"`
		Known    *int64 `json:"known,omitempty"`
		Lost     *int64 `json:"lost,omitempty"`
		Survived *int64 `json:"survived,omitempty"`
	}{all: all(r)})
}

// Compacted is what a compaction did.
type Compacted struct {
	Before int64 `json:"before"` // bytes of ledger.db
	After  int64 `json:"after,omitempty"`
	Free   int64 `json:"free"`          // bytes of pages that nothing uses, before
	Seq    int64 `json:"seq,omitempty"` // of the entry
	DryRun bool  `json:"dryRun,omitempty"`

	Waits string `json:"waits,omitempty"` // why what is agreed to be erased is still on disk
}

// ErasureRequest asks for an erasure, or agrees to one: then Agree is the seq of the request.
type ErasureRequest struct {
	Entries []int64 `json:"entries,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	Agree   *int64  `json:"agree,omitempty"`
	DryRun  bool    `json:"dryRun,omitempty"`
}

// ErasureReport is what became of it.
type ErasureReport struct {
	Seq     int64   `json:"seq,omitempty"`   // of the entry about it
	Entries []int64 `json:"entries"`         // whose data is, or would be, erased
	Actor   string  `json:"actor,omitempty"` // who asked, of what is agreed to
	Reason  string  `json:"reason,omitempty"`
	Agreed  bool    `json:"agreed"`          // two people have decided: nobody is shown the data, and it is gone
	Waits   string  `json:"waits,omitempty"` // why what is agreed, this or before, is still on disk: the next erasure, collection, compaction or start of a daemon tries again
	DryRun  bool    `json:"dryRun,omitempty"`

	// AlsoIn are other entries, at most 500, in which people have said the same, word by word or
	// with more around it: they stay as they are.
	AlsoIn []int64 `json:"alsoIn,omitempty"`
	// Unsearched is why not all entries were looked through for that: the rest may have it, too.
	Unsearched string `json:"unsearched,omitempty"`

	// Copies are folders of the home with ledgers from before, which may have the data, and that
	// of a snapshot that is being made: nothing is done to them.
	Copies []string `json:"copies,omitempty"`
}

// CosignedRequest is a note that has come back from witnesses, and their keys.
type CosignedRequest struct {
	Note      string   `json:"note"`
	Witnesses []string `json:"witnesses"` // name+id+base64
	DryRun    bool     `json:"dryRun,omitempty"`
}

// CosignedNote is a checkpoint with signatures of witnesses.
type CosignedNote struct {
	Seq       int64    `json:"seq,omitempty"` // of the entry about it
	Size      int64    `json:"size"`
	Root      string   `json:"root"`
	Note      string   `json:"note"`
	Witnesses []string `json:"witnesses"` // their keys
	DryRun    bool     `json:"dryRun,omitempty"`
}
