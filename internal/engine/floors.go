package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

// A floor is a copy of the newest checkpoint: the one in the home, and those at
// the paths outside it that site.toml names (FORMATS section 4). The ledger must
// extend each; one that was written and is gone refuses everything until it is
// waived by name (THREATS 10 and 27), since nobody could tell then whether the
// ledger is the newest one.

// noteName is the floor in the home.
const noteName = "checkpoint.note"

// floorError is what is wrong with a floor.
type floorError struct {
	name  string
	fault string // faultLost, faultAhead, "" for one that cannot be waived
	err   error
}

// Faults of floors that can be waived.
const (
	faultLost  = "lost"
	faultAhead = "ahead" // it is of an older epoch, and covers more than was restored
)

func (f *floorError) Error() string { return f.err.Error() }

// api is f as the API says it.
func (f *floorError) api() error {
	switch f.fault {
	case faultAhead:
		return &api.Error{Code: api.CodeFloorAhead, Message: "the floor " + f.name + " is ahead of the ledger that was restored: " + f.err.Error(),
			Hint: "a newer snapshot, or the home itself, may have what is missing; to go on without that: stella trust waive " + f.name + " --reason TEXT"}
	case faultLost:
		return &api.Error{Code: api.CodeFloorLost, Message: "the floor " + f.name + " is lost: " + f.err.Error(),
			Hint: "put it back from where it was kept; to go on without it: stella trust waive " + f.name + " --reason TEXT"}
	}
	d := damaged("%v", f.err)
	if f.name != noteName {
		d.Message = "checkpoint copy: " + d.Message
		d.Hint = "the copy is newer than this ledger or of another one: find out which home is the newest, and use that"
		if faultOf(f.err) == faultLost {
			d.Hint = "nothing there is overwritten: see what it is and move it away, then put the copy back or waive it: stella trust waive " + f.name + " --reason TEXT"
		}
	}
	return d
}

// checkHead refuses a ledger that does not extend its floors, and one whose
// floors are gone. A copy outside the home counts when it is there, and must be
// there once it was written.
func (e *Engine) checkHead() error {
	broken, err := e.brokenFloors()
	if err != nil {
		return dbError(err)
	}
	for _, fault := range []string{"", faultAhead, faultLost} { // what disagrees is the worst
		for _, f := range broken {
			if f.fault == fault {
				return f.api()
			}
		}
	}
	return nil
}

// brokenFloors finds the floors that something is wrong with. A path that was
// written and is no longer in site.toml is lost as well: a floor is given up by
// name, not by an edit.
func (e *Engine) brokenFloors() ([]*floorError, error) {
	written, err := e.db.NotePaths()
	if err != nil {
		return nil, err
	}
	var broken []*floorError
	for _, name := range append([]string{noteName}, e.site.CheckpointCopies...) {
		path := name
		if name == noteName {
			path = filepath.Join(e.opt.Home, noteName)
		}
		err := e.checkNote(path)
		if err != nil && (name == noteName || !missing(err) || slices.Contains(written, name)) {
			broken = append(broken, brokenFloor(name, err))
		}
	}
	for _, name := range written {
		if slices.Contains(e.site.CheckpointCopies, name) {
			continue
		}
		f := &floorError{name, faultLost, errors.New("it was written, and site.toml does not name it any more")}
		if err := e.checkNote(name); err != nil && !missing(err) {
			f = brokenFloor(name, err)
		}
		broken = append(broken, f)
	}
	return broken, nil
}

// acceptFirst accepts a typed time before floors are looked at, so that a site with
// a lost floor and a wrong record has a way out; never where a floor disagrees.
func (e *Engine) acceptFirst() error {
	a := e.opt.Accept
	if a == nil {
		return nil
	}
	broken, err := e.brokenFloors()
	if err != nil {
		return dbError(err)
	}
	for _, f := range broken {
		if f.fault == "" {
			return f.api()
		}
	}
	return e.acceptTime(a.Actor, a.TimeAcceptance)
}

// waive records that somebody goes on without a floor, and makes it anew where
// site.toml names it. Nothing is written to a ledger that a floor disagrees with.
func (e *Engine) waive() error {
	w := e.opt.Waive
	if w == nil {
		return nil
	}
	if w.Reason == "" {
		return invalid("a reason is needed: it is recorded")
	}
	broken, err := e.brokenFloors()
	if err != nil {
		return dbError(err)
	}
	var found *floorError
	for _, f := range broken {
		if f.fault == "" {
			return f.api()
		}
		if f.name == w.Floor {
			found = f
		}
	}
	if found == nil {
		return &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("the floor %s is neither lost nor ahead: there is nothing to waive", w.Floor)}
	}
	entry := &ledger.FloorWaiver{Floor: found.name, Fault: found.fault, Reason: clip(w.Reason)}
	if found.fault == faultAhead {
		if entry.Note, err = e.floorNote(found.name); err != nil {
			return err
		}
	}
	if _, err := e.db.Append(ledger.FloorWaived, w.Actor, entry); err != nil {
		return dbError(err)
	}
	if found.name == noteName {
		return e.writeNote()
	}
	if found.fault == faultAhead { // what it says is on record now
		if err := os.Remove(found.name); err != nil {
			return invalid("the copy of the checkpoint: %v", err)
		}
	}
	written, err := e.db.NotePaths()
	if err != nil {
		return dbError(err)
	}
	written = slices.DeleteFunc(written, func(p string) bool { return p == found.name })
	return dbError(e.db.PutNotePaths(written))
}

// writeNote puts the newest checkpoint back into the home. The entry of the
// waiver has made the tree grow, so that there is a new one.
func (e *Engine) writeNote() error {
	_, err := e.issueCheckpoint()
	return err
}

// aheadError says that a checkpoint of an older epoch covers more than what was adopted.
type aheadError struct {
	path          string
	size, adopted int64
}

func (a *aheadError) Error() string {
	return fmt.Sprintf("%s covers %d entries, of which the ledger has %d", a.path, a.size, a.adopted)
}

// brokenFloor is what is wrong with a floor. What lies outside of the home and is no checkpoint
// may be somebody's: it is not waived as long as it is there.
func brokenFloor(name string, err error) *floorError {
	f := &floorError{name, faultOf(err), err}
	if f.fault == faultLost && name != noteName && !missing(err) {
		f.fault = ""
	}
	return f
}

// faultOf is the fault of a floor that is not whole, "" where it cannot be waived.
func faultOf(err error) string {
	var ahead *aheadError
	var lost *lostError
	switch {
	case errors.As(err, &lost):
		return faultLost
	case errors.As(err, &ahead):
		return faultAhead
	}
	return ""
}

// floorNote is the signed note in a floor, without cosignatures.
func (e *Engine) floorNote(name string) (string, error) {
	path := name
	if name == noteName {
		path = filepath.Join(e.opt.Home, noteName)
	}
	note, err := fsx.ReadFile(path, ledger.MaxNote)
	if err != nil {
		return "", internal(err)
	}
	return ledger.WithoutCosignatures(note), nil
}

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
