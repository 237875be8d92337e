package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// says starts a run for somebody, and returns the seq of the entry that names him.
func says(t *testing.T, db *store.DB, i int, name string) int64 {
	t.Helper()
	run, first := newRun(i, fmt.Sprint("t", i))
	first.Metadata = map[string]string{"for": name}
	got, err := db.StartRun(run, first, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}})
	if err != nil {
		t.Fatal(err)
	}
	return got.FirstSeq
}

// agreed lets two people agree to an erasure.
func agreed(t *testing.T, db *store.DB, seqs ...int64) {
	t.Helper()
	request, err := db.RequestErasure("x", ledger.ErasureRequest{Entries: seqs, Reason: "law"})
	if err == nil {
		_, _, err = db.AgreeToErasure("y", request, func(a, b string) bool { return a == b })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// block lets no database be made beside the one in a folder, until it is called again.
func block(t *testing.T, dir string) (clear func()) {
	t.Helper()
	inTheWay := filepath.Join(dir, "ledger.db.new")
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil { // a folder with something in it is not removed
		t.Fatal(err)
	}
	return func() {
		if err := os.RemoveAll(inTheWay); err != nil {
			t.Fatal(err)
		}
	}
}

// sayErased puts what it likes into meta/erased.
func sayErased(t *testing.T, home, text string) {
	t.Helper()
	edit(t, home, func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("erased"), []byte(text)) })
}

func reopened(t *testing.T, db *store.DB, home string) *store.DB {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkOnClose(t, again)
	return again
}

// on says whether ledger.db of a folder has a text.
func on(t *testing.T, home, text string) bool {
	t.Helper()
	return bytes.Contains(read(t, home, "ledger.db"), []byte(text))
}

// What is agreed and cannot be erased at once is shown to nobody, keeps nobody from writing
// and from opening the site, and goes when somebody tries again.
func TestWhatCannotBeErasedAtOnceGoesLater(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	seq := says(t, db, 1, "Erika Mustermann")
	agreed(t, db, seq)
	clear := block(t, home)
	hidden := func() {
		t.Helper()
		if err := db.EraseAgreed(); err == nil || db.Waiting() != 1 {
			t.Errorf("it was erased over what is in the way: %v", err)
		}
		if l, err := db.Entry(seq); err != nil || !l.Erased() || !on(t, home, "Mustermann") {
			t.Errorf("it is shown, or gone: %+v, %v", l, err)
		}
	}
	hidden()
	start(t, db, 2, 1)
	if _, err := db.Check(context.Background(), store.CheckOptions{}); err != nil {
		t.Error(err)
	}
	db = reopened(t, db, home)
	hidden()
	start(t, db, 3, 1)
	clear()
	if err := db.EraseAgreed(); err != nil || db.Waiting() != 0 {
		t.Fatal(err)
	}
	db = reopened(t, db, home)
	if on(t, home, "Mustermann") {
		t.Error("it is still there")
	}
	if now, err := db.Run("0190b8f2-0000-7000-8000-000000000001"); err != nil || len(now.Metadata) > 0 {
		t.Errorf("%+v, %v", now, err)
	}
	checked(t, db)
}

// What meta says of erasures is merely bytes: it erases nothing and hides nothing, and keeps
// nothing from being erased that entries say is.
func TestOnlyEntriesSayWhatIsErased(t *testing.T) {
	for name, tc := range map[string]struct {
		agreed bool // one of the two
		meta   string
	}{
		"another entry":          {true, "[%[2]d]"},
		"another entry as well":  {true, "[%[1]d,%[2]d]"},
		"an entry, out of blue":  {false, "[%[2]d]"},
		"an entry that is none":  {true, "[%[1]d,4711]"},
		"what nobody could say":  {true, "[0,%[1]d]"},
		"one before the first":   {true, "[-1,%[1]d]"},
		"an entry about nothing": {false, "[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			home := newHome(t)
			db := create(t, home)
			one, other := says(t, db, 1, "Erika Mustermann"), says(t, db, 2, "Hans Beispiel")
			if tc.agreed {
				agreed(t, db, one)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			sayErased(t, home, strings.NewReplacer("%[1]d", fmt.Sprint(one), "%[2]d", fmt.Sprint(other)).Replace(tc.meta))
			db, err := store.Open(home, store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			var d *store.Damage
			if _, err := db.Check(context.Background(), store.CheckOptions{}); !errors.As(err, &d) || d.What != "meta erased" {
				t.Errorf("nobody says what is wrong: %v", err)
			}
			for range 2 {
				if l, err := db.Entry(other); err != nil || l.Erased() || !on(t, home, "Beispiel") {
					t.Errorf("what nobody wants erased is hidden, or gone: %v", err)
				}
				if l, err := db.Entry(one); err != nil || l.Erased() != tc.agreed {
					t.Errorf("erased: %v, %v", l.Erased(), err)
				}
				if err := db.EraseAgreed(); err != nil {
					t.Error(err)
				}
			}
			if on(t, home, "Mustermann") == tc.agreed {
				t.Error("it is not erased, or nobody wanted that")
			}
			if _, err := db.Check(context.Background(), store.CheckOptions{}); tc.agreed && err != nil {
				t.Errorf("the replay has not put right what meta says: %v", err)
			}
		})
	}
}

// An entry that is not as it was written erases nothing, and one that says that other remains
// of an entry than does hides it only; a check names the entry.
func TestAnErasureThatIsNotWhatWasAgreedErasesNothing(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	seq, other := says(t, db, 1, "Erika Mustermann"), says(t, db, 2, "Hans Beispiel")
	agreed(t, db, other)
	wrong := ledger.Erasure{Request: 1, Entries: []ledger.ErasedData{{Seq: seq, Remains: digest}}}
	if _, err := db.Append(ledger.DataErased, "y", &wrong); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.EraseAgreed(); err != nil || !on(t, home, "Mustermann") || on(t, home, "Beispiel") {
		t.Errorf("it is erased, or what was agreed is not: %v", err)
	}
	if l, err := db.Entry(seq); err != nil || !l.Erased() {
		t.Errorf("what an entry says is erased is shown: %v", err)
	}
	for name, check := range checks(db) {
		var d *store.Damage
		if _, err := check(context.Background(), store.CheckOptions{}); !errors.As(err, &d) || d.What != fmt.Sprint("entry ", seq) {
			t.Errorf("%s check: %v", name, err)
		}
	}
}

// An entry that is not as it was written says nothing of erasures.
func TestADamagedEntryErasesNothing(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	var seqs []int64
	for _, name := range []string{"Erika Mustermann", "Hans Beispiel"} { // the same remains of both
		if _, err := db.ChangeQueue(ledger.QueuePaused, "x", ledger.QueueChange{Reason: name}); err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, db.Size()-1)
	}
	agreed(t, db, seqs[0])
	last := db.Size() - 1
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, func(tx *bolt.Tx) error {
		k := binary.BigEndian.AppendUint64(nil, uint64(last))
		v := tx.Bucket([]byte("entries")).Get(k)
		other := bytes.Replace(v, fmt.Appendf(nil, `"seq":%d}]`, seqs[0]), fmt.Appendf(nil, `"seq":%d}]`, seqs[1]), 1)
		if bytes.Equal(v, other) {
			t.Fatalf("nothing is changed in %q", v)
		}
		return tx.Bucket([]byte("entries")).Put(k, other)
	})
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.EraseAgreed(); err != nil || db.Waiting() != 0 {
		t.Errorf("it erases: %d, %v", db.Waiting(), err)
	}
	for _, seq := range seqs {
		if l, err := db.Entry(seq); err != nil || l.Erased() {
			t.Errorf("entry %d is hidden: %v", seq, err)
		}
	}
}

// Whatever was to be erased: the file in which data is gone takes the place of the one in which
// it is only where entries say that it went.
func TestNothingIsErasedThatNoEntryNames(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	asked, other := says(t, db, 1, "Erika Mustermann"), says(t, db, 2, "Hans Beispiel")
	agreed(t, db, asked)
	var d *store.Damage
	if err := store.EraseUnasked(db, asked, other); !errors.As(err, &d) || d.What != fmt.Sprint("entry ", other) || !on(t, home, "Beispiel") {
		t.Errorf("it is gone: %v", err)
	}
}

type check = func(context.Context, store.CheckOptions) (store.CheckReport, error)

func checks(db *store.DB) map[string]check {
	return map[string]check{"whole": db.Check, "quick": db.CheckBytes}
}

// A ledger in which something is erased while it is checked is sound.
func TestACheckGoesOnWhileDataIsErased(t *testing.T) {
	db := create(t, newHome(t))
	for i := range 600 { // more than are read at once
		if _, err := db.AddSchedule("x", "default", addition(fmt.Sprint("s", i))); err != nil {
			t.Fatal(err)
		}
	}
	i := 0
	for name, check := range checks(db) {
		i++
		seq, erased := says(t, db, i, "Erika Mustermann"), false
		_, err := check(context.Background(), store.WithPart(store.CheckOptions{Progress: func(done, _ int64) {
			if erased || done == 0 {
				return
			}
			erased = true
			agreed(t, db, seq)
			if err := db.EraseAgreed(); err != nil {
				t.Error(err)
			}
		}}, 100))
		if err != nil || !erased {
			t.Errorf("%s check: %v", name, err)
		}
	}
}

// snapshot makes one; during is called while ledger.db is copied, with the folder of the copy.
func snapshot(t *testing.T, db *store.DB, during func(dir string)) (string, error) {
	t.Helper()
	put(t, db, "") // digest, which entries name
	if err := note(db); err != nil {
		t.Fatal(err)
	}
	to, done := t.TempDir(), false
	_, dir, _, err := db.Snapshot(context.Background(), store.SnapshotOptions{
		Dir: to, Stella: "x", Now: db.LastTime(), Sign: func([]byte) ([]byte, error) { return []byte("{}"), nil },
		Progress: func(int64, int64) {
			if begun, _ := filepath.Glob(filepath.Join(to, "*", "ledger.db")); len(begun) == 1 && !done {
				done = true
				during(filepath.Dir(begun[0]))
			}
		},
	})
	if !done {
		t.Error("nothing was done during the snapshot")
	}
	return dir, err
}

// What was agreed before a snapshot is not in it, whether it is erased in the site meanwhile or
// not, and its list is of what is in it.
func TestASnapshotHasNothingThatIsAgreedToBeErased(t *testing.T) {
	for name, meanwhile := range map[string]func(*store.DB) error{
		"it waits":  func(*store.DB) error { return nil },
		"it is not": (*store.DB).EraseAgreed,
	} {
		t.Run(name, func(t *testing.T) {
			db := create(t, newHome(t))
			agreed(t, db, says(t, db, 1, "Erika Mustermann"))
			dir, err := snapshot(t, db, func(string) {
				if err := meanwhile(db); err != nil {
					t.Error(err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if on(t, dir, "Mustermann") {
				t.Error("it is in the snapshot")
			}
			if line := fmt.Appendf(nil, "%x  ledger.db\n", sha256.Sum256(read(t, dir, "ledger.db"))); !bytes.Contains(read(t, dir, "SHA256SUMS"), line) {
				t.Error("the snapshot is not what its list says: it cannot be restored")
			}
		})
	}
}

// A snapshot from which it cannot be taken is none, and says why.
func TestNoSnapshotHasWhatCouldNotBeErased(t *testing.T) {
	db := create(t, newHome(t))
	agreed(t, db, says(t, db, 1, "Erika Mustermann"))
	if dir, err := snapshot(t, db, func(dir string) { block(t, dir) }); !errors.Is(err, store.ErrNotErased) {
		t.Errorf("%s, %v", dir, err)
	}
}
