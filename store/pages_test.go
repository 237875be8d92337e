package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

// image is a file of bbolt and where its pages are.
type image struct {
	raw   []byte
	unit  int
	pages []pageAt
	roots map[string]int
}

type pageAt struct {
	id, count int
	kind      string // as bbolt names it
}

// imageOf is the file of a home that nobody holds, without what it has grown ahead.
func imageOf(t *testing.T, home string) (x image) {
	t.Helper()
	x.raw, x.roots = read(t, home, "ledger.db"), map[string]int{}
	b, err := bolt.Open(filepath.Join(home, "ledger.db"), 0o600, &bolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	err = b.View(func(tx *bolt.Tx) error {
		x.unit, x.raw = b.Info().PageSize, x.raw[:tx.Size()]
		for id := 0; ; {
			p, err := tx.Page(id)
			if err != nil || p == nil {
				return errors.Join(err, tx.ForEach(func(name []byte, b *bolt.Bucket) error {
					x.roots[string(name)] = int(b.Root())
					return nil
				}))
			}
			x.pages = append(x.pages, pageAt{id, p.Count, p.Type})
			id += p.OverflowCount + 1
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// root is the page of the newest list of buckets.
func (x image) root() int {
	at := func(i int) int { return int(binary.NativeEndian.Uint64(x.raw[i:])) }
	if at(64) > at(x.unit+64) { // their transactions
		return at(32)
	}
	return at(x.unit + 32)
}

// child is the id in an element of a branch.
func (x image) child(id, i int) int {
	return int(binary.NativeEndian.Uint64(x.raw[x.element(id, i)+8:]))
}

func (x image) element(id, i int) int { return id*x.unit + 16 + 16*i }

func (x image) kind(id int) int { return int(binary.NativeEndian.Uint16(x.raw[id*x.unit+8:])) }

func (x image) count(id int) int { return int(binary.NativeEndian.Uint16(x.raw[id*x.unit+10:])) }

// with is the file where a child of a branch is another page.
func (x image) with(id, i, child int) []byte {
	raw := bytes.Clone(x.raw)
	binary.NativeEndian.PutUint64(raw[x.element(id, i)+8:], uint64(child))
	return raw
}

// ruin writes a file into a home of its own.
func ruin(t *testing.T, raw []byte) (home string) {
	t.Helper()
	home = newHome(t)
	if err := os.WriteFile(filepath.Join(home, "ledger.db"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return home
}

// deepSite is a ledger whose entries lie three pages deep.
func deepSite(t *testing.T) (home string, x image, size int64) {
	t.Helper()
	home = newHome(t)
	db := create(t, home)
	for i := range 400 {
		if _, err := db.Append(ledger.SiteStopped, "x", &ledger.SiteStop{Reason: fmt.Sprint(strings.Repeat("x", 2500), i)}); err != nil {
			t.Fatal(err)
		}
	}
	size = db.Size()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	x = imageOf(t, home)
	if root := x.roots["entries"]; x.kind(root) != 1 || x.kind(x.child(root, 0)) != 1 || x.kind(x.child(x.child(root, 0), 0)) != 2 {
		t.Fatal("the entries do not lie three pages deep")
	}
	return home, x, size
}

// A file whose pages lead in a circle is not opened: bbolt would follow them until the stack
// ends. Nor is one of whose pages one is reached twice, or is free.
func TestACircleOfPagesIsNotOpened(t *testing.T) {
	if apart(t) {
		return
	}
	_, x, size := deepSite(t)
	root := x.roots["entries"]
	branch, last := x.child(root, 0), x.child(root, x.count(root)-1)
	free := 0
	for _, p := range x.pages {
		if p.kind == "free" {
			free = p.id
		}
	}
	for what, raw := range map[string][]byte{
		"the root is its own child":            x.with(root, 0, root),
		"a branch is its own first":            x.with(branch, 0, branch),
		"a branch is its own child":            x.with(branch, 3, branch),
		"back to the root":                     x.with(branch, 0, root),
		"the root in the place of a leaf":      x.with(branch, 5, root),
		"a later branch in that of a leaf":     x.with(branch, 5, last),
		"an earlier branch in that of a leaf":  x.with(last, x.count(last)-1, branch),
		"a branch twice":                       x.with(root, 1, branch),
		"a leaf twice":                         x.with(branch, 5, x.child(branch, 6)),
		"the root of another bucket":           x.with(branch, 5, x.roots["records"]),
		"a free page":                          x.with(branch, 5, free),
		"a page that is none":                  x.with(branch, 5, 1<<40),
		"the list of free pages":               x.with(branch, 5, x.freelist()),
		"a meta page in the place of a branch": x.with(root, 0, 1),
	} {
		fmt.Fprintln(os.Stderr, what)
		home := ruin(t, raw)
		db, err := store.Open(home, store.Options{})
		if d := (*store.Damage)(nil); !errors.As(err, &d) || !strings.Contains(err.Error(), "entries") || !strings.Contains(err.Error(), "page ") {
			t.Errorf("%s: opened with %v", what, err)
		}
		if err == nil {
			db.Close()
		}
		r, err := recovered(home, true)
		if err != nil && !errors.Is(err, store.ErrHopeless) || err == nil && (r.Damage == "" || r.Size == size) {
			t.Errorf("%s: recovered %+v, %v", what, r, err)
		}
	}
}

// freelist is the page that lists the free ones.
func (x image) freelist() int {
	for _, p := range x.pages {
		if p.kind == "freelist" {
			return p.id
		}
	}
	return 0
}

// One bad page of a bucket takes nothing else of it, whether it is a leaf, or the keys of the
// branch that leads to all of them.
func TestABadPageTakesNothingElse(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	for i := range 400 {
		put(t, db, fmt.Sprint("blob ", i, strings.Repeat("x", 300)))
	}
	if _, err := db.Append(ledger.SiteStopped, "x", &ledger.SiteStop{Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	whole, unread, err := store.ReadWreck(home, "small")
	if err != nil || unread != 0 || len(whole) != 400 {
		t.Fatalf("%d, %d unread, %v", len(whole), unread, err)
	}
	x := imageOf(t, home)
	root := x.roots["small"]
	for x.kind(x.child(root, 0)) == 1 {
		root = x.child(root, 0)
	}
	for i := range x.count(root) {
		leaf, raw := x.child(root, i), bytes.Clone(x.raw)
		raw[leaf*x.unit]++ // its id
		got, unread, err := store.ReadWreck(ruin(t, raw), "small")
		if err != nil || unread != 1 || len(got) != len(whole)-x.count(leaf) {
			t.Errorf("without leaf %d: %d of %d, %d unread, %v", i, len(got), len(whole), unread, err)
		}
		for k, v := range got {
			if v != whole[k] {
				t.Errorf("without leaf %d: %s is another", i, k)
			}
		}
		raw = bytes.Clone(x.raw)
		raw[x.element(root, i)+6]++ // the size of a key
		got, unread, err = store.ReadWreck(ruin(t, raw), "small")
		if err != nil || unread != 0 || len(got) != len(whole) {
			t.Errorf("with key %d of the branch damaged: %d of %d, %d unread, %v", i, len(got), len(whole), unread, err)
		}
	}
}

// The newest entries are lost with their page, and that is said.
func TestTheNewestEntriesAreOnADamagedPage(t *testing.T) {
	if apart(t) {
		return
	}
	_, x, size := deepSite(t)
	last := x.roots["entries"]
	for x.kind(last) == 1 {
		last = x.child(last, x.count(last)-1)
	}
	raw := bytes.Clone(x.raw)
	raw[last*x.unit+8] = 0 // it is no leaf any more
	home := ruin(t, raw)
	r, err := recovered(home, true)
	if err != nil || r.Size != size-1 || r.Unread == 0 || !strings.Contains(r.Damage, fmt.Sprintf("page %d", last)) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := store.Open(home, store.Options{}); !isDamage(err) {
		t.Errorf("opened with %v", err)
	}
}

func isDamage(err error) bool {
	d := (*store.Damage)(nil)
	return errors.As(err, &d)
}

// FuzzPages reads pages of any bytes: it ends, each part is read once, and all that it shows
// lies in the file.
func FuzzPages(f *testing.F) {
	f.Add(tinyPages(f), uint16(4096*3), uint64(3))
	f.Fuzz(func(t *testing.T, raw []byte, at uint16, change uint64) {
		if len(raw) > 1<<17 {
			return
		}
		raw = bytes.Clone(raw)
		if int(at)+8 <= len(raw) { // so that a change is of one part
			binary.NativeEndian.PutUint64(raw[at:], binary.NativeEndian.Uint64(raw[at:])^change)
		}
		n := 0
		_, err := store.WalkPages(raw, func(_, k, v []byte) {
			if len(k) == 0 {
				t.Fatal("a key of nothing")
			}
			n += len(k) + len(v)
		})
		if err == nil && n > 2*len(raw) { // what lies in the root tree is read of that
			t.Fatalf("%d bytes of %d", n, len(raw))
		}
		whole := store.CheckPages(raw, true)
		if coarse := store.CheckPages(raw, false); whole == nil && coarse != nil {
			t.Fatalf("only the shorter look finds %v", coarse)
		}
		for _, err := range []error{err, whole} {
			if err != nil && err.Error() == "" {
				t.Fatal("it does not say what is wrong")
			}
		}
	})
}

// tinyPages is a file with a branch, leaves, a page with others behind it and free pages.
func tinyPages(t testing.TB) []byte {
	path := filepath.Join(t.TempDir(), "x.db")
	b, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: 1024})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var size int64
	for i := range 4 {
		err = errors.Join(err, b.Update(func(tx *bolt.Tx) error {
			big, err := tx.CreateBucketIfNotExists([]byte("entries"))
			small, err2 := tx.CreateBucketIfNotExists([]byte("meta"))
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			for j := range 8 {
				k := binary.BigEndian.AppendUint64(nil, uint64(8*i+j))
				err = errors.Join(err, big.Put(k, bytes.Repeat(k, 20)))
			}
			return errors.Join(err, big.Put([]byte("long"), make([]byte, 3000)), small.Put([]byte{byte(i)}, []byte("x")))
		}))
	}
	err = errors.Join(err, b.View(func(tx *bolt.Tx) error { size = tx.Size(); return nil }))
	raw, err2 := os.ReadFile(path)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return raw[:size]
}

// A leaf with one key that is damaged gives up that entry, and none of the others.
func TestADamagedKeyTakesNothingElse(t *testing.T) {
	_, x, size := deepSite(t)
	leaf := x.roots["entries"]
	for x.kind(leaf) == 1 {
		leaf = x.child(leaf, x.count(leaf)/2)
	}
	const lost = 0 // of the elements of that leaf
	if x.count(leaf) < 2 {
		t.Fatalf("%d entries on page %d", x.count(leaf), leaf)
	}
	raw := bytes.Clone(x.raw)
	e := x.element(leaf, lost)
	key := raw[e+int(binary.NativeEndian.Uint32(raw[e+4:])):][:8]
	seq := int64(binary.BigEndian.Uint64(key))
	key[6] ^= 0x40 // an entry far ahead
	home := ruin(t, raw)
	if err := store.CheckPages(raw, true); !isDamage(err) {
		t.Errorf("checked with %v", err)
	}
	r, err := recovered(home, false)
	if err != nil || r.Size != seq || r.Survived < size-seq-1 || r.Unread == 0 {
		t.Errorf("entry %d of %d: %+v, %v", seq, size, r, err)
	}
	verifies(t, home)
}
