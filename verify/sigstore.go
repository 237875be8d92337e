package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/stellarun/stella/internal/jcs"
)

const (
	mediaType   = "application/vnd.dev.sigstore.bundle.v0.3+json"
	payloadType = "application/vnd.in-toto+json"
)

// oidSCTList is the extension that embeds certificate timestamps (RFC 6962).
var oidSCTList = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}

// errMalformed says that a file is not a Sigstore bundle of the accepted form.
var errMalformed = errors.New("not a Sigstore bundle of the accepted form")

// errNotCanonical says that a Sigstore bundle is well-formed, but is written in
// another than the one form.
var errNotCanonical = errors.New("not in canonical form")

// Canonical reads a Sigstore bundle, as cosign writes it, and returns the one
// form of it that a stella bundle may hold: RFC 8785 JSON with padded standard
// base64. What witnesses signed of a log's checkpoints is left out, since nothing
// verifies it. It checks the shape and verifies nothing.
func Canonical(raw []byte) ([]byte, error) {
	f, err := parseAny(raw)
	if err != nil {
		return nil, err
	}
	return encode(f.pb)
}

// parseAny reads a file in any form that means a Sigstore bundle of the accepted
// shape. Its sum is not set: it may not be the file's that is kept.
func parseAny(raw []byte) (*file, error) {
	pb, err := unmarshal(raw)
	if err != nil {
		return nil, err
	}
	for _, e := range pb.GetVerificationMaterial().GetTlogEntries() {
		if c := e.GetInclusionProof().GetCheckpoint(); c != nil {
			c.Envelope = withoutWitnesses(c.Envelope)
		}
	}
	return shape(pb)
}

// withoutWitnesses is the note with the signatures of its origin alone.
func withoutWitnesses(note string) string {
	text, sigs, _ := strings.Cut(note, "\n\n")
	out := text + "\n\n"
	for line := range strings.Lines(sigs) {
		if strings.HasPrefix(line, "— "+originName(text)+" ") {
			out += line
		}
	}
	return out
}

// originName is the name by which a log signs notes with that text.
func originName(text string) string {
	origin, _, _ := strings.Cut(text, "\n")
	name, _, _ := strings.Cut(origin, " - ") // Rekor v1 appends its tree id
	return name
}

// maxValues bounds the values in a Sigstore bundle. One with a log entry has
// about a hundred; each that is not there costs a parser 60 times its length.
const maxValues = 4096

// errTooMany refuses what would cost too much.
var errTooMany = fmt.Errorf("%w: more than %d values", errMalformed, maxValues)

// unmarshal parses the JSON of a Sigstore bundle, whatever its form.
func unmarshal(raw []byte) (*protobundle.Bundle, error) {
	n := 0
	for _, c := range raw {
		if c == ',' || c == '{' || c == '[' {
			n++
		}
	}
	if n > maxValues {
		return nil, errTooMany
	}
	pb := new(protobundle.Bundle)
	if err := protojson.Unmarshal(raw, pb); err != nil {
		return nil, fmt.Errorf("%w: %v", errMalformed, err)
	}
	return pb, nil
}

func encode(pb *protobundle.Bundle) ([]byte, error) {
	raw, err := protojson.Marshal(pb) // adds white space at random
	if err == nil {
		raw, err = jcs.Canonicalize(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("verify: encode Sigstore bundle: %w", err)
	}
	return raw, nil
}

// file is a parsed Sigstore bundle: what it claims, before anything is verified.
type file struct {
	pb     *protobundle.Bundle
	sum    string            // SHA-256 of its bytes
	id     string            // hex SHA-256 of the SPKI that it claims
	leaf   *x509.Certificate // nil for a key
	issuer string            // of the leaf: the OIDC issuer
	san    string            // of the leaf
	sig    []byte
}

// parse reads a file that must be in canonical form.
func parse(raw []byte) (*file, error) {
	pb, err := unmarshal(raw)
	if err != nil {
		return nil, err
	}
	again, err := encode(pb)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(raw, again) {
		if _, err := shape(pb); err != nil {
			return nil, err
		}
		return nil, errNotCanonical
	}
	f, err := shape(pb)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	f.sum = hex.EncodeToString(sum[:])
	return f, nil
}

// isStatement says whether f holds a DSSE envelope.
func (f *file) isStatement() bool { return f.pb.GetDsseEnvelope() != nil }

func (f *file) entries() []*protorekor.TransparencyLogEntry {
	return f.pb.GetVerificationMaterial().GetTlogEntries()
}

func (f *file) timestamps() []*protocommon.RFC3161SignedTimestamp {
	return f.pb.GetVerificationMaterial().GetTimestampVerificationData().GetRfc3161Timestamps()
}

// timeless says whether f brings no trusted time. A log promises a time in the
// manner of Rekor v1 only; entries of v2 have none.
func (f *file) timeless() bool {
	return len(f.timestamps()) == 0 && !slices.ContainsFunc(f.entries(), func(e *protorekor.TransparencyLogEntry) bool {
		return e.GetInclusionPromise() != nil
	})
}

// hasSCT says whether the leaf embeds a list of certificate timestamps.
func (f *file) hasSCT() bool {
	return slices.ContainsFunc(f.leaf.Extensions, func(x pkix.Extension) bool { return x.Id.Equal(oidSCTList) })
}

// shape checks what every accepted file has in common.
func shape(pb *protobundle.Bundle) (*file, error) {
	f := &file{pb: pb}
	if pb.GetMediaType() != mediaType {
		return nil, fmt.Errorf("%w: its mediaType is not %s", errMalformed, mediaType)
	}
	var err error
	switch m := pb.GetVerificationMaterial().GetContent().(type) {
	case *protobundle.VerificationMaterial_PublicKey:
		err = f.hint(m.PublicKey.GetHint())
	case *protobundle.VerificationMaterial_Certificate:
		err = f.certificate(m.Certificate.GetRawBytes())
	default:
		err = fmt.Errorf("%w: it names neither a key nor a certificate", errMalformed)
	}
	if err != nil {
		return nil, err
	}
	switch c := pb.GetContent().(type) {
	case *protobundle.Bundle_MessageSignature:
		f.sig = c.MessageSignature.GetSignature()
		if _, ok := digestHash(c.MessageSignature.GetMessageDigest()); !ok {
			return nil, fmt.Errorf("%w: its message digest is neither a SHA-256 nor a SHA-384", errMalformed)
		}
	case *protobundle.Bundle_DsseEnvelope:
		sigs := c.DsseEnvelope.GetSignatures()
		if len(sigs) != 1 || sigs[0].GetKeyid() != "" {
			return nil, fmt.Errorf("%w: its envelope must have one signature without a keyid", errMalformed)
		}
		f.sig = sigs[0].GetSig()
	default:
		return nil, fmt.Errorf("%w: it holds neither a signature nor a statement", errMalformed)
	}
	if !isDER(f.sig) {
		return nil, fmt.Errorf("%w: its signature is not an ECDSA signature in DER", errMalformed)
	}
	for _, e := range f.entries() {
		if err := logShape(e); err != nil {
			return nil, err
		}
	}
	for _, ts := range f.timestamps() {
		if err := stampShape(ts.GetSignedTimestamp()); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// digestHash is the hash of a message digest.
func digestHash(d *protocommon.HashOutput) (crypto.Hash, bool) {
	var h crypto.Hash
	switch d.GetAlgorithm() {
	case protocommon.HashAlgorithm_SHA2_256:
		h = crypto.SHA256
	case protocommon.HashAlgorithm_SHA2_384:
		h = crypto.SHA384
	default:
		return 0, false
	}
	return h, len(d.GetDigest()) == h.Size()
}

// over says whether f is a signature over the h of raw: which hash it is
// depends on the key alone, so that a signature has one form.
func (f *file) over(raw []byte, h crypto.Hash) bool {
	sum := h.New()
	sum.Write(raw)
	return f.overDigest(sum.Sum(nil), h)
}

// overDigest is over for bytes of which only the h is at hand.
func (f *file) overDigest(digest []byte, h crypto.Hash) bool {
	d := f.pb.GetMessageSignature().GetMessageDigest()
	got, ok := digestHash(d)
	return ok && got == h && bytes.Equal(digest, d.GetDigest())
}

// errID says that a file does not name its key in the accepted way.
var errID = errors.New("the key's hint is not the padded standard base64 of a SHA-256")

func (f *file) hint(hint string) error {
	raw, err := base64.StdEncoding.Strict().DecodeString(hint)
	if err != nil || len(raw) != sha256.Size || base64.StdEncoding.EncodeToString(raw) != hint {
		return errID
	}
	f.id = hex.EncodeToString(raw)
	return nil
}

func (f *file) certificate(der []byte) error {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("%w: %v", errMalformed, err)
	}
	pub, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return fmt.Errorf("%w: its certificate is not for a P-256 key", errMalformed)
	}
	summary, err := certificate.SummarizeCertificate(leaf)
	if err != nil {
		return fmt.Errorf("%w: %v", errMalformed, err)
	}
	f.leaf, f.id = leaf, KeyID(pub)
	f.issuer, f.san = summary.Issuer, summary.SubjectAlternativeName
	return nil
}

// isDER says whether sig is the one DER encoding of two positive integers. The
// library would also take the two integers side by side.
func isDER(sig []byte) bool {
	var v struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(sig, &v)
	if err != nil || len(rest) > 0 || v.R.Sign() <= 0 || v.S.Sign() <= 0 {
		return false
	}
	again, err := asn1.Marshal(v)
	return err == nil && bytes.Equal(sig, again)
}

// logShape refuses what the library does not look at in a log entry, so that an
// entry has one form: a kind that is not its body's, a time or index that
// nothing signs, signatures that nobody checks.
func logShape(e *protorekor.TransparencyLogEntry) error {
	var body struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	if err := json.Unmarshal(e.GetCanonicalizedBody(), &body); err != nil ||
		body.Kind != e.GetKindVersion().GetKind() || body.APIVersion != e.GetKindVersion().GetVersion() {
		return fmt.Errorf("%w: a log entry's kind is not that of its body", errMalformed)
	}
	if e.GetInclusionPromise() == nil && (e.GetIntegratedTime() != 0 || e.GetLogIndex() != e.GetInclusionProof().GetLogIndex()) {
		return fmt.Errorf("%w: a log entry's time or index is not signed", errMalformed)
	}
	proof := e.GetInclusionProof()
	note := proof.GetCheckpoint().GetEnvelope()
	if !isCheckpoint(note) {
		return fmt.Errorf("%w: a log entry's checkpoint is not a note with one signature by its origin", errMalformed)
	}
	// Of Rekor v1 the library compares these.
	if e.GetInclusionPromise() == nil && !isHead(note, proof.GetTreeSize(), proof.GetRootHash()) {
		return fmt.Errorf("%w: a log entry's proof is for another tree than its checkpoint", errMalformed)
	}
	return nil
}

// isHead says whether note is about the tree of that size and root.
func isHead(note string, size int64, root []byte) bool {
	lines := strings.SplitN(note, "\n", 4)
	return len(lines) == 4 && lines[1] == strconv.FormatInt(size, 10) && lines[2] == base64.StdEncoding.EncodeToString(root)
}

// isCheckpoint says whether note is a signed note with exactly one signature,
// whose name is that of the origin and whose base64 has its one form.
func isCheckpoint(note string) bool {
	text, sigs, ok := strings.Cut(note, "\n\n")
	if !ok {
		return false
	}
	encoded, ok := strings.CutPrefix(sigs, "— "+originName(text)+" ")
	encoded, ended := strings.CutSuffix(encoded, "\n")
	if !ok || !ended {
		return false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	return err == nil && base64.StdEncoding.EncodeToString(raw) == encoded
}
