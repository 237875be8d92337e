package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/stellarun/stella/ledger"
)

// schemaVersion is the layout of the database and the meaning of its projections.
// A newer one is refused; an older one is brought up to date when it is opened.
//
//	1  the first
//	2  bundles keep what came with earlier admissions; the clock is a projection
//	3  approvals, locks, schedules, secrets, the cache, the outbox, small sealed blobs
//	4  an entry is one record, and those of a run lie together; a sub-run that was given up keeps locks
const schemaVersion = 4

// Buckets of older schemas, for lines and hashes of the ledger.
var (
	oldEnvelopes = []byte("envelopes") // seq → envelope line
	oldData      = []byte("data")      // seq → data line
	oldHashes    = []byte("hashes")    // stored hash index → hash
)

// former are buckets of older schemas.
func former() [][]byte {
	return [][]byte{[]byte("runs"), []byte("steps"), []byte("attempts"), []byte("runlog"), oldEnvelopes, oldData, oldHashes}
}

// newer says whether a bucket came with a schema after the first.
func newer(name []byte) bool {
	return slices.ContainsFunc([][]byte{
		bLive, bDead, bApprovals, bAsked, bLocks, bCache, bCacheAge, bSchedules, bSecrets, bSecretUses, bOutbox, bSinks, bSmall,
		bRecords, bEntries,
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
	if have < 4 {
		if err := db.moveEntries(); err != nil {
			return fmt.Errorf("store: bring schema %d up to %d: %w", have, schemaVersion, err)
		}
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
		b.FillPercent = 0.95 // they come in order
		if err := from.Bucket(name).ForEach(b.Put); err != nil {
			return err
		}
	}
	for _, name := range former() {
		if err := to.DeleteBucket(name); err != nil && !errors.Is(err, berrors.ErrBucketNotFound) {
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

// lastEnvelope is the size of the ledger and the envelope of its last entry.
func lastEnvelope(tx *bolt.Tx, schema uint64) (size int64, line []byte, err error) {
	name := bEntries
	if schema < 4 {
		name = oldEnvelopes
	}
	b := tx.Bucket(name)
	if b == nil {
		return 0, nil, damaged(errors.New("it is missing"), "bucket %s of ledger.db", name)
	}
	k, v := b.Cursor().Last()
	if k == nil {
		return 0, nil, errors.New("store: the ledger is empty")
	}
	if len(k) != 8 {
		return 0, nil, damaged(errEntryRecord, "the last key of %s in ledger.db", name)
	}
	seq := int64(binary.BigEndian.Uint64(k))
	if schema >= 4 {
		if _, v, _, err = decodeEntry(v); err != nil {
			return 0, nil, damaged(err, "entry %d", seq)
		}
	}
	return seq + 1, v, nil
}

// moveEntries copies the ledger of an older schema, some entries a transaction. What it
// copies stays until all is done, so that a process that is killed meanwhile leaves a
// site that any version opens. The next begins anew: an older one may have been there.
func (db *DB) moveEntries() error {
	err := db.bolt.Update(func(t *bolt.Tx) error {
		if err := t.DeleteBucket(bEntries); err != nil && !errors.Is(err, berrors.ErrBucketNotFound) {
			return err
		}
		_, err := t.CreateBucket(bEntries)
		return err
	})
	for from := int64(0); err == nil && from < db.size; {
		err = db.bolt.Update(func(t *bolt.Tx) error {
			to := t.Bucket(bEntries)
			to.FillPercent = 0.95
			for end := min(db.size, from+10*pageSize); from < end; from++ {
				v, err := oldEntry(t, from)
				if err != nil {
					return err
				}
				if err := to.Put(be64(from), v); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return err
}

// oldEntry reads an entry of an older schema in the form that it has now.
func oldEntry(t *bolt.Tx, seq int64) ([]byte, error) {
	for _, name := range [][]byte{oldEnvelopes, oldData, oldHashes} {
		if t.Bucket(name) == nil {
			return nil, damaged(errors.New("it is missing"), "bucket %s of ledger.db", name)
		}
	}
	env := t.Bucket(oldEnvelopes).Get(be64(seq))
	if env == nil {
		return nil, damaged(errors.New("it is missing"), "entry %d", seq)
	}
	var hashes []ledger.Hash
	for i := ledger.StoredHashIndex(0, seq); i < ledger.StoredHashIndex(0, seq+1); i++ {
		h := t.Bucket(oldHashes).Get(be64(i))
		if len(h) != len(ledger.Hash{}) {
			return nil, damaged(errors.New("it is missing"), "tree hash %d", i)
		}
		hashes = append(hashes, ledger.Hash(h))
	}
	return encodeEntry(hashes, env, t.Bucket(oldData).Get(be64(seq))), nil
}
