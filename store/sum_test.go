package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// manyKinds makes a home with records in most buckets.
func manyKinds(t *testing.T) (home string) {
	t.Helper()
	db, run := outboxDB(t)
	dead(t, db, run)
	add(t, vault(t, db, ageKey(t)), "default", "token", "value", false)
	named(t, db, 2, put(t, db, "sealed"))
	_, err := db.Admit("x", store.Admitting{Admission: admission("1.0.0", 1, sum("1"))})
	if err == nil {
		_, err = db.AddSchedule("x", "default", addition("nightly"))
	}
	if err == nil {
		_, _, _, err = db.IssueCheckpoint(signNote)
	}
	if err == nil {
		_, err = db.Reject("x", &ledger.BundleRejection{})
	}
	if err := errors.Join(err, db.PutNotePaths([]string{"/media/notes"}), db.Close()); err != nil {
		t.Fatal(err)
	}
	return db.Home()
}

// Of every record that is no entry each byte counts, and that it is there, alone.
func TestEachByteOfARecordCounts(t *testing.T) {
	sweep(t)
	home := manyKinds(t)
	whole := read(t, home, "ledger.db")
	if err := checkedBytes(home); err != nil {
		t.Fatal(err)
	}
	type record struct{ bucket, key, value []byte }
	var all []record
	kinds := map[string]bool{}
	edit(t, home, func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			if string(name) == "entries" {
				return nil
			}
			return b.ForEach(func(k, v []byte) error {
				kinds[string(name)] = true
				all = append(all, record{bytes.Clone(name), bytes.Clone(k), bytes.Clone(v)})
				return nil
			})
		})
	})
	if len(kinds) < 15 {
		t.Errorf("records of %d kinds only: %v", len(kinds), kinds)
	}
	step := 37
	if *everyByte {
		step = 1
	}
	for i, r := range all {
		spoil := map[string]func(b *bolt.Bucket) error{
			"gone":        func(b *bolt.Bucket) error { return b.Delete(r.key) },
			"there twice": func(b *bolt.Bucket) error { return b.Put(append(bytes.Clone(r.key), 'x'), r.value) },
			"longer":      func(b *bolt.Bucket) error { return b.Put(r.key, append(bytes.Clone(r.value), 0)) },
			"of another key": func(b *bolt.Bucket) error {
				return errors.Join(b.Delete(r.key), b.Put(flipped(r.key, len(r.key)-1), r.value))
			},
		}
		for at := i % step; at < len(r.value); at += step {
			spoil[fmt.Sprint("another at ", at)] = func(b *bolt.Bucket) error { return b.Put(r.key, flipped(r.value, at)) }
		}
		for how, change := range spoil {
			if err := os.WriteFile(filepath.Join(home, "ledger.db"), whole, 0o600); err != nil {
				t.Fatal(err)
			}
			edit(t, home, func(tx *bolt.Tx) error { return change(tx.Bucket(r.bucket)) })
			if err := checkedBytes(home); !isDamage(err) && !errors.Is(err, store.ErrNewerSchema) {
				t.Errorf("record %s %q is %s: %v", r.bucket, r.key, how, err)
			}
		}
	}
}

// checkedBytes opens a site, and checks what it has written.
func checkedBytes(home string) error {
	db, err := store.Open(home, store.Options{})
	if err != nil {
		return err
	}
	_, err = db.CheckBytes(context.Background(), store.CheckOptions{OpenNote: func(note []byte) (ledger.Checkpoint, error) { return openNote(db.SiteID(), note) }})
	return errors.Join(err, db.Close())
}

// A record that is another is named, which takes a replay; of what no entry gives that it is
// of which kind it is is all that is known. A recovery makes records and their sum anew.
func TestADamagedRecordIsNamed(t *testing.T) {
	for _, x := range []struct {
		bucket, key, was, is, want string
		unsent                     bool // it may be of a sink
	}{
		{"tokens", "default\x00t1", "0190b8f2", "1190b8f2", `tokens "default\x00t1"`, false},
		{"outbox", "ops\x00" + string(binary.BigEndian.AppendUint64(nil, 2)), "no answer", "an answer", "the records outbox of ledger.db", true},
		{"meta", "sum", "\x00", "\x01", "the records meta of ledger.db", false},
		{"sinks", "ops", `"next":4`, `"next":3`, "the records sinks of ledger.db", true},
	} {
		home := manyKinds(t)
		edit(t, home, func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte(x.bucket))
			return b.Put([]byte(x.key), bytes.Replace(b.Get([]byte(x.key)), []byte(x.was), []byte(x.is), 1))
		})
		var d *store.Damage
		if err := checkedBytes(home); !errors.As(err, &d) || d.What != x.want {
			t.Errorf("of a record of %s it says %v", x.bucket, err)
		}
		if r, err := recovered(home, false); err != nil || r.Damage != "" || (r.Unsent > 0) != x.unsent {
			t.Errorf("recovered from that of %s: %+v, %v", x.bucket, r, err)
		}
		verifies(t, home)
	}
}

// What only the sums show to be gone is told by a recovery, which cannot bring it back.
func TestARecoveryTellsWhatIsGone(t *testing.T) {
	for _, x := range []struct {
		bucket, key  string
		lost, unsent int64
	}{{"small", sum("sealed"), 1, 0}, {"sinks", "ops", 0, 1}} {
		home := manyKinds(t)
		edit(t, home, func(tx *bolt.Tx) error { return tx.Bucket([]byte(x.bucket)).Delete([]byte(x.key)) })
		if r, err := recovered(home, false); err != nil || r.Lost != x.lost || r.Unsent < x.unsent {
			t.Errorf("without the record of %s: lost %d, unsent %d, %v", x.bucket, r.Lost, r.Unsent, err)
		}
		verifies(t, home)
	}
}

// A request that fails is undone in the sum as well, whoever shares its transaction.
func TestTheSumIsOfWhatWasKept(t *testing.T) {
	db := create(t, newHome(t))
	results := make(chan error)
	for i := range 200 {
		go func() {
			run, start := newRun(i, fmt.Sprint("token ", i))
			rest := []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}}
			if i%3 == 0 { // what comes before is written by then
				rest = append(rest, state.Proposal{Type: ledger.StepCompleted, Actor: "x", StepID: "a", Data: &ledger.StepEnd{}})
			}
			_, err := db.StartRun(run, start, rest)
			results <- err
		}()
	}
	refused := 0
	for range 200 {
		if err := <-results; err != nil {
			refused++
		}
	}
	if _, err := db.CheckBytes(context.Background(), store.CheckOptions{}); err != nil || refused != 67 {
		t.Errorf("after %d of 200 were refused: %v", refused, err)
	}
}
