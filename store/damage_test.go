package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

// apart runs a test in a process of its own, which what it looks for would end: it says
// whether this is the other one, where there is nothing to do but to look at what became of it.
func apart(t *testing.T) bool {
	t.Helper()
	const key = "STELLA_TEST_APART"
	if os.Getenv(key) == t.Name() {
		return false
	}
	c := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.timeout", "4m", "-test.v")
	c.Env = append(os.Environ(), key+"="+t.Name())
	out, err := c.CombinedOutput()
	if err != nil {
		if ends := bytes.Index(out, []byte("\ngoroutine ")); ends >= 0 {
			out = out[:min(len(out), ends+4000)]
		}
		t.Errorf("%v:\n%s", err, out[max(0, len(out)-6000):])
	}
	return true
}

// sweep skips a test of many cases in one goroutine, of which the race detector sees nothing.
func sweep(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED with -short: many cases in one goroutine")
	}
}

// seeded is a random source whose seed is told before anything can end the process.
func seeded() *rand.Rand {
	seed := rand.Uint64()
	fmt.Fprintln(os.Stderr, "seed", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// parts are where the headers of the pages in use and of their elements are, in bytes, the
// elements of a list of free pages and the meta pages.
func (x image) parts() (at []int) {
	for _, p := range x.pages {
		size := 16
		switch p.kind {
		case "free":
			continue
		case "meta":
			size += 64
		case "freelist":
			size += 8 * p.count
		default:
			size += 16 * p.count
		}
		for i := range size {
			at = append(at, p.id*x.unit+i)
		}
	}
	return at
}

// inMeta says whether a byte lies in a meta page. Without the newest the one before counts.
func (x image) inMeta(at int) bool { return at < 2*x.unit }

// survives opens and checks a damaged site. Either says what is damaged, or the entries are
// those that were written, or those before the last transaction where a meta page is damaged.
func survives(t *testing.T, home string, want []store.Lines, meta bool) (err error) {
	t.Helper()
	db, err := store.Open(home, store.Options{})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := db.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err = db.Check(context.Background(), store.CheckOptions{}); err != nil {
		return err
	}
	n := 0
	for l, err := range db.Entries(0, db.Size()) {
		if err != nil {
			return err
		}
		if n >= len(want) || !bytes.Equal(l.Envelope, want[n].Envelope) || !bytes.Equal(l.Data, want[n].Data) {
			t.Errorf("entry %d is another, and nothing says so", n)
			return nil
		}
		n++
	}
	if n != len(want) && !meta {
		t.Errorf("%d of %d entries, and nothing says so", n, len(want))
	}
	return nil
}

// smallSite is one with branches and leaves, a page with others behind it, and free pages.
func smallSite(t *testing.T) (home string) {
	t.Helper()
	home = newHome(t)
	db := create(t, home)
	for i := range 12 {
		if _, err := db.AddSchedule("x", "default", addition(fmt.Sprint("s", i))); err != nil {
			t.Fatal(err)
		}
		put(t, db, fmt.Sprint("blob ", i, strings.Repeat("x", 300)))
	}
	if _, err := db.Append(ledger.SiteStopped, "x", &ledger.SiteStop{Reason: strings.Repeat("x", 9000)}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Append(ledger.SiteStopped, "x", &ledger.SiteStop{Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return home
}

// Each bit of the headers of pages and elements is flipped: nothing ends the process, and what
// no look at the pages finds, a check finds, or it changes nothing.
func TestEachBitOfAPageHeader(t *testing.T) {
	sweep(t)
	if apart(t) {
		return
	}
	r := seeded()
	site := smallSite(t)
	want, x := linesOf(t, site), imageOf(t, site)
	home := ruin(t, x.raw)
	flips, opened, silent := 0, 0, 0
	for _, at := range x.parts() {
		for bit := range 8 {
			raw := bytes.Clone(x.raw)
			raw[at] ^= 1 << bit
			flips++
			coarse, whole := store.CheckPages(raw, false), store.CheckPages(raw, true)
			if whole == nil && coarse != nil {
				t.Errorf("bit %d of byte %d: only the shorter look finds %v", bit, at, coarse)
			}
			if _, err := store.WalkPages(raw, func(_, _, _ []byte) {}); err != nil {
				t.Errorf("bit %d of byte %d: %v", bit, at, err)
			}
			if odds := 40; whole != nil && r.IntN(odds) != 0 {
				continue
			} else if x.inMeta(at) && r.IntN(odds) != 0 {
				continue
			}
			fmt.Fprintf(os.Stderr, "bit %d of byte %d of page %d\n", bit, at%x.unit, at/x.unit)
			if err := os.WriteFile(filepath.Join(home, "ledger.db"), raw, 0o600); err != nil {
				t.Fatal(err)
			}
			opened++
			switch err := survives(t, home, want, x.inMeta(at)); {
			case err == nil && whole != nil:
				t.Errorf("bit %d of byte %d of page %d: only the look finds %v", bit, at%x.unit, at/x.unit, whole)
			case err == nil:
				silent++
			case !isDamage(err):
				t.Errorf("bit %d of byte %d of page %d: %v", bit, at%x.unit, at/x.unit, err)
			}
		}
	}
	t.Logf("%d flips, %d opened, %d change nothing", flips, opened, silent)
}

// Wherever a file is damaged, a process that opens, checks and recovers it goes on, and
// nothing that was not written is taken for an entry.
func TestDamagedPagesEndNoProcess(t *testing.T) {
	sweep(t)
	if apart(t) {
		return
	}
	r := seeded()
	site := newHome(t)
	randomLedger(t, create(t, site), r)
	want, x := linesOf(t, site), imageOf(t, site)
	parts, found, hopeless := x.parts(), 0, 0
	for i := range 150 {
		raw, what, meta := bytes.Clone(x.raw), "", false
		for range 1 + r.IntN(3) {
			at, n := r.IntN(len(raw)), 1
			switch r.IntN(3) {
			case 0: // some bytes anywhere
				n = 1 << r.IntN(13)
				for j := at; j < min(at+n, len(raw)); j++ {
					raw[j] = byte(r.Uint32())
				}
			case 1: // a bit of a header
				at = parts[r.IntN(len(parts))]
				raw[at] ^= 1 << r.IntN(8)
			case 2: // a page in the place of another
				n = x.unit
				at -= at % x.unit
				copy(raw[at:at+n], x.raw[r.IntN(len(raw)/x.unit)*x.unit:])
			}
			what, meta = fmt.Sprintf("%s %d at %d", what, n, at), meta || x.inMeta(at)
		}
		fmt.Fprintf(os.Stderr, "%d:%s\n", i, what)
		home := ruin(t, raw)
		if err := survives(t, home, want, meta); isDamage(err) {
			found++
		} else if err != nil && !strings.HasPrefix(err.Error(), "store: ") {
			t.Errorf("%d:%s: %v", i, what, err)
		}
		if _, err := recovered(home, true); errors.Is(err, store.ErrHopeless) {
			hopeless++
		} else if err != nil {
			t.Errorf("%d:%s: recovered with %v", i, what, err)
		}
	}
	t.Logf("%d found, %d hopeless", found, hopeless)
	if found < 50 {
		t.Error("hardly any damage is found")
	}
}

// A leaf that was damaged is met when it is read: that is said as damage, and one who meets
// it while he writes lets nothing be written any more. Closing does not wait for what it
// has cut off.
func TestADamagedLeafIsMetLater(t *testing.T) {
	if apart(t) {
		return
	}
	_, x, size := deepSite(t)
	leaf := x.roots["entries"]
	for x.kind(leaf) == 1 {
		leaf = x.child(leaf, x.count(leaf)/2)
	}
	raw := bytes.Clone(x.raw)
	raw[leaf*x.unit+8] = 7 // it is of no kind
	home := ruin(t, raw)
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := readAll(db, size); !isDamage(err) {
		t.Errorf("read with %v", err)
	}
	if _, err := db.Check(context.Background(), store.CheckOptions{}); !isDamage(err) || !strings.Contains(err.Error(), fmt.Sprintf("entries of ledger.db: page %d", leaf)) {
		t.Errorf("checked with %v", err)
	}
	if _, err := db.Append(ledger.SiteStopped, "x", &ledger.SiteStop{Reason: "x"}); err != nil {
		t.Errorf("one who does not meet it cannot write: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func readAll(db *store.DB, size int64) error {
	for _, err := range db.Entries(0, size) {
		if err != nil {
			return err
		}
	}
	return nil
}

// The one who writes meets a damaged page: what he was to write is refused, all that follows
// too, and the file can be closed and opened again.
func TestTheWriterMeetsADamagedPage(t *testing.T) {
	if apart(t) {
		return
	}
	home := newHome(t)
	db := create(t, home)
	for i := range 100 {
		if _, err := db.AddSchedule("x", "default", addition(fmt.Sprintf("s%03d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	x := imageOf(t, home)
	leaf := x.child(x.roots["schedules"], 0)
	raw := bytes.Clone(x.raw)
	raw[leaf*x.unit+16+8] = 0 // its first key is none
	raw[leaf*x.unit+16+11] = 0x70
	home = ruin(t, raw)
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.AddSchedule("x", "default", addition("s0005"))
	if !isDamage(err) || !errors.Is(err, store.ErrFailed) || !isDamage(db.Failure()) {
		t.Errorf("written with %v", err)
	}
	if _, err := db.Check(context.Background(), store.CheckOptions{}); !isDamage(err) {
		t.Errorf("checked with %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if db, err = store.Open(home, store.Options{}); err != nil {
		t.Fatal(err)
	}
	db.Close()
}

// A file that loses its end while it is open is memory that is not there.
func TestAFileIsCutOffWhileItIsOpen(t *testing.T) {
	if apart(t) {
		return
	}
	site, _, size := deepSite(t)
	for _, left := range []int64{1 << 16, 0} { // without the meta pages bbolt cannot even begin, and keeps its locks
		home := ruin(t, read(t, site, "ledger.db"))
		db, err := store.Open(home, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(home, "ledger.db"), left); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := readAll(db, size); !isDamage(err) {
				t.Errorf("read with %v", err)
			}
		}
		for range 2 {
			if _, err := db.Append(ledger.SiteStopped, "x", &ledger.SiteStop{Reason: "x"}); !isDamage(err) {
				t.Errorf("written with %v", err)
			}
		}
		if _, err := db.Check(context.Background(), store.CheckOptions{}); !isDamage(err) {
			t.Errorf("checked with %v", err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Only what a damaged page does is caught: a mistake of ours ends the process as ever.
func TestTheGuardCatchesNothingElse(t *testing.T) {
	caught := func(fn func() error) (err error, p any) {
		defer func() { p = recover() }()
		return store.Guard(fn), nil
	}
	b, err := bolt.Open(filepath.Join(t.TempDir(), "x.db"), 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var none *store.Damage
	for what, fn := range map[string]func() error{
		"ours":          func() error { panic("ours") },
		"nil":           func() error { return errors.New(none.What) },
		"ours in bbolt": func() error { return b.View(func(*bolt.Tx) error { panic("ours") }) },
	} {
		if err, p := caught(fn); p == nil {
			t.Errorf("%s: caught as %v", what, err)
		}
	}
	err, p := caught(func() error { return b.View(func(tx *bolt.Tx) error { return tx.Rollback() }) }) // bbolt panics
	if p != nil || !isDamage(err) {
		t.Errorf("%v, %v", err, p)
	}
}

// A record that is no JSON, and one that an index leads to and that is not there, are damage to
// everybody who reads them.
func TestARecordThatIsNoneIsDamage(t *testing.T) {
	for name, x := range map[string]struct {
		edit func(*bolt.Tx) error
		read func(*store.DB) error
	}{
		"no JSON": {
			func(tx *bolt.Tx) error {
				k, v := tx.Bucket([]byte("schedules")).Cursor().First()
				return tx.Bucket([]byte("schedules")).Put(k, append([]byte{'y'}, v[1:]...))
			},
			func(db *store.DB) error { _, err := db.Schedules("default"); return err },
		},
		"refusals of a minute that are no JSON": {
			func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("rejections"), []byte("x")) },
			func(db *store.DB) error { return db.FlushRejections("x") },
		},
		"an open run without its record": {
			func(tx *bolt.Tx) error { return tx.Bucket([]byte("active")).Put([]byte("r"), []byte{}) },
			func(db *store.DB) error { _, err := db.ActiveRuns(); return err },
		},
		"a listed run without its record": {
			func(tx *bolt.Tx) error { return tx.Bucket([]byte("tenantruns")).Put([]byte("default\x00r"), []byte{}) },
			func(db *store.DB) error {
				_, _, err := db.RunPage(t.Context(), store.RunFilter{Tenant: "default"}, "", 10)
				return err
			},
		},
		"a run token without its run": {
			func(tx *bolt.Tx) error { return tx.Bucket([]byte("tokens")).Put([]byte("default\x00x"), []byte("r")) },
			func(db *store.DB) error { _, err := db.RunByToken("default", "x"); return err },
		},
		"an ended run without its record": {
			func(tx *bolt.Tx) error { return tx.Bucket([]byte("tenantruns")).Put([]byte("default\x00r"), []byte{}) },
			func(db *store.DB) error { _, err := db.EndedBefore(t.Context(), "2026", "2026"); return err },
		},
		"an open approval without its record": {
			func(tx *bolt.Tx) error {
				return tx.Bucket([]byte("asked")).Put([]byte("r/s/\x00\x00\x00\x01"), []byte{})
			},
			func(db *store.DB) error { _, _, err := db.Approvals("default", true, "", 10, nil); return err },
		},
		"an approval without its run": {
			func(tx *bolt.Tx) error {
				return tx.Bucket([]byte("approvals")).Put([]byte("r/s/\x00\x00\x00\x01"), []byte("{}"))
			},
			func(db *store.DB) error { _, err := db.Approval("r", "s", 1); return err },
		},
		"a dead step without its record": {
			func(tx *bolt.Tx) error {
				return errors.Join(tx.Bucket([]byte("records")).Put([]byte("r"), []byte(`{"runId":"r"}`)),
					tx.Bucket([]byte("dead")).Put([]byte("r/s"), []byte{}))
			},
			func(db *store.DB) error { _, err := db.DeadSteps("default", 10); return err },
		},
	} {
		home := smallSite(t)
		edit(t, home, x.edit)
		db, err := store.Open(home, store.Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := x.read(db); !isDamage(err) || errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: read: %v", name, err)
		}
		if _, err := db.Check(t.Context(), store.CheckOptions{}); !isDamage(err) {
			t.Errorf("%s: check: %v", name, err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}
