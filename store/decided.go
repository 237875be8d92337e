package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

// Decided is what a ledger says was decided for good: that bundles were let in, which older ones
// and other bytes under their names are refused for, and that versions of DAGs are disabled.
type Decided struct {
	Bundles  []ledger.RememberedBundle
	Disabled []DisabledDAG

	epoch   int64
	unclear []span // entries that may have decided something, and do not say what
}

// span is entries from one to before another.
type span struct{ from, to int64 }

// DisabledDAG is a version that is disabled, by an entry with this seq and leaf.
type DisabledDAG struct {
	DAGID, Version string

	seq  int64
	leaf ledger.Hash
}

// Forgotten is what of it another ledger does not say that takes the place of the first.
type Forgotten struct {
	Decided
	Unpublished []DisabledDAG // versions that are not even published in it
	Unclear     int64         // entries beyond it that cannot be read: what they decided is not known
}

// deciding gathers what is decided from entries, the newest first.
type deciding struct {
	bundles map[string]ledger.RememberedBundle // by reference
	dags    map[string]*DisabledDAG            // by DAG and version, nil for one that is enabled
	unclear []span                             // the newest first
	next    int64                              // what comes before this one is to be seen
}

// see looks at an entry. One whose data is not what its envelope names says nothing, and what it
// was is not clear; nor is that of the entries which are not seen.
func (d *deciding) see(l Lines) {
	d.upTo(l.Seq + 1)
	d.next = l.Seq
	for _, t := range []ledger.Type{ledger.BundleAdmitted, ledger.BundlesRemembered, ledger.DAGDisabled, ledger.DAGEnabled} {
		if !l.is(t) {
			continue
		}
		data, err := l.data(t)
		if err != nil || l.Data != nil && ledger.CheckDataHash(l.Envelope, l.Data) != nil {
			d.next++
			d.upTo(l.Seq)
			return
		}
		switch data := data.(type) {
		case *ledger.BundleAdmission:
			d.admitted(remembered(data))
		case *ledger.BundleMemory:
			for _, b := range data.Bundles {
				d.admitted(b)
			}
		case *ledger.DAGSwitch:
			key := string(pair(data.DAGID, data.Version))
			if _, newer := d.dags[key]; newer {
				return
			}
			d.dags[key] = nil
			if t == ledger.DAGDisabled {
				d.dags[key] = &DisabledDAG{data.DAGID, data.Version, l.Seq, ledger.LeafHash(l.Envelope)}
			}
		}
	}
}

// upTo says that nothing is clear from a seq to the entry that was seen last.
func (d *deciding) upTo(seq int64) {
	switch n := len(d.unclear); {
	case d.next <= seq:
	case n > 0 && d.unclear[n-1].from == d.next:
		d.unclear[n-1].from = seq
	default:
		d.unclear = append(d.unclear, span{seq, d.next})
	}
	d.next = min(d.next, seq)
}

// tables looks at what follows from the entries, where not all of them are clear. No tree covers
// it, but it can only refuse more: a floor with the reference of its digest, and what is disabled.
func (d *deciding) tables(w *wreck) {
	if len(d.unclear) == 0 {
		return
	}
	refs := map[string]string{} // digest → reference
	_ = w.each(bRefs, func(k, v []byte) error {
		refs[string(v)] = string(k)
		return nil
	})
	_ = w.each(bFloors, func(k, v []byte) error {
		var f Floor
		key := strings.Split(string(k), "\x00")
		if json.Unmarshal(v, &f) != nil || len(key) != 3 {
			return nil
		}
		ref, err := manifests.ParseRef(refs[f.Digest])
		b := ledger.RememberedBundle{
			Kind: key[0], Publisher: key[1], Name: key[2], Version: ref.Version, Sequence: f.Sequence, Digest: f.Digest, Epoch: f.Epoch,
		}
		if err == nil && ref.String() == b.Ref() && plausible(b) {
			d.admitted(b)
		}
		return nil
	})
	_ = w.each(bDAGs, func(k, v []byte) error {
		var rec DAGRecord
		key := string(k)
		if json.Unmarshal(v, &rec) == nil && !rec.Enabled && key == string(pair(rec.DAGID, rec.Version)) && d.dags[key] == nil {
			d.dags[key] = &DisabledDAG{DAGID: rec.DAGID, Version: rec.Version}
		}
		return nil
	})
}

// plausible says whether an entry can have said this of a bundle.
func plausible(b ledger.RememberedBundle) bool {
	_, err := ledger.ParseHash(b.Digest)
	return err == nil && utf8.ValidString(b.Kind) && min(b.Sequence, b.Epoch) >= 0 && max(b.Sequence, b.Epoch) < 1<<53
}

// remembered is what is remembered of an admission.
func remembered(d *ledger.BundleAdmission) ledger.RememberedBundle {
	v := d.Verdict
	return ledger.RememberedBundle{
		Kind: v.Kind, Publisher: v.Publisher, Name: v.Name, Version: v.Version, Sequence: v.Sequence, Digest: v.Digest, Epoch: d.Epoch,
	}
}

func (d *deciding) admitted(b ledger.RememberedBundle) {
	if _, newer := d.bundles[b.Ref()]; !newer {
		d.bundles[b.Ref()] = b
	}
}

// all is what was gathered, in an order that says nothing.
func (d *deciding) all() (out Decided) {
	out.unclear = d.unclear
	for _, b := range d.bundles {
		out.Bundles = append(out.Bundles, b)
	}
	for _, x := range d.dags {
		if x != nil {
			out.Disabled = append(out.Disabled, *x)
		}
	}
	slices.SortFunc(out.Bundles, func(a, b ledger.RememberedBundle) int {
		return cmp.Or(cmp.Compare(a.Publisher, b.Publisher), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Version, b.Version))
	})
	slices.SortFunc(out.Disabled, func(a, b DisabledDAG) int {
		return cmp.Or(cmp.Compare(a.DAGID, b.DAGID), cmp.Compare(a.Version, b.Version))
	})
	return out
}

// is says whether an entry is of a type, by its envelope alone.
func (l Lines) is(t ledger.Type) bool {
	return bytes.Contains(l.Envelope, []byte(`"type":"`+string(t)+`"`))
}

// Forgotten says what of the decisions of another ledger this one does not have.
func (db *DB) Forgotten(d Decided) (f Forgotten, err error) {
	from := db.Size()
	if d.epoch != db.Epoch() { // from where on the two differ is not known
		from = 0
	}
	for _, s := range d.unclear {
		f.Unclear += max(0, s.to-max(s.from, from))
	}
	err = db.view(func(t *bolt.Tx) error {
		for _, b := range d.Bundles {
			floor, err := floorOf(t, b.Kind, b.Publisher, b.Name)
			if err != nil {
				return err
			}
			known := t.Bucket(bRefs).Get([]byte(b.Ref()))
			if known == nil || string(known) == b.Digest && floor.below(b.Epoch, b.Sequence) {
				f.Bundles = append(f.Bundles, b)
			}
		}
		for _, x := range d.Disabled {
			var rec DAGRecord
			err := getJSON(t, bDAGs, pair(x.DAGID, x.Version), &rec)
			switch {
			case errors.Is(err, ErrNotFound):
				f.Unpublished = append(f.Unpublished, x)
			case err != nil:
				return err
			case rec.Enabled && !hasLeaf(t, x.seq, x.leaf): // else it was enabled again after that
				f.Disabled = append(f.Disabled, x)
			}
		}
		return nil
	})
	return f, err
}

// hasLeaf says whether an entry is the one with this leaf.
func hasLeaf(t *bolt.Tx, seq int64, leaf ledger.Hash) bool {
	_, l, err := entryAt(t, seq)
	return err == nil && ledger.LeafHash(l.Envelope) == leaf
}

// Remember lets what was forgotten hold again.
func (db *DB) Remember(actor, reason string, f Forgotten) error {
	for some := range slices.Chunk(f.Bundles, ledger.MaxRemembered) {
		if _, err := db.Append(ledger.BundlesRemembered, actor, &ledger.BundleMemory{Bundles: some}); err != nil {
			return err
		}
	}
	for _, x := range f.Disabled {
		if _, _, err := db.SwitchDAG(actor, false, &ledger.DAGSwitch{DAGID: x.DAGID, Version: x.Version, Reason: reason}); err != nil {
			return err
		}
	}
	return nil
}

// projectMemory moves floors, and lets references mean what they meant. The bundles themselves
// are not here.
func (tx *Tx) projectMemory(d *ledger.BundleMemory) error {
	for _, b := range d.Bundles {
		if err := errors.Join(tx.raiseFloor(b), tx.put(bRefs, []byte(b.Ref()), []byte(b.Digest))); err != nil {
			return err
		}
	}
	return nil
}

// raiseFloor moves the floor of a name to a bundle, if that is higher.
func (tx *Tx) raiseFloor(b ledger.RememberedBundle) error {
	floor, err := floorOf(tx.bolt, b.Kind, b.Publisher, b.Name)
	if err != nil || !floor.below(b.Epoch, b.Sequence) {
		return err
	}
	return tx.putJSON(bFloors, floorKey(b.Kind, b.Publisher, b.Name), Floor{b.Sequence, b.Digest, b.Epoch})
}
