package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/server/api"
)

// dataFile makes a version of a data bundle with these files.
func (l *lab) dataFile(name string, version int, files map[string]string) string {
	l.t.Helper()
	all := map[string]string{"stella.toml": fmt.Sprintf(`schema = "stella.bundle/1"
kind = "data"
publisher = "acme"
name = %q
version = "1.0.%d"
sequence = %d
%s
[data]
media_type = "text/plain"
`, name, version, version, created)}
	for path, text := range files {
		all[path] = text
	}
	return l.bundle(all)
}

// audit wants sealed storage to be as the ledger says.
func (l *lab) audit() api.AuditReport {
	l.t.Helper()
	rep, err := l.site().AuditStorage(context.Background(), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	if rep.Damage > 0 {
		l.t.Errorf("sealed storage is damaged: %+v", rep.Findings)
	}
	return rep
}

// Imports, repeated imports and collections at the same time lose nothing: what
// the ledger says is here, is here, and what it gave up comes back.
func TestCollectionsAndImportsTogether(t *testing.T) {
	l := newLab(t)
	const versions = 6
	var paths []string
	for i := 1; i <= versions; i++ {
		paths = append(paths, l.dataFile("audit-data", i, map[string]string{
			"shared.txt": "the same in all", fmt.Sprintf("pair%d.txt", i/2): fmt.Sprintf("pair %d", i/2), "own.txt": fmt.Sprintf("version %d", i),
		}))
	}
	for _, p := range paths {
		l.importFile(p)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for n := range 3 {
		rnd := rand.New(rand.NewPCG(seed, uint64(n)))
		wg.Go(func() {
			for range 25 {
				p := paths[rnd.IntN(versions)]
				if _, err := l.site().ImportBundle(context.Background(), api.ImportRequest{Path: p}, nil); err != nil {
					t.Errorf("import of %s: %v", filepath.Base(p), err)
				}
			}
		})
	}
	given := 0
	collector := sync.WaitGroup{}
	collector.Go(func() {
		for {
			rep, err := l.site().CollectGarbage(context.Background(), api.GCRequest{Keep: 1 + given%2}, nil)
			if err != nil {
				t.Errorf("collection: %v", err)
				return
			}
			given += len(rep.Bundles)
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	wg.Wait()
	close(stop)
	collector.Wait()
	if given == 0 {
		t.Error("no collection gave up anything: the test tests nothing")
	}
	l.audit()
	l.verify()
	for _, p := range paths {
		l.importFile(p)
	}
	l.audit()
	l.verify()
	l.reopen()
	l.audit()
}

// What a run was planned with stays, however old: its plugin, its data, its DAG.
func TestACollectionKeepsWhatRunsNeed(t *testing.T) {
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.importFile(l.dataFile("audit-data", 1, map[string]string{"a.txt": "one"}))
	l.publish("1.0.0", strings.Replace(hello, `action = "run"`, `action = "run"
data = ["acme/audit-data@1.0.1"]`, 1))
	l.start(api.StartRequest{DAGID: "audit"})
	l.execute()
	l.importFile(l.dataFile("audit-data", 2, map[string]string{"a.txt": "two"}))
	l.importFile(l.dataFile("audit-data", 3, map[string]string{"a.txt": "three"}))
	rep, err := l.site().CollectGarbage(context.Background(), api.GCRequest{Keep: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Bundles) != 1 || rep.Bundles[0] != "acme/audit-data@1.0.2" || rep.Blobs != 1 || len(rep.Seq) != 1 {
		t.Errorf("given up %+v, want the contents of 1.0.2", rep)
	}
	if len(rep.Kept) != 1 || rep.Kept[0].Bundle != "acme/audit-data@1.0.1" {
		t.Errorf("kept %+v, want 1.0.1", rep.Kept)
	}
	l.audit()
	l.verify()
	l.reopen()
	l.start(api.StartRequest{DAGID: "audit", RunToken: "again"})
	l.execute()
	show, err := l.site().ShowBundle(context.Background(), "acme/audit-data@1.0.2")
	if err != nil {
		t.Fatal(err)
	}
	blob := show.Files[0].SHA256
	if _, err := os.Stat(filepath.Join(l.home, "sealed", "sha256", blob[:2], blob)); !os.IsNotExist(err) {
		t.Errorf("what was given up is still in its place: %v", err)
	}
}

// A version that is revoked supersedes nothing: the one before it stays.
func TestARevokedVersionSupersedesNothing(t *testing.T) {
	l := newLab(t)
	l.importFile(l.dataFile("audit-data", 1, map[string]string{"a.txt": "one"}))
	l.importFile(l.dataFile("audit-data", 2, map[string]string{"a.txt": "two"}))
	bad := l.importFile(l.dataFile("audit-data", 3, map[string]string{"a.txt": "three"}))
	if _, err := l.site().RevokeTrust(context.Background(), api.TrustRevocation{Manifest: bad.Verdict.Digest, Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	rep, err := l.site().CollectGarbage(context.Background(), api.GCRequest{Keep: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Bundles) != 1 || rep.Bundles[0] != "acme/audit-data@1.0.1" {
		t.Errorf("given up %v, want 1.0.1 alone", rep.Bundles)
	}
	l.audit()
	l.verify()
}

// A delta may build upon what is here, and not upon what was given up.
func TestADeltaNeedsContentsThatAreHere(t *testing.T) {
	l := newLab(t)
	one := l.dataFile("audit-data", 1, map[string]string{"a.txt": "alpha", "b.txt": "beta"})
	l.importFile(one)
	l.importFile(l.dataFile("audit-data", 2, map[string]string{"a.txt": "alpha 2"}))
	delta := l.deltaFile("audit-data", 3, map[string]string{"a.txt": "alpha", "b.txt": "beta", "c.txt": "gamma"}, "alpha", "beta")
	if _, err := l.site().CollectGarbage(context.Background(), api.GCRequest{Keep: 1}, nil); err != nil {
		t.Fatal(err)
	}
	_, err := l.site().ImportBundle(context.Background(), api.ImportRequest{Path: delta}, nil)
	if codeOf(err) != "BLOB_MISSING" {
		t.Errorf("a delta of what was given up: %v", err)
	}
	l.importFile(one)
	l.importFile(delta)
	l.audit()
	l.verify()
}

// Contents of a base count only while nothing revokes it: not its manifest, not
// a file of it, not its signer.
func TestARevokedBaseIsNoBase(t *testing.T) {
	for name, revoke := range map[string]func(base api.ImportResult) api.TrustRevocation{
		"manifest": func(b api.ImportResult) api.TrustRevocation { return api.TrustRevocation{Manifest: b.Verdict.Digest} },
		"another file of it": func(api.ImportResult) api.TrustRevocation {
			return api.TrustRevocation{Blob: bundle.Digest([]byte("only in the base"))}
		},
		"nothing of it": func(api.ImportResult) api.TrustRevocation {
			return api.TrustRevocation{Manifest: bundle.Digest([]byte("some other bundle"))}
		},
	} {
		l := newLab(t)
		base := l.importFile(l.dataFile("audit-data", 1, map[string]string{"a.txt": "alpha", "b.txt": "only in the base"}))
		delta := l.deltaFile("audit-data", 2, map[string]string{"a.txt": "alpha", "c.txt": "gamma"}, "alpha")
		r := revoke(base)
		r.Reason = "test"
		if _, err := l.site().RevokeTrust(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		_, err := l.site().VerifyBundle(context.Background(), api.VerifyRequest{Path: delta}, nil)
		_, ierr := l.site().ImportBundle(context.Background(), api.ImportRequest{Path: delta}, nil)
		want := api.Code("BLOB_MISSING")
		if name == "nothing of it" {
			want = ""
		}
		if codeOf(err) != want || codeOf(ierr) != want {
			t.Errorf("%s is revoked: verify says %v, import %v; want %q", name, err, ierr, want)
		}
		l.audit()
	}
}

// A base whose sealed content is damaged does not count either.
func TestADamagedBaseIsNoBase(t *testing.T) {
	l := newLab(t)
	one := l.dataFile("audit-data", 1, map[string]string{"a.txt": "alpha"})
	l.importFile(one)
	delta := l.deltaFile("audit-data", 2, map[string]string{"a.txt": "alpha", "c.txt": "gamma"}, "alpha")
	sum := bundle.Digest([]byte("alpha"))
	overwrite(t, filepath.Join(l.home, "sealed", "sha256", sum[:2], sum), []byte("alphb"))
	if _, err := l.site().ImportBundle(context.Background(), api.ImportRequest{Path: delta}, nil); codeOf(err) != "BLOB_MISSING" {
		t.Errorf("a delta of what is damaged: %v", err)
	}
	rep, err := l.site().AuditStorage(context.Background(), nil)
	if err != nil || rep.Damage == 0 {
		t.Errorf("the damage is not found: %+v, %v", rep, err)
	}
	l.importFile(one)
	l.importFile(delta)
	l.audit()
}
