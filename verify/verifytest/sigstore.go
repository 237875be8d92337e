package verifytest

import (
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
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/jcs"
)

// A small Sigstore of our own: an authority for certificates and a log in the
// manner of Rekor v1, whose signatures have the nonces of RFC 6979. What it
// makes verifies with the real libraries.
const (
	authorityKey = "authority"
	logKey       = "log"
	logHost      = "rekor.test"
	logIndex     = 41
)

// Issuer is the OIDC issuer in all certificates.
const Issuer = "https://issuer.test"

type object = map[string]any

func encode(v any) []byte {
	raw, err := jcs.Marshal(v)
	must(err)
	return raw
}

func b64(raw []byte) string { return base64.StdEncoding.EncodeToString(raw) }

// deterministic signs without randomness, whatever its caller brings.
type deterministic struct{ *ecdsa.PrivateKey }

func (d deterministic) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return d.PrivateKey.Sign(nil, digest, opts)
}

func sign(key string, message []byte) []byte {
	digest := sha256.Sum256(message)
	sig, err := Key(key).Sign(nil, digest[:], crypto.SHA256)
	must(err)
	return sig
}

func spki(key string) []byte {
	der, err := x509.MarshalPKIXPublicKey(&Key(key).PublicKey)
	must(err)
	return der
}

// authority is the certificate of the authority.
func authority() *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority.test"},
		NotBefore: Created().AddDate(-1, 0, 0), NotAfter: Created().AddDate(9, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(nil, template, template, &Key(authorityKey).PublicKey, deterministic{Key(authorityKey)})
	must(err)
	cert, err := x509.ParseCertificate(der)
	must(err)
	return cert
}

// AuthorityPin is how a policy names the authority.
func AuthorityPin() string { return KeyID(authorityKey) }

// LogPin is how a policy names the log.
func LogPin() string { return KeyID(logKey) }

// leaf is a certificate for the key and the SAN, good for ten minutes.
func leaf(key, san string, at time.Time) []byte {
	issuer, err := asn1.Marshal(Issuer)
	must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), EmailAddresses: []string{san},
		NotBefore: at, NotAfter: at.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer}},
	}
	der, err := x509.CreateCertificate(nil, template, authority(), &Key(key).PublicKey, deterministic{Key(authorityKey)})
	must(err)
	return der
}

// TrustedRoot is a trusted_root.json with the authority and the log.
func TrustedRoot() []byte {
	since := object{"start": Created().AddDate(-1, 0, 0).Format(time.RFC3339)}
	id := sha256.Sum256(spki(logKey))
	return encode(object{
		"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		"certificateAuthorities": []object{{
			"subject": object{"commonName": "authority.test"}, "uri": "https://authority.test", "validFor": since,
			"certChain": object{"certificates": []object{{"rawBytes": b64(authority().Raw)}}},
		}},
		"tlogs": []object{{
			"baseUrl": "https://" + logHost, "hashAlgorithm": "SHA2_256", "logId": object{"keyId": b64(id[:])},
			"publicKey": object{"rawBytes": b64(spki(logKey)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since},
		}},
	})
}

// entry is the log's entry of a signature over raw, made at a time.
func entry(raw, sig []byte, verifier *pem.Block, at time.Time) object {
	digest, id := sha256.Sum256(raw), sha256.Sum256(spki(logKey))
	body := encode(object{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": object{
		"data":      object{"hash": object{"algorithm": "sha256", "value": hex.EncodeToString(digest[:])}},
		"signature": object{"content": b64(sig), "publicKey": object{"content": b64(pem.EncodeToMemory(verifier))}},
	}})
	promise := encode(object{"body": b64(body), "integratedTime": at.Unix(), "logID": hex.EncodeToString(id[:]), "logIndex": logIndex})
	root := sha256.Sum256(append([]byte{0}, body...)) // the tree has this leaf alone
	note := fmt.Sprintf("%s - 1\n1\n%s\n", logHost, b64(root[:]))
	checkpoint := fmt.Sprintf("%s\n— %s %s\n", note, logHost, b64(append(id[:4:4], sign(logKey, []byte(note))...)))
	return object{
		"logIndex": fmt.Sprint(logIndex), "logId": object{"keyId": b64(id[:])}, "integratedTime": fmt.Sprint(at.Unix()),
		"kindVersion":       object{"kind": "hashedrekord", "version": "0.0.1"},
		"canonicalizedBody": b64(body),
		"inclusionPromise":  object{"signedEntryTimestamp": b64(sign(logKey, promise))},
		"inclusionProof":    object{"treeSize": "1", "rootHash": b64(root[:]), "checkpoint": object{"envelope": checkpoint}},
	}
}

// signature assembles a Sigstore bundle.
func signature(raw, sig []byte, material object) []byte {
	digest := sha256.Sum256(raw)
	return encode(object{
		"mediaType":            "application/vnd.dev.sigstore.bundle.v0.3+json",
		"messageSignature":     object{"messageDigest": object{"algorithm": "SHA2_256", "digest": b64(digest[:])}, "signature": b64(sig)},
		"verificationMaterial": material,
	})
}

// Logged is a signature over raw by the key, in the log since a time.
func Logged(raw []byte, key string, at time.Time) bundle.Attached {
	sig, id := sign(key, raw), sha256.Sum256(spki(key))
	return bundle.Attached{ID: KeyID(key), Data: signature(raw, sig, object{
		"publicKey":   object{"hint": b64(id[:])},
		"tlogEntries": []object{entry(raw, sig, &pem.Block{Type: "PUBLIC KEY", Bytes: spki(key)}, at)},
	})}
}

// Certified is a signature over raw by a certificate for the key and the SAN,
// in the log since a time.
func Certified(raw []byte, key, san string, at time.Time) bundle.Attached {
	sig, cert := sign(key, raw), leaf(key, san, at)
	return bundle.Attached{ID: KeyID(key), Data: signature(raw, sig, object{
		"certificate": object{"rawBytes": b64(cert)},
		"tlogEntries": []object{entry(raw, sig, &pem.Block{Type: "CERTIFICATE", Bytes: cert}, at)},
	})}
}

// Edit changes the JSON of a Sigstore bundle; the result is in canonical form,
// whatever else it is.
func Edit(a bundle.Attached, edit func(v map[string]any)) bundle.Attached {
	var v object
	must(json.Unmarshal(a.Data, &v))
	edit(v)
	a.Data = encode(v)
	return a
}

func unb64(s string) []byte {
	raw, err := base64.StdEncoding.DecodeString(s)
	must(err)
	return raw
}

func unhex(s string) []byte {
	raw, err := hex.DecodeString(s)
	must(err)
	return raw
}

// malleated takes an ECDSA signature apart and writes it again, with n-s in the
// place of s if other is set.
func malleated(sig []byte, other bool) []byte {
	var v struct{ R, S *big.Int }
	_, err := asn1.Unmarshal(sig, &v)
	must(err)
	if other {
		v.S.Sub(elliptic.P256().Params().N, v.S)
	}
	out, err := asn1.Marshal(v)
	must(err)
	return out
}
