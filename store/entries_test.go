package store_test

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
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

// What shares a transaction lies in memory that later ones have again: each entry is what was
// given, of whatever length, also beside some that are too long.
func TestEntriesOfAllLengthsAtOnce(t *testing.T) {
	db := create(t, newHome(t))
	want := make([][]string, 300)
	at := make([]int64, len(want))
	var g sync.WaitGroup
	for i := range want {
		want[i] = slices.Repeat([]string{fmt.Sprintf("%032x", i)}, 1+i*i%2000) // 35 bytes each
		g.Go(func() {
			var err error
			at[i], err = db.RecordWorkspaces("x", &ledger.WorkspaceRemoval{Runs: want[i]})
			if errors.Is(err, ledger.ErrTooLarge) && 35*len(want[i]) > ledger.MaxData-200 {
				at[i] = -1
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	refused := 0
	for i, seq := range at {
		if seq < 0 {
			refused++
			continue
		}
		l, err := db.Entry(seq)
		if err != nil {
			t.Fatal(err)
		}
		line, err := ledger.ParseData(l.Data)
		if err != nil {
			t.Fatalf("entry %d: %v", seq, err)
		}
		data, err := ledger.DecodeData(ledger.WorkspacesRemoved, line.Data)
		if err != nil || !slices.Equal(data.(*ledger.WorkspaceRemoval).Runs, want[i]) {
			t.Errorf("entry %d is not the %dth, %v", seq, i, err)
		}
	}
	if n := int64(len(at) - refused); refused == 0 || db.Size() < n {
		t.Errorf("%d were refused, and there are %d entries", refused, db.Size())
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
