package store

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
)

// compactTx bounds how many bytes one transaction of a compaction copies.
const compactTx = 16 << 20

// compact copies the database into a new file without free pages, which takes its place when
// it is whole, checked and on disk: a file of bbolt never shrinks by itself. It comes before
// anybody reads, as a migration does, and is as safe to cut off.
func (db *DB) compact(opt Options) error {
	path, err := place(db.home)
	if err == nil {
		err = db.moveTo(path+newSuffix, path, opt, db.squeeze)
	}
	if err != nil {
		return fmt.Errorf("store: compact: %w", err)
	}
	return nil
}

// FreeBytes is how much of the file nothing uses.
func (db *DB) FreeBytes() (n int64) {
	_ = db.view(func(t *bolt.Tx) error {
		s := t.DB().Stats()
		n = int64(s.FreePageN+s.PendingPageN) * int64(t.DB().Info().PageSize)
		return nil
	})
	return n
}

// CompactBytes is about how large the file becomes without what nothing uses: it also goes on
// behind its pages.
func (db *DB) CompactBytes() (n int64) {
	_ = db.view(func(t *bolt.Tx) error {
		n = t.Size()
		return nil
	})
	return n - db.FreeBytes()
}

// squeeze copies everything, and holds the tree and the pages of the copy against this one.
func (db *DB) squeeze(to *bolt.DB, opt Options) error {
	if opt.Stopped != nil {
		if err := opt.Stopped(); err != nil {
			return err
		}
	}
	if err := checkFile(db.base.Load().file, true); err != nil { // what leads bbolt astray in this would keep its locks
		return err
	}
	if err := guard(func() error { return bolt.Compact(to, db.base.Load().DB, compactTx) }); err != nil {
		return withErrno(err)
	}
	want, err := ledger.TreeHash(db.size, db)
	if err != nil {
		return err
	}
	return to.View(func(t *bolt.Tx) error {
		if err := checkCounts(t, db.size); err != nil {
			return err
		}
		got, err := ledger.TreeHash(db.size, hashReader{t})
		if err == nil && got != want {
			err = fmt.Errorf("the copy has root %x, not %x", got, want)
		}
		for perr := range t.Check() {
			if err == nil {
				err = perr
			}
		}
		return err
	})
}
