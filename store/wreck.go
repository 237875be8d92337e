package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/stellarun/stella/ledger"
)

// wreck is a database that may be damaged anywhere. It is read by its [pages] and never with
// bbolt, which trusts them. What can be read was found when it was opened; the file must not
// change meanwhile.
type wreck struct {
	file    *os.File
	from    *source // reads it
	pages   *pages
	most    int64 // entries that there is room for
	buckets map[string]*wreckBucket
	index   []entryPlace // by seq
	recent  *page        // that was read last
}

// A wreckBucket is what can be read of a bucket.
type wreckBucket struct {
	inline *page    // its only leaf, where it lies in the root tree
	leaves []uint64 // else their pages
	lost   int      // pages that cannot be read
	why    error    // what is the matter with the first of them
}

// An entryPlace is where the entry of a key is. Where the key is damaged, there may be two of
// them.
type entryPlace struct {
	seq  int64
	leaf uint64 // its page, 0 where it is inline
	i    int    // the element of it
}

// leastEntry is less than any entry takes in ledger.db, in bytes: its hash and its envelope.
const leastEntry = 64

// openWreck looks for what can be read in a home, through hook where that is not nil. It takes no
// lock. What the system could not read is missing, and the source says so; where that is all, the
// error is no *[Damage].
func openWreck(home string, hook func(io.ReaderAt) io.ReaderAt) (w *wreck, err error) {
	f, err := openLedger(home)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	from := &source{r: f}
	if hook != nil {
		from.r = hook(f)
	}
	if w, err = wreckOf(f, from, fi.Size(), false); err != nil {
		return nil, cmp.Or(from.fail, damaged(err, "ledger.db"))
	}
	if w.unread(bEntries) > 0 { // a disk may have lied about what was written last
		if before, err := wreckOf(f, from, fi.Size(), true); err == nil && len(before.index) > len(w.index) {
			before.buckets[string(bEntries)].miss(w.why(bEntries))
			w = before
		}
	}
	return w, nil
}

// wreckOf is what can be read of the newest tree, or of the one before it.
func wreckOf(f *os.File, from *source, size int64, older bool) (w *wreck, err error) {
	w = &wreck{file: f, from: from, most: size / leastEntry, buckets: map[string]*wreckBucket{}}
	if w.pages, err = openPages(from, size, older); err == nil {
		w.explore()
	}
	return w, err
}

// miss counts a page that cannot be read.
func (b *wreckBucket) miss(why error) {
	b.lost++
	b.why = cmp.Or(b.why, why)
}

// why is what is the matter with a bucket of which not everything can be read.
func (w *wreck) why(name []byte) error {
	if b := w.buckets[string(name)]; b != nil {
		return b.why
	}
	return errBucket
}

// explore finds the leaves of each bucket. Those of the entries come first: what another
// bucket claims of theirs is taken from it.
func (w *wreck) explore() {
	all, _ := w.pages.buckets(func(*pageError) error { return nil }) // what is not found is missing
	if i := slices.IndexFunc(all, func(b bucketPages) bool { return bytes.Equal(b.name, bEntries) }); i > 0 {
		all[0], all[i] = all[i], all[0]
	}
	for _, found := range all {
		if w.buckets[string(found.name)] != nil {
			continue
		}
		b := &wreckBucket{inline: found.inline}
		w.buckets[string(found.name)] = b
		_ = found.walk(&walk{
			p: w.pages,
			leaf: func(x *page) error {
				if found.inline == nil {
					b.leaves = append(b.leaves, x.id)
				}
				if bytes.Equal(found.name, bEntries) {
					w.enter(x)
				}
				return nil
			},
			bad: func(e *pageError) error {
				if e.lost {
					b.miss(e)
				}
				return nil
			},
		})
	}
	slices.SortStableFunc(w.index, func(a, b entryPlace) int { return cmp.Compare(a.seq, b.seq) })
}

// enter takes the entries of a leaf into the index. A key that says more than the file has
// room for is damaged, and not believed.
func (w *wreck) enter(x *page) {
	for i := range x.n {
		k := x.key(i)
		if len(k) != 8 {
			continue
		}
		if seq := binary.BigEndian.Uint64(k); seq < uint64(w.most) {
			w.index = append(w.index, entryPlace{int64(seq), x.id, i})
		}
	}
}

func (w *wreck) close() { w.file.Close() }

// bucket is what can be read of one.
func (w *wreck) bucket(name []byte) (*wreckBucket, error) {
	if b := w.buckets[string(name)]; b != nil {
		return b, nil
	}
	return nil, damaged(errMissing, "bucket %s of ledger.db", name)
}

// leaf reads a leaf that could be read before.
func (w *wreck) leaf(b *wreckBucket, id uint64) (x *page, err error) {
	if b.inline != nil {
		return b.inline, nil
	}
	if w.recent != nil && w.recent.id == id {
		return w.recent, nil
	}
	if x, err = w.pages.page(id); err == nil && x.branch {
		err = errPageHeader
	}
	if err != nil {
		return nil, &pageError{page: id, err: err}
	}
	w.recent = x
	return x, nil
}

// entry reads one entry with the hashes that it has added to the tree, as copies. Where there
// is none it says [ErrNotFound], and of a page that it may have been on what is wrong with it.
func (w *wreck) entry(seq int64) (l Lines, hashes []ledger.Hash, err error) {
	b, err := w.bucket(bEntries)
	if err != nil {
		return l, nil, err
	}
	at, _ := slices.BinarySearchFunc(w.index, seq, func(x entryPlace, seq int64) int { return cmp.Compare(x.seq, seq) })
	err = fmt.Errorf("entry %d: %w", seq, ErrNotFound)
	if b.lost > 0 {
		err = fmt.Errorf("entry %d: %w, but %d pages of entries cannot be read: %w", seq, ErrNotFound, b.lost, b.why)
	}
	for ; at < len(w.index) && w.index[at].seq == seq; at++ {
		if l, hashes, err = w.entryIn(b, w.index[at]); err != nil {
			continue
		}
		if env, err := ledger.ParseEnvelope(l.Envelope); err == nil && env.Seq == seq {
			break // else the key of another is damaged
		}
	}
	return l, hashes, err
}

func (w *wreck) entryIn(b *wreckBucket, place entryPlace) (l Lines, hashes []ledger.Hash, err error) {
	x, err := w.leaf(b, place.leaf)
	if err != nil {
		return l, nil, err
	}
	if place.i >= x.n {
		return l, nil, errEntryRecord
	}
	v, _ := x.value(place.i)
	raw, found, err := decodeEntry(place.seq, v)
	return found.clone(), splitHashes(raw), err
}

// last is the number of entries that the file says it has, 0 if it does not.
func (w *wreck) last() int64 {
	if len(w.index) == 0 {
		return 0
	}
	return w.index[len(w.index)-1].seq + 1
}

// each visits a bucket as far as it can be read.
func (w *wreck) each(name []byte, visit func(k, v []byte) error) error {
	b, err := w.bucket(name)
	if err != nil {
		return nil
	}
	leaves := b.leaves
	if b.inline != nil {
		leaves = []uint64{0}
	}
	for _, id := range leaves {
		x, err := w.leaf(b, id)
		if err != nil {
			continue
		}
		for i := range x.n {
			v, _ := x.value(i)
			if err := visit(bytes.Clone(x.key(i)), append([]byte{}, v...)); err != nil {
				return err
			}
		}
	}
	return nil
}

// unread is how many pages of these buckets cannot be read. One that is not found counts as
// one, and for the entries so does the page that may have led to newer ones.
func (w *wreck) unread(buckets ...[]byte) (n int) {
	for _, name := range buckets {
		if w.pages.lame && bytes.Equal(name, bEntries) {
			n++
		}
		if b := w.buckets[string(name)]; b != nil {
			n += b.lost
		} else {
			n++
		}
	}
	return n
}

// schema is what the file says that it is of, 0 where that cannot be read.
func (w *wreck) schema() (n uint64) {
	_ = w.each(bMeta, func(k, v []byte) error {
		if bytes.Equal(k, kSchema) && len(v) == 8 {
			n = binary.BigEndian.Uint64(v)
			if damaged := n > mostSchemas || n < firstRecovered && w.buckets[string(oldEnvelopes)] == nil; damaged {
				n = 0
			}
		}
		return nil
	})
	return n
}
