package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

// A floor with something else than a checkpoint in it is lost: it stops no restore and no
// recovery, keeps the site shut, and is waived by name.
func TestAFloorThatIsNoCheckpointIsLost(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	note := filepath.Join(l.home, "checkpoint.note")
	whole, err := os.ReadFile(note)
	if err != nil {
		t.Fatal(err)
	}
	signature := slices.Clone(whole)
	signature[len(signature)-9] ^= 1
	for what, raw := range map[string][]byte{"nothing": {}, "zeros": make([]byte, 4096), "a damaged signature": signature, "half of it": whole[:len(whole)/2]} {
		if err := os.WriteFile(note, raw, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := l.tryOpen(); codeOf(err) != api.CodeFloorLost {
			t.Errorf("%s: opened with %v", what, err)
		}
		res, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, Reason: "x"})
		if err != nil || !slices.Contains(res.Floors, "checkpoint.note") {
			t.Fatalf("%s: %+v, %v", what, res, err)
		}
		if err := l.tryOpen(); codeOf(err) != api.CodeFloorLost {
			t.Errorf("%s: opened after the restore with %v", what, err)
		}
	}
	l.waive("checkpoint.note")
	l.open()
	l.verify()
}

// A ledger that ends before a checkpoint of it does is no sound one, however whole it is.
func TestALedgerThatIsCutIsRecovered(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(l.home, "ledger.db")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l.open()
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	plan, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, DryRun: true})
	if err != nil || plan.Sound || plan.Lost == 0 || !slices.Contains(plan.Floors, "checkpoint.note") {
		t.Fatalf("%+v, %v", plan, err)
	}
	res, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x"})
	if err != nil || res.Lost != plan.Lost || !res.Paused {
		t.Fatalf("%+v, %v", res, err)
	}
	l.waive("checkpoint.note")
	l.open()
	l.verify()
}

// What keeps a check from coming to its end says nothing about the ledger: it is left alone.
func TestASoundLedgerThatCannotBeCheckedIsLeftAlone(t *testing.T) {
	l := newLab(t)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	cache, path := filepath.Join(l.home, "cache"), filepath.Join(l.home, "ledger.db")
	if err := os.RemoveAll(cache); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cache, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := engine.Recover(context.Background(), engine.RecoverOptions{Home: l.home, Actor: who}); err == nil {
		t.Errorf("%+v", r)
	}
	if after, err := os.ReadFile(path); err != nil || !slices.Equal(before, after) {
		t.Errorf("ledger.db was changed: %v", err)
	}
}
