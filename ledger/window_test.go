package ledger_test

import (
	"errors"
	"iter"
	"slices"
	"testing"

	"github.com/transparency-dev/merkle/compact"
	"pgregory.net/rapid"

	"github.com/stellarun/stella/ledger"
)

// shown returns the leaves that a window shows: before, its own, after.
func shown(leaves []ledger.Hash, first, count int64) []ledger.Hash {
	return leaves[max(0, first-1) : first+count+1]
}

// oracleEdge is an edge as another implementation sees it.
func oracleEdge(leaves []ledger.Hash, lo, hi int64) []ledger.Hash {
	var out []ledger.Hash
	for _, id := range compact.RangeNodes(uint64(lo), uint64(hi), nil) {
		from, to := id.Coverage()
		out = append(out, complete(leaves[from:to]))
	}
	return out
}

// complete is the root of a complete tree, by definition.
func complete(leaves []ledger.Hash) ledger.Hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	l, r := complete(leaves[:len(leaves)/2]), complete(leaves[len(leaves)/2:])
	return ledger.Hash(oracle.HashChildren(l[:], r[:]))
}

func TestEveryWindow(t *testing.T) {
	h, leaves := tree(t, oracleSize)
	roots := oracleRoots(t, leaves)
	for size := int64(1); size <= oracleSize; size++ {
		for first := range size {
			for count := int64(0); first+count < size; count++ {
				left, right, err := ledger.WindowEdges(first, count, size, h)
				if err != nil {
					t.Fatal(err)
				}
				if want := oracleEdge(leaves, 0, max(0, first-1)); !slices.Equal(left, want) {
					t.Fatalf("left edge of %d+%d in %d: %x, want %x", first, count, size, left, want)
				}
				if want := oracleEdge(leaves, first+count+1, size); !slices.Equal(right, want) {
					t.Fatalf("right edge of %d+%d in %d: %x, want %x", first, count, size, right, want)
				}
				got, err := ledger.WindowRoot(first, count, size, left, right, slices.Values(shown(leaves, first, count)))
				if err != nil || got != roots[size] {
					t.Fatalf("WindowRoot(%d, %d, %d) = %x, %v; want %x", first, count, size, got, err, roots[size])
				}
				got, err = ledger.WindowStartRoot(first, left, leaves[max(0, first-1)])
				if err != nil || got != roots[first] {
					t.Fatalf("WindowStartRoot(%d) = %x, %v; want %x", first, got, err, roots[first])
				}
			}
		}
	}
}

// TestRootAtEverySize asks a window for the roots of all earlier trees.
func TestRootAtEverySize(t *testing.T) {
	const most = 20
	h, leaves := tree(t, most)
	roots := oracleRoots(t, leaves)
	for size := int64(1); size <= most; size++ {
		for first := range size {
			for count := int64(0); first+count < size; count++ {
				left, right, err := ledger.WindowEdges(first, count, size, h)
				if err != nil {
					t.Fatal(err)
				}
				for m := range size + 1 {
					got, err := ledger.RootAtSize(m, first, count, size, left, right, slices.Values(shown(leaves, first, count)))
					if inside(m, 0, max(0, first-1)) || inside(m, first+count+1, size) {
						if !errors.Is(err, ledger.ErrInsideSubtree) {
							t.Fatalf("RootAtSize(%d) of %d+%d in %d = %v, want ErrInsideSubtree", m, first, count, size, err)
						}
						continue
					}
					if err != nil || got != roots[m] {
						t.Fatalf("RootAtSize(%d) of %d+%d in %d = %x, %v; want %x", m, first, count, size, got, err, roots[m])
					}
				}
			}
		}
	}
}

// inside says whether a tree of size m ends inside a subtree of [lo, hi).
func inside(m, lo, hi int64) bool {
	for _, id := range compact.RangeNodes(uint64(lo), uint64(hi), nil) {
		if from, to := id.Coverage(); from < uint64(m) && uint64(m) < to {
			return true
		}
	}
	return false
}

// TestForgedWindows changes one thing of a good window at a time.
func TestForgedWindows(t *testing.T) {
	h, leaves := tree(t, 100)
	roots := oracleRoots(t, leaves)
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 100).Draw(t, "size")
		first := rapid.Int64Range(0, size-1).Draw(t, "first")
		count := rapid.Int64Range(0, size-1-first).Draw(t, "count")
		left, right, err := ledger.WindowEdges(first, count, size, h)
		if err != nil {
			t.Fatal(err)
		}
		parts := [][]ledger.Hash{slices.Clone(left), slices.Clone(right), slices.Clone(shown(leaves, first, count))}
		part := &parts[rapid.IntRange(0, 2).Draw(t, "part")]
		good := slices.Clone(*part)
		at := rapid.IntRange(0, len(*part)).Draw(t, "at")
		how := rapid.IntRange(0, 3).Draw(t, "how")
		switch {
		case how == 0:
			*part = slices.Insert(*part, at, leaves[rapid.IntRange(0, 99).Draw(t, "extra")])
		case at == len(*part):
		case how == 1:
			*part = slices.Delete(*part, at, at+1)
		case how == 2:
			(*part)[at][rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case how == 3 && at > 0:
			(*part)[at-1], (*part)[at] = (*part)[at], (*part)[at-1]
		}
		got, err := ledger.WindowRoot(first, count, size, parts[0], parts[1], slices.Values(parts[2]))
		switch {
		case slices.Equal(good, *part):
			if err != nil || got != roots[size] {
				t.Errorf("WindowRoot = %x, %v; want %x", got, err, roots[size])
			}
		case len(good) != len(*part):
			if !errors.Is(err, ledger.ErrProof) {
				t.Errorf("WindowRoot with %d hashes for %d = %v, want ErrProof", len(*part), len(good), err)
			}
		case err != nil || got == roots[size]:
			t.Errorf("WindowRoot of a forged window = %x, %v; want another root", got, err)
		}
		// The same lines shown as another window.
		other := rapid.Int64Range(0, size-1).Draw(t, "other")
		if other+count < size && other != first {
			got, err := ledger.WindowRoot(other, count, size, left, right, slices.Values(shown(leaves, first, count)))
			if err == nil && got == roots[size] {
				t.Errorf("the window at %d passes as one at %d", first, other)
			}
		}
	})
}

// TestLargeWindow has the sizes of a real site.
func TestLargeWindow(t *testing.T) {
	const size, first, count = 5000, 1777, 1000
	h, leaves := tree(t, size)
	left, right, err := ledger.WindowEdges(first, count, size, h)
	if err != nil {
		t.Fatal(err)
	}
	want, err := ledger.TreeHash(size, h)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ledger.WindowRoot(first, count, size, left, right, slices.Values(shown(leaves, first, count)))
	if err != nil || got != want {
		t.Errorf("WindowRoot = %x, %v; want %x", got, err, want)
	}
}

func TestNoSuchWindow(t *testing.T) {
	h, leaves := tree(t, 8)
	none := func(func(ledger.Hash) bool) {}
	for _, w := range [][3]int64{
		{-1, 0, 8}, {0, -1, 8}, {0, 8, 8}, {8, 0, 8}, {7, 1, 8}, {3, 5, 8}, {0, 0, 0}, {0, 0, -1}, {1 << 62, 1 << 62, 8},
		{1<<63 - 1, 0, 8}, {0, 1<<63 - 1, 8}, {0, 0, ledger.MaxSize + 1}, {0, 0, 1<<63 - 1},
	} {
		if _, _, err := ledger.WindowEdges(w[0], w[1], w[2], h); err == nil {
			t.Errorf("WindowEdges%v succeeded", w)
		}
		if _, err := ledger.WindowRoot(w[0], w[1], w[2], nil, nil, none); err == nil {
			t.Errorf("WindowRoot%v succeeded", w)
		}
	}
	for _, m := range []int64{-1, 9} {
		if _, err := ledger.RootAtSize(m, 0, 7, 8, nil, nil, slices.Values(leaves)); err == nil {
			t.Errorf("RootAtSize(%d) succeeded", m)
		}
	}
	for _, first := range []int64{-1, ledger.MaxSize, 1<<63 - 1} {
		if _, err := ledger.WindowStartRoot(first, nil, leaves[0]); err == nil {
			t.Errorf("WindowStartRoot(%d) succeeded", first)
		}
	}
	if _, err := ledger.WindowStartRoot(0, leaves[:1], leaves[0]); !errors.Is(err, ledger.ErrProof) {
		t.Errorf("WindowStartRoot(0) with a left edge = %v, want ErrProof", err)
	}
	if _, _, err := ledger.WindowEdges(3, 1, 9, h); err == nil {
		t.Error("WindowEdges of hashes that are not stored succeeded")
	}
	short := ledger.HashReaderFunc(func(at []int64) ([]ledger.Hash, error) { return make([]ledger.Hash, len(at)-1), nil })
	if _, _, err := ledger.WindowEdges(3, 1, 8, short); err == nil {
		t.Error("WindowEdges with too few hashes succeeded")
	}
}

// TestLeavesAreReadOnlyAsFarAsNeeded lets callers stop reading a large archive.
func TestLeavesAreReadOnlyAsFarAsNeeded(t *testing.T) {
	h, leaves := tree(t, 30)
	left, right, err := ledger.WindowEdges(5, 20, 30, h)
	if err != nil {
		t.Fatal(err)
	}
	for m, want := range map[int64]int{4: 0, 5: 1, 10: 6, 25: 21, 26: 22, 28: 22, 30: 22} {
		got := 0
		var counted iter.Seq[ledger.Hash] = func(yield func(ledger.Hash) bool) {
			for _, leaf := range shown(leaves, 5, 20) {
				if got++; !yield(leaf) {
					return
				}
			}
		}
		if _, err := ledger.RootAtSize(m, 5, 20, 30, left, right, counted); err != nil || got != want {
			t.Errorf("RootAtSize(%d) read %d leaves, %v; want %d", m, got, err, want)
		}
	}
}
