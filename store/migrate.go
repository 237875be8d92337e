package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
)

// schemaVersion is the layout of the database and the meaning of its projections.
// A newer one is refused; an older one is brought up to date when it is opened.
//
//	1  the first
//	2  bundles keep what came with earlier admissions; the clock is a projection
//	3  approvals, locks, schedules, secrets, the cache, the outbox, small sealed blobs
//	4  an entry is one record, and those of a run lie together; a sub-run that was given up keeps locks
//	5  archives of runs, erasures; since when a sub-run was given up, and a run is about the end that it is about
//	6  a sum of the records
const schemaVersion = 6

// mostSchemas is a version that no stella will come to: what says more is damaged.
const mostSchemas = 1000

// Buckets of older schemas, for lines and hashes of the ledger.
var (
	oldEnvelopes = []byte("envelopes") // seq → envelope line
	oldData      = []byte("data")      // seq → data line
	oldHashes    = []byte("hashes")    // stored hash index → hash
)

// newer says whether a bucket came with a schema after the first.
func newer(name []byte) bool {
	return slices.ContainsFunc([][]byte{
		bLive, bDead, bApprovals, bAsked, bLocks, bCache, bCacheAge, bSchedules, bSecrets, bSecretUses, bOutbox, bSinks, bSmall,
		bRecords, bEntries,
	}, func(b []byte) bool { return bytes.Equal(b, name) })
}

// migrate brings a site of an older schema up to date: a new database is made of its
// ledger, and takes the place of the old one when it is whole and on disk. The ledger is
// the truth: everything that follows from it is replayed, some entries a transaction, so
// that what is held in memory does not grow with it. Until then the old database stays as
// it is: a process that is killed leaves a site that any version opens, and the next one
// begins anew. A ledger that does not replay is damaged, and nothing takes its place. It is
// another file because one of bbolt never shrinks, and lists its free pages in each commit.
func (db *DB) migrate(opt Options) error {
	var have uint64
	err := db.view(func(t *bolt.Tx) error {
		have = binary.BigEndian.Uint64(t.Bucket(bMeta).Get(kSchema)) // load has checked it
		return nil
	})
	if err != nil {
		return err
	}
	path, err := place(db.home)
	if err == nil && have == schemaVersion {
		_ = os.Remove(path + newSuffix) // of one that was killed, or of a copy: the next would say what is wrong with it
		return nil
	}
	if opt.Migrating != nil {
		opt.Migrating(db.size)
	}
	if err == nil {
		err = db.moveTo(path+newSuffix, path, opt, db.upgrade)
	}
	if err != nil {
		return fmt.Errorf("store: bring schema %d up to %d: %w", have, schemaVersion, err)
	}
	return db.view(db.loadClock)
}

// newSuffix follows the name of the database in that of the one that is to replace it.
const newSuffix = ".new"

// place is where the database of a home is, should its name be a link.
func place(home string) (string, error) { return filepath.EvalSymlinks(filepath.Join(home, fileName)) }

// Migrating says whether the database of a home is being brought up to date at this moment,
// and when something of that was written last. It does not open it: whoever does that holds
// the site.
func Migrating(home string) (written time.Time, yes bool) {
	path, err := place(home)
	if err != nil || !locked(path+newSuffix) { // without a lock it was left by one that was killed
		return written, false
	}
	fi, err := os.Stat(path + newSuffix)
	if err != nil { // it is done
		return written, false
	}
	return fi.ModTime(), true
}

// Locked says whether a process holds the site in a home, as far as this user may know.
func Locked(home string) bool { return locked(filepath.Join(home, fileName)) }

// locked says whether a file is one that somebody has locked alone. It takes a lock itself
// for that, for a moment, which others may be there for as well.
func locked(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// moveTo makes a database under a name, puts it in the place of the one that is open, and
// goes on with it.
func (db *DB) moveTo(name, path string, opt Options, fill func(*bolt.DB, Options) error) (err error) {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) { // one that was killed has left it
		return err
	}
	var to *base
	var old *os.File
	moved := false
	if opt.erase != nil { // what was on its pages is to go
		if old, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return err
		}
		defer func() {
			if !moved {
				old.Close()
			}
		}()
	}
	defer func() {
		if err != nil && !moved {
			os.Remove(name)
		}
		if err != nil && to != nil {
			err = errors.Join(err, to.Close())
		}
	}()
	if to, err = openFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, aMoment, opt); err != nil {
		return err
	}
	to.NoSync, to.NoGrowSync = true, true // what is half done is thrown away
	if err := fill(to.DB, opt); err != nil {
		return err
	}
	to.NoSync, to.NoGrowSync = false, false
	if err := errors.Join(os.Chmod(name, fi.Mode().Perm()), to.Sync()); err != nil {
		return err
	}
	rename := fsx.Rename
	if opt.hooks.rename != nil {
		rename = opt.hooks.rename
	}
	synced := rename(name, path)
	if moved = synced == nil || inPlace(to.file, path) == nil; !moved {
		return synced
	}
	if opt.hooks.moved != nil {
		opt.hooks.moved(nil)
	}
	was := db.base.Swap(to)
	to = nil
	db.retired.Go(func() {
		retire(was)
		if old != nil {
			overwrite(old)
		}
	})
	if !opt.live {
		db.retired.Wait()
	}
	if synced != nil { // a power cut could bring the old one back, and nothing may be written that it would take away
		return fmt.Errorf("%w: %w", ErrUnsynced, synced)
	}
	return nil
}

// overwrite puts zeros over what was in a file that has no name any more, and closes it.
// Where it has another one, a copy of the home by hard links, it is somebody's copy. Where it
// cannot be done, the file is gone all the same.
func overwrite(old *os.File) {
	defer old.Close()
	if fi, err := old.Stat(); err == nil && fi.Sys().(*syscall.Stat_t).Nlink == 0 {
		_ = fsx.Zero(old)
	}
}

// upgrade fills a new database with what this one holds, in the form of this stella.
func (db *DB) upgrade(to *bolt.DB, opt Options) error {
	m := &move{r: &replay{db: db, bolt: to, page: opt.hooks.page, done: opt.hooks.moved}, stopped: opt.Stopped, erase: opt.erase}
	err := db.view(m.run)
	if err != nil {
		m.r.rollback()
	}
	return err
}

// retire closes a database that another has taken the place of. An older version that had
// opened it a moment ago gets its lock now, and must not write to it. If that cannot be
// said to it, nothing is lost but that. Where the file has another name still, a copy of
// the home by hard links has it: there it is whole, and stays what it says that it is.
func retire(old *base) {
	if fi, err := old.file.Stat(); err == nil && fi.Sys().(*syscall.Stat_t).Nlink == 0 {
		_ = guard(func() error {
			return old.Update(func(t *bolt.Tx) error { return t.Bucket(bMeta).Put(kSchema, be64(schemaVersion)) })
		})
	}
	_ = old.Close()
}

// A move fills a new database with what an old one holds.
type move struct {
	r       *replay
	stopped func() error // may be nil
	keys    int          // since the last transaction
	bytes   int
	failed  bool           // it is what writes that has failed, not what is read
	erase   map[int64]bool // entries whose data is not moved
}

// maxMove bounds how many bytes one transaction of a move puts.
const maxMove = 4 << 20

// run moves everything: the ledger by replaying it, the rest as it is.
func (m *move) run(from *bolt.Tx) error {
	err := m.r.bolt.Update(func(t *bolt.Tx) error {
		for _, name := range buckets() {
			if _, err := t.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := m.ledger(from); err != nil {
		return err
	}
	for _, name := range [][]byte{bCheckpoints, bOutbox, bSinks, bSmall} {
		b := from.Bucket(name)
		if b == nil { // the older schema had none
			continue
		}
		if err := b.ForEach(func(k, v []byte) error { return m.put(name, k, v) }); err != nil {
			return err
		}
	}
	err = from.Bucket(bMeta).ForEach(func(k, v []byte) error {
		if slices.ContainsFunc(append(projectedKeys(), kSchema, kSum), func(p []byte) bool { return bytes.Equal(p, k) }) {
			return nil // the replay has given what holds
		}
		return m.put(bMeta, k, v)
	})
	if err != nil {
		return err
	}
	return errors.Join(m.put(bMeta, kSchema, be64(schemaVersion)), m.r.flush())
}

// ledger moves the entries, each with what follows from it, and checks them.
func (m *move) ledger(from *bolt.Tx) error {
	v, err := ledger.NewVerifier(ledger.VerifierOptions{})
	if err != nil {
		return err
	}
	gone := erasures{}
	size := m.r.db.size
	for seq := range size {
		hashes, l, err := entryOf(from, seq)
		if err != nil {
			return err
		}
		if m.erase[seq] {
			if l, err = l.erased(); err != nil {
				return damaged(err, "entry %d", seq)
			}
		}
		env, data, err := verified(v, l)
		if err != nil {
			return err
		}
		if err := m.entry(l, hashes); err != nil {
			return err
		}
		if err := m.r.add(env, data); err != nil {
			return notReplayed(err, seq)
		}
		gone.see(l, data)
	}
	if err := gone.check(); err != nil { // nothing is erased that nobody has agreed to
		return err
	}
	if err := m.r.begin(); err != nil {
		return err
	}
	return checkRoot(size, hashReader{m.r.tx.bolt}, v.Root())
}

// entry puts an entry, once its hashes are those that follow from the entries before it.
func (m *move) entry(l Lines, hashes []ledger.Hash) error {
	if err := m.r.begin(); err != nil {
		return err
	}
	if err := sameHashes(l, hashes, hashReader{m.r.tx.bolt}); err != nil {
		return err
	}
	return m.put(bEntries, be64(l.Seq), encodeEntry(hashes, l.Envelope, l.stored()))
}

// put puts a key, in a new transaction once this one has enough.
func (m *move) put(bucket, k, v []byte) error {
	if m.stopped != nil {
		if err := m.stopped(); err != nil {
			return err
		}
	}
	if m.keys++; m.keys > 10*pageSize || m.bytes+len(v) > maxMove {
		if err := m.r.flush(); err != nil {
			return err
		}
		m.keys, m.bytes = 1, 0
	}
	m.bytes += len(k) + len(v)
	if err := m.r.begin(); err != nil {
		return err
	}
	return m.r.tx.put(bucket, k, v)
}

// lastEnvelope is the size of the ledger and the envelope of its last entry.
func lastEnvelope(tx *bolt.Tx, schema uint64) (size int64, line []byte, err error) {
	name := bEntries
	if schema < 4 {
		name = oldEnvelopes
	}
	b := tx.Bucket(name)
	if b == nil {
		return 0, nil, damaged(errMissing, "bucket %s of ledger.db", name)
	}
	k, v := b.Cursor().Last()
	if k == nil {
		return 0, nil, damaged(errMissing, "the first entry of ledger.db")
	}
	if len(k) != 8 {
		return 0, nil, damaged(errEntryRecord, "the last key of %s in ledger.db", name)
	}
	seq := int64(binary.BigEndian.Uint64(k))
	if schema >= 4 {
		_, l, err := decodeEntry(seq, v)
		if err != nil {
			return 0, nil, damaged(err, "entry %d", seq)
		}
		v = l.Envelope
	}
	return seq + 1, v, nil
}

// entryOf reads an entry with its hashes, in whichever schema it is stored.
func entryOf(t *bolt.Tx, seq int64) (hashes []ledger.Hash, l Lines, err error) {
	if t.Bucket(oldEnvelopes) != nil {
		return oldEntry(t, seq)
	}
	raw, l, err := entryAt(t, seq)
	return splitHashes(raw), l, err
}

// splitHashes are the hashes of an entry's record.
func splitHashes(raw []byte) (out []ledger.Hash) {
	for i := 0; i < len(raw); i += len(ledger.Hash{}) {
		out = append(out, ledger.Hash(raw[i:]))
	}
	return out
}

// oldEntry reads an entry of a schema before the fourth; data is nil where there is none.
// What it returns is good as long as the transaction.
func oldEntry(t *bolt.Tx, seq int64) (hashes []ledger.Hash, l Lines, err error) {
	for _, name := range [][]byte{oldEnvelopes, oldData, oldHashes} {
		if t.Bucket(name) == nil {
			return nil, l, damaged(errMissing, "bucket %s of ledger.db", name)
		}
	}
	l = Lines{Seq: seq, Envelope: t.Bucket(oldEnvelopes).Get(be64(seq)), Data: t.Bucket(oldData).Get(be64(seq))}
	if l.Envelope == nil {
		return nil, l, damaged(errMissing, "entry %d", seq)
	}
	for i := ledger.StoredHashIndex(0, seq); i < ledger.StoredHashIndex(0, seq+1); i++ {
		h := t.Bucket(oldHashes).Get(be64(i))
		if len(h) != len(ledger.Hash{}) {
			return nil, l, damaged(errMissing, "tree hash %d", i)
		}
		hashes = append(hashes, ledger.Hash(h))
	}
	return hashes, l, nil
}
