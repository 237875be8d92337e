package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/jcs"
)

// SignManifest signs the exact bytes of a file: a manifest, a trust file, or
// the SHA256SUMS of an archive. The result is for signatures/ or
// FILE.signatures/, and cosign verifies it. The same key and bytes give the same
// result (RFC 6979). No network, no clock.
func SignManifest(raw []byte, key *ecdsa.PrivateKey) (bundle.Attached, error) {
	digest := sha256.Sum256(raw)
	sig, err := sign(raw, key)
	if err != nil {
		return bundle.Attached{}, err
	}
	pb := newBundle(key)
	pb.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
		MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest[:]},
		Signature:     sig,
	}}
	data, err := encode(pb)
	return bundle.Attached{ID: KeyID(&key.PublicKey), Data: data}, err
}

// SignStatement signs an in-toto statement, such as [Statement] makes. The
// result is for attestations/.
func SignStatement(payload []byte, key *ecdsa.PrivateKey) (bundle.Attached, error) {
	if _, err := parseStatement(payload); err != nil {
		return bundle.Attached{}, fmt.Errorf("verify: sign statement: %w", err)
	}
	sig, err := sign(preAuth(payload), key)
	if err != nil {
		return bundle.Attached{}, err
	}
	pb := newBundle(key)
	pb.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
		Payload: payload, PayloadType: payloadType, Signatures: []*protodsse.Signature{{Sig: sig}},
	}}
	data, err := encode(pb)
	return bundle.Attached{ID: bundle.Digest(data), Data: data}, err
}

// Statement is the in-toto statement that predicate, a JSON value, holds for
// the manifest with the digest.
func Statement(digest, predicateType string, predicate []byte) ([]byte, error) {
	return jcs.Marshal(map[string]any{
		"_type": statementV1, "predicateType": predicateType, "predicate": json.RawMessage(predicate),
		"subject": []subject{{Name: bundle.ManifestName, Digest: map[string]string{"sha256": digest}}},
	})
}

func newBundle(key *ecdsa.PrivateKey) *protobundle.Bundle {
	return &protobundle.Bundle{
		MediaType: mediaType,
		VerificationMaterial: &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{
			PublicKey: &protocommon.PublicKeyIdentifier{Hint: hint(&key.PublicKey)},
		}},
	}
}

// sign makes an ECDSA signature over the SHA-256 of message. Without a source
// of randomness the standard library takes the nonce of RFC 6979.
func sign(message []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	digest := sha256.Sum256(message)
	sig, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("verify: sign: %w", err)
	}
	return sig, nil
}

// preAuth is what DSSE signs: its pre-authentication encoding.
func preAuth(payload []byte) []byte {
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload)), payload...)
}
