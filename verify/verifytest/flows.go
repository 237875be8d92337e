package verifytest

import (
	"encoding/json"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
)

// Predicate types that others define, and types of in-toto statements.
const (
	ProvenanceV02 = "https://slsa.dev/provenance/v0.2"
	CycloneDX     = "https://cyclonedx.org/bom"
	SPDX          = "https://spdx.dev/Document"
	StatementV01  = "https://in-toto.io/Statement/v0.1"
	StatementV1   = "https://in-toto.io/Statement/v1"
)

const (
	releaseSAN = "release@acme.test"
	buildSAN   = "build@acme.test"
)

// demandStamp lets keys and one identity sign, with a timestamp.
func demandStamp(t *Trust) {
	t.TrustedRoot = TrustedRoot()
	t.Acme().Require.Timestamps = 1
	t.Acme().Identities = []manifests.Identity{{Issuer: Issuer, SAN: releaseSAN, TSA: []string{StampPin()}}}
}

// demandSCT demands a certificate timestamp beside the log entry.
func demandSCT(t *Trust) {
	demandLog(t)
	t.Acme().Require.SCT = 1
}

// demandLog2 takes the second log, and therefore a timestamp too.
func demandLog2(t *Trust) {
	demandStamp(t)
	t.Acme().Require.TLog = 1
	t.Acme().Identities[0].Log = []string{Log2Pin()}
}

// demandTypes demands provenance of both versions and both kinds of SBOM.
func demandTypes(t *Trust) {
	builder := []string{PEM("builder")}
	t.Acme().Require.Attestations = []manifests.RequiredAttestation{
		{PredicateType: ProvenanceV02, Keys: builder, Builder: Builder},
		{PredicateType: Provenance, Keys: builder, Builder: Builder},
		{PredicateType: CycloneDX, Keys: builder},
		{PredicateType: SPDX, Keys: builder},
	}
}

// demandIdentity demands provenance by an identity, which is in the log.
func demandIdentity(t *Trust) {
	demandLog(t)
	t.Acme().Require.Attestations = []manifests.RequiredAttestation{{
		PredicateType: Provenance, Builder: Builder, Identities: []manifests.Identity{{Issuer: Issuer, SAN: buildSAN, CA: []string{AuthorityPin()}}},
	}}
}

// Built is the small bundle by acme-1, with provenance by an identity; both are
// in the log since a time.
func Built(san string, at time.Time) []byte {
	raw, packed := NewBundle().Pack(bundle.PackOptions{})
	payload, err := verify.Statement(packed.Digest, Provenance, []byte(provenance))
	must(err)
	return Attach(raw, []bundle.Attached{Logged(packed.Raw, "acme-1", at)}, []bundle.Attached{
		Signature(payload, "leaf-1", With{SAN: san, Logged: at, Statement: true}),
	})
}

// Stated is a statement of the key about the small bundle.
func Stated(statementType, predicateType, predicate, key string) bundle.Attached {
	return Signature(encode(object{
		"_type": statementType, "predicateType": predicateType, "predicate": json.RawMessage(predicate),
		"subject": []object{{"name": bundle.ManifestName, "digest": object{"sha256": NewBundle().Digest()}}},
	}), key, With{Statement: true})
}

// types are the statements that demandTypes demands.
func types() []bundle.Attached {
	return []bundle.Attached{
		Stated(StatementV01, ProvenanceV02, `{"builder":{"id":"`+Builder+`"},"buildType":"https://build.test/v1"}`, "builder"),
		Stated(StatementV1, Provenance, provenance, "builder"),
		Stated(StatementV01, CycloneDX, `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[]}`, "builder"),
		Stated(StatementV1, SPDX, `{"spdxVersion":"SPDX-2.3","packages":[]}`, "builder"),
	}
}

// flows are the ways in which a signature becomes believable.
func (l *list) flows() {
	at := Created().Add(time.Minute)
	add := func(name, trust, expect, note string, w With) {
		l.add(name, trust, expect, note, signedBy(NewBundle(), func(m []byte) []bundle.Attached {
			return []bundle.Attached{Signature(m, "acme-1", w)}
		}))
	}
	invalid := string(verify.SignatureInvalid)
	add("stamped-key", trustStamped, ExpectAdmit, "a key, with a timestamp", With{Stamped: at})
	add("stamped-certificate", trustStamped, ExpectAdmit, "a certificate, with a timestamp", With{SAN: releaseSAN, Stamped: at})
	add("certificate-sct", trustSCT, ExpectAdmit, "a certificate that is in the certificate log", With{SAN: releaseSAN, SCT: true, Logged: at})
	add("second-log-key", trustLog2, ExpectAdmit, "a key, in a log in the manner of Rekor v2", With{Logged2: true, Stamped: at})
	add("second-log-certificate", trustLog2, ExpectAdmit, "a certificate, in a log in the manner of Rekor v2", With{SAN: releaseSAN, Logged2: true, Stamped: at})
	l.add("attested-types", trustTypes, ExpectAdmit, "statements of both versions: SLSA provenance v0.2 and v1, CycloneDX, SPDX", attest(types()...))

	add("certificate-without-sct", trustSCT, string(verify.SCTMissing), "the policy demands a certificate timestamp", With{SAN: releaseSAN, Logged: at})
	add("certificate-strange-sct", trustSCT, invalid, "its certificate timestamp is by a log that nobody trusts", With{SAN: releaseSAN, StrangeSCT: true, Logged: at})
	add("timestamp-ahead", trustStamped, string(verify.TrustedTimeAhead), "stamped more than ten minutes after the clock", With{Stamped: Now().Add(11 * time.Minute)})
	add("stamped-after-certificate", trustStamped, invalid, "stamped when its certificate had expired", With{SAN: releaseSAN, Issued: at, Stamped: at.Add(time.Hour)})
	add("other-log", trustLog2, invalid, "the identity names the second log", With{SAN: releaseSAN, Logged: at, Stamped: at})
	swap := func(name, trust, note, part string, w With) {
		l.add(name, trust, invalid, note, signedBy(NewBundle(), func(m []byte) []bundle.Attached {
			other := Signature(withdrawn().manifest(), "acme-1", w)
			return []bundle.Attached{Edit(Signature(m, "acme-1", w), func(v map[string]any) {
				Edit(other, func(from map[string]any) {
					v["verificationMaterial"].(object)[part] = from["verificationMaterial"].(object)[part]
				})
			})}
		}))
	}
	swap("timestamp-of-another", trustStamped, "the timestamp of another signature", "timestampVerificationData", With{Stamped: at})
	swap("entry-of-another", trustLog2, "the log entry of another signature", "tlogEntries", With{Logged2: true, Stamped: at})
	l.add("attested-without-sbom", trustTypes, string(verify.AttestationMissing), "one SBOM of two", attest(types()[:3]...))
	elsewhere := Stated(StatementV01, ProvenanceV02, `{"builder":{"id":"https://elsewhere.test"}}`, "builder")
	l.add("attested-builder-v02", trustTypes, string(verify.AttestationMissing), "provenance v0.2 of another builder", attest(append(types()[1:], elsewhere)...))
	l.add("attested-by-identity", trustIdentity, ExpectAdmit, "provenance by a certificate", Built(buildSAN, at))
	l.add("attested-by-other-identity", trustIdentity, string(verify.AttestationMissing), "provenance by the certificate of another", Built(releaseSAN, at))
}
