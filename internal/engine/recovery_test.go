package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

// A restore or a recovery that was cut off keeps everybody out; a dry run finishes nothing,
// and either command does.
func TestWhatWasCutOffIsFinishedByEitherCommand(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(dry bool) (bool, error){
		"recover": func(dry bool) (bool, error) {
			r, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, DryRun: dry})
			return r.Finished, err
		},
		"restore": func(dry bool) (bool, error) {
			r, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, DryRun: dry})
			return r.Finished, err
		},
	} {
		// ledger.db was moved away, and the new one not into its place.
		kept, ready := filepath.Join(l.home, "replaced", name), filepath.Join(l.home, "restoring")
		for _, dir := range []string{kept, ready} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := os.ReadFile(filepath.Join(l.home, "ledger.db"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(ready, "ledger.db"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(l.home, "ledger.db"), filepath.Join(kept, "ledger.db")); err != nil {
			t.Fatal(err)
		}
		journal := `{"id":"x","kept":"replaced/` + name + `","parts":["trust","secrets","ledger.db"],"schema":"stella.restore/1"}` + "\n"
		if err := os.WriteFile(filepath.Join(l.home, "restore.json"), []byte(journal), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := do(true); name == "recover" && codeOf(err) != api.CodeRestoring {
			t.Errorf("%s: a dry run: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(l.home, "ledger.db")); err == nil {
			t.Errorf("%s: a dry run has finished it", name)
		}
		if finished, err := do(false); err != nil || !finished {
			t.Fatalf("%s: %v, %v", name, finished, err)
		}
	}
	l.open()
	l.verify()
}
