package engine_test

import (
	"context"
	"slices"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

// The newest entries of a run are found however many of others came since.
func TestTheLastEntriesOfAnOldRun(t *testing.T) {
	l, old := ran(t)
	l.reopen()
	other := l.start(api.StartRequest{DAGID: "audit"}).Run.RunID
	if err := engine.Nudge(l.e, other, 600); err != nil {
		t.Fatal(err)
	}
	all, err := l.site().TailLedger(context.Background(), api.LedgerQuery{RunID: old, Limit: 100})
	if err != nil || len(all) < 5 {
		t.Fatalf("%d entries, %v", len(all), err)
	}
	seqs := func(q api.LedgerQuery, limit int) (out []int64) {
		t.Helper()
		got, err := engine.TailBack(l.e, q, limit, 256)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range got {
			out = append(out, x.Seq)
		}
		return out
	}
	for _, n := range []int{1, 3, len(all), 100} {
		var want []int64
		for _, x := range all[max(0, len(all)-n):] {
			want = append(want, x.Seq)
		}
		if got := seqs(api.LedgerQuery{RunID: old}, n); !slices.Equal(got, want) {
			t.Errorf("the last %d: %v, want %v", n, got, want)
		}
	}
	if got := seqs(api.LedgerQuery{RunID: old, Type: "run.completed"}, 20); !slices.Equal(got, []int64{all[len(all)-1].Seq}) {
		t.Errorf("of a type: %v", got)
	}
	if got := seqs(api.LedgerQuery{}, 2); len(got) != 2 || got[1] != got[0]+1 {
		t.Errorf("of all: %v", got)
	}
}
