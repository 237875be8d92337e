package api

import (
	"context"

	"github.com/stellarun/stella/ledger"
)

// Trust is what a site believes. It stands beside [Site], since only the
// holder of the root's key can change it.
type Trust interface {
	ShowTrust(ctx context.Context) (TrustReport, error)
	// AddTrust adds a publisher, or a further key of one, to the policy, and
	// signs it with the next serial. What an addition leaves empty stays as it
	// is.
	AddTrust(ctx context.Context, add TrustAddition) (TrustReport, error)
}

// TrustAddition is an addition to the policy.
type TrustAddition struct {
	Publisher    string   `json:"publisher"`
	Key          string   `json:"key"`                 // public key, PEM
	Kinds        []string `json:"kinds,omitempty"`     // required of a new publisher
	Names        []string `json:"names,omitempty"`     // prefixes of bundle names; required of a new publisher
	Threshold    int      `json:"threshold,omitempty"` // signers that a bundle needs
	Level        string   `json:"level,omitempty"`     // enforce | audit
	ValidFrom    string   `json:"validFrom,omitempty"`
	ValidUntil   string   `json:"validUntil,omitempty"`
	HostRead     []string `json:"hostRead,omitempty"`     // host paths that its plugins may read
	Interpreters []string `json:"interpreters,omitempty"` // programs of the host that its scripts may name
	RootKey      string   `json:"rootKey,omitempty"`      // file that the holder of the site can read; "" means keys/root.key
}

// TrustReport is the trust in force.
type TrustReport struct {
	Trust  ledger.TrustRef `json:"trust"`
	Policy string          `json:"policy"` // the exact text of policy.toml
}
