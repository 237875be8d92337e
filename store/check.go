package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
)

// A Damage is the first thing that is wrong with a store.
type Damage struct {
	What string // the bucket, entry or blob
	Err  error
}

func (d *Damage) Error() string { return fmt.Sprintf("store: %s: %v", d.What, d.Err) }

func (d *Damage) Unwrap() error { return d.Err }

func damaged(err error, format string, a ...any) error {
	return &Damage{What: fmt.Sprintf(format, a...), Err: err}
}

var errMissing = errors.New("it is missing")

// CheckReport counts what a check has looked at.
type CheckReport struct {
	Size        int64
	Root        ledger.Hash
	Checkpoints int
	Runs        int
	Blobs       int // sealed blobs and log segments that were hashed

	Away    []AwayArchive // archives of runs that are not here, and hold what was looked for
	Spoiled []string      // what is wrong with files in archives/ of which there is a whole copy
}

// CheckOptions say how deep a check goes. The zero value checks the database.
type CheckOptions struct {
	Blobs    bool                                         // re-hash everything sealed that the ledger names: evidence, contents of bundles, artifacts
	Logs     func(digest string) (io.ReadCloser, error)   // opens a log segment in its place, which Blobs then hashes too; nil: none is
	OpenNote func(note []byte) (ledger.Checkpoint, error) // verifies a stored checkpoint; nil: none is checked
	Hashed   map[string]bool                              // sealed files and segments that were hashed a moment ago
	Scratch  string                                       // folder for what a check writes; default cache/ of the home
	Progress func(done, total int64)

	archived *archived // set where Blobs is
	part     int64     // entries a transaction of CheckBytes, and records between two looks; 0: linesEntries, recordsAtOnce
}

// Check reads everything, changes nothing, and returns the first damage it
// finds as a *[Damage]. It verifies the pages of the file, each line and each
// hash of the ledger, the stored checkpoints, and that the projections are
// what a replay of the ledger gives.
func (db *DB) Check(ctx context.Context, opt CheckOptions) (CheckReport, error) {
	var rep CheckReport
	if err := db.checkPages(); err != nil {
		return rep, err
	}
	r, err := db.newReplay(opt.Scratch)
	if err != nil {
		return rep, err
	}
	defer r.close()
	if opt.Blobs {
		if opt.archived, err = db.beginArchived(ctx, opt); err != nil {
			return rep, err
		}
	}
	rep.Size = db.Size()
	if err := db.replayAll(ctx, r, rep.Size, opt, &rep); err != nil {
		return rep, err
	}
	if rep.Root, err = ledger.TreeHash(rep.Size, db); err != nil {
		return rep, damaged(err, "tree of %d entries", rep.Size)
	}
	if err := db.checkNotes(opt, &rep); err != nil {
		return rep, err
	}
	if err := db.checkOutbox(); err != nil {
		return rep, err
	}
	if err := db.checkRejections(); err != nil {
		return rep, err
	}
	if _, err := db.NotePaths(); err != nil {
		return rep, err
	}
	if opt.Blobs {
		if err := db.checkSecrets(); err != nil {
			return rep, err
		}
		if err := opt.archived.report(&rep); err != nil {
			return rep, err
		}
	}
	err = db.view(func(t *bolt.Tx) error {
		if sizeIn(t) != rep.Size {
			return nil // somebody wrote meanwhile: the projections have moved on
		}
		if err := checkCounts(t, rep.Size); err != nil {
			return err
		}
		return r.compare(t, &rep)
	})
	if err != nil {
		return rep, err
	}
	opt.Progress = nil // it has come to its end
	return rep, db.checkRecords(ctx, opt, &rep)
}

// checkPages checks the pages of the file. It runs in the writer: bbolt compares
// them with its list of free ones, which a commit changes under a reader's hands.
func (db *DB) checkPages() error {
	var first error
	check := func(t *bolt.Tx) error {
		first = checkTx(db.base.Load().file, t)
		return errNothingToKeep
	}
	err := db.view(func(*bolt.Tx) error { return nil }) // whether it is open
	if err == nil {
		err = db.update(func(tx *Tx) error { return check(tx.bolt) })
	}
	if errors.Is(err, ErrFailed) { // then nobody writes any more
		err = db.still(func() error { return db.view(check) })
	}
	if first != nil || errors.Is(err, errNothingToKeep) {
		return first
	}
	return err
}

// checkTx checks the pages that a transaction has, which nobody changes meanwhile. bbolt does
// it in a goroutine of its own, where nothing can be caught: before that, our own look has
// verified all that it trusts.
func checkTx(f *os.File, t *bolt.Tx) (first error) {
	if err := checkFile(f, true); err != nil {
		return err
	}
	for err := range t.Check() { // to its end, which is that of its goroutine
		if first == nil {
			first = damaged(err, "pages of ledger.db")
		}
	}
	return first
}

var errNothingToKeep = errors.New("store: only read")

// sizeIn is the number of entries in a transaction.
func sizeIn(t *bolt.Tx) int64 {
	last, _ := t.Bucket(bEntries).Cursor().Last()
	if len(last) != 8 {
		return 0 // which the count of records shows
	}
	return int64(binary.BigEndian.Uint64(last)) + 1 // there is always one
}

// checkCounts finds records that no entry accounts for.
func checkCounts(t *bolt.Tx, size int64) error {
	if n := t.Bucket(bEntries).Stats().KeyN; int64(n) != size {
		return damaged(fmt.Errorf("%d records, %d are expected", n, size), "%s", bEntries)
	}
	return nil
}

// replayAll reads every entry, checks its lines and hashes, and projects it
// into the scratch database.
func (db *DB) replayAll(ctx context.Context, r *replay, size int64, opt CheckOptions, rep *CheckReport) error {
	v, err := ledger.NewVerifier(ledger.VerifierOptions{})
	if err != nil {
		return err
	}
	seen := maps.Clone(opt.Hashed)
	if seen == nil {
		seen = map[string]bool{}
	}
	gone := erasures{}
	stored := func(l Lines) (Lines, error) { return l, nil }
	for l, err := range db.entries(0, size, stored) {
		if err != nil {
			return damaged(err, "entry %d", l.Seq)
		}
		env, data, err := verified(v, l)
		if err != nil {
			return err
		}
		if err := db.checkHashes(l); err != nil {
			return err
		}
		if err := r.add(env, data); err != nil {
			return notReplayed(err, l.Seq)
		}
		gone.see(l, data)
		if opt.Blobs {
			if err := db.checkSealed(l.Seq, data, opt, seen); err != nil {
				return err
			}
		}
		if l.Seq%pageSize == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if opt.Progress != nil {
				opt.Progress(l.Seq, size)
			}
		}
	}
	rep.Blobs = len(seen)
	if err := db.checkErasures(&gone, size); err != nil {
		return err
	}
	if err := checkRoot(size, db, v.Root()); err != nil {
		return err
	}
	return r.flush()
}

// verified checks the next entry, all of which must be there, and decodes it.
func verified(v *ledger.Verifier, l Lines) (ledger.Envelope, any, error) {
	env, data, err := v.Add(l.Envelope, l.Data)
	if err == nil && l.remains != nil {
		data, err = ledger.DecodeData(env.Type, l.remains)
	}
	if err == nil && data == nil {
		err = errors.New("the data line is missing")
	}
	if err != nil {
		return env, nil, damaged(err, "entry %d", l.Seq)
	}
	return env, data, nil
}

// checkRoot compares the root that stored hashes give with that of the entries.
func checkRoot(size int64, hashes ledger.HashReader, root ledger.Hash) error {
	stored, err := ledger.TreeHash(size, hashes)
	if err != nil {
		return damaged(err, "tree of %d entries", size)
	}
	if stored != root {
		return damaged(fmt.Errorf("stored root %x, computed %x", stored, root), "tree of %d entries", size)
	}
	return nil
}

func (db *DB) checkHashes(l Lines) error {
	got, err := db.hashesOf(l.Seq)
	if err != nil {
		return damaged(err, "tree hashes of entry %d", l.Seq)
	}
	return sameHashes(l, got, db)
}

// sameHashes derives the hashes that an entry added to the tree from those before it, so
// that by induction every stored hash is checked.
func sameHashes(l Lines, got []ledger.Hash, before ledger.HashReader) error {
	want, err := ledger.StoredHashes(l.Seq, l.Envelope, before)
	if err != nil {
		return damaged(err, "tree hashes of entry %d", l.Seq)
	}
	if !slices.Equal(got, want) {
		return damaged(fmt.Errorf("a stored hash differs from the one computed"), "tree hashes of entry %d", l.Seq)
	}
	return nil
}

func (db *DB) checkNotes(opt CheckOptions, rep *CheckReport) error {
	return db.Checkpoints(func(size int64, note []byte) error {
		rep.Checkpoints++
		if opt.OpenNote == nil {
			return nil
		}
		c, err := opt.OpenNote(note)
		if err != nil {
			return damaged(err, "checkpoint of size %d", size)
		}
		if c.Size != size {
			return damaged(fmt.Errorf("it says size %d", c.Size), "checkpoint of size %d", size)
		}
		if size > rep.Size && size <= db.Size() {
			return nil // issued while we were reading
		}
		if err := db.CheckHead(c); err != nil {
			return damaged(err, "checkpoint of size %d", size)
		}
		return nil
	})
}

// replay projects entries into another database with the code that projects them when
// they are written. A check compares both key by key; a migration goes on with the other.
// Between two transactions it keeps nothing in memory: what a later entry moves, of a run
// that was reopened too, is read back.
type replay struct {
	db   *DB
	dir  string // of a check, which throws it away
	bolt *bolt.DB
	tx   *Tx
	n    int
	page int       // entries a transaction; 0: pageSize
	done func(*Tx) // after each transaction; may be nil
}

// notReplayed is what adding an entry has failed at: damage, but for what the system says of
// the file that is written.
func notReplayed(err error, seq int64) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: replay: %w", err)
	}
	return damaged(err, "replay of entry %d", seq)
}

func (db *DB) newReplay(scratch string) (*replay, error) {
	dir, err := os.MkdirTemp(cmp.Or(scratch, filepath.Join(db.home, "cache")), "check-")
	if err != nil {
		return nil, fmt.Errorf("store: check: %w", err)
	}
	b, err := bolt.Open(filepath.Join(dir, "replay.db"), 0o600, &bolt.Options{NoSync: true, NoGrowSync: true, NoFreelistSync: true})
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("store: check: %w", err)
	}
	r := &replay{db: db, dir: dir, bolt: b}
	err = b.Update(func(t *bolt.Tx) error {
		for _, name := range buckets() {
			if _, err := t.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *replay) add(env ledger.Envelope, data any) error {
	if err := r.begin(); err != nil {
		return err
	}
	if env.RunID != "" {
		if err := r.tx.put(bRecords, entryRecord(env.RunID, env.Seq), []byte{}); err != nil {
			return err
		}
	}
	if err := r.tx.project(env, data); err != nil {
		return err
	}
	if r.n++; r.n%cmp.Or(r.page, pageSize) == 0 {
		return r.flush()
	}
	return nil
}

// begin begins a transaction where none is under way.
func (r *replay) begin() error {
	if r.tx != nil {
		return nil
	}
	b, err := r.bolt.Begin(true)
	if err != nil {
		return err
	}
	fillPages(b)
	if r.tx, err = newTx(r.db, b); err != nil {
		return errors.Join(err, b.Rollback())
	}
	return nil
}

func (r *replay) flush() error {
	if r.tx == nil {
		return nil
	}
	if err := r.tx.flush(); err != nil {
		return err // close rolls it back
	}
	tx := r.tx
	if err := tx.commit(); err != nil {
		return err
	}
	r.tx = nil
	if r.done != nil {
		r.done(tx)
	}
	return nil
}

func (r *replay) rollback() {
	if r.tx != nil {
		r.tx.bolt.Rollback()
	}
}

func (r *replay) close() {
	r.rollback()
	r.bolt.Close()
	os.RemoveAll(r.dir)
}

// compare walks both databases side by side.
func (r *replay) compare(have *bolt.Tx, rep *CheckReport) error {
	return r.bolt.View(func(want *bolt.Tx) error {
		for _, name := range projections() {
			n, err := compareBucket(name, have, want)
			if err != nil {
				return err
			}
			if bytes.Equal(name, bTenantRuns) {
				rep.Runs = n
			}
		}
		for _, key := range projectedKeys() {
			if !bytes.Equal(have.Bucket(bMeta).Get(key), want.Bucket(bMeta).Get(key)) {
				return damaged(fmt.Errorf("it is not what the ledger says"), "meta %s", key)
			}
		}
		return nil
	})
}

func compareBucket(name []byte, have, want *bolt.Tx) (int, error) {
	h, w := have.Bucket(name).Cursor(), want.Bucket(name).Cursor()
	n := 0
	hk, hv := h.First()
	wk, wv := w.First()
	for hk != nil || wk != nil {
		switch {
		case wk == nil || hk != nil && bytes.Compare(hk, wk) < 0:
			return n, damaged(fmt.Errorf("a record that the ledger does not give"), "%s %s", name, printable(hk))
		case hk == nil || bytes.Compare(hk, wk) > 0:
			return n, damaged(fmt.Errorf("the record is missing"), "%s %s", name, printable(wk))
		case !bytes.Equal(hv, wv):
			return n, damaged(fmt.Errorf("the record is not what the ledger says"), "%s %s", name, printable(hk))
		}
		n++
		hk, hv = h.Next()
		wk, wv = w.Next()
	}
	return n, nil
}

// printable shows a key: text as it is, a trailing number in digits.
func printable(k []byte) string {
	if len(k) > 8 && bytes.IndexByte(k[len(k)-8:], 0) == 0 {
		return fmt.Sprintf("%q/%d", k[:len(k)-8], binary.BigEndian.Uint64(k[len(k)-8:]))
	}
	return fmt.Sprintf("%q", k)
}
