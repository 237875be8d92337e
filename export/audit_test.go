package export_test

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
)

// onlyVerify are the forgeries that the second implementation leaves to this
// one, since it makes nothing anew that derives from entries, and does not hold
// every file to its one form. What is FAILED here is no failure there; all
// others must get the same verdict from both.
var onlyVerify = map[string]bool{
	// What derives from entries.
	"TestForgeriesWithAllKeysAreFound/a_run_has_another_status": true,
	"TestForgeriesWithAllKeysAreFound/a_metric_is_another":      true,
	"TestForgeriesWithAllKeysAreFound/a_metric_is_missing":      true,
	"TestForgeriesWithAllKeysAreFound/a_span_is_missing":        true,
	"TestForgeriesWithAllKeysAreFound/a_span_is_another":        true,
	"TestForgeriesWithAllKeysAreFound/a_span_too_many":          true,
	"TestOtherKeysDoNotExcuseDamage/a_span_is_another":          true,
	// The one form of log lines, of zstd frames, and of the manifest.
	"TestForgeriesWithAllKeysAreFound/a_log_line_has_a_field_too_many": true,
	"TestForgeriesWithAllKeysAreFound/a_log_line_is_cut_in_two":        true,
	"TestASkippableFrameIsNotAnEmptyFile":                              true,
	"TestFramesOfOtherFormsAreRefused":                                 true,
	"TestManifestsThatLieAreFound/another_media_type":                  true,
}

// auditor is the second implementation, built once.
var auditor = sync.OnceValues(func() (string, error) {
	path := filepath.Join(builds, "stella-audit")
	sources, err := filepath.Glob("../cmd/stella-audit/*.go")
	for _, s := range sources { // so that a test that was cached is made again when they change
		if _, err := os.Stat(s); err != nil {
			return "", err
		}
	}
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", path, "../cmd/stella-audit").CombinedOutput()
	if err != nil {
		err = errors.New(string(out))
	}
	return path, err
})

// builds is a folder for what tests build.
var builds string

func TestMain(m *testing.M) {
	var err error
	if builds, err = os.MkdirTemp("", "stella-export"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(builds)
	os.Exit(code)
}

// agree has the second implementation judge what Verify has judged: both must
// give the same verdict.
func agree(t testing.TB, path string, opt export.VerifyOptions, r *export.Report) {
	t.Helper()
	if opt.MaxBytes != 0 || opt.MaxUncompressed != 0 {
		return // its limits are fixed
	}
	verdict, witnessed, out := audit(t, opt, path)
	if verdict != string(export.Failed) && r.Verdict == export.Failed && onlyVerify[t.Name()] {
		return
	}
	if mistaken := verdict == "" && r.Verdict == export.Failed; mistaken && slices.Equal(failed(r), []string{"previous"}) || mistaken && slices.Equal(failed(r), []string{"witnesses"}) {
		return // a file that is no note of this site is a mistake of the auditor's, there
	}
	if verdict != string(r.Verdict) || verdict == string(export.Verified) && witnessed != r.Witnessed {
		t.Errorf("stella-audit says otherwise than Verify: %s\n%s", explain(r), out)
	}
}

// Whatever stands at the edges of a window, both give the same verdict.
func TestBothJudgeEveryWindow(t *testing.T) {
	s := busySite(t)
	for from := range 23 {
		for to := from + 1; to < 24; to += 1 + (from+to)%4 {
			check(t, s.archive(window(from, to)), s.auditor())
		}
	}
}

// Entry 0 binds the keys, and the site.
func TestBothSeeAnotherBinding(t *testing.T) {
	for name, lie := range map[string]func(s *site, d *ledger.SiteInit){
		"another log key": func(_ *site, d *ledger.SiteInit) {
			d.Keys["log"] = spki(t, ed25519.NewKeyFromSeed(make([]byte, 32)).Public())
		},
		"another site key": func(_ *site, d *ledger.SiteInit) { d.Keys["site"] = spki(t, &p256(t, 12).PublicKey) },
		"another site":     func(_ *site, d *ledger.SiteInit) { d.SiteID = strings.Repeat("0", 32) },
	} {
		s := newSite(t)
		env, data := opened(t, s.entries[0])
		init := data.(*ledger.SiteInit)
		lie(s, init)
		s.entries, s.hashes, s.byRun, s.at = nil, nil, map[string][]int{}, start
		s.add(env, init)
		s.startRun(runA)
		s.checkpoint()
		if r := check(t, s.archive(window(0, 2)), s.auditor()); !slices.Equal(failed(r), []string{"genesis"}) {
			t.Errorf("%s: %s", name, explain(r))
		}
	}
}

// audit runs stella-audit, with what opt has, over archives in order.
func audit(t testing.TB, opt export.VerifyOptions, paths ...string) (verdict string, witnessed int, out string) {
	t.Helper()
	return auditWith(t, opt, []string{"-withheld", strconv.FormatInt(opt.Withheld, 10)}, paths...)
}

// auditWith is audit with flags that opt has no field for.
func auditWith(t testing.TB, opt export.VerifyOptions, more []string, paths ...string) (verdict string, witnessed int, out string) {
	t.Helper()
	binary, err := auditor()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	args := append([]string{"-min", strconv.Itoa(opt.MinWitnesses)}, more...)
	if opt.SiteID != "" {
		args = append([]string{"-site-id", opt.SiteID}, args...)
	}
	if opt.Root != "" {
		args = append(args, "-expect-root", "sha256:"+opt.Root)
	}
	give := func(flag string, raw []byte) {
		path := filepath.Join(dir, flag+strconv.Itoa(len(args)))
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-"+flag, path)
	}
	for flag, raw := range map[string][]byte{"log-key": opt.LogKey, "site-key": opt.SiteKey, "previous": opt.Previous, "cosigned": opt.Cosigned} {
		if raw != nil {
			give(flag, raw)
		}
	}
	for flag, proof := range map[string]*export.Consistency{"consistency": opt.Consistency, "cosigned-consistency": opt.CosignedConsistency} {
		if proof == nil {
			continue
		}
		hashes := make([]string, len(proof.Proof))
		for i, h := range proof.Proof {
			hashes[i] = ledger.HexHash(h)
		}
		raw, err := json.Marshal(map[string]any{"proof": hashes, "oldSize": proof.From, "size": proof.To})
		if err != nil {
			t.Fatal(err)
		}
		give(flag, raw)
	}
	for _, w := range opt.Witnesses {
		give("witness", []byte(w.String()+"\n"))
	}
	var stdout bytes.Buffer
	cmd := exec.Command(binary, append(args, paths...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stdout
	err = cmd.Run()
	out = stdout.String()
	last := strings.Fields(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
	code := cmd.ProcessState.ExitCode()
	for v, want := range map[string]int{"VERIFIED": 0, "UNAUTHENTICATED": 5, "FAILED": 7, "INCOMPLETE": 8} {
		if len(last) > 1 && last[0] == v && code == want {
			if last[1] == "WITNESSED" {
				witnessed, err = strconv.Atoi(last[2])
			}
			return v, witnessed, out
		}
	}
	if code != 1 {
		t.Fatalf("stella-audit: %v, exit code %d\n%s", err, code, out)
	}
	return "", 0, out
}

// treeSize is the size of the tree of an archive, 0 where its manifest does not say it.
func treeSize(t testing.TB, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var m export.Manifest
	r := tar.NewReader(f)
	if _, err = r.Next(); err == nil {
		err = json.NewDecoder(r).Decode(&m)
	}
	if err != nil {
		return 0
	}
	return m.Ledger.TreeSize
}
