package store

import (
	"context"
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// schemaVersion is the layout of the database and the meaning of its projections.
// A newer one is refused; an older one is brought up to date when it is opened.
//
//	1  the first
//	2  bundles keep what came with earlier admissions; the clock is a projection
const schemaVersion = 2

// migrate brings the projections of an older schema up to date. The ledger is the
// truth: it is replayed, and what follows from it now takes the place of what
// followed before, in one transaction. A ledger that does not replay is damaged.
func (db *DB) migrate() error {
	var have uint64
	err := db.bolt.View(func(t *bolt.Tx) error {
		have = binary.BigEndian.Uint64(t.Bucket(bMeta).Get(kSchema)) // load has checked it
		return nil
	})
	if err != nil || have == schemaVersion {
		return err
	}
	r, err := db.newReplay()
	if err != nil {
		return err
	}
	defer r.close()
	if err := db.replayAll(context.Background(), r, db.Size(), CheckOptions{}, &CheckReport{}); err != nil {
		return err
	}
	err = r.bolt.View(func(from *bolt.Tx) error {
		return db.bolt.Update(func(to *bolt.Tx) error { return adoptProjections(from, to) })
	})
	if err != nil {
		return fmt.Errorf("store: bring schema %d up to %d: %w", have, schemaVersion, err)
	}
	return db.bolt.View(db.loadClock)
}

// adoptProjections takes over the projections whose meaning has changed.
func adoptProjections(from, to *bolt.Tx) error {
	if err := to.DeleteBucket(bBundles); err != nil {
		return err
	}
	b, err := to.CreateBucket(bBundles)
	if err != nil {
		return err
	}
	if err := from.Bucket(bBundles).ForEach(b.Put); err != nil {
		return err
	}
	meta := to.Bucket(bMeta)
	if clock := from.Bucket(bMeta).Get(kClock); clock != nil {
		if err := meta.Put(kClock, clock); err != nil {
			return err
		}
	}
	return meta.Put(kSchema, binary.BigEndian.AppendUint64(nil, schemaVersion))
}
