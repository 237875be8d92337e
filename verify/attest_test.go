package verify_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// reviewed is a trust that demands a review by one of two reviewers, and a
// judge of the small bundle with attestations.
func reviewed() (*verifytest.Trust, func(t *testing.T, trust *verifytest.Trust, atts ...bundle.Attached) (*ledger.Verdict, error)) {
	made := verifytest.NewTrust()
	made.Acme().Require.Attestations = []manifests.RequiredAttestation{{
		PredicateType: verifytest.Review, Keys: []string{verifytest.PEM("reviewer"), verifytest.PEM("reviewer-2")},
	}}
	return made, func(t *testing.T, trust *verifytest.Trust, atts ...bundle.Attached) (*ledger.Verdict, error) {
		t.Helper()
		e := evidence(t, verifytest.NewBundle().Sign("acme-1"))
		e.Attestations = atts
		return trust.Load().Rejudge(e, verifytest.SiteID, verifytest.Stella, verifytest.Now())
	}
}

func review(by string) bundle.Attached {
	return verifytest.Attestation(verifytest.NewBundle().Digest(), verifytest.Review, "1", by)
}

// TestARevokedAttesterDoesNotCount, and says so; another one in its place does.
func TestARevokedAttesterDoesNotCount(t *testing.T) {
	made, judge := reviewed()
	if _, err := judge(t, made, review("reviewer")); err != nil {
		t.Fatal(err)
	}
	made.Revocations.Revoked = []manifests.Revocation{{Key: verifytest.KeyID("reviewer"), Reason: "lost"}}
	wantReason(t, second(judge(t, made, review("reviewer"))), verify.RevokedKey)
	v, err := judge(t, made, review("reviewer"), review("reviewer-2"))
	if err != nil {
		t.Fatal(err)
	}
	if want := review("reviewer-2").ID; !slices.Equal(v.Attestations, []string{want}) {
		t.Errorf("attestations %v, want %s", v.Attestations, want)
	}
	if !slices.ContainsFunc(v.Checks, func(c string) bool { return strings.HasSuffix(c, "REVOKED_KEY") }) {
		t.Errorf("checks %q", v.Checks)
	}
}

// TestLogDemandsHoldForAttestations as they do for signatures.
func TestLogDemandsHoldForAttestations(t *testing.T) {
	made, _ := reviewed()
	made.TrustedRoot, made.Acme().Require.TLog = verifytest.TrustedRoot(), 1
	_, packed := verifytest.NewBundle().Pack(noOptions())
	e := verify.Evidence{
		Manifest: packed.Raw, Signatures: attached(verifytest.Logged(packed.Raw, "acme-1", verifytest.Created())), Attestations: attached(review("reviewer")),
	}
	judge := func() (*ledger.Verdict, error) {
		return made.Load().Rejudge(e, verifytest.SiteID, verifytest.Stella, verifytest.Now())
	}
	wantReason(t, second(judge()), verify.TLogMissing)
	made.Acme().Level = "audit"
	v, err := judge()
	if err != nil || v.Decision != verify.AdmittedUnderAudit || !slices.Equal(v.Softened, []string{string(verify.TLogMissing)}) || len(v.Attestations) != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestBothFormsOfProvenanceNameTheirBuilder: v1 and v0.2.
func TestBothFormsOfProvenanceNameTheirBuilder(t *testing.T) {
	digest := verifytest.NewBundle().Digest()
	for predicateType, predicate := range map[string]string{
		"https://slsa.dev/provenance/v1":   `{"runDetails":{"builder":{"id":"https://b.test"}}}`,
		"https://slsa.dev/provenance/v0.2": `{"builder":{"id":"https://b.test"}}`,
	} {
		made, judge := reviewed()
		made.Acme().Require.Attestations = []manifests.RequiredAttestation{{PredicateType: predicateType, Keys: []string{verifytest.PEM("builder")}, Builder: "https://b.test"}}
		if _, err := judge(t, made, verifytest.Attestation(digest, predicateType, predicate, "builder")); err != nil {
			t.Errorf("%s: %v", predicateType, err)
		}
		for _, other := range []string{`{}`, `[]`, `{"builder":1}`, strings.ReplaceAll(predicate, "b.test", "c.test")} {
			_, err := judge(t, made, verifytest.Attestation(digest, predicateType, other, "builder"))
			wantReason(t, err, verify.AttestationMissing)
		}
	}
}

// TestOneAttesterOfTwoKinds signs both that the policy demands.
func TestOneAttesterOfTwoKinds(t *testing.T) {
	made, judge := reviewed()
	made.Acme().Require.Attestations = append(made.Acme().Require.Attestations, manifests.RequiredAttestation{
		PredicateType: "https://stella.test/scan/v1", Keys: []string{verifytest.PEM("reviewer")},
	})
	scan := verifytest.Attestation(verifytest.NewBundle().Digest(), "https://stella.test/scan/v1", "1", "reviewer")
	wantReason(t, second(judge(t, made, scan)), verify.AttestationMissing)
	wantReason(t, second(judge(t, made, review("reviewer"))), verify.AttestationMissing)
	if v, err := judge(t, made, scan, review("reviewer")); err != nil || len(v.Attestations) != 2 {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestAnIdentityAttests: it can be revoked, and it is never one of the
// publisher's own.
func TestAnIdentityAttests(t *testing.T) {
	made, at := verifytest.Trusts()["attestation-by-identity"], verifytest.Created().Add(time.Minute)
	judge := func(raw []byte) error {
		_, err := verify.Check(bytes.NewReader(raw), made.Load(), verify.Options{Now: verifytest.Now(), Spool: spool(t)}, nil)
		return err
	}
	const builder = "build@acme.test"
	if err := judge(verifytest.Built(builder, at)); err != nil {
		t.Fatal(err)
	}
	made.Revocations.Revoked = []manifests.Revocation{{Issuer: verifytest.Issuer, SAN: builder, From: at.Add(time.Hour), Reason: "taken over"}}
	if err := judge(verifytest.Built(builder, at)); err != nil {
		t.Errorf("attested before the revocation: %v", err)
	}
	wantReason(t, judge(verifytest.Built(builder, at.Add(2*time.Hour))), verify.RevokedIdentity)

	made.Revocations.Revoked = nil
	made.Acme().Require.Attestations[0].Identities[0].CA = []string{bundle.Digest(nil)}
	wantReason(t, judge(verifytest.Built(builder, at)), verify.AttestationInvalid)
	for _, own := range []manifests.Identity{
		{Issuer: verifytest.Issuer, SAN: builder}, {Issuer: verifytest.Issuer, SANRegexp: `.*@acme\.test`},
	} {
		made := verifytest.Trusts()["attestation-by-identity"]
		made.Acme().Identities = []manifests.Identity{own}
		var want *verify.TrustError
		if _, err := verify.Load(made.Files()); !errors.As(err, &want) {
			t.Errorf("the publisher attests as %+v: %v, want a TrustError", own, err)
		}
	}
}
