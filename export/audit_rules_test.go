package export_test

import (
	"crypto/ecdsa"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// changes puts in force what a verdict names, as lie leaves it.
func changes(s *site, d *ledger.BundleAdmission, lie func(c *ledger.TrustChange)) {
	t := d.Verdict.Trust
	c := &ledger.TrustChange{
		Root: t.Root, RootVersion: t.RootVersion, Policy: t.Policy, PolicySerial: t.PolicySerial,
		Revocations: t.Revocations, RevocationSerial: t.RevocationSerial, Reason: "x",
	}
	lie(c)
	for role, sum := range map[string]string{"root": c.Root, "policy": c.Policy, "revocation": c.Revocations} {
		for _, sig := range verifytest.Signatures(s.blobs[sum], role) {
			c.Signatures = append(c.Signatures, s.blob(string(sig.Data)))
		}
	}
	slices.Sort(c.Signatures)
	if len(s.entries) == 1 {
		s.entries, s.hashes = nil, nil
		s.init(c.Root, c.Policy)
	}
	s.add(ledger.Envelope{Type: ledger.TrustChanged, Actor: "uid:0(root)"}, c)
	d.Verdict.Now = stamp.Format(s.at)
}

// accepts records that a clock behind the record is right: times stand still after it.
func accepts(s *site, clock time.Time) {
	s.add(ledger.Envelope{Type: ledger.ClockAccepted, Actor: "uid:0(root)"}, &ledger.ClockAcceptance{
		Before: stamp.Format(s.at), Accepted: stamp.Format(clock), Clock: stamp.Format(clock), Reason: "the battery was dead",
	})
	s.at = s.at.Add(-time.Second)
}

// A verdict is by the trust in force and by the clock of its time. The operator
// can leave out a revocation, or call another day; stella-audit names it.
func TestVerdictsAreOfTheirTime(t *testing.T) {
	day := 24 * time.Hour
	id := verify.KeyID(&p256(t, 13).PublicKey)
	other := "schema = \"stella.revocations/1\"\nserial = 1\n[[revoke]]\nkey = \"" + strings.Repeat("2", 64) + "\"\n"
	for name, tc := range map[string]struct {
		revocations string
		lie         func(s *site, d *ledger.BundleAdmission)
		want        string
	}{
		"by the trust in force": {other, func(s *site, d *ledger.BundleAdmission) { changes(s, d, func(*ledger.TrustChange) {}) }, "ok"},
		"under an extension that never was": {other, func(s *site, d *ledger.BundleAdmission) {
			changes(s, d, func(*ledger.TrustChange) {})
			d.Verdict.Trust.Extension = s.blob("an extension")
		}, "failed"},
		"without the revocations in force": {"", func(s *site, d *ledger.BundleAdmission) {
			changes(s, d, func(c *ledger.TrustChange) { c.Revocations, c.RevocationSerial = s.blob(other), 1 })
		}, "failed"},
		"by a policy that was in force before": {"", func(s *site, d *ledger.BundleAdmission) {
			changes(s, d, func(c *ledger.TrustChange) { c.PolicySerial++ })
		}, "failed"},
		"by other trust than the one before it": {"", func(s *site, d *ledger.BundleAdmission) {
			first := *d
			first.Verdict.Trust.Revocations, first.Verdict.Trust.RevocationSerial = s.blob(other), 1
			s.add(ledger.Envelope{Type: ledger.BundleAdmitted, Actor: "uid:0(root)"}, &first)
		}, "failed"},
		"by the same trust as the one before it": {"", func(s *site, d *ledger.BundleAdmission) {
			s.add(ledger.Envelope{Type: ledger.BundleAdmitted, Actor: "uid:0(root)"}, d)
		}, "ok"},
		"by a clock that was set back": {"", func(_ *site, d *ledger.BundleAdmission) {
			d.Verdict.Now = stamp.Format(start.Add(-day))
		}, "failed"},
		"by a clock of ten years later": {"", func(_ *site, d *ledger.BundleAdmission) {
			d.Verdict.Now = stamp.Format(start.AddDate(10, 0, 0))
		}, "failed"},
		"by a clock that was accepted": {"", func(s *site, d *ledger.BundleAdmission) {
			accepts(s, start.Add(-9*day))
			d.Verdict.Now = stamp.Format(start.Add(-8 * day))
		}, "ok"},
		"by a clock from before the one that was accepted": {"", func(s *site, d *ledger.BundleAdmission) {
			accepts(s, start.Add(-9*day))
			d.Verdict.Now = stamp.Format(start.Add(-11 * day))
		}, "failed"},
		"by an accepted clock after times go on": {"", func(s *site, d *ledger.BundleAdmission) {
			accepts(s, start.Add(-9*day))
			s.at = s.at.Add(time.Second)
			d.Verdict.Now = stamp.Format(start.Add(-8 * day))
		}, "failed"},
		"by no policy": {"", func(_ *site, d *ledger.BundleAdmission) { d.Verdict.Trust.Policy = "" }, "failed"},
		"by no root":   {"", func(_ *site, d *ledger.BundleAdmission) { d.Verdict.Trust.Root = "" }, "failed"},
		"by what is no policy": {"", func(s *site, d *ledger.BundleAdmission) {
			d.Verdict.Trust.Policy = s.blob("not TOML")
		}, "failed"},
		"revoked between its clock and its entry": {"serial = 1\n[[revoke]]\nkey = \"" + id + "\"\nfrom = \"" + second(1) + "\"\n", func(_ *site, d *ledger.BundleAdmission) {
			d.Verdict.Now = second(0)
		}, "not judged"},
		"by revocations with a time of another form": {"serial = 1\n[[revoke]]\nkey = \"" + strings.Repeat("2", 64) + "\"\nfrom = \"tomorrow\"\n", nil, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			a := admitted{
				policy: policyWith(1, "", pemOf(t, 13)), manifest: said, revocations: tc.revocations,
				signers: []*ecdsa.PrivateKey{p256(t, 13)}, lie: tc.lie,
			}
			a.judged(t, tc.want)
		})
	}
}

// judged compares what stella-audit says of verdicts.
func (a *admitted) judged(t *testing.T, want string) {
	t.Helper()
	path := a.archive(t)
	verdict, _, out := audit(t, a.s.auditor(), path)
	wanted := map[string]string{"ok": "VERIFIED", "not judged": "VERIFIED", "failed": "FAILED"}[want]
	if row := rowOf(out, "verdicts"); verdict != wanted || !strings.HasPrefix(row, want) {
		t.Errorf("%s, verdicts: %q, want %s and %s\n%s", verdict, row, wanted, want, out)
	}
}

// What means the same in TOML is read as the same: nobody is accused for how he
// writes a policy, and no revocation is overlooked.
func TestTrustFilesMayBeWrittenInAnyWay(t *testing.T) {
	key, id := "pem = \"\"\"\n"+pemOf(t, 13)+"\"\"\"\n", verify.KeyID(&p256(t, 13).PublicKey)
	const named = "name = \"acme\"\nthreshold = 1\nkinds = [\"plugin\"]\nnames = [\"acme.\"]\n"
	for name, policy := range map[string]string{
		"require before key":  "[[publisher]]\n" + named + "[publisher.require]\naudience = false\n[[publisher.key]]\n" + key,
		"indented":            "  [[publisher]]\n  name = \"acme\"\n  threshold = 1\n  kinds = [\"plugin\"]\n  names = [\"acme.\"]\n  [[publisher.key]]\n  " + key,
		"spaces in brackets":  "[[ publisher ]]\n" + named + "[[ publisher . key ]]\n" + key,
		"single quotes":       "[[publisher]]\nkinds = ['plugin']\nnames = ['acme.']\nname = 'acme'\nthreshold = 1\n[[publisher.key]]\n" + key,
		"quoted names":        "[[publisher]]\nkinds = [\"plugin\"]\nnames = [\"acme.\"]\n\"name\" = \"acme\"\n'threshold' = 1\n[[publisher.\"key\"]]\n" + key,
		"a sign":              "[[publisher]]\nkinds = [\"plugin\"]\nnames = [\"acme.\"]\nname = \"acme\"\nthreshold = +1\n[[publisher.key]]\n" + key,
		"another base":        "[[publisher]]\nkinds = [\"plugin\"]\nnames = [\"acme.\"]\nname = \"acme\"\nthreshold = 0x1\n[[publisher.key]]\n" + key,
		"a comment with name": "[[publisher]]\n# name = \"oops\"\n" + named + "[[publisher.key]]\n" + key,
	} {
		a := admitted{policy: "serial = 1\n" + policy, manifest: said, signers: []*ecdsa.PrivateKey{p256(t, 13)}}
		t.Run(name, func(t *testing.T) { a.judged(t, "ok") })
	}
	for name, revocations := range map[string]string{
		"indented":           "  [[revoke]]\n  key = \"" + id + "\"\n",
		"spaces in brackets": "[[ revoke ]]\nkey = \"" + id + "\"\n",
		"single quotes":      "[[revoke]]\nkey = '" + id + "'\n",
		"a quoted name":      "[[revoke]]\n\"key\" = \"" + id + "\"\n",
		"in one line":        "revoke = [{ key = \"" + id + "\" }]\n",
		"with CR LF":         "[[revoke]]\r\nkey = \"" + id + "\"\r\n",
	} {
		a := admitted{
			policy: policyWith(1, "", pemOf(t, 13)), manifest: said, signers: []*ecdsa.PrivateKey{p256(t, 13)}, revocations: "serial = 1\n" + revocations,
		}
		t.Run("revoked, "+name, func(t *testing.T) { a.judged(t, "failed") })
	}
}

// --previous is about the first of several archives; the others are bound by the
// one before, and need no proof.
func TestPreviousIsAboutTheFirstArchive(t *testing.T) {
	s := busySite(t)
	root, err := ledger.TreeHash(1, s)
	if err != nil {
		t.Fatal(err)
	}
	opt := s.auditor()
	opt.Previous = mustSign(t, ledger.Checkpoint{Origin: s.origin, Size: 1, Root: root}, s.logKey)
	paths := []string{saved(t, s.archive(window(0, 4))), saved(t, s.archive(window(4, 9))), saved(t, s.archive(window(9, 20)))}
	if verdict, _, out := audit(t, opt, paths...); verdict != string(export.Verified) || strings.Count(out, "\nVERIFIED") != 3 {
		t.Errorf("%s\n%s", verdict, out)
	}
	if verdict, _, out := audit(t, opt, paths[1]); verdict != string(export.Incomplete) {
		t.Errorf("the second alone does not follow from the note: %s\n%s", verdict, out)
	}
	opt.Previous = mustSign(t, ledger.Checkpoint{Origin: s.origin, Size: 1}, s.logKey)
	if verdict, _, out := audit(t, opt, paths[0]); verdict != string(export.Failed) {
		t.Errorf("a note of another history: %s\n%s", verdict, out)
	}
}

// Names are sorted as RFC 8785 has it, by UTF-16 code units.
func TestBothReadNamesBeyondUFFFF(t *testing.T) {
	s := newSite(t)
	s.add(s.run(ledger.RunStarted, runA), &ledger.RunStart{
		RunToken: "t", PlanHash: s.blob("plan"), InputsHash: s.blob("{}"), DAGDigest: s.blob("dag manifest"), Trust: s.trust(), Steps: 1,
		Metadata: map[string]string{"\U0001F600": "a", "\uff61": "b", "<&>": "\b\f\x7f\u2028\u2029\x01"},
	})
	s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
	s.checkpoint()
	if r := check(t, s.archive(window(0, 2)), s.auditor()); r.Verdict != export.Verified {
		t.Error(explain(r))
	}
}

// Both hold lines and window.json to their one form.
func TestBothHoldFilesToOneForm(t *testing.T) {
	s := busySite(t)
	original := s.archive(window(4, 20))
	for name, forge := range map[string]func(k *kit){
		"a carriage return, and no line feed at the end": func(k *kit) {
			for _, p := range []string{envelopes, data, runs} {
				k.files[p] = append([]byte{}, strings.TrimSuffix(strings.Replace(string(k.files[p]), "\n", "\r\n", 1), "\n")...)
			}
		},
		"window.json has a member too many": func(k *kit) { k.replace(proofFile, `{"after"`, `{"a":1,"after"`) },
	} {
		k := takeApart(t, s, original)
		forge(k)
		k.describe()
		for i := range k.manifest.Files {
			if f := &k.manifest.Files[i]; f.Records != nil && name != "window.json has a member too many" && strings.HasPrefix(f.Path, "ledger/") {
				*f.Records++ // the last one, as a reader counts that is content with the end of the file
			}
		}
		k.set("manifest.json", k.manifest)
		if r := check(t, k.pack(k.sign()), s.auditor()); r.Verdict != export.Failed {
			t.Errorf("%s: %s", name, explain(r))
		}
	}
}
