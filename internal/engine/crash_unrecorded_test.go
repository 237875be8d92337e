//go:build failpoint

package engine_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/server/api"
)

// In these variables TestUnrecordedChild is told its home, and which export to make; without it
// makes a snapshot, and all.
const (
	unrecordedChild = "STELLA_UNRECORDED_HOME"
	unrecordedOne   = "STELLA_UNRECORDED_EXPORT"
)

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
	if n, err := strconv.Atoi(os.Getenv(unrecordedOne)); err == nil {
		_, err = site.CreateExport(context.Background(), exports(home)[n], nil)
		t.Log("export:", told(err))
		return
	}
	_, err = site.CreateSnapshot(context.Background(), api.SnapshotRequest{}, nil)
	t.Log("snapshot:", told(err))
	for _, req := range exports(home) {
		_, err = site.CreateExport(context.Background(), req, nil)
		t.Log("export:", told(err))
	}
}

// exports are a whole archive, one in parts, and both where they take the place of another file.
func exports(home string) []api.ExportRequest {
	dir := filepath.Dir(home)
	return []api.ExportRequest{
		{Path: filepath.Join(dir, "x.tar")}, {Path: filepath.Join(dir, "y.tar"), PartBytes: 64 << 10},
		{Path: filepath.Join(dir, "z.tar"), Force: true}, {Path: filepath.Join(dir, "z.tar"), PartBytes: 64 << 10, Force: true},
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
	old := filepath.Join(l.home, "..", "z.tar")
	if err := os.WriteFile(old, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	nothing := func(out string) {
		t.Helper()
		raw, err := os.ReadFile(old)
		if names := beside(t, l.home); err != nil || !slices.Equal(names, []string{"z.tar"}) || string(raw) != "x" {
			t.Errorf("%q, %v\n%s", names, err, out)
		}
	}
	out := unrecorded(t, l.home, "", failpoint.StoreCommitBefore+"=2:full")
	nothing(out)
	if strings.Count(out, "export: NO_SPACE") != len(exports(l.home)) {
		t.Errorf("exports:\n%s", out)
	}
	_, after, found := strings.Cut(out, "snapshot: NO_SPACE")
	_, after, said := strings.Cut(after, "the snapshot ")
	dir, _, _ := strings.Cut(after, " is whole, and not on record")
	if _, err := os.Stat(filepath.Join(dir, "SHA256SUMS")); err != nil || !found || !said {
		t.Errorf("snapshot: %v\n%s", err, out)
	}

	out = unrecorded(t, l.home, "", failpoint.FSXRename+"=error")
	nothing(out)
	l.open()
	for _, req := range exports(l.home) {
		if _, err := l.site().CreateExport(context.Background(), req, nil); err != nil {
			t.Errorf("again: %v", err)
		}
	}
	l.verify()
}

// unrecorded runs the child, and says what it has said.
func unrecorded(t *testing.T, home, one, fail string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestUnrecordedChild$", "-test.v")
	cmd.Env = append(os.Environ(), unrecordedChild+"="+home, unrecordedOne+"="+one, failpoint.Env+"="+fail)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// beside are the names beside a home.
func beside(t *testing.T, home string) (names []string) {
	t.Helper()
	found, err := os.ReadDir(filepath.Dir(home))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range found {
		if e.Name() != filepath.Base(home) {
			names = append(names, e.Name())
		}
	}
	return names
}

// Whatever renaming or syncing fails, and all after it: an archive that is in its place is on
// record, and told to be there; else what was there before is, alone, and it is told that an entry
// says otherwise if one does.
func TestAnArchiveInItsPlaceIsOnRecord(t *testing.T) {
	l := newLab(t)
	if _, err := l.site().Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	recorded := func() int {
		l.open()
		defer l.closed()
		all, err := l.site().ListExports(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	l.closed()
	told := map[string]int{}
	before := recorded()
	for one, req := range exports(l.home) {
		for _, name := range []string{failpoint.FSXRename, failpoint.FSXSyncDir} {
			for i, done := 1, false; !done; i++ {
				for _, name := range beside(t, l.home) {
					if err := os.RemoveAll(filepath.Join(l.home, "..", name)); err != nil {
						t.Fatal(err)
					}
				}
				was := []string(nil)
				if req.Force {
					was = []string{filepath.Base(req.Path)}
					if err := os.WriteFile(req.Path, []byte("x"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				fail := fmt.Sprintf("%s=%d:error", name, i)
				out := unrecorded(t, l.home, fmt.Sprint(one), fail)
				after := recorded()
				_, placed := os.Stat(req.Path + ".001")
				if raw, err := os.ReadFile(req.Path); req.PartBytes == 0 {
					if placed = err; string(raw) == "x" {
						placed = os.ErrNotExist
					}
				}
				done = strings.Contains(out, "export: ok")
				switch {
				case done, placed == nil && strings.Contains(out, "the archive is there"):
					told["there"]++
					if placed != nil || after != before+1 {
						t.Errorf("%+v, %s: %v, %d on record after %d\n%s", req, fail, placed, after, before, out)
					}
				case placed == nil || !slices.Equal(beside(t, l.home), was):
					t.Errorf("%+v, %s: there are %q\n%s", req, fail, beside(t, l.home), out)
				case strings.Contains(out, "says that the archive was made; make it again") != (after == before+1):
					t.Errorf("%+v, %s: %d on record after %d\n%s", req, fail, after, before, out)
				case after > before:
					told["an entry"]++
				default:
					told["nothing"]++
				}
				before = after
			}
		}
	}
	if told["there"] <= 8 || told["an entry"] < 8 || told["nothing"] < 8 {
		t.Errorf("so often was told: %v", told)
	}
}
