package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/stellarun/stella/internal/background"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// snapshotsName is the folder of the home that snapshots go to by default.
const snapshotsName = "snapshots"

// snapshotDir is the folder that is meant; it must be there, unless it is the home's own.
func snapshotDir(home, dir string) (string, error) {
	if dir == "" {
		dir = filepath.Join(home, snapshotsName)
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", internal(err)
		}
		return dir, nil
	}
	if !filepath.IsAbs(dir) {
		return "", invalid("the folder of snapshots must be absolute: %s", dir)
	}
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return "", invalid("%s is no folder", dir)
	}
	return filepath.Clean(dir), nil // as of exports
}

// CreateSnapshot copies the site while it is in use. Nothing is given up meanwhile.
func (s *site) CreateSnapshot(ctx context.Context, req api.SnapshotRequest, p api.Progress) (api.Snapshot, error) {
	e := s.e
	dir, err := snapshotDir(e.opt.Home, req.Dir)
	if err == nil && dir != filepath.Join(e.opt.Home, snapshotsName) {
		err = e.outside("a snapshot", filepath.Join(dir, "any"))
	}
	if err != nil {
		return api.Snapshot{}, err
	}
	e.collecting.Lock() // nothing is given up meanwhile, and no other is made
	defer e.collecting.Unlock()
	recipients, err := e.recipients()
	if err != nil {
		return api.Snapshot{}, err
	}
	need, sealed := e.db.SnapshotBytes(), len(recipients) > 0
	if err := e.roomIn(dir, "a snapshot", need); err != nil {
		return api.Snapshot{}, err
	}
	if sealed { // it is made in the home first
		if err := e.roomOf("a snapshot, in the clear and encrypted,", 2*need); err != nil {
			return api.Snapshot{}, err
		}
	}
	if req.DryRun {
		return api.Snapshot{
			Path: dir, Origin: e.db.Origin(), Size: e.db.Size(), LastTime: stamp.Format(e.db.LastTime()), Bytes: need, Encrypted: sealed, DryRun: true,
		}, nil
	}
	if req.Dir == "" { // nobody else makes one there
		if err := store.SweepSnapshots(dir); err != nil {
			return api.Snapshot{}, spaceError(err)
		}
	}
	at := dir
	if sealed {
		if at, err = e.stage(); err != nil {
			return api.Snapshot{}, spaceError(err)
		}
		defer os.RemoveAll(at)
	}
	e.copying.Store(&dir)
	defer e.copying.Store(nil)
	var sums string
	out, err := background.Do(func() (api.Snapshot, error) {
		snap, path, digest, err := e.db.Snapshot(ctx, store.SnapshotOptions{
			Dir: at, Stella: e.opt.Version, Now: e.opt.Now(), Progress: p,
			Sign: func(sums []byte) ([]byte, error) {
				a, err := verify.SignManifest(sums, e.keys.site)
				return a.Data, err
			},
			Check: store.CheckOptions{OpenNote: e.openNote},
		})
		sums = digest
		return showSnapshot(snap, path), err
	})
	if err != nil {
		return api.Snapshot{}, snapshotError(err)
	}
	clear := out
	if sealed {
		if out, err = e.encryptSnapshot(ctx, out, dir, recipients, p); err != nil {
			return api.Snapshot{}, err
		}
	}
	out.Seq, err = e.db.Append(ledger.SnapshotCreated, s.actor, &ledger.SnapshotCreation{
		ID: clear.ID, Size: clear.Size, Root: clear.Root, Files: clear.Files, Bytes: clear.Bytes, Sums: sums, Encrypted: sealed,
	})
	if err != nil { // of a site that cannot be written it may be the last one
		err = adding(dbError(err), "the snapshot %s is whole, and not on record", out.Path)
	}
	return out, err
}

// openNote verifies a checkpoint of this site.
func (e *Engine) openNote(note []byte) (ledger.Checkpoint, error) {
	return ledger.OpenCheckpoint(note, e.keys.logPublic(), e.db.SiteID())
}

// roomIn says whether something fits on the disk of a folder: on that of the home beside what
// is kept for the ledger.
func (e *Engine) roomIn(dir, what string, need int64) error {
	var there, home syscall.Stat_t
	if err := errors.Join(syscall.Stat(dir, &there), syscall.Stat(e.opt.Home, &home)); err != nil {
		return internal(err)
	}
	if there.Dev == home.Dev {
		return e.roomOf(what, need)
	}
	free, err := freeIn(dir)
	if err != nil {
		return internal(err)
	}
	if free < need {
		return &api.Error{Code: api.CodeNoSpace, Message: fmt.Sprintf("%s needs %d bytes, %d are free in %s", what, need, free, dir),
			Hint: "free space there, or name another folder"}
	}
	return nil
}

// snapshotError names what a snapshot has failed at. Damage of the site is said as such.
func snapshotError(err error) error {
	var damage *store.Damage
	errors.As(err, &damage)
	switch {
	case errors.Is(err, store.ErrNotErased) && damage == nil:
		return notErased(err)
	case damage != nil:
		d := damaged("%v", err)
		d.Hint = "no snapshot is made of a site that is damaged: stella ledger verify --full, and stella bundle audit, say more"
		return d
	case errors.Is(err, fs.ErrExist):
		return &api.Error{Code: api.CodeConflict, Message: "a snapshot of this second exists", Hint: "try again"}
	}
	return spaceError(err)
}

// notErased says that a copy would have had what is agreed to be erased.
func notErased(err error) error {
	out := &api.Error{Code: api.CodeConflict, Message: err.Error(), Hint: "no snapshot has that: stella bundle gc takes it out of ledger.db first; then try again"}
	if codeIs(spaceError(err), api.CodeNoSpace) {
		out.Code, out.Hint = api.CodeNoSpace, "free as much room as ledger.db has, there and in the home, and try again: stella bundle gc takes it out of ledger.db first"
	}
	return out
}

func showSnapshot(s store.Snapshot, path string) api.Snapshot {
	return api.Snapshot{
		ID: s.ID, Path: path, Origin: s.Origin, Size: s.Size, Root: s.Root, LastTime: s.LastTime, Created: s.Created,
		Stella: s.Stella, Files: s.Files, Bytes: s.Bytes, Away: s.Away,
	}
}

// ListSnapshots lists the snapshots in a folder.
func (s *site) ListSnapshots(_ context.Context, dir string) ([]api.Snapshot, error) {
	return Snapshots(s.e.opt.Home, dir)
}

// Compact rewrites ledger.db of a site that nobody holds, without its free pages, and records
// that. A dry run only looks.
func Compact(ctx context.Context, opt Options, actor string, dry bool) (out api.Compacted, err error) {
	opt.Mode, opt.Executes = ModeCommand, false
	e, err := Open(ctx, opt)
	if err != nil {
		return out, compactError(opt.Home, err)
	}
	out.Before, out.Free, out.DryRun = e.db.Bytes(), e.db.FreeBytes(), dry
	if err := e.roomOf("the new ledger.db", e.db.CompactBytes()); err != nil || dry {
		return out, errors.Join(err, e.Close())
	}
	out.Waits = e.eraseAgreed()
	if err := e.Close(); err != nil {
		return out, err
	}
	opt.Compact = true
	if e, err = Open(ctx, opt); err != nil {
		return out, compactError(opt.Home, err)
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	out.After = e.db.Bytes()
	out.Seq, err = e.db.Append(ledger.SiteCompacted, actor, &ledger.Compaction{Before: out.Before, After: out.After})
	return out, dbError(err)
}

func compactError(home string, err error) error {
	if codeIs(err, api.CodeLocked) {
		return &api.Error{Code: api.CodeLocked, Message: "another process holds " + home, Hint: "a compaction needs the site for itself: stella daemon stop"}
	}
	return err
}

func codeIs(err error, code api.Code) bool {
	var known *api.Error
	return errors.As(err, &known) && known.Code == code
}
