package export_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// stella-audit goes on from one archive to the next: the second alone does not show where its
// root comes from.
func TestTrustFilesFromArchiveToArchive(t *testing.T) {
	for name, tc := range map[string]struct {
		next func(f *verify.Files)
		both export.Verdict
		row  string
	}{
		"a root that the first signed": {rotated(2, "stranger", "root"), export.Verified, "ok"},
		"a root of its own":            {rotated(2, "stranger"), export.Failed, "failed"},
		"an older policy":              {func(f *verify.Files) { policyOf(1, "policy")(f) }, export.Failed, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = verifytest.Now()
			f := verifytest.NewTrust().Files()
			policyOf(2, "policy")(&f)
			s.change(f)
			middle := s.at
			tc.next(&f)
			s.change(f)
			s.at = s.at.Add(time.Hour)
			s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
			s.checkpoint()
			var paths []string
			for _, w := range [][2]time.Time{{start, middle}, {middle, s.at.Add(-time.Minute)}} {
				path := t.TempDir() + "/archive.tar"
				if err := os.WriteFile(path, s.archive(export.Window{From: stamp.Format(w[0]), To: stamp.Format(w[1])}), 0o600); err != nil {
					t.Fatal(err)
				}
				paths = append(paths, path)
			}
			opt := s.auditor()
			opt.Root = bundle.Digest(verifytest.NewTrust().Files().Roots[0].Raw)
			if verdict, _, out := audit(t, opt, paths...); verdict != string(tc.both) || !strings.HasPrefix(rowOf(out[strings.LastIndex(out, "archive  "):], "trust"), tc.row) {
				t.Errorf("both: %s\n%s", verdict, out)
			}
			if verdict, _, out := audit(t, opt, paths[1]); tc.row == "ok" && verdict != string(export.Incomplete) {
				t.Errorf("the second alone: %s\n%s", verdict, out)
			}
		})
	}
}

// months gives the archives of the two windows that meet at middle.
func (s *site) months(middle time.Time) (paths []string) {
	s.t.Helper()
	s.at = s.at.Add(time.Hour)
	s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
	s.checkpoint()
	for _, w := range [][2]time.Time{{start, middle}, {middle, s.at.Add(-time.Minute)}} {
		path := s.t.TempDir() + "/archive.tar"
		if err := os.WriteFile(path, s.archive(export.Window{From: stamp.Format(w[0]), To: stamp.Format(w[1])}), 0o600); err != nil {
			s.t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// What was in force at the end of an archive is so at the beginning of the next: in a month
// without a change of trust nothing is let in by trust files of the operator's own, or under an
// extension that nobody has signed.
func TestVerdictsFromArchiveToArchive(t *testing.T) {
	own := knows("stranger")
	usual := verifytest.NewTrust()
	usual.Root.Roles["break_glass"] = manifests.Role{Threshold: 1, Keys: []string{verifytest.PEM("captain")}}
	usual.Root.MaxExtension = 48 * time.Hour
	ref := usual.Load().Ref()
	is := manifests.Extension{
		SiteID: siteID, Serial: 1, Root: ref.Root, Policy: ref.Policy, Revocations: ref.Revocations,
		Issued: verifytest.Now().Add(-time.Hour), Until: verifytest.Now().Add(time.Hour), Reason: "at sea",
	}
	text := manifests.EncodeExtension(&is)
	extended, err := usual.Load().Extended(verifytest.Signed(text, "captain"), siteID)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		key   string
		by    *verify.Trust
		lie   func(s *site, d *ledger.BundleAdmission)
		want  export.Verdict
		alone string
	}{
		"by what is in force":               {"acme-1", usual.Load(), nil, export.Verified, "ok"},
		"under the extension of last month": {"acme-1", extended, nil, export.Verified, "ok"},
		"by a policy of its own":            {"stranger", own.Load(), nil, export.Failed, "failed"},
		"under an extension that never was": {"stranger", own.Load(), func(s *site, d *ledger.BundleAdmission) {
			d.Verdict.Trust = ref
			d.Verdict.Trust.Extension = s.blob("an extension")
		}, export.Failed, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = verifytest.Now()
			s.change(usual.Files())
			s.extend(is, "captain")
			middle := s.at
			for _, f := range []verify.Files{own.Files(), usual.Files()} {
				for _, raw := range [][]byte{f.Roots[0].Raw, f.Policy.Raw, f.Revocations.Raw} {
					s.blob(string(raw))
				}
			}
			s.admit(let(t, verifytest.NewPlugin().Sign(tc.key), tc.by, s.at), func(d *ledger.BundleAdmission) {
				if tc.lie != nil {
					tc.lie(s, d)
				}
			})
			opt := s.auditor()
			opt.Root = ref.Root
			verdict, _, out := audit(t, opt, s.months(middle)...)
			if verdict != string(tc.want) || !strings.HasPrefix(rowOf(out[strings.LastIndex(out, "archive  "):], "verdicts"), tc.alone) {
				t.Errorf("%s, want %s\n%s", verdict, tc.want, out)
			}
		})
	}
}

// An archive that does not hold keeps the next from nothing.
func TestTrustFilesBehindAnArchiveThatFails(t *testing.T) {
	s := newSite(t)
	s.at = verifytest.Now()
	f := verifytest.NewTrust().Files()
	s.change(f)
	middle := s.at
	policyOf(2, "policy")(&f)
	s.change(f)
	paths := s.months(middle)
	raw, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	k := takeApart(t, s, raw)
	delete(k.files, "evidence/sha256/"+bundle.Digest(verifytest.NewTrust().Files().Policy.Raw))
	if err := os.WriteFile(paths[0], k.pack(k.assemble()), 0o600); err != nil {
		t.Fatal(err)
	}
	binary, err := auditor()
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range []string{paths[0], "nowhere"} {
		out, err := exec.Command(binary, first, paths[1]).CombinedOutput()
		if strings.Contains(string(out), "panic") || !strings.Contains(string(out), "\nUNAUTHENTICATED UNWITNESSED\n") {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// A month in which no trust files came in force lacks nothing, where entry 0 names the root that
// the auditor knows: the next month's first are held to it.
func TestAMonthBeforeTheFirstTrustFiles(t *testing.T) {
	files := verifytest.NewTrust().Files()
	root := bundle.Digest(files.Roots[0].Raw)
	for name, c := range map[string]struct {
		lie      func(s *site)
		withheld int64
		want     [2]export.Verdict // of the first month alone, and of both, "" where that is not asked
	}{
		"honest":              {func(*site) {}, 0, [2]export.Verdict{export.Verified, export.Verified}},
		"entry 0 of another":  {func(s *site) { s.beginsAnew(s.blob("another"), bundle.Digest(files.Policy.Raw)) }, 0, [2]export.Verdict{export.Incomplete, export.Failed}},
		"entry 0 is withheld": {func(s *site) { s.hide("secret") }, 1, [2]export.Verdict{export.Incomplete}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.beginsAnew(root, bundle.Digest(files.Policy.Raw))
			c.lie(s)
			s.at = verifytest.Now()
			s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
			middle := s.at.Add(time.Hour)
			s.at = middle
			s.change(files)
			paths := s.months(middle)
			opt := s.auditor()
			opt.Root, opt.Withheld = root, c.withheld
			r, err := export.Verify(context.Background(), paths[0], opt)
			if err != nil || r.Verdict != c.want[0] {
				t.Errorf("%v, want %s\n%s", err, c.want[0], explain(r))
			}
			if verdict, _, out := audit(t, opt, paths[0]); verdict != string(c.want[0]) {
				t.Errorf("stella-audit: %s, want %s\n%s", verdict, c.want[0], out)
			}
			if verdict, _, out := audit(t, opt, paths...); c.want[1] != "" && verdict != string(c.want[1]) {
				t.Errorf("both months: %s, want %s\n%s", verdict, c.want[1], out)
			}
		})
	}
}
