package store_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

// sealedBy seals text as a process did that has ended since: nobody pins it.
func sealedBy(t *testing.T, b *store.Blobs, text string) string {
	t.Helper()
	q, err := b.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	defer q.Discard()
	if err := q.AddBytes([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := q.Seal(); err != nil {
		t.Fatal(err)
	}
	return sum(text)
}

func withTrash(t *testing.T) (string, *store.Blobs) {
	t.Helper()
	home := newHome(t)
	if err := os.Mkdir(filepath.Join(home, "trash"), 0o700); err != nil {
		t.Fatal(err)
	}
	return home, create(t, home).Blobs()
}

func there(b *store.Blobs, digest string) bool {
	_, err := b.Check(digest)
	return err == nil
}

// What is doomed counts as absent, so that whoever needs it brings it again;
// what is brought again, or pinned, is not taken away.
func TestPinsAndDoom(t *testing.T) {
	_, b := withTrash(t)
	gone, again, relied := sealedBy(t, b, "gone"), sealedBy(t, b, "again"), sealedBy(t, b, "relied upon")
	put, err := b.Put([]byte("put"))
	if err != nil {
		t.Fatal(err)
	}
	q, err := b.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	if !q.Has(relied) {
		t.Fatal("a sealed blob is not there")
	}
	all := []string{gone, again, relied, put}
	if diff := cmp.Diff([]string{relied, put}, b.Doom(all)); diff != "" {
		t.Errorf("pinned (-want +got):\n%s", diff)
	}
	q2, err := b.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	defer q2.Discard()
	if q2.Has(again) {
		t.Error("a doomed blob counts as present")
	}
	if err := q2.AddBytes([]byte("again")); err != nil {
		t.Fatal(err)
	}
	if err := q2.Seal(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Trash(context.Background(), all, time.Now()); err != nil {
		t.Fatal(err)
	}
	for digest, want := range map[string]bool{gone: false, again: true, relied: true, put: true} {
		if there(b, digest) != want {
			t.Errorf("%s is there: %v, want %v", digest, !want, want)
		}
	}
	q.Discard()
	if pinned := b.Doom([]string{relied}); len(pinned) != 0 {
		t.Errorf("a quarantine that is gone still pins %v", pinned)
	}
	b.Spare([]string{relied})
	if n, err := b.Trash(context.Background(), []string{relied}, time.Now()); n != 0 || err != nil || !there(b, relied) {
		t.Errorf("what was spared went to the trash: %d, %v", n, err)
	}
	if digest, err := b.Put([]byte("gone")); err != nil || !there(b, digest) {
		t.Errorf("what was given up cannot be put again: %v", err)
	}
}

// The trash is emptied a day later, and only of what a collection put there.
func TestTrashIsKeptForADay(t *testing.T) {
	home, b := withTrash(t)
	gone := sealedBy(t, b, "gone")
	now := time.Now()
	b.Doom([]string{gone})
	if n, err := b.Trash(context.Background(), []string{gone}, now); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if err := os.Mkdir(filepath.Join(home, "trash", "mine"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		after time.Duration
		dry   bool
		want  int64
	}{{23 * time.Hour, false, 0}, {25 * time.Hour, true, 1}, {25 * time.Hour, false, 1}, {25 * time.Hour, false, 0}} {
		files, size, err := b.EmptyTrash(context.Background(), now.Add(tc.after), tc.dry)
		if files != tc.want || size != 4*tc.want || err != nil {
			t.Errorf("after %v, dry %v: %d files, %d bytes, %v; want %d", tc.after, tc.dry, files, size, err, tc.want)
		}
	}
	if _, err := os.Stat(filepath.Join(home, "trash", "mine")); err != nil {
		t.Errorf("what somebody else put into the trash: %v", err)
	}
}

func admission(version string, sequence int64, digest string) *ledger.BundleAdmission {
	return &ledger.BundleAdmission{Signatures: []string{}, Verdict: ledger.Verdict{
		Decision: "admitted", Digest: digest, Kind: "data", Publisher: "acme", Name: "x", Version: version, Sequence: sequence,
		Signers: []ledger.SignerRef{}, Checks: []string{},
	}}
}

// Several bundles are admitted together or not at all, each against the floor
// that the one before leaves; one that is admitted already has none.
func TestAdmitAll(t *testing.T) {
	db := create(t, newHome(t))
	one, two := sum("1"), sum("2")
	_, err := db.AdmitAll("x", []store.Admitting{{Admission: admission("1.0.0", 1, one)}, {Admission: admission("1.0.1", 2, two)}})
	if err == nil {
		t.Error("the second was judged without the floor of the first, and admitted")
	}
	if _, err := db.Bundle(one); !store.IsNotFound(err) {
		t.Errorf("the first was kept: %v", err)
	}
	seqs, err := db.AdmitAll("x", []store.Admitting{
		{Admission: admission("1.0.0", 1, one)},
		{Admission: admission("1.0.1", 2, two), JudgedAt: store.Floor{Sequence: 1, Digest: one}},
	})
	if err != nil || len(seqs) != 2 || seqs[1].Seq != seqs[0].Seq+1 || seqs[0].Again {
		t.Fatal(seqs, err)
	}
	if again, err := db.Admit("x", store.Admitting{Admission: admission("1.0.0", 1, one)}); err != nil || !again.Again {
		t.Errorf("one that is admitted already: %v", err)
	}
	recs, err := db.Versions("acme", "x")
	if err != nil || len(recs) != 2 {
		t.Fatalf("versions %v, %v", recs, err)
	}
	old := store.Superseded(recs, 1)
	if len(old) != 1 || old[0].Digest != one {
		t.Errorf("superseded %+v, want 1.0.0", old)
	}
	if _, err := db.RecordCollection("x", &ledger.GarbageCollection{Bundles: []string{one}, List: digest}); err != nil {
		t.Fatal(err)
	}
	if rec, err := db.Bundle(one); err != nil || rec.Removed == 0 {
		t.Errorf("what was given up: %+v, %v", rec, err)
	}
	if _, err := db.RecordCollection("x", &ledger.GarbageCollection{Bundles: []string{sum("no")}, List: digest}); err == nil {
		t.Error("a collection of a bundle that is not there was recorded")
	}
	if _, err := db.Admit("x", store.Admitting{Admission: admission("1.0.0", 1, one)}); err != nil {
		t.Fatal(err)
	}
	if rec, err := db.Bundle(one); err != nil || rec.Removed != 0 {
		t.Errorf("what came back: %+v, %v", rec, err)
	}
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}
