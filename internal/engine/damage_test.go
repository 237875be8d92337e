package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// hanging executes nothing to its end; its attempts are what a crash leaves.
type hanging struct{ started chan struct{} }

func (hanging) Tier() string { return "plain" }

func (h hanging) Execute(context.Context, runner.Task) (runner.Report, error) {
	h.started <- struct{}{}
	select {}
}

// One damaged run does not keep a site from opening: its attempts end as what
// nobody may repeat, and every other command works.
func TestADamagedRunDoesNotLockTheSite(t *testing.T) {
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	d := l.publish("1.0.0", hello)
	l.e.Close()
	h := hanging{make(chan struct{}, 1)}
	e, err := engine.Open(context.Background(), engine.Options{
		Home: l.home, Mode: engine.ModeForeground, Executes: true, Version: "0.1.0", Executor: h,
	})
	if err != nil {
		t.Fatal(err)
	}
	l.e = e
	run := l.start(api.StartRequest{DAGID: "audit"}).Run
	go e.Execute(context.Background(), engine.Idle) // never returns
	<-h.started
	// The process dies: its lock goes, nothing else is done.
	copied := filepath.Join(t.TempDir(), "site")
	copySite(t, l.home, copied)
	path := filepath.Join(copied, "sealed", "sha256", d.Digest[:2], d.Digest)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	e, err = engine.Open(context.Background(), engine.Options{Home: copied, Version: "0.1.0"})
	if err != nil {
		t.Fatalf("the site does not open: %v", err)
	}
	defer e.Close()
	site := e.As(api.Principal{Name: who})
	page, err := site.ListRuns(context.Background(), api.RunQuery{})
	if err != nil || len(page.Runs) != 1 || page.Runs[0].RunID != run.RunID || page.Runs[0].Open != 0 || page.Runs[0].Status != state.Running {
		t.Errorf("runs %+v, %v", page.Runs, err)
	}
	if _, err := site.VerifyLedger(context.Background(), api.LedgerCheck{Full: true}, nil); err == nil {
		t.Error("the damage is not found")
	}
	lines, err := site.TailLedger(context.Background(), api.LedgerQuery{Type: "attempt.ended"})
	if err != nil || len(lines) != 1 {
		t.Errorf("%d ends of attempts, %v", len(lines), err)
	}
}
