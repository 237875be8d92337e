package verify_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// TestLook tells of a file by another's Sigstore who signed, when, and where it
// is logged.
func TestLook(t *testing.T) {
	v := newVirtual(t)
	begun := time.Now().Add(-time.Second)
	sig := v.certified(t, []byte("x"), "release@acme.test", "https://issuer.test", true, true)
	logID, err := v.RekorLogID()
	if err != nil {
		t.Fatal(err)
	}
	spaced := append([]byte("\n "), sig.Data...) // not canonical, which is no matter here
	d, err := verify.Look(spaced)
	if err != nil {
		t.Fatal(err)
	}
	if d.ID != sig.ID || d.Flow != verify.FlowCertificate || d.SAN != "release@acme.test" || d.Issuer != "https://issuer.test" || d.Digest != bundle.Digest([]byte("x")) {
		t.Errorf("%+v", d)
	}
	if d.CA == "" || d.NotBefore == "" || d.NotAfter <= d.NotBefore {
		t.Errorf("certificate: %+v", d.Details)
	}
	for _, text := range []string{d.Entries[0].Time, d.TimesGiven[0]} {
		at, err := stamp.Parse(text)
		if err != nil || at.Before(begun.Add(-time.Minute)) || at.After(time.Now().Add(time.Minute)) {
			t.Errorf("time %q, %v: it was signed now", text, err)
		}
	}
	if len(d.Entries) != 1 || d.Entries[0].LogID != logID || d.Entries[0].Index != 7 || d.Entries[0].Kind != "hashedrekord" {
		t.Errorf("%+v", d.Entries)
	}
	a := verifytest.Attestation(bundle.Digest([]byte("x")), verifytest.Review, "1", "reviewer")
	if d, err = verify.Look(a.Data); err != nil || !d.Statement || d.PredicateType != verifytest.Review || !slices.Equal(d.Subjects, []string{bundle.Digest([]byte("x"))}) {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestLookGoesAsFarAsItCan, and says why no stella bundle may hold such a file.
func TestLookGoesAsFarAsItCan(t *testing.T) {
	cert := verifytest.Certified([]byte("x"), "leaf-1", "a@b.test", verifytest.Created())
	edit := func(a bundle.Attached, change func(map[string]any)) []byte {
		return verifytest.Edit(a, change).Data
	}
	older := edit(cert, func(v map[string]any) {
		v["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2"
		m := v["verificationMaterial"].(map[string]any)
		m["x509CertificateChain"] = map[string]any{"certificates": []any{m["certificate"]}}
		delete(m, "certificate")
	})
	d, err := verify.Look(older)
	if err == nil || d == nil || d.SAN != "a@b.test" || d.ID != verifytest.KeyID("leaf-1") || d.LogEntries != 1 || !strings.Contains(d.MediaType, "0.2") {
		t.Errorf("of an older form: %+v, %v", d, err)
	}
	unsigned := edit(verifytest.Signatures([]byte("x"), "acme-1")[0], func(v map[string]any) { delete(v, "messageSignature") })
	if d, err = verify.Look(unsigned); err == nil || d == nil || d.ID != verifytest.KeyID("acme-1") {
		t.Errorf("without a signature: %+v, %v", d, err)
	}
	for _, raw := range []string{"", "{}", "[]", `{"a":1}`, "x"} {
		if d, err := verify.Look([]byte(raw)); d != nil || err == nil {
			t.Errorf("%q: %+v, %v", raw, d, err)
		}
	}
}

// TestDescribeTrustedRoot lists the keys by which a policy can pin.
func TestDescribeTrustedRoot(t *testing.T) {
	v := newVirtual(t)
	list, err := verify.DescribeTrustedRoot(v.root)
	if err != nil {
		t.Fatal(err)
	}
	spki := func(cert *x509.Certificate) string {
		sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
		return hex.EncodeToString(sum[:])
	}
	ca := v.FulcioCertificateAuthorities()[0].(*root.FulcioCertificateAuthority)
	tsa := v.TimestampingAuthorities()[0].(*root.SigstoreTimestampingAuthority)
	want := map[string]string{verify.AuthorityCA: spki(ca.Root), verify.AuthorityTSA: spki(tsa.Leaf)}
	for _, log := range v.RekorLogs() {
		want[verify.AuthorityLog] = verify.KeyID(log.PublicKey.(*ecdsa.PublicKey))
	}
	for _, log := range v.CTLogs() {
		want[verify.AuthorityCTLog] = verify.KeyID(log.PublicKey.(*ecdsa.PublicKey))
	}
	for kind, pin := range want {
		if !slices.ContainsFunc(list, func(a verify.Authority) bool {
			return a.Kind == kind && a.Fault == "" && slices.ContainsFunc(a.Pins, func(p verify.Pin) bool { return p.SPKI == pin })
		}) {
			t.Errorf("no %s with the pin %s in %+v", kind, pin, list)
		}
	}
	for _, raw := range []string{"", "[]", `{"tlogs":[{}],"certificateAuthorities":[{"certChain":{"certificates":[{"rawBytes":"AA=="}]}}]}`} {
		list, err := verify.DescribeTrustedRoot([]byte(raw))
		if err == nil && (len(list) != 2 || list[0].Fault == "" || list[1].Fault == "") {
			t.Errorf("%s: %+v", raw, list)
		}
	}
	if _, err := verify.DescribeTrustedRoot(make([]byte, 5<<20)); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("5 MiB: %v", err)
	}
}

// TestRoleSigner verifies who signed a trust file, against a root that the
// caller believes.
func TestRoleSigner(t *testing.T) {
	files := verifytest.NewTrust().Files()
	r, err := manifests.ParseRoot("root.toml", files.Roots[0].Raw)
	if err != nil {
		t.Fatal(err)
	}
	sig := files.Policy.Signatures[0]
	if roles, err := verify.RoleSigner(r, files.Policy.Raw, sig); err != nil || !slices.Contains(roles, verify.RolePolicy) {
		t.Errorf("%v, %v", roles, err)
	}
	if roles, err := verify.RoleSigner(r, []byte("x"), sig); err == nil {
		t.Errorf("over other bytes: %v", roles)
	}
	if roles, err := verify.RoleSigner(r, files.Policy.Raw, verifytest.Signatures(files.Policy.Raw, "stranger")[0]); err != nil || len(roles) > 0 {
		t.Errorf("by a stranger: %v, %v", roles, err)
	}
}

// FuzzLook: nothing that is only looked at may cause a panic.
func FuzzLook(f *testing.F) {
	f.Add(verifytest.Certified([]byte("x"), "leaf-1", "a@b.test", verifytest.Created()).Data)
	f.Add(verifytest.TrustedRoot())
	f.Add([]byte(`{"mediaType":"x","verificationMaterial":{"timestampVerificationData":{"rfc3161Timestamps":[{"signedTimestamp":"MAA="}]}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := verify.Look(raw)
		if d == nil && err == nil {
			t.Error("neither a description nor an error")
		}
		if d != nil {
			if _, err := json.Marshal(d); err != nil {
				t.Error(err)
			}
		}
		_, _ = verify.DescribeTrustedRoot(raw)
	})
}
