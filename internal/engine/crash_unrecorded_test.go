//go:build failpoint

package engine_test

import (
	"context"
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

// TestUnrecordedChild makes what an entry is written of.
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
	for _, req := range exports(home) {
		_, err = site.CreateExport(context.Background(), req, nil)
		t.Log("export:", told(err))
	}
}

// exports are a whole archive, one in parts, and one that takes the place of another file.
func exports(home string) []api.ExportRequest {
	dir := filepath.Dir(home)
	return []api.ExportRequest{
		{Path: filepath.Join(dir, "x.tar")}, {Path: filepath.Join(dir, "y.tar"), PartBytes: 64 << 10}, {Path: filepath.Join(dir, "z.tar"), Force: true},
	}
}

// An archive whose entry cannot be written does not take its path: what leaves a site is on record,
// and one that cannot take it is told. A snapshot stays, as it may be the last of a site that cannot
// be written.
func TestWhatCannotBeRecorded(t *testing.T) {
	l := newLab(t)
	if _, err := l.site().Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	l.closed()
	child := func(fail string) string {
		cmd := exec.Command(os.Args[0], "-test.run=^TestUnrecordedChild$", "-test.v")
		cmd.Env = append(os.Environ(), unrecordedChild+"="+l.home, failpoint.Env+"="+fail)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	old := filepath.Join(l.home, "..", "z.tar")
	if err := os.WriteFile(old, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	nothing := func(out string) {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(l.home, "..", "*.tar*"))
		raw, rerr := os.ReadFile(old)
		if err != nil || rerr != nil || len(names) != 1 || string(raw) != "x" {
			t.Errorf("%q, %v, %v\n%s", names, err, rerr, out)
		}
	}
	out := child(failpoint.StoreCommitBefore + "=2:full")
	nothing(out)
	if strings.Count(out, "export: NO_SPACE") != 3 {
		t.Errorf("exports:\n%s", out)
	}
	_, after, found := strings.Cut(out, "snapshot: NO_SPACE")
	_, after, said := strings.Cut(after, "the snapshot ")
	dir, _, _ := strings.Cut(after, " is whole, and not on record")
	if _, err := os.Stat(filepath.Join(dir, "SHA256SUMS")); err != nil || !found || !said {
		t.Errorf("snapshot: %v\n%s", err, out)
	}

	out = child(failpoint.FSXRename + "=error")
	nothing(out)
	if strings.Count(out, "says that the archive was made; make it again") < 2 { // one wants a checkpoint first
		t.Errorf("exports:\n%s", out)
	}
	l.open()
	for _, req := range exports(l.home) {
		if _, err := l.site().CreateExport(context.Background(), req, nil); err != nil {
			t.Errorf("again: %v", err)
		}
	}
	l.verify()
}
