package api

import "github.com/stellarun/stella/ledger"

// A Report is a judgement told check by check: what each found, also those
// behind the first that failed. It admits nothing; only a verdict does.
type Report struct {
	Decision     string          `json:"decision"`         // admitted | admitted_under_audit | rejected | undecided
	Reason       string          `json:"reason,omitempty"` // of the first check that failed
	Digest       string          `json:"digest,omitempty"` // of the manifest
	Now          string          `json:"now"`              // time of the judgement
	Trust        ledger.TrustRef `json:"trust"`
	Threshold    int             `json:"threshold"`
	Counted      int             `json:"counted"`           // signers that count
	Demands      []string        `json:"demands,omitempty"` // what the policy demands of the publisher
	Softened     []string        `json:"softened,omitempty"`
	Checks       []Check         `json:"checks"` // in the order in which they are made
	Signatures   []SignerReport  `json:"signatures"`
	Attestations []SignerReport  `json:"attestations"`
}

// A Check is what became of one check.
type Check struct {
	Name   string `json:"name"`
	State  string `json:"state"` // pass | fail | softened | not_reached | not_applicable
	Reason string `json:"reason,omitempty"`
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// A SignerReport is what became of one signature or attestation.
type SignerReport struct {
	File          string       `json:"file"` // name in the bundle
	ID            string       `json:"id,omitempty"`
	Flow          string       `json:"flow,omitempty"` // key | certificate
	Issuer        string       `json:"issuer,omitempty"`
	SAN           string       `json:"san,omitempty"`
	PredicateType string       `json:"predicateType,omitempty"`
	State         string       `json:"state"` // counted | not_counted | unknown | invalid
	Reason        string       `json:"reason,omitempty"`
	Detail        string       `json:"detail,omitempty"`
	Times         []string     `json:"times,omitempty"` // trusted times of the signature
	Lines         []PolicyLine `json:"lines,omitempty"`
}

// A PolicyLine is an entry of a trust file that names a signer, or nearly does.
type PolicyLine struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Entry   string `json:"entry"` // publisher acme, key 1
	Matches bool   `json:"matches"`
	Why     string `json:"why,omitempty"` // why it does not match
}
