package engine_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

// A key that is not the one which entry 0 binds opens nothing: neither the site, nor where a
// floor is to be waived, nor for a recovery or a restore. Nothing is written meanwhile.
func TestKeysOfAnotherSiteOpenNothing(t *testing.T) {
	ctx := context.Background()
	l, other := newLab(t), newLab(t)
	if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	snapshots := filepath.Join(l.home, "snapshots")
	const toFresh = "restore into a fresh place"
	ways := map[string]func() error{
		"open": l.tryOpen,
		"waive": func() error {
			return closed(engine.Open(ctx, engine.Options{Home: l.home, Version: "0.1.0",
				Waive: &engine.Waiver{Floor: "checkpoint.note", Reason: "x", Actor: who}}))
		},
		"recover": func() error {
			_, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x"})
			return err
		},
		"restore": func() error {
			_, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, Reason: "x"})
			return err
		},
		toFresh: func() error {
			_, err := engine.Restore(ctx, engine.RestoreOptions{Home: fresh, Dir: snapshots, Latest: true, Actor: who, Reason: "x"})
			return err
		},
	}
	for _, name := range []string{"log.key", "site.key", "age.key"} {
		path := filepath.Join(l.home, "keys", name)
		right, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := os.ReadFile(filepath.Join(other.home, "keys", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, foreign, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.RemoveAll(fresh), os.MkdirAll(fresh, 0o700), os.CopyFS(filepath.Join(fresh, "keys"), os.DirFS(filepath.Join(l.home, "keys")))); err != nil {
			t.Fatal(err)
		}
		before := contents(t, l.home)
		for way, try := range ways {
			err := try()
			want, code := "keys/"+name+" is not the key that entry 0", api.CodeDamaged
			if way == toFresh && name == "site.key" { // nothing there tells whose keys, or whose snapshot, is the wrong one
				want, code = "it is not signed by the key in", api.CodeInvalid
			}
			var e *api.Error
			if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, want) || !strings.Contains(e.Hint, "keys") {
				t.Errorf("%s with a foreign %s: %v", way, name, err)
			}
			if contents(t, l.home) != before {
				t.Fatalf("%s with a foreign %s has written something", way, name)
			}
			if _, err := os.Stat(filepath.Join(fresh, "ledger.db")); err == nil {
				t.Fatalf("%s with a foreign %s has made a site", way, name)
			}
		}
		if err := os.WriteFile(path, right, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.open()
	l.verify()
}

// closed closes what was opened.
func closed(e *engine.Engine, err error) error {
	if err == nil {
		e.Close()
	}
	return err
}

// contents is a digest of all files below a folder and their names.
func contents(t *testing.T, dir string) [32]byte {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		sum := sha256.Sum256(raw)
		all.WriteString(path + string(sum[:]))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256([]byte(all.String()))
}
