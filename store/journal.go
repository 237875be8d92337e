package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/jcs"
)

const (
	journalName   = "restore.json"
	journalSchema = "stella.restore/1"
	recoveredID   = "recovered"
	configName    = "site.toml"
	maxTold       = maxSnapshot / 2 // beyond it a journal could not be read again
)

// swapped are the parts of a home that a restore swaps, in this order. The checkpoint of the
// home stays: it is a floor, and may be newer than the snapshot. So does its configuration: only
// where it has none that of the snapshot is the last part.
func swapped() []string { return []string{"trust", "secrets", fileName} }

// journal is what a restore has decided.
type journal struct {
	Schema string   `json:"schema"`
	ID     string   `json:"id"`   // of the snapshot, recoveredID for a recovery
	Kept   string   `json:"kept"` // where what is replaced goes, in the home
	Parts  []string `json:"parts"`
	Had    []string `json:"had,omitempty"` // those that are replaced, since the home had them

	Told json.RawMessage `json:"told,omitempty"` // what is told when it is done; absent in a journal of an older stella
}

// newJournal leaves out what would be told where that is too long.
func newJournal(id, kept string, told []byte) *journal {
	if len(told) > maxTold {
		told = nil
	}
	return &journal{Schema: journalSchema, ID: id, Kept: kept, Parts: swapped(), Told: told}
}

// Unfinished is a restore or a recovery that is under way, or was cut off.
type Unfinished struct {
	Snapshot string // its ID, "" for a recovery
	Kept     string // folder in the home with what is replaced
	Told     []byte // what is told when it is done, as its options had it; nil where nobody knows any more
}

// CutOff says what is under way in a home, or was cut off there, nil for nothing.
func CutOff(home string) (*Unfinished, error) {
	j, err := readJournal(home)
	if err != nil || j == nil {
		return nil, err
	}
	return j.unfinished(), nil
}

func (j *journal) unfinished() *Unfinished {
	u := &Unfinished{Snapshot: j.ID, Kept: j.Kept, Told: j.Told}
	if j.ID == recoveredID {
		u.Snapshot = ""
	}
	return u
}

// FinishRestore does the rest of what was cut off, nil for nothing, unless may has an error.
func FinishRestore(home string, may func(*Unfinished) error) (*Unfinished, error) {
	unlock, err := lockHome(home)
	if err != nil {
		return nil, err
	}
	defer unlock()
	j, err := readJournal(home)
	if err != nil || j == nil {
		return nil, err
	}
	u := j.unfinished()
	if err := may(u); err != nil {
		return nil, err
	}
	return u, j.finish(home)
}

// nothingCutOff returns [ErrRestoring] where something has to be finished first.
func nothingCutOff(home string) error {
	u, err := CutOff(home)
	if err == nil && u != nil {
		err = fmt.Errorf("%w: %s", ErrRestoring, home)
	}
	return err
}

func readJournal(home string) (*journal, error) {
	raw, err := fsx.ReadFile(filepath.Join(home, journalName), maxSnapshot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	var j journal
	if err := json.Unmarshal(raw, &j); err != nil || j.Schema != journalSchema || !filepath.IsLocal(j.Kept) {
		return nil, damaged(errors.New("it is not one that this stella writes"), "%s", journalName)
	}
	return &j, nil
}

func (j *journal) write(home string) error {
	raw, err := jcs.Marshal(j)
	if err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	return fsx.WriteFile(filepath.Join(home, journalName), append(raw, '\n'), 0o600)
}

// keep makes the folder for what is replaced.
func (j *journal) keep(home string) error {
	for _, dir := range []string{filepath.Dir(j.Kept), j.Kept} {
		if err := fsx.Mkdir(filepath.Join(home, dir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("store: restore: %w", err)
		}
	}
	return nil
}

// carryOut writes the journal and does what it says; see [journal.finish] for its errors.
func (j *journal) carryOut(home string) error {
	if exists(filepath.Join(home, restoringName, configName)) && !exists(filepath.Join(home, configName)) {
		j.Parts = append(j.Parts, configName)
	}
	for _, part := range j.Parts {
		if exists(filepath.Join(home, part)) && exists(filepath.Join(home, restoringName, part)) {
			j.Had = append(j.Had, part)
		}
	}
	err := j.keep(home)
	if err == nil {
		err = j.write(home)
	}
	if err != nil {
		return j.stays(home, err)
	}
	return j.finish(home)
}

// finish does what is left of what the journal says. As long as that has its name an error is
// an [ErrRestoring]: what is ready is then all that the home will have, and must stay there.
func (j *journal) finish(home string) error { return j.stays(home, j.swap(home)) }

func (*journal) stays(home string, err error) error {
	if err != nil && exists(filepath.Join(home, journalName)) {
		return fmt.Errorf("%w: %w", ErrRestoring, err)
	}
	return err
}

// swap puts each part that is ready into its place, and ends the restore. It can be cut off
// anywhere, and be done again.
func (j *journal) swap(home string) error {
	if part := j.lost(home); part != "" {
		return errors.Join(fmt.Errorf("%w: %s", ErrUndone, filepath.Join(home, restoringName, part)), j.undo(home))
	}
	if !exists(filepath.Join(home, j.Kept)) && exists(filepath.Join(home, restoringName)) {
		j.Had = nil // of what was replaced nothing can be put back any more
		if err := j.write(home); err != nil {
			return err
		}
		if err := j.keep(home); err != nil {
			return err
		}
	}
	for _, part := range j.Parts {
		ready, place, kept := filepath.Join(home, restoringName, part), filepath.Join(home, part), filepath.Join(home, j.Kept, part)
		if !exists(ready) || part == configName && exists(place) {
			continue // it is in its place, or somebody has put another there meanwhile
		}
		if exists(place) && !exists(kept) {
			if err := j.move(place, kept); err != nil {
				return err
			}
		}
		if err := j.move(ready, place); err != nil {
			return err
		}
	}
	return j.end(home)
}

// end takes the journal away, and then what is ready: as long as there is a journal only somebody
// else can have taken restoring/. What stays of that is in nobody's way, and the next one removes it.
func (*journal) end(home string) error {
	if err := failpoint.Hit(failpoint.RestoreSwap); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	if err := os.Remove(filepath.Join(home, journalName)); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	if err := fsx.SyncDir(home); err != nil {
		return err
	}
	_ = removeTree(filepath.Join(home, restoringName))
	return nil
}

// lost is a part that is neither ready nor in its place, "" for none: somebody has taken it away.
// Where it is what was replaced that somebody has taken, there is no way but on. Without a ledger
// nothing is finished, had there been one before or not.
func (j *journal) lost(home string) string {
	back := exists(filepath.Join(home, j.Kept)) || !exists(filepath.Join(home, restoringName))
	for _, part := range j.Parts {
		if exists(filepath.Join(home, restoringName, part)) {
			continue
		}
		moved := exists(filepath.Join(home, j.Kept, part))
		if (moved || part == fileName) && !exists(filepath.Join(home, part)) || !moved && back && slices.Contains(j.Had, part) {
			return part
		}
	}
	return ""
}

// undo puts back what was replaced, and takes away the configuration if it has come with the rest.
// It can be cut off anywhere, and be done again.
func (j *journal) undo(home string) error {
	ready := filepath.Join(home, restoringName)
	for _, part := range j.Parts {
		place, kept := filepath.Join(home, part), filepath.Join(home, j.Kept, part)
		if part == configName && exists(ready) && !exists(filepath.Join(ready, part)) {
			if err := removeTree(place); err != nil {
				return err
			}
		}
		if !exists(kept) {
			continue
		}
		if err := removeTree(place); err != nil {
			return err
		}
		if err := fsx.Rename(kept, place); err != nil {
			return fmt.Errorf("store: restore: %w", err)
		}
	}
	return j.end(home)
}

func (*journal) move(from, to string) error {
	if err := failpoint.Hit(failpoint.RestoreSwap); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	if err := fsx.Rename(from, to); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	return nil
}
