package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
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
	q := quick{most: cmp.Or(opt.part, quickEntries)}
	for q.seq < rep.Size {
		if err := ctx.Err(); err != nil {
			return rep, context.Cause(ctx)
		}
		if opt.Progress != nil {
			opt.Progress(q.seq, rep.Size)
		}
		err := db.viewFile(func(t *bolt.Tx, f *os.File) error { return q.part(t, f, min(rep.Size, q.seq+q.most)) })
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
	most int64 // entries a transaction
	gone erasures

	ahead ahead
}

// A transaction visits so many entries, or bytes. A commit meanwhile cannot use pages again that
// it reads, nor map more of the file.
const (
	quickEntries = 20 * pageSize
	quickBytes   = 32 << 20
)

// part checks entries up to one, or some of them. Nothing is copied.
func (q *quick) part(t *bolt.Tx, f *os.File, to int64) error {
	read := 0
	entry := func(k, v []byte) error {
		if q.seq == to || read > quickBytes {
			return errRead
		}
		read += len(v)
		return q.entry(k, v)
	}
	err := q.ahead.each(t, f, bEntries, be64(q.seq), entry)
	if err == nil && q.seq < to {
		err = q.missing()
	}
	if errors.Is(err, errRead) {
		err = nil
	}
	return err
}

var errRead = errors.New("store: enough is read")

func (q *quick) missing() error {
	return damaged(errMissing, "entry %d", q.seq)
}

// entry checks the next one.
func (q *quick) entry(k, v []byte) error {
	if len(k) != 8 || binary.BigEndian.Uint64(k) != uint64(q.seq) {
		return q.missing()
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

// erasing is how an envelope ends, but for the number of its version, that may say that data was erased.
var erasing = [][]byte{fmt.Appendf(nil, `"type":%q,"v":`, ledger.DataErased), fmt.Appendf(nil, `"type":%q,"v":`, ledger.EpochBegun)}

func erases(envelope []byte) bool {
	envelope = envelope[:bytes.LastIndexByte(envelope, ':')+1]
	return slices.ContainsFunc(erasing, func(end []byte) bool { return bytes.HasSuffix(envelope, end) })
}
