package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

// A snapshot is a folder that is laid out like a home, without what is private, under way or
// made again: ledger.db, site.toml, checkpoint.note, trust/, secrets/ (which are encrypted),
// sealed/, logs/ and the archives of runs that are there. snapshot.json says what it is, SHA256SUMS lists every other file, and the
// site's key signs that list. It has its name only once it is whole, synced and checked.

// SnapshotSchema is the version of the layout.
const SnapshotSchema = "stella.snapshot/1"

// Names of the files of a snapshot that a home does not have.
const (
	snapshotFile  = "snapshot.json"
	snapshotSums  = "SHA256SUMS"
	snapshotSig   = "SHA256SUMS.sigstore.json"
	snapshotTemp  = ".unfinished-"
	maxSnapshot   = 64 << 10  // snapshot.json, signature
	maxSumsFile   = 256 << 20 // SHA256SUMS
	snapshotStamp = "20060102T150405Z"
)

// Snapshot is what a snapshot says of itself.
type Snapshot struct {
	Schema       string `json:"schema"`
	ID           string `json:"id"`
	SiteID       string `json:"siteId"`
	Origin       string `json:"origin"`
	Size         int64  `json:"size"` // entries
	Root         string `json:"root"`
	LastTime     string `json:"lastTime"` // of the last entry
	Created      string `json:"created"`
	Stella       string `json:"stella"`
	LedgerSchema int64  `json:"ledgerSchema"`
	Files        int64  `json:"files"` // that SHA256SUMS lists, but for this one
	Bytes        int64  `json:"bytes"`
	// Away are the names of archives of runs that are in no snapshot, since they were not here.
	Away []string `json:"away,omitempty"`
}

// SnapshotOptions are options of [DB.Snapshot]. Dir, Stella and Sign are required.
type SnapshotOptions struct {
	Dir      string                            // which gets the snapshot's folder; it must exist
	Stella   string                            // version of the program
	Now      time.Time                         // names it
	Sign     func(sums []byte) ([]byte, error) // a Sigstore file over SHA256SUMS
	Check    CheckOptions                      // of the copy; Blobs is implied
	Progress func(done, total int64)           // bytes; may be nil
}

// maxSnapshotName bounds the names of files that a snapshot takes.
const maxSnapshotName = 255

// Snapshot makes a snapshot while the site is in use, and returns its folder. Nobody may
// collect garbage meanwhile. Each file is hashed while it is copied, and what is sealed must
// be what its name says; then the copy of the ledger is checked as [DB.Check] does, and that
// all it names is there. On an error nothing is left.
func (db *DB) Snapshot(ctx context.Context, opt SnapshotOptions) (s Snapshot, dir string, sums string, err error) {
	temp, err := os.MkdirTemp(opt.Dir, snapshotTemp)
	if err != nil {
		return s, "", "", fmt.Errorf("store: snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(temp)
		}
	}()
	c := &copier{ctx: ctx, from: db.home, to: temp, digests: map[string]bool{}, progress: opt.Progress, dirs: map[string]bool{temp: true}}
	read, err := db.freeze(c)
	if err != nil {
		return s, "", "", err
	}
	err = c.database(read)
	if err := errors.Join(err, read.Rollback()); err != nil {
		return s, "", "", err
	}
	if err := c.erase(db.now); err != nil {
		return s, "", "", err
	}
	if err := errors.Join(c.folder("sealed/sha256", isBlobFile), c.folder("logs", isLogFile), c.archives(db)); err != nil {
		return s, "", "", err
	}
	if err := c.sync(); err != nil {
		return s, "", "", err
	}
	if s, err = db.checkCopy(ctx, temp, c.digests, opt); err != nil {
		return s, "", "", err
	}
	s.Files, s.Bytes = int64(len(c.sums)), c.done
	list, err := c.finish(s, opt.Sign)
	if err != nil {
		return s, "", "", err
	}
	dir = filepath.Join(opt.Dir, s.ID)
	if _, err := os.Lstat(dir); err == nil {
		return s, "", "", fmt.Errorf("store: snapshot: %s: %w", dir, fs.ErrExist)
	}
	if err := fsx.Rename(temp, dir); err != nil {
		return s, "", "", fmt.Errorf("store: snapshot: %w", err)
	}
	return s, dir, hexSum(list), nil
}

func hexSum(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// StageSnapshot makes a folder for a snapshot that does not stay, which [SweepSnapshots] finds.
func StageSnapshot(dir string) (string, error) {
	stage, err := os.MkdirTemp(dir, snapshotTemp)
	if err != nil {
		return "", fmt.Errorf("store: snapshot: %w", err)
	}
	return stage, nil
}

// SweepSnapshots removes what snapshots that were cut off have left in a folder, where nobody
// makes one.
func SweepSnapshots(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, snapshotTemp+"*"))
	for _, x := range left {
		err = errors.Join(err, os.RemoveAll(x))
	}
	if err != nil {
		return fmt.Errorf("store: snapshot: %w", err)
	}
	return nil
}

// freeze copies what changes its content, while nobody writes, and returns a transaction that
// reads the database as it is at that moment: what entries name is on disk before them, and
// goes only after others.
func (db *DB) freeze(c *copier) (read *bolt.Tx, err error) {
	err = db.still(func() error { // not in a transaction of the writer: its commit may have to wait for those who read
		if err := db.Failure(); err != nil { // its entry could not be written
			return fmt.Errorf("%w: %w", ErrFailed, err)
		}
		if read, err = db.begin(db.base.Load(), false); err != nil {
			return err
		}
		c.total = read.Size()
		for _, dir := range []string{"sealed/sha256", "logs", "secrets", "trust"} {
			c.total += sizeOf(filepath.Join(c.from, filepath.FromSlash(dir)))
		}
		_, archives, err := db.archiveFiles()
		if c.total += archives; err != nil {
			return err
		}
		for _, name := range []string{"site.toml", "checkpoint.note"} {
			if err := c.file(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return errors.Join(c.folder("trust", isPlainFile), c.folder("secrets", isPlainFile))
	})
	if err != nil && read != nil {
		return nil, errors.Join(err, read.Rollback())
	}
	return read, err
}

// sizeOf is about how many bytes lie below a folder.
func sizeOf(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if fi, err := d.Info(); err == nil {
			n += fi.Size()
		}
		return nil
	})
	return n
}

// SnapshotBytes is about how large a snapshot becomes.
func (db *DB) SnapshotBytes() (n int64) {
	_ = db.view(func(t *bolt.Tx) error {
		n = t.Size() // the file goes on behind its pages
		return nil
	})
	for _, dir := range []string{"sealed", "logs", "secrets", "trust"} {
		n += sizeOf(filepath.Join(db.home, dir))
	}
	_, archives, _ := db.archiveFiles()
	return n + archives
}

func isPlainFile(p string) bool { return !fsx.IsTemp(path.Base(p)) }

// isBlobFile says whether a path below sealed/sha256 is that of a blob.
func isBlobFile(p string) bool {
	dir, name := path.Split(p)
	return len(name) == 64 && isHexName(name) && dir == name[:2]+"/"
}

// isLogFile says whether a path below logs is that of a segment that has ended.
func isLogFile(p string) bool {
	name, ok := strings.CutSuffix(p, ".jsonl")
	return ok && isBlobFile(name)
}

func isHexName(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') }) < 0
}

// copier copies files of a home, hashes them, and lists them.
type copier struct {
	ctx         context.Context
	from, to    string
	sums        []fileSum
	digests     map[string]bool // of blobs and segments that are in the copy and are what their names say
	dirs        map[string]bool // of the copy, to be synced
	done, total int64           // bytes
	progress    func(done, total int64)
	dry         bool // what is sealed is only hashed
}

// fileSum is a line of SHA256SUMS.
type fileSum struct{ path, sha256 string }

// folder copies the files below a folder that take says; a folder that is not there is empty.
// Links and special files are refused: stella makes none.
func (c *copier) folder(name string, take func(path string) bool) error {
	root := filepath.Join(c.from, filepath.FromSlash(name))
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was never made, or an attempt that has ended was moved
		}
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil || !take(filepath.ToSlash(rel)) {
			return err
		}
		return c.file(path.Join(name, filepath.ToSlash(rel)))
	})
}

// file copies one file.
func (c *copier) file(name string) error {
	f, err := fsx.OpenRegular(filepath.Join(c.from, filepath.FromSlash(name)))
	if err != nil {
		return fmt.Errorf("store: snapshot: %w", err)
	}
	defer f.Close()
	digest, err := c.put(name, func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	})
	if err != nil {
		return err
	}
	base := strings.TrimSuffix(path.Base(name), ".jsonl")
	if !isBlobFile(path.Join(base[:min(2, len(base))], base)) {
		return nil
	}
	if base != digest {
		return damaged(ErrDigest, "%s", name)
	}
	c.digests[hashedName(name, digest)] = true
	return nil
}

// hashedName is what a check calls a sealed file, or a segment.
func hashedName(path, digest string) string {
	if strings.HasPrefix(path, "logs/") {
		return logKey(digest)
	}
	return digest
}

// put writes one file of the copy and lists it.
func (c *copier) put(name string, write func(io.Writer) error) (digest string, err error) {
	if len(name) > maxSnapshotName || strings.ContainsAny(name, "\n\\") {
		return "", fmt.Errorf("store: snapshot: %q is no name that stella gives", name)
	}
	if err := failpoint.Hit(failpoint.SnapshotWrite); err != nil {
		return "", fmt.Errorf("store: snapshot: %w", err)
	}
	to := filepath.Join(c.to, filepath.FromSlash(name))
	if err := c.mkdir(filepath.Dir(to)); err != nil {
		return "", err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return "", fmt.Errorf("store: snapshot: %w", err)
	}
	h := sha256.New()
	err = write(io.MultiWriter(f, h, counting{c}))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("store: snapshot: %s: %w", name, err)
	}
	digest = hex.EncodeToString(h.Sum(nil))
	c.sums = append(c.sums, fileSum{name, digest})
	return digest, nil
}

func (c *copier) mkdir(dir string) error {
	if c.dirs[dir] {
		return nil
	}
	if err := c.mkdir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("store: snapshot: %w", err)
	}
	c.dirs[dir] = true
	return nil
}

// counting counts bytes, and ends with the context.
type counting struct{ c *copier }

func (w counting) Write(b []byte) (int, error) {
	if err := w.c.ctx.Err(); err != nil {
		return 0, context.Cause(w.c.ctx)
	}
	w.c.done += int64(len(b))
	if w.c.progress != nil {
		w.c.progress(min(w.c.done, w.c.total), w.c.total)
	}
	return len(b), nil
}

// database copies the database as a transaction reads it.
func (c *copier) database(read *bolt.Tx) error {
	_, err := c.put(fileName, func(w io.Writer) error {
		_, err := read.WriteTo(w)
		return err
	})
	return err
}

// erase takes what is agreed to be erased out of the copy of the database, before anything is
// said of that: whoever opens it from then on changes nothing.
func (c *copier) erase(now func() time.Time) (err error) {
	path := filepath.Join(c.to, fileName)
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("store: snapshot: %w", err)
	}
	other, err := Open(c.to, Options{Now: now})
	if err != nil {
		return err
	}
	waits := other.Waiting() > 0
	if err = other.eraseAgreed(Options{}); err != nil {
		err = fmt.Errorf("%w: %w", ErrNotErased, err)
	}
	if err := errors.Join(err, other.Close()); err != nil || !waits {
		return err
	}
	digest, err := fileDigest(path)
	if err != nil {
		return fmt.Errorf("store: snapshot: %w", err)
	}
	i := slices.IndexFunc(c.sums, func(s fileSum) bool { return s.path == fileName })
	c.sums[i].sha256 = digest
	return nil
}

// fileDigest is the SHA-256 of a file.
func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sync makes the names of all files durable.
func (c *copier) sync() error {
	for dir := range c.dirs {
		if err := fsx.SyncDir(dir); err != nil {
			return fmt.Errorf("store: snapshot: %w", err)
		}
	}
	return nil
}

// checkCopy checks the database of a copy, and that every sealed file it names is among those
// that were copied.
func (db *DB) checkCopy(ctx context.Context, dir string, copied map[string]bool, opt SnapshotOptions) (s Snapshot, err error) {
	other, err := Open(dir, Options{Now: db.now})
	if err != nil {
		return s, err
	}
	check := opt.Check
	check.Blobs, check.Hashed, check.Scratch, check.Logs = true, copied, filepath.Join(db.home, "cache"), other.shortLog
	rep, err := other.Check(ctx, check)
	last := other.LastTime()
	err = errors.Join(err, other.Close())
	if err != nil {
		return s, err
	}
	now := opt.Now.UTC()
	for _, x := range rep.Away {
		s.Away = append(s.Away, x.File)
	}
	return Snapshot{
		Away:   s.Away,
		Schema: SnapshotSchema, ID: fmt.Sprintf("%010d-%s", rep.Size, now.Format(snapshotStamp)), SiteID: other.SiteID(), Origin: other.Origin(),
		Size: rep.Size, Root: ledger.HexHash(rep.Root), LastTime: stamp.Format(last), Created: stamp.Format(now),
		Stella: opt.Stella, LedgerSchema: schemaVersion,
	}, nil
}

// shortLog opens a segment that has no file.
func (db *DB) shortLog(digest string) (io.ReadCloser, error) {
	raw, err := db.blobs.Small(digest)
	if err == nil && raw == nil {
		err = fmt.Errorf("log segment %s: %w", digest, ErrNotFound)
	}
	return io.NopCloser(bytes.NewReader(raw)), err
}

// finish writes snapshot.json, the list of all files, and its signature, and syncs.
func (c *copier) finish(s Snapshot, sign func([]byte) ([]byte, error)) (sums []byte, err error) {
	raw, err := jcs.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("store: snapshot: %w", err)
	}
	if _, err := c.put(snapshotFile, writing(append(raw, '\n'))); err != nil {
		return nil, err
	}
	sums = encodeSums(c.sums)
	sig, err := sign(sums)
	if err != nil {
		return nil, fmt.Errorf("store: snapshot: %w", err)
	}
	if _, err := c.put(snapshotSums, writing(sums)); err != nil {
		return nil, err
	}
	if _, err := c.put(snapshotSig, writing(sig)); err != nil {
		return nil, err
	}
	return sums, fsx.SyncDir(c.to)
}

func writing(raw []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(raw)
		return err
	}
}
