package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

// A ledger of a form that this stella does not replay is left as it is, damaged or not: the
// stella that wrote it may read it.
func TestALedgerOfAnotherSchemaIsNotRecovered(t *testing.T) {
	for schema, want := range map[uint64]error{99: store.ErrNewerSchema, 3: store.ErrOlderSchema} {
		home := newHome(t)
		if err := create(t, home).Close(); err != nil {
			t.Fatal(err)
		}
		edit(t, home, func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket([]byte("envelopes")) // those of the first schemas have it
			return errors.Join(err, tx.Bucket([]byte("meta")).Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, schema)))
		})
		before := read(t, home, "ledger.db")
		if r, err := recovered(home, false); !errors.Is(err, want) {
			t.Errorf("schema %d: %+v, %v", schema, r, err)
		}
		if !bytes.Equal(read(t, home, "ledger.db"), before) {
			t.Errorf("schema %d: ledger.db was changed", schema)
		}
	}
}

// A schema that no stella will come to, or that the ledger is plainly not of, is damage, and
// keeps nothing from being recovered.
func TestASchemaThatCannotBeIsDamage(t *testing.T) {
	for _, schema := range []uint64{6 | 1<<40, 6 &^ 4} {
		home := newHome(t)
		if err := create(t, home).Close(); err != nil {
			t.Fatal(err)
		}
		edit(t, home, func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, schema))
		})
		if _, err := store.Open(home, store.Options{}); !isDamage(err) {
			t.Errorf("opened with %v", err)
		}
		if r, err := recovered(home, false); err != nil || r.Size != 2 {
			t.Errorf("%+v, %v", r, err)
		}
		verifies(t, home)
	}
}

// Where a disk has lied about the pages of the last transaction, all before it is recovered.
func TestTheTreeBeforeTheLastIsRecovered(t *testing.T) {
	for _, gone := range []string{"the list of buckets", "the root of the entries"} {
		_, x, size := deepSite(t)
		page := x.roots["entries"]
		if gone == "the list of buckets" {
			page = x.root()
		}
		raw := bytes.Clone(x.raw)
		clear(raw[page*x.unit:][:x.unit])
		home := ruin(t, raw)
		r, err := recovered(home, false)
		if err != nil || r.Size < size-2 || r.Unread == 0 || r.Damage == "" {
			t.Errorf("%s: %+v, %v", gone, r, err)
			continue
		}
		verifies(t, home)
	}
}

// A sink whose record is damaged begins anew: what it has missed nobody knows, and that is said.
func TestADamagedSinkIsCounted(t *testing.T) {
	db, _ := outboxDB(t)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, db.Home(), func(tx *bolt.Tx) error { return tx.Bucket([]byte("sinks")).Put([]byte("ops"), []byte("{")) })
	if r, err := recovered(db.Home(), false); err != nil || r.Unsent != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// What waits for a sink is offered to it after a recovery, as far as its entries are there.
func TestARecoveryKeepsTheOutbox(t *testing.T) {
	db, _ := outboxDB(t)
	home := db.Home()
	for i := range 3 {
		if _, err := db.AddSchedule("x", "default", addition(fmt.Sprint("s", i))); err != nil {
			t.Fatal(err)
		}
	}
	last := db.Size() - 1
	rows := []store.OutboxRow{
		{Seq: 0, Topic: string(ledger.SiteInitialized), Attempts: 1, LastError: "x", CreatedUTC: nowStamp, DueUTC: nowStamp},
		{Seq: last, Topic: string(ledger.ScheduleAdded), Tenant: "default", CreatedUTC: nowStamp},
	}
	settle(t, db, store.OutboxBatch{Next: last + 1, Rows: rows})
	if _, err := db.BeginSink("behind", true); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("entries"))
		k, v := b.Cursor().Last()
		return b.Put(bytes.Clone(k), flipped(v, len(v)-3))
	})
	r, err := recovered(home, false)
	if err != nil || r.Size != last || r.Unsent != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	verifies(t, home)
	again, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	sinks, err := again.Sinks()
	if diff := cmp.Diff(map[string]store.SinkRecord{"ops": {Next: last}, "behind": {Next: 0}}, sinks); diff != "" || err != nil {
		t.Errorf("sinks, %v (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff(rows[:1], rowsOf(t, again, "ops")); diff != "" {
		t.Errorf("what waits (-want +got):\n%s", diff)
	}
}

// Entries that are whole and not those that were signed are no damage that a disk does: a
// recovery would give them the site's word.
func TestAForkIsNotRecovered(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	note, _, _, err := db.IssueCheckpoint(signNote)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openNote(db.SiteID(), note)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.AddSchedule("x", "default", addition("s")); err != nil {
		t.Fatal(err)
	}
	size := db.Size()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	put := func(c ledger.Checkpoint) {
		note, err := signNote(c)
		if err != nil {
			t.Fatal(err)
		}
		edit(t, home, func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("checkpoints")).Put(binary.BigEndian.AppendUint64(nil, uint64(c.Size)), note)
		})
	}
	c.Size, c.Root[0] = size, c.Root[0]^1
	put(c)
	before := read(t, home, "ledger.db")
	if r, err := recovered(home, false); !errors.Is(err, store.ErrForked) {
		t.Errorf("%+v, %v", r, err)
	}
	if !bytes.Equal(read(t, home, "ledger.db"), before) {
		t.Error("ledger.db was changed")
	}
}

// A secret that cannot be read keeps no ledger from being recovered, and stays where the
// damaged file goes; the others come along.
func TestARecoveryTakesTheSecrets(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	key := ageKey(t)
	v := vault(t, db, key)
	add(t, v, "default", "good", "one", false)
	add(t, v, "default", "bad", "two", false)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	good, bad := filepath.Join("secrets", "default", "good", "1.age"), filepath.Join("secrets", "default", "bad", "1.age")
	file, huge := read(t, home, good), make([]byte, 1<<20)
	if err := os.WriteFile(filepath.Join(home, bad), huge, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := recovered(home, true)
	if err != nil || r.Secrets != 1 || r.Lost != 1 {
		t.Errorf("a dry run: %+v, %v", r, err)
	}
	r, err = recovered(home, false)
	if err != nil || r.Secrets != 1 || r.Lost != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if !bytes.Equal(read(t, home, good), file) {
		t.Error("the secret is another")
	}
	if _, err := os.Stat(filepath.Join(home, bad)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what cannot be read was copied: %v", err)
	}
	if !bytes.Equal(read(t, home, filepath.Join(r.Kept, bad)), huge) {
		t.Error("what cannot be read was not kept")
	}
}

// An entry that begins an epoch which cannot be is not believed, though all that it says fits.
func TestAnEpochThatCannotBeIsNotTheHighest(t *testing.T) {
	for epoch, want := range map[int64]int64{store.MaxEpoch: store.MaxEpoch, store.MaxEpoch + 1: 0} {
		home := newHome(t)
		db := create(t, home)
		waits, err := db.BeginEpoch("uid:0(root)", ledger.EpochStart{Epoch: epoch, Cause: "restored", Reason: "a test"}, time.Time{})
		if err := errors.Join(waits, err, db.Close()); err != nil {
			t.Fatal(err)
		}
		if got := store.Peek(home).Epoch; got != want {
			t.Errorf("of %d: %d, want %d", epoch, got, want)
		}
	}
}

// What remains of erased data is part of an entry that is intact: where it is not what was
// recorded, the ledger is recovered up to it, and verifies.
func TestARecoveryEndsWhereWhatRemainsIsAnother(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	seq := says(t, db, 1, "Erika Mustermann")
	agreed(t, db, seq)
	if err := db.EraseAgreed(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("entries"))
		key := binary.BigEndian.AppendUint64(nil, uint64(seq))
		v := bytes.Clone(b.Get(key))
		at := bytes.LastIndex(v, []byte(`"t1"`)) // the run token stays
		if at < 0 {
			return fmt.Errorf("no token remains: %s", v)
		}
		v[at+1] = 'u'
		return b.Put(key, v)
	})
	r, err := recovered(home, false)
	if err != nil || r.Size != seq {
		t.Fatalf("%+v, %v", r, err)
	}
	verifies(t, home)
}
