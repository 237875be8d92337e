package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

// closed closes the site of a lab.
func (l *lab) closed() {
	l.t.Helper()
	if err := l.e.Close(); err != nil {
		l.t.Fatal(err)
	}
}

// What a snapshot and a compaction need is what they will write: neither pages that are free
// nor what the file has behind its pages, of which a disk may have nothing.
func TestWhatWillBeWrittenIsCounted(t *testing.T) {
	ctx := context.Background()
	const most = 8 << 20
	l := newLab(t)
	l.closed()
	if err := os.Truncate(filepath.Join(l.home, "ledger.db"), 1<<40); err != nil {
		t.Fatal(err)
	}
	l.open()
	snap, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{DryRun: true}, nil)
	if err != nil || snap.Bytes > most {
		t.Errorf("a snapshot: %d bytes, %v", snap.Bytes, err)
	}
	l.closed()
	for _, dry := range []bool{true, false} {
		c, err := engine.Compact(ctx, engine.Options{Home: l.home}, who, dry)
		if err != nil || c.Before != 1<<40 || !dry && c.After > 1<<30 {
			t.Errorf("a compaction, dry %v: %+v, %v", dry, c, err)
		}
	}
	l.open()
	l.verify()
}

// A sealed manifest that is missing is damage, and no fault of the DAG that names it: the
// bundle brings it back.
func TestAManifestThatIsMissing(t *testing.T) {
	ctx := context.Background()
	for _, of := range []string{"the plugin", "the DAG"} {
		l := newLab(t)
		plugin, dag := l.scriptFile("audit-hello", helloScript, true), l.dagFile("1.0.0", hello)
		digest := l.importFile(plugin).Verdict.Digest
		d, err := l.site().PublishDAG(ctx, l.importFile(dag).Verdict.Digest)
		if err != nil {
			t.Fatal(err)
		}
		path := plugin
		if of == "the DAG" {
			digest, path = d.Digest, dag
		}
		unlink(t, l.sealedFile(digest))
		l.reopen() // what it has read before, it has in memory
		req := api.StartRequest{DAGID: "audit", Inputs: []byte(`{"who":"me"}`)}
		_, started := l.site().StartRun(ctx, req)
		_, planned := l.site().PlanRun(ctx, req)
		for what, err := range map[string]error{"started": started, "planned": planned} {
			if codeOf(err) != api.CodeDamaged || !strings.Contains(err.Error(), "manifest "+digest+" is missing") || !strings.Contains(err.(*api.Error).Hint, "bundle import") {
				t.Errorf("without that of %s, %s: %v", of, what, err)
			}
		}
		l.importFile(path)
		l.start(req)
		l.audit()
	}
}
