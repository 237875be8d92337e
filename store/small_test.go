package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// named starts a run whose inputs are the blob of a digest.
func named(t *testing.T, db *store.DB, i int, inputs string) {
	t.Helper()
	run, start := newRun(i, fmt.Sprint("token ", i))
	start.InputsHash = inputs
	if _, err := db.StartRun(run, start, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}}); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, db *store.DB, text string) string {
	t.Helper()
	digest, err := db.Blobs().Put([]byte(text))
	if err != nil || digest != sum(text) {
		t.Fatalf("Put(%q) = %s, %v", text, digest, err)
	}
	return digest
}

func again(t *testing.T, db *store.DB) *store.DB {
	t.Helper()
	home := db.Home()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkOnClose(t, db)
	return db
}

// record puts other bytes in the place of a record of small blobs; nil deletes it.
func record(t *testing.T, db *store.DB, digest string, raw []byte) *store.DB {
	t.Helper()
	home := db.Home()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := bolt.Open(filepath.Join(home, "ledger.db"), 0o600, nil)
	if err == nil {
		err = errors.Join(b.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("small")).Put([]byte(digest), raw) }), b.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if db, err = store.Open(home, store.Options{}); err != nil {
		t.Fatal(err)
	}
	checkOnClose(t, db)
	return db
}

// A small blob is there at once, is as durable as the entry that names it, and
// has no file; one that no entry came for is nowhere.
func TestASmallBlobIsWrittenWithTheEntryThatNamesIt(t *testing.T) {
	db := create(t, newHome(t))
	for _, text := range []string{"", "{}", string(bytes.Repeat([]byte("x"), store.MaxSmall))} {
		digest := put(t, db, text)
		if raw, err := db.Blobs().Read(digest, store.MaxSmall); err != nil || string(raw) != text {
			t.Errorf("before its entry, %d bytes read as %d, %v", len(text), len(raw), err)
		}
		named(t, db, len(text)+1, digest)
		if _, err := os.Lstat(db.Blobs().Path(digest)); !os.IsNotExist(err) {
			t.Errorf("%d bytes have a file: %v", len(text), err)
		}
	}
	lost := put(t, db, "no entry comes")
	large := put(t, db, string(bytes.Repeat([]byte("x"), store.MaxSmall+1)))
	db = again(t, db)
	for _, text := range []string{"", "{}", string(bytes.Repeat([]byte("x"), store.MaxSmall))} {
		r, err := db.Blobs().Open(sum(text))
		if err != nil {
			t.Errorf("%d bytes after a restart: %v", len(text), err)
			continue
		}
		if raw, err := io.ReadAll(r); err != nil || string(raw) != text || r.Close() != nil {
			t.Errorf("%d bytes after a restart read as %d, %v", len(text), len(raw), err)
		}
		if n, err := db.Blobs().Check(sum(text)); n != int64(len(text)) || err != nil {
			t.Errorf("Check = %d, %v; want %d", n, err, len(text))
		}
	}
	if _, err := db.Blobs().Read(lost, 100); !store.IsNotFound(err) {
		t.Errorf("a blob that no entry came for: %v", err)
	}
	if _, err := os.Lstat(db.Blobs().Path(large)); err != nil {
		t.Errorf("a large blob has no file: %v", err)
	}
}

// What waits is bounded, also where no entry is ever kept.
func TestSmallBlobsDoNotWaitForEver(t *testing.T) {
	db := create(t, newHome(t))
	var digests []string
	for i := range 300 { // more than a MiB
		digests = append(digests, put(t, db, string(bytes.Repeat([]byte{byte(i), byte(i >> 8)}, store.MaxSmall/2))))
	}
	if _, err := db.Commit("no such run"); !store.IsNotFound(err) {
		t.Fatal(err)
	}
	db = again(t, db)
	if _, err := db.Blobs().Read(digests[7], store.MaxSmall); err != nil {
		t.Errorf("it still waited: %v", err)
	}
}

// A damaged record is found by whoever reads, by the audit and by the deep check,
// and is replaced when its bytes come in again.
func TestADamagedRecordIsFoundAndReplaced(t *testing.T) {
	db := create(t, newHome(t))
	digest := put(t, db, "the bytes")
	named(t, db, 1, digest)
	db = record(t, db, digest, []byte("the bytez"))
	if raw, err := db.Blobs().Read(digest, 100); !errors.Is(err, store.ErrDigest) {
		t.Errorf("Read = %q, %v", raw, err)
	}
	if _, err := db.Blobs().Check(digest); !errors.Is(err, store.ErrDigest) {
		t.Errorf("Check: %v", err)
	}
	if _, err := db.Check(context.Background(), store.CheckOptions{Blobs: true}); err == nil {
		t.Error("the deep check found nothing")
	}
	if got := findings(t, db)[digest]; got != store.FindCorrupt {
		t.Errorf("the audit calls it %q", got)
	}
	put(t, db, "the bytes")
	if _, err := db.Blobs().Check(digest); err != nil {
		t.Errorf("it was put again and is damaged: %v", err)
	}
	named(t, db, 2, digest)
	db = again(t, db)
	if _, err := db.Blobs().Check(digest); err != nil {
		t.Errorf("it was put again, and is damaged after a restart: %v", err)
	}
	if err := os.MkdirAll(filepath.Dir(db.Blobs().Path(digest)), 0o755); err != nil {
		t.Fatal(err)
	}
	db = record(t, db, digest, []byte("once more"))
	if _, err := db.Blobs().PutFile([]byte("the bytes")); err != nil {
		t.Fatal(err)
	}
	if raw, err := db.Blobs().Read(digest, 100); err != nil || string(raw) != "the bytes" {
		t.Errorf("beside a damaged record the whole file is not read: %q, %v", raw, err)
	}
}

// findings is what an audit finds, by digest or path.
func findings(t *testing.T, db *store.DB) map[string]store.FindingKind {
	t.Helper()
	out := map[string]store.FindingKind{}
	_, err := db.Audit(context.Background(), store.AuditOptions{Report: func(f store.Finding) {
		if f.Digest == "" {
			f.Digest = f.Path
		}
		out[f.Digest] = f.Kind
	}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The audit looks at records as it looks at files.
func TestAuditOfRecords(t *testing.T) {
	db := create(t, newHome(t))
	wanted, unwanted := put(t, db, "wanted"), put(t, db, "unwanted")
	named(t, db, 1, wanted)
	db = record(t, db, "no digest", []byte("x"))
	got := findings(t, db)
	for what, want := range map[string]store.FindingKind{
		wanted: "", unwanted: store.FindGarbage, "ledger.db/small/no digest": store.FindForeign, digest: store.FindMissing,
	} {
		if got[what] != want {
			t.Errorf("%s: %q, want %q", what, got[what], want)
		}
	}
	if _, err := db.CheckBytes(context.Background(), store.CheckOptions{}); !errors.Is(err, store.ErrDigest) {
		t.Errorf("of the record that no digest names CheckBytes says %v", err)
	}
	db.Close()
}

// Records go to the trash like files, and are saved like files.
func TestRecordsGoToTheTrash(t *testing.T) {
	home := newHome(t)
	if err := os.Mkdir(filepath.Join(home, "trash"), 0o700); err != nil {
		t.Fatal(err)
	}
	db := create(t, home)
	gone, saved := put(t, db, "gone"), put(t, db, "saved")
	named(t, db, 1, digest)
	db = again(t, db) // nobody pins them any more
	both := sealedBy(t, db.Blobs(), "gone")
	b := db.Blobs()
	seen := map[string]int{}
	if err := b.Each(func(d string, size int64) error { seen[d] += int(size); return nil }); err != nil {
		t.Fatal(err)
	}
	if seen[both] != 8 || seen[saved] != 5 {
		t.Errorf("Each met %v; want both kinds", seen)
	}
	if pinned := b.Doom([]string{gone, saved}); len(pinned) != 0 {
		t.Fatalf("pinned: %v", pinned)
	}
	put(t, db, "saved")
	if n, err := b.Trash(context.Background(), []string{gone, saved}, time.Now()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if there(b, gone) || !there(b, saved) {
		t.Errorf("gone is there: %v, saved is there: %v", there(b, gone), there(b, saved))
	}
	if kept, _ := filepath.Glob(filepath.Join(home, "trash", "*", "*")); len(kept) != 1 || filepath.Base(kept[0]) != gone {
		t.Errorf("the trash holds %v", kept)
	}
	if pinned := b.Doom([]string{saved}); len(pinned) != 1 {
		t.Error("what was put is not pinned")
	}
	put(t, db, "gone")
	named(t, db, 2, gone)
	if db = again(t, db); !there(db.Blobs(), gone) || !there(db.Blobs(), saved) {
		t.Error("what was put again is not there")
	}
}
