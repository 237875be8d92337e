package verify

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
)

// Kinds of an [Authority].
const (
	AuthorityCA    = "ca"
	AuthorityCTLog = "ctlog"
	AuthorityLog   = "log"
	AuthorityTSA   = "tsa"
)

// An Authority is one entry of a trusted_root.json.
type Authority struct {
	Kind  string `json:"kind"`
	URI   string `json:"uri,omitempty"`
	From  string `json:"from,omitempty"`
	Until string `json:"until,omitempty"`
	Pins  []Pin  `json:"pins"` // the leaf first
	Fault string `json:"fault,omitempty"`
}

// A Pin is a key of an authority, as the lists ca, tsa and log of a policy's
// identity name it.
type Pin struct {
	SPKI    string `json:"spki"` // SHA-256 of the SPKI
	Subject string `json:"subject,omitempty"`
	From    string `json:"from,omitempty"` // of the certificate
	Until   string `json:"until,omitempty"`
}

// DescribeTrustedRoot lists what a trusted_root.json holds, as far as it can be
// read.
func DescribeTrustedRoot(raw []byte) ([]Authority, error) {
	if len(raw) > MaxTrustedRoot {
		return nil, fmt.Errorf("trusted root: %d bytes, the limit is %d", len(raw), MaxTrustedRoot)
	}
	pb := new(prototrustroot.TrustedRoot)
	if err := protojson.Unmarshal(raw, pb); err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	out := []Authority{}
	for _, ca := range pb.GetCertificateAuthorities() {
		out = append(out, authority(AuthorityCA, ca))
	}
	for _, log := range pb.GetCtlogs() {
		out = append(out, logAuthority(AuthorityCTLog, log))
	}
	for _, log := range pb.GetTlogs() {
		out = append(out, logAuthority(AuthorityLog, log))
	}
	for _, tsa := range pb.GetTimestampAuthorities() {
		out = append(out, authority(AuthorityTSA, tsa))
	}
	return out, nil
}

func authority(kind string, pb *prototrustroot.CertificateAuthority) Authority {
	a := Authority{Kind: kind, URI: pb.GetUri(), Pins: []Pin{}}
	a.during(pb.GetValidFor())
	for i, c := range pb.GetCertChain().GetCertificates() {
		cert, err := x509.ParseCertificate(c.GetRawBytes())
		if err != nil {
			a.Fault = fmt.Sprintf("certificate %d: %v", i+1, err)
			continue
		}
		a.Pins = append(a.Pins, Pin{
			SPKI: spkiSum(cert.RawSubjectPublicKeyInfo), Subject: cert.Subject.String(),
			From: stamp.Format(cert.NotBefore), Until: stamp.Format(cert.NotAfter),
		})
	}
	return a
}

func logAuthority(kind string, pb *prototrustroot.TransparencyLogInstance) Authority {
	a := Authority{Kind: kind, URI: pb.GetBaseUrl(), Pins: []Pin{}}
	a.during(pb.GetPublicKey().GetValidFor())
	der := pb.GetPublicKey().GetRawBytes()
	if _, err := x509.ParsePKIXPublicKey(der); err != nil {
		a.Fault = "key: " + err.Error()
		return a
	}
	a.Pins = append(a.Pins, Pin{SPKI: spkiSum(der)})
	return a
}

func spkiSum(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

func (a *Authority) during(t *protocommon.TimeRange) {
	if t.GetStart() != nil {
		a.From = stamp.Format(t.GetStart().AsTime())
	}
	if t.GetEnd() != nil {
		a.Until = stamp.Format(t.GetEnd().AsTime())
	}
}

// RoleSigner verifies a signature over a trust file, and says which roles its
// key has in a root: none for a key that the root does not name, which was then
// not verified.
func RoleSigner(r *manifests.Root, raw []byte, sig bundle.Attached) ([]string, error) {
	keys, err := roleKeys(r)
	if err != nil {
		return nil, err
	}
	k, err := verifyRole(raw, sig, keys)
	if err != nil || k == nil {
		return nil, err
	}
	return k.roles, nil
}

// KeyPEM is a publisher's key by its id, "" for one that the policy does not
// name.
func (t *Trust) KeyPEM(id string) string {
	for _, p := range t.policy.Publishers {
		for _, k := range p.Keys {
			if pub, err := ParsePublicKey([]byte(k.PEM)); err == nil && KeyID(pub) == id {
				return k.PEM
			}
		}
	}
	return ""
}

// NamedBy lists the entries of trust files that name the signer of d, or come
// near.
func (t *Trust) NamedBy(d *Description) []PolicyLine {
	f := &file{id: d.ID, issuer: d.Issuer, san: d.SAN}
	if d.Flow == FlowCertificate {
		f.leaf = new(x509.Certificate)
	}
	e := &explaining{trust: t, lines: manifests.PolicyLines(t.policyText)}
	return e.linesOf(f)
}
