package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
)

// Lines is one entry as stored. Data is nil when it was erased.
type Lines struct {
	Seq            int64
	Envelope, Data []byte

	remains []byte // of erased data: see [ledger.Remains]
}

// Entries reads the entries from ≤ seq < to in order, a page a transaction. Data that is
// agreed to be erased is not shown.
func (db *DB) Entries(from, to int64) iter.Seq2[Lines, error] { return db.entries(from, to, db.shown) }

// entries reads entries as somebody may see them.
func (db *DB) entries(from, to int64, shown func(Lines) (Lines, error)) iter.Seq2[Lines, error] {
	return func(yield func(Lines, error) bool) {
		to = min(to, db.Size())
		for from < to {
			page, err := db.page(from, min(to, from+pageSize))
			if err != nil {
				yield(Lines{Seq: from}, err)
				return
			}
			for _, l := range page {
				if l, err = shown(l); !yield(l, err) || err != nil {
					return
				}
			}
			from += int64(len(page))
		}
	}
}

func (db *DB) page(from, to int64) ([]Lines, error) {
	page := make([]Lines, 0, to-from)
	err := db.view(func(t *bolt.Tx) error {
		c := t.Bucket(bEntries).Cursor()
		k, v := c.Seek(be64(from))
		for seq := from; seq < to; seq++ {
			if !bytes.Equal(k, be64(seq)) {
				return fmt.Errorf("store: entry %d is missing", seq)
			}
			_, l, err := decodeEntry(seq, v)
			if err != nil {
				return fmt.Errorf("store: entry %d: %w", seq, err)
			}
			page = append(page, l.clone())
			k, v = c.Next()
		}
		return nil
	})
	return page, err
}

// An entry is stored as one value, so that it takes one tree:
//
//	1 byte    how many hashes it has added to the Merkle tree: its leaf's, and those of the subtrees that it has filled
//	32 each   the hashes, from the leaf up
//	4 bytes   the length of its envelope, big endian
//	…         its envelope
//	…         its data line; once it was erased, a zero byte and what remains of the data
func encodeEntry(hashes []ledger.Hash, envelope, data []byte) []byte {
	return appendEntry(make([]byte, 0, entrySize(hashes, envelope, data)), hashes, envelope, data)
}

func entrySize(hashes []ledger.Hash, envelope, data []byte) int {
	return 1 + len(hashes)*len(ledger.Hash{}) + 4 + len(envelope) + len(data)
}

func appendEntry(v []byte, hashes []ledger.Hash, envelope, data []byte) []byte {
	v = append(v, byte(len(hashes)))
	for _, h := range hashes {
		v = append(v, h[:]...)
	}
	v = binary.BigEndian.AppendUint32(v, uint32(len(envelope)))
	return append(append(v, envelope...), data...)
}

// stored is what the record of an entry has as its data.
func (l Lines) stored() []byte {
	if l.remains != nil {
		return append([]byte{0}, l.remains...)
	}
	return l.Data
}

var errEntryRecord = errors.New("its record is not one of an entry")

// decodeEntry reads an entry from its record; all that it returns are parts of v.
func decodeEntry(seq int64, v []byte) (hashes []byte, l Lines, err error) {
	if len(v) == 0 {
		return nil, l, errEntryRecord
	}
	n := int(v[0]) * len(ledger.Hash{})
	if v = v[1:]; len(v) < n+4 {
		return nil, l, errEntryRecord
	}
	hashes, v = v[:n], v[n:]
	size := int64(binary.BigEndian.Uint32(v))
	if v = v[4:]; size > int64(len(v)) {
		return nil, l, errEntryRecord
	}
	l = Lines{Seq: seq, Envelope: v[:size]}
	switch v = v[size:]; {
	case len(v) > 0 && v[0] == 0:
		l.remains = v[1:]
	case len(v) > 0:
		l.Data = v
	}
	return hashes, l, nil
}

// entryAt reads one entry; [ErrNotFound] where there is none. What it returns is good as long
// as the transaction.
func entryAt(t *bolt.Tx, seq int64) (hashes []byte, l Lines, err error) {
	v := t.Bucket(bEntries).Get(be64(seq))
	if seq < 0 || v == nil {
		return nil, l, fmt.Errorf("entry %d: %w", seq, ErrNotFound)
	}
	if hashes, l, err = decodeEntry(seq, v); err != nil {
		err = fmt.Errorf("store: entry %d: %w", seq, err)
	}
	return hashes, l, err
}

// clone copies what a transaction holds.
func (l Lines) clone() Lines {
	return Lines{l.Seq, bytes.Clone(l.Envelope), bytes.Clone(l.Data), bytes.Clone(l.remains)}
}

// hashReader reads stored hashes of the tree inside one transaction.
type hashReader struct{ tx *bolt.Tx }

func (r hashReader) ReadHashes(indexes []int64) ([]ledger.Hash, error) {
	out := make([]ledger.Hash, len(indexes))
	for i, n := range indexes {
		seq, level := ledger.StoredHashEntry(n)
		hashes, _, err := entryAt(r.tx, seq)
		if err == nil && len(hashes) < (level+1)*len(out[i]) {
			err = errEntryRecord
		}
		if err != nil {
			return nil, fmt.Errorf("store: tree hash %d is missing: %w", n, err)
		}
		copy(out[i][:], hashes[level*len(out[i]):])
	}
	return out, nil
}

// hashesOf reads all hashes that an entry has added to the tree.
func (db *DB) hashesOf(seq int64) (out []ledger.Hash, err error) {
	err = db.view(func(t *bolt.Tx) error {
		hashes, _, err := entryAt(t, seq)
		for h := range slices.Chunk(hashes, len(ledger.Hash{})) {
			out = append(out, ledger.Hash(h))
		}
		return err
	})
	return out, err
}

// Entry reads one entry. It is here as soon as what it moved is: a transaction
// shows both a moment before the size of the ledger that is told counts it.
func (db *DB) Entry(seq int64) (l Lines, err error) {
	err = db.view(func(t *bolt.Tx) error {
		_, found, err := entryAt(t, seq)
		l = found.clone()
		return err
	})
	if err == nil {
		l, err = db.shown(l)
	}
	return l, err
}

// Initialized is what entry 0 says, as its envelope names it.
func (db *DB) Initialized() (init *ledger.SiteInit, err error) {
	err = db.view(func(t *bolt.Tx) error {
		_, l, err := entryAt(t, 0)
		if err == nil {
			init, err = l.initialized()
		}
		return err
	})
	if err != nil {
		return nil, damaged(err, "entry 0")
	}
	return init, nil
}

// initialized is the data of the entry with which a site begins.
func (l Lines) initialized() (*ledger.SiteInit, error) {
	env, err := ledger.ParseEnvelope(l.Envelope)
	if err != nil {
		return nil, err
	}
	if hexSum(l.Data) != env.DataHash {
		return nil, ErrDigest
	}
	data, err := l.data(env.Type)
	if err != nil {
		return nil, err
	}
	init, ok := data.(*ledger.SiteInit)
	if !ok {
		return nil, fmt.Errorf("it is %s, not %s", env.Type, ledger.SiteInitialized)
	}
	return init, nil
}

// RunEntries reads the entries of one run in order, those that there are now.
func (db *DB) RunEntries(runID string) iter.Seq2[Lines, error] { return db.RunEntriesFrom(runID, 0) }

// RunEntriesFrom is RunEntries from a sequence number on. Who has seen a run as it is
// sees all that has made it so: [DB.Size] may count that a moment later.
func (db *DB) RunEntriesFrom(runID string, from int64) iter.Seq2[Lines, error] {
	return func(yield func(Lines, error) bool) {
		end, err := db.onDisk()
		for err == nil && from < end {
			var seqs []int64
			if seqs, err = db.runSeqs(runID, from, end); err != nil {
				break
			}
			if !db.yieldEach(seqs, yield) || len(seqs) < pageSize {
				return
			}
			from = seqs[len(seqs)-1] + 1
		}
		if err != nil {
			yield(Lines{}, err)
		}
	}
}

// onDisk is how many entries there are, also those that [DB.Size] will count in a moment.
func (db *DB) onDisk() (n int64, err error) {
	err = db.view(func(t *bolt.Tx) error {
		if k, _ := t.Bucket(bEntries).Cursor().Last(); len(k) == 8 {
			n = int64(binary.BigEndian.Uint64(k)) + 1
		}
		return nil
	})
	return n, err
}

// yieldEach reads entries, and says whether more are wanted.
func (db *DB) yieldEach(seqs []int64, yield func(Lines, error) bool) bool {
	for _, seq := range seqs {
		l, err := db.Entry(seq)
		if err != nil {
			yield(Lines{Seq: seq}, err)
			return false
		}
		if !yield(l, nil) {
			return false
		}
	}
	return true
}

// RunEntriesBack reads the entries of one run from the newest to the first.
func (db *DB) RunEntriesBack(runID string) iter.Seq2[Lines, error] {
	return func(yield func(Lines, error) bool) {
		end, err := db.onDisk()
		for err == nil && end > 0 {
			var seqs []int64
			if seqs, err = db.runSeqsBack(runID, end); err != nil {
				break
			}
			if !db.yieldEach(seqs, yield) || len(seqs) < pageSize {
				return
			}
			end = seqs[len(seqs)-1]
		}
		if err != nil {
			yield(Lines{}, err)
		}
	}
}

// maxRestarted is how many of the last entries of a run are looked at for a restart. What
// it stops ends within seconds.
const maxRestarted = 10_000

// Restarted says which of these steps were to be begun again since their last attempts
// began: a restart that was recorded, and has not stopped them yet.
func (db *DB) Restarted(runID string, steps []string) (map[string]bool, error) {
	out := map[string]bool{}
	open := make(map[string]bool, len(steps))
	for _, id := range steps {
		open[id] = true
	}
	looked := 0
	for l, err := range db.RunEntriesBack(runID) {
		if looked++; err != nil || len(open) == 0 || looked > maxRestarted {
			return out, err
		}
		env, err := ledger.ParseEnvelope(l.Envelope)
		if err != nil {
			return out, err
		}
		switch {
		case env.Type == ledger.AttemptStarted:
			delete(open, env.StepID)
			continue
		case env.Type != ledger.RunRestarted || l.Data == nil: // erased: nobody knows which
			continue
		}
		line, err := ledger.ParseData(l.Data)
		if err != nil {
			return out, err
		}
		data, err := ledger.DecodeData(env.Type, line.Data)
		if err != nil {
			return out, err
		}
		d := data.(*ledger.Nudge)
		for id := range open {
			if of, _, _ := strings.Cut(id, "."); d.Step == "" || d.Step == id || d.Step == of {
				out[id] = true
				delete(open, id)
			}
		}
	}
	return out, nil
}

// runSeqsBack are a page of the entries of a run before one, the newest first.
func (db *DB) runSeqsBack(runID string, end int64) (seqs []int64, err error) {
	err = db.view(func(t *bolt.Tx) error {
		c := t.Bucket(bRecords).Cursor()
		k, _ := c.Seek(entryRecord(runID, end))
		if k == nil {
			k, _ = c.Last()
		} else {
			k, _ = c.Prev()
		}
		for ; len(seqs) < pageSize; k, _ = c.Prev() {
			seq, ok, err := runSeq(runID, k)
			if err != nil || !ok {
				return err
			}
			seqs = append(seqs, seq)
		}
		return nil
	})
	return seqs, err
}

// runSeq is the entry that a key of bRecords names, if it is one of a run.
func runSeq(runID string, k []byte) (seq int64, ok bool, err error) {
	rest, ok := bytes.CutPrefix(k, []byte(runID+entryPart))
	if !ok {
		return 0, false, nil
	}
	if len(rest) != 8 {
		return 0, false, damaged(errEntryRecord, "%s %s", bRecords, printable(k))
	}
	return int64(binary.BigEndian.Uint64(rest)), true, nil
}

// runSeqs are a page of the entries of a run from one on, without end.
func (db *DB) runSeqs(runID string, from, end int64) (seqs []int64, err error) {
	err = db.view(func(t *bolt.Tx) error {
		c := t.Bucket(bRecords).Cursor()
		for k, _ := c.Seek(entryRecord(runID, max(0, from))); len(seqs) < pageSize; k, _ = c.Next() {
			seq, ok, err := runSeq(runID, k)
			if err != nil || !ok || seq >= end {
				return err
			}
			seqs = append(seqs, seq)
		}
		return nil
	})
	return seqs, err
}

// FirstAtOrAfter is the seq of the first entry whose time is not before at (in
// the form of package stamp), or the size of the ledger.
func (db *DB) FirstAtOrAfter(at string) (int64, error) {
	size := db.Size()
	var fault error
	seq := sort.Search(int(size), func(i int) bool {
		l, err := db.Entry(int64(i))
		if err != nil {
			fault = err
			return true
		}
		env, err := ledger.ParseEnvelope(l.Envelope)
		if err != nil {
			fault = err
			return true
		}
		return env.Time >= at
	})
	return int64(seq), fault
}

// ReadHashes reads stored hashes of the tree ([ledger.HashReader]).
func (db *DB) ReadHashes(indexes []int64) (out []ledger.Hash, err error) {
	err = db.view(func(t *bolt.Tx) error {
		out, err = hashReader{t}.ReadHashes(indexes)
		return err
	})
	return out, err
}

// IsNotFound says whether err is about something that is not there.
func IsNotFound(err error) bool { return errors.Is(err, ErrNotFound) }
