package store_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// edit changes a database that nobody has open.
func edit(t *testing.T, home string, change func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(home, "ledger.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// setSchema writes a schema version.
func setSchema(tx *bolt.Tx, n uint64) error {
	return tx.Bucket([]byte("meta")).Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, n))
}

// A site of the first schema, whose records lack what they have since, is brought
// up to date by the replay of its ledger, and is whole then.
func TestTheFirstSchemaIsBroughtUpToDate(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	a := admission("1.0.0", 1, sum("1"))
	a.Verdict.TrustedTime, a.Signatures = "2026-11-22T08:00:00.000000000Z", []string{sum("old signature")}
	if _, err := db.Admit("x", store.Admitting{Admission: a}); err != nil {
		t.Fatal(err)
	}
	again := *a
	again.Signatures = []string{sum("new signature")}
	if _, err := db.Admit("x", store.Admitting{Admission: &again}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, func(tx *bolt.Tx) error {
		if err := tx.Bucket([]byte("meta")).Delete([]byte("clock")); err != nil {
			return err
		}
		b := tx.Bucket([]byte("bundles"))
		var rec map[string]any
		if err := json.Unmarshal(b.Get([]byte(sum("1"))), &rec); err != nil {
			return err
		}
		delete(rec, "earlier")
		for _, name := range []string{"live", "dead", "approvals", "asked", "locks", "cache", "cacheage", "schedules", "outbox", "sinks", "small"} {
			if err := tx.DeleteBucket([]byte(name)); err != nil {
				return err
			}
		}
		raw, err := json.Marshal(rec)
		if err != nil {
			return err
		}
		return errors.Join(b.Put([]byte(sum("1")), raw), setSchema(tx, 1))
	})
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Check(context.Background(), store.CheckOptions{}); err != nil {
		t.Errorf("it is not what the ledger says: %v", err)
	}
	rec, err := db.Bundle(sum("1"))
	if err != nil || len(rec.Signatures()) != 2 {
		t.Errorf("%+v, %v", rec.Earlier, err)
	}
}

// A site of the third schema had a bucket for each kind of record of a run.
func TestTheThirdSchemaIsBroughtUpToDate(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	run, first := newRun(1, "token")
	want, err := db.StartRun(run, first, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	old := []string{"runs", "steps", "attempts", "runlog"}
	edit(t, home, func(tx *bolt.Tx) error {
		for _, name := range old {
			b, err := tx.CreateBucket([]byte(name))
			if err != nil {
				return err
			}
			if err := b.Put([]byte(run.RunID), []byte("{}")); err != nil {
				return err
			}
		}
		return errors.Join(tx.DeleteBucket([]byte("records")), setSchema(tx, 3))
	})
	if db, err = store.Open(home, store.Options{}); err != nil {
		t.Fatal(err)
	}
	if got, err := db.Run(run.RunID); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("the run is %+v, %v", got, err)
	}
	if _, err := db.Check(context.Background(), store.CheckOptions{}); err != nil {
		t.Errorf("it is not what the ledger says: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, func(tx *bolt.Tx) error {
		for _, name := range old {
			if tx.Bucket([]byte(name)) != nil {
				t.Errorf("bucket %s is still there", name)
			}
		}
		return nil
	})
}

func TestANewerSchemaIsRefused(t *testing.T) {
	home := newHome(t)
	if err := create(t, home).Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, func(tx *bolt.Tx) error { return setSchema(tx, 5) })
	if _, err := store.Open(home, store.Options{}); !errors.Is(err, store.ErrNewerSchema) {
		t.Errorf("Open = %v", err)
	}
}
