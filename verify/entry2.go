package verify

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/stellarun/stella/internal/jcs"
)

// errEntryBody says that an entry shows other bytes than the log holds.
var errEntryBody = errors.New("the body of its log entry is not that of this signature")

// bodies compares the body of each entry in the manner of Rekor v2 with what the
// log must hold for f. The library makes that anew, and does not look at the
// body that the file brings, which anybody could therefore change.
func (f *file) bodies(m *material) error {
	for _, e := range f.entries() {
		if e.GetKindVersion().GetVersion() != "0.0.2" || e.GetKindVersion().GetKind() != "hashedrekord" {
			continue
		}
		want, err := f.body2(m)
		if err != nil {
			return err
		}
		if !bytes.Equal(want, e.GetCanonicalizedBody()) {
			return errEntryBody
		}
	}
	return nil
}

// body2 is the body of a hashedrekord 0.0.2 about f.
func (f *file) body2(m *material) ([]byte, error) {
	algorithm, details, h := "SHA2_256", "PKIX_ECDSA_P256_SHA_256", m.hash()
	if h == crypto.SHA384 {
		algorithm, details = "SHA2_384", "PKIX_ECDSA_P384_SHA_384"
	}
	verifier := map[string]any{"keyDetails": details}
	switch {
	case f.leaf != nil:
		verifier["x509Certificate"] = map[string]any{"rawBytes": f.leaf.Raw}
	case m.key != nil:
		der, err := x509.MarshalPKIXPublicKey(m.key.pub)
		if err != nil {
			return nil, fmt.Errorf("verify: %w", err)
		}
		verifier["publicKey"] = map[string]any{"rawBytes": der}
	}
	digest := f.pb.GetMessageSignature().GetMessageDigest().GetDigest()
	if f.isStatement() {
		sum := h.New()
		sum.Write(preAuth(f.pb.GetDsseEnvelope().GetPayload()))
		digest = sum.Sum(nil)
	}
	return jcs.Marshal(map[string]any{"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": map[string]any{
		"hashedRekordV002": map[string]any{
			"data":      map[string]any{"algorithm": algorithm, "digest": digest},
			"signature": map[string]any{"content": f.sig, "verifier": verifier},
		},
	}})
}
