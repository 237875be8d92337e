package store_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// What is agreed and cannot be erased at once is shown to nobody, keeps nobody from writing,
// and goes when the site is opened next.
func TestWhatCannotBeErasedAtOnceGoesLater(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	run, first := newRun(1, "t1")
	first.Metadata = map[string]string{"for": "Erika Mustermann"}
	if _, err := db.StartRun(run, first, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}}); err != nil {
		t.Fatal(err)
	}
	request, err := db.RequestErasure("x", ledger.ErasureRequest{Entries: []int64{2}, Reason: "law"})
	if err == nil {
		_, _, err = db.AgreeToErasure("y", request, func(a, b string) bool { return a == b })
	}
	if err != nil {
		t.Fatal(err)
	}
	inTheWay := filepath.Join(home, "ledger.db.new", "x") // a folder with something in it is not removed
	if err := os.MkdirAll(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := db.EraseAgreed(); err == nil {
		t.Error("it was erased over what is in the way")
	}
	if l, err := db.Entry(2); err != nil || !l.Erased() || !bytes.Contains(read(t, home, "ledger.db"), []byte("Mustermann")) {
		t.Errorf("it is shown, or gone: %+v, %v", l, err)
	}
	start(t, db, 2, 1)
	if _, err := db.Check(context.Background(), store.CheckOptions{}); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(inTheWay)); err != nil {
		t.Fatal(err)
	}
	if db, err = store.Open(home, store.Options{}); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(read(t, home, "ledger.db"), []byte("Mustermann")) {
		t.Error("it is still there")
	}
	if now, err := db.Run(run.RunID); err != nil || len(now.Metadata) > 0 {
		t.Errorf("%+v, %v", now, err)
	}
	checked(t, db)
}
