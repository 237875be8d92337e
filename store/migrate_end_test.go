package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/store"
)

// oldSite is a home of the third schema.
func oldSite(t *testing.T) string {
	t.Helper()
	home, seed := newHome(t), rand.Uint64()
	t.Log("seed", seed)
	randomLedger(t, create(t, home), rand.New(rand.NewPCG(seed, 0)))
	edit(t, home, toThirdSchema)
	return home
}

// Who asks a migration to end is heard at the next entry, and finds the site as it was.
func TestAMigrationThatIsStoppedLeavesTheSiteAsItWas(t *testing.T) {
	home, enough := oldSite(t), errors.New("enough")
	old := read(t, home, "ledger.db")
	for _, after := range []int{0, 1, 8} {
		t.Run(fmt.Sprint("after ", after), func(t *testing.T) {
			asked := 0
			_, err := store.Open(home, store.WithMigration(store.Options{Stopped: func() error {
				if asked++; asked > after {
					return enough
				}
				return nil
			}}, 3, func(store.Held) {}))
			if !errors.Is(err, enough) || asked != after+1 {
				t.Errorf("Open = %v after it had asked %d times", err, asked)
			}
			if !bytes.Equal(read(t, home, "ledger.db"), old) || read(t, home, "ledger.db.new") != nil {
				t.Error("the site is not as it was")
			}
		})
	}
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	checked(t, db)
}

// A migration whose last step fails, after the new database has its name, says so: the site
// is not as it was, and whoever has the old file open is told.
func TestAMigrationThatHasTakenThePlaceSaysSo(t *testing.T) {
	home := oldSite(t)
	old, err := os.Open(filepath.Join(home, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	before := read(t, home, "ledger.db")
	_, err = store.Open(home, store.WithRename(store.Options{}, func(from, to string) error {
		return errors.Join(os.Rename(from, to), syscall.EIO)
	}))
	if !errors.Is(err, store.ErrUnsynced) || !errors.Is(err, syscall.EIO) {
		t.Errorf("Open = %v", err)
	}
	if after, err := io.ReadAll(old); err != nil || bytes.Equal(after, before) {
		t.Errorf("nothing was said to the old one: %v", err)
	}
	if store.Locked(home) {
		t.Error("it is still locked")
	}
	db, err := store.Open(home, store.Options{Migrating: func(int64) { t.Error("it is made anew") }})
	if err != nil {
		t.Fatal(err)
	}
	checked(t, db)
}

func TestAMigrationWhoseRenameFailsLeavesTheSiteAsItWas(t *testing.T) {
	home := oldSite(t)
	old := read(t, home, "ledger.db")
	_, err := store.Open(home, store.WithRename(store.Options{}, func(string, string) error { return syscall.EIO }))
	if !errors.Is(err, syscall.EIO) || errors.Is(err, store.ErrUnsynced) {
		t.Errorf("Open = %v", err)
	}
	if !bytes.Equal(read(t, home, "ledger.db"), old) || read(t, home, "ledger.db.new") != nil {
		t.Error("the site is not as it was")
	}
}

// That a migration is under way is said while one is, and not of a file that is left over.
func TestAMigrationIsSeenFromOutside(t *testing.T) {
	home := oldSite(t)
	seen := func() [2]bool {
		_, yes := store.Migrating(home)
		return [2]bool{store.Locked(home), yes}
	}
	if err := os.WriteFile(filepath.Join(home, "ledger.db.new"), []byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, during := [][2]bool{seen()}, [][2]bool{}
	db, err := store.Open(home, store.WithMigration(store.Options{}, 5, func(store.Held) { during = append(during, seen()) }))
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, seen())
	checked(t, db)
	got = append(got, seen())
	for _, s := range during[:len(during)-1] {
		if s != [2]bool{true, true} {
			t.Errorf("meanwhile: %v", s)
		}
	}
	want := [][2]bool{{false, false}, {true, false}, {false, false}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("locked, migrating (-want +got):\n%s", diff)
	}
}

// What a process that was killed, or a copy, has left beside a database of today goes.
func TestWhatAMigrationHasLeftGoes(t *testing.T) {
	home := newHome(t)
	if err := create(t, home).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "ledger.db.new"), []byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	checked(t, db)
	if read(t, home, "ledger.db.new") != nil {
		t.Error("it is still there")
	}
}
