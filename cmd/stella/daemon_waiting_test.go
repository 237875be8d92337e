package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/server/api"
)

// TestMarkingChild is a process that marks a home, does not end at SIGTERM, and ends with its input.
func TestMarkingChild(t *testing.T) {
	home := os.Getenv("STELLA_TEST_MARKS")
	if home == "" {
		t.Skip("it is started by the tests of marks")
	}
	signal.Ignore(syscall.SIGTERM)
	m, err := fsx.Mark(home)
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	defer m.Close()
	fmt.Println("marked")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// marking starts a process of a program that marks a home. It ends with the test, or when the
// result is called, which says whether it had not ended before.
func marking(t *testing.T, program, home string, uid int, args ...string) (pid int, end func() error) {
	t.Helper()
	cmd := exec.Command(program, append([]string{"-test.run=^TestMarkingChild$"}, args...)...)
	cmd.Env = append(os.Environ(), "STELLA_TEST_MARKS="+home)
	cmd.Dir = "/"
	if uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "marked\n" {
		t.Fatalf("the child said %q", line)
	}
	return cmd.Process.Pid, func() error {
		in.Close()
		return cmd.Wait()
	}
}

func TestAMarkIsBelievedOfADaemonAlone(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := tempHome(t)
	stranger, same := filepath.Join(dir, "stranger"), filepath.Join(dir, filepath.Base(self))
	if err := copyFile(self, stranger); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(stranger, same); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "home")
	if _, err := engine.Init(home, engine.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	me := os.Geteuid()
	for _, c := range []struct {
		name, program string
		uid           int
		args          []string
		believed      bool
	}{
		{"a daemon", self, me, []string{"daemon", "start", "--foreground"}, true},
		{"a daemon of a file that was replaced", same, me, []string{"daemon", "start"}, true},
		{"another command", self, me, []string{"status"}, false},
		{"another command of daemon", self, me, []string{"daemon", "status"}, false},
		{"another program", stranger, me, []string{"daemon", "start"}, false},
		{"another user", same, 12345, []string{"daemon", "start"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.uid != me {
				if me != 0 {
					t.Skip("NOT TESTED: only root starts processes of other users")
				}
				for _, d := range []string{filepath.Dir(dir), dir, home} {
					if err := os.Chmod(d, 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			pid, end := marking(t, c.program, home, c.uid, c.args...)
			a, _, stderr := newTestApp(home)
			a.opt.home, a.ends = home, 0
			if by, err := fsx.MarkedBy(home); err != nil || by != pid {
				t.Fatalf("marked by %d, %v; want %d", by, err, pid)
			}
			want := 0
			if c.believed {
				want = pid
			}
			if got := a.waits(); got != want {
				t.Errorf("the daemon that waits is %d, want %d", got, want)
			}
			code := run(t.Context(), a, []string{"daemon", "stop"})
			says := "note: no daemon was running"
			if c.believed {
				says = fmt.Sprintf("stella: daemon stop: the daemon (pid %d)", pid)
			}
			if !strings.HasPrefix(stderr.String(), says) || c.believed != (code == exitLocked) {
				t.Errorf("daemon stop: exit %d, stderr %q, want %q", code, stderr, says)
			}
			if err := end(); err != nil {
				t.Errorf("it had ended: %v", err)
			}
		})
	}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// What ends a daemon that has served, and what it waits for.
func TestADaemonWaitsForWhatPasses(t *testing.T) {
	for code, waits := range map[api.Code]bool{
		api.CodeNoSpace: true, api.CodeLocked: true, api.CodeRestoring: true,
		api.CodeDamaged: false, api.CodeNotWritable: false, api.CodeFloorAhead: false, api.CodeForbidden: false,
	} {
		if why := passing(fmt.Errorf("open: %w", &api.Error{Code: code})); (why != "") != waits {
			t.Errorf("%s: it says %q", code, why)
		}
	}
	for err, waits := range map[error]bool{syscall.ENOSPC: true, syscall.EIO: false, nil: false, context.Canceled: false} {
		if why := passing(err); (why != "") != waits {
			t.Errorf("%v: it says %q", err, why)
		}
	}
}
