package store

import (
	"errors"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
)

// said is what entries of a ledger say is erased: seq → SHA-256 of what remains. They are
// looked at from the last to the first, since one whose own data was erased is believed where
// a later one says what remains of it.
type said map[int64]string

// see takes in an entry that may be damaged: one says something only where its envelope is the
// leaf that the tree has, and its data what the envelope names. It returns that data.
func (s said) see(hashes []ledger.Hash, l Lines) (data any) {
	if !erases(l.Envelope) || !isLeaf(hashes, l.Envelope) {
		return nil
	}
	if l.Data != nil && ledger.CheckDataHash(l.Envelope, l.Data) != nil || l.Data == nil && s[l.Seq] != hexSum(l.remains) {
		return nil
	}
	env, err := ledger.ParseEnvelope(l.Envelope)
	if err != nil || env.Seq != l.Seq {
		return nil
	}
	if data, err = l.data(env.Type); err != nil {
		return nil
	}
	for _, x := range erasedBy(data) {
		if _, known := s[x.Seq]; !known && x.Seq < l.Seq {
			s[x.Seq] = x.Remains
		}
	}
	return data
}

// isLeaf says whether an envelope is the one that the hashes of its entry were made of.
func isLeaf(hashes []ledger.Hash, envelope []byte) bool {
	return len(hashes) > 0 && hashes[0] == ledger.LeafHash(envelope)
}

// erasedBy is what an entry says is erased.
func erasedBy(data any) []ledger.ErasedData {
	switch d := data.(type) {
	case *ledger.Erasure:
		return d.Entries
	case *ledger.EpochStart:
		return d.Erased
	}
	return nil
}

// loadAgreed finds what is agreed to be erased and still there: from now on nobody is shown it.
// [kErased] is believed in one thing only, that nothing has to be looked for: it is read before
// anything is verified, and what is erased does not come back. What an entry says other remains
// of than would is not erased: that is for a check to say.
func (db *DB) loadAgreed(t *bolt.Tx) error {
	agreed, err := agreedIn(t)
	if err != nil {
		return err
	}
	there := func(seq int64) bool {
		_, l, err := entryOf(t, seq)
		return err != nil || l.Data != nil
	}
	hidden := map[int64]bool{}
	if slices.ContainsFunc(agreed, there) {
		says := said{}
		for seq := db.Size() - 1; seq >= 0; seq-- {
			if hashes, l, err := entryOf(t, seq); err == nil {
				says.see(hashes, l)
			}
		}
		for seq, remains := range says {
			_, l, err := entryOf(t, seq)
			if err != nil || l.Data == nil {
				continue
			}
			x, err := l.erasedData()
			if !errors.Is(err, ErrNothingSaid) {
				hidden[seq] = err == nil && x.Remains == remains
			}
		}
	}
	db.agreed.Store(&hidden)
	return nil
}

// erasures holds what is erased, and what remains of it, against what entries say was.
type erasures struct {
	gone  []ledger.ErasedData
	named map[int64]string // seq → digest of what remains
}

func (e *erasures) see(l Lines, data any) {
	if l.Data == nil {
		e.gone = append(e.gone, ledger.ErasedData{Seq: l.Seq, Remains: hexSum(l.remains)})
	}
	named := erasedBy(data)
	if e.named == nil && len(named) > 0 {
		e.named = map[int64]string{}
	}
	for _, x := range named {
		e.named[x.Seq] = x.Remains
	}
}

var errOtherRemains = errors.New("what remains of its erased data is not what was recorded")

// check finds data that is gone and that nobody has agreed to erase, and what remains of data
// and is not what it was.
func (e *erasures) check() error {
	for _, x := range e.gone {
		switch remains, ok := e.named[x.Seq]; {
		case !ok:
			return damaged(errors.New("its data is gone, and no entry says that it was erased"), "entry %d", x.Seq)
		case remains != x.Remains:
			return damaged(errOtherRemains, "entry %d", x.Seq)
		}
	}
	return nil
}

// checkErasures is the end of a check of the first entries of the ledger. Data of these may
// have been erased while it went on: then entries beyond them say so.
func (db *DB) checkErasures(e *erasures, size int64) error {
	unnamed := func(x ledger.ErasedData) bool { _, ok := e.named[x.Seq]; return !ok }
	return db.view(func(t *bolt.Tx) error {
		if slices.ContainsFunc(e.gone, unnamed) {
			later := said{}
			for seq := sizeIn(t) - 1; seq >= size; seq-- {
				if raw, l, err := entryAt(t, seq); err == nil {
					later.see(splitHashes(raw), l)
				}
			}
			maps.Copy(later, e.named)
			e.named = later
		}
		if err := e.check(); err != nil {
			return err
		}
		return e.checkThere(t)
	})
}

// checkThere finds data that an entry says is erased, that is there, and that cannot go: other
// remains of it than was recorded.
func (e *erasures) checkThere(t *bolt.Tx) error {
	for _, x := range e.gone {
		delete(e.named, x.Seq)
	}
	for _, seq := range slices.Sorted(maps.Keys(e.named)) {
		_, l, err := entryAt(t, seq)
		x := ledger.ErasedData{Remains: hexSum(l.remains)} // it went a moment ago
		if err == nil && l.Data != nil {
			x, err = l.erasedData()
		}
		if err == nil && x.Remains != e.named[seq] {
			err = errors.New("an entry says that its data is erased, and that other remains of it than does")
		}
		if err != nil {
			return damaged(err, "entry %d", seq)
		}
	}
	return nil
}
