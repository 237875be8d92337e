package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
)

// wreck is a database that may be damaged anywhere: bbolt trusts its pages, and ends a program
// that it leads astray. Each look at it is guarded.
type wreck struct {
	bolt *bolt.DB
	tx   *bolt.Tx
	most int64 // entries that there is room for

	astray map[string]error // buckets whose pages lead in a circle: see [branches]
}

// leastEntry is less than any entry takes in ledger.db, in bytes: its hash and its envelope.
const leastEntry = 64

func openWreck(path string) (w *wreck, err error) {
	w = &wreck{}
	err = guarded(func() error {
		if w.bolt, err = bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: atOnce}); err != nil {
			return err
		}
		if w.tx, err = w.bolt.Begin(false); err != nil {
			return err
		}
		fi, err := os.Stat(path)
		if err != nil {
			return err
		}
		w.most = fi.Size() / leastEntry
		return w.follow(path, fi.Size())
	})
	if err != nil && w.bolt != nil {
		w.close()
	}
	return w, err
}

// follow looks for circles among the pages.
func (w *wreck) follow(path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b := branches{r: f, page: int64(w.bolt.Info().PageSize), most: size / branchElement}
	if err := b.follow(uint64(w.tx.Cursor().Bucket().Root())); err != nil {
		return err
	}
	w.astray = map[string]error{}
	for _, name := range buckets() {
		_ = guarded(func() error {
			if bucket := w.tx.Bucket(name); bucket != nil && bucket.Root() != 0 { // else it lies in its parent's page
				w.astray[string(name)] = b.follow(uint64(bucket.Root()))
			}
			return nil
		})
	}
	return nil
}

// bucket is one whose pages can be followed to their end.
func (w *wreck) bucket(name []byte) (*bolt.Bucket, error) {
	if err := w.astray[string(name)]; err != nil {
		return nil, damaged(err, "bucket %s of ledger.db", name)
	}
	b := w.tx.Bucket(name)
	if b == nil {
		return nil, damaged(errors.New("it is missing"), "bucket %s of ledger.db", name)
	}
	return b, nil
}

func (w *wreck) close() {
	if w.tx != nil {
		_ = guarded(w.tx.Rollback)
	}
	_ = guarded(w.bolt.Close)
}

// guarded makes an error of what would end the program.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: the pages of ledger.db lead astray: %v", p)
		}
	}()
	return f()
}

// entry reads one entry with the hashes that it has added to the tree, as copies.
func (w *wreck) entry(seq int64) (l Lines, hashes []ledger.Hash, err error) {
	err = guarded(func() error {
		b, err := w.bucket(bEntries)
		if err != nil {
			return err
		}
		v := b.Get(be64(seq))
		if v == nil {
			return fmt.Errorf("entry %d: %w", seq, ErrNotFound)
		}
		raw, found, err := decodeEntry(seq, v)
		l, hashes = found.clone(), splitHashes(raw)
		return err
	})
	return l, hashes, err
}

// last is the number of entries that the file says it has, 0 if it does not. A key that says
// more than the file has room for is damaged, and not believed.
func (w *wreck) last() (size int64) {
	_ = guarded(func() error {
		b, err := w.bucket(bEntries)
		if err != nil {
			return err
		}
		c := b.Cursor()
		for k, _ := c.Last(); k != nil && size == 0; k, _ = c.Prev() {
			if len(k) != 8 {
				continue
			}
			if seq := binary.BigEndian.Uint64(k); seq < uint64(w.most) {
				size = int64(seq) + 1
			}
		}
		return nil
	})
	return size
}

// each visits a bucket as far as it can be read.
func (w *wreck) each(name []byte, visit func(k, v []byte) error) error {
	var failed error
	_ = guarded(func() error {
		b, err := w.bucket(name)
		if err != nil {
			return err
		}
		return b.ForEach(func(k, v []byte) error {
			failed = visit(append([]byte(nil), k...), append([]byte(nil), v...))
			return failed
		})
	})
	return failed
}
