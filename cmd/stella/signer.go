package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/verify"
)

// A sigFile is what a Sigstore file claims. Nothing of it is verified here.
type sigFile struct {
	ID          string `json:"id"`               // SHA-256 of the key's SPKI
	Flow        string `json:"flow"`             // key | certificate
	Issuer      string `json:"issuer,omitempty"` // of a certificate: who vouched for the identity
	SAN         string `json:"san,omitempty"`    // of a certificate: the identity
	Digest      string `json:"digest,omitempty"` // that the signature is over, hex; "" in a statement
	Log         int    `json:"log"`              // entries of transparency logs
	Timestamps  int    `json:"timestamps"`
	isStatement bool
}

// sigstoreJSON is the part of a Sigstore bundle that tells who made it.
type sigstoreJSON struct {
	VerificationMaterial struct {
		PublicKey *struct {
			Hint string `json:"hint"`
		} `json:"publicKey"`
		Certificate *struct {
			RawBytes []byte `json:"rawBytes"`
		} `json:"certificate"`
		TlogEntries               []json.RawMessage `json:"tlogEntries"`
		TimestampVerificationData struct {
			RFC3161 []json.RawMessage `json:"rfc3161Timestamps"`
		} `json:"timestampVerificationData"`
	} `json:"verificationMaterial"`
	MessageSignature *struct {
		MessageDigest struct {
			Digest []byte `json:"digest"`
		} `json:"messageDigest"`
	} `json:"messageSignature"`
	DSSEEnvelope json.RawMessage `json:"dsseEnvelope"`
}

// readSigFile reads a file in canonical form, as [verify.Canonical] makes it.
func readSigFile(canonical []byte) (sigFile, error) {
	var j sigstoreJSON
	if err := json.Unmarshal(canonical, &j); err != nil {
		return sigFile{}, fmt.Errorf("Sigstore file: %w", err)
	}
	m := j.VerificationMaterial
	f := sigFile{Log: len(m.TlogEntries), Timestamps: len(m.TimestampVerificationData.RFC3161), isStatement: j.MessageSignature == nil}
	if j.MessageSignature != nil {
		f.Digest = hex.EncodeToString(j.MessageSignature.MessageDigest.Digest)
	}
	switch {
	case m.PublicKey != nil:
		id, err := base64.StdEncoding.DecodeString(m.PublicKey.Hint)
		if err != nil {
			return f, fmt.Errorf("Sigstore file: the key's hint: %w", err)
		}
		f.Flow, f.ID = "key", hex.EncodeToString(id)
	case m.Certificate != nil:
		return f, f.certificate(m.Certificate.RawBytes)
	}
	return f, nil
}

func (f *sigFile) certificate(der []byte) error {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("Sigstore file: certificate: %w", err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	f.Flow, f.ID = "certificate", hex.EncodeToString(sum[:])
	switch {
	case len(leaf.URIs) > 0:
		f.SAN = leaf.URIs[0].String()
	case len(leaf.EmailAddresses) > 0:
		f.SAN = leaf.EmailAddresses[0]
	case len(leaf.DNSNames) > 0:
		f.SAN = leaf.DNSNames[0]
	}
	// Fulcio's issuer extensions: 1.8 holds a DER string, 1.1 the bare bytes.
	fulcio := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1}
	for _, e := range leaf.Extensions {
		switch {
		case e.Id.Equal(append(fulcio, 8)):
			if _, err := asn1.Unmarshal(e.Value, &f.Issuer); err != nil {
				return fmt.Errorf("Sigstore file: issuer: %w", err)
			}
		case e.Id.Equal(append(fulcio, 1)) && f.Issuer == "":
			f.Issuer = string(e.Value)
		}
	}
	return nil
}

// attachment makes a file for a bundle out of one that another tool wrote. It
// must be about this manifest.
func attachment(raw, manifest []byte) (a bundle.Attached, statement bool, err error) {
	canonical, err := verify.Canonical(raw)
	if err != nil {
		return a, false, err
	}
	f, err := readSigFile(canonical)
	if err != nil {
		return a, false, err
	}
	if f.isStatement {
		return bundle.Attached{ID: bundle.Digest(canonical), Data: canonical}, true, nil
	}
	if want := bundle.Digest(manifest); len(f.Digest) == len(want) && f.Digest != want {
		return a, false, fmt.Errorf("it is a signature over sha256:%s, and the manifest has sha256:%s", f.Digest, want)
	}
	return bundle.Attached{ID: f.ID, Data: canonical}, false, nil
}
