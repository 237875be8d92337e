//go:build failpoint

package fsx_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/fsx"
)

const crashDir = "FSX_TEST_CRASH_DIR"

// steps is what the child does; after a crash each must be done or not begun.
func steps(dir string) error {
	if err := fsx.WriteFile(filepath.Join(dir, "a"), []byte("new"), 0o600); err != nil {
		return err
	}
	if err := fsx.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		return err
	}
	return fsx.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "d", "a"))
}

// TestCrashChild is the child of TestCrash and does nothing by itself.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("started by TestCrash")
	}
	err := steps(dir)
	if errors.Is(err, failpoint.ErrInjected) {
		os.Exit(3)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestCrash(t *testing.T) {
	hits := map[string]int{failpoint.FSXWrite: 1, failpoint.FSXSync: 1, failpoint.FSXRename: 2, failpoint.FSXSyncDir: 5}
	for name, n := range hits {
		for i := 1; i <= n+1; i++ {
			for _, action := range []string{"kill", "error"} {
				what := fmt.Sprintf("%s=%d:%s", name, i, action)
				t.Run(what, func(t *testing.T) { crash(t, what, action, i <= n) })
			}
		}
	}
}

func crash(t *testing.T, what, action string, fires bool) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir, failpoint.Env+"="+what)
	out, err := cmd.CombinedOutput()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	fired := status.Signaled() && status.Signal() == syscall.SIGKILL
	if action == "error" {
		fired = status.ExitStatus() == 3
	}
	if fired != fires || !fires && err != nil {
		t.Fatalf("child ended with %v, want fired = %v: %s", err, fires, out)
	}
	got := ""
	for _, path := range []string{"a", filepath.Join("d", "a")} {
		data, err := os.ReadFile(filepath.Join(dir, path))
		if err == nil {
			got += path + "=" + string(data)
		}
	}
	switch {
	case got != "a=old" && got != "a=new" && got != "d/a=new":
		t.Errorf("left %q, want one whole file", got)
	case !fires && got != "d/a=new":
		t.Errorf("left %q, want all steps done", got)
	}
	if action == "error" {
		names(t, dir)
	}
}
