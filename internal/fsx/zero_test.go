package fsx

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestOverwriteReachesTheFilesOfAFolderAndNothingElse(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	big := bytes.Repeat([]byte("x"), zeros+7)
	for path, data := range map[string][]byte{outside: []byte("keep"), filepath.Join(dir, "a"): []byte("value"), filepath.Join(dir, "big"): big} {
		if err := os.WriteFile(path, data, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(outside, filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "soft")); err != nil {
		t.Fatal(err)
	}
	if err := Overwrite(dir); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]byte{outside: []byte("keep"), filepath.Join(dir, "a"): make([]byte, 5), filepath.Join(dir, "big"): make([]byte, len(big))} {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s holds %.20q, %v", path, got, err)
		}
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "none"} {
		if err := Overwrite(filepath.Join(dir, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
