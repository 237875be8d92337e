package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"

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
	name string
	lost bool
	err  error
}

func (f *floorError) Error() string { return f.err.Error() }

// api is f as the API says it.
func (f *floorError) api() error {
	if f.lost {
		return &api.Error{Code: api.CodeFloorLost, Message: "the floor " + f.name + " is lost: " + f.err.Error(),
			Hint: "put it back from where it was kept; to go on without it: stella trust waive " + f.name + " --reason TEXT"}
	}
	d := damaged("%v", f.err)
	if f.name != noteName {
		d.Message = "checkpoint copy: " + d.Message
		d.Hint = "the copy is newer than this ledger or of another one: find out which home is the newest, and use that"
	}
	return d
}

// checkHead refuses a ledger that does not extend its floors, and one whose
// floors are gone. A copy outside the home counts when it is there, and must be
// there once it was written.
func (e *Engine) checkHead() error {
	f, err := e.brokenFloor()
	switch {
	case err != nil:
		return dbError(err)
	case f == nil:
		return nil
	case f.lost && e.opt.Waive != nil && e.opt.Waive.Floor == f.name:
		return nil // see waive
	}
	return f.api()
}

// brokenFloor finds the first floor that something is wrong with, leaving out
// one that is waived.
func (e *Engine) brokenFloor() (*floorError, error) {
	written, err := e.db.NotePaths()
	if err != nil {
		return nil, err
	}
	var waived *floorError
	for _, name := range append([]string{noteName}, e.site.CheckpointCopies...) {
		path := name
		if name == noteName {
			path = filepath.Join(e.opt.Home, noteName)
		}
		err := e.checkNote(path)
		if err == nil || name != noteName && missing(err) && !slices.Contains(written, name) {
			continue
		}
		f := &floorError{name, missing(err), err}
		if e.opt.Waive == nil || e.opt.Waive.Floor != name || !f.lost {
			return f, nil
		}
		waived = f
	}
	return waived, nil
}

// waive records that somebody goes on without a floor, and makes it anew.
func (e *Engine) waive() error {
	w := e.opt.Waive
	if w == nil {
		return nil
	}
	if w.Reason == "" {
		return invalid("a reason is needed: it is recorded")
	}
	f, err := e.brokenFloor()
	if err != nil {
		return dbError(err)
	}
	if f == nil {
		return &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("the floor %s is not lost: there is nothing to waive", w.Floor)}
	}
	_, err = e.db.Append(ledger.FloorWaived, w.Actor, &ledger.FloorWaiver{Floor: f.name, Fault: "lost", Reason: clip(w.Reason)})
	if err != nil {
		return dbError(err)
	}
	e.opt.Waive = nil
	if f.name != noteName {
		written, err := e.db.NotePaths()
		if err != nil {
			return dbError(err)
		}
		err = e.db.PutNotePaths(slices.DeleteFunc(written, func(p string) bool { return p == f.name }))
		if err != nil {
			return dbError(err)
		}
	}
	_, err = e.issueCheckpoint()
	return err
}

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
