package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/server/api"
)

// stored lists the files below logs/ that are segments.
func (l *lab) stored() []string {
	l.t.Helper()
	files, err := filepath.Glob(filepath.Join(l.home, "logs", "*", "*.jsonl"))
	if err != nil {
		l.t.Fatal(err)
	}
	return files
}

// text is what the attempts of a run wrote.
func (l *lab) text(run string) string {
	l.t.Helper()
	var all []string
	err := l.site().RunLogs(context.Background(), api.LogQuery{RunID: run}, func(line api.LogLine) error {
		all = append(all, line.Stream+": "+line.Text)
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

// What an attempt wrote has a file while it is under way, and only what is long
// keeps one. The other is read, audited, collected and exported like any.
func TestAShortLogHasNoFileOfItsOwn(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	l.script("audit-hello", "ls \"$PWD\"/../../../../../logs/open | wc -l\n"+helloScript, true)
	l.publish("1.0.0", hello)
	run := l.start(api.StartRequest{DAGID: "audit"}).Run.RunID
	l.execute()
	if files := l.stored(); len(files) != 0 {
		t.Errorf("short logs have files: %v", files)
	}
	const want = "stdout: 0\nstdout: on stdout\nstderr: on stderr"
	for _, line := range strings.Split(want, "\n") {
		if got := l.text(run); !strings.Contains(got, line) {
			t.Errorf("the run wrote %q; want %q in it", got, line)
		}
	}
	before := l.text(run)
	l.reopen()
	if _, err := l.site().CollectGarbage(ctx, api.GCRequest{Keep: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if rep, err := l.site().AuditStorage(ctx, nil); err != nil || len(rep.Findings) > 0 {
		t.Errorf("audit: %+v, %v", rep.Findings, err)
	}
	if got := l.text(run); got != before {
		t.Errorf("after a collection the run wrote %q, before it %q", got, before)
	}
	l.verify()
	if _, err := l.site().CreateExport(ctx, api.ExportRequest{Path: filepath.Join(t.TempDir(), "a.tar")}, nil); err != nil {
		t.Errorf("export: %v", err)
	}
}

// A crash after the end of an attempt was recorded leaves the file of its log:
// the next open removes it, and keeps what is all that is left of an output.
func TestFilesOfShortLogsAreSwept(t *testing.T) {
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	run := l.start(api.StartRequest{DAGID: "audit"}).Run.RunID
	l.execute()
	dir := filepath.Join(l.home, "logs", "open")
	ended, unknown := filepath.Join(dir, run+".a.1.jsonl"), filepath.Join(dir, run+".a.2.jsonl")
	for _, path := range []string{ended, unknown} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.reopen()
	if _, err := os.Stat(ended); !os.IsNotExist(err) {
		t.Errorf("the log of an ended attempt is still there: %v", err)
	}
	if _, err := os.Stat(unknown); err != nil {
		t.Errorf("a log that nothing else holds: %v", err)
	}
}
