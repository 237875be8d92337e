package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// offlineEnv marks the test process that already is in an empty network
// namespace.
const offlineEnv = "STELLA_TEST_OFFLINE"

// TestOffline runs a core of the suite again where there is no network.
func TestOffline(t *testing.T) {
	offline(t, func() {
		runScripts(t, false, "orch_run_fail")
		runScripts(t, false, "export")
		runScripts(t, false, "verify")
	})
}

// offline runs a test's body in a process of its own whose network namespace
// holds nothing but a loopback device, which is down.
func offline(t *testing.T, body func()) {
	t.Helper()
	if os.Getenv(offlineEnv) != "" {
		raw, err := os.ReadFile("/proc/net/dev")
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(raw), ":"); n != 1 {
			t.Fatalf("there are %d network devices here, want the loopback alone:\n%s", n, raw)
		}
		body()
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), offlineEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Skipf("NOT TESTED: this machine makes no network namespaces: %v", err)
	}
	if err != nil {
		t.Fatalf("offline: %v\n%s", err, out)
	}
}
