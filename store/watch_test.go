package store_test

import (
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Who waits for a run is woken by its entries and by no others.
func TestWatchRun(t *testing.T) {
	db := create(t, newHome(t))
	run, start := newRun(1, "t1")
	other, otherStart := newRun(2, "t2")
	closed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	first, stop := db.WatchRun(run.RunID)
	defer stop()
	second, stopSecond := db.WatchRun(run.RunID)
	stopSecond()
	if _, err := db.StartRun(other, otherStart, nil); err != nil {
		t.Fatal(err)
	}
	if closed(first) {
		t.Error("another run woke who waits for this one")
	}
	if _, err := db.StartRun(run, start, nil); err != nil {
		t.Fatal(err)
	}
	if !closed(first) || !closed(second) {
		t.Error("the start of the run did not wake who waits for it")
	}
	again, stopAgain := db.WatchRun(run.RunID)
	defer stopAgain()
	if closed(again) {
		t.Error("a new watch is awake already")
	}
	if _, err := db.Commit(run.RunID, state.Proposal{Type: ledger.RunCancelled, Actor: "x", Data: &ledger.RunEnd{}}); err != nil {
		t.Fatal(err)
	}
	if !closed(again) {
		t.Error("the end of the run woke nobody")
	}
}
