package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"slices"

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

// branches follows the pages of a tree of a bbolt file (v2: a page begins with its id, flags,
// count and overflow, and a branch has elements of pos, ksize and pgid). bbolt itself would go
// in a circle until its stack or the memory ends, which nothing can catch.
type branches struct {
	r    io.ReaderAt
	page int64 // size of a page, in bytes
	most int64 // elements that there is room for
}

const (
	pageHeader    = 16 // bytes
	branchPage    = 1  // flag of a page
	branchElement = 16 // bytes
)

// follow is an error where a branch is reached twice. What cannot be read ends there: bbolt
// finds that out, too.
func (b *branches) follow(root uint64) error {
	seen := map[uint64]struct{}{}
	for next := []uint64{root}; len(next) > 0; {
		id := next[len(next)-1]
		next = next[:len(next)-1]
		if id > math.MaxInt64/2/uint64(b.page) {
			continue
		}
		at, head := int64(id)*b.page, make([]byte, pageHeader)
		if _, err := b.r.ReadAt(head, at); err != nil || binary.NativeEndian.Uint16(head[8:])&branchPage == 0 {
			continue
		}
		if _, again := seen[id]; again {
			return fmt.Errorf("page %d is reached twice", id)
		}
		seen[id] = struct{}{}
		elements := make([]byte, branchElement*int(binary.NativeEndian.Uint16(head[10:])))
		n, _ := b.r.ReadAt(elements, at+pageHeader)
		for e := range slices.Chunk(elements[:n/branchElement*branchElement], branchElement) {
			next = append(next, binary.NativeEndian.Uint64(e[8:]))
		}
		if int64(len(next)) > b.most {
			return fmt.Errorf("page %d has more branches than there is room for", id)
		}
	}
	return nil
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

// last is the number of entries that the file says it has, 0 if it does not. Where it says
// more than it has room for, a key is damaged: then the highest that can be read is the last.
func (w *wreck) last() (size int64) {
	err := guarded(func() error {
		_, err := w.bucket(bEntries)
		if err == nil {
			size, _, err = lastEnvelope(w.tx, schemaVersion)
		}
		return err
	})
	if err != nil {
		return 0
	}
	if size > 0 && size <= w.most {
		return size
	}
	for size = w.most; size > 0; size-- {
		if _, _, err := w.entry(size - 1); err == nil {
			break
		}
	}
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

// erased is which data is agreed to be erased, by the entries that can be read, and by what
// followed from those that cannot.
func (w *wreck) erased(known int64) (seqs []int64) {
	_ = w.each(bMeta, func(k, v []byte) error {
		if string(k) == string(kErased) {
			_ = json.Unmarshal(v, &seqs)
		}
		return nil
	})
	for seq := range known {
		l, _, err := w.entry(seq)
		if err != nil || !erases(l.Envelope) {
			continue
		}
		env, err := ledger.ParseEnvelope(l.Envelope)
		if err != nil {
			continue
		}
		data, err := l.data(env.Type)
		if err != nil {
			continue
		}
		for _, x := range erasedBy(data) {
			seqs = append(seqs, x.Seq)
		}
	}
	slices.Sort(seqs)
	return slices.Compact(seqs)
}
