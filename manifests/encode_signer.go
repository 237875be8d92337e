package manifests

import "strings"

// EncodeKey is the [[publisher.key]] of a policy.
func EncodeKey(k PublisherKey) string {
	w := new(writer)
	w.key(k)
	return strings.TrimPrefix(w.String(), "\n")
}

// EncodeIdentity is the [[publisher.identity]] of a policy.
func EncodeIdentity(i Identity) string {
	w := new(writer)
	w.identity("publisher.identity", i)
	return strings.TrimPrefix(w.String(), "\n")
}

// EncodeAttestation is the [[publisher.require.attestation]] of a policy.
func EncodeAttestation(a RequiredAttestation) string {
	w := new(writer)
	w.attestation(a)
	return strings.TrimPrefix(w.String(), "\n")
}

func (w *writer) attestation(a RequiredAttestation) {
	w.table("publisher.require.attestation", true)
	w.text("predicate_type", a.PredicateType)
	w.text("builder", a.Builder)
	w.texts("keys", a.Keys)
	for _, i := range a.Identities {
		w.identity("publisher.require.attestation.identity", i)
	}
}

func (w *writer) key(k PublisherKey) {
	w.table("publisher.key", true)
	w.instant("valid_from", k.ValidFrom)
	w.instant("valid_until", k.ValidUntil)
	w.text("pem", k.PEM)
}

func (w *writer) identity(table string, i Identity) {
	w.table(table, true)
	w.text("issuer", i.Issuer)
	w.text("san", i.SAN)
	w.text("san_regexp", i.SANRegexp)
	w.texts("ca", i.CA)
	w.texts("tsa", i.TSA)
	w.texts("log", i.Log)
}
