package store_test

import (
	"iter"
	"slices"
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// The entries of a run are found among those of others, from any of them on, over more
// than a page; what comes while they are read is left out.
func TestEntriesOfARunFromOneOn(t *testing.T) {
	db := create(t, newHome(t))
	one, start := newRun(1, "t1")
	two, start2 := newRun(2, "t2")
	if _, err := db.StartRun(one, start, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := db.StartRun(two, start2, nil); err != nil {
		t.Fatal(err)
	}
	nudge := func(id string, n int) {
		p := slices.Repeat([]state.Proposal{{Type: ledger.RunNudged, Actor: "x", Data: &ledger.Nudge{}}}, n)
		if _, err := db.Commit(id, p...); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		nudge(one.RunID, 300)
		nudge(two.RunID, 7)
	}
	var all []int64
	for l, err := range db.RunEntries(one.RunID) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l.Seq)
		if len(all) == 2 {
			nudge(one.RunID, 1)
		}
	}
	if len(all) != 1201 || !slices.IsSorted(all) {
		t.Fatalf("%d entries, sorted %v", len(all), slices.IsSorted(all))
	}
	for _, i := range []int{0, 1, 499, 500, 501, 1000, 1200} {
		got := seqs(t, db.RunEntriesFrom(one.RunID, all[i]))
		if want := append(slices.Clone(all[i:]), db.Size()-1); !slices.Equal(got, want) {
			t.Errorf("from the %dth: %d entries, want %d", i, len(got), len(want))
		}
	}
	back := seqs(t, db.RunEntriesBack(one.RunID))
	slices.Reverse(back)
	if want := append(slices.Clone(all), db.Size()-1); !slices.Equal(back, want) {
		t.Errorf("backwards: %d entries, want %d", len(back), len(want))
	}
	for range db.RunEntriesBack("no such run") {
		t.Error("there is one of no run")
	}
	for range db.RunEntriesFrom(one.RunID, db.Size()) {
		t.Error("there is one from the end on")
	}
}

// seqs are the sequence numbers of entries.
func seqs(t *testing.T, entries iter.Seq2[store.Lines, error]) (out []int64) {
	t.Helper()
	for l, err := range entries {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, l.Seq)
	}
	return out
}
