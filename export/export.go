// Package export takes evidence out of a site and judges it elsewhere.
//
// [Create] writes the archive of a window of recorded time: the ledger lines of
// the window with the proof that binds them to a signed tree head, the runs
// folded from them, the sealed files that they rely on, and logs, metrics and
// traces derived from them. The same closed window gives the same bytes with
// one stella version and one state of withholding: nothing here reads a clock,
// a host name or an environment.
//
// [Verify] needs no site: it takes an archive, keys from outside and nothing
// else, and derives anew everything that can be derived. It judges bytes; who
// is told what, and with which exit code, is for its caller.
//
// The format is docs/format.md. The package starts no goroutine.
package export

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/stellarun/stella/ledger"
)

// Schema is the schema of an archive's manifest. It names everything in an
// archive: order, forms, and how derived files derive.
const Schema = "stella.archive/1"

// Paths of an archive, in their order in the tar. Evidence, sorted, stands
// between the window and the telemetry.
const (
	manifestPath   = "manifest.json"
	sumsPath       = "SHA256SUMS"
	signaturePath  = "SHA256SUMS.sigstore.json"
	readmePath     = "README.txt"
	logKeyPath     = "keys/log.pub"
	siteKeyPath    = "keys/site.pub"
	envelopesPath  = "ledger/envelopes.ndjson.zst"
	dataPath       = "ledger/data.ndjson.zst"
	runsPath       = "ledger/runs.ndjson.zst"
	checkpointPath = "ledger/checkpoint.note"
	windowPath     = "ledger/window.json"
	evidencePath   = "evidence/sha256/"
	logsPath       = "telemetry/logs.jsonl.zst"
	metricsPath    = "telemetry/metrics.jsonl.zst"
	tracesPath     = "telemetry/traces.jsonl.zst"
)

// Limits of one archive. A window beyond them is refused, and archived in
// several windows: they meet.
const (
	maxEntries  = 8 << 20   // of the window
	maxEvidence = 100_000   // files
	maxMembers  = 100_014   // files, evidence and the fixed ones
	maxManifest = 32 << 20  // bytes of manifest.json
	maxSums     = 16 << 20  // bytes of SHA256SUMS
	maxSmall    = 256 << 10 // bytes of each other file that is not compressed, but evidence
	maxRun      = 256 << 20 // bytes of a line of runs.ndjson
)

// Why there is no archive of a window. They come wrapped.
var (
	ErrWindow       = errors.New("no window of time that can be archived")
	ErrWindowOpen   = errors.New("the window is still open: the ledger has no entry at or after its end")
	ErrNoCheckpoint = errors.New("no stored checkpoint covers the entry after the window")
	ErrTooLarge     = errors.New("the window is too large for one archive: take several, they meet")
)

// A DamagedError is something of the site's that is not what its ledger says.
type DamagedError struct {
	What string
	Err  error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("export: %s is damaged: %v", e.What, e.Err) }

func (e *DamagedError) Unwrap() error { return e.Err }

// A WithheldError is what a [Source] returns for a sealed file or a log segment
// that the site no longer has, or must not give away, by a decision on record.
// Anything else that is missing is a fault.
type WithheldError struct {
	Reason string // 1 to 64 of A–Z a–z 0–9 . _ -
}

func (e *WithheldError) Error() string { return "withheld: " + e.Reason }

// Entry is one entry as it is stored, without line feeds. Where Data is nil, it
// was withheld or erased for the reason in Withheld, which has the form of
// [WithheldError]'s.
type Entry struct {
	Seq            int64
	Envelope, Data []byte
	Withheld       string
}

// Source is what an archive is made from. Sequences are read in pages: a method
// must not keep a transaction open while its caller works. All of it may grow
// meanwhile; nothing in it changes, but that data may be erased.
type Source interface {
	// ReadHashes reads the stored hashes of the tree.
	ledger.HashReader
	// Size is the number of entries.
	Size() int64
	// Entries yields the entries from ≤ seq < to in order.
	Entries(from, to int64) iter.Seq2[Entry, error]
	// RunEntries yields all entries of one run in order.
	RunEntries(runID string) iter.Seq2[Entry, error]
	// FirstAtOrAfter is the seq of the first entry whose time is not before
	// time, or Size.
	FirstAtOrAfter(time string) (int64, error)
	// CheckpointCovering returns the first stored checkpoint whose tree holds
	// the entry seq, and nil if there is none yet.
	CheckpointCovering(seq int64) (note []byte, err error)
	// Blob opens a sealed file, LogSegment a log segment, by the SHA-256 of its
	// content; a *[WithheldError] says that it is gone by decision.
	Blob(sha256 string) (io.ReadCloser, error)
	LogSegment(sha256 string) (io.ReadCloser, error)
}

// memberRank is a path's place in the tar: the fixed paths in their order, all
// of evidence in between. It is -1 for a path that no archive has.
func memberRank(path string) int {
	for i, p := range fixedPaths() {
		if p == path {
			return i
		}
	}
	if sum, ok := evidenceSum(path); ok && sum != "" {
		return evidenceRank
	}
	return -1
}

// evidenceRank is the place of [evidencePath] in fixedPaths.
const evidenceRank = 11

// fixedPaths are the paths that every archive has, in the order of the tar;
// the evidence folder holds the place of its files.
func fixedPaths() []string {
	return []string{
		manifestPath, sumsPath, signaturePath, readmePath, logKeyPath, siteKeyPath,
		envelopesPath, dataPath, runsPath, checkpointPath, windowPath, evidencePath,
		logsPath, metricsPath, tracesPath,
	}
}

// evidenceSum takes the digest out of the path of an evidence file.
func evidenceSum(path string) (string, bool) {
	if len(path) != len(evidencePath)+64 || path[:len(evidencePath)] != evidencePath {
		return "", false
	}
	sum := path[len(evidencePath):]
	return sum, isSHA256(sum)
}

// isSHA256 says whether s is 64 lower-case hex digits.
func isSHA256(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 64
}
