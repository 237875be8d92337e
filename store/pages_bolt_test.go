package store_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/store"
)

// Nothing that bbolt writes itself is damage, whatever size its pages and what lies in them
// have, with a list of free pages and without.
func TestWhatBboltWritesIsNoDamage(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, unit := range []int{1 << 10, 4 << 10, 16 << 10, 64 << 10} {
		for _, lists := range []bool{true, false} {
			path := filepath.Join(t.TempDir(), "x.db")
			db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: unit, NoFreelistSync: !lists, NoSync: true, FreelistType: bolt.FreelistMapType})
			if err != nil {
				t.Fatal(err)
			}
			for round := range 60 {
				if err := db.Update(func(tx *bolt.Tx) error { return scribble(tx, r) }); err != nil {
					t.Fatal(err)
				}
				for _, leaves := range []bool{true, false} {
					if err := store.CheckFile(path, leaves); err != nil {
						t.Fatalf("pages of %d bytes, lists %t, round %d: %v", unit, lists, round, err)
					}
				}
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// scribble puts and deletes, at times a whole bucket.
func scribble(tx *bolt.Tx, r *rand.Rand) error {
	name := fmt.Appendf(nil, "bucket%d", r.IntN(4))
	if r.IntN(8) == 0 && tx.Bucket(name) != nil {
		return tx.DeleteBucket(name)
	}
	b, err := tx.CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	b.FillPercent = 0.3 + 0.7*r.Float64()
	for range r.IntN(300) {
		key := fmt.Appendf(nil, "%0*d", 1+r.IntN(40), r.IntN(400))
		switch {
		case r.IntN(3) == 0:
			err = b.Delete(key)
		default:
			err = b.Put(key, make([]byte, r.IntN(1<<r.IntN(16))))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A list of more free pages than its header can count is read.
func TestALongListOfFreePagesIsNoDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: 1 << 10, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	name := []byte("big")
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket(name)
		for i := range 40 {
			if err == nil {
				err = b.Put(fmt.Appendf(nil, "%03d", i), make([]byte, 2<<20))
			}
		}
		return err
	})
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket(name) })
	}
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket(name); return err }) // now they are free, and listed
	}
	if err != nil {
		t.Fatal(err)
	}
	if free := db.Stats().FreePageN; free < 70_000 {
		t.Fatalf("%d free pages", free)
	}
	for _, leaves := range []bool{true, false} {
		if err := store.CheckFile(path, leaves); err != nil {
			t.Error(err)
		}
	}
}
