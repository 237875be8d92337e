//go:build failpoint

package failpoint_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stellarun/stella/internal/failpoint"
)

const child = "FAILPOINT_TEST_CHILD"

// TestChild hits one failpoint four times and prints what came back.
func TestChild(t *testing.T) {
	if os.Getenv(child) == "" {
		t.Skip("started by TestHit")
	}
	if err := failpoint.Hit(failpoint.FSXSync); err != nil {
		t.Fatal("another failpoint fired")
	}
	for range 4 {
		err := failpoint.Hit(failpoint.FSXWrite)
		if err != nil && !errors.Is(err, failpoint.ErrInjected) {
			t.Fatal(err)
		}
		fmt.Println("hit", err != nil)
	}
}

func TestHit(t *testing.T) {
	for _, tc := range []struct {
		env, want string // hits that passed (p) and failed (f)
		killed    bool
		panics    bool
	}{
		{env: "", want: "pppp"},
		{env: "fsx.write=error", want: "ffff"},
		{env: "fsx.write=3:error", want: "ppff"},
		{env: "fsx.write=3:full", want: "ppff"},
		{env: "fsx.rename=error", want: "pppp"},
		{env: "fsx.write=kill", killed: true},
		{env: "fsx.write=1:kill", killed: true},
		{env: "fsx.write=4:kill", want: "ppp", killed: true},
		{env: "fsx.write=5:kill", want: "pppp"},
		{env: "fsx.write", panics: true},
		{env: "fsx.write=0:kill", panics: true},
		{env: "fsx.write=x:kill", panics: true},
		{env: "fsx.write=stop", panics: true},
		{env: "unknown=kill", panics: true},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
		cmd.Env = append(os.Environ(), child+"=1", failpoint.Env+"="+tc.env)
		out, err := cmd.CombinedOutput()
		got := ""
		for line := range strings.Lines(string(out)) {
			switch line {
			case "hit false\n":
				got += "p"
			case "hit true\n":
				got += "f"
			}
		}
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		killed := status.Signaled() && status.Signal() == syscall.SIGKILL
		panics := strings.Contains(string(out), "panic: failpoint:")
		if got != tc.want || killed != tc.killed || panics != tc.panics || (err != nil) != (killed || panics) {
			t.Errorf("%s=%q: hits %q, killed %v, panics %v, %v; want %q, %v, %v\n%s",
				failpoint.Env, tc.env, got, killed, panics, err, tc.want, tc.killed, tc.panics, out)
		}
	}
}

func TestUnknownNamePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Hit of a name that is not listed returned")
		}
	}()
	_ = failpoint.Hit("fsx.nothing")
}
