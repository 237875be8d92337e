package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
)

// Checkpoint returns the newest stored checkpoint; [ErrNotFound] if none.
func (db *DB) Checkpoint() (note []byte, size int64, err error) {
	err = db.view(func(t *bolt.Tx) error {
		k, v := t.Bucket(bCheckpoints).Cursor().Last()
		if k == nil {
			return fmt.Errorf("checkpoint: %w", ErrNotFound)
		}
		note, size, err = noteOf(k, v)
		return err
	})
	return note, size, err
}

// noteOf is a checkpoint as it is stored, as a copy, and how many entries it covers, by its key.
func noteOf(k, v []byte) (note []byte, size int64, err error) {
	if len(k) != 8 {
		return nil, 0, damaged(errors.New("it is no size"), "the key %.20q of a checkpoint in ledger.db", k)
	}
	return bytes.Clone(v), int64(binary.BigEndian.Uint64(k)), nil
}

// CheckpointCovering returns the first stored checkpoint whose tree holds the
// entry seq; [ErrNotFound] if none does yet.
func (db *DB) CheckpointCovering(seq int64) (note []byte, size int64, err error) {
	err = db.view(func(t *bolt.Tx) error {
		k, v := t.Bucket(bCheckpoints).Cursor().Seek(be64(seq + 1))
		if k == nil {
			return fmt.Errorf("checkpoint over entry %d: %w", seq, ErrNotFound)
		}
		note, size, err = noteOf(k, v)
		return err
	})
	return note, size, err
}

// Checkpoints visits all stored checkpoints by size, in no transaction: visit may read.
func (db *DB) Checkpoints(visit func(size int64, note []byte) error) error {
	type stored struct{ k, v []byte }
	for from := []byte{}; from != nil; {
		var page []stored
		err := db.view(func(t *bolt.Tx) error {
			c := t.Bucket(bCheckpoints).Cursor()
			k, v := c.Seek(from)
			for ; k != nil && len(page) < pageSize; k, v = c.Next() {
				page = append(page, stored{bytes.Clone(k), bytes.Clone(v)})
			}
			from = bytes.Clone(k)
			return nil
		})
		if err != nil {
			return err
		}
		for _, x := range page {
			note, size, err := noteOf(x.k, x.v)
			if err == nil {
				err = visit(size, note)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// IssueCheckpoint signs the tree head of everything committed, stores it, and
// then writes checkpoint.note. When the newest checkpoint covers everything,
// it only makes sure of the file. The head is signed after its entries are on
// disk, never before.
func (db *DB) IssueCheckpoint(sign func(ledger.Checkpoint) ([]byte, error)) (note []byte, size int64, fresh bool, err error) {
	size = db.Size()
	if old, n, err := db.Checkpoint(); err == nil && n == size {
		return old, n, false, db.writeNote(old)
	}
	root, err := ledger.TreeHash(size, db)
	if err != nil {
		return nil, 0, false, err
	}
	if note, err = sign(ledger.Checkpoint{Origin: db.Origin(), Size: size, Root: root}); err != nil {
		return nil, 0, false, err
	}
	if err := db.update(func(tx *Tx) error { return tx.put(bCheckpoints, be64(size), note) }); err != nil {
		return nil, 0, false, err
	}
	return note, size, true, db.writeNote(note)
}

func (db *DB) writeNote(note []byte) error {
	if err := failpoint.Hit(failpoint.CheckpointWrite); err != nil {
		return err
	}
	return fsx.WriteFile(filepath.Join(db.home, "checkpoint.note"), note, 0o644)
}

// CheckHead holds the tree against a checkpoint that was signed earlier: the
// tree must extend it, else [ErrHeadMismatch].
func (db *DB) CheckHead(c ledger.Checkpoint) error {
	size := db.Size()
	if c.Size > size {
		return fmt.Errorf("%w: the checkpoint covers %d entries, the ledger has %d", ErrHeadMismatch, c.Size, size)
	}
	root, err := ledger.TreeHash(c.Size, db)
	if err != nil {
		return err
	}
	if root != c.Root {
		return fmt.Errorf("%w: the first %d entries have another root", ErrHeadMismatch, c.Size)
	}
	return nil
}

// GivenUp says whether a checkpoint of an older epoch covers entries that the ledger does not
// have, or has others for: what it went on with when a later epoch began. adopted is how many
// it has of those before.
func (db *DB) GivenUp(epoch, size int64) (adopted int64, yes bool) {
	adopted, over := db.Adopted(epoch)
	return adopted, over && (size > adopted || !db.had(epoch))
}

// had says whether an epoch is one of the ledger's. One that is not was given up as a whole.
func (db *DB) had(epoch int64) bool {
	return epoch == 1 || slices.ContainsFunc(db.site.Adopted, func(x Epoch) bool { return x.Epoch == epoch })
}

// Contradicts is an [ErrForked] where entries of the ledger are not those that a checkpoint of
// its own says. What the checkpoint covers beyond the ledger is no contradiction.
func (db *DB) Contradicts(c ledger.Checkpoint) error {
	_, epoch, err := ledger.ParseOrigin(c.Origin)
	if err != nil {
		return err
	}
	if _, gone := db.GivenUp(epoch, c.Size); gone || epoch > db.Epoch() || c.Size > db.Size() {
		return nil
	}
	if err := db.CheckHead(c); err != nil {
		return fmt.Errorf("%w: %w", ErrForked, err)
	}
	return nil
}

// extends says whether the tree extends the newest checkpoint that is stored. Whoever signs
// the next one would sign a fork otherwise.
func (db *DB) extends() error {
	note, size, err := db.Checkpoint()
	if IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := ledger.ParseCheckpoint(note)
	if err == nil && c.Size != size {
		err = fmt.Errorf("it says size %d", c.Size)
	}
	if err == nil {
		err = db.CheckHead(c)
	}
	if err != nil {
		return damaged(err, "checkpoint of size %d", size)
	}
	return nil
}
