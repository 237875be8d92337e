package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/store"
)

// Nothing that bbolt writes itself is damage, whatever size its pages and what lies in them
// have, with a list of free pages and without.
func TestWhatBboltWritesIsNoDamage(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED with -short: it takes long, in one goroutine")
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for i, unit := range []int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 10} {
		for _, lists := range []bool{true, false} {
			path := filepath.Join(t.TempDir(), "x.db")
			db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: unit, NoFreelistSync: !lists, NoSync: true, FreelistType: bolt.FreelistMapType})
			if err != nil {
				t.Fatal(err)
			}
			for round := range 60 {
				if err := db.Update(func(tx *bolt.Tx) error { return scribble(tx, r, i == 4) }); err != nil {
					t.Fatal(err)
				}
				for _, leaves := range []bool{true, false} {
					if err := store.CheckFile(path, leaves); err != nil {
						t.Fatalf("pages of %d bytes, lists %t, round %d: %v", unit, lists, round, err)
					}
				}
				if err := sameAhead(db, r); err != nil {
					t.Fatalf("pages of %d bytes, lists %t, round %d: %v", unit, lists, round, err)
				}
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// sameAhead says whether reading ahead finds what a cursor does, from some key on.
func sameAhead(db *bolt.DB, r *rand.Rand) error {
	from := fmt.Appendf(nil, "%0*d", 1+r.IntN(40), r.IntN(400))
	want := map[string][]string{}
	f, err := os.Open(db.Path())
	if err != nil {
		return err
	}
	defer f.Close()
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			c := b.Cursor()
			for k, v := c.Seek(from); k != nil; k, v = c.Next() {
				want[string(name)] = append(want[string(name)], string(k), string(v))
			}
			want[string(name)] = append(want[string(name)], "end")
			return nil
		})
	})
	for name, want := range want {
		var got []string
		if err := store.EachAhead(db, f, []byte(name), from, func(k, v []byte) { got = append(got, string(k), string(v)) }); err != nil {
			return err
		}
		if !slices.Equal(append(got, "end"), want) {
			return fmt.Errorf("%s from %s: %d strings, not %d, or others", name, from, len(got), len(want)-1)
		}
	}
	return err
}

// An unread is a file of which some bytes cannot be read.
type unread struct {
	io.ReaderAt
	from, to int64
}

func (u unread) ReadAt(b []byte, at int64) (int, error) {
	if at < u.to && at+int64(len(b)) > u.from {
		return 0, syscall.EIO
	}
	return u.ReaderAt.ReadAt(b, at)
}

// A page that the disk cannot read is told as that, and none where nothing is needed of it.
func TestAPageThatCannotBeReadIsNoDamage(t *testing.T) {
	sweep(t)
	db, err := bolt.Open(filepath.Join(t.TempDir(), "x.db"), 0o600, &bolt.Options{PageSize: 1 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		if err := db.Update(func(tx *bolt.Tx) error { return scribble(tx, r, true) }); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(db.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	whole, failed := 0, 0
	for at := int64(0); at < fi.Size(); at += 1 << 10 {
		n := 0
		err := store.EachAhead(db, unread{f, at, at + 1<<10}, []byte("bucket1"), nil, func(_, _ []byte) { n++ })
		switch {
		case err == nil:
			whole = max(whole, n)
			if n < whole {
				t.Errorf("page %d: %d records of %d", at>>10, n, whole)
			}
		case !errors.Is(err, syscall.EIO) || errors.As(err, new(*store.Damage)):
			t.Errorf("page %d: %v", at>>10, err)
		default:
			failed++
		}
	}
	if whole == 0 || failed < 100 || failed > int(fi.Size()>>11) {
		t.Errorf("%d records, %d pages of %d are needed", whole, failed, fi.Size()>>10)
	}
}

// A tree whose leaves do not all lie equally deep is damage, whoever looks: bbolt writes none, and
// what is read ahead of leaves must not be what a branch is read from. Nor is a file opened that
// leads from its last leaf to others: in a circle, bbolt would turn there for ever.
func TestAnUnevenTreeIsDamage(t *testing.T) {
	const unit = 1 << 10
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: unit})
	if err != nil {
		t.Fatal(err)
	}
	var root uint64
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("b"))
		for i := 0; err == nil && i < 3000; i++ {
			err = b.Put(fmt.Appendf(nil, "%08d", i), make([]byte, 100))
		}
		return err
	})
	if err == nil {
		err = db.View(func(tx *bolt.Tx) error { root = uint64(tx.Bucket([]byte("b")).Root()); return nil })
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	child := func(raw []byte, page uint64, i int) []byte { // of the last one before the first
		if i < 0 {
			i += int(binary.NativeEndian.Uint16(raw[page*unit+10:]))
		}
		return raw[page*unit+16+uint64(i)*16+8:][:8]
	}
	first, last := binary.NativeEndian.Uint64(child(raw, root, 0)), binary.NativeEndian.Uint64(child(raw, root, -1))
	become := func(flags uint16, more uint32) func(raw []byte) { // the last leaf
		return func(raw []byte) {
			head := raw[binary.NativeEndian.Uint64(child(raw, last, -1))*unit:]
			binary.NativeEndian.PutUint16(head[8:], flags)
			binary.NativeEndian.PutUint32(head[12:], more)
		}
	}
	shorten := func(n uint16) func(raw []byte) { // the last leaf, by that many elements; 0: all
		return func(raw []byte) {
			count := raw[binary.NativeEndian.Uint64(child(raw, last, -1))*unit+10:]
			binary.NativeEndian.PutUint16(count, (binary.NativeEndian.Uint16(count)-n)*min(n, 1))
		}
	}
	for name, change := range map[string]struct {
		edit   func(raw []byte)
		opened bool
	}{
		"a leaf beside branches":                 {func(raw []byte) { copy(child(raw, root, 0), child(raw, first, 0)) }, true},
		"branches beside leaves":                 {func(raw []byte) { copy(child(raw, first, 1), child(raw, root, 1)) }, true},
		"a branch in the place of the last leaf": {become(1, 0), false},
		"a branch longer than the file there":    {become(1, 1<<31-1), false},
		"a meta page there":                      {become(4, 0), false},
		"a list of free pages there":             {become(16, 0), false},
		"an empty leaf there":                    {shorten(0), false},
		"one that lacks its last element":        {shorten(1), false},
		"the first leaf in its place": {func(raw []byte) {
			page := raw[binary.NativeEndian.Uint64(child(raw, last, -1))*unit:][:unit]
			id := bytes.Clone(page[:8])
			copy(page, raw[binary.NativeEndian.Uint64(child(raw, first, 0))*unit:][:unit])
			copy(page, id)
		}, false},
		"one whose last element is a bucket": {func(raw []byte) {
			head := raw[binary.NativeEndian.Uint64(child(raw, last, -1))*unit:]
			head[16+16*(int(binary.NativeEndian.Uint16(head[10:]))-1)] = 1
		}, false},
	} {
		changed := bytes.Clone(raw)
		change.edit(changed)
		if err := store.CheckPages(changed, true); !errors.As(err, new(*store.Damage)) {
			t.Errorf("%s: all pages: %v", name, err)
		}
		if !change.opened {
			if err := store.CheckPages(changed, false); !errors.As(err, new(*store.Damage)) {
				t.Errorf("%s: all but the leaves: %v", name, err)
			}
			continue
		}
		db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
		if err == nil {
			err = store.EachAhead(db, bytes.NewReader(changed), []byte("b"), nil, func(_, _ []byte) {})
			db.Close()
		}
		if !errors.As(err, new(*store.Damage)) {
			t.Errorf("%s: read ahead: %v", name, err)
		}
	}
}

// scribble puts and deletes, at times a whole bucket: long values or many short ones.
func scribble(tx *bolt.Tx, r *rand.Rand, short bool) error {
	puts, keys, bits := 300, 400, 16
	if short {
		puts, keys, bits = 2000, 100_000, 8
	}
	name := fmt.Appendf(nil, "bucket%d", r.IntN(4))
	if r.IntN(8) == 0 && tx.Bucket(name) != nil {
		return tx.DeleteBucket(name)
	}
	b, err := tx.CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	b.FillPercent = 0.3 + 0.7*r.Float64()
	for range r.IntN(puts) {
		key := fmt.Appendf(nil, "%0*d", 1+r.IntN(40), r.IntN(keys))
		switch {
		case r.IntN(3) == 0:
			err = b.Delete(key)
		default:
			err = b.Put(key, bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(1<<r.IntN(bits))))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A list of more free pages than its header can count is read.
func TestALongListOfFreePagesIsNoDamage(t *testing.T) {
	sweep(t)
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
