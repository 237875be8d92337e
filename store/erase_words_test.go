package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// What is looked for elsewhere has limits, and where they end the search it is said: of what was
// found, of texts to look for, and of whoever waits.
func TestTheSearchForWordsHasLimits(t *testing.T) {
	db := create(t, newHome(t))
	first := says(t, db, 0, "Erika Mustermann")
	also, err := db.SameWords(t.Context(), []int64{first})
	if err != nil || also != nil {
		t.Errorf("%v, %v", also, err)
	}
	for i := range ledger.MaxErased - 1 {
		says(t, db, i+1, "for Erika Mustermann")
	}
	if also, err = db.SameWords(t.Context(), []int64{first}); err != nil || len(also) != ledger.MaxErased-1 {
		t.Errorf("%d, %v", len(also), err)
	}
	says(t, db, ledger.MaxErased, "Erika Mustermann")
	if also, err = db.SameWords(t.Context(), []int64{first}); err == nil || !strings.Contains(err.Error(), "there may be more than 500") || len(also) != ledger.MaxErased {
		t.Errorf("%d, %v", len(also), err)
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	if _, err := db.SameWords(left, []int64{first}); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits: %v", err)
	}

	many := []int64{first}
	for i := range 16 {
		run, start := newRun(1000+i, fmt.Sprint("many", i))
		start.Metadata = map[string]string{}
		for k := range 64 {
			start.Metadata[fmt.Sprint("k", k)] = fmt.Sprintf("text %d of %d", k, i)
		}
		got, err := db.StartRun(run, start, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}})
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, got.FirstSeq)
	}
	if _, err := db.SameWords(t.Context(), many[1:3]); err != nil {
		t.Errorf("128 texts: %v", err)
	}
	if also, err = db.SameWords(t.Context(), many[1:]); err == nil || !strings.Contains(err.Error(), "more than 1000 different texts") {
		t.Errorf("1024 texts: %d, %v", len(also), err)
	}
}
