package ledger

import (
	"fmt"
	"iter"
)

// A window is the entries first to first+count-1 of a tree of size, shown with
// the entry before, unless first is 0, and the entry after, which always
// exists. Everything outside [lo, hi) is shown as hashes of complete subtrees.
type window struct {
	lo, hi, size int64
}

func newWindow(first, count, size int64) (window, error) {
	w := window{lo: max(0, first-1), hi: first + count + 1, size: size}
	if first < 0 || count < 0 || size > MaxSize || first > size || count > size || w.hi > size {
		return window{}, fmt.Errorf("ledger: no window of %d entries from %d in size %d", count, first, size)
	}
	return w, nil
}

// WindowEdges returns what proves the window of count entries from first in
// the tree of size, beside the window's own lines and those next to it: the
// hashes of the largest complete subtrees to the left and to the right of
// these, from left to right. The window may be empty; an entry after it must
// exist.
func WindowEdges(first, count, size int64, r HashReader) (left, right []Hash, err error) {
	w, err := newWindow(first, count, size)
	if err != nil {
		return nil, nil, err
	}
	var indexes []int64
	for at, level := range subtrees(0, w.lo) {
		indexes = append(indexes, StoredHashIndex(level, at>>level))
	}
	n := len(indexes)
	for at, level := range subtrees(w.hi, w.size) {
		indexes = append(indexes, StoredHashIndex(level, at>>level))
	}
	if len(indexes) == 0 {
		return nil, nil, nil
	}
	hashes, err := r.ReadHashes(indexes)
	if err == nil && len(hashes) != len(indexes) {
		err = fmt.Errorf("%d hashes for %d indexes", len(hashes), len(indexes))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("ledger: edges of a window: %w", err)
	}
	return hashes[:n:n], hashes[n:], nil
}

// WindowRoot computes the root of the tree of size from a window's edges and
// leaves: that of the entry before (if first is not 0), those of the window,
// and that of the entry after. A number of hashes or leaves other than the
// window's is [ErrProof]. The caller compares the result with a checkpoint's.
func WindowRoot(first, count, size int64, left, right []Hash, leaves iter.Seq[Hash]) (Hash, error) {
	return RootAtSize(size, first, count, size, left, right, leaves)
}

// WindowStartRoot computes the root of the tree of the first entries that
// precede a window, from its left edge and the leaf of the entry before it,
// which is not looked at if first is 0.
func WindowStartRoot(first int64, left []Hash, before Hash) (Hash, error) {
	// The smallest window from first on; the walk ends before its entry after.
	leaves := func(yield func(Hash) bool) { yield(before) }
	return RootAtSize(first, first, 0, first+1, left, nil, leaves)
}

// RootAtSize computes, as [WindowRoot] does, the root of the earlier tree of
// size m: for each m inside the window, and where a subtree of an edge ends.
// Elsewhere it is [ErrInsideSubtree]. Leaves beyond m are not asked for.
func RootAtSize(m, first, count, size int64, left, right []Hash, leaves iter.Seq[Hash]) (Hash, error) {
	w, err := newWindow(first, count, size)
	if err != nil {
		return Hash{}, err
	}
	if m < 0 || m > size {
		return Hash{}, fmt.Errorf("ledger: size %d is not one of a tree of %d", m, size)
	}
	var s spine
	for _, step := range []func() error{
		func() error { return s.addEdge(0, w.lo, m, left) },
		func() error { return s.addLeaves(w.hi, m, leaves) },
		func() error { return s.addEdge(w.hi, w.size, m, right) },
	} {
		if err := step(); err != nil {
			return Hash{}, fmt.Errorf("ledger: window of %d entries from %d: %w", count, first, err)
		}
	}
	return s.root(), nil
}

var errCount = fmt.Errorf("too many or too few hashes: %w", ErrProof)

// addEdge appends the subtrees of [lo, hi), but none beyond size m.
func (s *spine) addEdge(lo, hi, m int64, hashes []Hash) error {
	for at, level := range subtrees(lo, hi) {
		if len(hashes) == 0 {
			return errCount
		}
		switch {
		case at >= m:
		case at+1<<level > m:
			return fmt.Errorf("size %d: %w", m, ErrInsideSubtree)
		default:
			s.add(level, hashes[0])
		}
		hashes = hashes[1:]
	}
	if len(hashes) > 0 {
		return errCount
	}
	return nil
}

// addLeaves appends leaves up to hi, but none beyond size m.
func (s *spine) addLeaves(hi, m int64, leaves iter.Seq[Hash]) error {
	end := min(hi, m)
	if m < hi && s.size >= m {
		return nil
	}
	for leaf := range leaves {
		if s.size >= end {
			return errCount // one more than there should be
		}
		s.add(0, leaf)
		if s.size == m && m < hi {
			return nil
		}
	}
	if s.size < end {
		return errCount
	}
	return nil
}
