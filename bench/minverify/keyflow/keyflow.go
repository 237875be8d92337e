// Package keyflow is sigstore-go's verification of a message signature by a
// known key, with nothing around it: the peer of the benchmarks.
package keyflow

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Verifier verifies signatures of one key.
type Verifier struct{ v *verify.Verifier }

// New makes a verifier for a public key in PEM.
func New(keyPEM []byte) (*Verifier, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("the key is not PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	sv, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(block.Bytes)
	hint := base64.StdEncoding.EncodeToString(sum[:])
	tm := root.NewTrustedPublicKeyMaterialFromMapping(map[string]*root.ExpiringKey{hint: root.NewExpiringKey(sv, time.Time{}, time.Time{})})
	v, err := verify.NewVerifier(tm, verify.WithNoObserverTimestamps())
	return &Verifier{v}, err
}

// Verify verifies a Sigstore bundle over file.
func (k *Verifier) Verify(sig, file []byte) error {
	var b bundle.Bundle
	if err := b.UnmarshalJSON(sig); err != nil {
		return err
	}
	_, err := k.v.Verify(&b, verify.NewPolicy(verify.WithArtifact(bytes.NewReader(file)), verify.WithKey()))
	return err
}
