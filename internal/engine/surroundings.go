package engine

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/store"
)

// surroundings is what is known of a ledger that a restore or a recovery replaces: by its
// checkpoints, in the home and outside, and by itself as far as it can be read.
type surroundings struct {
	note   string // the highest checkpoint, "" for none
	size   int64  // entries that it is known to have had
	unread int    // pages of it that may have had more
	epoch  int64  // the highest that is known
	gone   vanished
	empty  []string // floors without a checkpoint in them
	notes  []floorNote
	copies []string // of the checkpoint, outside of the home, where the ledger does not say which were written

	floors []string // that will have to be waived: see hold
}

// floorNote is the checkpoint in a floor.
type floorNote struct {
	name string
	ledger.Checkpoint
}

// lookAround gathers what is known of the ledger of a home, which says so of itself.
func lookAround(home string, head store.Head, keys *keys, siteID string) (k surroundings, err error) {
	paths := append([]string{noteName}, head.NotePaths...)
	if raw, err := fsx.ReadFile(filepath.Join(home, "site.toml"), 64<<10); err == nil {
		if site, err := manifests.ParseSite("site.toml", raw); err == nil {
			paths = append(paths, site.CheckpointCopies...)
			if head.NotesLost {
				k.copies = append(slices.Clone(head.NotePaths), site.CheckpointCopies...)
			}
		}
	}
	slices.Sort(paths[1:])
	k.epoch, k.size, k.unread, k.gone = head.Epoch, head.Size, head.Unread, vanished{head.Erased, head.Said}
	var best int64
	see := func(c ledger.Checkpoint, note []byte) {
		_, epoch, _ := ledger.ParseOrigin(c.Origin) // it was opened
		k.epoch = max(k.epoch, epoch)
		if c.Size > best {
			best, k.note = c.Size, ledger.WithoutCosignatures(note)
		}
	}
	for _, note := range head.Notes {
		if c, err := ledger.OpenCheckpoint(note, keys.logPublic(), siteID); err == nil {
			see(c, note)
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
		k.notes = append(k.notes, floorNote{name, c})
		see(c, note)
	}
	k.size = max(k.size, best)
	return k, nil
}

// hold finds the floors that will have to be waived once a ledger is the site's: those that
// are lost, and those that cover what it does not have. It refuses one that a floor
// contradicts: it would never open.
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
	for _, n := range k.notes {
		if err := db.Contradicts(n.Checkpoint); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		_, epoch, _ := ledger.ParseOrigin(n.Origin)
		if _, gone := db.GivenUp(epoch, n.Size); gone || epoch > db.Epoch() || n.Size > db.Size() {
			k.floors = append(k.floors, n.name)
		}
	}
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
