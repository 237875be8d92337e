package engine

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/store"
)

// surroundings is what is known of a ledger that a restore or a recovery replaces: by its
// checkpoints, in the home and outside, and by itself as far as it can be read.
type surroundings struct {
	size   int64 // entries that it says it has, and what hold finds
	blind  bool  // nothing of it can be read: only checkpoints tell
	unread int   // pages of it that may have had more
	epoch  int64 // the highest that is known
	gone   vanished
	trust  []ledger.TrustChange // that its ledger has, the oldest first
	whole  bool                 // these are all that there ever were
	own    int64                // the epoch that its ledger says it is of
	before store.Decided        // what it has decided
	behind func(now time.Time) error
	empty  []string // floors without a checkpoint in them
	notes  []knownNote
	copies []string // of the checkpoint, outside of the home, where the ledger does not say which were written

	note   string   // the highest checkpoint that is not given up, "" for none: see hold
	floors []string // that will have to be waived: see hold
}

// knownNote is a checkpoint, which a floor has, or "" the ledger itself.
type knownNote struct {
	floor string
	raw   []byte
	ledger.Checkpoint
}

// lookAround gathers what is known of the ledger of a home, which says so of itself. A site.toml
// in these folders counts where the home has none.
func lookAround(home string, head store.Head, keys *keys, siteID string, others ...string) (k surroundings, err error) {
	paths := append([]string{noteName}, head.NotePaths...)
	if site := firstSite(append([]string{home}, others...)...); site != nil {
		paths = append(paths, site.CheckpointCopies...)
		if head.NotesLost {
			k.copies = append(slices.Clone(head.NotePaths), site.CheckpointCopies...)
		}
	}
	slices.Sort(paths[1:])
	k.epoch, k.size, k.unread, k.gone = head.Epoch, head.Size, head.Unread, vanished{head.Erased, head.Said}
	k.trust, k.whole, k.behind, k.before = head.Trust, head.TrustWhole, head.Behind, head.Decided
	k.blind, k.own = head.Size == 0, head.Epoch
	for _, note := range head.Notes {
		if c, err := ledger.OpenCheckpoint(note, keys.logPublic(), siteID); err == nil {
			k.notes = append(k.notes, knownNote{"", note, c})
		}
	}
	for _, name := range slices.Compact(paths) {
		path := name
		if name == noteName {
			path = filepath.Join(home, noteName)
		}
		c, note, err := readNote(path, keys, siteID)
		if faultOf(err) == faultLost {
			k.empty = append(k.empty, name)
			continue
		}
		if err != nil {
			return k, damaged("%v", err)
		}
		k.notes = append(k.notes, knownNote{name, note, c})
	}
	for _, n := range k.notes {
		_, epoch, _ := ledger.ParseOrigin(n.Origin) // it was opened
		k.epoch = max(k.epoch, epoch)
	}
	return k, nil
}

// firstSite is the configuration in the first of these folders that has one, nil for none.
func firstSite(dirs ...string) *manifests.Site {
	for _, dir := range dirs {
		if site, _, err := readSite(dir); err == nil {
			return site
		}
	}
	return nil
}

// hold finds what a ledger lacks that is to be the site's, and the floors that will have to be
// waived then: those that are lost, and those that cover what it does not have. What was given
// up before is not lost again. It refuses a ledger that a floor contradicts: it would never open.
func (k *surroundings) hold(db *store.DB) error {
	written, err := db.NotePaths()
	if err != nil {
		return err
	}
	written = append(written, k.copies...)
	k.floors = []string{}
	for _, name := range k.empty {
		if name == noteName || slices.Contains(written, name) {
			k.floors = append(k.floors, name)
		}
	}
	var best int64
	for _, n := range k.notes {
		_, epoch, _ := ledger.ParseOrigin(n.Origin)
		k.whole = k.whole && epoch <= k.own // else it is a copy from before
		_, gone := db.GivenUp(epoch, n.Size)
		if n.Size > best && !gone {
			best, k.note = n.Size, ledger.WithoutCosignatures(n.raw)
		}
		if n.floor == "" {
			continue
		}
		if err := db.Contradicts(n.Checkpoint); err != nil {
			return fmt.Errorf("%s: %w", n.floor, err)
		}
		if gone || epoch > db.Epoch() || n.Size > db.Size() {
			k.floors = append(k.floors, n.floor)
		}
	}
	k.whole = k.whole && best <= k.size
	k.size = max(k.size, best)
	slices.Sort(k.floors)
	return nil
}

// lostError says that there is no checkpoint in a floor: no file, one that cannot be read, or
// one with something else in it.
type lostError struct{ err error }

func (l *lostError) Error() string { return l.err.Error() }

func (l *lostError) Unwrap() error { return l.err }

// readNote reads a checkpoint of the site from a floor. One of another site is an error that
// is no [lostError].
func readNote(path string, keys *keys, siteID string) (c ledger.Checkpoint, note []byte, err error) {
	if note, err = fsx.ReadFile(path, ledger.MaxNote); err != nil {
		return c, nil, &lostError{err} // it names the path
	}
	if c, err = ledger.OpenCheckpoint(note, keys.logPublic(), siteID); err == nil {
		return c, note, nil
	}
	err = fmt.Errorf("%s: %w", path, err)
	if says, perr := ledger.ParseCheckpoint(note); perr == nil {
		if site, _, perr := ledger.ParseOrigin(says.Origin); perr == nil && site != siteID {
			return c, nil, err
		}
	}
	return c, nil, &lostError{err}
}
