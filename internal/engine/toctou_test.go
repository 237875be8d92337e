package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/sandbox"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// sealedVictims are what a run of one step relies on, by what it is.
func sealedVictims(l *lab, plugin, data string) map[string]string {
	l.t.Helper()
	out := map[string]string{"manifest of the plugin": plugin, "manifest of the data": data}
	for what, digest := range map[string]string{"plugin": plugin, "data": data} {
		d, err := l.site().ShowBundle(context.Background(), digest)
		if err != nil {
			l.t.Fatal(err)
		}
		out["signature of the "+what] = d.Admission.Signatures[0]
		out["content of the "+what] = d.Files[0].SHA256
	}
	return out
}

// TestSealedBytesAreNotBelieved changes, through the whole way from the sealed
// store to the process, each thing that a step relies on: after the run was
// accepted, with everything in memory or read anew, and after the attempt was
// prepared, before its process exists. The run then completes with what was
// verified, or fails with a code, and other bytes are never used.
func TestSealedBytesAreNotBelieved(t *testing.T) {
	all := []string{"manifest of the plugin", "manifest of the data", "signature of the plugin", "signature of the data", contentPlugin, contentData}
	try := func(how, moment string, what ...string) {
		t.Run(strings.Join(what, ", ")+" "+how+" "+moment, func(t *testing.T) { attackSealed(t, what, how, moment) })
	}
	for _, what := range all {
		try("swapped", "before a restart", what)
		try("swapped", "before the attempt", what)
	}
	try("rewritten in place", "before the attempt", contentPlugin)
	try("rewritten in place", "before the attempt", contentData)
	try("swapped", "before the start", all...)
	try("rewritten in place", "before the start", all...)
}

const contentPlugin, contentData = "content of the plugin", "content of the data"

func attackSealed(t *testing.T, what []string, how, moment string) {
	l := newLab(t)
	mark := filepath.Join(t.TempDir(), "mark")
	l.script("audit-hello", "cat data/*/list 2>/dev/null || cat ../data/*/list\necho '{\"output\":{\"n\":42}}' >> \"$STELLA_OUTPUT\"\n", false)
	data := l.importFile(l.bundle(map[string]string{
		"stella.toml": "schema = \"stella.bundle/1\"\nkind = \"data\"\npublisher = \"acme\"\nname = \"audit-list\"\nversion = \"1.0.0\"\nsequence = 1\n" +
			created + "\n[data]\nmedia_type = \"text/plain\"\n",
		"list": "good\n",
	}))
	plugin, err := l.site().ShowBundle(context.Background(), "acme/audit-hello@1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	l.publish("1.0.0", "[[step]]\nid = \"a\"\nplugin = \"acme/audit-hello@1.0.0\"\naction = \"run\"\ndata = [\"acme/audit-list@1.0.0\"]\n")
	victims := sealedVictims(l, plugin.Digest, data.Verdict.Digest)
	started := l.start(api.StartRequest{DAGID: "audit"})
	strike := sync.OnceFunc(func() {
		for _, w := range what {
			strikeSealed(t, l.home, victims[w], how, []byte("touch "+mark+"\necho evil\n"))
		}
	})
	switch moment {
	case "before a restart":
		strike()
		l.reopen()
	case "before the attempt":
		strike()
	case "before the start":
		l.closing(strike)
	}
	if moment != "before the attempt" {
		if _, err := l.site().ResumeRun(context.Background(), ""); err != nil {
			if codeOf(err) == "" || moment == "before the start" {
				t.Fatal(err)
			}
			return // refused with a code, and nothing runs
		}
	}
	first := l.firstAttempt(started.Run.RunID)
	said := l.logText(started.Run.RunID)
	if _, err := os.Stat(mark); err == nil || strings.Contains(said, "evil") {
		t.Fatalf("other bytes were used: %+v, %q", first, said)
	}
	switch {
	case first.Outcome == string(state.Succeeded):
		if said != "good\n" {
			t.Errorf("it succeeded and said %q", said)
		}
		if moment == "before the attempt" && strings.HasPrefix(what[0], "content") || moment == "before a restart" {
			t.Errorf("it succeeded without %s", what)
		}
	case first.ErrorCode == "" || moment == "before the start":
		t.Errorf("the attempt is %+v", first)
	}
}

// firstAttempt executes until the first attempt of a run has ended; what would
// be tried again later is not waited for.
func (l *lab) firstAttempt(run string) *ledger.AttemptEnd {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.e.Execute(ctx, engine.Idle) }()
	for ctx.Err() == nil {
		d, err := l.site().InspectRun(ctx, run)
		if err != nil {
			l.t.Error(err)
			break
		}
		if len(d.Attempts) > 0 && d.Attempts[0].End != nil {
			cancel()
			<-done
			return d.Attempts[0].End
		}
		<-time.After(5 * time.Millisecond)
	}
	l.t.Fatalf("no attempt of the run ended: %v", <-done)
	return nil
}

// strikeSealed changes a sealed file, for somebody who has the rights to.
func strikeSealed(t *testing.T, home, digest, how string, raw []byte) {
	path := filepath.Join(home, "sealed", "sha256", digest[:2], digest)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("nothing to change: %v", err)
		return
	}
	if how == "swapped" {
		overwrite(t, path, raw)
		return
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, raw, 0o644); err != nil { // the same inode
		t.Error(err)
	}
}

// closing opens the site again with an executor whose clock, which is read when
// an attempt is prepared and has no process yet, does something first.
func (l *lab) closing(strike func()) {
	l.t.Helper()
	if err := l.e.Close(); err != nil {
		l.t.Fatal(err)
	}
	e, err := engine.Open(context.Background(), engine.Options{
		Home: l.home, Mode: engine.ModeForeground, Executes: true, Version: "0.1.0",
		Executor: sandbox.New(sandbox.Options{Now: func() time.Time { strike(); return time.Now() }}),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.e = e
	l.t.Cleanup(func() { e.Close() })
}

func (l *lab) logText(run string) string {
	l.t.Helper()
	var out strings.Builder
	err := l.site().RunLogs(context.Background(), api.LogQuery{RunID: run, StepID: "a"}, func(x api.LogLine) error {
		fmt.Fprintln(&out, x.Text)
		return nil
	})
	if err != nil && codeOf(err) != api.CodeNotFound {
		l.t.Error(err)
	}
	return out.String()
}
