//go:build failpoint

package engine_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/server/api"
)

// unrecordedChild says in which variable TestUnrecordedChild is told its home.
const unrecordedChild = "STELLA_UNRECORDED_HOME"

// TestUnrecordedChild makes what no entry can be written of, since the disk is full.
func TestUnrecordedChild(t *testing.T) {
	home := os.Getenv(unrecordedChild)
	if home == "" {
		t.Skip("it is started by TestWhatCannotBeRecorded")
	}
	e, err := engine.Open(context.Background(), engine.Options{Home: home, Version: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	site := e.As(api.Principal{Name: who})
	_, err = site.CreateSnapshot(context.Background(), api.SnapshotRequest{}, nil)
	t.Log("snapshot:", told(err))
	for _, split := range []int64{0, 64 << 10} {
		_, err = site.CreateExport(context.Background(), api.ExportRequest{Path: filepath.Join(home, "..", "x.tar"), PartBytes: split}, nil)
		t.Log("export:", told(err))
	}
}

// An archive whose entry cannot be written does not stay: what leaves a site is on record. A
// snapshot stays, as it may be the last of a site that cannot be written; both are told.
func TestWhatCannotBeRecorded(t *testing.T) {
	l := newLab(t)
	if _, err := l.site().Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestUnrecordedChild$", "-test.v")
	cmd.Env = append(os.Environ(), unrecordedChild+"="+l.home, failpoint.Env+"="+failpoint.StoreCommitBefore+"=2:full")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	archive := filepath.Join(l.home, "..", "x.tar")
	if n := strings.Count(string(out), "x.tar, which is not on record, was removed"); n != 2 || strings.Count(string(out), "export: NO_SPACE") != n {
		t.Errorf("exports:\n%s", out)
	}
	for _, name := range []string{archive, archive + ".001", archive + ".sha256"} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, after, found := strings.Cut(string(out), "snapshot: NO_SPACE")
	_, after, said := strings.Cut(after, "the snapshot ")
	dir, _, _ := strings.Cut(after, " is whole, and not on record")
	if _, err := os.Stat(filepath.Join(dir, "SHA256SUMS")); err != nil || !found || !said {
		t.Errorf("snapshot: %v\n%s", err, out)
	}
	l.open()
	l.verify()
}
