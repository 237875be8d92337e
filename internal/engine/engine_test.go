package engine_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/runner/sandbox"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

const who = "uid:0(root)"

// lab is a site with one publisher, acme, whose key is at hand.
type lab struct {
	t    *testing.T
	home string
	key  *ecdsa.PrivateKey
	e    *engine.Engine
	omit func(sha256 string) bool // contents that bundles leave out
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, home: filepath.Join(t.TempDir(), "site")}
	removable(t, l.home)
	if _, err := engine.Init(l.home, engine.InitOptions{AllowPlain: true}); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.key, err = verify.GenerateKey(); err != nil {
		t.Fatal(err)
	}
	pub, err := verify.MarshalPublicKey(&l.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	l.open()
	_, err = l.e.As(api.Principal{Name: who}).AddTrust(context.Background(), api.TrustAddition{
		Publisher: "acme", Key: string(pub), Names: []string{"audit"}, Interpreters: []string{"/bin/sh"}, Kinds: []string{"plugin", "dag", "data"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// removable lets the test's folder be removed: sealed folders are read-only.
func removable(t *testing.T, dir string) {
	t.Helper()
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(p string, d os.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				os.Chmod(p, 0o755)
			}
			return nil
		})
	})
}

func (l *lab) open() {
	l.t.Helper()
	e, err := engine.Open(context.Background(), engine.Options{
		Home: l.home, Mode: engine.ModeForeground, Executes: true, Version: "0.1.0", Executor: sandbox.New(sandbox.Options{}),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.e = e
	l.t.Cleanup(func() { e.Close() })
}

func (l *lab) reopen() {
	l.t.Helper()
	if err := l.e.Close(); err != nil {
		l.t.Fatal(err)
	}
	l.open()
}

func (l *lab) site() api.Site { return l.e.As(api.Principal{Name: who}) }

// bundle packs and signs files, and returns the path of the bundle.
func (l *lab) bundle(files map[string]string) string {
	l.t.Helper()
	return l.packed(files, bundle.PackOptions{})
}

// deltaFile makes a version of a data bundle that leaves out these contents.
func (l *lab) deltaFile(name string, version int, files map[string]string, out ...string) string {
	l.t.Helper()
	omit := map[string]bool{}
	for _, text := range out {
		omit[bundle.Digest([]byte(text))] = true
	}
	l.omit = func(sum string) bool { return omit[sum] }
	defer func() { l.omit = nil }()
	return l.dataFile(name, version, files)
}

func (l *lab) packed(files map[string]string, opt bundle.PackOptions) string {
	l.t.Helper()
	if l.omit != nil {
		opt.Omit = l.omit
	}
	dir := l.t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			l.t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			l.t.Fatal(err)
		}
	}
	var raw bytes.Buffer
	packed, err := bundle.Pack(dir, &raw, opt)
	if err != nil {
		l.t.Fatal(err)
	}
	sig, err := verify.SignManifest(packed.Raw, l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	out := filepath.Join(l.t.TempDir(), bundle.FileName(packed.Manifest))
	f, err := os.Create(out)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	if err := bundle.Attach(f, &raw, []bundle.Attached{sig}, nil); err != nil {
		l.t.Fatal(err)
	}
	return out
}

func (l *lab) importFile(path string) api.ImportResult {
	l.t.Helper()
	res, err := l.site().ImportBundle(context.Background(), api.ImportRequest{Path: path}, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return res
}

const created = `created = "2026-11-22T00:00:00.000000000Z"`

// script makes a plugin whose one action, run, is a shell script.
func (l *lab) script(name, text string, idempotent bool) {
	l.t.Helper()
	l.importFile(l.scriptFile(name, text, idempotent))
}

func (l *lab) scriptFile(name, text string, idempotent bool) string {
	l.t.Helper()
	return l.bundle(map[string]string{
		"stella.toml": fmt.Sprintf(`schema = "stella.bundle/1"
kind = "plugin"
publisher = "acme"
name = %q
version = "1.0.0"
sequence = 1
%s
[plugin]
runtime = "exec"
interpreter = "/bin/sh"
[plugin.entry]
"linux/amd64" = "bin/run.sh"
"linux/arm64" = "bin/run.sh"
[plugin.actions.run]
idempotent = %v
`, name, created, idempotent),
		"bin/run.sh": text,
	})
}

// publish makes a DAG of steps, given in TOML.
func (l *lab) publish(version, steps string) api.DAG {
	l.t.Helper()
	res := l.importFile(l.dagFile(version, steps))
	d, err := l.site().PublishDAG(context.Background(), res.Verdict.Digest)
	if err != nil {
		l.t.Fatalf("publish: %+v", err)
	}
	return d
}

func (l *lab) dagFile(version, steps string) string {
	l.t.Helper()
	return l.dagFileOf(version, 1, steps)
}

func (l *lab) dagFileOf(version string, sequence int, steps string) string {
	l.t.Helper()
	return l.bundle(map[string]string{
		"stella.toml": fmt.Sprintf(`schema = "stella.bundle/1"
kind = "dag"
publisher = "acme"
name = "audit"
version = %q
sequence = %d
%s
[dag]
spec = "dag.toml"
`, version, sequence, created),
		"dag.toml": fmt.Sprintf("schema = \"stella.dag/1\"\ndag_id = \"audit\"\nversion = %q\n%s", version, steps),
	})
}

func (l *lab) start(req api.StartRequest) api.StartResult {
	l.t.Helper()
	res, err := l.site().StartRun(context.Background(), req)
	if err != nil {
		l.t.Fatal(err)
	}
	return res
}

func (l *lab) execute() {
	l.t.Helper()
	if err := l.e.Execute(context.Background(), engine.Idle); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) verify() {
	l.t.Helper()
	if _, err := l.site().VerifyLedger(context.Background(), api.LedgerCheck{Full: true}, nil); err != nil {
		l.t.Errorf("the ledger does not verify: %v", err)
	}
}

const hello = `
[inputs.who]
type = "string"
default = "you"
[[step]]
id = "a"
plugin = "acme/audit-hello@1.0.0"
action = "run"
with = { who = "${ inputs.who }" }
[[step]]
id = "b"
plugin = "acme/audit-hello@1.0.0"
action = "run"
needs = ["a"]
[outputs]
n = "${ steps.b.outputs.n }"
`

const helloScript = `echo "on stdout"
echo "on stderr" >&2
echo '{"output":{"n":42}}' >> "$STELLA_OUTPUT"
`

func TestTheMainJob(t *testing.T) {
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	req := api.StartRequest{DAGID: "audit", RunToken: "night-1", Inputs: json.RawMessage(`{"who":"me"}`)}
	first := l.start(req)
	if first.Replayed {
		t.Error("the first start says that it is a repeat")
	}
	l.execute()
	detail, err := l.site().GetRun(context.Background(), first.Run.RunID)
	if err != nil {
		t.Fatal(err)
	}
	if detail.Status != state.Completed {
		t.Fatalf("the run is %s %s: %+v", detail.Status, detail.FailureReason, detail.StepList)
	}
	l.reopen()
	again := l.start(req)
	if !again.Replayed || again.Run.RunID != first.Run.RunID {
		t.Errorf("the repeat gave %+v", again)
	}
	for name, other := range map[string]api.StartRequest{
		"input":   {DAGID: "audit", RunToken: "night-1", Inputs: json.RawMessage(`{"who":"them"}`)},
		"dag":     {DAGID: "other", RunToken: "night-1", Inputs: req.Inputs},
		"version": {DAGID: "audit", Version: "2.0.0", RunToken: "night-1", Inputs: req.Inputs},
	} {
		var e *api.Error
		if _, err := l.site().StartRun(context.Background(), other); !errors.As(err, &e) || e.Code != api.CodeRunTokenConflict {
			t.Errorf("another %s with the same token: %v", name, err)
		}
	}
	if pinned := l.start(api.StartRequest{DAGID: "audit", Version: "1.0.0", RunToken: "night-1", Inputs: req.Inputs}); !pinned.Replayed {
		t.Error("a pin equal to the resolved version conflicts")
	}
	var lines []string
	err = l.site().RunLogs(context.Background(), api.LogQuery{RunID: first.Run.RunID, StepID: "a"}, func(x api.LogLine) error {
		lines = append(lines, x.Stream+":"+x.Text)
		return nil
	})
	if err != nil || len(lines) != 2 {
		t.Errorf("logs %v, %v", lines, err)
	}
	l.verify()
}

func TestTwoExportsOfOneWindowAreEqual(t *testing.T) {
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	l.start(api.StartRequest{DAGID: "audit"})
	l.execute()
	dir := t.TempDir()
	one, err := l.site().CreateExport(context.Background(), api.ExportRequest{Path: filepath.Join(dir, "1.tar")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.reopen()
	two, err := l.site().CreateExport(context.Background(), api.ExportRequest{From: one.From, To: one.To, Path: filepath.Join(dir, "2.tar")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(one.Path)
	b, _ := os.ReadFile(two.Path)
	if len(a) == 0 || !bytes.Equal(a, b) {
		t.Errorf("the archives differ: %d and %d bytes", len(a), len(b))
	}
	l.verify()
}

func TestARefusalIsRecordedAndLeavesNothing(t *testing.T) {
	l := newLab(t)
	path := l.bundle(map[string]string{"stella.toml": `schema = "stella.bundle/1"
kind = "data"
publisher = "acme"
name = "audit-data"
version = "1.0.0"
sequence = 1
` + created + `
[data]
media_type = "text/plain"
`, "x.txt": strings.Repeat("content ", 100)})
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before := tree(t, l.home)
	for _, at := range []int{600, len(raw) - 2000, len(raw) - 1} {
		bad := bytes.Clone(raw)
		bad[at] ^= 1
		file := filepath.Join(t.TempDir(), "bad.stella")
		if err := os.WriteFile(file, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		var e *api.Error
		if _, err := l.site().ImportBundle(context.Background(), api.ImportRequest{Path: file}, nil); !errors.As(err, &e) || e.Refusal == nil {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
	if after := tree(t, l.home); after != before {
		t.Errorf("files before:\n%s\nafter:\n%s", before, after)
	}
	lines, err := l.site().TailLedger(context.Background(), api.LedgerQuery{Type: "bundle.rejected"})
	if err != nil || len(lines) != 3 {
		t.Errorf("%d rejections on record, %v", len(lines), err)
	}
	l.importFile(path)
	l.verify()
}

// tree lists the files of a home.
func tree(t *testing.T, home string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(home, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, strings.TrimPrefix(p, home))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

func TestSimultaneousStartsWithOneTokenMakeOneRun(t *testing.T) {
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	var mu sync.Mutex
	ids, fresh := map[string]bool{}, 0
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			res, err := l.site().StartRun(context.Background(), api.StartRequest{DAGID: "audit", RunToken: "one"})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[res.Run.RunID] = true
			if !res.Replayed {
				fresh++
			}
		})
	}
	wg.Wait()
	if len(ids) != 1 || fresh != 1 {
		t.Errorf("64 starts made %d runs, %d said they were first", len(ids), fresh)
	}
	l.execute()
	l.verify()
}

func TestTrustThatWasChangedOnDiskIsRefused(t *testing.T) {
	l := newLab(t)
	l.e.Close()
	path := filepath.Join(l.home, "trust", "policy.toml")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(raw, []byte("threshold = 1"), []byte("threshold = 2"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = engine.Open(context.Background(), engine.Options{Home: l.home})
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeTrustChanged {
		t.Fatalf("Open = %v, want TRUST_CHANGED", err)
	}
	if want := "trust: the files below trust/ are not those that the ledger names"; e.Message != want || len(e.Faults) != 1 ||
		!strings.HasPrefix(e.Faults[0], "policy.toml: ") {
		t.Errorf("Open says %q, then %q; want %q, then what is wrong with policy.toml", e.Message, e.Faults, want)
	}
}

func TestAPublisherMayNotUseAnotherName(t *testing.T) {
	l := newLab(t)
	path := l.bundle(map[string]string{"stella.toml": `schema = "stella.bundle/1"
kind = "data"
publisher = "acme"
name = "other"
version = "1.0.0"
sequence = 1
` + created + `
[data]
media_type = "text/plain"
`, "x.txt": "x"})
	_, err := l.site().ImportBundle(context.Background(), api.ImportRequest{Path: path}, nil)
	var e *api.Error
	if !errors.As(err, &e) || e.Refusal == nil {
		t.Errorf("ImportBundle = %v, want a refusal", err)
	}
}

// copySite copies a home as it is.
func copySite(t *testing.T, from, to string) {
	t.Helper()
	removable(t, to)
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}
