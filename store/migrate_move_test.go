package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// A process that is killed between any two transactions of a migration leaves the site as
// it was, or the new one; what the next makes of it is what an undisturbed one makes, and
// what was there before it was laid out as an older schema was.
func TestAMigrationThatIsKilledBeginsAnew(t *testing.T) {
	for range 6 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { killedAnywhere(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func killedAnywhere(t *testing.T, r *rand.Rand) {
	home := newHome(t)
	site := create(t, home)
	randomLedger(t, site, r)
	page := 1 + r.IntN(min(9, int(site.Size())/3)) // at least three transactions
	want := contents(t, home)
	edit(t, home, toThirdSchema)
	old := read(t, home, "ledger.db")
	var images []string
	db, err := store.Open(home, store.WithMigration(store.Options{}, page, func(store.Held) {
		image := newHome(t)
		for _, name := range []string{"ledger.db", "ledger.db.new"} {
			if raw := read(t, home, name); raw != nil {
				if err := os.WriteFile(filepath.Join(image, name), raw, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		images = append(images, image)
	}))
	if err != nil {
		t.Fatal(err)
	}
	checked(t, db)
	if diff := cmp.Diff(want, contents(t, home)); diff != "" {
		t.Errorf("an undisturbed migration (-was +is):\n%s", diff)
	}
	if len(images) < 3 {
		t.Errorf("%d transactions are not enough for this test", len(images))
	}
	for i, image := range images {
		if last := i == len(images)-1; !last && !bytes.Equal(read(t, image, "ledger.db"), old) {
			t.Errorf("after transaction %d of %d the old database is not as it was", i+1, len(images))
		}
		db, err := store.Open(image, store.Options{})
		if err != nil {
			t.Errorf("killed after transaction %d of %d: %v", i+1, len(images), err)
			continue
		}
		checked(t, db)
		if diff := cmp.Diff(want, contents(t, image)); diff != "" {
			t.Errorf("killed after transaction %d of %d (-was +is):\n%s", i+1, len(images), diff)
		}
		if read(t, image, "ledger.db.new") != nil {
			t.Error("something is left over")
		}
	}
}

// randomLedger writes a few dozen entries of all kinds that a migration moves, and closes
// the database. What the state machine does not allow is not written.
func randomLedger(t *testing.T, db *store.DB, r *rand.Rand) {
	t.Helper()
	runs := 0
	for range 25 + r.IntN(15) {
		var err error
		switch n := r.IntN(12); {
		case n == 0 || runs == 0:
			run, start := newRun(runs, fmt.Sprint("token ", r.IntN(1000), " ", runs))
			_, err = db.StartRun(run, start, nil)
			runs++
		case n == 1:
			_, err = db.Admit("x", store.Admitting{Admission: admission(fmt.Sprint("1.0.", r.IntN(4)), 100, sum(fmt.Sprint(r.IntN(4))))})
			if errors.Is(err, store.ErrFloorMoved) {
				err = nil
			}
		case n == 2:
			_, err = db.ChangeQueue([]ledger.Type{ledger.QueuePaused, ledger.QueueResumed}[r.IntN(2)], "x", ledger.QueueChange{})
		case n == 3:
			put(t, db, fmt.Sprint("blob ", r.IntN(100)))
			_, err = db.BeginSink(fmt.Sprint("sink ", r.IntN(3)), true)
		case n == 4:
			_, _, _, err = db.IssueCheckpoint(signNote)
		default:
			err = randomStep(db, r, r.IntN(runs))
		}
		if illegal := (*state.TransitionError)(nil); err != nil && !errors.As(err, &illegal) {
			t.Fatal(err)
		}
	}
	checked(t, db)
}

// randomStep lets a run go on: a step of it ends, the run ends, or it is reopened.
func randomStep(db *store.DB, r *rand.Rand, i int) error {
	id, _ := newRun(i, "")
	run, err := db.Run(id.RunID)
	if err != nil {
		return err
	}
	a := string(rune('a' + r.IntN(3)))
	step, err := db.Step(run.RunID, a)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	p := func(on ledger.Type, stepID string, attempt int, data any) state.Proposal {
		return state.Proposal{Type: on, Actor: "x", StepID: stepID, Attempt: attempt, Data: data}
	}
	gen, n := run.Generation, step.Attempt+1
	begun := []state.Proposal{p(ledger.StepQueued, a, 0, &ledger.StepQueue{Reason: "ready"}),
		p(ledger.AttemptStarted, a, n, &ledger.AttemptStart{Generation: gen, Locks: []ledger.Lock{{Kind: "semaphore", Name: "s", Weight: 1}}})}
	var more []state.Proposal
	switch r.IntN(7) {
	case 0:
		more = begun
	case 1:
		more = append(begun, p(ledger.AttemptEnded, a, n, &ledger.AttemptEnd{Generation: gen, Outcome: "failed"}),
			p(ledger.StepFailed, a, 0, &ledger.StepEnd{ErrorCode: string(state.PoisonPill)}))
	case 2:
		more = append(begun, p(ledger.AttemptEnded, a, n, &ledger.AttemptEnd{Generation: gen, Outcome: "succeeded", OutputsHash: digest,
			CacheKey: sum(a), CacheExpires: "2099-01-01T00:00:00.000000000Z", Artifacts: []ledger.Artifact{{SHA256: sum(a)}}}),
			p(ledger.StepCompleted, a, 0, &ledger.StepEnd{OutputsHash: digest}))
	case 3:
		more = append(more, p(ledger.AttemptEnded, a, max(1, step.Attempt), &ledger.AttemptEnd{Generation: gen, Outcome: "interrupted"}))
	case 4:
		more = append(more, p(ledger.RunCompleted, "", 0, &ledger.RunEnd{}))
	case 5:
		more = append(more, p(ledger.RunFailed, "", 0, &ledger.RunEnd{FailedStep: a}))
		if r.IntN(2) == 0 {
			break
		}
		fallthrough
	case 6:
		more = append(more, p(ledger.RunReopened, "", 0, &ledger.RunGeneration{Generation: gen + 1}),
			p(ledger.StepInvalidated, a, 0, &ledger.StepInvalidation{Reason: "retry"}))
	}
	_, err = db.Commit(run.RunID, more...)
	return err
}

// toThirdSchema lays a site out as the third schema did, with projections that are not what
// follows from the ledger now.
func toThirdSchema(tx *bolt.Tx) error {
	return errors.Join(tx.Bucket([]byte("meta")).Put([]byte("queue"), []byte("{}")), tx.Bucket([]byte("locks")).Put([]byte("x"), []byte("{}")), tx.DeleteBucket([]byte("records")), oldLedger(tx, 0), setSchema(tx, 3))
}

// checked checks a database and closes it.
func checked(t *testing.T, db *store.DB) {
	t.Helper()
	if _, err := db.Check(context.Background(), store.CheckOptions{}); err != nil {
		t.Errorf("it is not what the ledger says: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// read is the content of a file in a home, nil if there is none.
func read(t *testing.T, home, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(home, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return raw
}

// contents is every key of a database with its value, by bucket.
func contents(t *testing.T, home string) map[string]string {
	t.Helper()
	all := map[string]string{}
	edit(t, home, func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			all[string(name)] = "" // an empty one counts
			return b.ForEach(func(k, v []byte) error {
				all[fmt.Sprintf("%s %q", name, k)] = fmt.Sprintf("%q", v)
				return nil
			})
		})
	})
	return all
}

// What a migration holds does not grow with the ledger.
func TestAMigrationOfManyRunsHoldsNoMoreThanOneOfFew(t *testing.T) {
	most := func(runs int) (most store.Held) {
		home := newHome(t)
		db := create(t, home)
		for i := range runs / 100 {
			start(t, db, i*100, 100)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		edit(t, home, toThirdSchema)
		db, err := store.Open(home, store.WithMigration(store.Options{}, 100, func(h store.Held) {
			most = store.Held{Records: max(most.Records, h.Records), Bytes: max(most.Bytes, h.Bytes)}
		}))
		if err != nil {
			t.Fatal(err)
		}
		checked(t, db)
		return most
	}
	few, many := most(200), most(1600)
	if few.Records == 0 || many.Records > 3*100 || many.Bytes > 2*few.Bytes {
		t.Errorf("a transaction holds at most %+v with 200 runs, %+v with 1600", few, many)
	}
}

// start starts runs that end at once, in one transaction.
func start(t *testing.T, db *store.DB, from, n int) {
	t.Helper()
	done := make(chan error)
	for i := range n {
		go func() {
			run, start := newRun(from+i, fmt.Sprint("token ", from+i))
			_, err := db.StartRun(run, start, []state.Proposal{
				{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}},
				{Type: ledger.AttemptStarted, Actor: "x", StepID: "a", Attempt: 1, Data: &ledger.AttemptStart{Generation: 1}},
				{Type: ledger.AttemptEnded, Actor: "x", StepID: "a", Attempt: 1, Data: &ledger.AttemptEnd{Generation: 1, Outcome: "succeeded"}},
				{Type: ledger.StepCompleted, Actor: "x", StepID: "a", Data: &ledger.StepEnd{}},
				{Type: ledger.RunCompleted, Actor: "x", Data: &ledger.RunEnd{}}})
			done <- err
		}()
	}
	for range n {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// Whoever has the file open that a migration has replaced gets its lock then, and must not
// write to it: an older version is refused by its schema, this one sees that it has no name.
func TestNobodyGoesOnWithADatabaseThatWasReplaced(t *testing.T) {
	home := newHome(t)
	if err := create(t, home).Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, toThirdSchema)
	path, kept := filepath.Join(home, "ledger.db"), newHome(t)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	var migrated *store.DB
	_, err = store.Open(home, store.WithOpened(store.Options{}, func() {
		db, err := store.Open(home, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		migrated = db
	}))
	if !errors.Is(err, store.ErrLocked) {
		t.Errorf("Open of the old one = %v", err)
	}
	checked(t, migrated)
	raw, err := io.ReadAll(old)
	if err := errors.Join(err, os.WriteFile(filepath.Join(kept, "ledger.db"), raw, 0o600)); err != nil {
		t.Fatal(err)
	}
	edit(t, kept, func(tx *bolt.Tx) error {
		if v := tx.Bucket([]byte("meta")).Get([]byte("schema")); v[7] != 6 {
			t.Errorf("the old one says schema %d", v[7])
		}
		return nil
	})
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("the new one: %v, %v", fi.Mode(), err)
	}
}

// A database that has another name, as a copy of a home by hard links gives it, is that of
// another site: it stays as it is, and opens.
func TestAMigrationLeavesACopyByHardLinks(t *testing.T) {
	home, copied := newHome(t), newHome(t)
	if err := create(t, home).Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, toThirdSchema)
	if err := os.Link(filepath.Join(home, "ledger.db"), filepath.Join(copied, "ledger.db")); err != nil {
		t.Fatal(err)
	}
	was := read(t, copied, "ledger.db")
	for _, h := range []string{home, copied} {
		db, err := store.Open(h, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		checked(t, db)
		if h == home && !bytes.Equal(read(t, copied, "ledger.db"), was) {
			t.Error("the copy was written to")
		}
	}
}

// A name that is a link stays one.
func TestAMigrationFollowsALink(t *testing.T) {
	home, other := newHome(t), newHome(t)
	if err := create(t, home).Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, toThirdSchema)
	path, real := filepath.Join(home, "ledger.db"), filepath.Join(other, "l.db")
	if err := errors.Join(os.Rename(path, real), os.Symlink(real, path)); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	checked(t, db)
	if to, err := os.Readlink(path); err != nil || to != real {
		t.Errorf("the link leads to %q, %v", to, err)
	}
}

// A migration is told of before it begins, once, and nothing else is.
func TestAMigrationIsToldOf(t *testing.T) {
	home := newHome(t)
	if err := create(t, home).Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, home, toThirdSchema)
	var told []int64
	for range 2 {
		db, err := store.Open(home, store.Options{Now: time.Now, Migrating: func(n int64) { told = append(told, n) }})
		if err != nil {
			t.Fatal(err)
		}
		checked(t, db)
	}
	if diff := cmp.Diff([]int64{2}, told); diff != "" {
		t.Error(diff)
	}
}
