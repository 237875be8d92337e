package export_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify/verifytest"
)

// A verdict says of a bundle what its sealed manifest says, and by the policy it may be let in.
func TestVerdictsSayWhatTheManifestSays(t *testing.T) {
	now := verifytest.Now()
	trust := func() *verifytest.Trust {
		trust := verifytest.NewTrust()
		trust.Policy.Publishers = append(trust.Policy.Publishers, verifytest.Publisher("tools", "stranger"))
		return trust
	}
	audits := trust()
	audits.Acme().Level = "audit"
	audits.Acme().Require.Attestations = []manifests.RequiredAttestation{{PredicateType: verifytest.Review, Keys: []string{verifytest.PEM("reviewer")}}}
	closed := trust()
	closed.Acme().Kinds = []manifests.Kind{manifests.KindData}
	const site, fleet = siteID, "f1ee0000000000000000000000000001"
	for name, tc := range map[string]struct {
		trust *verifytest.Trust         // nil for the usual
		edit  func(m *manifests.Bundle) // of what is signed
		lie   func(d *ledger.BundleAdmission)
		want  export.Verdict
		says  string // export verify
		alone string // stella-audit
	}{
		"all of it":         {nil, nil, nil, export.Verified, "1 of 1", "ok"},
		"another name":      {nil, nil, func(d *ledger.BundleAdmission) { d.Verdict.Name = "acme.other" }, export.Failed, "name is", "failed"},
		"another version":   {nil, nil, func(d *ledger.BundleAdmission) { d.Verdict.Version = "9.9.9" }, export.Failed, "version is", "failed"},
		"another sequence":  {nil, nil, func(d *ledger.BundleAdmission) { d.Verdict.Sequence = 1 << 30 }, export.Failed, "sequence is", "failed"},
		"another kind":      {nil, nil, func(d *ledger.BundleAdmission) { d.Verdict.Kind = "data" }, export.Failed, "kind is", "failed"},
		"no such decision":  {nil, nil, func(d *ledger.BundleAdmission) { d.Verdict.Decision = "junk" }, export.Failed, "decision is", "failed"},
		"what was softened": {nil, nil, func(d *ledger.BundleAdmission) { d.Verdict.Softened = []string{"TLOG_MISSING"} }, export.Failed, "softened is", "failed"},
		"under audit, of who is not": {nil, nil, func(d *ledger.BundleAdmission) {
			d.Verdict.Decision, d.Verdict.Softened = "admitted_under_audit", []string{"TLOG_MISSING"}
		}, export.Failed, "decision is", "failed"},
		"under audit":                         {audits, nil, nil, export.Verified, "1 of 1", "ok"},
		"under audit, with nothing to soften": {audits, nil, func(d *ledger.BundleAdmission) { d.Verdict.Softened = nil }, export.Failed, "softened is", "failed"},
		"a time that nobody vouches for":      {nil, nil, func(d *ledger.BundleAdmission) { d.Verdict.TrustedTime = second(1) }, export.Failed, "trustedTime is", "failed"},
		"another publisher, who has signed it": {nil, nil, func(d *ledger.BundleAdmission) {
			d.Verdict.Publisher = "tools"
			d.Verdict.Signers[0].Publisher = "tools"
		}, export.Failed, "SIGNER_FOREIGN", "failed"},
		"a name that is not the publisher's": {nil, func(m *manifests.Bundle) { m.Name = "evil.x" }, nil, export.Failed, "NAME_NOT_ALLOWED", "failed"},
		"a kind that is not the publisher's": {closed, nil, nil, export.Failed, "KIND_NOT_ALLOWED", "failed"},
		"that it has expired":                {nil, func(m *manifests.Bundle) { m.Expires = verifytest.Created().Add(time.Minute) }, nil, export.Failed, "EXPIRED", "failed"},
		"that it is not valid yet":           {nil, func(m *manifests.Bundle) { m.NotBefore = now.Add(time.Hour) }, nil, export.Failed, "NOT_YET_VALID", "failed"},
		"that it is for another site":        {nil, func(m *manifests.Bundle) { m.Audience = []string{strings.Repeat("0", 32)} }, nil, export.Failed, "AUDIENCE_MISMATCH", "failed"},
		"that it is for this site":           {nil, func(m *manifests.Bundle) { m.Audience = []string{strings.Repeat("0", 32), site} }, nil, export.Verified, "1 of 1", "ok"},
		"that it is for this fleet":          {nil, func(m *manifests.Bundle) { m.Audience = []string{fleet} }, nil, export.Verified, "1 of 1", "ok"},
		"that it is valid":                   {nil, func(m *manifests.Bundle) { m.NotBefore, m.Expires = now, now.Add(time.Second) }, nil, export.Verified, "1 of 1", "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = now
			in := tc.trust
			if in == nil {
				in = trust()
			}
			s.change(in.Files())
			good := let(t, verifytest.NewPlugin().Sign("acme-1"), verifytest.NewTrust().Load(), now)
			if tc.trust == audits {
				good = let(t, verifytest.NewPlugin().Sign("acme-1"), audits.Load(), now)
			}
			s.admit(good, func(d *ledger.BundleAdmission) {
				b := verifytest.NewPlugin()
				if tc.edit != nil {
					tc.edit(&b.Manifest)
				}
				_, packed := b.Pack(bundle.PackOptions{})
				key := "acme-1"
				if strings.Contains(name, "who has signed it") {
					key = "stranger"
				}
				sig := verifytest.Signatures(packed.Raw, key)[0]
				d.Verdict.Digest, d.Verdict.Name, d.Verdict.Trust = s.blob(string(packed.Raw)), b.Manifest.Name, in.Load().Ref()
				d.Signatures = []string{s.blob(string(sig.Data))}
				d.Verdict.Signers = []ledger.SignerRef{{ID: sig.ID, Publisher: "acme", Flow: "key", File: d.Signatures[0]}}
				if tc.lie != nil {
					tc.lie(d)
				}
			})
			s.bothJudge(start, s.auditor(), tc.want, tc.says, tc.alone)
		})
	}
}

// An entry says of an extension what the file says, and serials of extensions rise.
func TestEntriesSayWhatTheExtensionSays(t *testing.T) {
	now := verifytest.Now()
	at := atSea(now)
	is := lasting(at, now)
	other := strings.Repeat("0", 64)
	next := func(serial int64) manifests.Extension {
		x := is
		x.Serial, x.Until = serial, now.Add(2*time.Hour)
		return x
	}
	long := is
	long.Until = now.AddDate(5, 0, 0)
	for name, tc := range map[string]struct {
		all   []manifests.Extension
		lie   func(c *ledger.TrustExtension) // of the last
		want  export.Verdict
		says  string // export verify
		alone string // stella-audit
	}{
		"all of it":        {[]manifests.Extension{is}, nil, export.Verified, "2 of 2", "ok"},
		"another serial":   {[]manifests.Extension{is}, func(c *ledger.TrustExtension) { c.Serial = 99 }, export.Failed, "other things of the extension", "failed"},
		"another policy":   {[]manifests.Extension{is}, func(c *ledger.TrustExtension) { c.Policy = other }, export.Failed, "other things of the extension", "failed"},
		"another root":     {[]manifests.Extension{is}, func(c *ledger.TrustExtension) { c.Root = other }, export.Failed, "other things of the extension", "failed"},
		"too long a while": {[]manifests.Extension{long}, nil, export.Failed, "the root allows", "failed"},
		"two":              {[]manifests.Extension{is, next(2)}, nil, export.Verified, "3 of 3", "ok"},
		"one from before":  {[]manifests.Extension{next(2), is}, nil, export.Failed, "its serial is 1, one of serial 2 came before", "failed"},
		"one serial twice": {[]manifests.Extension{is, next(1)}, nil, export.Failed, "its serial is 1, one of serial 1 came before", "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = now
			s.change(at.Files())
			for i, x := range tc.all {
				s.extend(x, "captain", func(c *ledger.TrustExtension) {
					if tc.lie != nil && i == len(tc.all)-1 {
						tc.lie(c)
					}
				})
			}
			opt := s.auditor()
			opt.Root = at.Load().Ref().Root
			s.bothSay(opt, tc.want, tc.says, tc.alone)
		})
	}
}

// A window that begins later does not know the serial of the extension before: stella-audit
// does, if it has the archive before.
func TestSerialsOfExtensionsFromArchiveToArchive(t *testing.T) {
	now := verifytest.Now()
	at := atSea(now)
	is := lasting(at, now)
	s := newSite(t)
	s.at = now
	s.change(at.Files())
	two := is
	two.Serial = 2
	s.extend(two, "captain")
	middle := s.at
	s.extend(is, "captain")
	paths := s.months(middle)
	for n, want := range map[int]export.Verdict{0: export.Failed, 1: export.Verified} {
		verdict, _, out := audit(t, s.auditor(), paths[n:]...)
		if verdict != string(want) {
			t.Errorf("from %d on: %s, want %s\n%s", n, verdict, want, out)
		}
	}
}

// Only what people have said is erased: other data that is called erased is hidden.
func TestWhatCannotBeErasedIsNot(t *testing.T) {
	for seq, want := range map[int]export.Verdict{1: export.Failed, 3: export.Failed, 4: export.Verified, 6: export.Failed, 7: export.Verified} {
		s := busySite(t)
		env, err := ledger.ParseEnvelope(s.entries[seq].Envelope)
		if err != nil {
			t.Fatal(err)
		}
		s.entries[seq].Data, s.entries[seq].Withheld = nil, "erased"
		opt := s.auditor()
		opt.Withheld = 1
		r := check(t, s.archive(window(0, 20)), opt)
		alone, _, out := audit(t, opt, saved(t, s.archive(window(0, 20))))
		if r.Verdict != want || alone != string(want) {
			t.Errorf("%s: %s, want %s\n%s\n%s", env.Type, r.Verdict, want, explain(r), out)
		}
	}
}
