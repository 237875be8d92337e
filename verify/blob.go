package verify

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	sigverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/stamp"
)

// BlobPolicy says what a signature over one file must have. It is static: what
// is checked never depends on what the signature brings. With a trusted root
// that is one log entry and one trusted time, the log's or a timestamp
// authority's, and for certificates one certificate timestamp. Less must be
// asked for by name.
type BlobPolicy struct {
	// Who signed: either Key, PEM of a public key, or an identity of which the
	// issuer is always demanded.
	Key       []byte
	SAN       string
	SANRegexp string // of the whole SAN
	Issuer    string
	// TrustedRoot is a trusted_root.json. Only a key with NoLog does without.
	TrustedRoot []byte
	// NoLog demands no log entry, and refuses one. With a trusted root the
	// trusted time is then a timestamp authority's.
	NoLog bool
	NoSCT bool // demands no certificate timestamp
	// PredicateType demands an in-toto statement of that type about the file;
	// "" demands a signature over it.
	PredicateType string
}

// A PolicyError says that a [BlobPolicy] demands what nothing can meet, or
// leaves open what it must say.
type PolicyError struct {
	Text string
	Hint string
}

func (e *PolicyError) Error() string { return "verify: " + e.Text }

// BlobVerifier judges files by one [BlobPolicy]. It never changes, and may be
// used by several goroutines at once.
type BlobVerifier struct {
	policy   BlobPolicy
	material *material
	identity *identity // nil for a key
}

// NewBlobVerifier makes a policy ready. Errors are [*PolicyError].
func NewBlobVerifier(p BlobPolicy) (*BlobVerifier, error) {
	if err := p.complete(); err != nil {
		return nil, err
	}
	v := &BlobVerifier{policy: p}
	var base root.TrustedMaterial = &root.BaseTrustedMaterial{}
	if len(p.TrustedRoot) > 0 {
		tr, err := root.NewTrustedRootFromJSON(p.TrustedRoot)
		if err != nil {
			return nil, &PolicyError{Text: fmt.Sprintf("the trusted root: %v", err)}
		}
		base = tr
	}
	if len(p.Key) > 0 {
		k, err := newKey(string(p.Key))
		if err != nil {
			return nil, &PolicyError{Text: fmt.Sprintf("the key: %v", err), Hint: "a public key is one PEM block with an ECDSA key on P-256 or P-384"}
		}
		v.material = k.material(base)
		return v, nil
	}
	v.identity = new(identity)
	v.identity.Issuer, v.identity.SAN = p.Issuer, p.SAN
	if p.SANRegexp != "" {
		pattern, err := whole(p.SANRegexp)
		if err != nil {
			return nil, &PolicyError{Text: fmt.Sprintf("the pattern of the identity: %v", err)}
		}
		v.identity.pattern = pattern
	}
	v.material = &material{
		cas: base.FulcioCertificateAuthorities(), tsas: base.TimestampingAuthorities(),
		logs: base.RekorLogs(), ctlogs: base.CTLogs(),
	}
	return v, nil
}

// complete checks that p says all that it must, and nothing twice.
func (p *BlobPolicy) complete() error {
	names := p.SAN != "" || p.SANRegexp != "" || p.Issuer != ""
	switch {
	case len(p.Key) > 0 && names:
		return &PolicyError{"a key and an identity are both demanded", "a signature is by one or the other: give --key, or --certificate-identity with --certificate-oidc-issuer"}
	case len(p.Key) == 0 && !names:
		return &PolicyError{"nobody is named who must have signed", "give --key, or --certificate-identity with --certificate-oidc-issuer"}
	case names && (p.SAN == "") == (p.SANRegexp == ""):
		return &PolicyError{"an identity is demanded either exactly or by a pattern", "give --certificate-identity or --certificate-identity-regexp"}
	case names && p.Issuer == "":
		return &PolicyError{"no issuer is demanded of the identity", "anybody can have any name at some issuer: name the one that is believed with --certificate-oidc-issuer"}
	case len(p.TrustedRoot) == 0 && names:
		return &PolicyError{"certificates need a trusted root", "give the trusted_root.json of the Sigstore that is believed with --trusted-root; none is ever fetched or looked for"}
	case len(p.TrustedRoot) == 0 && !p.NoLog:
		return &PolicyError{"a log entry is demanded, and no trusted root says whose", "give a trusted_root.json with --trusted-root, or say with --no-log that no log is needed; none is ever fetched or looked for"}
	case len(p.TrustedRoot) > MaxTrustedRoot:
		return &PolicyError{Text: fmt.Sprintf("the trusted root has %d bytes, the limit is %d", len(p.TrustedRoot), MaxTrustedRoot)}
	case p.NoSCT && len(p.Key) > 0:
		return &PolicyError{"a key has no certificate timestamps to do without", "leave out --no-sct, or demand --certificate-identity instead of --key"}
	}
	return nil
}

// Limit is how many bytes a signature may have under the policy.
func (v *BlobVerifier) Limit() int64 {
	if v.policy.PredicateType != "" {
		return bundle.MaxAttestation
	}
	return bundle.MaxSignature
}

// options are those of the library: they follow from the policy alone.
func (v *BlobVerifier) options() []sigverify.VerifierOption {
	var opts []sigverify.VerifierOption
	switch {
	case len(v.policy.TrustedRoot) == 0:
		opts = append(opts, sigverify.WithNoObserverTimestamps())
	case v.policy.NoLog:
		opts = append(opts, sigverify.WithSignedTimestamps(1))
	default:
		opts = append(opts, sigverify.WithTransparencyLog(1), sigverify.WithObserverTimestamps(1))
	}
	if v.demandsSCT() {
		opts = append(opts, sigverify.WithSignedCertificateTimestamps(1))
	}
	return opts
}

func (v *BlobVerifier) demandsSCT() bool { return v.identity != nil && !v.policy.NoSCT }

// A Blob is what was signed: its content, or where the content is elsewhere the
// SHA-256 of it.
type Blob struct {
	Content io.Reader // read to its end, once, if the signature could be over it
	SHA256  string    // hex; used where Content is nil
}

// BlobVerdict says what was verified.
type BlobVerdict struct {
	SHA256        string        `json:"sha256"`
	Bytes         int64         `json:"bytes,omitempty"` // absent where only the digest was given
	Flow          string        `json:"flow"`            // key | certificate
	KeyID         string        `json:"keyId"`           // SHA-256 of the SPKI of the key that signed
	Issuer        string        `json:"issuer,omitempty"`
	SAN           string        `json:"san,omitempty"`
	StatementType string        `json:"statementType,omitempty"`
	PredicateType string        `json:"predicateType,omitempty"`
	TrustedTimes  []TrustedTime `json:"trustedTimes"`
	Checks        []string      `json:"checks"`
	Now           string        `json:"now"`
}

// TrustedTime is when somebody whom the trusted root names saw the signature.
type TrustedTime struct {
	By   string `json:"by"` // log | timestamp-authority
	Time string `json:"time"`
}

// Verify judges sig, a Sigstore bundle v0.3 in any white space, as the signature
// or statement about the blob at now. A refusal is a [*RejectError]; any other
// error means that no judgement was reached.
func (v *BlobVerifier) Verify(sig []byte, blob Blob, now time.Time) (*BlobVerdict, error) {
	f, err := v.parse(sig)
	if err != nil {
		return nil, err
	}
	if err := v.fits(f); err != nil {
		return nil, err
	}
	d, err := v.digests(f, blob)
	if err != nil {
		return nil, err
	}
	result, err := v.signed(f, d, now)
	if err != nil {
		return nil, err
	}
	out := &BlobVerdict{
		SHA256: d.sha256, Bytes: d.bytes, Flow: FlowKey, KeyID: f.id, Issuer: f.issuer, SAN: f.san,
		TrustedTimes: []TrustedTime{}, Checks: v.checks(), Now: stamp.Format(now),
	}
	if f.leaf != nil {
		out.Flow = FlowCertificate
	}
	for _, ts := range result.VerifiedTimestamps {
		by := "log"
		if ts.Type != typeLogTime {
			by = "timestamp-authority"
		}
		out.TrustedTimes = append(out.TrustedTimes, TrustedTime{by, stamp.Format(ts.Timestamp)})
	}
	if f.isStatement() {
		s, err := v.states(f, d.sha256)
		if err != nil {
			return nil, err
		}
		out.StatementType, out.PredicateType = s.Type, s.PredicateType
	}
	return out, nil
}

// typeLogTime is the library's word for a time that a log promised.
const typeLogTime = "Tlog"

// parse reads sig, which must be of the demanded kind.
func (v *BlobVerifier) parse(sig []byte) (*file, error) {
	if int64(len(sig)) > v.Limit() {
		return nil, v.refuse(bundle.SignatureTooLarge, bundle.AttestationTooLarge, "it has more than %d bytes", v.Limit())
	}
	f, err := parseAny(sig)
	switch {
	case errors.Is(err, errID):
		return nil, v.refuse(SignatureID, AttestationID, "%v", err).because(err)
	case err != nil:
		return nil, v.refuse(SignatureMalformed, AttestationMalformed, "%v", err).because(err)
	case v.policy.PredicateType == "" && f.isStatement():
		return nil, v.refuse(SignatureIsStatement, SignatureIsStatement, "it holds a statement")
	case v.policy.PredicateType != "" && !f.isStatement():
		return nil, v.refuse(AttestationMissing, AttestationMissing, "it holds a signature and states nothing")
	case f.isStatement() && f.pb.GetDsseEnvelope().GetPayloadType() != payloadType:
		return nil, v.refuse(AttestationMalformed, AttestationMalformed, "it does not hold an in-toto statement")
	}
	return f, nil
}

// fits compares what f claims and brings with the policy: who signed, and that
// nothing is missing and nothing there that would not be verified.
func (v *BlobVerifier) fits(f *file) error {
	logged, rooted := !v.policy.NoLog, len(v.policy.TrustedRoot) > 0
	known := f.leaf == nil && v.identity == nil && f.id == v.material.key.id ||
		f.leaf != nil && v.identity != nil && v.identity.matches(f)
	if !known {
		return v.refuse(SignerUnknown, SignerUnknown, "signed by %s", f.who())
	}
	switch {
	case !logged && len(f.entries()) > 0:
		return v.refuse(SignatureExtra, AttestationExtra, "it brings a log entry that the policy does not verify")
	case len(f.entries()) > 1:
		return v.refuse(SignatureExtra, AttestationExtra, "it brings %d log entries, the policy verifies one", len(f.entries()))
	case !rooted && len(f.timestamps()) > 0:
		return v.refuse(SignatureExtra, AttestationExtra, "it brings a timestamp that the policy does not verify")
	case logged && len(f.entries()) == 0:
		return v.refuse(TLogMissing, TLogMissing, "it brings no log entry")
	case rooted && f.timeless():
		return v.refuse(TimestampMissing, TimestampMissing, "it brings no trusted time")
	case v.demandsSCT() && !f.hasSCT():
		return v.refuse(SCTMissing, SCTMissing, "its certificate brings no certificate timestamp")
	}
	return nil
}

// digests are those of one blob.
type digests struct {
	sha256 string
	signed []byte // by the hash that the signer's key has
	bytes  int64
}

// digests reads the blob, once and in little memory.
func (v *BlobVerifier) digests(f *file, blob Blob) (digests, error) {
	h := v.material.hash()
	if blob.Content == nil {
		raw, err := hex.DecodeString(blob.SHA256)
		if err != nil || len(raw) != sha256.Size || hex.EncodeToString(raw) != blob.SHA256 {
			return digests{}, &PolicyError{Text: "the digest is not a SHA-256 in lower-case hex"}
		}
		if h != crypto.SHA256 && !f.isStatement() {
			return digests{}, &PolicyError{"signatures of a key on P-384 are over a SHA-384", "give the file instead of its SHA-256"}
		}
		return digests{sha256: blob.SHA256, signed: raw}, nil
	}
	sum := sha256.New()
	signed := hash.Hash(sum)
	w := io.Writer(sum)
	if h != crypto.SHA256 {
		signed = h.New()
		w = io.MultiWriter(sum, signed)
	}
	n, err := io.Copy(w, blob.Content)
	if err != nil {
		return digests{}, err
	}
	return digests{sha256: hex.EncodeToString(sum.Sum(nil)), signed: signed.Sum(nil), bytes: n}, nil
}

// signed lets the library verify f, and holds its result to the rule that
// everything that f brings was verified.
func (v *BlobVerifier) signed(f *file, d digests, now time.Time) (*sigverify.VerificationResult, error) {
	what := sigverify.WithoutArtifactUnsafe() // states compares the subject
	if !f.isStatement() {
		if !f.overDigest(d.signed, v.material.hash()) {
			return nil, v.refuse(SignatureInvalid, SignatureInvalid, "it is over other bytes than this file, whose SHA-256 is %s", d.sha256)
		}
		what = sigverify.WithArtifactDigest("sha256", d.signed)
	}
	result, err := f.library(v.material, what, v.options())
	if err != nil {
		return nil, v.refuse(SignatureInvalid, AttestationInvalid, "%v", err).because(err)
	}
	stamped := 0
	for _, ts := range result.VerifiedTimestamps {
		if ts.Type != typeLogTime {
			stamped++
		}
		if ts.Timestamp.After(now.Add(clockSlack)) {
			return nil, v.refuse(TrustedTimeAhead, TrustedTimeAhead, "it was signed at %s, the time of the judgement is %s", utc(ts.Timestamp), utc(now))
		}
	}
	if stamped != len(f.timestamps()) {
		return nil, v.refuse(SignatureExtra, AttestationExtra, "%d of its %d timestamps are by an authority that the trusted root names", stamped, len(f.timestamps()))
	}
	return result, nil
}

// states reads the verified statement of f, which must be of the demanded type
// and about the blob.
func (v *BlobVerifier) states(f *file, digest string) (*statement, error) {
	s, err := parseStatement(f.pb.GetDsseEnvelope().GetPayload())
	switch {
	case err != nil:
		return nil, v.refuse(AttestationMalformed, AttestationMalformed, "%v", err).because(err)
	case s.PredicateType != v.policy.PredicateType:
		return nil, v.refuse(PredicateMismatch, PredicateMismatch, "its predicate type is %s", s.PredicateType)
	case !s.about(digest):
		return nil, v.refuse(AttestationSubject, AttestationSubject, "no subject of it has the SHA-256 %s", digest)
	}
	return s, nil
}

// checks names what the policy had verified.
func (v *BlobVerifier) checks() []string {
	out := []string{"signature"}
	if v.identity != nil {
		out = append(out, "certificate", "identity")
	}
	if v.demandsSCT() {
		out = append(out, "sct")
	}
	if !v.policy.NoLog {
		out = append(out, "log")
	}
	if len(v.policy.TrustedRoot) > 0 {
		out = append(out, "time")
	}
	if v.policy.PredicateType != "" {
		out = append(out, "predicate", "subject")
	}
	return out
}

// refuse makes a refusal, for the reason of signatures or of attestations.
func (v *BlobVerifier) refuse(signature, attestation Reason, format string, args ...any) *RejectError {
	reason := signature
	if v.policy.PredicateType != "" {
		reason = attestation
	}
	e := reject(reason, "", format, args...)
	if hint := blobHint(reason); hint != "" {
		e.Hint = hint
	}
	return e
}

// blobHint is what to do about a refusal, where a policy for one file differs
// from that of a site.
func blobHint(r Reason) string {
	switch r {
	case bundle.SignatureTooLarge:
		return "--bundle names the Sigstore bundle, not the file that was signed; one with an attestation may be larger, and needs --predicate-type"
	case bundle.AttestationTooLarge:
		return "--bundle names the Sigstore bundle, not the file that was signed"
	case SignatureID, AttestationID:
		return "ask the signer to sign it again: only keys on P-256 or P-384 are taken, by the SHA-256 of the key"
	case SignerUnknown:
		return "learn from the signer by another way who signs, and demand that with --key, or --certificate-identity and --certificate-oidc-issuer"
	case SignatureMalformed, AttestationMalformed:
		return "only Sigstore bundles v0.3 by ECDSA keys are taken: cosign v3 writes them, cosign v2 with --new-bundle-format"
	case SignatureIsStatement:
		return "demand what it states with --predicate-type"
	case AttestationMissing:
		return "without --predicate-type it is judged as the signature that it is"
	case SignatureExtra, AttestationExtra:
		return "give a --trusted-root that verifies it, and leave out --no-log where there is a log entry"
	case TLogMissing:
		return "have it signed with a log entry, or say --no-log if none is needed"
	case TimestampMissing:
		return "have it signed with a timestamp by an authority that --trusted-root names; a key needs none without --trusted-root, with --no-log"
	case SCTMissing:
		return "say --no-sct if the authority keeps no certificate log"
	case SignatureInvalid, AttestationInvalid:
		return "the file or its signature was changed, or is another's: get both again"
	case AttestationSubject:
		return "it states something about another file: get the statement about this one"
	}
	return ""
}
