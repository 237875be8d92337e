package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"pgregory.net/rapid"

	"github.com/stellarun/stella/ledger"
)

// oracle is another implementation of the same tree.
var oracle = rfc6962.DefaultHasher

func slicesOf(h []ledger.Hash) [][]byte {
	var out [][]byte
	for i := range h {
		out = append(out, h[i][:])
	}
	return out
}

// oracleRoots returns the roots of all sizes from 0 to len(leaves).
func oracleRoots(t testing.TB, leaves []ledger.Hash) []ledger.Hash {
	t.Helper()
	roots := []ledger.Hash{ledger.Hash(oracle.EmptyRoot())}
	r := (&compact.RangeFactory{Hash: oracle.HashChildren}).NewEmptyRange(0)
	for _, leaf := range leaves {
		if err := r.Append(leaf[:], nil); err != nil {
			t.Fatal(err)
		}
		root, err := r.GetRootHash(nil)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, ledger.Hash(root))
	}
	return roots
}

const oracleSize = 40

func TestTreeAgainstOracle(t *testing.T) {
	h, leaves := tree(t, oracleSize)
	if want := oracle.HashLeaf([]byte("line 3")); string(want) != string(leaves[3][:]) {
		t.Errorf("LeafHash = %x, want %x", leaves[3], want)
	}
	roots := oracleRoots(t, leaves)
	for size := int64(0); size <= oracleSize; size++ {
		root, err := ledger.TreeHash(size, h)
		if err != nil || root != roots[size] {
			t.Fatalf("TreeHash(%d) = %x, %v; want %x", size, root, err, roots[size])
		}
		for seq := range size {
			p, err := ledger.ProveInclusion(size, seq, h)
			if err != nil {
				t.Fatal(err)
			}
			if err := ledger.CheckInclusion(p, size, root, seq, leaves[seq]); err != nil {
				t.Error(err)
			}
			if err := proof.VerifyInclusion(oracle, uint64(seq), uint64(size), leaves[seq][:], slicesOf(p), root[:]); err != nil {
				t.Errorf("the oracle refuses the proof of %d in %d: %v", seq, size, err)
			}
		}
		for old := range size + 1 {
			p, err := ledger.ProveConsistency(size, old, h)
			if err != nil {
				t.Fatal(err)
			}
			if err := ledger.CheckConsistency(p, size, root, old, roots[old]); err != nil {
				t.Error(err)
			}
			if err := proof.VerifyConsistency(oracle, uint64(old), uint64(size), slicesOf(p), roots[old][:], root[:]); err != nil {
				t.Errorf("the oracle refuses the proof from %d to %d: %v", old, size, err)
			}
		}
	}
}

// TestForgedProofs changes one thing of a good proof at a time.
func TestForgedProofs(t *testing.T) {
	h, leaves := tree(t, 64)
	roots := oracleRoots(t, leaves)
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 64).Draw(t, "size")
		seq := rapid.Int64Range(0, size-1).Draw(t, "seq")
		old := rapid.Int64Range(0, size).Draw(t, "old")
		in, err := ledger.ProveInclusion(size, seq, h)
		if err != nil {
			t.Fatal(err)
		}
		con, err := ledger.ProveConsistency(size, old, h)
		if err != nil {
			t.Fatal(err)
		}
		forge := func(p []ledger.Hash) []ledger.Hash {
			p = slices.Clone(p)
			switch at := rapid.IntRange(0, len(p)).Draw(t, "at"); rapid.IntRange(0, 2).Draw(t, "how") {
			case 0: // one more
				return slices.Insert(p, at, leaves[rapid.IntRange(0, 63).Draw(t, "extra")])
			case 1: // one less
				if at < len(p) {
					return slices.Delete(p, at, at+1)
				}
			case 2: // another
				if at < len(p) {
					p[at][rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
				}
			}
			return p
		}
		if p := forge(in); !slices.Equal(p, in) {
			if err := ledger.CheckInclusion(p, size, roots[size], seq, leaves[seq]); !errors.Is(err, ledger.ErrProof) {
				t.Errorf("a forged proof of %d in %d: %v, want ErrProof", seq, size, err)
			}
		}
		if p := forge(con); !slices.Equal(p, con) {
			if err := ledger.CheckConsistency(p, size, roots[size], old, roots[old]); !errors.Is(err, ledger.ErrProof) {
				t.Errorf("a forged proof from %d to %d: %v, want ErrProof", old, size, err)
			}
		}
		other := rapid.Int64Range(0, 64).Draw(t, "other")
		if other != seq && ledger.CheckInclusion(in, size, roots[size], other, leaves[seq]) == nil {
			t.Errorf("the proof of %d in %d holds for %d", seq, size, other)
		}
		if other != size && (ledger.CheckInclusion(in, size, roots[other], seq, leaves[seq]) == nil ||
			ledger.CheckConsistency(con, size, roots[other], old, roots[old]) == nil && old != 0) {
			t.Errorf("proofs in %d hold with the root of %d", size, other)
		}
		if other != old && ledger.CheckConsistency(con, size, roots[size], old, roots[other]) == nil {
			t.Errorf("the proof from %d holds with the root of %d", old, other)
		}
	})
}

func TestSizesOutOfRange(t *testing.T) {
	h, leaves := tree(t, 4)
	root := ledger.Hash{}
	for name, err := range map[string]error{
		"TreeHash(-1)":             second(ledger.TreeHash(-1, h)),
		"TreeHash(max)":            second(ledger.TreeHash(ledger.MaxSize+1, h)),
		"StoredHashes(-1)":         second(ledger.StoredHashes(-1, nil, h)),
		"StoredHashes(max)":        second(ledger.StoredHashes(ledger.MaxSize, nil, h)),
		"ProveInclusion(4, 4)":     second(ledger.ProveInclusion(4, 4, h)),
		"ProveInclusion(4, -1)":    second(ledger.ProveInclusion(4, -1, h)),
		"ProveInclusion(max)":      second(ledger.ProveInclusion(1<<62, 1, h)),
		"ProveConsistency(4, 5)":   second(ledger.ProveConsistency(4, 5, h)),
		"ProveConsistency(4, -1)":  second(ledger.ProveConsistency(4, -1, h)),
		"ProveConsistency(max)":    second(ledger.ProveConsistency(1<<62, 1, h)),
		"TreeHash(5)":              second(ledger.TreeHash(5, h)), // not stored
		"ProveInclusion(9, 8)":     second(ledger.ProveInclusion(9, 8, h)),
		"ProveConsistency(9, 8)":   second(ledger.ProveConsistency(9, 8, h)),
		"StoredHashes(9)":          second(ledger.StoredHashes(9, nil, h)),
		"CheckInclusion(max)":      ledger.CheckInclusion(nil, 1<<62, root, 1, leaves[0]),
		"CheckInclusion(1, -1)":    ledger.CheckInclusion(nil, 1, root, -1, leaves[0]),
		"CheckInclusion(0, 0)":     ledger.CheckInclusion(nil, 0, root, 0, leaves[0]),
		"CheckConsistency(0, 0)":   ledger.CheckConsistency(nil, 0, leaves[0], 0, ledger.Hash(oracle.EmptyRoot())),
		"CheckConsistency(max)":    ledger.CheckConsistency(nil, 1<<62, root, 1, root),
		"CheckConsistency(4, -1)":  ledger.CheckConsistency(nil, 4, root, -1, root),
		"CheckConsistency(-1, -1)": ledger.CheckConsistency(nil, -1, root, -1, root),
	} {
		if err == nil {
			t.Errorf("%s succeeded", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestParseHash(t *testing.T) {
	_, leaves := tree(t, 1)
	hex := ledger.HexHash(leaves[0])
	if h, err := ledger.ParseHash(hex); err != nil || h != leaves[0] || len(hex) != 64 {
		t.Errorf("ParseHash(%s) = %x, %v", hex, h, err)
	}
	for _, bad := range []string{"", hex[2:], hex + "00", "G" + hex[1:], "A" + hex[1:], " " + hex[1:]} {
		if h, err := ledger.ParseHash(bad); err == nil || h != (ledger.Hash{}) {
			t.Errorf("ParseHash(%q) = %x, %v; want an error", bad, h, err)
		}
	}
}

// A tree grows alike whether it was held from its first leaf or read again at any size.
func TestATreeGrowsFromAnySize(t *testing.T) {
	h, leaves := tree(t, oracleSize)
	roots := oracleRoots(t, leaves)
	for from := int64(0); from <= oracleSize; from++ {
		tree, err := ledger.TreeOf(from, h)
		if err != nil {
			t.Fatal(err)
		}
		for size := from; ; size++ {
			if tree.Size() != size || tree.Root() != roots[size] {
				t.Fatalf("read at %d: size %d, root %x; want %d, %x", from, tree.Size(), tree.Root(), size, roots[size])
			}
			if size == oracleSize {
				break
			}
			want := h[ledger.StoredHashCount(size):ledger.StoredHashCount(size+1)]
			if got := tree.Add(fmt.Appendf(nil, "line %d", size)); !slices.Equal(got, want) {
				t.Fatalf("read at %d: leaf %d gives %x, want %x", from, size, got, want)
			}
		}
	}
	if _, err := ledger.TreeOf(oracleSize+1, h); err == nil {
		t.Error("a tree of more leaves than are stored is read")
	}
}
