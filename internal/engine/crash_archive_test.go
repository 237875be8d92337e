//go:build failpoint

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/server/api"
)

// TestCrashArchiveChild is the process that is killed: it archives what runs have left.
func TestCrashArchiveChild(t *testing.T) {
	home := os.Getenv("STELLA_CRASH_ARCHIVE")
	if home == "" {
		t.Skip("it is started by TestCrashInAnArchive")
	}
	e, err := engine.Open(context.Background(), engine.Options{Home: home, Version: "0.1.0"})
	if err == nil {
		_, err = e.As(api.Principal{Name: who}).ArchiveRuns(context.Background(), api.ArchiveRequest{OlderThanMs: 1}, nil)
		if err == nil {
			fmt.Println("archived")
		}
		err = errors.Join(err, e.Close())
	}
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(3)
	}
	os.Exit(0)
}

// Wherever an archiving is cut off, everything can be read, nothing is damaged, and the same
// command finishes it: then what has moved is in an archive on record and nowhere else, and
// nothing unfinished is left.
func TestCrashInAnArchive(t *testing.T) {
	l := leaver(t, "")
	runs := []string{l.leave("me")}
	l.reopen()
	runs = append(runs, l.leave("you"))
	l.reopen()
	// A short log as well, which is in the database.
	l.script("audit-short", helloScript, true)
	short := l.importFile(l.dagFileOf("1.0.1", 2, strings.ReplaceAll(hello[:strings.LastIndex(hello, "[[step]]")], "audit-hello", "audit-short")))
	if _, err := l.site().PublishDAG(context.Background(), short.Verdict.Digest); err != nil {
		t.Fatal(err)
	}
	runs = append(runs, l.start(api.StartRequest{DAGID: "audit"}).Run.RunID)
	l.execute()
	texts := map[string]string{}
	for _, run := range runs {
		texts[run] = l.text(run)
	}
	digest, text, _ := l.artifact(runs[0])
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(l.home, "trash", "20260101T000000Z-00000000"), 0o700); err != nil {
		t.Fatal(err)
	}
	look := func(e *engine.Engine) error {
		c := lab{t: t, home: l.home, e: e}
		for run, want := range texts {
			if got := c.text(run); got != want {
				return fmt.Errorf("run %s wrote %q, before %q", run, got, want)
			}
		}
		if got, have, err := c.artifact(runs[0]); err != nil || got != digest || have != text {
			return fmt.Errorf("the artifact is %q, %w", have, err)
		}
		rep, err := c.site().AuditStorage(context.Background(), nil)
		if err != nil || rep.Damage > 0 {
			return fmt.Errorf("audit: %+v, %w", rep.Findings, err)
		}
		_, err = c.site().VerifyLedger(context.Background(), api.LedgerCheck{Full: true}, nil)
		return err
	}
	for _, name := range []string{
		failpoint.FSXRename, failpoint.FSXSyncDir, failpoint.StoreCommitBefore, failpoint.StoreCommitAfter,
		failpoint.SealBlob, failpoint.ArchiveWrite, failpoint.GCMove, failpoint.GCEmpty,
	} {
		for _, how := range []string{"kill", "error"} {
			for hit := 1; ; hit++ {
				home := filepath.Join(t.TempDir(), "site")
				copySite(t, l.home, home)
				struck, err := crashArchiveOnce(home, fmt.Sprintf("%s=%d:%s", name, hit, how), look)
				if err != nil {
					t.Errorf("%s=%d:%s: %v", name, hit, how, err)
				}
				if !struck {
					if hit == 1 && name != failpoint.SealBlob {
						t.Errorf("%s is not on the way", name)
					}
					break
				}
			}
		}
	}
}

func crashArchiveOnce(home, fail string, look func(*engine.Engine) error) (struck bool, err error) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashArchiveChild$")
	cmd.Env = append(os.Environ(), "STELLA_CRASH_ARCHIVE="+home, failpoint.Env+"="+fail)
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && (exit.ExitCode() == -1 || strings.Contains(string(out), "injected")):
		struck = true
	case err != nil:
		return false, fmt.Errorf("the child ended with %w:\n%s", err, out)
	}
	open := func() (*engine.Engine, error) {
		return engine.Open(context.Background(), engine.Options{Home: home, Version: "0.1.0"})
	}
	e, err := open()
	if err != nil {
		return struck, err
	}
	if err := errors.Join(look(e), e.Close()); err != nil {
		return struck, fmt.Errorf("after it: %w; the child said %s", err, out)
	}
	if e, err = open(); err != nil {
		return struck, err
	}
	defer e.Close()
	site := e.As(api.Principal{Name: who})
	if _, err := site.ArchiveRuns(context.Background(), api.ArchiveRequest{OlderThanMs: 1}, nil); err != nil {
		return struck, fmt.Errorf("again: %w", err)
	}
	if err := look(e); err != nil {
		return struck, fmt.Errorf("after it was done again: %w", err)
	}
	return struck, archivedOnce(home, site)
}

// archivedOnce wants everything to be in archives on record, and in no other place.
func archivedOnce(home string, site api.Site) error {
	left, err := filepath.Glob(filepath.Join(home, "logs", "*", "*.jsonl"))
	if err != nil || len(left) > 0 {
		return fmt.Errorf("segments are left: %v, %w", left, err)
	}
	all, err := site.ListArchives(context.Background())
	if err != nil {
		return err
	}
	var logs, artifacts int64
	known := map[string]bool{}
	for _, x := range all {
		logs, artifacts, known[x.File] = logs+x.Logs, artifacts+x.Artifacts, true
		if x.State != api.ArchiveHere || filepath.Base(x.Path) != x.File {
			return fmt.Errorf("an archive on record is %+v", x)
		}
	}
	if logs != 3 || artifacts != 2 {
		return fmt.Errorf("%d logs and %d artifacts are archived", logs, artifacts)
	}
	files, err := os.ReadDir(filepath.Join(home, "archives"))
	for _, f := range files {
		if !known[f.Name()] {
			return fmt.Errorf("%s is left", f.Name())
		}
	}
	return err
}
