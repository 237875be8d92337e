//go:build failpoint

package engine_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/runner/sandbox"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// TestCrashChild is the process that is killed: it imports, publishes, runs and
// exports, and says on standard output what it was told is done.
func TestCrashChild(t *testing.T) {
	home, media := os.Getenv("STELLA_CRASH_HOME"), os.Getenv("STELLA_CRASH_MEDIA")
	if home == "" {
		t.Skip("it is started by TestCrashAtEveryFailpoint")
	}
	if err := crashJob(home, media); err != nil {
		fmt.Println("failed:", err)
		os.Exit(3)
	}
	os.Exit(0)
}

func crashJob(home, media string) error {
	ctx := context.Background()
	e, err := engine.Open(ctx, engine.Options{
		Home: home, Mode: engine.ModeForeground, Executes: true, Version: "0.1.0", Executor: sandbox.New(sandbox.Options{}),
	})
	if err != nil {
		return err
	}
	site := e.As(api.Principal{Name: who})
	for _, name := range []string{"audit-hello-1.0.0.stella", "audit-1.0.0.stella"} {
		res, err := site.ImportBundle(ctx, api.ImportRequest{Path: filepath.Join(media, name)}, nil)
		if err != nil {
			return err
		}
		fmt.Println("bundle", res.Verdict.Digest)
	}
	if _, err := site.PublishDAG(ctx, "acme/audit@1.0.0"); err != nil {
		return err
	}
	fmt.Println("dag audit")
	if _, err := site.StartRun(ctx, api.StartRequest{DAGID: "audit", RunToken: "crash"}); err != nil {
		return err
	}
	fmt.Println("run crash")
	if err := e.Execute(ctx, engine.Idle); err != nil {
		return err
	}
	fmt.Println("ended crash")
	if _, err := site.CreateExport(ctx, api.ExportRequest{Path: filepath.Join(filepath.Dir(home), "a.tar")}, nil); err != nil {
		return err
	}
	if err := crashCollect(ctx, site, home, media); err != nil {
		return err
	}
	return e.Close()
}

// crashCollect gives up the contents of a superseded bundle, and empties the
// trash of what has been there for long.
func crashCollect(ctx context.Context, site api.Site, home, media string) error {
	_, err := site.ImportMedia(ctx, api.MediaRequest{Paths: []string{media}}, func(e api.MediaEvent) {
		if e.Item != nil && e.Item.Outcome == api.OutcomeAdmitted {
			fmt.Println("bundle", e.Item.Verdict.Digest)
		}
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(home, "trash", "20260101T000000Z-00000000"), 0o700); err != nil {
		return err
	}
	rep, err := site.CollectGarbage(ctx, api.GCRequest{Keep: 1}, nil)
	if err != nil {
		return err
	}
	if len(rep.Bundles) != 1 {
		return fmt.Errorf("the collection gave up %+v", rep)
	}
	return nil
}

// A process is killed at each durable step in turn. Whatever it was told is
// done is still there, the site opens, checks clean, and the run completes.
func TestCrashAtEveryFailpoint(t *testing.T) {
	l := newLab(t)
	media := t.TempDir()
	for name, path := range map[string]string{
		"audit-hello-1.0.0.stella": l.scriptFile("audit-hello", helloScript, true),
		"audit-1.0.0.stella":       l.dagFile("1.0.0", hello),
		"audit-data-1.0.1.stella":  l.dataFile("audit-data", 1, map[string]string{"a.txt": "one"}),
		"audit-data-1.0.2.stella":  l.dataFile("audit-data", 2, map[string]string{"a.txt": "two"}),
	} {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(media, name), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	configure(t, l.home, "\n[[sink]]\nname = \"record\"\ntopics = [\"*\"]\nfrom = \"start\"\n")
	killed := 0
	for _, name := range failpoint.Names() {
		for _, hit := range []int{1, 2, 5, 9} {
			home := filepath.Join(t.TempDir(), "site")
			copySite(t, l.home, home)
			if crashOnce(t, home, media, fmt.Sprintf("%s=%d:kill", name, hit)) {
				killed++
			}
		}
	}
	if killed < len(failpoint.Names()) {
		t.Errorf("only %d of the children were killed: the failpoints are not on the way", killed)
	}
}

func crashOnce(t *testing.T, home, media, fail string) (killed bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), "STELLA_CRASH_HOME="+home, "STELLA_CRASH_MEDIA="+media, failpoint.Env+"="+fail)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == -1 {
		killed = true
	} else if err != nil {
		t.Errorf("%s: the child ended with %v:\n%s", fail, err, out)
		return false
	}
	var e *engine.Engine
	for range 500 { // a process that it was about to start may hold the lock for a moment
		e, err = engine.Open(context.Background(), engine.Options{
			Home: home, Mode: engine.ModeForeground, Executes: true, Version: "0.1.0", Executor: sandbox.New(sandbox.Options{}),
		})
		var locked *api.Error
		if !errors.As(err, &locked) || locked.Code != api.CodeLocked {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		t.Errorf("%s: the site does not open: %v", fail, err)
		return killed
	}
	if err := errors.Join(afterCrash(e, out), e.Close(), recorded(home, "record")); err != nil {
		t.Errorf("%s: %v; the child said:\n%s", fail, err, out)
	}
	return killed
}

// afterCrash holds what the child was told against what is there.
func afterCrash(e *engine.Engine, told []byte) error {
	ctx := context.Background()
	site := e.As(api.Principal{Name: who})
	if _, err := site.VerifyLedger(ctx, api.LedgerCheck{Full: true}, nil); err != nil {
		return fmt.Errorf("the ledger does not verify: %w", err)
	}
	rep, err := site.AuditStorage(ctx, nil)
	if err != nil || rep.Damage > 0 {
		return fmt.Errorf("audit: %+v, %w", rep.Findings, err)
	}
	if _, err := site.ResumeRun(ctx, ""); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if err := e.Execute(ctx, engine.Idle); err != nil {
		return fmt.Errorf("execute: %w", err)
	}
	runs, err := site.ListRuns(ctx, api.RunQuery{})
	if err != nil {
		return err
	}
	for s := bufio.NewScanner(bytes.NewReader(told)); s.Scan(); {
		what, name, _ := strings.Cut(s.Text(), " ")
		switch what {
		case "bundle":
			_, err = site.ShowBundle(ctx, name)
		case "dag":
			_, err = site.ShowDAG(ctx, name, "")
		case "run", "ended":
			if len(runs.Runs) != 1 || runs.Runs[0].RunToken != name || runs.Runs[0].Status != state.Completed {
				err = fmt.Errorf("the runs are %+v", runs.Runs)
			}
		}
		if err != nil {
			return fmt.Errorf("%s was acknowledged: %w", s.Text(), err)
		}
	}
	_, err = site.VerifyLedger(ctx, api.LedgerCheck{Full: true}, nil)
	return err
}
