package verify_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

type object = map[string]any

func b64(raw []byte) string { return base64.StdEncoding.EncodeToString(raw) }

func canonical(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := jcs.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// virtual is the project's own Sigstore in memory, and what it trusts as a file.
type virtual struct {
	*ca.VirtualSigstore
	root []byte
}

func newVirtual(t *testing.T) *virtual {
	t.Helper()
	vs, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	repaired := func(logs map[string]*root.TransparencyLog) map[string]*root.TransparencyLog {
		for id, log := range logs {
			// It keeps the hex of the id where the id belongs, which a saved
			// trusted root would not survive.
			if log.ID, err = hex.DecodeString(id); err != nil {
				t.Fatal(err)
			}
		}
		return logs
	}
	tr, err := root.NewTrustedRoot(root.TrustedRootMediaType01, vs.FulcioCertificateAuthorities(), repaired(vs.CTLogs()), vs.TimestampingAuthorities(), repaired(vs.RekorLogs()))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := tr.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = jcs.Canonicalize(raw); err != nil {
		t.Fatal(err)
	}
	return &virtual{vs, raw}
}

// certified signs raw by a new certificate, with a log entry and a timestamp if
// so wished.
func (v *virtual) certified(t *testing.T, raw []byte, san, issuer string, logged, stamped bool) bundle.Attached {
	t.Helper()
	leaf, private, err := v.GenerateLeafCert(san, issuer)
	if err != nil {
		t.Fatal(err)
	}
	key := private.(*ecdsa.PrivateKey)
	digest := sha256.Sum256(raw)
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	material := object{"certificate": object{"rawBytes": b64(leaf.Raw)}}
	if logged {
		material["tlogEntries"] = []object{v.entry(t, digest[:], sig, &pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})}
	}
	if stamped {
		token, err := v.TimestampResponse(sig)
		if err != nil {
			t.Fatal(err)
		}
		material["timestampVerificationData"] = object{"rfc3161Timestamps": []object{{"signedTimestamp": b64(token)}}}
	}
	return bundle.Attached{ID: verify.KeyID(&key.PublicKey), Data: canonical(t, object{
		"mediaType":            "application/vnd.dev.sigstore.bundle.v0.3+json",
		"messageSignature":     object{"messageDigest": object{"algorithm": "SHA2_256", "digest": b64(digest[:])}, "signature": b64(sig)},
		"verificationMaterial": material,
	})}
}

// entry is a log entry with a promise and a proof.
func (v *virtual) entry(t *testing.T, digest, sig []byte, verifier *pem.Block) object {
	t.Helper()
	body := canonical(t, object{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": object{
		"data":      object{"hash": object{"algorithm": "sha256", "value": hex.EncodeToString(digest)}},
		"signature": object{"content": b64(sig), "publicKey": object{"content": b64(pem.EncodeToMemory(verifier))}},
	}})
	id, err := v.RekorLogID()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Unix()
	promise, err := v.RekorSignPayload(tlog.RekorPayload{Body: b64(body), IntegratedTime: at, LogIndex: 7, LogID: id})
	if err != nil {
		t.Fatal(err)
	}
	proof, err := v.GetInclusionProof(body)
	if err != nil {
		t.Fatal(err)
	}
	return object{
		"logIndex": "7", "integratedTime": fmt.Sprint(at), "logId": object{"keyId": b64(mustHex(t, id))},
		"kindVersion": object{"kind": "hashedrekord", "version": "0.0.1"}, "canonicalizedBody": b64(body),
		"inclusionPromise": object{"signedEntryTimestamp": b64(promise)},
		"inclusionProof": object{
			"treeSize": fmt.Sprint(*proof.TreeSize), "rootHash": b64(mustHex(t, *proof.RootHash)),
			"checkpoint": object{"envelope": *proof.Checkpoint},
		},
	}
}

// TestCertificates runs the flow of certificates against a Sigstore that we did
// not write.
func TestCertificates(t *testing.T) {
	const san, issuer = "release@acme.test", "https://issuer.test"
	v, stranger := newVirtual(t), newVirtual(t)
	authorities := v.FulcioCertificateAuthorities()[0].(*root.FulcioCertificateAuthority)
	tsa := v.TimestampingAuthorities()[0].(*root.SigstoreTimestampingAuthority)
	pin := func(cert *x509.Certificate) []string {
		sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
		return []string{hex.EncodeToString(sum[:])}
	}
	logID, err := v.RekorLogID()
	if err != nil {
		t.Fatal(err)
	}
	none := []string{bundle.Digest(nil)}
	for _, c := range []struct {
		name            string
		logged, stamped bool
		require         manifests.Require
		identity        manifests.Identity
		by              *virtual
		want            verify.Reason
	}{
		{name: "in the log", logged: true, require: manifests.Require{TLog: 1}},
		{name: "with a timestamp", stamped: true, require: manifests.Require{Timestamps: 1}},
		{name: "with both", logged: true, stamped: true, require: manifests.Require{TLog: 1, Timestamps: 1}},
		{name: "with its authority named", logged: true, require: manifests.Require{TLog: 1}, identity: manifests.Identity{CA: pin(authorities.Root)}},
		{name: "with its intermediate named", logged: true, require: manifests.Require{TLog: 1}, identity: manifests.Identity{CA: pin(authorities.Intermediates[0])}},
		{name: "with all named", logged: true, stamped: true, require: manifests.Require{TLog: 1, Timestamps: 1},
			identity: manifests.Identity{CA: pin(authorities.Root), TSA: pin(tsa.Leaf), Log: []string{logID}}},
		{name: "by a pattern", logged: true, require: manifests.Require{TLog: 1}, identity: manifests.Identity{SANRegexp: `[a-z]+@acme\.test`}},

		{name: "another authority is named", logged: true, require: manifests.Require{TLog: 1}, identity: manifests.Identity{CA: none}, want: verify.SignatureInvalid},
		{name: "another log is named", logged: true, require: manifests.Require{TLog: 1}, identity: manifests.Identity{Log: none}, want: verify.SignatureInvalid},
		{name: "another timestamp authority is named", stamped: true, require: manifests.Require{Timestamps: 1}, identity: manifests.Identity{TSA: none}, want: verify.SignatureInvalid},
		{name: "another Sigstore", logged: true, require: manifests.Require{TLog: 1}, by: stranger, want: verify.SignatureInvalid},
		{name: "another name", logged: true, require: manifests.Require{TLog: 1}, identity: manifests.Identity{SAN: "else@acme.test"}, want: verify.SignerUnknown},
		{name: "another issuer", logged: true, require: manifests.Require{TLog: 1}, identity: manifests.Identity{SAN: san, Issuer: "https://elsewhere.test"}, want: verify.SignerUnknown},
		{name: "a pattern for a part of it", logged: true, require: manifests.Require{TLog: 1}, identity: manifests.Identity{SANRegexp: `release@acme`}, want: verify.SignerUnknown},
		{name: "a pattern with alternatives", logged: true, require: manifests.Require{TLog: 1}, identity: manifests.Identity{SANRegexp: `x|release`}, want: verify.SignerUnknown},
		{name: "no log entry", stamped: true, require: manifests.Require{TLog: 1, Timestamps: 1}, want: verify.TLogMissing},
		{name: "no timestamp", logged: true, require: manifests.Require{TLog: 1, Timestamps: 1}, want: verify.TimestampMissing},
		{name: "neither", require: manifests.Require{TLog: 1}, want: verify.TimestampMissing},
		{name: "a timestamp that nobody verifies", logged: true, stamped: true, require: manifests.Require{TLog: 1}, want: verify.SignatureExtra},
		{name: "a log entry that nobody verifies", logged: true, stamped: true, require: manifests.Require{Timestamps: 1}, want: verify.SignatureExtra},
		{name: "no SCT in the certificate", logged: true, require: manifests.Require{TLog: 1, SCT: 1}, want: verify.SCTMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			made := verifytest.NewTrust()
			made.TrustedRoot = v.root
			p := made.Acme()
			p.Keys, p.Require = nil, c.require
			id := c.identity
			if id.SAN == "" && id.SANRegexp == "" {
				id.SAN = san
			}
			if id.Issuer == "" {
				id.Issuer = issuer
			}
			p.Identities = []manifests.Identity{id}
			by := c.by
			if by == nil {
				by = v
			}
			raw, packed := verifytest.NewBundle().Pack(noOptions())
			sig := by.certified(t, packed.Raw, san, issuer, c.logged, c.stamped)
			verdict, err := judge(t, made.Load(), verifytest.Attach(raw, attached(sig), nil), time.Now())
			if c.want != "" {
				wantReason(t, err, c.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s := verdict.Signers[0]; s.Flow != verify.FlowCertificate || s.SAN != san || s.Issuer != issuer || s.ID != sig.ID {
				t.Errorf("signer %+v", s)
			}
		})
	}
}

// TestTheClockBoundsTrustedTimes: ten minutes ahead and no more.
func TestTheClockBoundsTrustedTimes(t *testing.T) {
	raw, packed := verifytest.NewBundle().Pack(noOptions())
	trust, at := loadTrusts()["log-demanded"], verifytest.Created().Add(time.Hour)
	signed := verifytest.Attach(raw, attached(verifytest.Logged(packed.Raw, "acme-1", at)), nil)
	if _, err := judge(t, trust, signed, at.Add(-10*time.Minute)); err != nil {
		t.Error(err)
	}
	wantReason(t, second(judge(t, trust, signed, at.Add(-10*time.Minute-1))), verify.TrustedTimeAhead)
}

// TestAKeyWindowIsThatOfTheSignature where the log says when it was made.
func TestAKeyWindowIsThatOfTheSignature(t *testing.T) {
	made := verifytest.Trusts()["log-demanded"]
	until := verifytest.Created().Add(time.Hour)
	made.Acme().Keys[0].ValidUntil = until
	trust := made.Load()
	raw, packed := verifytest.NewBundle().Pack(noOptions())
	for at, want := range map[time.Time]verify.Reason{until.Add(-time.Second): "", until: verify.KeyExpired} {
		_, err := judge(t, trust, verifytest.Attach(raw, attached(verifytest.Logged(packed.Raw, "acme-1", at)), nil), verifytest.Now())
		if want == "" && err != nil {
			t.Errorf("signed at %s: %v", at, err)
		}
		if want != "" {
			wantReason(t, err, want)
		}
	}
}

// TestALogEntryHasOneForm changes what the library does not look at.
func TestALogEntryHasOneForm(t *testing.T) {
	_, packed := verifytest.NewBundle().Pack(noOptions())
	good := verifytest.Logged(packed.Raw, "acme-1", verifytest.Created())
	entry := func(v object) object { return v["verificationMaterial"].(object)["tlogEntries"].([]any)[0].(object) }
	envelope := func(v object) string {
		return entry(v)["inclusionProof"].(object)["checkpoint"].(object)["envelope"].(string)
	}
	set := func(v object, note string) {
		entry(v)["inclusionProof"].(object)["checkpoint"].(object)["envelope"] = note
	}
	trust := loadTrusts()["log-demanded"]
	for name, edit := range map[string]func(object){
		"another version":       func(v object) { entry(v)["kindVersion"].(object)["version"] = "0.0.2" },
		"another kind":          func(v object) { entry(v)["kindVersion"].(object)["kind"] = "dsse" },
		"no promise":            func(v object) { delete(entry(v), "inclusionPromise") },
		"no proof":              func(v object) { delete(entry(v), "inclusionProof") },
		"a second signature":    func(v object) { set(v, envelope(v)+"— witness.test AAAAAAAA\n") },
		"another signer's name": func(v object) { set(v, replaceLast(envelope(v), "rekor.test", "rekor.else")) },
		"no line feed":          func(v object) { set(v, envelope(v)[:len(envelope(v))-1]) },
		"another time":          func(v object) { entry(v)["integratedTime"] = "1795334401" },
		"another index":         func(v object) { entry(v)["logIndex"] = "42" },
	} {
		if _, err := trust.Signatures(packed.Raw, attached(verifytest.Edit(good, edit)), verifytest.Now()); !refused(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := trust.Signatures(packed.Raw, attached(good), verifytest.Now()); err != nil {
		t.Errorf("the control is refused: %v", err)
	}
}

func replaceLast(s, old, with string) string {
	for i := len(s) - len(old); i >= 0; i-- {
		if s[i:i+len(old)] == old {
			return s[:i] + with + s[i+len(old):]
		}
	}
	return s
}

// signedWithP384 is the small bundle, and its signature by a P-384 key.
func signedWithP384(t *testing.T) (raw []byte, sig bundle.Attached, public string) {
	t.Helper()
	raw, packed := verifytest.NewBundle().Pack(noOptions())
	sig, public = p384Signature(t, packed.Raw)
	return raw, sig, public
}

// p384Signature is one over raw by a P-384 key.
func p384Signature(t *testing.T, raw []byte) (sig bundle.Attached, public string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha512.Sum384(raw)
	made, err := key.Sign(rand.Reader, digest[:], crypto.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	file, err := verify.MarshalPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	id := verify.KeyID(&key.PublicKey)
	return bundle.Attached{ID: id, Data: canonical(t, object{
		"mediaType":            "application/vnd.dev.sigstore.bundle.v0.3+json",
		"messageSignature":     object{"messageDigest": object{"algorithm": "SHA2_384", "digest": b64(digest[:])}, "signature": b64(made)},
		"verificationMaterial": object{"publicKey": object{"hint": b64(mustHex(t, id))}},
	})}, string(file)
}

// TestTheHashIsThatOfTheKey: a signature does not choose it.
func TestTheHashIsThatOfTheKey(t *testing.T) {
	_, sig, public := signedWithP384(t)
	made := verifytest.NewTrust()
	made.Acme().Keys[0].PEM = public
	_, packed := verifytest.NewBundle().Pack(noOptions())
	sum := sha256.Sum256(packed.Raw)
	other := verifytest.Edit(sig, func(v object) {
		v["messageSignature"].(object)["messageDigest"] = object{"algorithm": "SHA2_256", "digest": b64(sum[:])}
	})
	_, err := made.Load().Signatures(packed.Raw, attached(other), verifytest.Now())
	wantReason(t, err, verify.SignatureInvalid)
}

// TestAnEntryOfTheSecondLogNeedsATimestamp: it promises no time, so a policy
// that asks for a log entry alone is not met, at level audit either.
func TestAnEntryOfTheSecondLogNeedsATimestamp(t *testing.T) {
	raw, packed := verifytest.NewBundle().Pack(noOptions())
	for _, level := range []string{"enforce", "audit"} {
		made := verifytest.NewTrust()
		made.TrustedRoot = verifytest.TrustedRoot()
		made.Acme().Level, made.Acme().Require.TLog = level, 1
		sig := verifytest.Signature(packed.Raw, "acme-1", verifytest.With{Logged2: true})
		_, err := judge(t, made.Load(), verifytest.Attach(raw, attached(sig), nil), verifytest.Now())
		wantReason(t, err, verify.TimestampMissing)
	}
}
