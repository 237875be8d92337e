package export_test

import (
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

// bothJudge demands a verdict of both judges on the window that begins at from, and what each
// says of verdicts.
func (s *site) bothJudge(from time.Time, opt export.VerifyOptions, want export.Verdict, says, beside string) {
	s.t.Helper()
	verdict, checks, alone, out := s.bothFrom(from, opt)
	if c := checks["verdicts"]; verdict != want || !strings.Contains(c.Detail, says) {
		s.t.Errorf("%s: %s %s, want %s: %s", verdict, c.Status, c.Detail, want, says)
	}
	if row := rowOf(out, "verdicts"); alone != string(want) || !strings.HasPrefix(row, beside) {
		s.t.Errorf("stella-audit: %s: %s, want %s: %s", alone, row, want, beside)
	}
}

// hide withholds the data of the last entry.
func (s *site) hide(reason string) {
	s.entries[len(s.entries)-1].Data, s.entries[len(s.entries)-1].Withheld = nil, reason
}

// sealed seals trust files that no entry puts in force.
func (s *site) sealed(trust *verifytest.Trust) {
	f := trust.Files()
	for _, raw := range [][]byte{f.Roots[0].Raw, f.Policy.Raw, f.Revocations.Raw} {
		s.blob(string(raw))
	}
}

// atSea is the usual trust, whose root has expired and can be extended.
func atSea(now time.Time) *verifytest.Trust {
	trust := verifytest.NewTrust()
	trust.Root.Roles["break_glass"] = manifests.Role{Threshold: 1, Keys: []string{verifytest.PEM("captain")}}
	trust.Root.MaxExtension = 48 * time.Hour
	trust.Root.Expires = now.Add(-time.Hour)
	return trust
}

// lasting is an extension of all of a trust.
func lasting(trust *verifytest.Trust, now time.Time) manifests.Extension {
	ref := trust.Load().Ref()
	return manifests.Extension{
		SiteID: siteID, Serial: 1, Root: ref.Root, Policy: ref.Policy, Revocations: ref.Revocations,
		Issued: now.Add(-time.Hour), Until: now.Add(time.Hour), Reason: "at sea",
	}
}

// An extension from before the window lifts what has expired, and nothing else: who has signed
// is judged, and by which trust files.
func TestVerdictsUnderAnExtensionFromBefore(t *testing.T) {
	now := verifytest.Now()
	is := lasting(atSea(now), now)
	text := manifests.EncodeExtension(&is)
	extended := func(trust *verifytest.Trust) *verify.Trust {
		by, err := trust.Load().Extended(verifytest.Signed(text, "captain"), siteID)
		if err != nil {
			t.Fatal(err)
		}
		return by
	}
	own := atSea(now)
	own.Policy.Publishers[0] = verifytest.Publisher("acme", "stranger")
	const before = "extension of trust that they name came before the window"
	for name, tc := range map[string]struct {
		key     string
		by      *verify.Trust
		lie     func(s *site, d *ledger.BundleAdmission)
		gone    bool // the file of the extension
		want    export.Verdict
		says    string
		alone   string
		changes bool // the window knows what is in force
	}{
		"what has expired goes on":     {"acme-1", extended(atSea(now)), nil, false, export.Verified, before, "not judged", false},
		"it does under a known change": {"acme-1", extended(atSea(now)), nil, false, export.Verified, before, "not judged", true},
		"the extension is withheld":    {"acme-1", extended(atSea(now)), nil, true, export.Verified, "evidence of them is withheld", "not judged", true},
		"a stranger has signed": {"stranger", extended(own), func(s *site, d *ledger.BundleAdmission) {
			d.Verdict.Trust.Policy = atSea(now).Load().Ref().Policy
		}, false, export.Failed, "SIGNER_UNKNOWN", "failed", true},
		"a stranger has signed, and the extension is withheld": {"stranger", extended(own), func(s *site, d *ledger.BundleAdmission) {
			d.Verdict.Trust.Policy = atSea(now).Load().Ref().Policy
		}, true, export.Failed, "SIGNER_UNKNOWN", "failed", true},
		"nobody has signed": {"acme-1", extended(atSea(now)), func(s *site, d *ledger.BundleAdmission) {
			d.Signatures, d.Verdict.Signers = nil, nil
		}, false, export.Failed, "SIGNATURE_MISSING", "failed", false},
		"a policy of its own":  {"stranger", extended(own), nil, false, export.Failed, "another trust than was in force", "failed", true},
		"what is no extension": {"acme-1", extended(atSea(now)), func(s *site, d *ledger.BundleAdmission) { d.Verdict.Trust.Extension = s.blob("junk") }, false, export.Failed, "no stella believes", "failed", false},
		"an extension of another site": {"acme-1", extended(atSea(now)), func(s *site, d *ledger.BundleAdmission) {
			foreign := is
			foreign.SiteID = strings.Repeat("0", 32)
			d.Verdict.Trust.Extension = s.blob(string(manifests.EncodeExtension(&foreign)))
		}, false, export.Failed, "it is for the site 0000", "failed", false},
		"an extension that lasts too long": {"acme-1", extended(atSea(now)), func(s *site, d *ledger.BundleAdmission) {
			long := is
			long.Until = now.AddDate(5, 0, 0)
			d.Verdict.Trust.Extension = s.blob(string(manifests.EncodeExtension(&long)))
		}, false, export.Failed, "the root allows", "failed", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = now
			f := atSea(now).Files()
			s.change(f)
			s.extend(is, "captain")
			from := s.at
			if tc.changes {
				s.change(f)
			}
			s.sealed(own)
			opt := s.auditor()
			s.admit(let(t, verifytest.NewPlugin().Sign(tc.key), tc.by, now), func(d *ledger.BundleAdmission) {
				if tc.lie != nil {
					tc.lie(s, d)
				}
			})
			if tc.gone {
				s.gone[digest(text)] = "secret"
				opt.Withheld = 1
			}
			s.bothJudge(from, opt, tc.want, tc.says, tc.alone)
		})
	}
}

// A root that lets nobody extend it has no extension, whatever a verdict names.
func TestVerdictsUnderAnExtensionThatNobodyCanSign(t *testing.T) {
	trust := verifytest.NewTrust()
	for _, gone := range []bool{false, true} {
		s := newSite(t)
		s.at = verifytest.Now()
		s.change(trust.Files())
		from := s.at
		opt := s.auditor()
		s.admit(let(t, verifytest.NewPlugin().Sign("acme-1"), trust.Load(), s.at), func(d *ledger.BundleAdmission) {
			ref := trust.Load().Ref()
			is := manifests.Extension{SiteID: siteID, Serial: 1, Root: ref.Root, Policy: ref.Policy, Issued: s.at, Until: s.at.Add(time.Hour), Reason: "x"}
			d.Verdict.Trust.Extension = s.blob(string(manifests.EncodeExtension(&is)))
			if gone {
				s.gone[d.Verdict.Trust.Extension], opt.Withheld = "secret", 1
			}
		})
		s.bothJudge(from, opt, export.Failed, "no break_glass role", "failed")
	}
}

// Behind an accepted time that was erased the clock of a verdict is its own word; all else is
// judged.
func TestVerdictsBehindAnErasedClock(t *testing.T) {
	usual, own := verifytest.NewTrust(), knows("stranger")
	root := bundle.Digest(usual.Files().Roots[0].Raw)
	for name, tc := range map[string]struct {
		trust       *verifytest.Trust // nil for usual
		key         string
		by          *verify.Trust
		now         time.Duration // of the verdict, after the time that was accepted
		want        export.Verdict
		says, alone string
	}{
		"honest":              {nil, "acme-1", usual.Load(), time.Hour, export.Verified, "1 not, since the time that was accepted before them is withheld", "not judged"},
		"by a stranger":       {nil, "stranger", own.Load(), time.Hour, export.Failed, "SIGNER_UNKNOWN", "failed"},
		"by a revoked key":    {revokes(verifytest.Now().AddDate(0, -1, 0)), "acme-1", usual.Load(), time.Hour, export.Failed, "REVOKED_KEY", "failed"},
		"of a year later":     {nil, "acme-1", usual.Load(), 365 * 24 * time.Hour, export.Failed, "more than a day from when", "failed"},
		"revoked in between":  {revokes(verifytest.Now().AddDate(0, 0, 10)), "acme-1", usual.Load(), time.Hour, export.Verified, "a revocation began while they were let in", "not judged"},
		"of long before that": {nil, "acme-1", usual.Load(), -72 * time.Hour, export.Verified, "1 not, since the time that was accepted", "not judged"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			right := verifytest.Now().AddDate(0, 0, 4)
			s.at = right.Add(30 * 24 * time.Hour) // so the clock has said
			trust := usual
			if tc.trust != nil {
				trust = tc.trust
			}
			s.believe(trust)
			wrong := s.at
			s.add(ledger.Envelope{Type: ledger.ClockAccepted, Actor: "uid:0(root)"}, &ledger.ClockAcceptance{
				Before: stamp.Format(wrong), Accepted: stamp.Format(right), Clock: stamp.Format(right), Reason: "it was wrong",
			})
			s.hide("erased")
			s.at = wrong
			s.admit(let(t, verifytest.NewPlugin().Sign(tc.key), tc.by, right), func(d *ledger.BundleAdmission) {
				d.Verdict.Trust, d.Verdict.Now = trust.Load().Ref(), stamp.Format(right.Add(tc.now))
			})
			opt := s.auditor()
			opt.Withheld, opt.Root = 1, root
			s.bothJudge(start, opt, tc.want, tc.says, tc.alone)
		})
	}
}

// A signer who was revoked, and may be excused for the time of it, has signed all the same.
func TestVerdictsOfRevokedSignersAreSigned(t *testing.T) {
	now := verifytest.Now()
	for name, tc := range map[string]struct {
		from   time.Duration // of the revocation, after the entry
		lie    func(d *ledger.BundleAdmission)
		signed bool
		want   export.Verdict
		says   string // export verify
		alone  string
	}{
		"revoked since, and signed": {-time.Hour, func(d *ledger.BundleAdmission) { d.Verdict.Now = stamp.Format(now.Add(-2 * time.Hour)) }, true,
			export.Verified, "a revocation began", "not judged"},
		"revoked since, and not signed": {-time.Hour, func(d *ledger.BundleAdmission) { d.Verdict.Now = stamp.Format(now.Add(-2 * time.Hour)) }, false,
			export.Failed, "SIGNATURE_INVALID", "failed"},
		"revoked, with a trusted time, and not signed": {-100 * 24 * time.Hour, func(d *ledger.BundleAdmission) { d.Verdict.TrustedTime = stamp.Format(now.AddDate(0, 0, -200)) }, false,
			export.Failed, "SIGNATURE_INVALID", "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = now
			trust := revokes(now.Add(tc.from))
			s.change(trust.Files())
			s.admit(let(t, verifytest.NewPlugin().Sign("acme-1"), verifytest.NewTrust().Load(), now), func(d *ledger.BundleAdmission) {
				d.Verdict.Trust = trust.Load().Ref()
				if !tc.signed {
					b := verifytest.NewPlugin()
					b.Manifest.Version = "6.6.6"
					_, packed := b.Pack(bundle.PackOptions{})
					d.Verdict.Digest, d.Verdict.Version = s.blob(string(packed.Raw)), "6.6.6"
				}
				tc.lie(d)
			})
			s.bothJudge(start, s.auditor(), tc.want, tc.says, tc.alone)
		})
	}
}
