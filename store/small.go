package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/failpoint"
)

// MaxSmall is the most bytes of a blob that [Blobs.Put] keeps in ledger.db
// instead of a file of its own.
const MaxSmall = 4 << 10

// maxWaiting is how many bytes of small blobs may wait for a commit that is not
// there for them: more are written with the next transaction even if nothing
// else of it is kept.
const maxWaiting = 1 << 20

// small is the part of a site's blobs that lies in ledger.db: what the machine
// itself made and what is too little for a file, as inputs, parameters and
// outputs mostly are. A blob that was put waits in memory for the next
// transaction, which writes it before the entries that name it: it is durable no
// later than they are, and costs no sync of its own. The mutex of [Blobs] guards
// it.
type small struct {
	db      *DB
	waiting map[string][]byte   // by digest
	size    int                 // bytes that wait
	known   map[string]struct{} // in ledger.db, as this process has seen
}

// Put seals raw, which this machine has made, and returns its digest. A reader
// finds it at once. It is durable when the next entry is: whoever names it in an
// entry need not wait for anything else.
func (b *Blobs) Put(raw []byte) (string, error) {
	if len(raw) > MaxSmall {
		return b.PutFile(raw)
	}
	sum := sha256.Sum256(raw)
	digest := hex.EncodeToString(sum[:])
	b.pinRecent(digest)
	if b.hasSmall(digest) || b.durable(digest, int64(len(raw))) {
		return digest, nil
	}
	there, err := b.stored(digest)
	if err != nil {
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, doomed := b.pins.doomed[digest]; !doomed && bytes.Equal(there, raw) && there != nil {
		b.learnSmall(digest)
		return digest, nil
	}
	delete(b.pins.doomed, digest) // its bytes are here again
	delete(b.small.known, digest)
	if _, ok := b.small.waiting[digest]; !ok {
		b.small.waiting[digest] = append([]byte{}, raw...) // never nil, even of nothing
		b.small.size += len(raw)
	}
	return digest, nil
}

// hasSmall says whether a small blob waits, or is known to be in ledger.db.
func (b *Blobs) hasSmall(digest string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, doomed := b.pins.doomed[digest]; doomed {
		return false
	}
	_, waits := b.small.waiting[digest]
	_, known := b.small.known[digest]
	return waits || known
}

// learnSmall remembers a digest; b.mu is held.
func (b *Blobs) learnSmall(digest string) {
	if len(b.small.known) >= maxKnown {
		clear(b.small.known)
	}
	b.small.known[digest] = struct{}{}
}

// stored reads a small blob from ledger.db; nil where it is not there.
func (b *Blobs) stored(digest string) (raw []byte, err error) {
	err = b.small.db.view(func(t *bolt.Tx) error {
		if v := t.Bucket(bSmall).Get([]byte(digest)); v != nil {
			raw = append([]byte{}, v...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store: sealed blob %s: %w", digest, err)
	}
	return raw, nil
}

// Small reads a blob that has no file; nil where there is none. Its bytes are not
// checked.
func (b *Blobs) Small(digest string) ([]byte, error) {
	b.mu.Lock()
	raw, ok := b.small.waiting[digest]
	b.mu.Unlock()
	if ok {
		return raw, nil
	}
	return b.stored(digest)
}

// reader reads a small blob, like a file that is open.
type reader struct{ *bytes.Reader }

// Close implements [io.Closer].
func (reader) Close() error { return nil }

// openSmall opens a small blob whose bytes are what its name says; nil where
// there is none such.
func (b *Blobs) openSmall(digest string) (io.ReadCloser, error) {
	raw, err := b.Small(digest)
	if raw == nil || err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != digest {
		if _, err := os.Lstat(b.Path(digest)); err == nil {
			return nil, nil // there is a file as well
		}
	}
	return reader{bytes.NewReader(raw)}, nil
}

// take hands the writer what waits. It waits on until wrote is called.
func (b *Blobs) take() map[string][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.small.waiting) == 0 {
		return nil
	}
	out := make(map[string][]byte, len(b.small.waiting))
	for digest, raw := range b.small.waiting {
		out[digest] = raw
	}
	return out
}

// wrote is called when blobs are on disk.
func (b *Blobs) wrote(blobs map[string][]byte) {
	if len(blobs) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for digest, raw := range blobs {
		delete(b.small.waiting, digest)
		b.small.size -= len(raw)
		b.learnSmall(digest)
	}
}

// putSmall writes blobs into the transaction. They are no part of any request in
// it, so that nothing undoes them.
func (tx *Tx) putSmall(blobs map[string][]byte) error {
	b := tx.bolt.Bucket(bSmall)
	for digest, raw := range blobs {
		key := []byte(digest)
		if b.Get(key) == nil {
			tx.sums.add(sumSmall, key, nil)
		}
		if err := b.Put(key, raw); err != nil {
			return err
		}
	}
	return nil
}

// eachSmall calls f for every small blob that is stored, with its bytes, which f
// must not keep.
func (b *Blobs) eachSmall(f func(digest string, raw []byte) error) error {
	return scan(b.small.db, bSmall, nil, func(_ *bolt.Tx, k, v []byte) error { return f(string(k), v) })
}

// trashSmall moves doomed small blobs into files of the folder bin, and adds them
// to moved. It leaves the marks: who brings a blob meanwhile takes its own away.
func (b *Blobs) trashSmall(ctx context.Context, digests []string, bin string, moved map[string]bool) error {
	const atATime = 1000
	for len(digests) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(atATime, len(digests))
		names, err := b.copySmall(digests[:n], bin)
		if err != nil {
			return err
		}
		if err := b.dropSmall(names, bin, moved); err != nil {
			return err
		}
		digests = digests[n:]
	}
	return nil
}

// copySmall writes those digests that are small blobs into files, durably, and
// returns them.
func (b *Blobs) copySmall(digests []string, bin string) (names []string, err error) {
	var paths []string
	for _, digest := range digests {
		raw, err := b.stored(digest)
		if err != nil {
			return nil, err
		}
		if raw == nil {
			continue
		}
		path := filepath.Join(bin, digest)
		if err := os.WriteFile(path, raw, 0o400); err != nil {
			return nil, fmt.Errorf("store: trash: %w", err)
		}
		names, paths = append(names, digest), append(paths, path)
	}
	return names, together(paths, syncFile)
}

// dropSmall deletes those that are still doomed when the writer gets to it; the
// copies of others go.
func (b *Blobs) dropSmall(names []string, bin string, moved map[string]bool) error {
	if len(names) == 0 {
		return nil
	}
	var gone []string
	err := b.small.db.update(func(tx *Tx) error {
		gone = gone[:0]
		for _, digest := range names {
			if err := failpoint.Hit(failpoint.GCMove); err != nil {
				return err
			}
			if !b.isDoomed(digest) {
				continue
			}
			if err := tx.delete(bSmall, []byte(digest)); err != nil {
				return err
			}
			gone = append(gone, digest)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, digest := range gone {
		moved[digest] = true
	}
	for _, digest := range names {
		if !moved[digest] {
			os.Remove(filepath.Join(bin, digest))
		}
	}
	return nil
}

func (b *Blobs) isDoomed(digest string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.pins.doomed[digest]
	return ok
}

func bytesOf(blobs map[string][]byte) (n int) {
	for _, raw := range blobs {
		n += len(raw)
	}
	return n
}
