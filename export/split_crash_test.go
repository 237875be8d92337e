//go:build failpoint

package export_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/failpoint"
)

const crashPath = "EXPORT_TEST_CRASH_PATH"

// TestSplitCrashChild replaces parts by others, and is killed on the way.
func TestSplitCrashChild(t *testing.T) {
	path := os.Getenv(crashPath)
	if path == "" {
		t.Skip("started by TestSplitCrash")
	}
	s, err := export.NewSplit(path, export.MinPart, true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Write(after())
	if err == nil {
		err = s.Commit()
	}
	if errors.Is(err, failpoint.ErrInjected) {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		os.Exit(3)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func before() []byte { return noise(5*export.MinPart + 5) }
func after() []byte  { return append([]byte("new"), noise(3*export.MinPart)...) }

// Whenever the writer is killed, or a step fails, the first part is there only if all
// are, the old ones or the new ones; and where a step fails nothing half-written is left.
func TestSplitCrash(t *testing.T) {
	seen := map[string]int{}
	for name, hits := range map[string]int{failpoint.FSXWrite: 6, failpoint.FSXSync: 6, failpoint.FSXRename: 10, failpoint.FSXSyncDir: 20} {
		for i := 1; i <= hits; i++ {
			for _, action := range []string{"kill", "error"} {
				path := filepath.Join(t.TempDir(), "a.tar")
				split(t, path, export.MinPart, false, before())
				cmd := exec.Command(os.Args[0], "-test.run=^TestSplitCrashChild$")
				cmd.Env = append(os.Environ(), crashPath+"="+path, fmt.Sprintf("%s=%s=%d:%s", failpoint.Env, name, i, action))
				out, err := cmd.CombinedOutput()
				what := fmt.Sprintf("%s=%d:%s", name, i, action)
				var exit *exec.ExitError
				if err != nil && (!errors.As(err, &exit) || exit.ExitCode() == 1) {
					t.Fatalf("%s: %v\n%s", what, err, out)
				}
				state := joinedState(t, path)
				seen[action+" "+state]++
				if state == "torn" || err == nil && state != "new" {
					t.Errorf("%s: the parts are %s: %v", what, state, list(t, filepath.Dir(path)))
				}
				left := list(t, filepath.Dir(path))
				if action == "error" && slices.ContainsFunc(left, func(name string) bool { return name[0] == '.' }) {
					t.Errorf("%s: left are %v", what, left)
				}
			}
		}
	}
	for _, want := range []string{"kill old", "kill none", "kill new", "error old"} {
		if seen[want] == 0 {
			t.Errorf("no case of %q: %v", want, seen)
		}
	}
}

// joinedState says what cat gives of the parts: none without a first one.
func joinedState(t *testing.T, path string) string {
	t.Helper()
	var all []byte
	for n := 1; ; n++ {
		raw, err := os.ReadFile(fmt.Sprintf("%s.%03d", path, n))
		if err != nil {
			break
		}
		all = append(all, raw...)
	}
	switch {
	case len(all) == 0:
		return "none"
	case bytes.Equal(all, before()):
		return "old"
	case bytes.Equal(all, after()):
		return "new"
	}
	return "torn"
}
