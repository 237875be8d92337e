package engine_test

import (
	"context"
	"errors"
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

// A ledger.db of another site is told as that, whether its keys came with it or not, and a
// restore takes nothing from it for what this site had.
func TestALedgerOfAnotherSite(t *testing.T) {
	ctx := context.Background()
	mine, other := newLab(t), newLab(t)
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		other.script("audit-"+name, helloScript, true)
	}
	status, err := mine.site().Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	others, err := other.site().Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mine.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	mine.closed()
	other.closed()
	keys := filepath.Join(mine.home, "keys")
	for _, with := range []string{"ledger.db alone", "its keys too"} {
		if err := os.Remove(filepath.Join(mine.home, "ledger.db")); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(other.home, "ledger.db"))
		if err == nil {
			err = os.WriteFile(filepath.Join(mine.home, "ledger.db"), raw, 0o600)
		}
		if with == "its keys too" {
			err = errors.Join(err, os.Rename(keys, keys+".mine"), os.CopyFS(keys, os.DirFS(filepath.Join(other.home, "keys"))), os.Chmod(keys, 0o700))
		}
		if err != nil {
			t.Fatal(err)
		}
		_, rerr := engine.Recover(ctx, engine.RecoverOptions{Home: mine.home, DryRun: true})
		for what, err := range map[string]error{"opened": mine.tryOpen(), "recovered": rerr} {
			want := "ledger.db is of site " + others.SiteID + ", and this home is of site " + status.SiteID
			if codeOf(err) != api.CodeDamaged || !strings.Contains(err.Error(), want) || !strings.Contains(err.(*api.Error).Hint, "restore-snapshot --latest") {
				t.Errorf("%s, %s: %v, want %q", with, what, err, want)
			}
		}
	}
	if err := errors.Join(os.RemoveAll(keys), os.Rename(keys+".mine", keys)); err != nil {
		t.Fatal(err)
	}
	r, err := engine.Restore(ctx, engine.RestoreOptions{Home: mine.home, Latest: true, Actor: who})
	if err != nil || r.Known < status.Entries || r.Known >= others.Entries {
		t.Errorf("restored %+v, %v: this site had %d entries, the other %d", r, err, status.Entries, others.Entries)
	}
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
