package fsx_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stellarun/stella/internal/fsx"
)

func root(t *testing.T) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r, dir
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// hostile makes a tree that a plugin may leave, and something beside it that
// its links name.
func hostile(t *testing.T, dir string) (outside string) {
	t.Helper()
	outside = filepath.Join(dir, "outside")
	w := filepath.Join(dir, "w")
	must(t,
		os.MkdirAll(filepath.Join(outside, "sub"), 0o755), os.WriteFile(filepath.Join(outside, "sub", "keep"), []byte("keep"), 0o600),
		os.MkdirAll(filepath.Join(w, "a", "b"), 0o755), os.WriteFile(filepath.Join(w, "a", "b", "f"), make([]byte, 100), 0),
		os.MkdirAll(filepath.Join(w, "m1", "m1", "m2"), 0o755), os.WriteFile(filepath.Join(w, "m1", "m1", "x"), make([]byte, 5), 0o600),
		os.Mkdir(filepath.Join(w, fsxTemp), 0o755), os.WriteFile(filepath.Join(w, fsxTemp, "y"), nil, 0o600),
		os.Symlink(outside, filepath.Join(w, "link")), os.Symlink("../../outside/sub", filepath.Join(w, "a", "up")),
		os.Symlink("self", filepath.Join(w, "self")), os.Symlink("/", filepath.Join(w, "slash")),
		syscall.Mkfifo(filepath.Join(w, "pipe"), 0o600),
		os.WriteFile(filepath.Join(w, "new\nline\x1b \xff*"), nil, 0o600),
		os.WriteFile(filepath.Join(w, strings.Repeat("n", 255)), nil, 0o600),
		os.Link(filepath.Join(outside, "sub", "keep"), filepath.Join(w, "hard")),
	)
	for _, d := range []string{"a/b", "a", "m1/m1"} {
		must(t, os.Chmod(filepath.Join(w, d), 0))
	}
	must(t, os.Chmod(w, 0o500))
	return outside
}

const fsxTemp = ".fsx-x.tmp"

func TestRemoveTreeOfHostileContents(t *testing.T) {
	r, dir := root(t)
	outside := hostile(t, dir)
	size, err := fsx.RemoveTree(t.Context(), r, "w")
	if err != nil {
		t.Fatal(err)
	}
	if want := (fsx.Size{Files: 11, Bytes: 109}); size != want {
		t.Errorf("removed %+v, want %+v", size, want)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "outside" {
		t.Errorf("left: %v, %v", left, err)
	}
	if raw, err := os.ReadFile(filepath.Join(outside, "sub", "keep")); err != nil || string(raw) != "keep" {
		t.Errorf("what a link named is %q, %v", raw, err)
	}
	if fi, err := os.Stat(filepath.Join(outside, "sub")); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("the folder that a link named is %v, %v", fi.Mode(), err)
	}
}

func TestRemoveTreeOfALink(t *testing.T) {
	r, dir := root(t)
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700), os.WriteFile(filepath.Join(dir, "d", "f"), nil, 0o600), os.Symlink("d", filepath.Join(dir, "w")))
	if _, err := fsx.RemoveTree(t.Context(), r, "w"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "d", "f")); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "w")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link is there: %v", err)
	}
	if _, err := fsx.RemoveTree(t.Context(), r, "w"); err != nil {
		t.Errorf("what is not there: %v", err)
	}
	if _, err := fsx.RemoveTree(t.Context(), r, "../"+filepath.Base(dir)); err == nil {
		t.Error("it left the root")
	}
}

// TestRemoveTreeThatIsDeep goes far beyond what one path, or one open file for
// each level, would allow.
func TestRemoveTreeThatIsDeep(t *testing.T) {
	r, dir := root(t)
	const depth = 1500
	must(t, r.Mkdir("w", 0o700))
	at, err := r.OpenRoot("w")
	must(t, err)
	for i := range depth {
		must(t, at.Mkdir("dddddddddd", 0o700))
		if i%100 == 0 {
			f, err := at.Create("f")
			must(t, err, f.Close())
		}
		next, err := at.OpenRoot("dddddddddd")
		must(t, err, at.Close())
		at = next
	}
	must(t, at.Close())
	if s, err := fsx.Measure(t.Context(), r, "w", 1000); err != nil || !s.Partial || s.Files != 1 {
		t.Errorf("measured %+v, %v", s, err)
	}
	size, err := fsx.RemoveTree(t.Context(), r, "w")
	if err != nil || size.Files != depth/100 {
		t.Errorf("removed %+v, %v", size, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What a removal that was stopped has left can be removed by its name.
func TestRemoveTreeGoesOn(t *testing.T) {
	r, dir := root(t)
	for i := range 300 {
		must(t, r.MkdirAll(fmt.Sprintf("w/%d/x", i), 0o700))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fsx.RemoveTree(ctx, r, "w"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || !fsx.IsTemp(left[0].Name()) {
		t.Fatalf("left: %v, %v", left, err)
	}
	if _, err := fsx.RemoveTree(t.Context(), r, left[0].Name()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestMeasure(t *testing.T) {
	r, dir := root(t)
	hostile(t, dir)
	t.Cleanup(func() { _, _ = fsx.RemoveTree(context.Background(), r, "w") }) // the test's own removal heeds modes
	s, err := fsx.Measure(t.Context(), r, "w", 1000)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // the modes mean nothing to root
		if want := (fsx.Size{Files: 11, Bytes: 109}); s != want {
			t.Errorf("measured %+v, want %+v", s, want)
		}
	} else if !s.Partial {
		t.Errorf("measured all of what cannot be read: %+v", s)
	}
	if s, err := fsx.Measure(t.Context(), r, "w", 3); err != nil || !s.Partial {
		t.Errorf("measured %+v, %v, want a part", s, err)
	}
	if _, err := fsx.Measure(t.Context(), r, "none", 3); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}
