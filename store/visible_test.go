package store_test

import (
	"fmt"
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Whoever reads what an entry has moved finds the entry.
func TestAnEntryIsHereAsSoonAsWhatItMoved(t *testing.T) {
	db := create(t, newHome(t))
	run, start := newRun(1, "token")
	if _, err := db.StartRun(run, start, nil); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 400 && err == nil; i++ {
			_, err = db.Commit(run.RunID, state.Proposal{Type: ledger.RunNudged, Actor: "uid:1", Data: &ledger.Nudge{Reason: fmt.Sprint(i)}})
		}
		written <- err
	}()
	for {
		now, err := db.Run(run.RunID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Entry(now.LastSeq); err != nil {
			t.Fatalf("the run shows entry %d: %v", now.LastSeq, err)
		}
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}
