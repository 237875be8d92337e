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

// A small Sigstore of our own: an authority for certificates with a certificate
// log, logs in the manner of Rekor v1 and v2, and a timestamp authority, whose
// signatures have the nonces of RFC 6979. What it makes verifies with the real
// libraries.
const (
	authorityKey = "authority"
	ctKey        = "certificate-log"
	logKey       = "log"
	logHost      = "rekor.test"
	logIndex     = 41
	logKey2      = "log-2"
	logHost2     = "rekor2.test"
	stampKey     = "timestamps"
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
	return parsed(certify(template, template, authorityKey, authorityKey))
}

func parsed(der []byte) *x509.Certificate {
	cert, err := x509.ParseCertificate(der)
	must(err)
	return cert
}

// AuthorityPin is how a policy names the authority.
func AuthorityPin() string { return KeyID(authorityKey) }

// LogPin is how a policy names the log.
func LogPin() string { return KeyID(logKey) }

// Log2Pin is how a policy names the second log.
func Log2Pin() string { return KeyID(logKey2) }

// StampPin is how a policy names the timestamp authority.
func StampPin() string { return KeyID(stampKey) }

// leaf is a certificate for the key and the SAN, good for ten minutes; in the
// certificate log of that key, if there is one.
func leaf(key, san string, at time.Time, log string) []byte {
	issuer, err := asn1.Marshal(Issuer)
	must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), EmailAddresses: []string{san},
		NotBefore: at, NotAfter: at.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer}},
	}
	der := certify(template, authority(), key, authorityKey)
	if log != "" {
		template.ExtraExtensions = append(template.ExtraExtensions, sctList(der, log, at))
		der = certify(template, authority(), key, authorityKey)
	}
	return der
}

// certify makes the certificate of a key, signed by that of its parent.
func certify(template, parent *x509.Certificate, key, parentKey string) []byte {
	der, err := x509.CreateCertificate(nil, template, parent, &Key(key).PublicKey, deterministic{Key(parentKey)})
	must(err)
	return der
}

// TrustedRoot is a trusted_root.json with the authority, both logs, the
// certificate log and the timestamp authority.
func TrustedRoot() []byte {
	since := object{"start": Created().AddDate(-1, 0, 0).Format(time.RFC3339)}
	log := func(host, key string) object {
		id := sha256.Sum256(spki(key))
		return object{
			"baseUrl": "https://" + host, "hashAlgorithm": "SHA2_256", "logId": object{"keyId": b64(id[:])},
			"publicKey": object{"rawBytes": b64(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since},
		}
	}
	chain := func(name string, certs ...[]byte) object {
		var list []object
		for _, c := range certs {
			list = append(list, object{"rawBytes": b64(c)})
		}
		return object{
			"subject": object{"commonName": name}, "uri": "https://" + name, "validFor": since,
			"certChain": object{"certificates": list},
		}
	}
	return encode(object{
		"mediaType":              "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		"certificateAuthorities": []object{chain("authority.test", authority().Raw)},
		"timestampAuthorities":   []object{chain("tsa.test", stamper().Raw, authority().Raw)},
		"tlogs":                  []object{log(logHost, logKey), log(logHost2, logKey2)},
		"ctlogs":                 []object{log("ct.test", ctKey)},
	})
}

// entry is the log's entry of a signature over message, made at a time. Of a
// statement it has the kind dsse, whose body names the payload.
func entry(message, payload, sig []byte, verifier *pem.Block, at time.Time) object {
	digest, id := sha256.Sum256(message), sha256.Sum256(spki(logKey))
	kind, public := "hashedrekord", b64(pem.EncodeToMemory(verifier))
	spec := object{
		"data":      object{"hash": object{"algorithm": "sha256", "value": hex.EncodeToString(digest[:])}},
		"signature": object{"content": b64(sig), "publicKey": object{"content": public}},
	}
	if payload != nil {
		sum := sha256.Sum256(payload)
		kind, spec = "dsse", object{
			"envelopeHash": object{"algorithm": "sha256", "value": hex.EncodeToString(digest[:])},
			"payloadHash":  object{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])},
			"signatures":   []object{{"signature": b64(sig), "verifier": public}},
		}
	}
	body := encode(object{"apiVersion": "0.0.1", "kind": kind, "spec": spec})
	promise := encode(object{"body": b64(body), "integratedTime": at.Unix(), "logID": hex.EncodeToString(id[:]), "logIndex": logIndex})
	return object{
		"logIndex": fmt.Sprint(logIndex), "logId": object{"keyId": b64(id[:])}, "integratedTime": fmt.Sprint(at.Unix()),
		"kindVersion":       object{"kind": kind, "version": "0.0.1"},
		"canonicalizedBody": b64(body),
		"inclusionPromise":  object{"signedEntryTimestamp": b64(sign(logKey, promise))},
		"inclusionProof":    inclusion(body, logHost+" - 1", logHost, logKey),
	}
}

// entry2 is an entry of the second log, in the manner of Rekor v2: without a
// time, and of kind hashedrekord whatever is signed.
func entry2(message, sig []byte, verifier object) object {
	digest, id := sha256.Sum256(message), sha256.Sum256(spki(logKey2))
	verifier["keyDetails"] = "PKIX_ECDSA_P256_SHA_256"
	body := encode(object{"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": object{"hashedRekordV002": object{
		"data":      object{"algorithm": "SHA2_256", "digest": b64(digest[:])},
		"signature": object{"content": b64(sig), "verifier": verifier},
	}}})
	return object{
		"logId":             object{"keyId": b64(id[:])},
		"kindVersion":       object{"kind": "hashedrekord", "version": "0.0.2"},
		"canonicalizedBody": b64(body),
		"inclusionProof":    inclusion(body, logHost2, logHost2, logKey2),
	}
}

// inclusion is the proof that body is in a log which has this entry alone.
func inclusion(body []byte, origin, name, key string) object {
	root, id := sha256.Sum256(append([]byte{0}, body...)), sha256.Sum256(spki(key))
	note := fmt.Sprintf("%s\n1\n%s\n", origin, b64(root[:]))
	checkpoint := fmt.Sprintf("%s\n— %s %s\n", note, name, b64(append(id[:4:4], sign(key, []byte(note))...)))
	return object{"treeSize": "1", "rootHash": b64(root[:]), "checkpoint": object{"envelope": checkpoint}}
}

// With says what a signature brings. The zero value is one by a key alone.
type With struct {
	SAN        string    // by a certificate for this identity
	Issued     time.Time // of that certificate; as the first of the times below, if zero
	SCT        bool      // its certificate is in the certificate log
	StrangeSCT bool      // its certificate is in a log that nobody trusts
	Logged     time.Time // in the log since then
	Logged2    bool      // in the second log, which tells no time
	Stamped    time.Time // by the timestamp authority
	Chain      [][]byte  // certificates in the timestamp; none: not even a list of them
	Statement  bool      // what is signed is an in-toto statement
}

// Signature is one over raw by the key of that name, with what it shall bring.
func Signature(raw []byte, key string, w With) bundle.Attached {
	message, payload := raw, []byte(nil)
	if w.Statement {
		message, payload = append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(statementType), statementType, len(raw)), raw...), raw
	}
	sig, id := sign(key, message), sha256.Sum256(spki(key))
	material := object{"publicKey": object{"hint": b64(id[:])}}
	verifier, verifier2 := &pem.Block{Type: "PUBLIC KEY", Bytes: spki(key)}, object{"publicKey": object{"rawBytes": b64(spki(key))}}
	if w.SAN != "" {
		cert := leaf(key, w.SAN, w.issued(), w.certLog())
		material = object{"certificate": object{"rawBytes": b64(cert)}}
		verifier, verifier2 = &pem.Block{Type: "CERTIFICATE", Bytes: cert}, object{"x509Certificate": object{"rawBytes": b64(cert)}}
	}
	var entries []object
	if !w.Logged.IsZero() {
		entries = append(entries, entry(message, payload, sig, verifier, w.Logged))
	}
	if w.Logged2 {
		entries = append(entries, entry2(message, sig, verifier2))
	}
	if len(entries) > 0 {
		material["tlogEntries"] = entries
	}
	if !w.Stamped.IsZero() {
		material["timestampVerificationData"] = object{"rfc3161Timestamps": []object{{"signedTimestamp": b64(timestamp(sig, w.Stamped, w.Chain))}}}
	}
	out := object{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial": material}
	if w.Statement {
		out["dsseEnvelope"] = object{"payload": b64(raw), "payloadType": statementType, "signatures": []object{{"sig": b64(sig)}}}
	} else {
		digest := sha256.Sum256(raw)
		out["messageSignature"] = object{"messageDigest": object{"algorithm": "SHA2_256", "digest": b64(digest[:])}, "signature": b64(sig)}
	}
	a := bundle.Attached{ID: KeyID(key), Data: encode(out)}
	if w.Statement {
		a.ID = bundle.Digest(a.Data)
	}
	return a
}

const statementType = "application/vnd.in-toto+json"

func (w With) certLog() string {
	switch {
	case w.SCT:
		return ctKey
	case w.StrangeSCT:
		return "strange-log"
	}
	return ""
}

func (w With) issued() time.Time {
	for _, at := range []time.Time{w.Issued, w.Logged, w.Stamped} {
		if !at.IsZero() {
			return at
		}
	}
	return Created()
}

// Logged is a signature over raw by the key, in the log since a time.
func Logged(raw []byte, key string, at time.Time) bundle.Attached {
	return Signature(raw, key, With{Logged: at})
}

// Certified is a signature over raw by a certificate for the key and the SAN,
// in the log since a time.
func Certified(raw []byte, key, san string, at time.Time) bundle.Attached {
	return Signature(raw, key, With{SAN: san, Logged: at})
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
