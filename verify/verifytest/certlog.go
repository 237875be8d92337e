package verifytest

import (
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"time"
)

// sctList is the extension with the timestamp (RFC 6962), by the certificate log
// with that key, of a certificate that is complete but for this extension.
func sctList(der []byte, key string, at time.Time) pkix.Extension {
	id, issuer, tbs := sha256.Sum256(spki(key)), sha256.Sum256(spki(authorityKey)), parsed(der).RawTBSCertificate
	millis := binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli()))

	signed := append([]byte{0, 0}, millis...) // v1, of a certificate
	signed = append(signed, 0, 1)             // that is not complete yet
	signed = append(signed, issuer[:]...)
	signed = append(signed, byte(len(tbs)>>16), byte(len(tbs)>>8), byte(len(tbs)))
	signed = append(append(signed, tbs...), 0, 0) // no extensions

	sct := append([]byte{0}, id[:]...)
	sct = append(append(sct, millis...), 0, 0)
	sct = append(sct, 4, 3) // SHA-256, ECDSA
	sct = append(sct, vector(sign(key, signed))...)
	value, err := asn1.Marshal(vector(vector(sct)))
	must(err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}
}

// vector is b with its length in two bytes before it.
func vector(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
