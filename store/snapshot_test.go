package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stellarun/stella/store"
)

// A snapshot begins beside a write for which more of ledger.db has to be mapped: that waits for
// whoever reads, so whoever reads must not wait for it.
func TestASnapshotBeginsBesideAWriteThatGrowsTheFile(t *testing.T) {
	home := newHome(t)
	if err := create(t, home).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(home, store.WithMapped(store.Options{}, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	checkOnClose(t, db)
	under, goOn, all := make(chan bool), make(chan bool), make(chan error, 3)
	to := t.TempDir()
	go func() {
		all <- db.Write(func(func(int) error) error {
			under <- true
			<-goOn
			return nil
		})
	}()
	<-under // what comes now shares the next transaction
	go func() { all <- db.Freeze(to) }()
	go func() { all <- db.Write(func(put func(int) error) error { return put(40 << 20) }) }()
	time.Sleep(100 * time.Millisecond)
	close(goOn)
	for range 3 {
		select {
		case err := <-all:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the writer waits for the snapshot, and that for the writer")
		}
	}
}

// No snapshot is made where its entry could not be written.
func TestNoSnapshotIsMadeOnceAWriteHasFailed(t *testing.T) {
	home := newHome(t)
	if err := create(t, home).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.Refuse(errors.New("no more"))
	if err := db.Freeze(t.TempDir()); !errors.Is(err, store.ErrFailed) {
		t.Errorf("%v, want ErrFailed", err)
	}
}
