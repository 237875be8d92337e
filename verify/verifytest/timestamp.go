package verifytest

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"time"
)

// Object identifiers of CMS (RFC 5652) and of timestamps (RFC 3161, RFC 5816).
var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidTSTInfo       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidSigningCertV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidECDSA         = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidPolicy        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2}
	oidStamping      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
	oidKeyUsages     = asn1.ObjectIdentifier{2, 5, 29, 37}
)

type (
	algorithm struct {
		Algorithm asn1.ObjectIdentifier
	}
	attribute struct {
		Type   asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}
	issuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	signerInfo struct {
		Version    int
		Signer     issuerAndSerial
		Digest     algorithm
		Attributes asn1.RawValue
		Signature  algorithm
		Value      []byte
	}
	content struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	signedData struct {
		Version int
		Digests []algorithm `asn1:"set"`
		Content content
		Certs   asn1.RawValue `asn1:"optional"`
		Signers []signerInfo  `asn1:"set"`
	}
	imprint struct {
		Hash  algorithm
		Value []byte
	}
	tstInfo struct {
		Version int
		Policy  asn1.ObjectIdentifier
		Imprint imprint
		Serial  *big.Int
		Time    time.Time `asn1:"generalized"`
	}
	stampResponse struct {
		Status struct{ Status int }
		Token  asn1.RawValue
	}
)

// stamper is the certificate of the timestamp authority.
func stamper() *x509.Certificate {
	usage := der([]asn1.ObjectIdentifier{oidStamping})
	return parsed(certify(&x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "tsa.test"},
		NotBefore: Created().AddDate(-1, 0, 0), NotAfter: Created().AddDate(9, 0, 0),
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: oidKeyUsages, Critical: true, Value: usage}},
	}, authority(), stampKey, authorityKey))
}

// StampChain are the certificates of the timestamp authority, in DER.
func StampChain() [][]byte { return [][]byte{stamper().Raw, authority().Raw} }

// timestamp is the authority's response for a signature at a time, in DER, with
// certs in it: the same bytes each time.
func timestamp(sig []byte, at time.Time, certs [][]byte) []byte {
	cert, sum := stamper(), sha256.Sum256(sig)
	info := der(tstInfo{
		Version: 1, Policy: oidPolicy, Serial: new(big.Int).SetBytes(sum[:8]), Time: at.UTC(),
		Imprint: imprint{algorithm{oidSHA256}, sum[:]},
	})
	attributes := set(
		attribute{oidContentType, []asn1.RawValue{raw(der(oidTSTInfo))}},
		attribute{oidMessageDigest, []asn1.RawValue{raw(der(digestOf(info)))}},
		attribute{oidSigningCertV2, []asn1.RawValue{raw(signingCertificate(cert))}},
	)
	signer := signerInfo{
		Version: 1, Signer: issuerAndSerial{raw(cert.RawIssuer), cert.SerialNumber},
		Digest: algorithm{oidSHA256}, Signature: algorithm{oidECDSA},
		Attributes: raw(append([]byte{0xa0}, attributes[1:]...)), // the same, tagged [0]
		Value:      sign(stampKey, attributes),
	}
	data := signedData{
		Version: 3, Digests: []algorithm{{oidSHA256}}, Signers: []signerInfo{signer},
		Content: content{oidTSTInfo, explicit(der(info))},
	}
	if certs != nil {
		data.Certs = explicit(bytes.Join(certs, nil))
	}
	return der(stampResponse{Token: raw(der(content{oidSignedData, explicit(der(data))}))})
}

// signingCertificate is the attribute that binds a timestamp to its signer.
func signingCertificate(cert *x509.Certificate) []byte {
	type certID struct{ Hash []byte }
	return der(struct{ IDs []certID }{[]certID{{digestOf(cert.Raw)}}})
}

func digestOf(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

func der(v any) []byte {
	out, err := asn1.Marshal(v)
	must(err)
	return out
}

func raw(b []byte) asn1.RawValue { return asn1.RawValue{FullBytes: b} }

// explicit is b below the tag [0].
func explicit(b []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: b}
}

// set is the DER of a SET OF, whose members are sorted by their bytes.
func set(members ...attribute) []byte {
	var all [][]byte
	for _, m := range members {
		all = append(all, der(m))
	}
	slices.SortFunc(all, bytes.Compare)
	return der(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: bytes.Join(all, nil)})
}
