package export

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
)

// ErrKey is the error of a public key that cannot be used: not one PEM block
// with an SPKI, or not Ed25519 for the log and ECDSA P-256 for the site.
var ErrKey = errors.New("export: not a usable public key")

// ErrNote is the error of a note of the auditor's that is none, or is of another site than the
// archive.
var ErrNote = errors.New("export: not a note that goes with the archive")

// ErrWitnesses says that more witnesses are demanded than could be there.
var ErrWitnesses = errors.New("export: too few witnesses are named")

// publicKey is a key of a site in the forms that are compared.
type publicKey struct {
	pem []byte // the one form of its file
	der []byte // SPKI
	log ed25519.PublicKey
	sig *ecdsa.PublicKey
}

func parseLogKey(file []byte) (publicKey, error) {
	k, err := parseSPKI(file)
	if err == nil && k.log == nil {
		err = fmt.Errorf("%w: the log's key is not Ed25519", ErrKey)
	}
	return k, err
}

func parseSiteKey(file []byte) (publicKey, error) {
	k, err := parseSPKI(file)
	if err == nil && k.sig == nil {
		err = fmt.Errorf("%w: the site's key is not ECDSA P-256", ErrKey)
	}
	return k, err
}

func parseSPKI(file []byte) (k publicKey, err error) {
	block, rest := pem.Decode(file)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return k, fmt.Errorf("%w: not one PUBLIC KEY block", ErrKey)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return k, fmt.Errorf("%w: %v", ErrKey, err)
	}
	switch pub := parsed.(type) {
	case ed25519.PublicKey:
		k.log = pub
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P256() {
			k.sig = pub
		}
	}
	if k.der, err = x509.MarshalPKIXPublicKey(parsed); err != nil {
		return k, fmt.Errorf("%w: %v", ErrKey, err)
	}
	k.pem = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.der})
	return k, nil
}

// sigstoreFile is the one form of SHA256SUMS.sigstore.json: a Sigstore bundle
// that holds a message signature by a key, and nothing else.
type sigstoreFile struct {
	MediaType string       `json:"mediaType"`
	Message   sigstoreSig  `json:"messageSignature"`
	Material  sigstoreHint `json:"verificationMaterial"`
}

type sigstoreSig struct {
	Digest struct {
		Algorithm string `json:"algorithm"`
		Digest    []byte `json:"digest"`
	} `json:"messageDigest"`
	Signature []byte `json:"signature"`
}

type sigstoreHint struct {
	Key struct {
		Hint string `json:"hint"`
	} `json:"publicKey"`
}

// ErrOtherKey is of a signature that says to be of another key than the one given.
var ErrOtherKey = errors.New("it was made by another key than the one given")

// CheckSums returns nil if signature is the Sigstore file of a list of digests, as archives
// have it, by the key of a site in PEM.
func CheckSums(sums, signature, siteKey []byte) error {
	key, err := parseSiteKey(siteKey)
	if err != nil {
		return err
	}
	return checkSignature(sums, signature, key)
}

// checkSignature returns nil if file is the signature of sums by the key. Only
// the signature is taken from the file: all the rest of it follows from sums
// and key, and is compared.
func checkSignature(sums, file []byte, key publicKey) error {
	var in sigstoreFile
	if err := json.Unmarshal(file, &in); err != nil {
		return errors.New("it is not a Sigstore bundle of the accepted form")
	}
	digest, id := sha256.Sum256(sums), sha256.Sum256(key.der)
	var want sigstoreFile
	want.MediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	want.Message.Digest.Algorithm = "SHA2_256"
	want.Message.Digest.Digest = digest[:]
	want.Message.Signature = in.Message.Signature
	want.Material.Key.Hint = base64.StdEncoding.EncodeToString(id[:])
	again, err := jcs.Marshal(want)
	switch {
	case err != nil:
		return err
	case in.Material.Key.Hint != want.Material.Key.Hint:
		return ErrOtherKey
	case !bytes.Equal(in.Message.Digest.Digest, digest[:]):
		return errors.New("it is over another SHA256SUMS")
	case !bytes.Equal(again, file):
		return errors.New("it is not a Sigstore bundle of the accepted form")
	case !ecdsa.VerifyASN1(key.sig, digest[:], in.Message.Signature):
		return errors.New("the signature does not verify")
	}
	return nil
}

// keys reads what the auditor knows from elsewhere, which must be what it is called.
func (v *verifier) keys() (err error) {
	if v.opt.MinWitnesses > len(v.opt.Witnesses) {
		return fmt.Errorf("%w: %d are demanded, and %d are named", ErrWitnesses, v.opt.MinWitnesses, len(v.opt.Witnesses))
	}
	for _, n := range []struct {
		what string
		raw  []byte
	}{{earlierNote, v.opt.Previous}, {cosignedNote, v.opt.Cosigned}} {
		if n.raw == nil {
			continue
		}
		if _, err := ledger.ParseCheckpoint(n.raw); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrNote, n.what, err)
		}
	}
	if v.opt.LogKey != nil {
		if v.logKey, err = parseLogKey(v.opt.LogKey); err != nil {
			return err
		}
	}
	if v.opt.SiteKey != nil {
		if v.siteKey, err = parseSiteKey(v.opt.SiteKey); err != nil {
			return err
		}
	}
	for _, w := range v.opt.Witnesses {
		if w.Key.Equal(v.logKey.log) {
			return fmt.Errorf("%w: witness %s is the log itself", ErrKey, w.Name)
		}
	}
	return nil
}
