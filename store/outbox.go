package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

// The ledger is the outbox: an event is an entry, so it is there if and only if
// what it tells of is. Here is kept how far each sink has come, and what it did
// not take at once. No entry accounts for that, and a replay does not give it.

// SinkRecord is how far one sink has come.
type SinkRecord struct {
	Next      int64  `json:"next"`              // seq of the next entry that it has not seen
	Delivered int64  `json:"delivered"`         // events that it took
	LastUTC   string `json:"lastUtc,omitempty"` // when it took the last one
	// Requeues counts the calls of [DB.RequeueOutbox]: whoever holds rows in
	// memory reads them again when it has moved.
	Requeues int64 `json:"requeues,omitempty"`
}

// OutboxRow is an event that a sink did not take at once. It is removed once the
// sink has taken it.
type OutboxRow struct {
	Seq        int64  `json:"-"`               // of the event's entry; part of the key
	Topic      string `json:"topic"`           // type of the entry
	RunID      string `json:"runId,omitempty"` // of the entry, as the next
	Tenant     string `json:"tenant,omitempty"`
	Attempts   int    `json:"attempts"`
	LastError  string `json:"lastError,omitempty"`
	CreatedUTC string `json:"createdUtc"`
	DueUTC     string `json:"dueUtc,omitempty"` // not before; "": when those before it are gone
	Dead       bool   `json:"dead,omitempty"`   // set aside until somebody requeues it
}

// OutboxBatch is what came of some events at a sink.
type OutboxBatch struct {
	Next      int64       // the cursor afterwards; it never goes back
	Requeues  int64       // of the sink's record when its rows were read
	Delivered []int64     // seqs of the events that it took
	Rows      []OutboxRow // those that it did not, as they are now
}

// BeginSink returns the record of a sink, and makes one where there is none:
// from the first entry on, or from the next.
func (db *DB) BeginSink(sink string, fromStart bool) (SinkRecord, error) {
	rec, err := db.Sink(sink)
	if !errors.Is(err, ErrNotFound) {
		return rec, err
	}
	err = db.update(func(tx *Tx) error {
		rec = SinkRecord{Next: tx.size}
		if fromStart {
			rec.Next = 0
		}
		return tx.putJSON(bSinks, []byte(sink), rec)
	})
	return rec, err
}

// Sink reads the record of a sink.
func (db *DB) Sink(sink string) (SinkRecord, error) {
	var rec SinkRecord
	err := db.view(func(t *bolt.Tx) error { return sinkOf(t, sink, &rec) })
	return rec, err
}

func sinkOf(t *bolt.Tx, sink string, rec *SinkRecord) error {
	err := getJSON(t, bSinks, []byte(sink), rec)
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("sink %q: %w", sink, ErrNotFound)
	}
	return err
}

// Sinks reads the records of all sinks, by name.
func (db *DB) Sinks() (map[string]SinkRecord, error) {
	all := map[string]SinkRecord{}
	err := scan(db, bSinks, nil, func(t *bolt.Tx, k, _ []byte) error {
		var rec SinkRecord
		err := sinkOf(t, string(k), &rec)
		all[string(k)] = rec
		return err
	})
	return all, err
}

// OutboxRows reads rows of a sink in order, from the one of entry from on, at
// most limit of them.
func (db *DB) OutboxRows(sink string, from int64, limit int) ([]OutboxRow, error) {
	var rows []OutboxRow
	err := db.view(func(t *bolt.Tx) error {
		rows = nil
		c := t.Bucket(bOutbox).Cursor()
		for k, v := c.Seek(outboxKey(sink, max(0, from))); k != nil && len(rows) < limit; k, v = c.Next() {
			name, seq, ok := splitOutboxKey(k)
			if !ok || name != sink {
				break
			}
			row := OutboxRow{Seq: seq}
			if err := json.Unmarshal(v, &row); err != nil {
				return damaged(err, "outbox %s of ledger.db", printable(k))
			}
			rows = append(rows, row)
		}
		return nil
	})
	return rows, err
}

// SettleOutbox records what came of some events at a sink, in one transaction:
// the cursor, the rows that are gone, new or changed, and an entry for each event
// that is given up. What a requeue has overtaken is left as the requeue made it.
func (db *DB) SettleOutbox(sink string, b OutboxBatch) (SinkRecord, error) {
	var rec SinkRecord
	err := db.update(func(tx *Tx) error {
		rec = SinkRecord{}
		if err := sinkOf(tx.bolt, sink, &rec); err != nil {
			return err
		}
		next := max(rec.Next, b.Next)
		if next > tx.size || slices.ContainsFunc(b.Rows, func(r OutboxRow) bool { return r.Seq >= next }) {
			return fmt.Errorf("store: sink %q: the cursor %d is beyond the ledger, or a row beyond the cursor", sink, next)
		}
		for _, seq := range b.Delivered {
			if err := tx.delete(bOutbox, outboxKey(sink, seq)); err != nil {
				return err
			}
		}
		overtaken := rec.Requeues != b.Requeues
		for _, row := range b.Rows {
			if err := tx.putRow(sink, row, overtaken); err != nil {
				return err
			}
		}
		rec.Next = next
		if n := len(b.Delivered); n > 0 {
			rec.Delivered += int64(n)
			rec.LastUTC = stamp.Format(tx.db.now())
		}
		return tx.putJSON(bSinks, []byte(sink), rec)
	})
	return rec, err
}

// putRow writes a row, unless there is one already and keep says that it counts.
func (tx *Tx) putRow(sink string, row OutboxRow, keep bool) error {
	key := outboxKey(sink, row.Seq)
	if keep && tx.get(bOutbox, key) != nil {
		return nil
	}
	if err := tx.putJSON(bOutbox, key, row); err != nil || !row.Dead {
		return err
	}
	_, err := tx.append(siteEntry(ledger.OutboxDead, "system:outbox", &ledger.OutboxDeath{
		Sink: sink, Event: row.Seq, Topic: row.Topic, RunID: row.RunID, Attempts: row.Attempts,
	}))
	return err
}

// RequeueOutbox has events of a sink tried again at once, those of the entries in
// seqs. With reset their attempts are counted from the beginning, else each is
// tried once more. One that has no row is [ErrNotFound], and nothing is changed.
func (db *DB) RequeueOutbox(actor, sink string, seqs []int64, reset bool) error {
	return db.update(func(tx *Tx) error {
		var rec SinkRecord
		if err := sinkOf(tx.bolt, sink, &rec); err != nil {
			return err
		}
		now := stamp.Format(tx.db.now())
		for _, seq := range seqs {
			var row OutboxRow
			err := getJSON(tx.bolt, bOutbox, outboxKey(sink, seq), &row)
			if errors.Is(err, ErrNotFound) {
				return fmt.Errorf("event %s/%d: %w", sink, seq, ErrNotFound)
			}
			if err != nil {
				return err
			}
			row.Dead, row.DueUTC = false, now
			if reset {
				row.Attempts, row.LastError = 0, ""
			}
			if err := tx.putJSON(bOutbox, outboxKey(sink, seq), row); err != nil {
				return err
			}
		}
		rec.Requeues++
		if err := tx.putJSON(bSinks, []byte(sink), rec); err != nil {
			return err
		}
		_, err := tx.append(siteEntry(ledger.OutboxRequeued, actor, &ledger.OutboxRequeue{Sink: sink, Events: len(seqs), Reset: reset}))
		return err
	})
}

// ForgetSink removes the record of a sink and its rows, and says how many those
// were.
func (db *DB) ForgetSink(actor, sink string) (dropped int, err error) {
	err = db.update(func(tx *Tx) error {
		var rec SinkRecord
		if err := sinkOf(tx.bolt, sink, &rec); err != nil {
			return err
		}
		prefix := pair(sink, "")
		var keys [][]byte
		c := tx.bolt.Bucket(bOutbox).Cursor()
		for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			keys = append(keys, bytes.Clone(k))
		}
		for _, k := range keys {
			if err := tx.delete(bOutbox, k); err != nil {
				return err
			}
		}
		if err := tx.delete(bSinks, []byte(sink)); err != nil {
			return err
		}
		dropped = len(keys)
		_, err := tx.append(siteEntry(ledger.OutboxForgotten, actor, &ledger.OutboxForget{Sink: sink, Next: rec.Next, Dropped: dropped}))
		return err
	})
	return dropped, err
}

// checkOutbox holds the cursors and the rows against the ledger: they follow from
// no entry, but there is none that they could be about without one. Deliveries go
// on meanwhile, so that each is compared within its transaction.
func (db *DB) checkOutbox() error {
	err := scan(db, bSinks, nil, func(t *bolt.Tx, k, _ []byte) error {
		var rec SinkRecord
		err := sinkOf(t, string(k), &rec)
		if size := sizeIn(t); err == nil && (rec.Next < 0 || rec.Next > size) {
			err = fmt.Errorf("it stands at %d, and the ledger has %d entries", rec.Next, size)
		}
		if err != nil {
			return damaged(err, "sink %q", k)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return scan(db, bOutbox, nil, func(t *bolt.Tx, k, v []byte) error {
		if err := checkRow(t, k, v); err != nil {
			return damaged(err, "outbox %s", printable(k))
		}
		return nil
	})
}

// checkRow compares a row with its sink and its entry.
func checkRow(t *bolt.Tx, k, v []byte) error {
	sink, seq, ok := splitOutboxKey(k)
	var row OutboxRow
	var rec SinkRecord
	switch {
	case !ok:
		return errors.New("its key is no sink and entry")
	case json.Unmarshal(v, &row) != nil:
		return errors.New("it is not a row")
	case sinkOf(t, sink, &rec) != nil:
		return errors.New("there is no such sink")
	case seq < 0 || seq >= rec.Next:
		return fmt.Errorf("its sink has seen %d entries only", rec.Next)
	}
	_, line, err := entryAt(t, seq)
	if err != nil {
		return err
	}
	env, err := ledger.ParseEnvelope(line.Envelope)
	if err != nil {
		return err
	}
	if string(env.Type) != row.Topic || env.RunID != row.RunID || env.Tenant != row.Tenant {
		return errors.New("it is not about its entry")
	}
	return nil
}

func outboxKey(sink string, seq int64) []byte {
	return binary.BigEndian.AppendUint64([]byte(sink+"\x00"), uint64(seq))
}

func splitOutboxKey(k []byte) (sink string, seq int64, ok bool) {
	if len(k) < 9 {
		return "", 0, false
	}
	head, tail := string(k[:len(k)-8]), k[len(k)-8:]
	sink, ok = strings.CutSuffix(head, "\x00")
	return sink, int64(binary.BigEndian.Uint64(tail)), ok
}
