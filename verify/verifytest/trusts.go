package verifytest

import (
	"time"

	"github.com/stellarun/stella/manifests"
)

// Names of trusts.
const (
	trustPlain       = "plain"
	trustTwo         = "two-signers"
	trustAudience    = "audience-demanded"
	trustLogged      = "log-demanded"
	trustLoggedAudit = "log-demanded-audit"
	trustStamped     = "timestamp-demanded"
	trustAttested    = "attestation-demanded"
	trustAudit       = "attestation-demanded-audit"
	trustWindows     = "key-windows"
	trustRevoked     = "revoked"
	trustNarrow      = "narrow"
	trustRoot        = "root-expired"
	trustPolicy      = "policy-expired"
	trustRevocations = "revocations-expired"
	trustAhead       = "issued-ahead"
	trustSCT         = "sct-demanded"
	trustLog2        = "second-log-demanded"
	trustTypes       = "attestation-types"
	trustIdentity    = "attestation-by-identity"
)

// Predicate types of the attestations that fixtures have.
const (
	Provenance = "https://slsa.dev/provenance/v1"
	Review     = "https://stella.test/review/v1"
	Builder    = "https://builder.test"
)

const provenance = `{"buildDefinition":{},"runDetails":{"builder":{"id":"` + Builder + `"}}}`

// Trusts are the trusts of all fixtures, by name.
func Trusts() map[string]*Trust {
	all := map[string]*Trust{}
	for name, edit := range map[string]func(*Trust){
		trustPlain:    func(*Trust) {},
		trustTwo:      func(t *Trust) { t.Acme().Threshold = 2 },
		trustAudience: func(t *Trust) { t.Acme().Require.Audience = true },
		trustLogged:   demandLog,
		trustLoggedAudit: func(t *Trust) {
			demandLog(t)
			t.Acme().Level = "audit"
		},
		trustStamped:  demandStamp,
		trustSCT:      demandSCT,
		trustLog2:     demandLog2,
		trustTypes:    demandTypes,
		trustIdentity: demandIdentity,
		trustAttested: demandAttestations,
		trustAudit: func(t *Trust) {
			demandAttestations(t)
			t.Acme().Level = "audit"
		},
		trustWindows: func(t *Trust) {
			t.Acme().Keys[0].ValidUntil = Created().Add(time.Hour)
			t.Acme().Keys[1].ValidFrom = Now().Add(time.Hour)
		},
		trustRevoked: revoke,
		trustNarrow: func(t *Trust) {
			t.Acme().Kinds = []manifests.Kind{manifests.KindData}
		},
		trustRoot:        func(t *Trust) { t.Root.Expires = Now() },
		trustPolicy:      func(t *Trust) { t.Policy.NextUpdate = Now() },
		trustRevocations: func(t *Trust) { t.Revocations.NextUpdate = Now() },
		trustAhead:       func(t *Trust) { t.Policy.Issued = Now().Add(10*time.Minute + time.Nanosecond) },
	} {
		t := NewTrust()
		edit(t)
		all[name] = t
	}
	return all
}

// demandLog lets keys and one identity sign, in the log.
func demandLog(t *Trust) {
	t.TrustedRoot = TrustedRoot()
	t.Acme().Require.TLog = 1
	t.Acme().Identities = []manifests.Identity{{
		Issuer: Issuer, SAN: "release@acme.test", CA: []string{AuthorityPin()}, Log: []string{LogPin()},
	}}
}

func demandAttestations(t *Trust) {
	t.Acme().Require.Attestations = []manifests.RequiredAttestation{
		{PredicateType: Provenance, Keys: []string{PEM("builder")}, Builder: Builder},
		{PredicateType: Review, Keys: []string{PEM("reviewer")}},
	}
}

// revoke revokes one of each. What has a from in the future is not revoked yet.
func revoke(t *Trust) {
	demandLog(t)
	t.Acme().Identities = append(t.Acme().Identities, manifests.Identity{Issuer: Issuer, SAN: "left@acme.test"})
	t.Revocations.Revoked = []manifests.Revocation{
		{Key: KeyID("acme-2"), From: Created().Add(time.Hour), Reason: "the key was lost"},
		{Key: KeyID("acme-1"), From: Now().Add(time.Hour), Reason: "the key will be retired"},
		{Issuer: Issuer, SAN: "left@acme.test", Reason: "left the company"},
		{Manifest: withdrawn().Digest(), Reason: "withdrawn"},
		{Blob: digest(badFile), Reason: "vulnerable"},
	}
}

const badFile = "a file that must not be used\n"

// withdrawn is the bundle whose manifest is revoked.
func withdrawn() *Bundle {
	b := NewBundle()
	b.Manifest.Version, b.Manifest.Sequence = "1.1.0", 6
	return b
}
