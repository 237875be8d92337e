//go:build failpoint

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/runner/sandbox"
	"github.com/stellarun/stella/server/api"
)

// TestCrashReplayChild is the process that is killed: it replays the run that is
// there, and says when it was told of the end.
func TestCrashReplayChild(t *testing.T) {
	home := os.Getenv("STELLA_CRASH_REPLAY")
	if home == "" {
		t.Skip("it is started by TestCrashInAReplay")
	}
	if err := replayOnce(home, os.Getenv("STELLA_CRASH_RUN")); err != nil {
		fmt.Println("failed:", err)
		os.Exit(3)
	}
	os.Exit(0)
}

func replayOnce(home, run string) error {
	ctx := context.Background()
	e, err := engine.Open(ctx, executing(home))
	if err != nil {
		return err
	}
	if _, err := e.As(api.Principal{Name: who}).ReplayRun(ctx, run, api.ReplayRequest{Rationale: "test"}); err != nil {
		return err
	}
	if err := e.Execute(ctx, engine.Idle); err != nil {
		return err
	}
	return e.Close()
}

func executing(home string) engine.Options {
	return engine.Options{
		Home: home, Mode: engine.ModeForeground, Executes: true, Version: "0.1.0", Executor: sandbox.New(sandbox.Options{}),
	}
}

// Wherever a replay is cut off, it has ended and is compared, or neither: also one
// that fails.
func TestCrashInAReplay(t *testing.T) {
	for name, script := range map[string]string{"completed": helloScript, "failed": "exit 1\n"} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.script("audit-hello", script, true)
			l.publish("1.0.0", hello)
			run := l.start(api.StartRequest{DAGID: "audit"}).Run.RunID
			l.execute()
			if err := l.e.Close(); err != nil {
				t.Fatal(err)
			}
			for hit := 1; ; hit++ {
				home := filepath.Join(t.TempDir(), "site")
				copySite(t, l.home, home)
				if !crashReplayOnce(t, home, run, fmt.Sprintf("%s=%d:kill", failpoint.StoreCommitAfter, hit)) {
					if hit < 4 {
						t.Errorf("only %d commits were on the way of a replay", hit-1)
					}
					break
				}
			}
		})
	}
}

func crashReplayOnce(t *testing.T, home, run, fail string) (killed bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashReplayChild$")
	cmd.Env = append(os.Environ(), "STELLA_CRASH_REPLAY="+home, "STELLA_CRASH_RUN="+run, failpoint.Env+"="+fail)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == -1 {
		killed = true
	} else if err != nil {
		t.Errorf("%s: the child ended with %v:\n%s", fail, err, out)
		return false
	}
	e, err := engine.Open(context.Background(), executing(home))
	if err != nil {
		t.Errorf("%s: the site does not open: %v", fail, err)
		return killed
	}
	defer e.Close()
	if err := allCompared(e, killed); err != nil {
		t.Errorf("%s: %v", fail, err)
	}
	return killed
}

// allCompared ends what is open and looks whether each replay was compared, once.
func allCompared(e *engine.Engine, resume bool) error {
	ctx, site := context.Background(), e.As(api.Principal{Name: who})
	if resume {
		if _, err := site.ResumeRun(ctx, ""); err != nil {
			return err
		}
		if err := e.Execute(ctx, engine.Idle); err != nil {
			return err
		}
	}
	runs, err := site.ListRuns(ctx, api.RunQuery{})
	if err != nil {
		return err
	}
	for _, r := range runs.Runs {
		lines, err := site.TailLedger(ctx, api.LedgerQuery{RunID: r.RunID, Type: "run.compared"})
		if err != nil {
			return err
		}
		if want := r.ReplayOf != ""; !r.Status.Ended() || want != (len(lines) == 1) {
			return fmt.Errorf("run %s is %s, a replay of %q, and was compared %d times", r.RunID, r.Status, r.ReplayOf, len(lines))
		}
	}
	_, err = site.VerifyLedger(ctx, api.LedgerCheck{Full: true}, nil)
	return err
}
