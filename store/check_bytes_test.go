package store_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"flag"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

var everyByte = flag.Bool("every", false, "flip every byte of a ledger, not a sample")

// Each byte of the record of each entry counts, whichever check reads it, and the entry
// is named.
func TestEveryByteOfALedgerCounts(t *testing.T) {
	sweep(t)
	home := newHome(t)
	db := create(t, home)
	run, start := newRun(1, "t1")
	start.Metadata = map[string]string{"for": "somebody"}
	if _, err := db.StartRun(run, start, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.AddSchedule("x", "default", addition("nightly")); err != nil {
		t.Fatal(err)
	}
	agreed(t, db, 2) // the start of the run
	err := db.EraseAgreed()
	if err == nil {
		_, _, _, err = db.IssueCheckpoint(signNote)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if db, err = store.Open(home, store.Options{}); err != nil {
		t.Fatal(err)
	}
	if l, err := db.Entry(2); err != nil || !l.Erased() {
		t.Fatalf("%+v, %v", l, err)
	}
	size := db.Size()
	if rep, err := db.CheckBytes(context.Background(), store.CheckOptions{}); err != nil || rep.Size != size || rep.Checkpoints != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	step := 29
	if *everyByte {
		step = 1
	}
	for seq := range size {
		for at := int(seq) % step; flip(t, home, seq, at); at += step {
			found(t, home, seq, at)
			flip(t, home, seq, at)
		}
	}
}

// testKey signs the checkpoints of tests.
var testKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func signNote(c ledger.Checkpoint) ([]byte, error) { return ledger.SignCheckpoint(c, testKey) }

// A ledger that is shorter than what was signed of it is not opened: what it signed next would
// be a fork.
func TestALedgerExtendsItsNewestCheckpoint(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	if _, err := db.AddSchedule("x", "default", addition("nightly")); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := db.IssueCheckpoint(signNote); err != nil {
		t.Fatal(err)
	}
	last := db.Size() - 1
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	inEntries(t, home, func(b *bolt.Bucket) error { return b.Delete(binary.BigEndian.AppendUint64(nil, uint64(last))) })
	var d *store.Damage
	if _, err := store.Open(home, store.Options{}); !errors.As(err, &d) {
		t.Errorf("it is opened: %v", err)
	}
}

// flip changes a byte of the record of an entry, and says whether there is one.
func flip(t *testing.T, home string, seq int64, at int) (ok bool) {
	t.Helper()
	inEntries(t, home, func(b *bolt.Bucket) error {
		k := binary.BigEndian.AppendUint64(nil, uint64(seq))
		v := bytes.Clone(b.Get(k))
		if ok = at < len(v); ok {
			v[at] ^= 1
		}
		return b.Put(k, v)
	})
	return ok
}

// inEntries changes the records of the entries of a home that nobody has open.
func inEntries(t *testing.T, home string, change func(b *bolt.Bucket) error) {
	t.Helper()
	b, err := bolt.Open(filepath.Join(home, "ledger.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = b.Update(func(tx *bolt.Tx) error { return change(tx.Bucket([]byte("entries"))) })
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
}

// found holds both checks to finding the damage, and to naming the entry.
func found(t *testing.T, home string, seq int64, at int) {
	t.Helper()
	db, err := store.Open(home, store.Options{})
	if err != nil {
		return // found even earlier
	}
	defer db.Close()
	for name, check := range checks(db) {
		_, err := check(context.Background(), store.CheckOptions{})
		var d *store.Damage
		if !errors.As(err, &d) || !strings.Contains(err.Error(), "entry "+string(rune('0'+seq))) {
			t.Errorf("byte %d of entry %d, %s check: %v", at, seq, name, err)
		}
	}
}
