package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

// stops adds n entries of very different lengths: several to a page, and many pages to one.
func stops(t *testing.T, db *store.DB, n int) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	results := make(chan error)
	for i := range n {
		size := random.IntN(700)
		if i%97 == 0 {
			size = random.IntN(60 << 10)
		}
		go func() {
			_, err := db.Append(ledger.SiteStopped, "x", &ledger.SiteStop{Reason: fmt.Sprintf("%0*d", size, i)})
			results <- err
		}()
	}
	for range n {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
}

// CheckBytes gives the root that everybody else gives, however many entries it takes at
// once, and wherever they lie: of large pages the first few are on that of their bucket's name.
func TestCheckBytesReadsEveryEntryOnce(t *testing.T) {
	for _, unit := range []int{0, 64 << 10} {
		db := createWith(t, newHome(t), store.WithUnit(store.Options{}, unit))
		for _, n := range []int{0, 1, 2, 5, 3000} {
			stops(t, db, n)
			for _, part := range []int64{0, 1, 7, 100, 1500} {
				checkRoot(t, db, store.WithPart(store.CheckOptions{}, part))
			}
		}
	}
}

// checkRoot holds the root of CheckBytes to that of the stored hashes.
func checkRoot(t *testing.T, db *store.DB, opt store.CheckOptions) {
	t.Helper()
	size := db.Size()
	rep, err := db.CheckBytes(context.Background(), opt)
	if err != nil || rep.Size != size {
		t.Fatalf("of %d entries: %+v, %v", size, rep, err)
	}
	if want, err := ledger.TreeHash(size, db); err != nil || rep.Root != want {
		t.Fatalf("of %d entries: root %x, not %x, %v", size, rep.Root, want, err)
	}
}

// What CheckBytes has read ahead of is not read from there once others may have written over it.
func TestCheckBytesWhileSomebodyWrites(t *testing.T) {
	db := create(t, newHome(t))
	stops(t, db, 20)
	for range 12 {
		write := func(_, _ int64) {
			if _, err := db.Append(ledger.SiteStopped, "x", &ledger.SiteStop{Reason: "x"}); err != nil {
				t.Error(err)
			}
		}
		checkRoot(t, db, store.WithPart(store.CheckOptions{Progress: write}, 5))
	}
}

// Who is told how far a check is, and is slow, holds up nobody who writes.
func TestCheckBytesWaitsForNobody(t *testing.T) {
	home := newHome(t)
	if err := create(t, home).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(home, store.WithMapped(store.Options{}, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	checkOnClose(t, db)
	stops(t, db, 20)
	size := db.Size()
	told, release, checked, written := make(chan bool), make(chan bool), make(chan error, 1), make(chan error, 1)
	first := sync.OnceFunc(func() {
		close(told)
		<-release
	})
	go func() {
		_, err := db.CheckBytes(context.Background(), store.WithPart(store.CheckOptions{Progress: func(done, _ int64) {
			if done > size {
				first()
			}
		}}, 1))
		checked <- err
	}()
	<-told
	go func() { // what needs more of the file than is mapped waits for those who read
		written <- db.Write(func(put func(int) error) error { return put(40 << 20) })
	}()
	select {
	case err := <-written:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("a write waits for whoever is told of the check")
	}
	close(release)
	if err := <-checked; err != nil {
		t.Error(err)
	}
}

// A record that is no entry, or not the next, is damage, and the entry is named.
func TestCheckBytesMissesNoEntry(t *testing.T) {
	change := map[string]func(b *bolt.Bucket, key []byte) error{
		"gone": func(b *bolt.Bucket, key []byte) error { return b.Delete(key) },
		"longer": func(b *bolt.Bucket, key []byte) error {
			v := bytes.Clone(b.Get(key))
			return errors.Join(b.Delete(key), b.Put(append(key, 0), v))
		},
		"empty":       func(b *bolt.Bucket, key []byte) error { return b.Put(key, nil) },
		"no envelope": func(b *bolt.Bucket, key []byte) error { return b.Put(key, []byte{0, 0, 0, 0, 9}) },
	}
	for name, fn := range change {
		for _, seq := range []uint64{3, 77} {
			home := newHome(t)
			db := create(t, home)
			stops(t, db, 200)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			inEntries(t, home, func(b *bolt.Bucket) error { return fn(b, binary.BigEndian.AppendUint64(nil, seq)) })
			db, err := store.Open(home, store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = db.CheckBytes(context.Background(), store.CheckOptions{})
			var d *store.Damage
			if !errors.As(err, &d) || d.What != fmt.Sprint("entry ", seq) {
				t.Errorf("entry %d is %s: %v", seq, name, err)
			}
			db.Close()
		}
	}
}

// Whatever byte of the file is another: a ledger that CheckBytes passes holds what it held.
func TestCheckBytesPassesNothingElse(t *testing.T) {
	sweep(t)
	home := manyKinds(t)
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stops(t, db, 500)
	for i := range 150 {
		named(t, db, 100+i, put(t, db, fmt.Sprint("sealed ", i)))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(home, "ledger.db")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := recordsOf(t, raw)
	random := rand.New(rand.NewPCG(3, 4))
	flips, passed := 300, 0
	if *everyByte {
		flips = 10_000
	}
	for i := range flips {
		at := random.IntN(len(raw))
		if i%2 == 0 { // where a page says what is on it
			at = at&^4095 + random.IntN(80)
		}
		changed := bytes.Clone(raw)
		changed[at] ^= 1 << random.IntN(8)
		if err := os.WriteFile(file, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if passes(t, home) {
			passed++
			if diff := cmp.Diff(want, recordsOf(t, changed)); diff != "" {
				t.Errorf("byte %d is another, and passes (-was +is):\n%s", at, diff)
			}
		}
	}
	if passed == 0 || passed == flips {
		t.Errorf("of %d flipped bits %d are of no record", flips, passed)
	}
}

// recordsOf is all that a file holds.
func recordsOf(t *testing.T, raw []byte) map[string]string {
	t.Helper()
	all := map[string]string{}
	if _, err := store.WalkPages(raw, func(bucket, k, v []byte) { all[fmt.Sprintf("%s %q", bucket, k)] = string(v) }); err != nil {
		t.Fatal(err)
	}
	return all
}

// passes says whether a site is opened, and CheckBytes passes it.
func passes(t *testing.T, home string) bool {
	t.Helper()
	db, err := store.Open(home, store.Options{})
	if err != nil {
		return false // found even earlier
	}
	defer db.Close()
	if _, err := db.CheckBytes(context.Background(), store.WithPart(store.CheckOptions{}, 100)); err != nil {
		if d := (*store.Damage)(nil); !errors.As(err, &d) {
			t.Errorf("no damage, but %v", err)
		}
		return false
	}
	return true
}
