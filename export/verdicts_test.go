package export_test

import (
	"bytes"
	"context"
	"os"
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

// let is what the door has decided of a bundle.
func let(t testing.TB, raw []byte, trust *verify.Trust, now time.Time) *verify.Result {
	t.Helper()
	spool, err := os.CreateTemp(t.TempDir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { spool.Close() })
	res, err := verify.Check(bytes.NewReader(raw), trust, verify.Options{Now: now, SiteID: siteID, Spool: spool}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// believe seals trust files, and records that they are in force. The first are those of entry 0.
func (s *site) believe(trust *verifytest.Trust) {
	s.t.Helper()
	files := trust.Files()
	for _, f := range append(files.Roots, files.Policy, files.Revocations) {
		s.blob(string(f.Raw))
		for _, sig := range f.Signatures {
			s.blob(string(sig.Data))
		}
	}
	s.blob(string(files.TrustedRoot))
	change := trust.Load().Change("test")
	if len(s.entries) == 1 {
		s.entries, s.hashes = nil, nil
		s.init(change.Root, change.Policy)
	}
	s.add(ledger.Envelope{Type: ledger.TrustChanged, Actor: "uid:0(root)"}, &change)
}

// extend seals an extension and records it, whoever has signed it.
func (s *site) extend(x manifests.Extension, key string, lies ...func(c *ledger.TrustExtension)) {
	s.t.Helper()
	text := manifests.EncodeExtension(&x)
	c := ledger.TrustExtension{File: s.blob(string(text)), Serial: x.Serial, Root: x.Root, Policy: x.Policy, Until: stamp.Format(x.Until), Signers: []string{verifytest.KeyID(key)}, Reason: x.Reason}
	for _, sig := range verifytest.Signatures(text, key) {
		c.Signatures = append(c.Signatures, s.blob(string(sig.Data)))
	}
	for _, lie := range lies {
		lie(&c)
	}
	s.add(ledger.Envelope{Type: ledger.TrustExtended, Actor: "uid:0(root)"}, &c)
}

// admit seals the evidence of an admission, and records it.
func (s *site) admit(res *verify.Result, lie func(d *ledger.BundleAdmission)) {
	s.t.Helper()
	s.blob(string(res.Raw))
	for _, a := range append(res.Signatures, res.Attestations...) {
		s.blob(string(a.Data))
	}
	d := res.Admission()
	if lie != nil {
		lie(d)
	}
	s.add(ledger.Envelope{Type: ledger.BundleAdmitted, Actor: "uid:0(root)"}, d)
}

// verdictsOf judges the archive of all that a site has recorded, but the last entry.
func (s *site) verdictsOf(opt export.VerifyOptions) (export.Verdict, export.Check) {
	s.t.Helper()
	s.at = s.at.Add(time.Hour)
	s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
	s.checkpoint()
	tar := s.archive(export.Window{From: second(0), To: stamp.Format(s.at.Add(-time.Minute))})
	path := s.t.TempDir() + "/archive.tar"
	if err := os.WriteFile(path, tar, 0o600); err != nil {
		s.t.Fatal(err)
	}
	r, err := export.Verify(context.Background(), path, opt)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, c := range r.Checks {
		if c.Name == "verdicts" {
			if r.Checks[i-1].Name != "trust" {
				s.t.Errorf("verdicts are judged behind %s", r.Checks[i-1].Name)
			}
			return r.Verdict, c
		}
		if c.Status == export.Bad {
			s.t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	s.t.Fatal("the report has no check of verdicts")
	return "", export.Check{}
}

// Whatever an honest door lets in, by keys, certificates, logs or attestations, holds.
func TestHonestVerdictsHold(t *testing.T) {
	trusts := verifytest.Trusts()
	for _, f := range verifytest.Fixtures() {
		if f.Expect != verifytest.ExpectAdmit && f.Expect != verifytest.ExpectAudit || f.Name == "for-this-site" {
			continue // that one is for another site
		}
		t.Run(f.Name, func(t *testing.T) {
			s := newSite(t)
			s.at = f.Now
			s.believe(trusts[f.Trust])
			s.admit(let(t, f.Raw, trusts[f.Trust].Load(), f.Now), nil)
			s.bothJudge(start, s.auditor(), export.Verified, "1 of 1 admissions judged again", "")
		})
	}
}

// revokes is the usual trust, with a revocation of acme's key from some time on.
func revokes(from time.Time) *verifytest.Trust {
	trust := verifytest.NewTrust()
	trust.Revocations.Serial = 2
	trust.Revocations.Revoked = []manifests.Revocation{{Key: verifytest.KeyID("acme-1"), From: from, Reason: "lost"}}
	return trust
}

// certified is the usual trust, where acme signs by a certificate.
func certified() *verifytest.Trust {
	trust := verifytest.NewTrust()
	trust.TrustedRoot = verifytest.TrustedRoot()
	trust.Acme().Require.TLog = 1
	trust.Acme().Identities = []manifests.Identity{{Issuer: verifytest.Issuer, SAN: "release@acme.test"}}
	return trust
}

// A dishonest operator has all keys of the site, and none of those who publish. What he lets
// in against the trust in force is found, and it is said how.
func TestForgedVerdictsAreFound(t *testing.T) {
	now := verifytest.Now()
	plain := verifytest.NewTrust()
	raw := verifytest.NewPlugin().Sign("acme-1")
	under := func(trust *verifytest.Trust) func(*ledger.BundleAdmission) {
		return func(d *ledger.BundleAdmission) { d.Verdict.Trust = trust.Load().Ref() }
	}
	revoked := revokes(now.Add(-time.Minute))
	for name, tc := range map[string]struct {
		believed *verifytest.Trust
		raw      []byte // nil for raw
		by       *verifytest.Trust
		lie      func(d *ledger.BundleAdmission)
		want     string
	}{
		"a revoked key": {revoked, nil, plain, under(revoked), "REVOKED_KEY"},
		"no revocations while some are in force": {revoked, nil, plain, func(d *ledger.BundleAdmission) {
			under(revoked)(d)
			d.Verdict.Trust.Revocations, d.Verdict.Trust.RevocationSerial = "", 0
		}, "another trust than was in force: revocations is"},
		"other revocations than in force": {revoked, nil, plain, nil, "another trust than was in force"},
		"a clock set back before the revocation": {revokes(now.Add(-48 * time.Hour)), nil, plain, func(d *ledger.BundleAdmission) {
			under(revokes(now.Add(-48 * time.Hour)))(d)
			d.Verdict.Now = stamp.Format(now.Add(-49 * time.Hour))
		}, "more than a day from when it was recorded"},
		"a clock set ahead":   {plain, nil, plain, func(d *ledger.BundleAdmission) { d.Verdict.Now = stamp.Format(now.Add(49 * time.Hour)) }, "more than a day"},
		"no policy":           {plain, nil, plain, func(d *ledger.BundleAdmission) { d.Verdict.Trust.Policy = "" }, "names no root, or no policy"},
		"no root":             {plain, nil, plain, func(d *ledger.BundleAdmission) { d.Verdict.Trust.Root = "" }, "names no root, or no policy"},
		"another root's word": {plain, nil, plain, func(d *ledger.BundleAdmission) { d.Verdict.Trust.RootVersion = 2 }, "rootVersion is"},
		"a certificate where no identity is named": {plain, certificate(), certified(), under(plain), "SIGNER_UNKNOWN"},
		"a key that is called a certificate": {plain, nil, plain, func(d *ledger.BundleAdmission) {
			d.Verdict.Signers[0].Flow, d.Verdict.Signers[0].ID = verify.FlowCertificate, strings.Repeat("0", 64)
		}, "not the one that the evidence gives: signers is"},
		"a key that nobody names":    {plain, verifytest.NewPlugin().Sign("stranger"), knows("stranger"), under(plain), "SIGNER_UNKNOWN"},
		"too few signers":            {two(), nil, plain, under(two()), "THRESHOLD_NOT_MET"},
		"a signature left out":       {plain, nil, plain, func(d *ledger.BundleAdmission) { d.Signatures = nil }, "SIGNATURE_MISSING"},
		"another threshold":          {plain, nil, plain, func(d *ledger.BundleAdmission) { d.Verdict.Threshold = 0 }, "threshold is"},
		"another name":               {plain, nil, plain, func(d *ledger.BundleAdmission) { d.Verdict.Name = "acme.other" }, "name is"},
		"a time that nobody vouches": {plain, nil, plain, func(d *ledger.BundleAdmission) { d.Verdict.TrustedTime = second(1) }, "trustedTime is"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = now
			s.believe(tc.believed)
			if tc.raw == nil {
				tc.raw = raw
			}
			res := let(t, tc.raw, tc.by.Load(), now)
			s.blob(string(tc.by.Files().Revocations.Raw))
			s.admit(res, tc.lie)
			verdict, c := s.verdictsOf(s.auditor())
			if verdict != export.Failed || c.Status != export.Bad || !strings.Contains(c.Detail, tc.want) || !strings.Contains(c.Detail, "entry 2: acme/") || c.Line != 3 {
				t.Errorf("%s: %s %s (line %d), want %s", verdict, c.Status, c.Detail, c.Line, tc.want)
			}
		})
	}
}

// two is the usual trust, where two must sign.
func two() *verifytest.Trust {
	trust := verifytest.NewTrust()
	trust.Acme().Threshold = 2
	return trust
}

// knows is the usual trust, where the key is acme's.
func knows(key string) *verifytest.Trust {
	trust := verifytest.NewTrust()
	trust.Policy.Publishers[0] = verifytest.Publisher("acme", key)
	return trust
}

// certificate is a bundle that somebody has signed by a certificate.
func certificate() []byte {
	raw, packed := verifytest.NewBundle().Pack(bundle.PackOptions{})
	sig := verifytest.Certified(packed.Raw, "leaf-1", "release@acme.test", verifytest.Created().Add(time.Minute))
	return verifytest.Attach(raw, []bundle.Attached{sig}, nil)
}

// Trust files that do not parse have let nothing in.
func TestAVerdictByWhatIsNoTrustFile(t *testing.T) {
	for name, lie := range map[string]func(s *site, r *ledger.TrustRef){
		"no policy in it": func(s *site, r *ledger.TrustRef) { r.Policy = s.blob("x = 1\n") },
		"no root in it":   func(s *site, r *ledger.TrustRef) { r.Root = s.blob("x = 1\n") },
	} {
		s := newSite(t)
		s.at = verifytest.Now()
		res := let(t, verifytest.NewPlugin().Sign("acme-1"), verifytest.NewTrust().Load(), s.at)
		s.blob(string(verifytest.NewTrust().Files().Revocations.Raw))
		s.blob(string(verifytest.NewTrust().Files().Policy.Raw))
		s.blob(string(verifytest.NewTrust().Files().Roots[0].Raw))
		s.admit(res, func(d *ledger.BundleAdmission) {
			lie(s, &d.Verdict.Trust)
			s.beginsAnew(d.Verdict.Trust.Root, d.Verdict.Trust.Policy)
			s.at = verifytest.Now()
		})
		if verdict, c := s.verdictsOf(s.auditor()); verdict != export.Failed || !strings.Contains(c.Detail, "no stella believes") {
			t.Errorf("%s: %s, %s", name, verdict, c.Detail)
		}
	}
}

// Where the window does not say which trust was in force, all must name the same.
func TestVerdictsOfAnUnknownTrustAgree(t *testing.T) {
	for name, tc := range map[string]struct {
		second *verifytest.Trust
		want   export.Verdict
	}{
		"the same": {verifytest.NewTrust(), export.Verified},
		"another":  {two(), export.Failed},
	} {
		s := newSite(t)
		s.beginsWith(verifytest.NewTrust())
		for _, trust := range []*verifytest.Trust{verifytest.NewTrust(), tc.second} {
			s.at = verifytest.Now()
			files := trust.Files()
			for _, raw := range [][]byte{files.Roots[0].Raw, files.Policy.Raw, files.Revocations.Raw} {
				s.blob(string(raw))
			}
			s.admit(let(t, verifytest.NewPlugin().Sign("acme-1", "acme-2"), trust.Load(), s.at), nil)
		}
		if verdict, c := s.verdictsOf(s.auditor()); verdict != tc.want {
			t.Errorf("%s: %s, %s", name, verdict, c.Detail)
		}
	}
}

// What cannot be judged is counted, and makes nothing worse.
func TestWhatIsNotJudgedIsCounted(t *testing.T) {
	now := verifytest.Now()
	raw := verifytest.NewPlugin().Sign("acme-1")
	s := newSite(t)
	s.at = now
	trust := revokes(now.Add(time.Minute))
	s.believe(trust)
	s.admit(let(t, raw, trust.Load(), s.at), nil)
	res := let(t, raw, trust.Load(), s.at)
	s.at = now.Add(2 * time.Minute) // the key was revoked before the medium was read to its end
	s.admit(res, nil)
	other := let(t, verifytest.NewBundle().Sign("acme-2"), trust.Load(), s.at)
	s.gone[digest(other.Raw)] = "secret"
	s.admit(other, nil)
	opt := s.auditor()
	opt.Withheld = 1
	verdict, c := s.verdictsOf(opt)
	want := "1 of 3 admissions judged again; 1 not, since a revocation began while they were let in, 1 not, since evidence of them is withheld"
	if verdict != export.Verified || c.Status != export.Skipped || c.Detail != want {
		t.Errorf("%s: %s %s", verdict, c.Status, c.Detail)
	}
}

// While the ledger is ahead of a clock that somebody has accepted, its entries stand still, and
// the clock is that of the verdicts.
func TestVerdictsAfterATimeWasAccepted(t *testing.T) {
	for name, tc := range map[string]struct {
		now  time.Duration // of the verdict, after the accepted time
		want export.Verdict
	}{
		"soon after":     {time.Hour, export.Verified},
		"long before it": {-25 * time.Hour, export.Failed},
	} {
		s := newSite(t)
		right := verifytest.Now().Add(48 * time.Hour)
		s.at = right.Add(30 * 24 * time.Hour) // so the clock has said
		s.believe(verifytest.NewTrust())
		wrong := s.at
		s.add(ledger.Envelope{Type: ledger.ClockAccepted, Actor: "uid:0(root)"}, &ledger.ClockAcceptance{
			Before: stamp.Format(wrong), Accepted: stamp.Format(right), Clock: stamp.Format(right), Reason: "it was wrong",
		})
		s.at = wrong
		s.admit(let(t, verifytest.NewPlugin().Sign("acme-1"), verifytest.NewTrust().Load(), right.Add(tc.now)), nil)
		if verdict, c := s.verdictsOf(s.auditor()); verdict != tc.want {
			t.Errorf("%s: %s, %s", name, verdict, c.Detail)
		}
	}
}

// What has expired goes on by an extension, which is evidence of the verdict as well.
func TestVerdictsUnderAnExtension(t *testing.T) {
	now := verifytest.Now()
	trust := verifytest.NewTrust()
	trust.Root.Roles["break_glass"] = manifests.Role{Threshold: 1, Keys: []string{verifytest.PEM("captain")}}
	trust.Root.MaxExtension = 48 * time.Hour
	trust.Policy.NextUpdate = now.Add(-time.Hour)
	ref := trust.Load().Ref()
	is := manifests.Extension{
		SiteID: siteID, Serial: 1, Root: ref.Root, Policy: ref.Policy, Revocations: ref.Revocations,
		Issued: now.Add(-time.Hour), Until: now.Add(time.Hour), Reason: "at sea",
	}
	text := manifests.EncodeExtension(&is)
	extended, err := trust.Load().Extended(verifytest.Signed(text, "captain"), siteID)
	if err != nil {
		t.Fatal(err)
	}
	by := func(key string) func(s *site) { return func(s *site) { s.extend(is, key) } }
	foreign := is
	foreign.SiteID = strings.Repeat("0", 32)
	for name, tc := range map[string]struct {
		extend func(s *site)
		lie    func(d *ledger.BundleAdmission)
		trust  string // what the checks say
		want   string
		alone  string // what stella-audit says of both
	}{
		"honest":           {by("captain"), nil, "2 of 2 changes", "1 of 1 admissions judged again", "ok ok"},
		"not named":        {by("captain"), func(d *ledger.BundleAdmission) { d.Verdict.Trust.Extension = "" }, "2 of 2 changes", "POLICY_EXPIRED", "ok ok"}, // stella-audit reads no dates
		"signed by nobody": {by("stranger"), nil, "signed by 0 of the 1", "1 of 1", "failed ok"},
		"of another site":  {func(s *site) { s.extend(foreign, "captain") }, nil, "it is for the site 0000", "an extension of trust that was never in force", "failed failed"},
		"said to last longer": {func(s *site) {
			s.extend(is, "captain", func(c *ledger.TrustExtension) { c.Until = stamp.Format(now.AddDate(70, 0, 0)) })
		}, nil, "other things of the extension than the file", "1 of 1", "failed ok"},
		"never put in force": {func(*site) {}, nil, "1 of 1 changes", "an extension of trust that was never in force", "ok failed"},
	} {
		s := newSite(t)
		s.at = now
		s.believe(trust)
		tc.extend(s)
		s.blob(string(text))
		s.admit(let(t, verifytest.NewPlugin().Sign("acme-1"), extended, now), tc.lie)
		_, checks, _, out := s.bothOf(s.auditor())
		if !strings.Contains(checks["trust"].Detail, tc.trust) || !strings.Contains(checks["verdicts"].Detail, tc.want) {
			t.Errorf("%s: %s, %s", name, checks["trust"].Detail, checks["verdicts"].Detail)
		}
		for i, check := range []string{"trust", "verdicts"} {
			if row := rowOf(out, check); !strings.HasPrefix(row, strings.Fields(tc.alone)[i]) {
				t.Errorf("%s: stella-audit: %s %s", name, check, row)
			}
		}
	}
}
