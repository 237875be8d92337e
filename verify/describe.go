package verify

import (
	"encoding/hex"
	"fmt"
)

// Description is what a signature or attestation file says of itself. Nothing
// of it is verified: it tells whom to ask, and what to write into a policy.
type Description struct {
	Statement     bool   `json:"statement"` // an attestation, else a signature
	ID            string `json:"id"`        // SHA-256 of the SPKI of the key that it names
	Flow          string `json:"flow"`      // key | certificate
	Issuer        string `json:"issuer,omitempty"`
	SAN           string `json:"san,omitempty"`
	Digest        string `json:"digest,omitempty"` // SHA-256 that a signature says it is over
	PredicateType string `json:"predicateType,omitempty"`
	LogEntries    int    `json:"logEntries"`
	Timestamps    int    `json:"timestamps"`
	Details
}

// Describe reads a file that [Canonical] made, or that a bundle holds.
func Describe(raw []byte) (*Description, error) {
	f, err := parse(raw)
	if err != nil {
		return nil, err
	}
	d, err := f.describe()
	if err != nil {
		return nil, err
	}
	return d, nil
}

// describe says what f says. The error is about its statement.
func (f *file) describe() (*Description, error) {
	d := &Description{
		Statement: f.isStatement(), ID: f.id, Flow: FlowKey, Issuer: f.issuer, SAN: f.san,
		LogEntries: len(f.entries()), Timestamps: len(f.timestamps()), Details: f.details(),
	}
	if f.leaf != nil {
		d.Flow = FlowCertificate
	}
	d.Digest = hex.EncodeToString(f.pb.GetMessageSignature().GetMessageDigest().GetDigest())
	if d.Statement {
		s, err := parseStatement(f.pb.GetDsseEnvelope().GetPayload())
		if err != nil {
			return d, fmt.Errorf("%w: its statement: %v", errMalformed, err)
		}
		d.PredicateType = s.PredicateType
		for _, x := range s.Subjects {
			d.Subjects = append(d.Subjects, x.Digest["sha256"])
		}
	}
	return d, nil
}

// SignerID is the id of the key that a signature file in canonical form names, and
// whether by a certificate. Nothing is verified.
func SignerID(raw []byte) (id string, certificate bool, err error) {
	f, err := parse(raw)
	if err != nil {
		return "", false, fmt.Errorf("verify: %w", err)
	}
	return f.id, f.leaf != nil, nil
}
