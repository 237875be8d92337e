package engine_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/sandbox"
	"github.com/stellarun/stella/server/api"
)

// tried opens the closed site of a lab as a daemon does, which may have tried before.
func (l *lab) tried(begun *int64) error {
	e, err := engine.Open(context.Background(), engine.Options{
		Home: l.home, Mode: engine.ModeDaemon, Executes: true, Version: "0.1.0", Executor: sandbox.New(sandbox.Options{}), Begun: begun,
	})
	if err != nil {
		return err
	}
	return e.Close()
}

// A process that opens a site again and again, and fails after it has recorded its start,
// records it once; again where something else has started meanwhile, and once it was up.
func TestAStartThatIsTriedAgainIsRecordedOnce(t *testing.T) {
	l := newLab(t)
	open := filepath.Join(l.home, "logs", "open")
	var begun int64
	starts := func(want int, when string) {
		t.Helper()
		l.open()
		defer l.e.Close()
		lines, err := l.site().TailLedger(context.Background(), api.LedgerQuery{Type: string(ledger.SiteStarted)})
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for _, line := range lines {
			if bytes.Contains(line.Data, []byte(`"mode":"daemon"`)) {
				got++
			}
		}
		if got != want {
			t.Errorf("%s: %d starts are recorded, want %d", when, got, want)
		}
	}
	fail := func() {
		t.Helper()
		if err := os.WriteFile(open, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := l.tried(&begun); err == nil {
				t.Fatal("it opens without logs/open")
			}
		}
		if begun == 0 {
			t.Error("nobody knows that a start was recorded")
		}
		if err := os.Remove(open); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(open)
	fail()
	if err := l.tried(&begun); err != nil || begun != 0 {
		t.Errorf("%v, begun %d", err, begun)
	}
	starts(1, "tried in vain three times, and then up")
	os.RemoveAll(open)
	fail()
	starts(2, "tried in vain again")
	if err := l.tried(&begun); err != nil {
		t.Error(err)
	}
	starts(3, "tried again after another has started")
	os.RemoveAll(open)
	fail()
	if err := l.tried(nil); err != nil { // in another container, where it has the same pid
		t.Error(err)
	}
	if err := l.tried(&begun); err != nil {
		t.Error(err)
	}
	starts(6, "tried again after another that cannot be told from it")
}
