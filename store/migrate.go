package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// schemaVersion is the layout of the database and the meaning of its projections.
// A newer one is refused; an older one is brought up to date when it is opened.
//
//	1  the first
//	2  bundles keep what came with earlier admissions; the clock is a projection
//	3  approvals, locks, schedules, secrets, the cache, the outbox, small sealed blobs
//	4  records of runs, steps and attempts in one bucket; a sub-run that was given up keeps locks
const schemaVersion = 4

// former are projections of older schemas.
func former() []string { return []string{"runs", "steps", "attempts", "runlog"} }

// newer says whether a bucket came with a schema after the first.
func newer(name []byte) bool {
	return slices.ContainsFunc([][]byte{
		bLive, bDead, bApprovals, bAsked, bLocks, bCache, bCacheAge, bSchedules, bSecrets, bSecretUses, bOutbox, bSinks, bSmall,
		bRecords,
	}, func(b []byte) bool { return bytes.Equal(b, name) })
}

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

// adoptProjections puts what the ledger gives in the place of every projection.
func adoptProjections(from, to *bolt.Tx) error {
	for _, name := range buckets() {
		if _, err := to.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	for _, name := range projections() {
		if err := to.DeleteBucket(name); err != nil {
			return err
		}
		b, err := to.CreateBucket(name)
		if err != nil {
			return err
		}
		if err := from.Bucket(name).ForEach(b.Put); err != nil {
			return err
		}
	}
	for _, name := range former() {
		if to.Bucket([]byte(name)) == nil {
			continue
		}
		if err := to.DeleteBucket([]byte(name)); err != nil {
			return err
		}
	}
	meta := to.Bucket(bMeta)
	for _, key := range projectedKeys() {
		v := from.Bucket(bMeta).Get(key)
		if v == nil {
			continue
		}
		if err := meta.Put(key, v); err != nil {
			return err
		}
	}
	return meta.Put(kSchema, binary.BigEndian.AppendUint64(nil, schemaVersion))
}
