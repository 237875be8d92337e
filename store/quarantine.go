package store

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/fsx"
)

// Quarantine is a place for blobs that are not judged yet. Either [Quarantine.Seal]
// or [Quarantine.Discard] ends it; Discard after Seal does nothing.
type Quarantine struct {
	blobs  *Blobs
	dir    string
	names  []string // to be moved
	whole  []string // sealed already, and hashed again
	have   map[string]bool
	pinned map[string]bool
}

// Quarantine makes an empty quarantine.
func (b *Blobs) Quarantine() (*Quarantine, error) {
	var id [8]byte
	rand.Read(id[:])
	dir := filepath.Join(b.quarantine, hex.EncodeToString(id[:]))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: quarantine: %w", err)
	}
	return &Quarantine{blobs: b, dir: dir, have: map[string]bool{}, pinned: map[string]bool{}}, nil
}

// Dir is the folder of the quarantine, for spool files of the caller; they go
// with it.
func (q *Quarantine) Dir() string { return q.dir }

// has says whether a digest is in this quarantine, or sealed and whole.
func (q *Quarantine) has(digest string) bool {
	if q.have[digest] {
		return true
	}
	if !q.hold(digest) || !q.blobs.intact(digest) {
		return false
	}
	q.have[digest] = true
	q.whole = append(q.whole, digest)
	return true
}

// Has says whether a blob is sealed and whole, and keeps it for as long as the
// quarantine lives.
func (q *Quarantine) Has(digest string) bool { return len(digest) == 64 && q.has(digest) }

// Add copies bytes in, hashing them; other bytes than the digest's are
// [ErrDigest]. Bytes that are sealed already are read, checked and not kept,
// unless what is sealed is damaged: then Seal replaces it.
func (q *Quarantine) Add(digest string, r io.Reader) (err error) {
	h := sha256.New()
	var w io.Writer = h
	keep := !q.has(digest)
	if keep {
		f, err := os.OpenFile(filepath.Join(q.dir, digest), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
		if err != nil {
			return fmt.Errorf("store: quarantine: %w", err)
		}
		defer func() {
			if cerr := f.Close(); err == nil {
				err = cerr
			}
			if err != nil {
				os.Remove(f.Name())
			}
		}()
		w = io.MultiWriter(f, h)
	}
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != digest {
		return fmt.Errorf("%w: %s", ErrDigest, digest)
	}
	if keep {
		q.have[digest] = true
		q.names = append(q.names, digest)
	}
	return nil
}

// Seal syncs everything and moves it into the sealed store. What was sealed
// before and found whole is made durable too, since whoever sealed it may have
// ended before its name was. On an error some blobs may be in place; they are
// complete, and nothing names them.
func (q *Quarantine) Seal() error { return SealAll(q) }

// SealAll seals several quarantines of one store at the price of one: they
// share the syncs. See [Quarantine.Seal].
func SealAll(qs ...*Quarantine) error {
	if len(qs) == 0 {
		return nil
	}
	b := qs[0].blobs
	if err := syncAll(qs); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	touched, opened := map[string]bool{}, map[string]bool{}
	for _, q := range qs {
		for _, name := range q.whole {
			touched[filepath.Dir(b.Path(name))] = true
		}
		for _, name := range q.names {
			if err := failpoint.Hit(failpoint.SealBlob); err != nil {
				return err
			}
			dir := filepath.Dir(b.Path(name))
			if !opened[dir] {
				if err := b.openFolder(dir); err != nil {
					return err
				}
				defer os.Chmod(dir, 0o555)
				opened[dir], touched[dir] = true, true
			}
			if err := q.move(name); err != nil {
				return err
			}
		}
	}
	if err := b.syncFolders(touched); err != nil {
		return err
	}
	var errs []error
	for _, q := range qs {
		for _, name := range slices.Concat(q.names, q.whole) {
			b.learn(name)
		}
		q.names, q.whole = nil, nil
		errs = append(errs, os.RemoveAll(q.dir))
	}
	return errors.Join(errs...)
}

// move puts one content into its place; a damaged one there is replaced.
func (q *Quarantine) move(name string) error {
	from := filepath.Join(q.dir, name)
	if err := os.Chmod(from, 0o444); err != nil {
		return fmt.Errorf("store: seal: %w", err)
	}
	delete(q.blobs.known, name)
	delete(q.blobs.pins.doomed, name) // its bytes are here again
	if err := os.Rename(from, q.blobs.Path(name)); err != nil {
		return fmt.Errorf("store: seal: %w", err)
	}
	return nil
}

// syncFolders makes the names in fan-out folders durable, and once those of
// the folders themselves; b.mu is held.
func (b *Blobs) syncFolders(dirs map[string]bool) error {
	if err := together(slices.Collect(maps.Keys(dirs)), fsx.SyncDir); err != nil {
		return err
	}
	if b.synced || len(dirs) == 0 {
		return nil
	}
	if err := fsx.SyncDir(b.dir); err != nil {
		return err
	}
	b.synced = true
	return nil
}

// syncAll makes every content durable.
func syncAll(qs []*Quarantine) error {
	var paths []string
	for _, q := range qs {
		for _, name := range q.names {
			paths = append(paths, filepath.Join(q.dir, name))
		}
	}
	return together(paths, syncFile)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("store: seal: %w", err)
	}
	return nil
}

// together syncs several paths at a time, which share the commits of the file
// system's journal: what many small files wait for. It returns the first error.
func together(paths []string, one func(path string) error) error {
	const atATime = 16
	errs := make(chan error, len(paths))
	slots := make(chan struct{}, atATime)
	var wg sync.WaitGroup
	for _, path := range paths {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs <- one(path)
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// openFolder makes a fan-out folder writable, creating it where it is not
// there: then syncFolders makes its name durable. b.mu is held.
func (b *Blobs) openFolder(dir string) error {
	err := os.Chmod(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		b.synced = false
		err = os.Mkdir(dir, 0o755)
		if err == nil {
			err = os.Chmod(dir, 0o755) // whatever the umask
		}
	}
	if err != nil {
		return fmt.Errorf("store: seal: %w", err)
	}
	return nil
}

// Discard removes the quarantine and what is still in it, and lets go of the
// blobs that it relied on: what it sealed must have been named by then.
func (q *Quarantine) Discard() {
	os.RemoveAll(q.dir)
	q.release()
}

// SweepQuarantine removes what a process that died has left. Call it once,
// right after the lock was taken.
func (b *Blobs) SweepQuarantine() error {
	entries, err := os.ReadDir(b.quarantine)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: quarantine: %w", err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(b.quarantine, e.Name())); err != nil {
			return fmt.Errorf("store: quarantine: %w", err)
		}
	}
	return nil
}

// Begin opens a file of the quarantine for content that the caller verifies
// while it writes. Nil means that the digest is here already, and whole.
func (q *Quarantine) Begin(digest string) (*Incoming, error) {
	if len(digest) != 64 {
		return nil, fmt.Errorf("%w: %q", ErrDigest, digest)
	}
	if q.has(digest) {
		return nil, nil
	}
	f, err := os.OpenFile(filepath.Join(q.dir, digest), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return nil, fmt.Errorf("store: quarantine: %w", err)
	}
	return &Incoming{File: f, q: q, digest: digest}, nil
}

// Incoming is a content under way into a quarantine. Commit or Abort ends it.
type Incoming struct {
	*os.File
	q      *Quarantine
	digest string
}

// Commit makes the content part of the quarantine: the caller vouches that it
// has the digest.
func (i *Incoming) Commit() error {
	if err := i.Close(); err != nil {
		return fmt.Errorf("store: quarantine: %w", err)
	}
	i.q.have[i.digest] = true
	i.q.names = append(i.q.names, i.digest)
	return nil
}

// Abort removes the content.
func (i *Incoming) Abort() error { return errors.Join(i.Close(), os.Remove(i.Name())) }

// AddBytes puts raw into the quarantine under its digest.
func (q *Quarantine) AddBytes(raw []byte) error {
	sum := sha256.Sum256(raw)
	return q.Add(hex.EncodeToString(sum[:]), bytes.NewReader(raw))
}
