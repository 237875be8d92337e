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
	"strconv"
	"strings"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/failpoint"
)

const (
	crashPath = "EXPORT_TEST_CRASH_PATH"
	crashSize = "EXPORT_TEST_CRASH_SIZE"
)

// TestOutputCrashChild replaces an archive by another, and is killed on the way.
func TestOutputCrashChild(t *testing.T) {
	path := os.Getenv(crashPath)
	if path == "" {
		t.Skip("started by TestOutputCrash")
	}
	size, err := strconv.ParseInt(os.Getenv(crashSize), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	s, err := export.NewOutput(path, export.OutputOptions{PartBytes: size, Force: true})
	if errors.Is(err, failpoint.ErrInjected) {
		os.Exit(3)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Write(after())
	if err == nil {
		err = s.Finish()
	}
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

func old() []byte   { return noise(5*export.MinPart + 5) }
func after() []byte { return append([]byte("new"), noise(3*export.MinPart)...) }

// Whenever the writer is killed, or a step fails, the first part is there only if all are, the old
// ones or the new ones; and where a step fails one of them is there, and nothing half-written is
// left. Of whole archives one is there in any case.
func TestOutputCrash(t *testing.T) {
	const whole = 0
	for _, x := range []struct{ before, after int64 }{{export.MinPart, export.MinPart}, {whole, export.MinPart}, {export.MinPart, whole}, {whole, whole}} {
		seen := map[string]int{}
		for _, name := range []string{failpoint.FSXWrite, failpoint.FSXSync, failpoint.FSXRename, failpoint.FSXSyncDir} {
			for _, action := range []string{"kill", "error"} {
				for i, ended := 1, false; !ended; i++ {
					fail := fmt.Sprintf("%s=%d:%s", name, i, action)
					state := crashed(t, x.before, x.after, fail)
					seen[action+" "+state]++
					if torn := state == "torn" || state == "none" && (action == "error" || x.after == whole); torn {
						t.Errorf("%d for %d, %s: what is there is %s", x.after, x.before, fail, state)
					}
					ended = state == "new, all done"
				}
			}
		}
		for _, want := range []string{"kill old", "kill new, all done", "error old", "error new"} {
			if seen[want] == 0 {
				t.Errorf("%d for %d: no case of %q: %v", x.after, x.before, want, seen)
			}
		}
	}
}

// crashed replaces an archive and says what is there: the old one, the new one, none or something
// else.
func crashed(t *testing.T, before, after int64, fail string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.tar")
	split(t, path, before, false, old())
	cmd := exec.Command(os.Args[0], "-test.run=^TestOutputCrashChild$")
	cmd.Env = append(os.Environ(), crashPath+"="+path, fmt.Sprint(crashSize, "=", after), failpoint.Env+"="+fail)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() == 1) {
		t.Fatalf("%s: %v\n%s", fail, err, out)
	}
	state := thereIs(t, path)
	if hidden := slices.ContainsFunc(list(t, dir), func(name string) bool { return name[0] == '.' }); hidden && strings.HasSuffix(fail, "error") {
		t.Errorf("%s: left are %v", fail, list(t, dir))
	}
	if err == nil {
		if _, gone := os.Stat(path); state != "new" || (gone == nil) != (after == 0) {
			t.Errorf("%s: it has ended, and %s is there: %v", fail, state, list(t, dir))
		}
		state += ", all done"
	}
	return state
}

// thereIs says what a reader finds: the whole archive, or the parts if there is a first one.
func thereIs(t *testing.T, path string) string {
	t.Helper()
	whole, err := os.ReadFile(path)
	parts := joined(path)
	if err != nil {
		whole = parts
	}
	switch {
	case len(whole) == 0:
		return "none"
	case bytes.Equal(whole, old()):
		return "old"
	case bytes.Equal(whole, after()):
		return "new"
	}
	return "torn"
}

// joined is what cat gives of the parts.
func joined(path string) (all []byte) {
	for n := 1; ; n++ {
		raw, err := os.ReadFile(fmt.Sprintf("%s.%03d", path, n))
		if err != nil {
			return all
		}
		all = append(all, raw...)
	}
}
