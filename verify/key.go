package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 of P-384 keys
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Key files are one PEM block each: PKCS#8 for a private key, SPKI for a public
// one. Our keys are ECDSA P-256; trust files may name P-384 as well.
const (
	privateBlock = "PRIVATE KEY"
	publicBlock  = "PUBLIC KEY"
)

// What a key file holds instead. The texts quote nothing of the file, which may
// be a private key, and say "it": callers know its name.
var (
	errOneBlock   = errors.New("it has more in it than one key in PEM")
	errPrivateKey = errors.New("it holds no ECDSA key on P-256")
	errPublicKey  = errors.New("it holds no ECDSA key on P-256 or P-384")
)

// GenerateKey makes a new signing key.
func GenerateKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("verify: generate key: %w", err)
	}
	return key, nil
}

// KeyID is the lower-case hex SHA-256 of the key's SPKI DER, by which policies,
// revocations and file names know it.
func KeyID(pub *ecdsa.PublicKey) string { return hex.EncodeToString(spkiHash(pub)) }

// spkiHash panics for a key that is not on its curve; parsers refuse those.
func spkiHash(pub *ecdsa.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		panic("verify: " + err.Error())
	}
	sum := sha256.Sum256(der)
	return sum[:]
}

// MarshalPrivateKey is the file of key; [ParsePrivateKey] reads it.
func MarshalPrivateKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("verify: marshal key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), nil
}

// MarshalPublicKey is the file of pub; [ParsePublicKey] and cosign read it.
func MarshalPublicKey(pub *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("verify: marshal key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der}), nil
}

// ParsePrivateKey reads the file of a private key.
func ParsePrivateKey(raw []byte) (*ecdsa.PrivateKey, error) {
	der, err := onlyBlock(raw, privateBlock)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errPrivateKey // the library's text may quote the key
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errPrivateKey
	}
	return key, nil
}

// ParsePublicKey reads the file of a public key, on P-256 or P-384.
func ParsePublicKey(raw []byte) (*ecdsa.PublicKey, error) {
	der, err := onlyBlock(raw, publicBlock)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errPublicKey, err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || hashOf(key) == 0 {
		return nil, errPublicKey
	}
	return key, nil
}

// hashOf is the hash that signatures of a key are over; 0 for a curve that is
// not accepted.
func hashOf(pub *ecdsa.PublicKey) crypto.Hash {
	switch pub.Curve {
	case elliptic.P256():
		return crypto.SHA256
	case elliptic.P384():
		return crypto.SHA384
	}
	return 0
}

// onlyBlock takes the one PEM block of the wanted type out of raw.
func onlyBlock(raw []byte, want string) ([]byte, error) {
	block, rest := pem.Decode(raw)
	switch {
	case block == nil:
		return nil, fmt.Errorf("it is not a %s in PEM", strings.ToLower(want))
	case block.Type != want:
		return nil, otherBlock(block.Type, want)
	case len(block.Headers) > 0, len(bytes.TrimSpace(rest)) > 0, !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN ")):
		return nil, errOneBlock
	}
	return block.Bytes, nil
}

// otherBlock says what a PEM block is that is not the wanted one.
func otherBlock(got, want string) error {
	private := strings.HasSuffix(got, privateBlock)
	switch {
	case private && want == publicBlock:
		return errors.New("it is a private key, and a public key is wanted")
	case private && strings.HasPrefix(got, "ENCRYPTED "):
		return errors.New("it is an encrypted private key, and one without a password is wanted")
	case private:
		return errors.New("it is a private key in another form than PKCS#8")
	case got == publicBlock:
		return errors.New("it is a public key, and a private key is wanted")
	}
	return fmt.Errorf("it is not a %s in PEM", strings.ToLower(want))
}
