package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stellarun/stella/archive"
	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
)

// ArchiveTemp begins the name of an archive of runs that is not on record yet, or was not
// when its process ended.
const ArchiveTemp = ".unfinished-"

// archiveStamp is the time in the name of an archive.
const archiveStamp = "20060102T150405Z"

// ArchiveWriteOptions are options of [DB.WriteArchive]. All but Progress are required.
type ArchiveWriteOptions struct {
	List     *archive.List
	Now      time.Time // names it
	Sign     func(sums []byte) ([]byte, error)
	Signed   func(sums, signature []byte) error
	Progress func(done, total int64) // bytes of content, then of the file
}

// WriteArchive writes an archive of runs into archives/ of the home, reads all of it back, and
// returns what its entry says. Until [DB.NameArchive] it has another name, durably. Nobody may
// archive or collect garbage meanwhile. On an error nothing is left.
func (db *DB) WriteArchive(ctx context.Context, opt ArchiveWriteOptions) (*ledger.RunArchive, error) {
	dir := db.blobs.shelf.dir
	if err := fsx.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("store: archives: %w", err)
	}
	name := fmt.Sprintf("runs-%010d-%s.tar", db.Size(), opt.Now.UTC().Format(archiveStamp))
	if exists(filepath.Join(dir, name)) {
		return nil, fmt.Errorf("store: archives: %s: %w", name, fs.ErrExist)
	}
	temp := filepath.Join(dir, ArchiveTemp+name)
	if err := archive.Write(ctx, temp, archive.Options{List: opt.List, Source: inPlaceOf{db.blobs}, Sign: opt.Sign, Progress: opt.Progress}); err != nil {
		return nil, err
	}
	out, err := db.readBack(ctx, temp, opt)
	if err == nil {
		err = fsx.SyncDir(dir)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(temp))
	}
	out.File = name
	return out, nil
}

func (db *DB) readBack(ctx context.Context, path string, opt ArchiveWriteOptions) (*ledger.RunArchive, error) {
	v, err := archive.Verify(ctx, path, archive.VerifyOptions{SiteID: db.SiteID(), Signed: opt.Signed, Progress: opt.Progress, Fresh: true})
	if err != nil {
		return nil, err
	}
	raw, err := v.List.Encode()
	if err != nil {
		return nil, err
	}
	out := &ledger.RunArchive{
		SHA256: v.SHA256, Bytes: v.Bytes, Before: v.List.Before, Runs: int64(len(v.List.Runs)),
		Artifacts: int64(len(v.List.Artifacts)), Logs: int64(len(v.List.Logs)), Content: v.List.Bytes(),
	}
	out.List, err = db.blobs.Put(raw) // durable no later than the entry
	return out, err
}

// inPlaceOf opens what is in its place.
type inPlaceOf struct{ *Blobs }

// Open implements [archive.Source].
func (b inPlaceOf) Open(log bool, digest string) (io.ReadCloser, error) {
	if !log {
		return b.openPlaced(digest)
	}
	if r, err := b.openSmall(digest); r != nil || err != nil {
		return r, err
	}
	return fsx.OpenRegular(b.logPath(digest))
}

// NameArchive gives an archive that is on record its name, durably.
func (db *DB) NameArchive(rec *ledger.RunArchive) error {
	dir := db.blobs.shelf.dir
	if err := fsx.Rename(filepath.Join(dir, ArchiveTemp+rec.File), filepath.Join(dir, rec.File)); err != nil {
		return fmt.Errorf("store: archives: %w", err)
	}
	return nil
}

// SweepArchives finishes or removes what an archiving that was cut off has left: an archive
// that is on record gets its name; of another the originals are all in their places.
func (db *DB) SweepArchives() error {
	recs, err := db.Archives()
	if err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(db.blobs.shelf.dir, ArchiveTemp+"*"))
	if err != nil {
		return fmt.Errorf("store: archives: %w", err)
	}
	for _, path := range left {
		rec := recordOf(recs, strings.TrimPrefix(filepath.Base(path), ArchiveTemp))
		if rec == nil || exists(filepath.Join(db.blobs.shelf.dir, rec.File)) {
			err = os.Remove(path)
		} else {
			err = db.NameArchive(&rec.RunArchive)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func recordOf(recs []ArchiveRecord, file string) *ArchiveRecord {
	for i := range recs {
		if recs[i].File == file {
			return &recs[i]
		}
	}
	return nil
}

// ReadDoubles reads the archives on record that hold contents which are in their places as
// well, and returns those of them that can go since all of their archive is what the ledger
// says.
func (db *DB) ReadDoubles(ctx context.Context, digests []string, progress func(done, total int64)) (out []string, err error) {
	if len(digests) == 0 {
		return nil, nil
	}
	states, err := db.ArchiveStates()
	if err != nil {
		return nil, err
	}
	sound := map[string]bool{}
	for _, d := range digests {
		h, err := db.blobs.shelf.find(d, false)
		if err != nil {
			continue // it has gone, and they stay
		}
		for _, x := range h.files {
			ok, known := sound[x.path]
			if !known {
				ok = db.sound(ctx, states, x.path, progress)
				sound[x.path] = ok
			}
			if err := ctx.Err(); err != nil {
				return nil, context.Cause(ctx)
			}
			if ok {
				out = append(out, d)
				break
			}
		}
	}
	return out, nil
}

// sound reads a file, and says whether it is all of an archive on record.
func (db *DB) sound(ctx context.Context, states []ArchiveState, path string, progress func(done, total int64)) bool {
	for _, st := range states {
		for _, f := range st.Files {
			if f.Path == path && f.Err == nil && db.verifyArchive(ctx, st, f, progress) == nil {
				return true
			}
		}
	}
	return false
}

// TrashArchived moves contents that an archive on record holds into a new folder of trash/:
// blobs that are doomed, and the files of log segments. It returns how many it moved.
func (b *Blobs) TrashArchived(ctx context.Context, digests []string, now time.Time) (int, error) {
	if len(digests) == 0 {
		return 0, nil
	}
	bin, err := b.newBin(now)
	if err != nil {
		return 0, err
	}
	moved := map[string]bool{}
	if err := b.trashInto(ctx, digests, bin, moved); err != nil {
		return len(moved), err
	}
	var touched []string
	for dir, names := range byFolder(digests) {
		if err := ctx.Err(); err != nil {
			return len(moved), context.Cause(ctx)
		}
		if dir = filepath.Join(b.logs, dir); !exists(dir) {
			continue
		}
		if err := b.trashLogs(dir, names, bin, moved); err != nil {
			return len(moved), err
		}
		touched = append(touched, dir)
	}
	return len(moved), errors.Join(together(touched, fsx.SyncDir), fsx.SyncDir(bin))
}

// trashLogs moves segments of one folder. One that an attempt brings again meanwhile, byte
// for byte, is in the archive.
func (b *Blobs) trashLogs(dir string, names []string, bin string, moved map[string]bool) error {
	for _, name := range names {
		file := name + ".jsonl"
		if err := failpoint.Hit(failpoint.GCMove); err != nil {
			return err
		}
		err := os.Rename(filepath.Join(dir, file), filepath.Join(bin, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("store: trash: %w", err)
		}
		moved[name] = true
	}
	return nil
}
