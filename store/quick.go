package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
)

// CheckLines is the part of [DB.Check] that says whether the entries are those that were
// signed: it hashes every line, makes the tree anew, and holds its stored hashes and every
// stored checkpoint against it. What an entry says, what follows from it and what is sealed
// is not looked at, so that it takes little more than the hashing. It changes nothing, and
// returns the first damage it finds as a *[Damage].
func (db *DB) CheckLines(ctx context.Context, opt CheckOptions) (CheckReport, error) {
	rep := CheckReport{Size: db.Size()}
	q := quick{}
	for q.seq < rep.Size {
		if err := ctx.Err(); err != nil {
			return rep, context.Cause(ctx)
		}
		if opt.Progress != nil {
			opt.Progress(q.seq, rep.Size)
		}
		err := db.view(func(t *bolt.Tx) error { return q.page(t, min(rep.Size, q.seq+pageSize)) })
		if err != nil {
			return rep, err
		}
	}
	if err := db.checkErasures(&q.gone, rep.Size); err != nil {
		return rep, err
	}
	rep.Root = q.tree.Root()
	if err := checkRoot(rep.Size, db, rep.Root); err != nil {
		return rep, err
	}
	return rep, db.checkNotes(opt, &rep)
}

// quick is a check of lines under way.
type quick struct {
	tree ledger.Tree
	seq  int64 // the next
	gone erasures
}

// page checks entries up to one. Nothing is copied.
func (q *quick) page(t *bolt.Tx, to int64) error {
	c := t.Bucket(bEntries).Cursor()
	for k, v := c.Seek(be64(q.seq)); q.seq < to; k, v = c.Next() {
		if len(k) != 8 || binary.BigEndian.Uint64(k) != uint64(q.seq) {
			return damaged(errors.New("it is missing"), "entry %d", q.seq)
		}
		stored, l, err := decodeEntry(q.seq, v)
		if err == nil {
			err = q.line(l)
		}
		if err != nil {
			return damaged(err, "entry %d", q.seq)
		}
		hashes := q.tree.Add(l.Envelope)
		same := len(stored) == len(hashes)*len(ledger.Hash{})
		for i := 0; same && i < len(hashes); i++ {
			same = bytes.Equal(stored[i*len(hashes[i]):][:len(hashes[i])], hashes[i][:])
		}
		if !same {
			return damaged(errors.New("a stored hash differs from the one computed"), "tree hashes of entry %d", q.seq)
		}
		q.seq++
	}
	return nil
}

// line holds the data line of an entry against its envelope.
func (q *quick) line(l Lines) error {
	var data any
	if l.Data != nil {
		if err := ledger.CheckDataHash(l.Envelope, l.Data); err != nil {
			return err
		}
	} else if l.remains == nil {
		return errors.New("the data line is missing")
	}
	if erases(l.Envelope) {
		env, err := ledger.ParseEnvelope(l.Envelope)
		if err == nil {
			data, err = l.data(env.Type)
		}
		if err != nil {
			return err
		}
	}
	q.gone.see(l, data)
	return nil
}

// erasing is how an envelope begins its type that may say that data was erased.
var erasing = [][]byte{fmt.Appendf(nil, `"type":%q`, ledger.DataErased), fmt.Appendf(nil, `"type":%q`, ledger.EpochBegun)}

func erases(envelope []byte) bool {
	envelope = envelope[max(0, len(envelope)-64):] // only the version comes after the type
	return slices.ContainsFunc(erasing, func(t []byte) bool { return bytes.Contains(envelope, t) })
}
