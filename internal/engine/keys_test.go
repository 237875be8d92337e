package engine_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/stellarun/stella/internal/engine"
)

// The age key is made without the age library, which few commands need: age
// itself must read it.
func TestAgeReadsTheAgeKey(t *testing.T) {
	home := filepath.Join(t.TempDir(), "site")
	res, err := engine.Init(home, engine.InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	removable(t, home)
	raw, err := os.ReadFile(filepath.Join(home, "keys", "age.key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := age.ParseX25519Identity(strings.TrimSpace(string(raw))); err != nil {
		t.Errorf("age refuses the key: %v", err)
	}
	for _, purpose := range []string{"log", "site", "age", "root"} {
		if der, err := base64.StdEncoding.DecodeString(res.Keys[purpose]); err != nil || len(der) < 44 {
			t.Errorf("the genesis entry would name the %s key as %q", purpose, res.Keys[purpose])
		}
	}
}

// A home that holds anything is left alone, and a failed init leaves nothing.
func TestInitRefusesWhatIsNotEmpty(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Init(home, engine.InitOptions{}); err == nil {
		t.Error("a site was made over something else")
	}
	empty := filepath.Join(t.TempDir(), "site")
	if _, err := engine.Init(empty, engine.InitOptions{RootFile: "/nonexistent", ExpectRoot: "sha256:00"}); err == nil {
		t.Error("a site was made without its root")
	}
	entries, err := os.ReadDir(filepath.Dir(empty))
	if err != nil || len(entries) != 0 {
		t.Errorf("a failed init left %v, %v", entries, err)
	}
}
