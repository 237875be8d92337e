package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// Whoever opens a site after a crash ends what was under way, of a parent and of its
// sub-run beside each other, and only then tells the parent: it always ends alike.
func TestAParentIsToldOnceAllIsRecovered(t *testing.T) {
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.script("audit-once", helloScript, false)
	l.publishChild()
	res := l.importFile(l.dagFileOf("2.0.0", 2, `[[step]]
id = "sub"
dag = "audit-child@1.0.0"
[[step]]
id = "x1"
plugin = "acme/audit-once@1.0.0"
action = "run"
[[step]]
id = "x2"
plugin = "acme/audit-hello@1.0.0"
action = "run"
`))
	if _, err := l.site().PublishDAG(context.Background(), res.Verdict.Digest); err != nil {
		t.Fatalf("%+v", err)
	}
	l.e.Close()
	f, err := os.OpenFile(filepath.Join(l.home, "site.toml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "workers = 4\nmax_parallel_steps = 8\n")
	f.Close()
	h := hanging{make(chan struct{}, 8)}
	if l.e, err = engine.Open(context.Background(), engine.Options{Home: l.home, Mode: engine.ModeForeground, Executes: true, Version: "0.1.0", Executor: h}); err != nil {
		t.Fatal(err)
	}
	run := l.start(api.StartRequest{DAGID: "audit", Version: "2.0.0"}).Run
	go l.e.Execute(context.Background(), engine.Idle)
	for range 3 {
		<-h.started
	}
	for range 12 {
		copied := filepath.Join(t.TempDir(), "site") // as it is on disk now: of a process that was killed
		copySite(t, l.home, copied)
		removable(t, copied)
		e, err := engine.Open(context.Background(), engine.Options{Home: copied, Mode: engine.ModeDaemon, Executes: true, Version: "0.1.0", Executor: h})
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.As(api.Principal{Name: who}).GetRun(context.Background(), run.RunID)
		if err != nil || got.Status != state.Failed || got.FailureReason != string(state.Indeterminate) {
			t.Errorf("the run is %s, %s, %v", got.Status, got.FailureReason, err)
		}
		for _, s := range got.StepList {
			if want := map[string]state.Status{"sub": state.Failed, "x1": state.Failed, "x2": state.Skipped}[s.StepID]; s.Status != want {
				t.Errorf("step %s is %s, want %s", s.StepID, s.Status, want)
			}
		}
		e.Close()
	}
}

func (l *lab) publishChild() {
	l.t.Helper()
	res := l.importFile(l.bundle(map[string]string{
		"stella.toml": fmt.Sprintf(`schema = "stella.bundle/1"
kind = "dag"
publisher = "acme"
name = "audit-child"
version = "1.0.0"
sequence = 1
%s
[dag]
spec = "dag.toml"
`, created),
		"dag.toml": "schema = \"stella.dag/1\"\ndag_id = \"audit-child\"\nversion = \"1.0.0\"\n[[step]]\nid = \"a\"\nplugin = \"acme/audit-once@1.0.0\"\naction = \"run\"\n",
	}))
	if _, err := l.site().PublishDAG(context.Background(), res.Verdict.Digest); err != nil {
		l.t.Fatalf("%+v", err)
	}
}
