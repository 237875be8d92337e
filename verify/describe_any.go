package verify

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/stamp"
)

// LogEntry is an entry of a transparency log, as a file claims it.
type LogEntry struct {
	LogID string `json:"logId"` // SHA-256 of the log's key
	Index int64  `json:"index"`
	Kind  string `json:"kind"`
	Time  string `json:"time,omitempty"` // when the log says to have taken it in
}

// Details are what a [Description] says at length.
type Details struct {
	MediaType  string     `json:"mediaType,omitempty"`
	Subjects   []string   `json:"subjects,omitempty"`  // SHA-256 that a statement is about
	NotBefore  string     `json:"notBefore,omitempty"` // of the certificate
	NotAfter   string     `json:"notAfter,omitempty"`
	CA         string     `json:"ca,omitempty"` // who the certificate says has issued it
	Entries    []LogEntry `json:"entries,omitempty"`
	TimesGiven []string   `json:"timesGiven,omitempty"` // by timestamp authorities; "" where one cannot be read
}

// Look reads any Sigstore bundle in JSON as far as it goes, also one that no
// stella bundle may hold: the error then says why not. The description is nil
// for what is no Sigstore bundle at all.
func Look(raw []byte) (*Description, error) {
	pb, err := unmarshal(raw)
	if err != nil && !errors.Is(err, errTooMany) { // one field is wrong, perhaps
		pb = new(protobundle.Bundle)
		_ = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, pb) // as far as it goes
	}
	if pb.GetMediaType() == "" && pb.GetVerificationMaterial() == nil {
		if err == nil {
			err = fmt.Errorf("%w: it has no mediaType", errMalformed)
		}
		return nil, err
	}
	var canonical []byte
	if err == nil {
		canonical, err = Canonical(raw)
	}
	if err == nil {
		return Describe(canonical)
	}
	f := &file{pb: pb}
	f.claimed()
	d, stated := f.describe()
	return d, errors.Join(err, stated)
}

// claimed reads who a file of any form says to have signed.
func (f *file) claimed() {
	m := f.pb.GetVerificationMaterial()
	if hint, err := base64.StdEncoding.DecodeString(m.GetPublicKey().GetHint()); err == nil && len(hint) == sha256.Size {
		f.id = hex.EncodeToString(hint)
	}
	der := m.GetCertificate().GetRawBytes()
	if chain := m.GetX509CertificateChain().GetCertificates(); len(der) == 0 && len(chain) > 0 {
		der = chain[0].GetRawBytes()
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return
	}
	f.leaf = leaf
	if pub, ok := leaf.PublicKey.(*ecdsa.PublicKey); ok && hashOf(pub) != 0 {
		f.id = KeyID(pub)
	}
	if summary, err := certificate.SummarizeCertificate(leaf); err == nil {
		f.issuer, f.san = summary.Issuer, summary.SubjectAlternativeName
	}
}

// details reads what f says besides who signed.
func (f *file) details() Details {
	d := Details{MediaType: f.pb.GetMediaType()}
	if f.leaf != nil {
		d.NotBefore, d.NotAfter = stamp.Format(f.leaf.NotBefore), stamp.Format(f.leaf.NotAfter)
		d.CA = f.leaf.Issuer.String()
	}
	for _, e := range f.entries() {
		x := LogEntry{LogID: hex.EncodeToString(e.GetLogId().GetKeyId()), Index: e.GetLogIndex(), Kind: e.GetKindVersion().GetKind()}
		if at := e.GetIntegratedTime(); at > 0 {
			x.Time = stamp.Format(time.Unix(at, 0))
		}
		d.Entries = append(d.Entries, x)
	}
	for _, ts := range f.timestamps() {
		text := ""
		if at, err := timeOf(ts.GetSignedTimestamp()); err == nil {
			text = stamp.Format(at)
		}
		d.TimesGiven = append(d.TimesGiven, text)
	}
	return d
}

// timeOf reads the time that a timestamp response of RFC 3161 states, and
// verifies nothing.
func timeOf(der []byte) (time.Time, error) {
	var response struct {
		Status asn1.RawValue
		Token  struct {
			Type    asn1.ObjectIdentifier
			Content asn1.RawValue `asn1:"explicit,tag:0"`
		}
	}
	if _, err := asn1.Unmarshal(der, &response); err != nil {
		return time.Time{}, fmt.Errorf("timestamp: %w", err)
	}
	var skipped asn1.RawValue
	var signed struct {
		Type asn1.ObjectIdentifier
		Info []byte `asn1:"explicit,tag:0"`
	}
	// SignedData: version, digestAlgorithms, encapContentInfo.
	if err := leading(response.Token.Content.Bytes, &skipped, &skipped, &signed); err != nil {
		return time.Time{}, err
	}
	var at time.Time
	// TSTInfo: version, policy, messageImprint, serialNumber, genTime.
	err := leading(signed.Info, &skipped, &skipped, &skipped, &skipped, &at)
	return at, err
}

// leading reads the first elements of a sequence, and leaves the rest.
func leading(der []byte, to ...any) error {
	var seq asn1.RawValue
	if _, err := asn1.Unmarshal(der, &seq); err != nil {
		return fmt.Errorf("timestamp: %w", err)
	}
	rest := seq.Bytes
	for _, v := range to {
		var err error
		if rest, err = asn1.Unmarshal(rest, v); err != nil {
			return fmt.Errorf("timestamp: %w", err)
		}
	}
	return nil
}

// DescribeSignature describes a file of signatures/. Where a judgement would not
// accept its form, the error is the refusal, and the description goes as far as
// [Look].
func DescribeSignature(a bundle.Attached) (*Description, error) {
	f, err := signatureFile(a)
	if err != nil {
		d, _ := Look(a.Data)
		return d, err
	}
	return f.describe()
}

// DescribeAttestation is [DescribeSignature] for a file of attestations/.
func DescribeAttestation(a bundle.Attached) (*Description, error) {
	f, err := attestationFile(a)
	if err != nil {
		d, _ := Look(a.Data)
		return d, err
	}
	d, err := f.describe()
	if err != nil {
		return d, reject(AttestationMalformed, bundle.AttestationName(a.ID), "%v", err).because(err)
	}
	return d, nil
}
