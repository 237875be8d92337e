package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// A walk goes through a tree of pages in the order of its keys. It reaches no page twice,
// whatever tree of the file leads to it, and goes on behind one that cannot be read.
type walk struct {
	p      *pages
	kind   uint32                 // flags that the elements of its leaves have
	coarse bool                   // leaves below a branch are not read, but for the last
	level  int                    // how deep leaves lie, the root at 1; 0: none was reached yet
	from   []byte                 // what lies before this key is left out, but for the rest of its leaf; may be nil
	leaf   func(*page) error      // may be nil
	later  func(leafAt) error     // is given the leaves below a branch, to follow them; nil: they are followed in order
	bad    func(*pageError) error // is told what is wrong; an error ends the walk
}

// leafAt is a leaf that a branch leads to.
type leafAt struct {
	id     uint64
	within limits
	depth  int
}

// limits are the keys that a branch gives a child: those from low on, below high; nil is none.
type limits struct{ low, high []byte }

func (w *walk) tree(id uint64) error { return w.follow(id, limits{}, 0) }

func (w *walk) fail(id uint64, err error, lost bool) error {
	return w.bad(&pageError{page: id, err: err, lost: lost})
}

func (w *walk) follow(id uint64, within limits, depth int) error {
	if depth > maxDepth {
		return w.fail(id, errPageDepth, true)
	}
	x, err := w.read(id, depth)
	if err == nil {
		err = w.p.claim(id, x.span)
	}
	if err != nil {
		return w.fail(id, err, true)
	}
	if x.bad == nil && x.n > 0 && (bytes.Compare(x.key(0), within.low) < 0 || within.high != nil && bytes.Compare(x.key(x.n-1), within.high) >= 0) {
		if err := w.fail(id, errPageRange, false); err != nil {
			return err
		}
	}
	if x.bad != nil { // of a leaf a key is another, so that nobody finds what it had
		if err := w.fail(id, x.bad, !x.branch); err != nil {
			return err
		}
	}
	if w.uneven(x, depth) {
		if err := w.fail(id, errPageLevel, false); err != nil {
			return err
		}
	}
	if x.branch {
		err = w.children(x, within, depth)
	} else {
		err = w.visit(x)
	}
	if x.own && (!x.branch || w.later == nil) { // leaves that are followed later are held to the keys of their branch
		w.p.give(x.raw)
	}
	return err
}

// read is a page that lies so deep.
func (w *walk) read(id uint64, depth int) (*page, error) {
	x, err := w.p.page(id)
	if err == nil && depth > 0 && !x.branch && x.n == 0 {
		return nil, errPageEmpty
	}
	return x, err
}

// children follows those of a branch. Of leaves a coarse walk follows the last of the tree alone:
// bbolt looks there for the newest entry as soon as it is open, goes on before it if it is empty,
// and round a circle if there is one.
func (w *walk) children(x *page, within limits, depth int) error {
	leaves := (w.p.ahead != nil || w.coarse) && !w.branches(x, depth)
	if leaves && w.level == 0 {
		w.level = depth + 2
	}
	for i := range x.n {
		last := i+1 == x.n
		if w.from != nil && x.bad == nil && !last && bytes.Compare(x.key(i+1), w.from) <= 0 {
			continue
		}
		if leaves && w.coarse && (!last || within.high != nil) {
			if err := w.p.claim(x.child(i), 1); err != nil {
				if err := w.fail(x.child(i), err, true); err != nil {
					return err
				}
			}
			continue
		}
		var child limits
		if x.bad == nil {
			if child = (limits{x.key(i), within.high}); !last {
				child.high = x.key(i + 1)
			}
		}
		if leaves && w.later != nil {
			if err := w.later(leafAt{x.child(i), child, depth + 1}); err != nil {
				return err
			}
			continue
		}
		if leaves && w.p.ahead != nil {
			w.p.readAhead(i, x.n, x.child)
		}
		if err := w.follow(x.child(i), child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// visit is a leaf.
func (w *walk) visit(x *page) error {
	for i := range x.n {
		if x.flags(i) != w.kind {
			if err := w.fail(x.id, errPageKind, false); err != nil {
				return err
			}
			break
		}
	}
	if w.leaf == nil {
		return nil
	}
	return w.leaf(x)
}

// branches says whether the children of a branch are branches: all leaves of a tree lie equally
// deep, so that the first says it; whoever reads every leaf finds one that lies elsewhere.
func (w *walk) branches(x *page, depth int) bool {
	if w.level != 0 && !w.coarse {
		return w.level != depth+2
	}
	first, err := w.p.head(x.child(0))
	return err != nil || first.branch
}

// uneven says whether a leaf lies elsewhere than the first one, or a branch where leaves do:
// bbolt writes no such tree.
func (w *walk) uneven(x *page, depth int) bool {
	if w.level == 0 && !x.branch {
		w.level = depth + 1
	}
	return w.level != 0 && x.branch == (w.level == depth+1)
}

// A bucketPages is where a bucket is: its root page, or the leaf that is all of it.
type bucketPages struct {
	name   []byte
	root   uint64
	inline *page
}

// walk goes through the pages of a bucket.
func (b *bucketPages) walk(w *walk) error {
	if b.inline != nil {
		return w.visit(b.inline)
	}
	return w.tree(b.root)
}

// buckets finds the buckets in the root tree.
func (p *pages) buckets(bad func(*pageError) error) (out []bucketPages, err error) {
	w := &walk{p: p, kind: bucketFlag, bad: bad}
	w.leaf = func(x *page) error {
		for i := range x.n {
			v, _ := x.value(i)
			b, err := asBucket(v)
			if err != nil {
				if err := w.fail(x.id, fmt.Errorf("%w: %q: %w", errBucket, x.key(i), err), true); err != nil {
					return err
				}
				continue
			}
			b.name = bytes.Clone(x.key(i))
			out = append(out, b)
		}
		return nil
	}
	return out, w.tree(p.meta.root)
}

// asBucket reads a value of the root tree.
func asBucket(v []byte) (b bucketPages, err error) {
	const head = 16
	if len(v) < head {
		return b, errPageBounds
	}
	if b.root = binary.NativeEndian.Uint64(v); b.root != 0 {
		if len(v) != head {
			err = errPageBounds
		}
		return b, err
	}
	b.inline, err = inlined(bytes.Clone(v[head:]))
	return b, err
}

// source is a file that is looked at, and what the system says where it cannot be read: then
// nobody knows whether what lies there is damaged.
type source struct {
	r    io.ReaderAt
	fail error
}

func (s *source) ReadAt(b []byte, at int64) (int, error) {
	n, err := s.r.ReadAt(b, at)
	if err != nil && !errors.Is(err, io.EOF) {
		s.fail = cmp.Or(s.fail, fmt.Errorf("store: %w", err))
	}
	return n, err
}

// checkFile is [checkAll] of a file, where it is not empty: bbolt makes a database of that. One
// that cannot be read is no *[Damage].
func checkFile(f *os.File, leaves bool) error {
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return err
	}
	from := &source{r: f}
	err = checkAll(from, fi.Size(), leaves)
	return cmp.Or(from.fail, err)
}

// checkAll verifies the pages of the file: every one that can be reached, or all but the
// leaves below a branch. After the first nothing is left on any page that could lead bbolt
// astray; after the second no wrong list of free pages is, and no circle of branches, unless a
// leaf was made one. It returns a *[Damage].
func checkAll(r io.ReaderAt, size int64, leaves bool) error {
	p, err := openPages(r, size, false)
	if err != nil {
		return damaged(err, "ledger.db")
	}
	p.brief = true
	if p.lame { // bbolt would go on with the other: what was on disk would be gone, and the next transaction take its place
		return damaged(errOneMeta, "meta pages of ledger.db")
	}
	if p.end < p.high {
		return damaged(fmt.Errorf("%w: %d bytes, %d pages of %d", errCutOff, size, p.high, p.unit), "ledger.db")
	}
	if err := p.readFree(); err != nil {
		return damaged(err, "list of free pages of ledger.db")
	}
	stop := func(e *pageError) error { return e }
	all, err := p.buckets(stop)
	if err != nil {
		return damaged(err, "list of buckets of ledger.db")
	}
	for _, b := range all {
		// Without a list of free pages bbolt reads all others when it opens the file.
		w := &walk{p: p, coarse: !leaves && p.meta.freelist != noFreelist, bad: stop}
		if err := b.walk(w); err != nil {
			return damaged(err, "bucket %s of ledger.db", b.name)
		}
	}
	return nil
}
