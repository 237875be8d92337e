package ledger

import (
	"fmt"
	"slices"
)

// What is wrong with an entry, as [Fault] says it. The strings reach JSON.
const (
	FaultEnvelope = "envelope" // not the one form of an envelope
	FaultSeq      = "seq"      // does not follow the entry before
	FaultTime     = "time"     // before that of the entry before
	FaultType     = "type"     // unknown type or version, or the first type elsewhere than first
	FaultData     = "data"     // not the data line of the envelope, or not data of its type
)

// A Fault is the first bad entry of a ledger.
type Fault struct {
	Seq  int64  // that the entry should have had
	What string // one of the constants
	Err  error
}

func (f *Fault) Error() string { return fmt.Sprintf("ledger: entry %d: %s: %v", f.Seq, f.What, f.Err) }

func (f *Fault) Unwrap() error { return f.Err }

// VerifierOptions says where a [Verifier] begins and what it remembers. The
// zero value is for a whole ledger.
type VerifierOptions struct {
	First int64   // seq of the first entry that will be added
	Left  []Hash  // complete subtrees of the entries before First, as [WindowEdges] gives them
	Sizes []int64 // tree sizes beyond First whose roots will be asked for, as of stored checkpoints
}

// A Verifier checks the entries of a ledger one after the other and computes
// the roots of its tree. It holds a few hashes whatever the length. It is for
// one goroutine.
//
// It does not know which root is the right one: the caller compares with a
// checkpoint. Nor does it know which entries may follow each other.
type Verifier struct {
	tree  spine
	last  string  // time of the entry before; "" before the first
	sizes []int64 // sorted; those still to come
	roots map[int64]Hash
	fault *Fault
}

// NewVerifier returns a verifier for the entries from opt.First on.
func NewVerifier(opt VerifierOptions) (*Verifier, error) {
	if opt.First < 0 || opt.First > MaxSize {
		return nil, fmt.Errorf("ledger: no entry has seq %d", opt.First)
	}
	v := &Verifier{sizes: slices.Sorted(slices.Values(opt.Sizes)), roots: map[int64]Hash{}}
	if err := v.tree.addEdge(0, opt.First, opt.First, opt.Left); err != nil {
		return nil, fmt.Errorf("ledger: verify from entry %d: %w", opt.First, err)
	}
	v.remember()
	return v, nil
}

// Add checks the next entry: its envelope line and its data line, neither with
// a line feed, and returns both decoded. A nil data line is one that is
// withheld: whether that may be is for the caller to know, and the data
// returned is nil. An entry that is wrong is a *[Fault], and is not part of the
// tree; every later call returns the same.
func (v *Verifier) Add(envelope, data []byte) (Envelope, any, error) {
	if v.fault != nil {
		return Envelope{}, nil, v.fault
	}
	e, decoded, what, err := v.check(envelope, data)
	if err != nil {
		v.fault = &Fault{Seq: v.tree.size, What: what, Err: err}
		return Envelope{}, nil, v.fault
	}
	v.last = e.Time
	v.tree.add(0, LeafHash(envelope))
	v.remember()
	return e, decoded, nil
}

func (v *Verifier) check(envelope, data []byte) (e Envelope, decoded any, what string, err error) {
	if e, err = ParseEnvelope(envelope); err != nil {
		return e, nil, FaultEnvelope, err
	}
	if e.Seq != v.tree.size {
		return e, nil, FaultSeq, fmt.Errorf("seq %d where %d should be", e.Seq, v.tree.size)
	}
	if e.Time < v.last { // the form makes them comparable as strings
		return e, nil, FaultTime, fmt.Errorf("%s is before %s", e.Time, v.last)
	}
	info, ok := lookup(e.Type)
	if !ok || e.V > info.Version {
		return e, nil, FaultType, fmt.Errorf("%q version %d: %w", string(e.Type), e.V, ErrUnknownType)
	}
	if (e.Type == SiteInitialized) != (e.Seq == 0) {
		return e, nil, FaultType, fmt.Errorf("%s as entry %d", e.Type, e.Seq)
	}
	if data == nil {
		return e, nil, "", nil
	}
	line, err := Match(e, data)
	if err != nil {
		return e, nil, FaultData, err
	}
	if decoded, err = DecodeData(e.Type, line.Data); err != nil {
		return e, nil, FaultData, err
	}
	return e, decoded, "", nil
}

// remember notes the present root if it will be asked for.
func (v *Verifier) remember() {
	for len(v.sizes) > 0 && v.sizes[0] <= v.tree.size {
		if v.sizes[0] == v.tree.size {
			v.roots[v.tree.size] = v.tree.root()
		}
		v.sizes = v.sizes[1:]
	}
}

// Size is the number of entries up to and including the last good one, those
// before First included. After a fault it is the length of the intact prefix.
func (v *Verifier) Size() int64 { return v.tree.size }

// Root is the root of the tree of Size entries.
func (v *Verifier) Root() Hash { return v.tree.root() }

// RootAt is the root of the tree of size entries, if that is the present size,
// or one of the options' Sizes that was passed.
func (v *Verifier) RootAt(size int64) (Hash, bool) {
	if size == v.tree.size {
		return v.tree.root(), true
	}
	h, ok := v.roots[size]
	return h, ok
}
