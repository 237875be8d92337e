package store

import (
	"encoding/json"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
)

// Gone is an entry whose data was erased, in a ledger that may have another in its place.
type Gone struct {
	Seq     int64
	Leaf    ledger.Hash // of its envelope
	Remains string      // SHA-256 of what remains of its data
}

// gone is which data is erased, or agreed to be, in so many entries: by those that can be read
// and are as they were written, and where it is gone. What cannot be told from these, and meta
// says all the same, or of which the entry itself cannot be read, is only said to be.
// epoch is the highest that one of the entries begins, 0 for none. look is shown each entry that
// is as it was written, the newest first.
func (w *wreck) gone(known int64, look func(Lines)) (named []Gone, only []int64, epoch int64) {
	says, left := said{}, map[int64]Gone{}
	for seq := known - 1; seq >= 0; seq-- {
		l, hashes, err := w.entry(seq)
		if err != nil || !isLeaf(hashes, l.Envelope) {
			continue
		}
		if d, ok := says.see(hashes, l).(*ledger.EpochStart); ok && d.Epoch <= MaxEpoch {
			epoch = max(epoch, d.Epoch)
		}
		look(l)
		if l.Data == nil && l.remains != nil {
			left[seq] = Gone{seq, hashes[0], hexSum(l.remains)}
		}
	}
	for seq, remains := range says {
		l, hashes, err := w.entry(seq)
		if err != nil || !isLeaf(hashes, l.Envelope) {
			only = append(only, seq)
			continue
		}
		left[seq] = Gone{seq, hashes[0], remains}
	}
	_ = w.each(bMeta, func(k, v []byte) error {
		var seqs []int64
		if string(k) == string(kErased) && json.Unmarshal(v, &seqs) == nil {
			only = append(only, seqs...)
		}
		return nil
	})
	slices.Sort(only)
	only = slices.DeleteFunc(slices.Compact(only), func(seq int64) bool { _, ok := left[seq]; return ok })
	for _, seq := range slices.Sorted(maps.Keys(left)) {
		named = append(named, left[seq])
	}
	return named, only, epoch
}

// Back says which of these entries are here though no entry here says that their data is
// erased, be it that it is here again or not: the same entries, of which the same remains.
// unsure are those whose data is here, and of which that cannot be told: other remains of it, or
// they were only said to be erased.
func (db *DB) Back(gone []Gone, only []int64) (back []ledger.ErasedData, unsure []int64, err error) {
	err = db.view(func(t *bolt.Tx) error {
		agreed, err := agreedIn(t)
		if err != nil {
			return err
		}
		for _, g := range gone {
			_, l, err := entryAt(t, g.Seq)
			if err != nil || slices.Contains(agreed, g.Seq) || ledger.LeafHash(l.Envelope) != g.Leaf {
				continue
			}
			x := ledger.ErasedData{Seq: l.Seq, Remains: hexSum(l.remains)}
			if l.Data != nil {
				x, err = l.erasedData()
			}
			switch {
			case err != nil: // there is nothing in it that could be erased
			case x.Remains == g.Remains:
				back = append(back, x)
			case l.Data != nil:
				unsure = append(unsure, g.Seq)
			}
		}
		for _, seq := range only {
			_, l, err := entryAt(t, seq)
			if err != nil || slices.Contains(agreed, seq) {
				continue
			}
			if _, err = l.erased(); err == nil {
				unsure = append(unsure, seq)
			}
		}
		slices.Sort(unsure)
		return nil
	})
	return back, unsure, err
}
