// Package failpoint names the places where a durable write may be cut short,
// so that a test can stop the process, or make the step fail, at each of them.
// In normal builds [Hit] does nothing and is inlined away. A build with the tag
// failpoint obeys the environment variable STELLA_FAILPOINT; it is for tests
// and is never shipped. The package starts no goroutine.
package failpoint

import "errors"

// ErrInjected is what [Hit] returns, wrapped with the name, where a fault was
// asked for. Normal builds never return it.
var ErrInjected = errors.New("injected fault")

// Env is the variable that a build with the tag failpoint obeys:
//
//	name=kill      SIGKILL to this process at the first hit
//	name=error     that hit and all later ones fail
//	name=full      likewise, as on a disk that is full
//	name=N:kill    the first N-1 hits pass; likewise N:error, N:full
//
// A value of any other form, or a name that [Names] does not list, panics at
// the first hit of any failpoint: a crash test that tests nothing must not pass.
const Env = "STELLA_FAILPOINT"

// Failpoints. Each is hit just before the step that it names, unless its
// comment says otherwise.
const (
	FSXWrite          = "fsx.write"           // bytes into a temporary file
	FSXSync           = "fsx.sync"            // fsync of a file
	FSXRename         = "fsx.rename"          // rename into place
	FSXSyncDir        = "fsx.syncdir"         // fsync of a folder
	StoreCommitBefore = "store.commit.before" // the transaction is complete, not committed
	StoreCommitAfter  = "store.commit.after"  // committed, nobody told
	SealBlob          = "seal.blob"           // a blob into the sealed store
	GCMove            = "gc.move"             // a blob into the trash; the entry is written
	GCEmpty           = "gc.empty"            // deletion of a folder of the trash
	CheckpointWrite   = "checkpoint.write"    // checkpoint.note outside the database
	RunnerClaim       = "runner.claim"        // an attempt is recorded, no process exists
	RunnerFinish      = "runner.finish"       // a process has ended, nothing is recorded
	ExportWrite       = "export.write"        // a part of an archive
	SnapshotWrite     = "snapshot.write"      // a file of a snapshot
	ArchiveWrite      = "archive.write"       // a file of an archive of runs, and its sync
	RestoreSwap       = "restore.swap"        // a part of a home that is restored into its place, and the end of that
	OutboxWrite       = "outbox.write"        // events into the file of a sink
	OutboxSettle      = "outbox.settle"       // events are delivered, nothing of it is recorded
)

// Names lists every failpoint, for tests that go through all of them.
func Names() []string {
	return []string{
		FSXWrite, FSXSync, FSXRename, FSXSyncDir,
		StoreCommitBefore, StoreCommitAfter,
		SealBlob, GCMove, GCEmpty, CheckpointWrite,
		RunnerClaim, RunnerFinish,
		ExportWrite,
		SnapshotWrite, ArchiveWrite, RestoreSwap,
		OutboxWrite, OutboxSettle,
	}
}
