package fsx_test

import (
	"errors"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stellarun/stella/internal/fsx"
)

// names lists what lies in dir, and fails on left-over temporary files.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if fsx.IsTemp(e.Name()) {
			t.Errorf("temporary file %s is left over", e.Name())
		}
		got = append(got, e.Name())
	}
	return got
}

// holds fails unless path is a regular file with this content and mode.
func holds(t *testing.T, path, want string, perm fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v; want %q", filepath.Base(path), got, err, want)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != perm {
		t.Errorf("%s has mode %v, want %v", filepath.Base(path), info.Mode(), perm)
	}
}

// umask sets a umask for one test. It belongs to the whole process, so tests
// that use it are not parallel.
func umask(t *testing.T, mask int) {
	t.Helper()
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

func TestWriteFile(t *testing.T) {
	umask(t, 0o077)
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := fsx.WriteFile(path, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	holds(t, path, "one", 0o644)
	if err := fsx.WriteFile(path, []byte("two"), 0o444); err != nil {
		t.Fatal(err)
	}
	holds(t, path, "two", 0o444)
	if err := fsx.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	holds(t, path, "", 0o600)
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("the folder holds %q, want one file", got)
	}
}

func TestWriteFileReplacesALink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := fsx.WriteFile(link, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	holds(t, target, "keep", 0o600)
	holds(t, link, "new", 0o600)
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	f, err := fsx.Create(path, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"one ", "two"} {
		if n, err := f.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before Commit: Lstat = %v, want no such file", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || !fsx.IsTemp(entries[0].Name()) {
		t.Fatalf("before Commit the folder holds %v, %v; want one temporary file", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode() != 0o600 {
		t.Errorf("the temporary file has mode %v, %v; want 0600", info.Mode(), err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("Close after Commit = %v", err)
	}
	holds(t, path, "one two", 0o644)
	names(t, dir)
	if _, err := f.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Write after Commit = %v, want closed", err)
	}
	if err := f.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("second Commit = %v, want closed", err)
	}
}

func TestAbort(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := fsx.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := fsx.Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if err := f.Abort(); err != nil {
		t.Errorf("Abort = %v", err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("Close after Abort = %v", err)
	}
	if err := f.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Commit after Abort = %v, want closed", err)
	}
	holds(t, path, "old", 0o600)
	names(t, dir)
}

func TestFailureLeavesTheOldState(t *testing.T) {
	dir := t.TempDir()
	if err := fsx.WriteFile(filepath.Join(dir, "absent", "a"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("WriteFile into an absent folder = %v, want no such file", err)
	}
	folder := filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := fsx.WriteFile(folder, []byte("x"), 0o600); err == nil {
		t.Error("WriteFile over a folder succeeded")
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("the folder holds %q, want %q", got, "folder")
	}
}

func TestMkdir(t *testing.T) {
	umask(t, 0o077)
	dir := t.TempDir()
	path := filepath.Join(dir, "a") + "/"
	if err := fsx.Mkdir(path, 0o555); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeDir|0o555 {
		t.Errorf("mode %v, %v; want a folder with 0555", info.Mode(), err)
	}
	if err := fsx.Mkdir(path, 0o700); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Mkdir = %v, want exists", err)
	}
	if err := fsx.Mkdir(filepath.Join(dir, "b", "c"), 0o700); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Mkdir below an absent folder = %v, want no such file", err)
	}
}

func TestRename(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for path, data := range map[string]string{a: "new", b: "old"} {
		if err := fsx.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := fsx.Rename(a, b); err != nil {
		t.Fatal(err)
	}
	holds(t, b, "new", 0o600)
	sub := filepath.Join(dir, "sub")
	if err := fsx.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := fsx.Rename(b, filepath.Join(sub, "c")); err != nil {
		t.Fatal(err)
	}
	holds(t, filepath.Join(sub, "c"), "new", 0o600)
	if err := fsx.Rename(sub, filepath.Join(dir, "moved")+"/"); err != nil {
		t.Errorf("Rename of a folder = %v", err)
	}
	if got := names(t, dir); len(got) != 1 || got[0] != "moved" {
		t.Errorf("the folder holds %q, want moved", got)
	}
	if err := fsx.Rename(a, b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Rename of nothing = %v, want no such file", err)
	}
}

func TestSyncDir(t *testing.T) {
	dir := t.TempDir()
	if err := fsx.SyncDir(dir); err != nil {
		t.Error(err)
	}
	file := filepath.Join(dir, "a")
	if err := fsx.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fsx.SyncDir(file); err == nil {
		t.Error("SyncDir of a file succeeded")
	}
	if err := fsx.SyncDir(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("SyncDir of nothing = %v, want no such file", err)
	}
}

func TestOpenRegularRefuses(t *testing.T) {
	dir, err := os.MkdirTemp("", "fsx") // short, for the path of the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(in("file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("file", in("link")), os.Symlink("absent", in("dangling")), os.Symlink("loop", in("loop")),
		os.Mkdir(in("folder"), 0o700), syscall.Mkfifo(in("pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, path := range []string{in("link"), in("dangling"), in("loop"), in("folder"), in("pipe"), in("socket"), "/dev/null"} {
		f, err := fsx.OpenRegular(path)
		if f != nil || !errors.Is(err, fsx.ErrNotRegular) {
			t.Errorf("OpenRegular(%s) = %v, %v; want ErrNotRegular", path, f, err)
		}
		if data, err := fsx.ReadFile(path, 10); data != nil || !errors.Is(err, fsx.ErrNotRegular) {
			t.Errorf("ReadFile(%s) = %q, %v; want ErrNotRegular", path, data, err)
		}
		var at *fs.PathError
		if !errors.As(err, &at) || at.Path != path {
			t.Errorf("OpenRegular(%s) = %v; want the path named", path, err)
		}
	}
	if _, err := fsx.OpenRegular(in("absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenRegular of nothing = %v, want no such file", err)
	}
	if _, err := fsx.OpenRegular(in("loop") + "/x"); err == nil || errors.Is(err, fsx.ErrNotRegular) {
		t.Errorf("OpenRegular through a loop = %v, want the system's error", err)
	}
	f, err := fsx.OpenRegular(in("file"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	data := strings.Repeat("0123456789", 1000)
	if err := fsx.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int64{10000, 10001, math.MaxInt64} {
		got, err := fsx.ReadFile(path, limit)
		if err != nil || string(got) != data {
			t.Errorf("ReadFile with limit %d = %d bytes, %v", limit, len(got), err)
		}
	}
	for _, limit := range []int64{-1, 0, 9999} {
		if got, err := fsx.ReadFile(path, limit); got != nil || !errors.Is(err, fsx.ErrTooLarge) {
			t.Errorf("ReadFile with limit %d = %d bytes, %v; want ErrTooLarge", limit, len(got), err)
		}
	}
	if _, err := fsx.ReadFile(path, 9999); err == nil || !strings.HasSuffix(err.Error(), ": file too large: it has 10000 bytes, and at most 9999 are read") {
		t.Errorf("ReadFile of a file too large: %v", err)
	}
	// A file whose size is not known beforehand, as one that grows.
	got, err := fsx.ReadFile("/proc/self/status", 1<<20)
	if err != nil || !strings.HasPrefix(string(got), "Name:") {
		t.Errorf("ReadFile of /proc/self/status = %d bytes, %v", len(got), err)
	}
	if got, err := fsx.ReadFile("/proc/self/status", 100); got != nil || !errors.Is(err, fsx.ErrTooLarge) {
		t.Errorf("ReadFile of /proc/self/status with limit 100 = %d bytes, %v; want ErrTooLarge", len(got), err)
	}
	if err := fsx.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := fsx.ReadFile(path, 0); err != nil || len(got) != 0 {
		t.Errorf("ReadFile of an empty file = %q, %v", got, err)
	}
}

func TestIsTemp(t *testing.T) {
	for name, want := range map[string]bool{
		".fsx-123.tmp": true, ".fsx-.tmp": false, ".fsx-123": false, "fsx-1.tmp": false, "a.tmp": false, "": false, ".fsx.tmp": false,
	} {
		if got := fsx.IsTemp(name); got != want {
			t.Errorf("IsTemp(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestByUmask(t *testing.T) {
	for mask, want := range map[int]fs.FileMode{0o022: 0o644, 0o077: 0o600, 0o007: 0o660, 0: 0o666} {
		umask(t, mask)
		if got := fsx.ByUmask(0o666); got != want {
			t.Errorf("umask %03o leaves %03o, want %03o", mask, got, want)
		}
	}
}

// A name that something has is not taken, whatever that is.
func TestRenameNewReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, there := range []func() error{
		func() error { return os.WriteFile(to, []byte("mine"), 0o600) },
		func() error { return os.Mkdir(to, 0o700) },
		func() error { return os.Symlink("nowhere", to) },
	} {
		if err := errors.Join(os.WriteFile(from, []byte("new"), 0o600), there()); err != nil {
			t.Fatal(err)
		}
		was, err := os.Lstat(to)
		if err != nil {
			t.Fatal(err)
		}
		if err := fsx.RenameNew(from, to); !errors.Is(err, fs.ErrExist) {
			t.Errorf("over %v: %v", was.Mode(), err)
		}
		if is, err := os.Lstat(to); err != nil || !os.SameFile(was, is) {
			t.Errorf("%v was replaced: %v", was.Mode(), err)
		}
		if err := os.Remove(to); err != nil {
			t.Fatal(err)
		}
	}
	if err := fsx.RenameNew(from, to); err != nil {
		t.Error(err)
	}
	if raw, err := os.ReadFile(to); err != nil || string(raw) != "new" {
		t.Errorf("%q, %v", raw, err)
	}
}
