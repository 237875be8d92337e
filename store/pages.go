package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
)

// pages reads the file of a bbolt database that may be damaged anywhere. bbolt itself trusts
// its pages, and a damaged one ends the program: it panics, reads outside the file, or follows
// a circle until the stack ends. Here nothing is trusted: what is read, and the memory that it
// takes, is bounded by the file.
//
// The format is version 2 of bbolt's, in the byte order of the machine. A page begins with its
// id, its flags, the number of its elements, and how many pages follow that belong to it. Its
// elements come next, 16 bytes each, and behind them their keys and values, without a gap:
//
//	branch  pos 4, key size 4, id of the child 8
//	leaf    flags 4, pos 4, key size 4, value size 4
//
// pos counts from the element. Values of the root tree are buckets: the id of the root page
// and a sequence number, 8 bytes each; where the id is zero, a leaf follows in its place.
type pages struct {
	r    io.ReaderAt
	unit int64  // bytes a page
	high uint64 // the first page that was never used
	end  uint64 // pages that are used, and in the file
	meta pagesMeta
	lame bool   // the other meta page is damaged: it may have been the newest
	free bitmap // pages that nothing may lead to
	seen bitmap // pages that were reached; nil: it is not kept

	ahead *ahead // may be nil; else a leaf is good until the next is read
	brief bool   // nobody keeps what a page holds: its memory is used again
	spare [][]byte
}

// pagesMeta is what a meta page says.
type pagesMeta struct{ root, freelist, high, txid uint64 }

const (
	pageHeader  = 16 // bytes
	pageElement = 16
	metaBytes   = 64 // behind the header
	leastPage   = 1 << 10
	mostPage    = 1 << 24
	maxDepth    = 64 // of a tree; one of two elements a branch would not fit on a disk

	branchPage   = 1 // flags of a page
	leafPage     = 2
	metaPage     = 4
	freelistPage = 16
	bucketFlag   = 1 // of an element of a leaf

	noFreelist = math.MaxUint64 // as its page: it was not written
	manyFree   = 0xFFFF         // as its count: the first id is the count
)

// A pageError is what is wrong with a page.
type pageError struct {
	page uint64
	err  error
	lost bool // nothing behind it can be read
}

func (e *pageError) Error() string { return fmt.Sprintf("page %d: %v", e.page, e.err) }

func (e *pageError) Unwrap() error { return e.err }

// Errors of pages.
var (
	errNoMeta     = errors.New("no page says where the data is")
	errCutOff     = errors.New("the file ends before its pages")
	errOneMeta    = errors.New("one of the two that say where the data is cannot be read: the newest transaction may have been in it")
	errPageID     = errors.New("there is no such page")
	errPageHeader = errors.New("its header is not that of a page in its place")
	errPageBounds = errors.New("its elements are not what it has room for")
	errPageOrder  = errors.New("its keys are not in order")
	errPageRange  = errors.New("its keys are not those that lead to it")
	errPageKind   = errors.New("its elements are of another kind")
	errPageEmpty  = errors.New("it has no elements, below a branch")
	errPageTwice  = errors.New("it is reached twice")
	errPageFree   = errors.New("it is used, and listed as free")
	errPageLevel  = errors.New("it lies where pages of another kind do")
	errPageDepth  = errors.New("it lies too deep")
	errFreelist   = errors.New("it is no list of free pages")
	errBucket     = errors.New("a bucket in it is damaged")
)

type bitmap []uint64

func newBitmap(n uint64) bitmap { return make(bitmap, (n+63)/64) }

func (b bitmap) has(i uint64) bool { return i/64 < uint64(len(b)) && b[i/64]&(1<<(i%64)) != 0 }

func (b bitmap) set(i uint64) { b[i/64] |= 1 << (i % 64) }

// openPages reads what the newest meta page that is valid says; with older, what the other one
// does: the tree of the transaction before, none of whose pages the newest has written over.
// The size is that of the file.
func openPages(r io.ReaderAt, size int64, older bool) (*pages, error) {
	p := &pages{r: r, unit: pageSizeOf(r, size)}
	if p.unit == 0 {
		return nil, errNoMeta
	}
	var metas []pagesMeta
	for _, at := range []int64{0, p.unit} {
		if m, unit, ok := readMeta(r, at); ok && unit == p.unit {
			metas = append(metas, m)
		}
	}
	p.lame = len(metas) < 2
	slices.SortFunc(metas, func(a, b pagesMeta) int { return cmp.Compare(b.txid, a.txid) })
	if older && len(metas) > 0 {
		metas = metas[1:]
	}
	if len(metas) == 0 {
		return nil, errNoMeta
	}
	p.meta = metas[0]
	p.high = p.meta.high
	p.end = min(p.high, uint64(size/p.unit))
	p.seen = newBitmap(p.end)
	return p, nil
}

// pageSizeOf is what the first meta page says, or the second in one of the places that bbolt
// looks for it in; 0 where there is none.
func pageSizeOf(r io.ReaderAt, size int64) int64 {
	if _, unit, ok := readMeta(r, 0); ok {
		return unit
	}
	for at := int64(leastPage); at <= mostPage && at < size; at *= 2 {
		if _, unit, ok := readMeta(r, at); ok {
			return unit
		}
	}
	return 0
}

// readMeta reads a meta page, if it is valid, and the size of pages that it names.
func readMeta(r io.ReaderAt, at int64) (m pagesMeta, unit int64, ok bool) {
	var raw [metaBytes]byte
	if n, _ := r.ReadAt(raw[:], at+pageHeader); n < len(raw) {
		return m, 0, false
	}
	sum := fnv.New64a()
	sum.Write(raw[:56])
	unit = int64(binary.NativeEndian.Uint32(raw[8:]))
	ok = binary.NativeEndian.Uint32(raw[0:]) == 0xED0CDAED && binary.NativeEndian.Uint32(raw[4:]) == 2 && binary.NativeEndian.Uint64(raw[56:]) == sum.Sum64() &&
		unit >= leastPage && unit <= mostPage && unit&(unit-1) == 0
	m = pagesMeta{binary.NativeEndian.Uint64(raw[16:]), binary.NativeEndian.Uint64(raw[32:]), binary.NativeEndian.Uint64(raw[40:]), binary.NativeEndian.Uint64(raw[48:])}
	return m, unit, ok
}

// A page is a branch or a leaf, and all of its elements are inside of it; but where a branch
// is bad, only its children may be looked at. Where a leaf is, its keys are not in order.
type page struct {
	id     uint64
	span   uint64 // pages that it takes
	branch bool
	n      int
	raw    []byte
	own    bool  // raw is no part of what is read ahead
	bad    error // what is wrong with its keys
}

func (x *page) child(i int) uint64 { return binary.NativeEndian.Uint64(x.element(i)[8:]) }

// flags are those of an element of a leaf.
func (x *page) flags(i int) uint32 { return binary.NativeEndian.Uint32(x.element(i)) }

func (x *page) element(i int) []byte { return x.raw[pageHeader+i*pageElement:][:pageElement] }

// sizes are where an element says that its key begins, and the sizes of it and the value.
func (x *page) sizes(i int) (at, key, value int64) {
	e := x.element(i)
	if x.branch {
		at, key = int64(binary.NativeEndian.Uint32(e)), int64(binary.NativeEndian.Uint32(e[4:]))
	} else {
		at, key, value = int64(binary.NativeEndian.Uint32(e[4:])), int64(binary.NativeEndian.Uint32(e[8:])), int64(binary.NativeEndian.Uint32(e[12:]))
	}
	return pageHeader + int64(i)*pageElement + at, key, value
}

func (x *page) key(i int) []byte {
	at, key, _ := x.sizes(i)
	return x.raw[at : at+key : at+key]
}

// value is that of an element of a leaf, and where it begins.
func (x *page) value(i int) ([]byte, int64) {
	at, key, value := x.sizes(i)
	return x.raw[at+key : at+key+value : at+key+value], at + key
}

// used is how many bytes the elements say that the page has. They lie without a gap.
func (x *page) used() (int64, error) {
	end := int64(pageHeader + x.n*pageElement)
	for i := range x.n {
		at, key, value := x.sizes(i)
		if at != end || key == 0 {
			return 0, errPageBounds
		}
		end += key + value
	}
	return end, nil
}

// ordered says whether the keys ascend.
func (x *page) ordered() error {
	for i := 1; i < x.n; i++ {
		if bytes.Compare(x.key(i-1), x.key(i)) >= 0 {
			return errPageOrder
		}
	}
	return nil
}

// header reads the header of a page in its place.
func (p *pages) header(id uint64, raw []byte) (*page, error) {
	flags := binary.NativeEndian.Uint16(raw[8:])
	var x *page
	if p.ahead != nil && flags == leafPage {
		x = &p.ahead.leaf
	} else {
		x = new(page)
	}
	*x = page{id: id, span: uint64(binary.NativeEndian.Uint32(raw[12:])) + 1, branch: flags == branchPage, n: int(binary.NativeEndian.Uint16(raw[10:])), raw: raw}
	if binary.NativeEndian.Uint64(raw) != id || flags != branchPage && flags != leafPage || x.span > p.end-id || x.branch && x.n == 0 {
		return nil, errPageHeader
	}
	return x, nil
}

// head reads no more of a page than its header.
func (p *pages) head(id uint64) (*page, error) {
	raw, err := p.read(id, nil, pageHeader)
	if err != nil {
		return nil, err
	}
	x, err := p.header(id, raw)
	p.give(raw)
	return x, err
}

// room is memory for n bytes of a page.
func (p *pages) room(n int64) []byte {
	if !p.brief {
		return make([]byte, n)
	}
	if last := len(p.spare) - 1; last >= 0 && n <= p.unit {
		raw := p.spare[last][:n]
		p.spare = p.spare[:last]
		return raw
	}
	return make([]byte, n, max(n, p.unit))
}

// give gives back what room has given.
func (p *pages) give(raw []byte) {
	if p.brief && int64(cap(raw)) == p.unit {
		p.spare = append(p.spare, raw)
	}
}

// keep takes a page out of what is read ahead, over which the ones below it are read.
func (p *pages) keep(x *page) {
	if !x.own {
		x.raw, x.own = append(p.room(int64(len(x.raw)))[:0], x.raw...), true
	}
}

// read reads on in a page, after what was read of it, up to n bytes that are in the file.
func (p *pages) read(id uint64, have []byte, n int64) ([]byte, error) {
	if id < 2 || id >= p.end {
		return nil, errPageID
	}
	if n <= int64(len(have)) {
		return have, nil
	}
	if raw := p.ahead.part(int64(id)*p.unit, n); raw != nil {
		return raw, nil
	}
	raw := p.room(n)
	copy(raw, have)
	m, err := p.r.ReadAt(raw[len(have):], int64(id)*p.unit+int64(len(have)))
	if m == len(raw)-len(have) {
		return raw, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = errCutOff
	}
	return nil, err
}

// page reads a branch or a leaf.
func (p *pages) page(id uint64) (*page, error) {
	own := p.ahead.part(int64(id)*p.unit, p.unit) == nil
	raw, err := p.read(id, nil, p.unit)
	if err != nil {
		return nil, err
	}
	x, err := p.header(id, raw)
	if err != nil {
		return nil, err
	}
	x.own = own
	room, table := int64(x.span)*p.unit, int64(pageHeader+x.n*pageElement)
	if table > room {
		return nil, errPageBounds
	}
	if x.raw, err = p.read(id, raw, table); err != nil {
		return nil, err
	}
	used, err := x.used()
	// No more pages belong to it than it needs, but for one that older versions gave to those that are full.
	if err == nil && (used > room || int64(x.span) != used/p.unit+1 && int64(x.span) != (used+p.unit-1)/p.unit) {
		err = errPageBounds
	}
	if err == nil {
		if x.raw, err = p.read(id, x.raw, used); err != nil {
			return nil, err
		}
		err = x.ordered()
	}
	if x.branch && p.ahead != nil {
		p.keep(x)
	}
	switch {
	case err != nil && x.branch:
		x.bad, x.span, err = err, 1, nil
	case errors.Is(err, errPageOrder):
		x.bad, err = err, nil
	}
	return x, err
}

// inlined reads a leaf that lies in a value.
func inlined(raw []byte) (*page, error) {
	if len(raw) < pageHeader {
		return nil, errPageBounds
	}
	x := &page{n: int(binary.NativeEndian.Uint16(raw[10:])), raw: raw}
	if binary.NativeEndian.Uint64(raw) != 0 || binary.NativeEndian.Uint16(raw[8:]) != leafPage || binary.NativeEndian.Uint32(raw[12:]) != 0 {
		return nil, errPageHeader
	}
	if pageHeader+x.n*pageElement > len(raw) {
		return nil, errPageBounds
	}
	if used, err := x.used(); err != nil || used != int64(len(raw)) {
		return nil, errPageBounds
	}
	return x, x.ordered()
}

// claim says that a page, with those that belong to it, is reached.
func (p *pages) claim(id, span uint64) error {
	for i := id; i < id+span; i++ {
		if i < 2 || i >= p.end {
			return errPageID
		}
		if p.seen.has(i) {
			return errPageTwice
		}
		if p.free.has(i) {
			return errPageFree
		}
	}
	for i := id; i < id+span && p.seen != nil; i++ {
		p.seen.set(i)
	}
	return nil
}

// readFree reads the list of free pages.
func (p *pages) readFree() error {
	p.free = newBitmap(p.end)
	id := p.meta.freelist
	if id == noFreelist {
		return nil
	}
	fail := func(err error) error { return &pageError{page: id, err: err, lost: true} }
	raw, err := p.read(id, nil, p.unit)
	if err != nil {
		return fail(err)
	}
	n, span, first := uint64(binary.NativeEndian.Uint16(raw[10:])), uint64(binary.NativeEndian.Uint32(raw[12:]))+1, uint64(0)
	if n == manyFree {
		n, first = binary.NativeEndian.Uint64(raw[pageHeader:]), 1
	}
	// It is given the pages that it needs before its own are taken off it.
	most := (pageHeader+8*(n+span+1))/uint64(p.unit) + 1
	if binary.NativeEndian.Uint64(raw) != id || binary.NativeEndian.Uint16(raw[8:]) != freelistPage || n > p.end || span > p.end-id || span > most {
		return fail(errFreelist)
	}
	size := pageHeader + 8*int64(first+n)
	if size > int64(span)*p.unit {
		return fail(errFreelist)
	}
	if raw, err = p.read(id, raw, size); err != nil {
		return fail(err)
	}
	last := uint64(1)
	for i := first; i < first+n; i++ {
		free := binary.NativeEndian.Uint64(raw[pageHeader+8*i:])
		if free <= last || free >= p.end {
			return fail(errFreelist)
		}
		p.free.set(free)
		last = free
	}
	if err := p.claim(id, span); err != nil {
		return fail(err)
	}
	return nil
}
