package store_test

import (
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Who waits for the end of a run is told of that, and of nothing else.
func TestWatchEnd(t *testing.T) {
	db := create(t, newHome(t))
	run, start := newRun(1, "t1")
	other, otherStart := newRun(2, "t2")
	end := state.Proposal{Type: ledger.RunCancelled, Actor: "x", Data: &ledger.RunEnd{}}
	first, stop := db.WatchEnd(run.RunID)
	defer stop()
	second, stopSecond := db.WatchEnd(run.RunID)
	defer stopSecond()
	third, stopThird := db.WatchEnd(run.RunID)
	stopThird()
	if _, err := db.StartRun(other, otherStart, []state.Proposal{end}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.StartRun(run, start, nil); err != nil {
		t.Fatal(err)
	}
	if len(first)+len(second) > 0 {
		t.Error("the end of another run, or the start of this one, was told")
	}
	if _, err := db.Commit(run.RunID, end); err != nil {
		t.Fatal(err)
	}
	for i, c := range []<-chan state.Run{first, second} {
		select {
		case got := <-c:
			if got.RunID != run.RunID || got.Status != state.Cancelled {
				t.Errorf("waiter %d was told of %s, %s", i, got.RunID, got.Status)
			}
		default:
			t.Errorf("waiter %d was not told of the end", i)
		}
	}
	if len(third) > 0 {
		t.Error("who has stopped waiting was told")
	}
}
