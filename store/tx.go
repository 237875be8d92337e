package store

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/ledger"
)

// Tx is one write among those that share a bbolt transaction. Since bbolt has
// no savepoints it remembers what it overwrote, so that a write that fails can
// be undone without the others.
type Tx struct {
	db       *DB
	bolt     *bolt.Tx
	size     int64
	lastTime string
	undo     []undo
	alone    bool // it has the bbolt transaction to itself, and is undone with that

	sums, began recordSums // of the records as they are now, and as the transaction found them

	moved, before *records // by the request under way, and by those before it in this transaction
	kept          *records // from transactions before; nil for a replay

	accepting  bool      // an entry that accepts the clock is not held against it
	bundles    bool      // records of bundles have changed
	clockMoved bool      // the record of the clock is to be read again once it is on disk
	now        time.Time // the clock of the newest entry; zero where there is none
}

// newTx is a transaction in which nothing is undone by itself.
func newTx(db *DB, b *bolt.Tx) (*Tx, error) {
	sums, err := readSums(b)
	if err != nil {
		return nil, err
	}
	return &Tx{db: db, bolt: b, alone: true, sums: sums, began: sums, moved: newRecords(), before: newRecords()}, nil
}

// commit makes the transaction of bbolt durable, as far as that is.
func (tx *Tx) commit() error {
	if tx.sums != tx.began {
		if err := tx.bolt.Bucket(bMeta).Put(kSum, tx.sums.encode()); err != nil {
			return err
		}
	}
	return tx.bolt.Commit()
}

type undo struct {
	bucket, key, old []byte
	existed          bool
}

// commit runs the batch in one transaction, syncs, and answers everybody.
func (db *DB) commit(batch []request) {
	defer db.commits()()
	results := make([]error, len(batch))
	tx, err := db.transact(batch, results)
	if err != nil {
		db.Refuse(err)
		err = fmt.Errorf("%w: %w", ErrFailed, err)
	} else if tx != nil {
		db.mu.Lock()
		db.size, db.lastTime = tx.size, tx.lastTime
		if tx.clockMoved || !db.clock.accepted.IsZero() {
			err = db.moveClock()
		}
		if !tx.now.IsZero() {
			db.clock.wrote(tx.now)
		}
		close(db.changed)
		db.changed = make(chan struct{})
		db.wake(tx.before)
		db.mu.Unlock()
	}
	for i, r := range batch {
		if err != nil {
			// Also of a write that was refused: it may have seen what others
			// wrote before it in this transaction, which is not on disk.
			results[i] = err
		}
		r.done <- results[i]
	}
}

// transact returns nil, nil when there was nothing to keep. Its error means
// that the disk did not take the transaction: after it nothing is accepted,
// because the kernel may have dropped pages that a later sync would not write.
func (db *DB) transact(batch []request, results []error) (tx *Tx, err error) {
	if err := db.Failure(); err != nil {
		return nil, err
	}
	if err := failpoint.Hit(failpoint.StoreCommitBefore); err != nil {
		return nil, err
	}
	b, err := db.begin(db.base.Load(), true)
	if err != nil {
		return nil, err
	}
	defer db.rollBack(b) // a damaged page may have ended it anywhere
	err = guard(func() (err error) { tx, err = db.perform(b, batch, results); return err })
	return tx, err
}

// perform runs the batch in a transaction of bbolt.
func (db *DB) perform(b *bolt.Tx, batch []request, results []error) (*Tx, error) {
	db.mu.RLock()
	size, last := db.size, db.lastTime
	db.mu.RUnlock()
	fillPages(b)
	db.room.empty()                   // no transaction before this one needs it
	kept, blobs := 0, db.blobs.take() // what the entries to come may name comes before them
	if b.Bucket(bSmall) == nil {
		blobs = nil // this is the transaction that makes the buckets
	}
	tx, err := newTx(db, b)
	if err != nil {
		return nil, err
	}
	tx.size, tx.lastTime, tx.kept = size, last, db.records
	if tx.alone = len(batch) == 1 && bytesOf(blobs) < maxWaiting; !tx.alone {
		tx.undo = db.undo[:0]
		defer func() { clear(tx.undo); db.undo = tx.undo }()
	}
	if err := tx.putSmall(blobs); err != nil {
		return nil, err
	}
	for i, r := range batch {
		mark, size, last, sums := len(tx.undo), tx.size, tx.lastTime, tx.sums
		if results[i] = r.fn(tx); results[i] == nil {
			results[i] = tx.flush()
		}
		if results[i] == nil {
			kept++
			continue
		}
		if tx.alone {
			break
		}
		if err := tx.rollback(mark); err != nil {
			return nil, err
		}
		tx.size, tx.lastTime, tx.sums = size, last, sums
	}
	if kept == 0 && bytesOf(blobs) < maxWaiting {
		return nil, nil
	}
	if err := withErrno(tx.commit()); err != nil {
		return nil, err
	}
	db.blobs.wrote(blobs)
	db.records.takeOver(tx.before)
	if tx.bundles {
		db.bundles.empty()
	}
	return tx, failpoint.Hit(failpoint.StoreCommitAfter)
}

// fillPages says how full the pages become that a transaction splits.
func fillPages(b *bolt.Tx) {
	for _, x := range []struct {
		name []byte
		fill float64
	}{
		{bEntries, 0.95}, {bTenantRuns, 0.95}, // new keys come last: pages need no room
		{bRecords, 0.85}, // those of runs that are under way come in between
	} {
		if bucket := b.Bucket(x.name); bucket != nil {
			bucket.FillPercent = x.fill
		}
	}
}

// rollback undoes everything after mark, newest first.
func (tx *Tx) rollback(mark int) error {
	tx.forget()
	for i := len(tx.undo) - 1; i >= mark; i-- {
		u := tx.undo[i]
		b := tx.bolt.Bucket(u.bucket)
		var err error
		if u.existed {
			err = b.Put(u.key, u.old)
		} else {
			err = b.Delete(u.key)
		}
		if err != nil {
			return err
		}
	}
	tx.undo = tx.undo[:mark]
	return nil
}

func (tx *Tx) get(bucket, key []byte) []byte { return tx.bolt.Bucket(bucket).Get(key) }

// leave remembers what is at a key, which is about to go.
func (tx *Tx) leave(b *bolt.Bucket, bucket, key []byte) {
	sum := sumOf(bucket, key)
	if tx.alone && sum < 0 {
		return
	}
	old := b.Get(key)
	if sum >= 0 && old != nil {
		tx.sums.take(sum, key, old)
	}
	if !tx.alone {
		tx.undo = append(tx.undo, undo{bucket, bytes.Clone(key), bytes.Clone(old), old != nil})
	}
}

func (tx *Tx) put(bucket, key, value []byte) error {
	b := tx.bolt.Bucket(bucket)
	tx.leave(b, bucket, key)
	return tx.putIn(b, bucket, key, value)
}

func (tx *Tx) putIn(b *bolt.Bucket, bucket, key, value []byte) error {
	if sum := sumOf(bucket, key); sum >= 0 {
		tx.sums.add(sum, key, value)
	}
	return b.Put(key, value)
}

// add is put of a key that is not there.
func (tx *Tx) add(bucket, key, value []byte) error {
	if !tx.alone {
		tx.undo = append(tx.undo, undo{bucket: bucket, key: key})
	}
	return tx.putIn(tx.bolt.Bucket(bucket), bucket, key, value)
}

func (tx *Tx) delete(bucket, key []byte) error {
	b := tx.bolt.Bucket(bucket)
	tx.leave(b, bucket, key)
	return b.Delete(key)
}

func (tx *Tx) putJSON(bucket, key []byte, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.put(bucket, key, raw)
}

// getJSON fills v; a missing key is [ErrNotFound], and a record that is none a *[Damage].
func getJSON(t *bolt.Tx, bucket, key []byte, v any) error {
	raw := t.Bucket(bucket).Get(key)
	if raw == nil {
		return ErrNotFound
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return damaged(err, "%s %s of ledger.db", bucket, printable(key))
	}
	return nil
}

// append writes one entry: its two lines, its hashes and its projection. It
// sets seq and time, and returns the envelope as written.
func (tx *Tx) append(p entry) (ledger.Envelope, error) {
	now, err := tx.stampEntry()
	if err != nil {
		return ledger.Envelope{}, err
	}
	env := p.envelope
	env.Seq, env.Time = tx.size, now
	if err := env.CheckSubject(); err != nil {
		return ledger.Envelope{}, err
	}
	var salt [32]byte
	rand.Read(salt[:])
	sealed, err := tx.db.sealer.Seal(env, p.data, salt)
	if err != nil {
		return ledger.Envelope{}, err
	}
	env = sealed.Head
	hashes, err := tx.grow(env.Seq, sealed.Envelope)
	if err != nil {
		return ledger.Envelope{}, err
	}
	record := appendEntry(tx.db.room.take(entrySize(hashes, sealed.Envelope, sealed.Data)), hashes, sealed.Envelope, sealed.Data)
	if err := tx.add(bEntries, binary.BigEndian.AppendUint64(tx.db.room.take(8), uint64(env.Seq)), record); err != nil {
		return ledger.Envelope{}, err
	}
	if env.RunID != "" {
		if err := tx.add(bRecords, entryRecord(env.RunID, env.Seq), []byte{}); err != nil {
			return ledger.Envelope{}, err
		}
	}
	tx.size, tx.lastTime = env.Seq+1, env.Time
	data := p.data
	if e, ok := data.(ledger.Encoded); ok {
		data = e.Data
	}
	return env, tx.project(env, data)
}

// grow adds a leaf to the Merkle tree and returns the hashes that come with it, good until the
// next. Where entries were undone the tree that is held is ahead of the ledger, and is read
// again.
func (tx *Tx) grow(seq int64, envelope []byte) (_ []ledger.Hash, err error) {
	if t := tx.db.tree; t == nil || t.Size() != seq {
		if tx.db.tree, err = ledger.TreeOf(seq, hashReader{tx.bolt}); err != nil {
			return nil, err
		}
	}
	return tx.db.tree.Add(envelope), nil
}

// A room is memory for what a transaction of bbolt is given, which must stay as it is until that
// has ended.
type room struct{ chunk []byte }

const roomChunk = 256 << 10

// take returns an empty slice that has place for n bytes.
func (r *room) take(n int) []byte {
	if cap(r.chunk)-len(r.chunk) < n {
		r.chunk = make([]byte, 0, max(n, roomChunk)) // that of before is kept by what was put in it
	}
	at := len(r.chunk)
	r.chunk = r.chunk[:at+n]
	return r.chunk[at : at : at+n]
}

func (r *room) empty() { r.chunk = r.chunk[:0] }

// entry is what append writes: an envelope without seq, time and data hash.
type entry struct {
	envelope ledger.Envelope
	data     any
}

func siteEntry(t ledger.Type, actor string, data any) entry {
	return entry{ledger.Envelope{Type: t, Actor: actor, V: 1}, data}
}

func be64(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
