package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A run of which something is damaged stays where it is and is named; the others are archived.
func TestArchivingGoesPastADamagedRun(t *testing.T) {
	for name, spoil := range map[string]struct {
		log  bool
		harm func(path string) error
	}{
		"an artifact of other bytes": {false, func(path string) error {
			return errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte("mE"), 0o600))
		}},
		"an artifact that is missing":   {false, os.Remove},
		"a log segment that was cut":    {true, func(path string) error { return errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 100)) }},
		"a log segment that is missing": {true, os.Remove},
	} {
		t.Run(name, func(t *testing.T) {
			l := leaver(t, "")
			good := l.leave("you")
			l.reopen()
			others := l.stored()
			bad := l.leave("me")
			digest, _, _ := l.artifact(bad)
			path := l.sealedFile(digest)
			if spoil.log {
				path = slices.DeleteFunc(l.stored(), func(p string) bool { return slices.Contains(others, p) })[0]
				digest = strings.TrimSuffix(filepath.Base(path), ".jsonl")
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil.harm(path); err != nil {
				t.Fatal(err)
			}
			rep := l.archive()
			if len(rep.Damaged) != 1 || rep.Damaged[0].RunID != bad || rep.Damaged[0].SHA256 != digest || rep.Damaged[0].What == "" {
				t.Errorf("damaged: %+v, want %s of %s", rep.Damaged, digest, bad)
			}
			if rep.Runs != 1 || rep.Logs != 1 || rep.Artifacts != 1 || len(rep.Archives) != 1 {
				t.Errorf("archived %+v, want one run", rep)
			}
			if left := l.stored(); len(left) > 1 {
				t.Errorf("segments of both runs are left: %v", left)
			}
			if got, _, err := l.artifact(good); err != nil {
				t.Errorf("artifact %s: %v", got, err)
			}
			os.Remove(path)
			if err := os.WriteFile(path, raw, 0o400); err != nil {
				t.Fatal(err)
			}
			if again := l.archive(); again.Runs != 1 || len(again.Damaged) > 0 {
				t.Errorf("with the file put back: %+v, want the other run", again)
			}
			l.audit()
		})
	}
}
