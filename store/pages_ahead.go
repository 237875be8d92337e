package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	bolt "go.etcd.io/bbolt"
)

// ahead is a stretch of the file that is read at once. A leaf at a time takes a call of the
// system each, and through the mapping of bbolt a page fault each: that is about as much as
// hashing what is on it, and on a disk that turns much more.
type ahead struct {
	buf []byte
	raw []byte // what is read, from at on; a part of buf
	at  int64

	leaf   page
	leaves []leafAt
}

const (
	mostAhead = 1 << 20  // bytes that are read at once
	mostGap   = 64 << 10 // bytes between two leaves that are read for nothing
)

// part is n bytes of the file, or nil where they were not read.
func (a *ahead) part(at, n int64) []byte {
	if a == nil || at < a.at || at+n > a.at+int64(len(a.raw)) {
		return nil
	}
	return a.raw[at-a.at:][:n:n]
}

// readAhead reads the i-th of n leaves, and the ones after it that lie close behind it in the
// file. What cannot be read is read again by whoever needs it, who is told then.
func (p *pages) readAhead(i, n int, leaf func(int) uint64) {
	id := leaf(i)
	from := int64(id) * p.unit
	if id >= p.end || p.ahead.part(from, p.unit) != nil {
		return
	}
	to := from + p.unit
	for i++; i < n; i++ {
		id := leaf(i)
		next := int64(id) * p.unit
		if id >= p.end || next < to || next-to > mostGap || next+p.unit-from > mostAhead {
			break
		}
		to = next + p.unit
	}
	if to-from > mostAhead { // pages are that large
		return
	}
	a := p.ahead
	if a.buf == nil {
		a.buf = make([]byte, mostAhead)
	}
	got, _ := p.r.ReadAt(a.buf[:to-from], from)
	a.raw, a.at = a.buf[:got], from
}

// each visits the records of a bucket from a key on. It reads them in the file of the database,
// whose pages nobody writes over while the transaction goes on; damage of a page is a *[Damage],
// and what the system says of one that it cannot read is none. Keys and values are good until
// fn returns, an error of which ends it.
func (a *ahead) each(t *bolt.Tx, file io.ReaderAt, name, from []byte, fn func(k, v []byte) error) error {
	b, err := bucketIn(t, name)
	if err != nil {
		return err
	}
	if b.Root() == 0 { // a few, which lie in the page that names the bucket
		return eachIn(b, from, fn)
	}
	return a.walk(t, file, name, from, fn).tree(uint64(b.Root()))
}

func bucketIn(t *bolt.Tx, name []byte) (*bolt.Bucket, error) {
	if b := t.Bucket(name); b != nil {
		return b, nil
	}
	return nil, damaged(errMissing, "bucket %s of ledger.db", name)
}

// all is each of all records, in the order in which they lie in the file.
func (a *ahead) all(t *bolt.Tx, file io.ReaderAt, name []byte, fn func(k, v []byte) error) error {
	b, err := bucketIn(t, name)
	if err != nil {
		return err
	}
	if b.Root() == 0 {
		return eachIn(b, nil, fn)
	}
	if a.leaves == nil {
		a.leaves = make([]leafAt, 0, mostLeaves)
	}
	a.leaves = a.leaves[:0]
	w := a.walk(t, file, name, nil, fn)
	read := func() error {
		slices.SortFunc(a.leaves, func(x, y leafAt) int { return cmp.Compare(x.id, y.id) })
		for i, l := range a.leaves {
			w.p.readAhead(i, len(a.leaves), func(i int) uint64 { return a.leaves[i].id })
			if err := w.follow(l.id, l.within, l.depth); err != nil {
				return err
			}
		}
		a.leaves = a.leaves[:0]
		return nil
	}
	w.later = func(l leafAt) error {
		if a.leaves = append(a.leaves, l); len(a.leaves) < mostLeaves {
			return nil
		}
		return read()
	}
	if err := w.tree(uint64(b.Root())); err != nil {
		return err
	}
	return read()
}

// mostLeaves bounds how many leaves are sorted at once: those of 256 MiB or more.
const mostLeaves = 1 << 16

// eachIn visits records of a bucket from a key on.
func eachIn(b *bolt.Bucket, from []byte, fn func(k, v []byte) error) error {
	c := b.Cursor()
	for k, v := c.Seek(from); k != nil; k, v = c.Next() {
		if err := fn(k, v); err != nil {
			return err
		}
	}
	return nil
}

// walk is one through the pages of a bucket, which fn is given the records of.
func (a *ahead) walk(t *bolt.Tx, file io.ReaderAt, name, from []byte, fn func(k, v []byte) error) *walk {
	a.raw = nil // of the transaction before: others may have written over it
	unit := int64(t.DB().Info().PageSize)
	w := &walk{
		p:    &pages{r: file, unit: unit, end: uint64(t.Size() / unit), ahead: a, brief: true},
		from: from,
		bad: func(e *pageError) error {
			if errors.As(e, new(syscall.Errno)) {
				return fmt.Errorf("store: ledger.db: %w", e)
			}
			return damaged(e, "bucket %s of ledger.db", name)
		},
	}
	w.leaf = func(x *page) error {
		for i := range x.n {
			if k := x.key(i); bytes.Compare(k, from) >= 0 {
				v, _ := x.value(i)
				if err := fn(k, v); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return w
}
