package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/fsx"
)

// archiveFiles are the files in archives/ that a snapshot may take, and about how large they
// are: archives of runs, and what has the name of one on record. What cannot be opened is as
// one that is not here.
func (db *DB) archiveFiles() (files []*shelved, bytes int64, err error) {
	recs, err := db.Archives()
	if err != nil {
		return nil, 0, err
	}
	s := db.blobs.shelf
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.look(); err != nil {
		return nil, 0, err
	}
	for _, x := range s.files {
		name := filepath.Base(x.path)
		taken := x.file != nil && (x.known || !strings.HasPrefix(name, ArchiveTemp)) || x.closed() == nil && recordOf(recs, name) != nil
		if fi, err := os.Lstat(x.path); taken && err == nil {
			files, bytes = append(files, x), bytes+fi.Size()
		}
	}
	return files, bytes, nil
}

// wholeArchives are those of the files that a snapshot takes. Of an archive on record that is
// the first file which is what the ledger says, where there are several; if none of these is,
// it takes them all, and its check says so.
func (db *DB) wholeArchives(ctx context.Context) (names []string, err error) {
	files, _, err := db.archiveFiles()
	if err != nil {
		return nil, err
	}
	recs, err := db.Archives()
	if err != nil {
		return nil, err
	}
	left := map[string]bool{} // names of files that are not taken
	for _, rec := range recs {
		same := slices.DeleteFunc(slices.Clone(files), func(x *shelved) bool {
			return (x.file == nil || x.file.List != rec.List) && (x.known || filepath.Base(x.path) != rec.File)
		})
		if len(same) < 2 {
			continue
		}
		for _, x := range same {
			if err := ctx.Err(); err != nil {
				return nil, context.Cause(ctx)
			}
			if _, err := hashIs(x.path, rec.SHA256); err != nil {
				continue
			}
			for _, y := range same {
				left[filepath.Base(y.path)] = y != x
			}
			break
		}
	}
	for _, x := range files {
		if name := filepath.Base(x.path); !left[name] {
			names = append(names, name)
		}
	}
	return names, nil
}

// isArchiveFile says whether a path of a snapshot is that of an archive of runs.
func isArchiveFile(p string) bool {
	name, ok := strings.CutPrefix(p, archivesName+"/")
	return ok && name != "" && !strings.Contains(name, "/")
}

// archives copies the archives of runs into a snapshot.
func (c *copier) archives(db *DB) error {
	names, err := db.wholeArchives(c.ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.file(archivesName + "/" + name); err != nil {
			return err
		}
		c.digests[archiveKey(name, c.sums[len(c.sums)-1].sha256)] = true
	}
	return nil
}

// archive adds an archive of runs to the home that is restored, unless it is there, under
// any name. One that is called the same stays, and this one gets another name: it is known
// by what it holds.
func (c *copier) archive(home string, x fileSum) error {
	f, err := fsx.OpenRegular(filepath.Join(c.from, filepath.FromSlash(x.path)))
	if err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	defer f.Close()
	place := filepath.FromSlash(x.path)
	there, err := copyOf(f, filepath.Join(home, archivesName), x.sha256)
	if err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	if exists(filepath.Join(home, place)) {
		place = unused(home, strings.TrimSuffix(place, ".tar")+"-restored.tar")
	}
	h, w := sha256.New(), io.Discard
	var out *fsx.File
	if !c.dry && there == "" {
		if out, err = fsx.Create(filepath.Join(home, place), 0o400); err != nil {
			return fmt.Errorf("store: restore: %w", err)
		}
		defer out.Close()
		w = out
	}
	if _, err := io.Copy(io.MultiWriter(h, counting{c}, w), f); err != nil {
		return fmt.Errorf("store: restore: %s: %w", x.path, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != x.sha256 {
		return damaged(ErrDigest, "%s of the snapshot", x.path)
	}
	if c.dry { // the check looks into the snapshot
		place, there = x.path, ""
	}
	c.digests[archiveKey(cmp.Or(there, place), x.sha256)] = true
	if out == nil {
		return nil
	}
	if err := out.Commit(); err != nil {
		return fmt.Errorf("store: restore: %s: %w", x.path, err)
	}
	return nil
}

// copyOf is the name of a file of a folder that is as large as f and has this digest, ""
// where there is none.
func copyOf(f *os.File, dir, digest string) (string, error) {
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || !info.Mode().IsRegular() || info.Size() != fi.Size() || strings.HasPrefix(e.Name(), ArchiveTemp) {
			continue
		}
		if _, err := hashIs(filepath.Join(dir, e.Name()), digest); err == nil {
			return e.Name(), nil
		}
	}
	return "", nil
}
