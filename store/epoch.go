package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
)

// A ledger that was restored or recovered goes on in a new epoch: the same tree, the same
// seq, another origin (FORMATS section 4). Whoever holds a checkpoint of the old origin that
// covers more than what was adopted holds the proof of what was lost.

func firstSite(d *ledger.SiteInit) siteMeta { return siteMeta{SiteID: d.SiteID, Epoch: 1} }

// projectEpoch puts an epoch in force.
func (tx *Tx) projectEpoch(env ledger.Envelope, d *ledger.EpochStart) error {
	var site siteMeta
	if err := getJSON(tx.bolt, bMeta, kSite, &site); err != nil {
		return err
	}
	switch {
	case d.Epoch <= site.Epoch:
		return fmt.Errorf("epoch %d after epoch %d", d.Epoch, site.Epoch)
	case d.Size != env.Seq:
		return fmt.Errorf("an epoch that adopts %d entries in entry %d", d.Size, env.Seq)
	case d.OldOrigin != ledger.Origin(site.SiteID, site.Epoch):
		return fmt.Errorf("an epoch after %s in a ledger of epoch %d", d.OldOrigin, site.Epoch)
	}
	site.Epoch, site.Adopted = d.Epoch, append(site.Adopted, Epoch{d.Epoch, d.Size})
	return tx.putJSON(bMeta, kSite, site)
}

// BeginEpoch begins an epoch with everything that there is. Nobody else may use the database
// meanwhile.
func (db *DB) BeginEpoch(actor string, d ledger.EpochStart) error {
	size := db.Size()
	root, err := ledger.TreeHash(size, db)
	if err != nil {
		return err
	}
	d.OldOrigin, d.Size, d.Root = db.Origin(), size, ledger.HexHash(root)
	if _, err := db.Append(ledger.EpochBegun, actor, &d); err != nil {
		return err
	}
	return db.load()
}

// Adopted is how many entries the ledger has of an epoch that is over, with those before it:
// what checkpoints of that one cover beyond is not in it. Of the current epoch it is no
// number that bounds anything, and ok is false.
func (db *DB) Adopted(epoch int64) (size int64, ok bool) {
	for _, x := range db.site.Adopted {
		if x.Epoch > epoch {
			return x.Size, true // the first that began after it: later ones adopted more, or what they left out was not of it
		}
	}
	return 0, false
}

// Head is what can be read of a ledger that nobody may open.
type Head struct {
	Size, Epoch int64
	NotePaths   []string
}

// Peek reads as much of the head of a home's ledger as can be read, without changing
// anything: zero, where nothing can, because somebody holds it, or it is damaged.
func Peek(home string) (h Head) {
	defer func() {
		if recover() != nil { // bbolt trusts its pages
			h = Head{}
		}
	}()
	b, err := bolt.Open(filepath.Join(home, fileName), 0o600, &bolt.Options{ReadOnly: true, Timeout: atOnce})
	if err != nil {
		return Head{}
	}
	defer b.Close()
	_ = b.View(func(t *bolt.Tx) error {
		meta := t.Bucket(bMeta)
		if meta == nil {
			return nil
		}
		var site siteMeta
		_ = json.Unmarshal(meta.Get(kSite), &site)
		_ = json.Unmarshal(meta.Get(kNotePaths), &h.NotePaths)
		h.Epoch = site.Epoch
		if v := meta.Get(kSchema); len(v) == 8 {
			h.Size, _, _ = lastEnvelope(t, binary.BigEndian.Uint64(v))
		}
		return nil
	})
	return h
}
