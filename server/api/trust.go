package api

import (
	"context"

	"github.com/stellarun/stella/ledger"
)

// Trust is what a site believes. Additions, rotations and revocations are signed
// with the root's key, which the holder of the site must be able to read; a
// fleet's trust comes in bundles ([Bundles.ImportBundle]). With DryRun nothing
// is changed, and the report says what would be.
type Trust interface {
	ShowTrust(ctx context.Context) (TrustReport, error)
	// AddTrust adds a publisher, or a further signer or demand of one, to the
	// policy, and signs it with the next serial. What an addition leaves empty
	// stays as it is.
	AddTrust(ctx context.Context, add TrustAddition) (TrustReport, error)
	// RotateTrust replaces a key of a publisher, or the root's key.
	RotateTrust(ctx context.Context, r TrustRotation) (TrustReport, error)
	// RevokeTrust adds to the revocations, and ends at once what they hit.
	RevokeTrust(ctx context.Context, r TrustRevocation) (TrustReport, error)
	// ExtendTrust puts an extension of expired trust in force; without Text it
	// returns the text that the root's break_glass role would have to sign.
	ExtendTrust(ctx context.Context, x TrustExtension) (TrustReport, error)
	// AcceptTime records that the clock is right although it is behind the
	// ledger, or far ahead of it.
	AcceptTime(ctx context.Context, t TimeAcceptance) error
}

// TrustAddition is an addition to the policy. One of Policy, Publisher and Renew is
// set.
type TrustAddition struct {
	Renew        bool              `json:"renew,omitempty"`  // policy and revocations as they are, with the next serials and fresh dates
	Policy       string            `json:"policy,omitempty"` // a whole policy.toml, to which serial and dates are given
	Publisher    string            `json:"publisher,omitempty"`
	Key          string            `json:"key,omitempty"`      // public key, PEM
	Identity     *TrustIdentity    `json:"identity,omitempty"` // of certificates
	Kinds        []string          `json:"kinds,omitempty"`    // required of a new publisher
	Names        []string          `json:"names,omitempty"`    // prefixes of bundle names; required of a new publisher
	Threshold    int               `json:"threshold,omitempty"`
	Level        string            `json:"level,omitempty"` // enforce | audit
	ValidFrom    string            `json:"validFrom,omitempty"`
	ValidUntil   string            `json:"validUntil,omitempty"`
	TLog         int               `json:"tlog,omitempty"` // demands of each signature
	Timestamps   int               `json:"timestamps,omitempty"`
	SCT          int               `json:"sct,omitempty"`
	Audience     bool              `json:"audience,omitempty"` // bundles must name theirs
	Attestations []TrustAttestator `json:"attestations,omitempty"`
	Network      string            `json:"network,omitempty"`      // none | loopback
	HostRead     []string          `json:"hostRead,omitempty"`     // host paths that its plugins may read
	Interpreters []string          `json:"interpreters,omitempty"` // programs of the host that its scripts may name
	Secrets      []TrustGrant      `json:"secrets,omitempty"`      // that its plugins may be given
	TrustedRoot  string            `json:"trustedRoot,omitempty"`  // text of a trusted_root.json to pin from now on
	RootKey      string            `json:"rootKey,omitempty"`      // file that the holder of the site can read; "" means keys/root.key
	DryRun       bool              `json:"dryRun,omitempty"`
}

// TrustGrant lets a plugin of the publisher have a secret of a tenant in runs of a
// DAG, dag_id or publisher/dag_id.
type TrustGrant struct {
	Name   string `json:"name"`
	Tenant string `json:"tenant"`
	Plugin string `json:"plugin"`
	DAG    string `json:"dag"`
}

// TrustIdentity is who a certificate is for.
type TrustIdentity struct {
	Issuer    string `json:"issuer"`
	SAN       string `json:"san,omitempty"`
	SANRegexp string `json:"sanRegexp,omitempty"`
}

// TrustAttestator demands an attestation of a predicate type by one of the keys.
type TrustAttestator struct {
	PredicateType string   `json:"predicateType"`
	Keys          []string `json:"keys"` // PEM
	Builder       string   `json:"builder,omitempty"`
}

// TrustRotation replaces a key: of a publisher, or with Publisher empty the
// root's.
type TrustRotation struct {
	Publisher  string `json:"publisher,omitempty"`
	OldKey     string `json:"oldKey,omitempty"`     // id of the key that goes; may be left out where there is one
	NewKey     string `json:"newKey,omitempty"`     // public key, PEM
	OverlapMs  int64  `json:"overlapMs,omitempty"`  // how long both keys count
	NewRootKey string `json:"newRootKey,omitempty"` // file with the private key of the next root; "" makes one
	RootKey    string `json:"rootKey,omitempty"`
	DryRun     bool   `json:"dryRun,omitempty"`
}

// TrustRevocation revokes one thing, from a time on.
type TrustRevocation struct {
	Key      string `json:"key,omitempty"`      // id: SHA-256 of the SPKI
	Manifest string `json:"manifest,omitempty"` // digest of a bundle
	Blob     string `json:"blob,omitempty"`     // digest of a file
	Issuer   string `json:"issuer,omitempty"`   // with SAN: an identity of certificates
	SAN      string `json:"san,omitempty"`
	From     string `json:"from,omitempty"` // "" means from the beginning
	Reason   string `json:"reason"`
	RootKey  string `json:"rootKey,omitempty"`
	DryRun   bool   `json:"dryRun,omitempty"`
}

// TrustExtension is an extension of expired trust: what is wanted, or the signed
// text.
type TrustExtension struct {
	Until      string            `json:"until,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	Text       string            `json:"text,omitempty"`       // extension.toml, exactly
	Signatures map[string]string `json:"signatures,omitempty"` // key id → signature file
	DryRun     bool              `json:"dryRun,omitempty"`
}

// TimeAcceptance is a time that somebody has typed, in the form of package stamp.
type TimeAcceptance struct {
	Time   string `json:"time"`
	Reason string `json:"reason"`
}

// TrustReport is the trust in force, or what it would be.
type TrustReport struct {
	Trust       ledger.TrustRef `json:"trust"`
	SiteID      string          `json:"siteId"`
	FleetID     string          `json:"fleetId"`
	Root        string          `json:"root"`                  // the exact text of root.toml
	Policy      string          `json:"policy"`                // of policy.toml
	Revocations string          `json:"revocations,omitempty"` // of revocations.toml
	Extension   string          `json:"extension,omitempty"`   // of extension.toml
	Warnings    []string        `json:"warnings,omitempty"`
	DryRun      bool            `json:"dryRun,omitempty"`
	Refused     []RefusedBundle `json:"refused,omitempty"` // admitted bundles that the change refuses from now on
	Ended       int             `json:"ended,omitempty"`   // attempts under way that the change ended
	RootKey     string          `json:"rootKey,omitempty"` // where a new private key of the root lies
}

// RefusedBundle is an admitted bundle that trust no longer allows.
type RefusedBundle struct {
	Ref    string `json:"ref"`
	Digest string `json:"digest"`
	Reason string `json:"reason"`
}
