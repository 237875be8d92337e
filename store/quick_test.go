package store_test

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

var everyByte = flag.Bool("every", false, "flip every byte of a ledger, not a sample")

// Each byte of the record of each entry counts, for the whole check and for the quick one, and
// the entry is named.
func TestEveryByteOfALedgerCounts(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	run, start := newRun(1, "t1")
	if _, err := db.StartRun(run, start, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.AddSchedule("x", "default", addition("nightly")); err != nil {
		t.Fatal(err)
	}
	_, _, _, err := db.IssueCheckpoint(func(c ledger.Checkpoint) ([]byte, error) { return fmt.Append(nil, c.Size), nil })
	if err != nil {
		t.Fatal(err)
	}
	size := db.Size()
	if rep, err := db.CheckLines(context.Background(), store.CheckOptions{}); err != nil || rep.Size != size || rep.Checkpoints != 1 {
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

// flip changes a byte of the record of an entry, and says whether there is one.
func flip(t *testing.T, home string, seq int64, at int) (ok bool) {
	t.Helper()
	b, err := bolt.Open(filepath.Join(home, "ledger.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	err = b.Update(func(tx *bolt.Tx) error {
		k := binary.BigEndian.AppendUint64(nil, uint64(seq))
		v := append([]byte(nil), tx.Bucket([]byte("entries")).Get(k)...)
		if ok = at < len(v); ok {
			v[at] ^= 1
		}
		return tx.Bucket([]byte("entries")).Put(k, v)
	})
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// found holds both checks to finding the damage, and to naming the entry.
func found(t *testing.T, home string, seq int64, at int) {
	t.Helper()
	db, err := store.Open(home, store.Options{})
	if err != nil {
		return // found even earlier
	}
	defer db.Close()
	for name, check := range map[string]func(context.Context, store.CheckOptions) (store.CheckReport, error){"whole": db.Check, "quick": db.CheckLines} {
		_, err := check(context.Background(), store.CheckOptions{})
		var d *store.Damage
		if !errors.As(err, &d) || !strings.Contains(err.Error(), "entry "+string(rune('0'+seq))) {
			t.Errorf("byte %d of entry %d, %s check: %v", at, seq, name, err)
		}
	}
}
