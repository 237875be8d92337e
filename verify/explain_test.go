package verify_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// told is what a report came to, in the words of a fixture.
func told(r *verify.Report) string {
	switch {
	case r.Decision == verify.Rejected && r.Reason != "":
		return r.Reason
	case r.Decision == verify.Admitted:
		return verifytest.ExpectAdmit
	case r.Decision == verify.AdmittedUnderAudit:
		return verifytest.ExpectAudit
	}
	return "no reason: " + r.Decision
}

// TestAnExplanationAgreesWithTheJudgement: for every fixture, what the door
// says and what is told of it are one, in decision, reason and trust.
func TestAnExplanationAgreesWithTheJudgement(t *testing.T) {
	trusts, place := loadTrusts(), spool(t)
	for _, f := range fixtures() {
		opt := f.Options(place)
		res, err := verify.Check(bytes.NewReader(f.Raw), trusts[f.Trust], opt, nil)
		r := res.Report(err)
		if got := told(r); got != f.Expect {
			t.Errorf("%s: told as %s, judged %s", f.Name, got, f.Expect)
		}
		if len(r.Checks) != 14 || r.Digest != res.Digest || r.Trust != trusts[f.Trust].Ref() {
			t.Errorf("%s: %d checks, digest %s, trust %v", f.Name, len(r.Checks), r.Digest, r.Trust)
		}
		if err != nil {
			var refused *verify.RejectError
			if i := firstFailing(r); !errors.As(err, &refused) || r.Checks[i].Hint != refused.Hint || !strings.Contains(err.Error(), r.Checks[i].Detail) {
				t.Errorf("%s: told %+v, refused by %v", f.Name, r.Checks[i], err)
			}
			continue
		}
		if got := counted(r); !slices.Equal(got, signersOf(res.Verdict)) || r.Counted != len(got) || r.Threshold != res.Verdict.Threshold {
			t.Errorf("%s: %v count of %d, the verdict has %v of %d", f.Name, got, r.Counted, res.Verdict.Signers, res.Verdict.Threshold)
		}
		if got := attested(r); !slices.Equal(got, res.Verdict.Attestations) {
			t.Errorf("%s: attestations %v, the verdict has %v", f.Name, got, res.Verdict.Attestations)
		}
		if !slices.Equal(passes(r), verdictChecks(res.Verdict.Checks)) {
			t.Errorf("%s: %v pass, the verdict has %v", f.Name, passes(r), res.Verdict.Checks)
		}
	}
}

// TestAnExplanationGoesOn past what refuses a bundle, with the same first
// reason: everything that could be read is judged.
func TestAnExplanationGoesOn(t *testing.T) {
	trusts, place := loadTrusts(), spool(t)
	for _, f := range fixtures() {
		r := trusts[f.Trust].Explain(readAll(t, &f, place))
		want := f.Expect
		if f.Limit > 0 || f.Files != nil {
			continue // a limit of the site, or trust files in force, which only Check has
		}
		if got := told(r); got != want {
			t.Errorf("%s: told as %s, judged %s", f.Name, got, want)
		}
	}
	trust := trusts["revoked"]
	b := verifytest.NewBundle()
	b.Manifest.Publisher, b.Manifest.Expires = "nobody", b.Manifest.Created.Add(1)
	r := trust.Explain(readAll(t, &verifytest.Fixture{Raw: b.Sign("acme-1"), Now: verifytest.Now()}, place))
	states := map[string]string{}
	for _, c := range r.Checks {
		states[c.Name] = c.State + " " + c.Reason
	}
	want := map[string]string{
		"container": "pass ", "signatures": "pass ", "manifest": "pass ", "trust": "pass ", "revocations": "pass ",
		"signers": "fail PUBLISHER_UNKNOWN", "kind": "not_reached ", "name": "not_reached ", "audience": "not_applicable ",
		"validity": "fail EXPIRED", "floors": "not_applicable ", "capabilities": "not_reached ", "attestations": "not_reached ", "contents": "pass ",
	}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Error(diff)
	}
}

// TestAContainerPassesByItsEnd: what is refused after its head says of the
// container that the rest was not read, and of attestations what one says who
// has read them.
func TestAContainerPassesByItsEnd(t *testing.T) {
	trust, place := loadTrusts()["plain"], spool(t)
	b := verifytest.NewBundle()
	b.Manifest.Expires = b.Manifest.Created.Add(1)
	f := verifytest.Fixture{Raw: b.Sign("acme-1"), Now: verifytest.Now(), Floors: &verify.Floors{}}
	res, err := verify.Check(bytes.NewReader(f.Raw), trust, f.Options(place), nil)
	head, whole := res.Report(err), trust.Explain(readAll(t, &f, place))
	if c := head.Checks[0]; told(head) != string(verify.Expired) || c.State != verify.StateNotReached || !strings.Contains(c.Detail, "head") {
		t.Errorf("refused after the head: %s, container %+v", told(head), c)
	}
	if c := whole.Checks[0]; told(whole) != string(verify.Expired) || c.State != verify.StatePass {
		t.Errorf("read to its end: %s, container %+v", told(whole), c)
	}
	if diff := cmp.Diff(whole.Checks[1:13], head.Checks[1:13]); diff != "" {
		t.Errorf("-whole +head:\n%s", diff)
	}
	f.Raw = f.Raw[:len(f.Raw)-1024]
	if r := trust.Explain(readAll(t, &f, place)); r.Checks[0].State != verify.StateNotReached || r.Checks[13].State != verify.StateFail {
		t.Errorf("cut off: container %+v, contents %+v", r.Checks[0], r.Checks[13])
	}
}

// TestAuditIsToldAtItsCheck: what level audit lets pass is no plain pass.
func TestAuditIsToldAtItsCheck(t *testing.T) {
	trusts, place := loadTrusts(), spool(t)
	softened := map[string]string{}
	for _, f := range fixtures() {
		if f.Expect != verifytest.ExpectAudit {
			continue
		}
		res, err := verify.Check(bytes.NewReader(f.Raw), trusts[f.Trust], f.Options(place), nil)
		r := res.Report(err)
		for _, c := range r.Checks {
			if c.State == verify.StateSoftened {
				softened[f.Name] += c.Name + " " + c.Reason + ";"
			}
		}
		if len(r.Softened) == 0 || softened[f.Name] == "" {
			t.Errorf("%s: softened %v, checks %+v", f.Name, r.Softened, r.Checks)
		}
	}
	want := map[string]string{"not-logged-audit": "signers TLOG_MISSING;", "not-attested-audit": "attestations ATTESTATION_MISSING;"}
	if diff := cmp.Diff(want, softened); diff != "" {
		t.Error(diff)
	}
}

// TestAStrangersManifestIsNotParsed unless the caller asks for it.
func TestAStrangersManifestIsNotParsed(t *testing.T) {
	trust, place := loadTrusts()["plain"], spool(t)
	raw := verifytest.NewBundle().Sign("stranger")
	opt := (&verifytest.Fixture{Now: verifytest.Now()}).Options(place)
	res, err := verify.Check(bytes.NewReader(raw), trust, opt, nil)
	for _, strangers := range []bool{false, true} {
		c := res.Case(err)
		c.Strangers = strangers
		r := trust.Explain(c)
		state := verify.StateNotReached
		if strangers {
			state = verify.StatePass
		}
		if told(r) != string(verify.SignerUnknown) || r.Checks[2].Name != "manifest" || r.Checks[2].State != state {
			t.Errorf("strangers %v: %s, %+v", strangers, told(r), r.Checks[2])
		}
	}
}

// TestPolicyLinesAreNamed where a signer stands in the policy, and where it
// nearly does.
func TestPolicyLinesAreNamed(t *testing.T) {
	made := verifytest.Trusts()["log-demanded"]
	trust, place := made.Load(), spool(t)
	policy := strings.Split(string(made.Files().Policy.Raw), "\n")
	for _, c := range []struct {
		name, fixture, entry, header string
		matches                      bool
		state                        string
	}{
		{"a key that is named", "logged-key", "publisher acme, key 1", "[[publisher.key]]", true, verify.StateCounted},
		{"a certificate that is named", "certificate", "publisher acme, identity 1", "[[publisher.identity]]", true, verify.StateCounted},
		{"a certificate of another name", "strange-certificate", "publisher acme, identity 1", "[[publisher.identity]]", false, verify.StateUnknown},
	} {
		i := slices.IndexFunc(fixtures(), func(f verifytest.Fixture) bool { return f.Name == c.fixture })
		r := trust.Explain(readAll(t, &fixtures()[i], place))
		s := r.Signatures[0]
		if len(s.Lines) != 1 || s.State != c.state {
			t.Errorf("%s: %+v", c.name, s)
			continue
		}
		l := s.Lines[0]
		if l.Entry != c.entry || l.Matches != c.matches || (l.Why == "") != c.matches || l.Line == 0 || policy[l.Line-1] != c.header {
			t.Errorf("%s: %+v, the policy has %q there", c.name, l, policy[max(l.Line, 1)-1])
		}
	}
}

// TestLinesOfAttestersAreNamed by key and by identity, and one that is of no
// required attestation has none.
func TestLinesOfAttestersAreNamed(t *testing.T) {
	place := spool(t)
	for name, want := range map[string]bool{"attested": true, "attested-by-identity": true, "attested-by-other-identity": false} {
		i := slices.IndexFunc(fixtures(), func(f verifytest.Fixture) bool { return f.Name == name })
		f := fixtures()[i]
		made := verifytest.Trusts()[f.Trust]
		policy := strings.Split(string(made.Files().Policy.Raw), "\n")
		counted, named := 0, 0
		for _, a := range made.Load().Explain(readAll(t, &f, place)).Attestations {
			for _, l := range a.Lines {
				if policy[l.Line-1] != "[[publisher.require.attestation]]" {
					t.Errorf("%s: line %d is %q", name, l.Line, policy[l.Line-1])
				}
			}
			if a.State == verify.StateCounted {
				counted++
			}
			if a.Flow == verify.FlowCertificate && a.State != verify.StateCounted && len(a.Lines) > 0 {
				t.Errorf("%s: %+v", name, a)
			}
			if slices.ContainsFunc(a.Lines, func(l verify.PolicyLine) bool { return l.Matches }) {
				named++
			}
		}
		if counted != named || want && counted == 0 {
			t.Errorf("%s: %d attestations count, %d are named", name, counted, named)
		}
	}
}

// readAll reads a fixture as somebody would who only looks at it.
func readAll(t *testing.T, f *verifytest.Fixture, place bundle.Spool) verify.Case {
	t.Helper()
	c := verify.Case{Strangers: true, SiteID: verifytest.SiteID, Stella: verifytest.Stella, Now: f.Now, Floors: f.Floors}
	in := bundle.NewReader(bytes.NewReader(f.Raw), bundle.Limits{})
	err := func() error {
		head, err := in.Head()
		if err != nil {
			return err
		}
		c.Manifest, c.Signatures = head.Manifest, head.Signatures
		m, err := manifests.ParseBundle(bundle.ManifestName, head.Manifest)
		if err != nil {
			return nil //nolint:nilerr // Explain says so
		}
		if err := in.Bind(m, nil); err != nil {
			return err
		}
		for {
			a, err := in.NextAttestation()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			c.Attestations = append(c.Attestations, a)
		}
		c.Attested = true
		for {
			b, err := in.NextBlob()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if err := b.CopyTo(io.Discard, place); err != nil {
				return err
			}
		}
		err = in.End()
		c.Whole = err == nil
		return err
	}()
	errors.As(err, &c.Damage)
	return c
}

func firstFailing(r *verify.Report) int {
	return max(0, slices.IndexFunc(r.Checks, func(c verify.CheckReport) bool { return c.State == verify.StateFail }))
}

func counted(r *verify.Report) []string {
	var ids []string
	for _, s := range r.Signatures {
		if s.State == verify.StateCounted {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

func signersOf(v *ledger.Verdict) []string {
	var ids []string
	for _, s := range v.Signers {
		ids = append(ids, s.ID)
	}
	return ids
}

func attested(r *verify.Report) []string {
	var ids []string
	for _, a := range r.Attestations {
		if a.State == verify.StateCounted {
			id, _ := strings.CutPrefix(a.File, "attestations/")
			ids = append(ids, strings.TrimSuffix(id, ".sigstore.json"))
		}
	}
	return ids
}

// passes lists the checks that passed and that a verdict names too.
func passes(r *verify.Report) []string {
	var out []string
	for _, c := range r.Checks {
		if (c.State == verify.StatePass || c.State == verify.StateSoftened) && !slices.Contains([]string{"container", "manifest", "contents"}, c.Name) {
			out = append(out, c.Name)
		}
	}
	return out
}

func verdictChecks(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.HasPrefix(s, "not counted: ") })
}
