package store_test

import (
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// Who sees that a run has ended sees the entry that has ended it, forward and backward:
// whoever watches a run looks at what is left of it then, and not again.
func TestTheEntriesOfARunAreThereWithItsRecord(t *testing.T) {
	db := create(t, newHome(t))
	run, start := newRun(1, "t1")
	if _, err := db.StartRun(run, start, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}}); err != nil {
		t.Fatal(err)
	}
	now, err := db.Commit(run.RunID, state.Proposal{Type: ledger.StepSkipped, Actor: "x", StepID: "a", Data: &ledger.StepEnd{Reason: "STEP_DISABLED"}},
		state.Proposal{Type: ledger.RunCompleted, Actor: "x", Data: &ledger.RunEnd{}})
	if err != nil {
		t.Fatal(err)
	}
	var last [2]int64
	store.BeforeTold(db, 2, func() {
		for l := range db.RunEntriesFrom(run.RunID, 0) {
			last[0] = l.Seq
		}
		for l := range db.RunEntriesBack(run.RunID) {
			last[1] = l.Seq
			break
		}
	})
	if want := [2]int64{now.LastSeq, now.LastSeq}; last != want {
		t.Errorf("the last entries are %v, of %v", last, want)
	}
}
