package export_test

import (
	"strings"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// serials is the usual trust, with a policy and revocations of these serials.
func serials(policy, revocations int64) *verifytest.Trust {
	trust := verifytest.NewTrust()
	trust.Policy.Serial, trust.Revocations.Serial = policy, revocations
	return trust
}

// ofItsOwn is the usual trust with a policy by which a stranger signs for acme.
func ofItsOwn(serial int64) *verifytest.Trust {
	trust := serials(serial, 1)
	trust.Policy.Publishers[0] = verifytest.Publisher("acme", "stranger")
	return trust
}

// lets seals trust files and records an admission under them, in force or not.
func (s *site) lets(trust *verifytest.Trust, key string, lies ...func(d *ledger.BundleAdmission)) {
	s.t.Helper()
	s.sealed(trust)
	s.admit(let(s.t, verifytest.NewPlugin().Sign(key), trust.Load(), verifytest.Now()), func(d *ledger.BundleAdmission) {
		for _, lie := range lies {
			lie(d)
		}
	})
}

// hidden records a change of which the data is withheld.
func (s *site) hidden(trust *verifytest.Trust) {
	s.t.Helper()
	s.change(trust.Files())
	s.hide("secret")
}

// Where no entry says which trust files were in force, they lie between those that are known.
func TestVerdictsLieBetweenWhatIsKnown(t *testing.T) {
	hides := func(n int64) func(o *export.VerifyOptions) { return func(o *export.VerifyOptions) { o.Withheld = n } }
	later := func(s *site) { s.change(serials(1, 1).Files()) } // before the window
	for name, tc := range map[string]struct {
		before, story func(s *site)
		opt           func(o *export.VerifyOptions)
		want          export.Verdict
		says, alone   string
	}{
		"newer ones behind a change that is withheld": {nil, func(s *site) {
			s.change(serials(1, 1).Files())
			s.hidden(serials(3, 1))
			s.lets(serials(3, 1), "acme-1")
			s.change(serials(4, 2).Files())
		}, hides(1), export.Verified, "1 of 1", "ok"},
		"what was known before it": {nil, func(s *site) {
			s.change(serials(1, 1).Files())
			s.hidden(serials(1, 1))
			s.lets(serials(1, 1), "acme-1")
		}, hides(1), export.Verified, "1 of 1", "ok"},
		"older revocations behind it": {nil, func(s *site) {
			f := serials(1, 1).Files()
			s.change(f)
			revocationsOf(9, "acme-1", "revocation")(&f)
			s.change(f)
			s.hidden(serials(1, 1))
			s.lets(serials(1, 1), "acme-1")
		}, hides(1), export.Failed, "revocations of serial 1 follows serial 9", "failed"},
		"older revocations that are called newer": {nil, func(s *site) {
			f := serials(1, 1).Files()
			s.change(f)
			revocationsOf(9, "acme-1", "revocation")(&f)
			s.change(f)
			s.hidden(serials(1, 1))
			s.lets(serials(1, 1), "acme-1", func(d *ledger.BundleAdmission) { d.Verdict.Trust.RevocationSerial = 10 })
		}, hides(1), export.Failed, "revocationSerial is", "failed"},
		"none that are called newer": {nil, func(s *site) {
			f := serials(1, 1).Files()
			s.change(f)
			s.hidden(serials(1, 1))
			s.lets(serials(1, 1), "acme-1", func(d *ledger.BundleAdmission) {
				d.Verdict.Trust.RevocationSerial, d.Verdict.Trust.Revocations = 10, ""
			})
		}, hides(1), export.Failed, "revocationSerial is", "failed"},
		"a policy that is newer than what follows": {nil, func(s *site) {
			s.change(serials(1, 1).Files())
			s.hidden(serials(2, 1))
			s.lets(ofItsOwn(77), "stranger")
			s.change(serials(2, 1).Files())
		}, hides(1), export.Failed, "policy of serial 2 follows serial 77", "failed"},
		"two that fall": {nil, func(s *site) {
			s.change(serials(1, 1).Files())
			s.hidden(serials(5, 1))
			s.lets(serials(5, 1), "acme-1")
			s.hidden(serials(5, 1))
			s.lets(serials(4, 1), "acme-1")
		}, hides(2), export.Failed, "policy of serial 4 follows serial 5", "failed"},
		"a later window": {later, func(s *site) {
			s.lets(serials(1, 1), "acme-1")
			s.change(serials(2, 1).Files())
		}, hides(0), export.Verified, "1 of 1", "ok"},
		"a later window, by a policy of its own": {later, func(s *site) {
			s.lets(ofItsOwn(77), "stranger")
			s.change(serials(2, 1).Files())
		}, hides(0), export.Failed, "policy of serial 2 follows serial 77", "failed"},
		"a later window, by one with the serial of what follows": {later, func(s *site) {
			s.lets(ofItsOwn(1), "stranger")
			s.change(serials(1, 1).Files())
		}, hides(0), export.Failed, "policy of serial 1 follows serial 1 with other bytes", "failed"},
		"before the first change, by what entry 0 names": {nil, func(s *site) {
			s.beginsWith(serials(1, 1))
			s.lets(serials(1, 1), "acme-1")
			s.change(serials(1, 1).Files())
		}, hides(0), export.Verified, "1 of 1", "ok"},
		"before the first change, by another policy": {nil, func(s *site) {
			s.beginsWith(serials(1, 1))
			s.lets(ofItsOwn(1), "stranger")
		}, hides(0), export.Failed, "entry 0 names another", "failed"},
		"behind a first change that is withheld": {nil, func(s *site) {
			s.beginsWith(serials(1, 1))
			s.hidden(serials(1, 1))
			s.lets(serials(2, 1), "acme-1")
		}, hides(1), export.Verified, "1 of 1", "ok"}, // there may have been two in it
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = verifytest.Now()
			from := start
			if tc.before != nil {
				tc.before(s)
				from = s.at
			}
			tc.story(s)
			opt := s.auditor()
			tc.opt(&opt)
			s.bothJudge(from, opt, tc.want, tc.says, tc.alone)
		})
	}
}

// beginsWith makes entry 0 name trust files that no change has put in force.
func (s *site) beginsWith(trust *verifytest.Trust) {
	s.sealed(trust)
	ref := trust.Load().Ref()
	s.beginsAnew(ref.Root, ref.Policy)
	s.at = verifytest.Now()
}

// stella-audit goes on from archive to archive: neither what entry 0 names is forgotten, nor
// what was known last.
func TestWhatIsKnownGoesOnFromArchiveToArchive(t *testing.T) {
	usual := serials(2, 2)
	own := verifytest.NewTrust()
	for role, r := range own.Root.Roles {
		r.Keys = []string{verifytest.PEM("stranger")}
		own.Root.Roles[role] = r
	}
	forged := usual.Files()
	forged.Roots = []verify.RoleFile{verifytest.Signed(manifests.EncodeRoot(own.Root), "stranger")}
	forged.Policy, forged.Revocations = verifytest.Signed(forged.Policy.Raw, "stranger"), verifytest.Signed(forged.Revocations.Raw, "stranger")
	for name, tc := range map[string]struct {
		first, second func(s *site)
		root          string // that is expected
		want          export.Verdict
		check, row    string
	}{
		"the first change is in the second":  {nil, func(s *site) { s.change(usual.Files()) }, "", export.Verified, "trust", "ok"},
		"it has another root than entry 0":   {nil, func(s *site) { s.change(forged) }, "", export.Failed, "trust", "failed"},
		"another root than that is expected": {nil, func(s *site) { s.change(usual.Files()) }, digest(forged.Roots[0].Raw), export.Unauthenticated, "trust", "failed"},
		"let in by another policy than its":  {nil, func(s *site) { s.lets(ofItsOwn(2), "stranger") }, "", export.Failed, "verdicts", "failed"},
		"let in by its policy":               {nil, func(s *site) { s.lets(usual, "acme-1") }, "", export.Verified, "verdicts", "ok"},
		"older revocations behind what is withheld": {func(s *site) { s.change(usual.Files()) }, func(s *site) {
			s.hidden(usual)
			s.lets(serials(2, 1), "acme-1")
		}, "", export.Failed, "verdicts", "failed"},
		"the same ones behind what is withheld": {func(s *site) { s.change(usual.Files()) }, func(s *site) {
			s.hidden(usual)
			s.lets(usual, "acme-1")
		}, "", export.Incomplete, "verdicts", "ok"}, // as much is withheld
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.beginsWith(usual)
			s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
			if tc.first != nil {
				tc.first(s)
			}
			middle := s.at
			tc.second(s)
			opt := s.auditor()
			opt.Root = tc.root
			paths := s.months(middle)
			verdict, _, out := audit(t, opt, paths...)
			if row := rowOf(out[lastTable(out):], tc.check); verdict != string(tc.want) || !strings.HasPrefix(row, tc.row) {
				t.Errorf("%s, %s: %s; want %s\n%s", verdict, tc.check, row, tc.want, out)
			}
		})
	}
}

// Where some of the files of a change are withheld, the others are judged; and what comes in
// force again is signed again.
func TestTrustFilesOfWhichSomeAreWithheld(t *testing.T) {
	gone := func(s *site, raw []byte) { s.gone[digest(raw)] = "secret" }
	then := func(by ...string) func(s *site, f *verify.Files) { // root 2, with its policy withheld
		return func(s *site, f *verify.Files) {
			rotated(2, "stranger", by...)(f)
			policyOf(3, "stranger")(f)
			s.change(*f)
			gone(s, f.Policy.Raw)
		}
	}
	for name, tc := range map[string]struct {
		story func(s *site, f *verify.Files)
		want  export.Verdict
		says  string // export verify
		alone string // stella-audit
	}{
		"a root that the one before has signed": {then("root"), export.Verified, "1 of 2 changes judged again; 1 not, since evidence", "not judged"},
		"a root of its own":                     {then(), export.Failed, "by the root before", "failed"},
		"another version than its own": {func(s *site, f *verify.Files) {
			rotated(2, "stranger", "root")(f)
			policyOf(3, "stranger")(f)
			s.change(*f, func(c *ledger.TrustChange) { c.RootVersion = 7 })
			gone(s, f.Policy.Raw)
		}, export.Failed, "rootVersion is", "failed"},
		"the root after it": {func(s *site, f *verify.Files) {
			then("root")(s, f)
			rotated(3, "reviewer", "stranger")(f)
			policyOf(4, "reviewer")(f)
			s.change(*f)
		}, export.Verified, "2 of 3", "not judged"},
		"a root of its own after it": {func(s *site, f *verify.Files) {
			then("root")(s, f)
			rotated(3, "reviewer")(f)
			policyOf(4, "reviewer")(f)
			s.change(*f)
		}, export.Failed, "by the root before", "failed"},
		"a policy of nobody, with its revocations withheld": {func(s *site, f *verify.Files) {
			policyOf(2)(f)
			revocationsOf(9, "", "revocation")(f)
			s.change(*f)
			gone(s, f.Revocations.Raw)
		}, export.Failed, "signed by 0 of the 1", "failed"},
		"a policy of the role, with its revocations withheld": {func(s *site, f *verify.Files) {
			policyOf(2, "policy")(f)
			revocationsOf(9, "", "revocation")(f)
			s.change(*f)
			gone(s, f.Revocations.Raw)
		}, export.Verified, "1 of 2", "not judged"},
		"a root again, and none of its signatures": {func(s *site, f *verify.Files) {
			again := *f
			again.Roots = []verify.RoleFile{{Raw: f.Roots[0].Raw}}
			policyOf(2, "policy")(&again)
			s.change(again)
		}, export.Failed, "signed by 0 of the 1", "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = verifytest.Now()
			f := verifytest.NewTrust().Files()
			s.change(f)
			tc.story(s, &f)
			opt := s.auditor()
			opt.Withheld = int64(len(s.gone))
			s.bothSay(opt, tc.want, tc.says, tc.alone)
		})
	}
}
