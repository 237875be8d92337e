package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
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

// oldLedger lays entries out as the schemas before the fourth did, all but the newest
// that are to be there already.
func oldLedger(tx *bolt.Tx, kept int) error {
	var b [3]*bolt.Bucket
	for i, name := range []string{"envelopes", "data", "hashes"} {
		var err error
		if b[i], err = tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	entries, index := tx.Bucket([]byte("entries")), uint64(0)
	err := entries.ForEach(func(k, v []byte) error {
		n := int(v[0])
		for i := range n {
			if err := b[2].Put(binary.BigEndian.AppendUint64(nil, index), v[1+32*i:][:32]); err != nil {
				return err
			}
			index++
		}
		rest := v[1+32*n:]
		size := binary.BigEndian.Uint32(rest)
		return errors.Join(b[0].Put(k, rest[4:][:size]), b[1].Put(k, rest[4+size:]))
	})
	if err != nil || kept == 0 {
		return errors.Join(err, tx.DeleteBucket([]byte("entries")))
	}
	c := entries.Cursor()
	for k, _ := c.Last(); k != nil && binary.BigEndian.Uint64(k) >= uint64(kept); k, _ = c.Last() {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
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
		return errors.Join(b.Put([]byte(sum("1")), raw), tx.DeleteBucket([]byte("records")), oldLedger(tx, 0), setSchema(tx, 1))
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

// A site of the third schema had a bucket for each kind of record of a run, and three
// for the ledger. A process that was killed while it copied that has done no harm.
func TestTheThirdSchemaIsBroughtUpToDate(t *testing.T) {
	for _, kept := range []int{0, 2} {
		t.Run(fmt.Sprint(kept, " entries are copied"), func(t *testing.T) { thirdSchema(t, kept) })
	}
}

func thirdSchema(t *testing.T, kept int) {
	home := newHome(t)
	db := create(t, home)
	run, first := newRun(1, "token")
	want, err := db.StartRun(run, first, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}})
	if err != nil {
		t.Fatal(err)
	}
	root, err := ledger.TreeHash(db.Size(), db)
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
		return errors.Join(tx.DeleteBucket([]byte("records")), oldLedger(tx, kept), setSchema(tx, 3))
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
	if now, err := ledger.TreeHash(db.Size(), db); err != nil || now != root {
		t.Errorf("its root is %x, %v; it was %x", now, err, root)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, func(tx *bolt.Tx) error {
		for _, name := range append(old, "envelopes", "data", "hashes") {
			if tx.Bucket([]byte(name)) != nil {
				t.Errorf("bucket %s is still there", name)
			}
		}
		return nil
	})
}

// A last entry that cannot be read is named when the site is opened.
func TestALastEntryThatIsNoneIsNamed(t *testing.T) {
	home := newHome(t)
	if err := create(t, home).Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, func(tx *bolt.Tx) error {
		k, _ := tx.Bucket([]byte("entries")).Cursor().Last()
		return tx.Bucket([]byte("entries")).Put(append([]byte(nil), k...), []byte{9})
	})
	var d *store.Damage
	if _, err := store.Open(home, store.Options{}); !errors.As(err, &d) || !strings.Contains(err.Error(), "entry 1") {
		t.Errorf("Open = %v", err)
	}
}

// What lacks in a ledger of an older schema is named, and nothing of it is given up.
func TestADamagedOldLedgerIsNotBroughtUpToDate(t *testing.T) {
	for _, bucket := range []string{"envelopes", "hashes"} {
		home := newHome(t)
		db := create(t, home)
		start(t, db, 0, 1)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		edit(t, home, func(tx *bolt.Tx) error {
			return errors.Join(toThirdSchema(tx), tx.Bucket([]byte(bucket)).Delete([]byte{7: 5})) // something is made before it is found
		})
		was := read(t, home, "ledger.db")
		var d *store.Damage
		if _, err := store.Open(home, store.Options{}); !errors.As(err, &d) {
			t.Errorf("without one of %s: %v", bucket, err)
		}
		if !bytes.Equal(read(t, home, "ledger.db"), was) || read(t, home, "ledger.db.new") != nil {
			t.Errorf("without one of %s: something was written", bucket)
		}
	}
}

func TestANewerSchemaIsRefused(t *testing.T) {
	home := newHome(t)
	if err := create(t, home).Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, func(tx *bolt.Tx) error { return setSchema(tx, 7) })
	if _, err := store.Open(home, store.Options{}); !errors.Is(err, store.ErrNewerSchema) {
		t.Errorf("Open = %v", err)
	}
}
