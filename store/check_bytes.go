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

// CheckBytes is the part of [DB.Check] that says whether ledger.db holds what was written: the
// entries are those that were signed, and of no record a byte is another. It hashes every line,
// makes the tree anew, holds its stored hashes and every stored checkpoint against it, and the
// records against their sums. What an entry says, whether records follow from it, and sealed
// files are not looked at, so that it takes little more than the hashing. It changes nothing,
// and returns the first damage it finds as a *[Damage]; only where that is in a record it reads
// everything once more, to name it.
func (db *DB) CheckBytes(ctx context.Context, opt CheckOptions) (CheckReport, error) {
	rep := CheckReport{Size: db.Size()}
	err := db.checkLines(ctx, opt, &rep)
	if err == nil {
		err = db.checkNotes(opt, &rep)
	}
	if err == nil {
		err = db.checkRecords(ctx, opt, &rep)
	}
	if !errors.Is(err, errOtherSum) {
		return rep, err
	}
	_, named := db.Check(ctx, CheckOptions{OpenNote: opt.OpenNote, Scratch: opt.Scratch, Progress: opt.Progress})
	if damage := (*Damage)(nil); errors.As(named, &damage) {
		err = named
	}
	return rep, err
}

// checkLines hashes the lines of all entries, and holds the stored hashes of the tree against
// them.
func (db *DB) checkLines(ctx context.Context, opt CheckOptions, rep *CheckReport) error {
	total := rep.Size
	err := db.view(func(t *bolt.Tx) error {
		sums, err := readSums(t)
		total += sums.records()
		return err
	})
	if err != nil {
		return err
	}
	q := lines{most: cmp.Or(opt.part, linesEntries)}
	for q.seq < rep.Size {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if opt.Progress != nil {
			opt.Progress(q.seq, total)
		}
		err := db.viewFile(func(t *bolt.Tx, f *os.File) error { return q.part(t, f, min(rep.Size, q.seq+q.most)) })
		if err != nil {
			return err
		}
	}
	if err := db.checkErasures(&q.gone, rep.Size); err != nil {
		return err
	}
	rep.Root = q.tree.Root()
	return checkRoot(rep.Size, db, rep.Root)
}

// checkRecords holds the records that are no entries against their sums, and small sealed files
// against their names.
func (db *DB) checkRecords(ctx context.Context, opt CheckOptions, rep *CheckReport) error {
	progress, told := beside(opt.Progress)
	defer told()
	return db.viewFile(func(t *bolt.Tx, f *os.File) error {
		want, err := readSums(t)
		if err != nil {
			return err
		}
		var have recordSums
		var file ahead
		seen, total, often := rep.Size, rep.Size+want.records(), cmp.Or(opt.part, recordsAtOnce)
		for i, name := range sumBuckets {
			err := file.all(t, f, name, func(k, v []byte) error {
				if seen++; seen%often == 0 {
					if err := ctx.Err(); err != nil {
						return context.Cause(ctx)
					}
					progress(seen, total)
				}
				if i == sumSmall && hexSum(v) != string(k) && !exists(db.blobs.Path(string(k))) { // else the file is read in its place
					return damaged(ErrDigest, "%s %s of ledger.db", name, printable(k))
				}
				if i != sumMeta || !unsummed(k) {
					have.add(i, k, v)
				}
				return nil
			})
			if err == nil {
				err = have[i].is(want[i], name)
			}
			if err != nil {
				return err
			}
		}
		rep.Runs = int(have[sumTenants].n)
		return nil
	})
}

// beside has somebody told who may be slow, while a transaction goes on that must not wait for
// them: what comes meanwhile is left out. The second ends that.
func beside(tell func(done, total int64)) (progress func(done, total int64), end func()) {
	if tell == nil {
		return func(_, _ int64) {}, func() {}
	}
	news, ended := make(chan [2]int64, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for x := range news {
			tell(x[0], x[1])
		}
	}()
	progress = func(done, total int64) {
		select {
		case news <- [2]int64{done, total}:
		default:
		}
	}
	return progress, func() {
		close(news)
		<-ended
	}
}

// recordsAtOnce are the records between two looks at whether somebody waits for them.
const recordsAtOnce = 1 << 14

// lines is a check of entries under way.
type lines struct {
	tree ledger.Tree
	seq  int64 // the next
	most int64 // entries a transaction
	gone erasures

	ahead ahead
}

// A transaction visits so many entries, or bytes. A commit meanwhile cannot use pages again that
// it reads, nor map more of the file.
const (
	linesEntries = 20 * pageSize
	linesBytes   = 32 << 20
)

// part checks entries up to one, or some of them. Nothing is copied.
func (q *lines) part(t *bolt.Tx, f *os.File, to int64) error {
	read := 0
	entry := func(k, v []byte) error {
		if q.seq == to || read > linesBytes {
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

func (q *lines) missing() error {
	return damaged(errMissing, "entry %d", q.seq)
}

// entry checks the next one.
func (q *lines) entry(k, v []byte) error {
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
func (q *lines) line(l Lines) error {
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
