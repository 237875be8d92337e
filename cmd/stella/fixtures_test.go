package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// fixtureIndex is index.toml, as anybody would read it who has nothing but the
// folder testdata/bundles.
type fixtureIndex struct {
	Schema   string    `toml:"schema"`
	SiteID   string    `toml:"site_id"`
	FleetID  string    `toml:"fleet_id"`
	Stella   string    `toml:"stella"`
	Fixtures []fixture `toml:"fixture"`
}

type fixture struct {
	Name   string `toml:"name"`
	Note   string `toml:"note"`
	Trust  string `toml:"trust"`
	Now    string `toml:"now"`
	Expect string `toml:"expect"`
	Limit  int64  `toml:"limit_bytes"`
	Floor  *struct {
		Sequence int64  `toml:"sequence"`
		Digest   string `toml:"digest"`
		Version  string `toml:"version_digest"`
		Admitted bool   `toml:"admitted"`
	} `toml:"floor"`
}

// state is what a site must know for f: fixtures of one state share a site.
func (f *fixture) state() string {
	if f.Floor != nil {
		return f.Name
	}
	return fmt.Sprint(f.Trust, " ", f.Limit)
}

var fixtureFolder = filepath.Join("..", "..", "testdata", "bundles")

func readFixtures(t *testing.T) *fixtureIndex {
	t.Helper()
	var index fixtureIndex
	meta, err := toml.DecodeFile(filepath.Join(fixtureFolder, "index.toml"), &index)
	if err != nil {
		t.Fatal(err)
	}
	if left := meta.Undecoded(); len(left) > 0 || index.Schema != "stella.fixtures/1" {
		t.Fatalf("schema %q, unknown keys %v", index.Schema, left)
	}
	files, err := filepath.Glob(filepath.Join(fixtureFolder, "*.stella"))
	if err != nil || len(files) != len(index.Fixtures) || len(files) < 200 {
		t.Fatalf("%d files, %d in the index: %v", len(files), len(index.Fixtures), err)
	}
	return &index
}

// TestFixturesThroughEveryPath judges every fixture of testdata/bundles by the
// command, which opens the site itself, and by the API of a site that somebody
// holds, and wants of both the outcome that the index names, with one digest
// and one offset. (Package verify judges them by the library.)
func TestFixturesThroughEveryPath(t *testing.T) {
	index := readFixtures(t)
	byState := map[string][]*fixture{}
	var order []string
	for i := range index.Fixtures {
		f := &index.Fixtures[i]
		if byState[f.state()] == nil {
			order = append(order, f.state())
		}
		byState[f.state()] = append(byState[f.state()], f)
	}
	for _, state := range order {
		list := byState[state]
		const most = 24 // in one site, so that two can work at a time
		for begin := 0; begin < len(list); begin += most {
			part := list[begin:min(begin+most, len(list))]
			t.Run(strings.ReplaceAll(state, " ", "-"), func(t *testing.T) {
				t.Parallel()
				home := fixtureSite(t, index, part[0], time.Now)
				byCommand := map[string]judged{}
				for _, f := range part {
					byCommand[f.Name] = judgeByCommand(t, home, f)
				}
				client := serveFixtures(t, home, index.Stella, time.Now)
				for _, f := range part {
					compareJudged(t, f, byCommand[f.Name], judgeByAPI(t, client, f))
				}
			})
		}
	}
}

// TestTrustOfFixturesIsTakenIn, or is not, for the reason that the index names:
// by a site that imports each bundle that carries trust files, at its time.
func TestTrustOfFixturesIsTakenIn(t *testing.T) {
	index := readFixtures(t)
	outcomes := map[string]bool{}
	for i := range index.Fixtures {
		f := &index.Fixtures[i]
		if !strings.HasPrefix(f.Name, "trust") {
			continue
		}
		outcomes[f.Expect] = true
		at, err := stamp.Parse(f.Now)
		if err != nil {
			t.Fatal(err)
		}
		now := func() time.Time { return at }
		client := serveFixtures(t, fixtureSite(t, index, f, now), index.Stella, now)
		res, err := client.ImportBundle(t.Context(), api.ImportRequest{Path: f.path(t)}, nil)
		got := judged{decision: res.Verdict.Decision}
		var failed *api.Error
		if errors.As(err, &failed) && failed.Refusal != nil {
			got.refusal = *failed.Refusal
		} else if err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		if got.outcome() != f.Expect {
			t.Errorf("%s: %s, want %s", f.Name, got.outcome(), f.Expect)
		}
	}
	for _, want := range []string{"admit", string(verify.TrustInvalid), string(verify.TrustRollback)} {
		if !outcomes[want] {
			t.Errorf("no fixture with trust files is expected to give %s", want)
		}
	}
}

// TestTheIndexNamesEveryReason, and nothing that is no reason. Those of single
// files have no bundle: see the scripts of stella verify.
func TestTheIndexNamesEveryReason(t *testing.T) {
	have := map[string]bool{}
	for _, f := range readFixtures(t).Fixtures {
		have[f.Expect] = true
	}
	for _, r := range verify.Reasons() {
		if !have[string(r.Reason)] && r.Stage != verify.StageBlob {
			t.Errorf("no fixture for %s", r.Reason)
		}
		delete(have, string(r.Reason))
	}
	delete(have, "admit")
	delete(have, "admit_under_audit")
	for other := range have {
		t.Errorf("%s is no reason", other)
	}
}

// judged is the outcome of one judgement.
type judged struct {
	exit     int // of the command; -1 by the API
	decision string
	refusal  api.Refusal
}

func (j judged) outcome() string {
	switch {
	case j.refusal.Reason != "":
		return j.refusal.Reason
	case j.decision == verify.AdmittedUnderAudit:
		return "admit_under_audit"
	case j.decision == verify.Admitted:
		return "admit"
	}
	return "nothing: " + j.decision
}

// text is the refusal as it travels, but for the version of the program, which
// is not that of the fixtures by the command.
func (j judged) text(t *testing.T) string {
	t.Helper()
	raw, err := json.MarshalIndent(j.refusal, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`this is [0-9][0-9a-z.-]*`).ReplaceAllString(string(raw), "this is VERSION")
}

func compareJudged(t *testing.T, f *fixture, command, asked judged) {
	t.Helper()
	want, wantExit := f.Expect, exitDone
	if !strings.HasPrefix(want, "admit") {
		wantExit = exitRefused
	}
	if got := command.outcome(); got != want || command.exit != wantExit {
		t.Errorf("%s by the command: %s, exit %d; want %s, exit %d", f.Name, got, command.exit, want, wantExit)
	}
	if got := asked.outcome(); got != want {
		t.Errorf("%s by the API: %s, want %s", f.Name, got, want)
	}
	if diff := cmp.Diff(command.text(t), asked.text(t)); diff != "" {
		t.Errorf("%s: the command and the API differ (-command +API):\n%s", f.Name, diff)
	}
	raw, err := os.ReadFile(f.path(t))
	if err != nil {
		t.Fatal(err)
	}
	if n := asked.refusal.Offset; asked.refusal.Reason != "" && asked.refusal.SHA256 != hashOfRead(bundle.Digest(raw[:n]), n) {
		t.Errorf("%s: the digest of %d bytes is not %s", f.Name, n, asked.refusal.SHA256)
	}
}

func (f *fixture) path(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(fixtureFolder, f.Name+".stella"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// judgeByCommand runs the program, as an operator would.
func judgeByCommand(t *testing.T, home string, f *fixture) judged {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("stella", "bundle", "verify", f.path(t), "--as-of", f.Now, "--output", "json", "--home", home)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	out := judged{exit: cmd.ProcessState.ExitCode()}
	if out.exit == exitDone {
		var v ledger.Verdict
		if err := json.Unmarshal(stdout.Bytes(), &v); err != nil || stderr.Len() > 0 {
			t.Fatalf("%s: %v\n%s\n%s", f.Name, err, &stdout, &stderr)
		}
		out.decision = v.Decision
		return out
	}
	var failed struct{ Error api.Error }
	if err := json.Unmarshal(stderr.Bytes(), &failed); err != nil || stdout.Len() > 0 {
		t.Fatalf("%s: %v\n%s\n%s", f.Name, err, &stdout, &stderr)
	}
	out.decision = string(failed.Error.Code)
	if failed.Error.Refusal != nil {
		out.refusal = *failed.Error.Refusal
		if failed.Error.Hint == "" {
			t.Errorf("%s: the refusal has no hint", f.Name)
		}
	}
	return out
}

func judgeByAPI(t *testing.T, site api.Bundles, f *fixture) judged {
	t.Helper()
	v, err := site.VerifyBundle(t.Context(), api.VerifyRequest{Path: f.path(t), AsOf: f.Now}, nil)
	out := judged{exit: -1, decision: v.Decision}
	var failed *api.Error
	if errors.As(err, &failed) && failed.Refusal != nil {
		out.refusal = *failed.Refusal
	} else if err != nil {
		t.Errorf("%s: %v", f.Name, err)
	}
	return out
}

// fixtureSite makes a site that believes the trust of f and knows its floor.
func fixtureSite(t *testing.T, index *fixtureIndex, f *fixture, now func() time.Time) string {
	t.Helper()
	trust := filepath.Join(fixtureFolder, "trust", f.Trust)
	fleet := t.TempDir()
	if err := os.CopyFS(fleet, os.DirFS(trust)); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"root/1.toml": "root.toml", "root/1.toml.signatures": "root.toml.signatures"} {
		if err := os.Rename(filepath.Join(fleet, from), filepath.Join(fleet, to)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.ReadFile(filepath.Join(fleet, "root.toml"))
	if err != nil {
		t.Fatal(err)
	}
	home := tempHome(t, "home")
	res, err := engine.Init(home, engine.InitOptions{
		RootFile: filepath.Join(fleet, "root.toml"), ExpectRoot: bundle.Digest(root), SiteID: index.SiteID, Now: now,
	})
	if err != nil || res.FleetID != index.FleetID {
		t.Fatalf("the site is of fleet %s: %v", res.FleetID, err)
	}
	if f.Limit > 0 {
		raw := manifests.EncodeSite(&manifests.Site{MaxBundleBytes: f.Limit})
		if err := os.WriteFile(filepath.Join(home, "site.toml"), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if f.Floor != nil {
		knowFloor(t, home, f)
	}
	return home
}

// knowFloor makes the site know what the index says it admitted before.
func knowFloor(t *testing.T, home string, f *fixture) {
	t.Helper()
	raw, err := os.Open(f.path(t))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	head, err := bundle.NewReader(raw, bundle.Limits{}).Head()
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifests.ParseBundle(bundle.ManifestName, head.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	now, err := stamp.Parse(f.Now)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var floor store.Floor
	admit := func(version, digest string, sequence int64) {
		t.Helper()
		a := &ledger.BundleAdmission{Signatures: []string{}, Verdict: ledger.Verdict{
			Decision: verify.Admitted, Digest: digest, Kind: string(m.Kind), Publisher: m.Publisher, Name: m.Name,
			Version: version, Sequence: sequence, Signers: []ledger.SignerRef{}, Now: stamp.Format(now), Checks: []string{},
		}}
		if _, err := db.Admit("uid:0", store.Admitting{Admission: a, JudgedAt: floor}); err != nil {
			t.Fatal(err)
		}
		floor = store.Floor{Sequence: sequence, Digest: digest}
	}
	switch own := bundle.Digest(head.Manifest); {
	case f.Floor.Admitted:
		admit(m.Version, own, m.Sequence)
		admit("0.0.1-other", f.Floor.Digest, f.Floor.Sequence)
	case f.Floor.Version != "":
		admit(m.Version, f.Floor.Version, f.Floor.Sequence)
	default:
		admit("0.0.1-other", f.Floor.Digest, f.Floor.Sequence)
	}
	if got, err := db.Floor(string(m.Kind), m.Publisher, m.Name); err != nil || got.Sequence != f.Floor.Sequence || got.Digest != f.Floor.Digest {
		t.Fatalf("%s: the floor is %+v, %v", f.Name, got, err)
	}
}

// serveFixtures holds the site and serves its API on a socket.
func serveFixtures(t *testing.T, home, version string, now func() time.Time) *server.Client {
	t.Helper()
	e, err := engine.Open(t.Context(), engine.Options{Home: home, Mode: engine.ModeDaemon, Version: version, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "st") // a short path, since sockets have no long ones
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := server.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	h := &held{engine: e, force: func() {}}
	go func() {
		served <- server.Serve(ctx, l, server.Options{
			Site: h.site, Cookie: e.Cookie(), Owner: os.Geteuid(), Tenant: e.DefaultTenant(),
		})
	}()
	client := server.NewClient(server.ClientOptions{Socket: socket, Cookie: e.Cookie()})
	t.Cleanup(func() {
		client.Close()
		stop()
		if err := errors.Join(<-served, e.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return client
}
