package gobin_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stellarun/stella/examples/audit/internal/gobin"
)

// program copies this test's own program to path: a Go program that is surely
// here.
func program(t testing.TB, path string) []byte {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, raw)
	return raw
}

func write(t testing.TB, path string, raw []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
}

func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestScan(t *testing.T) {
	dir := tempDir(t)
	raw := program(t, filepath.Join(dir, "sub/tool"))
	write(t, filepath.Join(dir, "text"), []byte("not a program"))
	write(t, filepath.Join(dir, "empty"), nil)
	write(t, filepath.Join(dir, "cut"), raw[:len(raw)/3])
	write(t, filepath.Join(dir, "fake"), append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...))
	if err := os.Symlink("sub/tool", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(dir, "everything")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := gobin.Scan(t.Context(), []string{dir, filepath.Join(dir, "sub"), filepath.Join(dir, "none")}, gobin.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Programs) != 1 || got.Programs[0].Path != filepath.Join(dir, "sub/tool") {
		t.Fatalf("programs %+v; want sub/tool alone, once", got.Programs)
	}
	p := got.Programs[0]
	if p.Size != int64(len(raw)) || len(p.SHA256) != 64 || !strings.HasPrefix(p.Info.GoVersion, "go1.") {
		t.Errorf("program %+v", p)
	}
	if got.Files != 5 || got.Links != 2 || got.Roots != 1 {
		t.Errorf("%d files, %d links, %d roots; want 5, 2, 1", got.Files, got.Links, got.Roots)
	}
}

func TestScanOfOneFileAndOfMissingRoots(t *testing.T) {
	dir := tempDir(t)
	program(t, filepath.Join(dir, "tool"))
	got, err := gobin.Scan(t.Context(), []string{filepath.Join(dir, "tool"), "/no/such/folder"}, gobin.Limits{})
	if err != nil || len(got.Programs) != 1 || len(got.Missing) != 1 || got.Missing[0] != "/no/such/folder" {
		t.Errorf("Scan = %+v, %v; want one program and one missing root", got, err)
	}
}

func TestScanLimits(t *testing.T) {
	dir := tempDir(t)
	program(t, filepath.Join(dir, "a/b/tool"))
	for _, c := range []struct {
		name   string
		limits gobin.Limits
		count  func(gobin.Result) int
	}{
		{"size", gobin.Limits{FileSize: 1000}, func(r gobin.Result) int { return r.Oversized }},
		{"read budget", gobin.Limits{Read: 100}, func(r gobin.Result) int { return r.Malformed }},
		{"depth", gobin.Limits{Depth: 1}, func(r gobin.Result) int { return r.TooDeep }},
	} {
		r, err := gobin.Scan(t.Context(), []string{dir}, c.limits)
		if err != nil || len(r.Programs) != 0 || c.count(r) != 1 {
			t.Errorf("%s: %+v, %v; want no program and a count of 1", c.name, r, err)
		}
	}
	if _, err := gobin.Scan(t.Context(), []string{dir}, gobin.Limits{Files: 2}); !errors.Is(err, gobin.ErrLimit) {
		t.Errorf("files: %v; want ErrLimit", err)
	}
}

func TestScanStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := gobin.Scan(ctx, []string{tempDir(t)}, gobin.Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Scan = %v; want Canceled", err)
	}
}

// FuzzScan: whatever a file holds, the scan ends well and counts it.
func FuzzScan(f *testing.F) {
	raw := program(f, filepath.Join(f.TempDir(), "tool"))
	for _, s := range [][]byte{
		raw[:4096], raw[:64], []byte("\x7fELF\x01\x02\x01"), []byte("MZ"), []byte("\xcf\xfa\xed\xfe\x07\x00\x00\x01"), []byte("\xca\xfe\xba\xbe\xff\xff\xff\xff"), nil,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := tempDir(t)
		write(t, filepath.Join(dir, "file"), content)
		r, err := gobin.Scan(t.Context(), []string{dir}, gobin.Limits{Read: 8 << 20})
		if err != nil || r.Files != 1 || len(r.Programs)+r.Malformed+r.Unreadable > 1 {
			t.Errorf("Scan = %+v, %v", r, err)
		}
	})
}
