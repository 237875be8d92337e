package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	sigbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sigverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/stellarun/stella/manifests"
)

// newKey makes a key of a trust file ready.
func newKey(pem string) (*namedKey, error) {
	pub, err := ParsePublicKey([]byte(pem))
	if err != nil {
		return nil, err
	}
	v, err := signature.LoadECDSAVerifier(pub, hashOf(pub))
	if err != nil {
		return nil, err
	}
	// Windows are checked by us, at the time of the judgement.
	return &namedKey{id: KeyID(pub), hint: hint(pub), pub: pub, verifier: root.NewExpiringKey(v, time.Time{}, time.Time{})}, nil
}

// hint is how a Sigstore bundle names the key.
func hint(pub *ecdsa.PublicKey) string { return base64.StdEncoding.EncodeToString(spkiHash(pub)) }

// material is what the library may believe for one signer, and nothing else.
type material struct {
	root.BaseTrustedMaterial
	cas    []root.CertificateAuthority
	tsas   []root.TimestampingAuthority
	logs   map[string]*root.TransparencyLog
	ctlogs map[string]*root.TransparencyLog
	key    *namedKey
}

func (m *material) FulcioCertificateAuthorities() []root.CertificateAuthority { return m.cas }
func (m *material) TimestampingAuthorities() []root.TimestampingAuthority     { return m.tsas }
func (m *material) RekorLogs() map[string]*root.TransparencyLog               { return m.logs }
func (m *material) CTLogs() map[string]*root.TransparencyLog                  { return m.ctlogs }

func (m *material) PublicKeyVerifier(h string) (root.TimeConstrainedVerifier, error) {
	if m.key == nil || h != m.key.hint {
		return nil, errors.New("the signature is by another key")
	}
	return m.key.verifier, nil
}

// hash is what signatures of m's signer are over. Certificates are for P-256.
func (m *material) hash() crypto.Hash {
	if m.key != nil {
		return hashOf(m.key.pub)
	}
	return crypto.SHA256
}

// material lets k, with the logs and timestamp authorities of base, verify.
func (k *namedKey) material(base root.TrustedMaterial) *material {
	m := &material{key: k}
	if base != nil {
		m.tsas, m.logs = base.TimestampingAuthorities(), base.RekorLogs()
	}
	return m
}

// identity is a [[publisher.identity]], made ready.
type identity struct {
	manifests.Identity
	publisher *publisher
	pattern   *regexp.Regexp // nil where SAN is exact
	material  *material
}

func newIdentity(p *publisher, def manifests.Identity, base root.TrustedMaterial) (*identity, error) {
	id := &identity{Identity: def, publisher: p}
	if p.Require.TLog == 0 && p.Require.Timestamps == 0 {
		return nil, errors.New("an identity needs a trusted time: require tlog or timestamps")
	}
	if def.SANRegexp != "" {
		pattern, err := whole(def.SANRegexp)
		if err != nil {
			return nil, err
		}
		id.pattern = pattern
	}
	m := &material{ctlogs: base.CTLogs(), logs: map[string]*root.TransparencyLog{}}
	for _, ca := range base.FulcioCertificateAuthorities() {
		m.cas = append(m.cas, pinnedCA{ca, def.CA})
	}
	for _, tsa := range base.TimestampingAuthorities() {
		if len(def.TSA) == 0 || pinnedTSA(tsa, def.TSA) {
			m.tsas = append(m.tsas, tsa)
		}
	}
	for name, log := range base.RekorLogs() {
		if len(def.Log) == 0 || pinnedKey(log.PublicKey, def.Log) {
			m.logs[name] = log
		}
	}
	id.material = m
	return id, nil
}

// whole compiles a pattern that must match all of a text. It must be a pattern
// by itself: one that closes the group around it would be free of its anchors.
func whole(pattern string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + pattern + `)\z`)
}

// matches compares what the certificate says. The library compares it again
// once the certificate is verified.
func (id *identity) matches(f *file) bool {
	if f.issuer != id.Issuer {
		return false
	}
	if id.pattern != nil {
		return id.pattern.MatchString(f.san)
	}
	return f.san == id.SAN
}

// pinnedCA accepts chains that hold one of the pinned keys; all, if none is.
type pinnedCA struct {
	root.CertificateAuthority
	pins []string
}

func (c pinnedCA) Verify(leaf *x509.Certificate, at time.Time) ([][]*x509.Certificate, error) {
	chains, err := c.CertificateAuthority.Verify(leaf, at)
	if err != nil || len(c.pins) == 0 {
		return chains, err
	}
	chains = slices.DeleteFunc(chains, func(chain []*x509.Certificate) bool {
		return !slices.ContainsFunc(chain[1:], func(cert *x509.Certificate) bool { return pinned(cert, c.pins) })
	})
	if len(chains) == 0 {
		return nil, errors.New("the certificate is not from an authority that the policy names")
	}
	return chains, nil
}

// pinnedTSA says whether a certificate of the authority is pinned.
func pinnedTSA(tsa root.TimestampingAuthority, pins []string) bool {
	s, ok := tsa.(*root.SigstoreTimestampingAuthority)
	if !ok {
		return false
	}
	return slices.ContainsFunc(append([]*x509.Certificate{s.Leaf, s.Root}, s.Intermediates...), func(cert *x509.Certificate) bool {
		return cert != nil && pinned(cert, pins)
	})
}

func pinned(cert *x509.Certificate, pins []string) bool {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return slices.Contains(pins, hex.EncodeToString(sum[:]))
}

func pinnedKey(pub crypto.PublicKey, pins []string) bool {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return false
	}
	sum := sha256.Sum256(der)
	return slices.Contains(pins, hex.EncodeToString(sum[:]))
}

// addPublisher makes a policy entry ready.
func (t *Trust) addPublisher(def *manifests.Publisher) error {
	p := &publisher{Publisher: *def}
	t.publishers[p.Name] = p
	for _, pk := range p.Keys {
		k, err := newKey(pk.PEM)
		if err != nil {
			return err
		}
		if known := t.keys[k.id]; known != nil {
			// A signer is one policy entry, and what a role signs is not a
			// publisher's (THREATS 3, 7).
			return fmt.Errorf("key %s is named by %s as well", k.id, known.owner())
		}
		k.publisher, k.window = p, pk
		t.keys[k.id] = k
	}
	for _, def := range p.Identities {
		id, err := newIdentity(p, def, t.material)
		if err != nil {
			return err
		}
		p.identities = append(p.identities, id)
	}
	return t.addAttesters(p)
}

// owner says who names k.
func (k *namedKey) owner() string {
	if k.publisher != nil {
		return "publisher " + k.publisher.Name
	}
	return "role " + k.roles[0]
}

// identitiesOf lists the policy's identities that f claims to be, by publisher.
func (t *Trust) identitiesOf(f *file) []*identity {
	var out []*identity
	for _, name := range slices.Sorted(maps.Keys(t.publishers)) {
		for _, id := range t.publishers[name].identities {
			if id.matches(f) {
				out = append(out, id)
			}
		}
	}
	return out
}

// demands is how many log entries, timestamps and certificate timestamps a
// signature must have. They come from the policy, never from the file.
type demands struct{ tlog, timestamps, sct int }

func demandsOf(r manifests.Require) demands {
	return demands{tlog: r.TLog, timestamps: r.Timestamps, sct: r.SCT}
}

// extra says what f brings that d does not verify, "" for nothing.
func (d demands) extra(f *file) string {
	switch {
	case d.tlog == 0 && len(f.entries()) > 0:
		return "a log entry"
	case d.timestamps == 0 && len(f.timestamps()) > 0:
		return "a timestamp"
	}
	return ""
}

// missing lists what f lacks of d.
func (d demands) missing(f *file) []Reason {
	var out []Reason
	if len(f.entries()) < d.tlog {
		out = append(out, TLogMissing)
	}
	if len(f.timestamps()) < d.timestamps {
		out = append(out, TimestampMissing)
	}
	return out
}

// lacks says what f has to have before anything can be verified, "" if nothing
// is lacking: a certificate or a log entry is judged at a trusted time, and an
// entry without a promise, as Rekor v2 makes them, brings none; a certificate
// without an embedded SCT cannot meet d.
func (d demands) lacks(f *file) (Reason, string) {
	switch {
	case f.timeless() && f.leaf != nil:
		return TimestampMissing, "a certificate without a timestamp, or a log entry that promises its time, has no trusted time"
	case f.timeless() && len(f.entries()) > 0:
		return TimestampMissing, "its log entry promises no time, and it brings no timestamp"
	case f.leaf != nil && d.sct > 0 && !f.hasSCT():
		return SCTMissing, "its certificate brings no certificate timestamp"
	}
	return "", ""
}

// verify checks the signature of f over raw, and with it every log entry and
// timestamp that f has: they are at least d's, or [demands.missing] tells.
// What it returns are the trusted times.
func (f *file) verify(raw []byte, d demands, m *material) ([]time.Time, error) {
	var opts []sigverify.VerifierOption
	tlog, timestamps := len(f.entries()), len(f.timestamps())
	if tlog > 0 {
		opts = append(opts, sigverify.WithTransparencyLog(tlog))
	}
	switch {
	case timestamps > 0:
		opts = append(opts, sigverify.WithSignedTimestamps(timestamps))
	case tlog > 0:
		opts = append(opts, sigverify.WithIntegratedTimestamps(1))
	case f.leaf != nil:
		return nil, errors.New("a certificate without a log entry or timestamp has no trusted time")
	default:
		opts = append(opts, sigverify.WithNoObserverTimestamps())
	}
	if f.leaf != nil && d.sct > 0 {
		opts = append(opts, sigverify.WithSignedCertificateTimestamps(d.sct))
	}
	what := sigverify.WithArtifact(bytes.NewReader(raw))
	if f.isStatement() {
		what = sigverify.WithoutArtifactUnsafe() // the caller compares the subject
	}
	result, err := f.library(m, what, opts)
	if err != nil {
		return nil, err
	}
	var times []time.Time
	for _, ts := range result.VerifiedTimestamps {
		times = append(times, ts.Timestamp)
	}
	return times, nil
}

// library lets sigstore-go verify f. Who signed must be the key of m, or the
// identity that f's certificate claims, which the caller has compared.
func (f *file) library(m *material, what sigverify.ArtifactPolicyOption, opts []sigverify.VerifierOption) (*sigverify.VerificationResult, error) {
	who := sigverify.WithKey()
	if f.leaf != nil {
		id, err := sigverify.NewShortCertificateIdentity(f.issuer, "", f.san, "")
		if err != nil {
			return nil, err
		}
		who = sigverify.WithCertificateIdentity(id)
	}
	if f.isStatement() {
		opts = append(opts, sigverify.WithoutStatementPredicate())
	}
	for _, ts := range f.timestamps() {
		if err := m.known(ts.GetSignedTimestamp()); err != nil {
			return nil, err
		}
	}
	if err := f.bodies(m); err != nil {
		return nil, err
	}
	v, err := sigverify.NewVerifier(m, opts...)
	if err != nil {
		return nil, err
	}
	entity, err := sigbundle.NewBundle(f.pb)
	if err != nil {
		return nil, err
	}
	return v.Verify(entity, sigverify.NewPolicy(what, who))
}
