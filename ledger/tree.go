package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// MaxSize bounds the number of entries: seq and size are JSON integers.
const MaxSize = 1<<53 - 1

// A Hash is a node of the tree. In JSON of ours it is lower-case hex (see
// [HexHash]); its own MarshalJSON and String are base64.
type Hash = tlog.Hash

// A HashReader reads stored hashes by their [StoredHashIndex]: all that were
// asked for, in that order, or an error.
type HashReader = tlog.HashReader

// HashReaderFunc is a function as a [HashReader].
type HashReaderFunc = tlog.HashReaderFunc

// HexHash is the form of a hash in JSON.
func HexHash(h Hash) string { return hex.EncodeToString(h[:]) }

// ParseHash accepts exactly what [HexHash] gives.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if !isHash(s) {
		return h, malformed("hash", "not 64 hex digits")
	}
	_, err := hex.Decode(h[:], []byte(s))
	return h, err
}

// LeafHash is the leaf of an envelope line: SHA-256(0x00 ‖ line).
func LeafHash(line []byte) Hash { return tlog.RecordHash(line) }

// StoredHashes returns the hashes to store for the entry seq with this envelope
// line: the leaf and every subtree that it completes. They go, in order, to the
// indexes from StoredHashCount(seq) on. r reads what earlier calls returned.
func StoredHashes(seq int64, line []byte, r HashReader) ([]Hash, error) {
	if seq < 0 || seq >= MaxSize {
		return nil, fmt.Errorf("ledger: no entry has seq %d", seq)
	}
	hashes, err := tlog.StoredHashes(seq, line, r)
	if err != nil {
		return nil, fmt.Errorf("ledger: hashes of entry %d: %w", seq, err)
	}
	return hashes, nil
}

// StoredHashIndex is where the hash of the subtree of the leaves n·2^level to
// (n+1)·2^level-1 is stored. Neither may be negative.
func StoredHashIndex(level int, n int64) int64 { return tlog.StoredHashIndex(level, n) }

// StoredHashEntry is the entry that fills the subtree whose hash is stored at an index,
// and the level of that, 0 for the leaf itself.
func StoredHashEntry(index int64) (seq int64, level int) {
	level, n := tlog.SplitStoredHashIndex(index)
	return (n+1)<<level - 1, level
}

// StoredHashCount is the number of hashes stored for a tree of size leaves.
func StoredHashCount(size int64) int64 { return tlog.StoredHashCount(size) }

// TreeHash is the root of the tree of the first size leaves. That of none is
// SHA-256 of nothing.
func TreeHash(size int64, r HashReader) (Hash, error) {
	if size < 0 || size > MaxSize {
		return Hash{}, fmt.Errorf("ledger: no tree has size %d", size)
	}
	h, err := tlog.TreeHash(size, r)
	if err != nil {
		return Hash{}, fmt.Errorf("ledger: root of size %d: %w", size, err)
	}
	return h, nil
}

// ProveInclusion returns the proof that entry seq is in the tree of size, from
// the leaf's sibling up (RFC 6962, section 2.1.1).
func ProveInclusion(size, seq int64, r HashReader) ([]Hash, error) {
	if seq < 0 || seq >= size || size > MaxSize {
		return nil, fmt.Errorf("ledger: no proof of entry %d in size %d", seq, size)
	}
	p, err := tlog.ProveRecord(size, seq, r)
	if err != nil {
		return nil, fmt.Errorf("ledger: proof of entry %d in size %d: %w", seq, size, err)
	}
	return p, nil
}

// CheckInclusion returns nil if proof shows that leaf is entry seq of the tree
// of size with this root, and otherwise [ErrProof].
func CheckInclusion(proof []Hash, size int64, root Hash, seq int64, leaf Hash) error {
	if seq < 0 || seq >= size || size > MaxSize || tlog.CheckRecord(proof, size, root, seq, leaf) != nil {
		return fmt.Errorf("ledger: entry %d in size %d: %w", seq, size, ErrProof)
	}
	return nil
}

// ProveConsistency returns the proof that the tree of size extends the tree of
// old (RFC 6962, section 2.1.2). It is empty if old is 0 or size.
func ProveConsistency(size, old int64, r HashReader) ([]Hash, error) {
	if old < 0 || old > size || size > MaxSize {
		return nil, fmt.Errorf("ledger: no proof from size %d to %d", old, size)
	}
	if old == 0 {
		return nil, nil
	}
	p, err := tlog.ProveTree(size, old, r)
	if err != nil {
		return nil, fmt.Errorf("ledger: proof from size %d to %d: %w", old, size, err)
	}
	return p, nil
}

// CheckConsistency returns nil if proof shows that the tree of size with root
// extends the tree of old with oldRoot, and otherwise [ErrProof].
func CheckConsistency(proof []Hash, size int64, root Hash, old int64, oldRoot Hash) error {
	ok := old >= 0 && old <= size && size <= MaxSize
	switch {
	case !ok:
	case old == 0:
		ok = len(proof) == 0 && oldRoot == emptyRoot() && (size > 0 || root == oldRoot)
	default:
		ok = tlog.CheckTree(proof, size, root, old, oldRoot) == nil
	}
	if !ok {
		return fmt.Errorf("ledger: from size %d to %d: %w", old, size, ErrProof)
	}
	return nil
}

func emptyRoot() Hash {
	h, err := tlog.TreeHash(0, nil)
	if err != nil {
		panic("ledger: the empty tree has no root: " + err.Error())
	}
	return h
}

// A spine is a tree of size leaves reduced to the roots of its largest complete
// subtrees, left to right: one for each bit that is set in size.
type spine struct {
	size  int64
	nodes []Hash
}

// add appends a complete subtree of 2^level leaves. The size must be a multiple
// of that.
func (s *spine) add(level int, h Hash) {
	for bit := int64(1) << level; s.size&bit != 0; bit <<= 1 { // carry
		last := len(s.nodes) - 1
		h = tlog.NodeHash(s.nodes[last], h)
		s.nodes = s.nodes[:last]
		s.size -= bit
		level++
	}
	s.nodes = append(s.nodes, h)
	s.size += 1 << level
}

// A Tree is a tree that grows leaf by leaf, of which little more than its edge is held. The
// zero value is the empty one. It is for one goroutine.
type Tree struct {
	spine  spine
	buf    []byte
	hashes []Hash
}

// TreeOf is the tree of the first size leaves, of which r reads what [StoredHashes] gave.
func TreeOf(size int64, r HashReader) (*Tree, error) {
	var indexes []int64
	for at, level := range subtrees(0, size) {
		indexes = append(indexes, StoredHashIndex(level, at>>level))
	}
	nodes, err := r.ReadHashes(indexes)
	if err == nil && len(nodes) != len(indexes) {
		err = fmt.Errorf("%d hashes for %d indexes", len(nodes), len(indexes))
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: tree of %d entries: %w", size, err)
	}
	return &Tree{spine: spine{size, nodes}}, nil
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return t.spine.size }

// Add appends the leaf of an envelope line, and returns the hashes that [StoredHashes] gives
// for it: they are good until the next call.
func (t *Tree) Add(line []byte) []Hash {
	t.buf = append(append(t.buf[:0], 0), line...)
	h := Hash(sha256.Sum256(t.buf))
	t.hashes = append(t.hashes[:0], h)
	nodes := t.spine.nodes
	for bit := int64(1); t.spine.size&bit != 0; bit <<= 1 { // subtrees that are full now
		last := len(nodes) - 1
		t.buf = append(append(append(t.buf[:0], 1), nodes[last][:]...), h[:]...)
		h, nodes = Hash(sha256.Sum256(t.buf)), nodes[:last]
		t.hashes = append(t.hashes, h)
	}
	t.spine.nodes = append(nodes, h)
	t.spine.size++
	return t.hashes
}

// Root is the root of the tree; that of the empty one is SHA-256 of nothing.
func (t *Tree) Root() Hash { return t.spine.root() }

func (s *spine) root() Hash {
	if len(s.nodes) == 0 {
		return emptyRoot()
	}
	last := len(s.nodes) - 1
	h := s.nodes[last]
	for i := last - 1; i >= 0; i-- {
		h = tlog.NodeHash(s.nodes[i], h)
	}
	return h
}

// subtrees yields the largest complete subtrees that together hold the leaves
// from lo to hi-1, left to right, each by its first leaf and its level.
func subtrees(lo, hi int64) iter.Seq2[int64, int] {
	return func(yield func(int64, int) bool) {
		for lo < hi {
			level := bits.Len64(uint64(hi-lo)) - 1
			if lo > 0 {
				level = min(level, bits.TrailingZeros64(uint64(lo)))
			}
			if !yield(lo, level) {
				return
			}
			lo += 1 << level
		}
	}
}
