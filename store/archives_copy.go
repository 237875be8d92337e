package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/stellarun/stella/internal/fsx"
)

// archiveFiles are the names of the files in archives/ that a snapshot takes, and about how
// large they are: archives of runs, and what has the name of one on record.
func (db *DB) archiveFiles() (names []string, bytes int64, err error) {
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
	for path, x := range s.files {
		name := filepath.Base(path)
		known := x.file != nil && !strings.HasPrefix(name, ArchiveTemp)
		for _, rec := range recs {
			known = known || rec.File == name || x.file != nil && x.file.List == rec.List
		}
		if fi, err := os.Lstat(path); known && err == nil {
			names, bytes = append(names, name), bytes+fi.Size()
		}
	}
	return names, bytes, nil
}

// isArchiveFile says whether a path of a snapshot is that of an archive of runs.
func isArchiveFile(p string) bool {
	name, ok := strings.CutPrefix(p, archivesName+"/")
	return ok && name != "" && !strings.Contains(name, "/")
}

// archives copies the archives of runs into a snapshot.
func (c *copier) archives(db *DB) error {
	names, _, err := db.archiveFiles()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.file(archivesName + "/" + name); err != nil {
			return err
		}
		c.digests[archiveKey(c.sums[len(c.sums)-1].sha256)] = true
	}
	return nil
}

// archive adds an archive of runs to the home that is restored, unless it is there. One that
// is called the same stays, and this one gets another name: it is known by what it holds.
func (c *copier) archive(home string, x fileSum) error {
	f, err := fsx.OpenRegular(filepath.Join(c.from, filepath.FromSlash(x.path)))
	if err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	defer f.Close()
	place := filepath.FromSlash(x.path)
	if _, err := hashIs(filepath.Join(home, place), x.sha256); err != nil && !errors.Is(err, fs.ErrNotExist) {
		place = unused(home, strings.TrimSuffix(place, ".tar")+"-restored.tar")
	}
	h, w := sha256.New(), io.Discard
	var out *fsx.File
	if !c.dry {
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
	c.digests[archiveKey(x.sha256)] = true
	if c.dry {
		return nil
	}
	if err := out.Commit(); err != nil {
		return fmt.Errorf("store: restore: %s: %w", x.path, err)
	}
	return nil
}
