package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
)

// trashFor is how long what was given up can still be taken back by hand.
const trashFor = 24 * time.Hour

// trashStamp begins the name of a folder of trash/.
const trashStamp = "20060102T150405Z"

// Each calls f for every sealed blob that is in its place: twice for one that is
// both a file and a record.
func (b *Blobs) Each(f func(digest string, size int64) error) error {
	err := b.list(func(string, fs.FileInfo) error { return nil },
		func(digest string, fi fs.FileInfo) error { return f(digest, fi.Size()) })
	if err != nil {
		return err
	}
	return b.eachSmall(func(digest string, raw []byte) error {
		if !isDigest(digest) {
			return nil
		}
		return f(digest, int64(len(raw)))
	})
}

// RecordCollection writes what a collection gives up, before anything of it is
// moved.
func (db *DB) RecordCollection(actor string, d *ledger.GarbageCollection) (int64, error) {
	return db.Append(ledger.GCCompleted, actor, d)
}

// Trash moves doomed blobs into a new folder of trash/; those that were saved
// meanwhile stay. It returns how many it moved.
func (b *Blobs) Trash(ctx context.Context, digests []string, now time.Time) (int, error) {
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
	return len(moved), fsx.SyncDir(bin)
}

// newBin makes a new folder of trash/.
func (b *Blobs) newBin(now time.Time) (string, error) {
	var id [4]byte
	rand.Read(id[:])
	bin := filepath.Join(b.trash, now.UTC().Format(trashStamp)+"-"+hex.EncodeToString(id[:]))
	if err := fsx.Mkdir(bin, 0o700); err != nil {
		return "", fmt.Errorf("store: trash: %w", err)
	}
	return bin, nil
}

// trashInto moves doomed blobs into a folder of trash/, and adds them to moved.
func (b *Blobs) trashInto(ctx context.Context, digests []string, bin string, moved map[string]bool) error {
	if err := b.trashSmall(ctx, digests, bin, moved); err != nil {
		return err
	}
	for dir, names := range byFolder(digests) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.trashFrom(filepath.Join(b.dir, dir), names, bin, moved); err != nil {
			return err
		}
	}
	return nil
}

// trashFrom moves blobs of one folder, and adds them to moved. The lock is held
// for that folder only.
func (b *Blobs) trashFrom(dir string, names []string, bin string, moved map[string]bool) (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() {
		for _, name := range names {
			if moved[name] {
				delete(b.pins.doomed, name)
			}
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("store: trash: %w", err)
	}
	defer func() { err = errors.Join(err, os.Chmod(dir, 0o555)) }()
	for _, name := range names {
		if _, ok := b.pins.doomed[name]; !ok {
			continue
		}
		if err := failpoint.Hit(failpoint.GCMove); err != nil {
			return err
		}
		err := os.Rename(filepath.Join(dir, name), filepath.Join(bin, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("store: trash: %w", err)
		}
		moved[name] = true
	}
	return fsx.SyncDir(dir)
}

func byFolder(digests []string) map[string][]string {
	out := map[string][]string{}
	for _, d := range digests {
		out[d[:2]] = append(out[d[:2]], d)
	}
	return out
}

// EmptyTrash deletes what was given up more than a day before now, and says how
// many files and bytes that were. What else lies in trash/ is left alone.
func (b *Blobs) EmptyTrash(ctx context.Context, now time.Time, dry bool) (files, bytes int64, err error) {
	bins, err := os.ReadDir(b.trash)
	if err != nil {
		return 0, 0, fmt.Errorf("store: trash: %w", err)
	}
	for _, bin := range bins {
		stamp, _, ok := strings.Cut(bin.Name(), "-")
		at, perr := time.Parse(trashStamp, stamp)
		if !ok || perr != nil || !bin.IsDir() || now.Sub(at) < trashFor {
			continue
		}
		if err := ctx.Err(); err != nil {
			return files, bytes, err
		}
		path := filepath.Join(b.trash, bin.Name())
		n, size, err := measureBin(path)
		if err != nil {
			return files, bytes, err
		}
		if !dry {
			if err := failpoint.Hit(failpoint.GCEmpty); err != nil {
				return files, bytes, err
			}
			if err := os.RemoveAll(path); err != nil {
				return files, bytes, fmt.Errorf("store: trash: %w", err)
			}
		}
		files, bytes = files+n, bytes+size
	}
	return files, bytes, nil
}

func measureBin(path string) (files, bytes int64, err error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return 0, 0, fmt.Errorf("store: trash: %w", err)
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			files, bytes = files+1, bytes+fi.Size()
		}
	}
	return files, bytes, nil
}

// Superseded picks the bundles that have keep or more newer ones of the same
// kind, publisher and name, and whose contents are here. Newer is the higher
// sequence, or any of a later epoch. Trust and secrets are never among them.
func Superseded(recs []BundleRecord, keep int) []BundleRecord {
	byName := map[string][]BundleRecord{}
	for _, r := range recs {
		v := r.Admission.Verdict
		if k := v.Kind; k == "plugin" || k == "dag" || k == "data" {
			key := k + "\x00" + v.Publisher + "\x00" + v.Name
			byName[key] = append(byName[key], r)
		}
	}
	var out []BundleRecord
	for _, list := range byName {
		slices.SortFunc(list, func(a, b BundleRecord) int {
			return cmp.Or(cmp.Compare(b.Admission.Epoch, a.Admission.Epoch),
				cmp.Compare(b.Admission.Verdict.Sequence, a.Admission.Verdict.Sequence), cmp.Compare(a.Digest, b.Digest))
		})
		for _, r := range list[min(keep, len(list)):] {
			if r.Removed == 0 {
				out = append(out, r)
			}
		}
	}
	slices.SortFunc(out, func(a, b BundleRecord) int { return strings.Compare(a.Ref(), b.Ref()) })
	return out
}
