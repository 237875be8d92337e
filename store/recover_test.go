package store_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

// recovered recovers the ledger of a home.
func recovered(home string, dry bool) (store.Recovery, error) {
	return recoveredBy(home, dry, store.Options{})
}

func recoveredBy(home string, dry bool, open store.Options) (store.Recovery, error) {
	return store.Recover(context.Background(), store.RecoverOptions{
		Home: home, Kept: "then", DryRun: dry, OpenNote: openNote, Open: open,
		Adopted: func(*store.DB, store.Recovery) error { return nil },
		Trust:   func(dir string) error { return os.Mkdir(dir, 0o700) },
		Begin: func(db *store.DB, evidence string) error {
			waits, err := db.BeginEpoch("uid:0(root)", ledger.EpochStart{Epoch: db.Epoch() + 1, Cause: "recovered", Evidence: evidence, Reason: "a test"}, time.Time{})
			return errors.Join(waits, err)
		},
		Told: func(store.Recovery) ([]byte, error) { return nil, nil },
	})
}

// openNote verifies what signNote has signed.
func openNote(siteID string, note []byte) (ledger.Checkpoint, error) {
	return ledger.OpenCheckpoint(note, testKey.Public().(ed25519.PublicKey), siteID)
}

// linesOf are the entries of a home.
func linesOf(t *testing.T, home string) (out []store.Lines) {
	t.Helper()
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for l, err := range db.Entries(0, db.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, l)
	}
	return out
}

// One of the two pages that say where the data is: bbolt would go on with the other, and what
// was on disk would be gone without a word. It is damage, and a recovery says that entries may
// be lost.
func TestOneDamagedMetaPageIsDamage(t *testing.T) {
	site := newHome(t)
	randomLedger(t, create(t, site), rand.New(rand.NewPCG(1, 2)))
	want := linesOf(t, site)
	raw := read(t, site, "ledger.db")
	for id := range 2 {
		for what, bad := range map[string]func(page []byte){
			"emptied":     func(page []byte) { clear(page) },
			"a bit of it": func(page []byte) { page[16+40] ^= 1 },
		} {
			home := newHome(t)
			damaged := bytes.Clone(raw)
			bad(damaged[id*os.Getpagesize():][:os.Getpagesize()])
			if err := os.WriteFile(filepath.Join(home, "ledger.db"), damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			var damage *store.Damage
			if _, err := store.Open(home, store.Options{}); !errors.As(err, &damage) || !strings.Contains(err.Error(), "meta pages") {
				t.Errorf("meta page %d, %s: Open = %v, want damage", id, what, err)
			}
			if now := read(t, home, "ledger.db"); !bytes.Equal(now, damaged) {
				t.Errorf("meta page %d, %s: the file has changed", id, what)
			}
			r, err := recovered(home, false)
			if err != nil || r.Unread == 0 || r.Damage == "" || r.Size < int64(len(want))-1 {
				t.Errorf("meta page %d, %s: recovered %+v, %v, of %d entries", id, what, r, err, len(want))
			}
			if got := linesOf(t, home); int64(len(got)) < r.Size {
				t.Errorf("meta page %d, %s: %d entries of %d are there", id, what, len(got), r.Size)
			}
		}
	}
}

// Wherever a database is damaged: what is recovered is the longest prefix of its entries
// that is intact, whole, and goes on; or nothing is touched.
func TestWhatIsRecoveredIsAPrefix(t *testing.T) {
	sweep(t)
	r := rand.New(rand.NewPCG(rand.Uint64(), 0))
	site := newHome(t)
	randomLedger(t, create(t, site), r)
	want := linesOf(t, site)
	raw := read(t, site, "ledger.db")
	used := len(bytes.TrimRight(raw, "\x00")) // the file grows ahead of what is in it
	aimed := want[len(want)/2].Envelope
	kinds := [][]byte{ // one of each kind, whatever chance brings after them
		raw,
		bytes.ReplaceAll(raw, aimed, make([]byte, len(aimed))),
		raw[:os.Getpagesize()/2],
	}
	whole, cut, none := 0, 0, 0
	for i := range 50 {
		home := newHome(t)
		var bad []byte
		what := " aimed"
		if i < len(kinds) {
			bad = kinds[i]
		} else {
			bad, what = damagedAnywhere(raw, used, r)
		}
		if err := os.WriteFile(filepath.Join(home, "ledger.db"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		plan, err := recovered(home, true)
		if now := read(t, home, "ledger.db"); string(now) != string(bad) {
			t.Fatalf("%d:%s: a dry run has changed the file", i, what)
		}
		if err != nil {
			if !errors.Is(err, store.ErrHopeless) && !errors.Is(err, store.ErrNewerSchema) && !errors.Is(err, store.ErrOlderSchema) {
				t.Errorf("%d:%s: %v", i, what, err)
			}
			none++
			continue
		}
		rec, err := recovered(home, false)
		if err != nil || rec.Size != plan.Size || rec.Size < 1 {
			t.Errorf("%d:%s: %+v, %v; the dry run said %+v", i, what, rec, err, plan)
			continue
		}
		if kept := read(t, home, filepath.Join(rec.Kept, "ledger.db")); string(kept) != string(bad) {
			t.Errorf("%d:%s: the damaged file is not kept", i, what)
		}
		got := linesOf(t, home)
		if int64(len(got)) != rec.Size+1 {
			t.Fatalf("%d:%s: %d entries after %d were adopted", i, what, len(got), rec.Size)
		}
		for seq := range got[:rec.Size] {
			if string(got[seq].Envelope) != string(want[seq].Envelope) || string(got[seq].Data) != string(want[seq].Data) {
				t.Fatalf("%d:%s: entry %d is another", i, what, seq)
			}
		}
		verifies(t, home)
		if whole++; rec.Size < int64(len(want)) {
			whole, cut = whole-1, cut+1
		}
	}
	t.Logf("%d whole, %d cut, %d hopeless", whole, cut, none)
	if whole == 0 || cut == 0 || none == 0 {
		t.Error("the damage is always of one kind")
	}
}

// damagedAnywhere is a file with a few stretches of chance bytes in what is used of it, and at
// times cut, and how.
func damagedAnywhere(raw []byte, used int, r *rand.Rand) (bad []byte, how string) {
	bad = bytes.Clone(raw)
	for range 1 + r.IntN(4) {
		at, n := r.IntN(used), 1<<r.IntN(13)
		for j := at; j < min(at+n, len(bad)); j++ {
			bad[j] = byte(r.Uint32())
		}
		how += fmt.Sprintf(" %d bytes at %d", n, at)
	}
	if r.IntN(8) == 0 {
		bad = bad[:r.IntN(used)]
		how += fmt.Sprintf(", cut at %d", len(bad))
	}
	return bad, how
}

// verifies says that a home is what its ledger says, and each checkpoint as it was signed.
func verifies(t *testing.T, home string) (checkpoints int) {
	t.Helper()
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rep, err := db.Check(context.Background(), store.CheckOptions{OpenNote: func(note []byte) (ledger.Checkpoint, error) {
		return openNote(db.SiteID(), note)
	}})
	if err != nil {
		t.Errorf("what was recovered does not verify: %v", err)
	}
	return rep.Checkpoints
}

// A checkpoint that is not as it was signed would keep a recovered ledger from verifying ever
// again; one that lies in another's place has its own again.
func TestADamagedCheckpointIsNotTakenOver(t *testing.T) {
	for what, tc := range map[string]struct {
		damage func(b *bolt.Bucket, k, v []byte) error
		left   int
	}{
		"its place": {func(b *bolt.Bucket, k, v []byte) error {
			return errors.Join(b.Delete(k), b.Put([]byte("\x00\x00\x00\x01\x00\x00\x00\x00"), v))
		}, 2},
		"its key is none":  {func(b *bolt.Bucket, k, v []byte) error { return errors.Join(b.Delete(k), b.Put([]byte("x"), v)) }, 2},
		"its signature":    {func(b *bolt.Bucket, k, v []byte) error { return b.Put(k, flipped(v, len(v)-20)) }, 1},
		"its root":         {func(b *bolt.Bucket, k, v []byte) error { return b.Put(k, flipped(v, bytes.IndexByte(v, '=')-10)) }, 1},
		"it is not a note": {func(b *bolt.Bucket, k, _ []byte) error { return b.Put(k, []byte("x")) }, 1},
	} {
		t.Run(what, func(t *testing.T) {
			home := newHome(t)
			db := create(t, home)
			for i := range 2 {
				if _, err := db.AddSchedule("x", "default", addition(fmt.Sprint("s", i))); err != nil {
					t.Fatal(err)
				}
				if _, _, _, err := db.IssueCheckpoint(signNote); err != nil {
					t.Fatal(err)
				}
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			edit(t, home, func(tx *bolt.Tx) error {
				b := tx.Bucket([]byte("checkpoints"))
				k, v := b.Cursor().First()
				return tc.damage(b, bytes.Clone(k), bytes.Clone(v))
			})
			if _, err := recovered(home, false); err != nil {
				t.Fatal(err)
			}
			if n := verifies(t, home); n != tc.left {
				t.Errorf("%d checkpoints, not %d", n, tc.left)
			}
		})
	}
}

// A damaged key that says that there are more entries than anything has room for is not
// believed: nobody would live to see the end of it.
func TestADamagedKeyIsNotCountedTo(t *testing.T) {
	for _, key := range []string{"\x00\x01\x00\x00\x00\x00\x00\x05", "\x7f\xff\xff\xff\xff\xff\xff\xff", "\xff\xff\xff\xff\xff\xff\xff\xff"} {
		home := newHome(t)
		db := create(t, home)
		for i := range 5 {
			if _, err := db.AddSchedule("x", "default", addition(fmt.Sprint("s", i))); err != nil {
				t.Fatal(err)
			}
		}
		size := db.Size()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		edit(t, home, func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte("entries"))
			k, v := b.Cursor().Last()
			k, v = bytes.Clone(k), bytes.Clone(v)
			return errors.Join(b.Delete(k), b.Put([]byte(key), v))
		})
		r, err := recovered(home, true)
		if err != nil || r.Size != size-1 || r.Head.Size != size-1 {
			t.Errorf("%x: %+v, %v", key, r, err)
		}
		if _, err := recovered(home, false); err != nil {
			t.Errorf("%x: %v", key, err)
		}
		verifies(t, home)
	}
}

// Pages that lead in a circle end a program that follows them, and nothing can catch that.
func TestPagesInACircleAreNotFollowed(t *testing.T) {
	site := newHome(t)
	db := create(t, site)
	for i := range 300 {
		if _, err := db.AddSchedule("x", "default", addition(fmt.Sprint("s", i))); err != nil {
			t.Fatal(err)
		}
	}
	entries := int(db.Size())
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	roots := map[string]int64{}
	edit(t, site, func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			roots[string(name)] = int64(b.Root())
			return nil
		})
	})
	good := read(t, site, "ledger.db")
	size := int64(os.Getpagesize())
	for bucket, hopeless := range map[string]bool{"entries": true, "schedules": false} {
		t.Run(bucket, func(t *testing.T) {
			root, home, raw := roots[bucket], newHome(t), bytes.Clone(good)
			if kind := binary.NativeEndian.Uint16(raw[root*size+8:]); kind != 1 {
				t.Fatalf("the root of %s is no branch: %d", bucket, kind)
			}
			binary.NativeEndian.PutUint64(raw[root*size+16+8:], uint64(root)) // its first child is itself
			if err := os.WriteFile(filepath.Join(home, "ledger.db"), raw, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := recovered(home, false)
			if hopeless {
				if !errors.Is(err, store.ErrHopeless) || !strings.Contains(fmt.Sprint(err), "reached twice") {
					t.Errorf("recovered with %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := len(linesOf(t, home)); n != entries+1 {
				t.Errorf("%d entries", n)
			}
			verifies(t, home)
		})
	}
}

// flipped is v with another letter at i.
func flipped(v []byte, i int) []byte {
	v = bytes.Clone(v)
	v[i] ^= 1
	return v
}

// One who holds the site is left alone.
func TestASiteThatIsHeldIsNotRecovered(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	defer db.Close()
	if _, err := recovered(home, false); !errors.Is(err, store.ErrLocked) {
		t.Errorf("recovered a site that is held: %v", err)
	}
}
