package export_test

import (
	"context"
	"os"
	"slices"
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

// change seals trust files and records them as in force, whoever has signed them. The first
// are those of entry 0. lies change the entry.
func (s *site) change(files verify.Files, lies ...func(c *ledger.TrustChange)) {
	s.t.Helper()
	c := ledger.TrustChange{Reason: "test"}
	for _, f := range append(files.Roots[:len(files.Roots):len(files.Roots)], files.Policy, files.Revocations) {
		if len(f.Raw) == 0 {
			continue
		}
		s.blob(string(f.Raw))
		for _, sig := range f.Signatures {
			c.Signatures = append(c.Signatures, s.blob(string(sig.Data)))
		}
	}
	newest := files.Roots[len(files.Roots)-1].Raw
	root, err := manifests.ParseRoot("root.toml", newest)
	if err != nil {
		s.t.Fatal(err)
	}
	policy, err := manifests.ParsePolicy("policy.toml", files.Policy.Raw)
	if err != nil {
		s.t.Fatal(err)
	}
	c.Root, c.RootVersion, c.Policy, c.PolicySerial = bundle.Digest(newest), root.Version, bundle.Digest(files.Policy.Raw), policy.Serial
	if len(files.Revocations.Raw) > 0 {
		r, err := manifests.ParseRevocations("revocations.toml", files.Revocations.Raw)
		if err != nil {
			s.t.Fatal(err)
		}
		c.Revocations, c.RevocationSerial = bundle.Digest(files.Revocations.Raw), r.Serial
	}
	if len(s.entries) == 1 {
		s.entries, s.hashes = nil, nil
		s.init(c.Root, c.Policy)
	}
	slices.Sort(c.Signatures)
	c.Signatures = slices.Compact(c.Signatures)
	for _, lie := range lies {
		lie(&c)
	}
	s.add(ledger.Envelope{Type: ledger.TrustChanged, Actor: "uid:0(root)"}, &c)
}

// rowsOf gives what both judges say of trust.
func (s *site) rowsOf(opt export.VerifyOptions) (export.Verdict, export.Check, string, string) {
	s.t.Helper()
	verdict, checks, alone, out := s.bothOf(opt)
	return verdict, checks["trust"], alone, rowOf(out, "trust")
}

// bothSay demands a verdict of both judges, and what each says of trust.
func (s *site) bothSay(opt export.VerifyOptions, want export.Verdict, says, beside string) {
	s.t.Helper()
	verdict, c, alone, row := s.rowsOf(opt)
	if verdict != want || !strings.Contains(c.Detail, says) {
		s.t.Errorf("%s: %s %s, want %s: %s", verdict, c.Status, c.Detail, want, says)
	}
	if alone != string(want) || !strings.HasPrefix(row, beside) {
		s.t.Errorf("stella-audit: %s: %s, want %s: %s", alone, row, want, beside)
	}
}

// bothOf judges the archive of all that a site has recorded by both judges.
func (s *site) bothOf(opt export.VerifyOptions) (verdict export.Verdict, checks map[string]export.Check, alone, out string) {
	s.t.Helper()
	return s.bothFrom(start, opt)
}

func (s *site) bothFrom(from time.Time, opt export.VerifyOptions) (verdict export.Verdict, checks map[string]export.Check, alone, out string) {
	s.t.Helper()
	s.at = s.at.Add(time.Hour)
	s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
	s.checkpoint()
	path := s.t.TempDir() + "/archive.tar"
	if err := os.WriteFile(path, s.archive(export.Window{From: stamp.Format(from), To: stamp.Format(s.at.Add(-time.Minute))}), 0o600); err != nil {
		s.t.Fatal(err)
	}
	r, err := export.Verify(context.Background(), path, opt)
	if err != nil {
		s.t.Fatal(err)
	}
	checks = map[string]export.Check{}
	for _, c := range r.Checks {
		checks[c.Name] = c
	}
	alone, _, out = audit(s.t, opt, path)
	return r.Verdict, checks, alone, out
}

// rotated is the usual trust under another root, which from lets follow, signed by these keys.
func rotated(version int64, key string, by ...string) func(f *verify.Files) {
	return func(f *verify.Files) {
		t := verifytest.NewTrust()
		t.Root.Version = version
		for _, role := range []string{"root", "policy", "revocation"} {
			r := t.Root.Roles[role]
			r.Keys = []string{verifytest.PEM(key)}
			t.Root.Roles[role] = r
		}
		f.Roots = append(f.Roots[:len(f.Roots):len(f.Roots)], verifytest.Signed(manifests.EncodeRoot(t.Root), append(by, key)...))
		f.Policy.Signatures = append(f.Policy.Signatures[:len(f.Policy.Signatures):len(f.Policy.Signatures)], verifytest.Signatures(f.Policy.Raw, key)...)
		f.Revocations.Signatures = append(f.Revocations.Signatures[:len(f.Revocations.Signatures):len(f.Revocations.Signatures)], verifytest.Signatures(f.Revocations.Raw, key)...)
	}
}

// policyOf is another policy, signed by the keys.
func policyOf(serial int64, by ...string) func(f *verify.Files) {
	return func(f *verify.Files) {
		t := verifytest.NewTrust()
		t.Policy.Serial = serial
		t.Policy.Publishers[0] = verifytest.Publisher("acme", "stranger")
		f.Policy = verifytest.Signed(manifests.EncodePolicy(t.Policy), by...)
	}
}

// revocationsOf are other revocations, of a key, signed by the keys.
func revocationsOf(serial int64, revoked string, by ...string) func(f *verify.Files) {
	return func(f *verify.Files) {
		r := &manifests.Revocations{Serial: serial, RootVersion: 1, Issued: verifytest.Created(), NextUpdate: verifytest.Now().AddDate(1, 0, 0)}
		if revoked != "" {
			r.Revoked = []manifests.Revocation{{Key: verifytest.KeyID(revoked), Reason: "lost"}}
		}
		f.Revocations = verifytest.Signed(manifests.EncodeRevocations(r), by...)
	}
}

// A site that writes trust files of its own, and puts them in force, is found by both judges:
// the roles have not signed them. What the roles have done is believed.
func TestWhoSignedTheTrustFiles(t *testing.T) {
	files := verifytest.NewTrust().Files()
	first := bundle.Digest(files.Roots[0].Raw)
	then := func(edits ...func(*verify.Files)) []func(*verify.Files) { return edits }
	for name, tc := range map[string]struct {
		edits []func(*verify.Files)
		root  string // that is expected
		want  export.Verdict
		says  string // export verify
		alone string // stella-audit
		lie   func(s *site)
	}{
		"as they were made":            {nil, first, export.Verified, "1 of 1 changes judged again", "ok", nil},
		"another root is expected":     {nil, strings.Repeat("0", 64), export.Unauthenticated, "another root than the one given", "failed", nil},
		"a policy of the role":         {then(policyOf(2, "policy")), first, export.Verified, "2 of 2 changes", "ok", nil},
		"a policy of nobody":           {then(policyOf(2)), "", export.Failed, "signed by 0 of the 1", "failed", nil},
		"a policy of the publisher":    {then(policyOf(2, "stranger")), "", export.Failed, "signed by 0 of the 1", "failed", nil},
		"a policy of another role":     {then(policyOf(2, "revocation")), "", export.Failed, "signed by 0 of the 1", "failed", nil},
		"an older policy":              {then(policyOf(3, "policy"), policyOf(2, "policy")), "", export.Failed, "its serial is 2, 3 is in force", "failed", nil},
		"the serial with other bytes":  {then(policyOf(1, "policy")), "", export.Failed, "serial 1 is in force with other bytes", "failed", nil},
		"revocations of the role":      {then(revocationsOf(9, "acme-2", "revocation")), first, export.Verified, "2 of 2", "ok", nil},
		"revocations of nobody":        {then(revocationsOf(9, "acme-2")), "", export.Failed, "signed by 0 of the 1", "failed", nil},
		"revocations are gone":         {then(func(f *verify.Files) { f.Revocations = verify.RoleFile{} }), "", export.Failed, "its serial is 0", "failed", nil},
		"a root that the first signed": {then(rotated(2, "stranger", "root")), first, export.Verified, "2 of 2", "ok", nil},
		"a root of its own":            {then(rotated(2, "stranger")), "", export.Failed, "by the root before", "failed", nil},
		"a root that passes over one":  {then(rotated(3, "stranger")), first, export.Failed, "none can be passed over", "failed", nil},
		"the same, and none expected":  {then(rotated(3, "stranger")), "", export.Failed, "none can be passed over", "failed", nil},
		"a root goes back": {then(rotated(2, "stranger", "root"), func(f *verify.Files) { *f = files }), "", export.Failed,
			"it is root 1, root 2 was in force", "failed", nil},
		"before it admissions": {nil, first, export.Incomplete, "1 admissions come before", "missing", func(s *site) {
			for _, raw := range [][]byte{files.Roots[0].Raw, files.Policy.Raw, files.Revocations.Raw} {
				s.blob(string(raw))
			}
			s.admit(let(t, verifytest.NewPlugin().Sign("acme-1"), verifytest.NewTrust().Load(), s.at), nil)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = verifytest.Now()
			if tc.lie != nil {
				s.entries, s.hashes = nil, nil
				s.init(first, bundle.Digest(files.Policy.Raw))
				tc.lie(s)
			}
			f := files
			s.change(f)
			for _, edit := range tc.edits {
				edit(&f)
				s.change(f)
			}
			opt := s.auditor()
			opt.Root = tc.root
			s.bothSay(opt, tc.want, tc.says, tc.alone)
		})
	}
}

// A key that was revoked signs no more, by more than a day; nearer to that nobody can say
// which came first.
func TestWhoSignedTheTrustFilesWasRevoked(t *testing.T) {
	now := verifytest.Now()
	for name, tc := range map[string]struct {
		from  time.Time
		want  export.Verdict
		says  string
		alone string // of stella-audit
	}{
		"for all times":   {time.Time{}, export.Failed, "without revoked keys it is signed by 0 of the 1", "failed"},
		"two days ago":    {now.Add(-48 * time.Hour), export.Failed, "without revoked keys", "failed"},
		"an hour ago":     {now.Add(-time.Hour), export.Verified, "3 changes judged again; 1 not, since a revocation began while they were made", "not judged"},
		"in a day's time": {now.Add(24 * time.Hour), export.Verified, "3 of 3 changes judged again", "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			trust := verifytest.NewTrust()
			role := trust.Root.Roles["policy"]
			role.Keys = append(role.Keys, verifytest.PEM("reviewer"))
			trust.Root.Roles["policy"] = role
			s := newSite(t)
			s.at = now
			f := trust.Files()
			s.change(f)
			trust.Revocations.Serial = 2
			trust.Revocations.Revoked = []manifests.Revocation{{Key: verifytest.KeyID("reviewer"), From: tc.from, Reason: "lost"}}
			f.Revocations = trust.Files().Revocations
			s.change(f)
			policyOf(2, "reviewer")(&f)
			s.change(f)
			verdict, c, alone, row := s.rowsOf(s.auditor())
			if verdict != tc.want || !strings.Contains(c.Detail, tc.says) {
				t.Errorf("%s: %s %s, want %s: %s", verdict, c.Status, c.Detail, tc.want, tc.says)
			}
			if (alone == string(export.Failed)) != (tc.alone == "failed") || !strings.HasPrefix(row, tc.alone) {
				t.Errorf("stella-audit: %s: %s, want %s", alone, row, tc.alone)
			}
		})
	}
}

// What an entry says of the files is what they say, and the first are those of entry 0.
func TestTrustFilesAreThoseThatAreNamed(t *testing.T) {
	files := verifytest.NewTrust().Files()
	other := files
	policyOf(2, "policy")(&other)
	for name, tc := range map[string]struct {
		lie  func(s *site)
		want string
	}{
		"another serial":  {func(s *site) { s.change(files, func(c *ledger.TrustChange) { c.PolicySerial = 7 }) }, "policySerial is"},
		"another version": {func(s *site) { s.change(files, func(c *ledger.TrustChange) { c.RootVersion = 7 }) }, "rootVersion is"},
		"others than in entry 0": {func(s *site) {
			s.entries, s.hashes = nil, nil
			s.init(s.blob(string(files.Roots[0].Raw)), s.blob(string(files.Policy.Raw)))
			s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
			s.change(other)
		}, "not those that entry 0 names"},
	} {
		s := newSite(t)
		s.at = verifytest.Now()
		tc.lie(s)
		verdict, c, alone, row := s.rowsOf(s.auditor())
		if verdict != export.Failed || !strings.Contains(c.Detail, tc.want) || alone != string(export.Failed) || !strings.HasPrefix(row, "failed") {
			t.Errorf("%s: %s: %s, want %s; stella-audit %s: %s", name, verdict, c.Detail, tc.want, alone, row)
		}
	}
}

// Behind a change of which nothing is known both judges go on: what follows is signed, and no
// serial falls.
func TestTrustFilesBehindWhatIsWithheld(t *testing.T) {
	first := bundle.Digest(verifytest.NewTrust().Files().Roots[0].Raw)
	for name, tc := range map[string]struct {
		hidden, then func(f *verify.Files)
		root         string
		want         export.Verdict
		says, alone  string
	}{
		"a policy of the role":    {policyOf(3, "policy"), policyOf(4, "policy"), "", export.Verified, "2 of 3 changes judged again; 1 not, since evidence", "not judged"},
		"a root is expected":      {policyOf(3, "policy"), policyOf(4, "policy"), first, export.Incomplete, "2 of 3", "missing"},
		"a policy of nobody":      {policyOf(3, "policy"), policyOf(4), "", export.Failed, "signed by 0 of the 1", "failed"},
		"a root behind it":        {rotated(2, "stranger", "root"), rotated(3, "reviewer"), "", export.Verified, "1 not, since the roots between root 1 and root 3 are withheld", "not judged"},
		"revocations from before": {policyOf(3, "policy"), func(f *verify.Files) { policyOf(4, "policy")(f); f.Revocations = verify.RoleFile{} }, "", export.Failed, "its serial is 0, 1 is in force", "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = verifytest.Now()
			f := verifytest.NewTrust().Files()
			s.change(f)
			hidden := f
			tc.hidden(&hidden)
			s.change(hidden)
			if bundle.Digest(hidden.Policy.Raw) != bundle.Digest(f.Policy.Raw) {
				s.gone[bundle.Digest(hidden.Policy.Raw)] = "secret"
			} else {
				s.gone[bundle.Digest(hidden.Roots[1].Raw)] = "secret"
			}
			tc.then(&f)
			s.change(f)
			opt := s.auditor()
			opt.Withheld, opt.Root = 1, tc.root
			s.bothSay(opt, tc.want, tc.says, tc.alone)
		})
	}
}

// A file that a role has signed is that file alone; and what an entry names is named once.
func TestATrustFileIsNoOther(t *testing.T) {
	trust := verifytest.NewTrust()
	trust.Root.Roles["revocation"] = trust.Root.Roles["policy"] // one key, as in many fleets
	f := trust.Files()
	f.Revocations = verifytest.Signed(f.Revocations.Raw, "policy")
	next := f
	policyOf(2, "policy")(&next)
	for name, tc := range map[string]struct {
		lie         func(c *ledger.TrustChange)
		want, alone string
	}{
		"the policy as revocations": {func(c *ledger.TrustChange) { c.Revocations, c.RevocationSerial = c.Policy, c.PolicySerial }, "revocations.toml", "revocations is no such file"},
		"a signature twice":         {func(c *ledger.TrustChange) { c.Signatures = append(c.Signatures[:1:1], c.Signatures...) }, "one is there twice", "one is there twice"},
		"another trusted root":      {func(c *ledger.TrustChange) { c.TrustedRoot = c.Policy }, "trusted_root", "another trusted root"},
	} {
		s := newSite(t)
		s.at = verifytest.Now()
		s.change(f)
		s.change(next, tc.lie)
		if verdict, c, alone, row := s.rowsOf(s.auditor()); verdict != export.Failed || !strings.Contains(c.Detail, tc.want) || alone != string(export.Failed) || !strings.Contains(row, tc.alone) {
			t.Errorf("%s: %s: %s; stella-audit %s: %s", name, verdict, c.Detail, alone, row)
		}
	}
}

// A window that begins later says what it cannot say, and accuses nobody.
func TestTrustFilesOfALaterWindow(t *testing.T) {
	s := newSite(t)
	s.at = verifytest.Now()
	trust := verifytest.NewTrust()
	trust.Root.Roles["break_glass"] = manifests.Role{Threshold: 1, Keys: []string{verifytest.PEM("captain")}}
	trust.Root.MaxExtension = 48 * time.Hour
	f := trust.Files()
	s.change(f)
	from := s.at
	ref := trust.Load().Ref()
	until := s.at.Add(time.Hour)
	s.extend(manifests.Extension{SiteID: siteID, Serial: 1, Root: ref.Root, Policy: ref.Policy, Revocations: ref.Revocations, Issued: s.at, Until: until, Reason: "at sea"}, "captain")
	verdict, checks, alone, out := s.bothFrom(from, s.auditor())
	if verdict != export.Verified || !strings.Contains(checks["trust"].Detail, "1 not, since the trust that they extend came in force before the window") ||
		alone != string(export.Verified) || !strings.HasPrefix(rowOf(out, "trust"), "not judged") {
		t.Errorf("%s: %s; stella-audit %s: %s", verdict, checks["trust"].Detail, alone, rowOf(out, "trust"))
	}
	policyOf(2, "policy")(&f)
	from = s.at
	s.change(f)
	opt := s.auditor()
	opt.Root = strings.Repeat("0", 64)
	verdict, checks, alone, out = s.bothFrom(from, opt)
	if verdict != export.Incomplete || !strings.Contains(checks["trust"].Detail, "only archives from before show") || alone != string(export.Incomplete) {
		t.Errorf("%s: %s; stella-audit %s: %s", verdict, checks["trust"].Detail, alone, rowOf(out, "trust"))
	}
}

// What an honest site has to withhold by law accuses it of nothing: an accepted time, an
// extension, or the evidence of a root.
func TestWhatIsWithheldOfTrustAccusesNobody(t *testing.T) {
	erased := func(s *site) { s.entries[len(s.entries)-1].Data, s.entries[len(s.entries)-1].Withheld = nil, "erased" }
	sea := func(version int64) *verifytest.Trust {
		trust := verifytest.NewTrust()
		trust.Root.Version = version
		trust.Root.Roles["break_glass"] = manifests.Role{Threshold: 1, Keys: []string{verifytest.PEM("captain")}}
		trust.Root.MaxExtension = 48 * time.Hour
		return trust
	}
	extension := func(s *site, trust *verifytest.Trust) manifests.Extension {
		ref := trust.Load().Ref()
		return manifests.Extension{SiteID: siteID, Serial: 1, Root: ref.Root, Policy: ref.Policy, Revocations: ref.Revocations, Issued: s.at, Until: s.at.Add(time.Hour), Reason: "at sea"}
	}
	for name, tc := range map[string]struct {
		story       func(s *site)
		says, alone string
	}{
		"an extension of a root that is withheld": {func(s *site) {
			f := sea(1).Files()
			s.change(f)
			next := sea(2)
			f.Roots = append(f.Roots, verifytest.Signed(manifests.EncodeRoot(next.Root), "root"))
			s.change(f)
			s.gone[bundle.Digest(f.Roots[1].Raw)] = "secret"
			s.extend(extension(s, next), "captain")
		}, "1 of 3 changes judged again", "not judged"},
		"roots while an accepted time counts": {func(s *site) {
			s.at = s.at.AddDate(0, 1, 0)
			f := verifytest.NewTrust().Files()
			s.change(f)
			wrong, right := s.at, stamp.Format(verifytest.Now())
			s.add(ledger.Envelope{Type: ledger.ClockAccepted, Actor: "uid:0(root)"}, &ledger.ClockAcceptance{Before: stamp.Format(wrong), Accepted: right, Clock: right, Reason: "x"})
			erased(s)
			s.at = wrong
			rotated(2, "stranger", "root")(&f)
			s.change(f)
			rotated(3, "reviewer", "stranger")(&f)
			s.change(f)
		}, "3 of 3 changes judged again", "ok"},
		"a policy by a key that was revoked while an accepted time counts": {func(s *site) {
			s.at = s.at.AddDate(0, 1, 0)
			trust := verifytest.NewTrust()
			trust.Revocations.Revoked = []manifests.Revocation{{Key: verifytest.KeyID("reviewer"), From: s.at.Add(-48 * time.Hour), Reason: "lost"}}
			role := trust.Root.Roles["policy"]
			role.Keys = append(role.Keys, verifytest.PEM("reviewer"))
			trust.Root.Roles["policy"] = role
			f := trust.Files()
			s.change(f)
			wrong, right := s.at, stamp.Format(verifytest.Now())
			s.add(ledger.Envelope{Type: ledger.ClockAccepted, Actor: "uid:0(root)"}, &ledger.ClockAcceptance{Before: stamp.Format(wrong), Accepted: right, Clock: right, Reason: "x"})
			erased(s)
			s.at = wrong
			policyOf(2, "reviewer")(&f)
			s.change(f)
		}, "1 of 2 changes judged again; 1 not, since a revocation began", "not judged  a revocation began"},
		"an extension that lets something in": {func(s *site) {
			trust := sea(1)
			s.believe(trust)
			is := extension(s, trust)
			by, err := trust.Load().Extended(verifytest.Signed(manifests.EncodeExtension(&is), "captain"), siteID)
			if err != nil {
				s.t.Fatal(err)
			}
			s.extend(is, "captain")
			erased(s)
			s.admit(let(t, verifytest.NewPlugin().Sign("acme-1"), by, s.at), nil)
		}, "1 of 2 changes judged again", "not judged"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = verifytest.Now()
			tc.story(s)
			opt := s.auditor()
			opt.Withheld = 1
			s.bothSay(opt, export.Verified, tc.says, tc.alone)
		})
	}
}

// A key of the break_glass role that was revoked extends nothing.
func TestExtensionsByRevokedKeys(t *testing.T) {
	now := verifytest.Now()
	for name, tc := range map[string]struct {
		from  time.Time
		want  export.Verdict
		says  string
		alone string // of stella-audit
	}{
		"for all times":   {time.Time{}, export.Failed, "signed by 0 of the 1", "failed"},
		"two days ago":    {now.Add(-48 * time.Hour), export.Failed, "signed by 0 of the 1", "failed"},
		"an hour ago":     {now.Add(-time.Hour), export.Verified, "1 of 2 changes judged again; 1 not, since a revocation began", "not judged"},
		"in a day's time": {now.Add(24 * time.Hour), export.Verified, "2 of 2 changes judged again", "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = now
			trust := verifytest.NewTrust()
			trust.Root.Roles["break_glass"] = manifests.Role{Threshold: 1, Keys: []string{verifytest.PEM("captain")}}
			trust.Root.MaxExtension = 48 * time.Hour
			trust.Revocations.Revoked = []manifests.Revocation{{Key: verifytest.KeyID("captain"), From: tc.from, Reason: "lost"}}
			s.believe(trust)
			ref := trust.Load().Ref()
			s.extend(manifests.Extension{SiteID: siteID, Serial: 1, Root: ref.Root, Policy: ref.Policy, Revocations: ref.Revocations, Issued: now, Until: now.Add(time.Hour), Reason: "at sea"}, "captain")
			verdict, c, alone, row := s.rowsOf(s.auditor())
			if verdict != tc.want || !strings.Contains(c.Detail, tc.says) {
				t.Errorf("%s: %s %s, want %s: %s", verdict, c.Status, c.Detail, tc.want, tc.says)
			}
			if (alone == string(export.Failed)) != (tc.alone == "failed") || !strings.HasPrefix(row, tc.alone) {
				t.Errorf("stella-audit: %s: %s, want %s", alone, row, tc.alone)
			}
		})
	}
}
