package manifests

import (
	"regexp"
	"slices"
	"time"
)

// Root is root.toml: who may change trust (FORMATS section 2).
type Root struct {
	Version int64
	FleetID string // 32 hex digits
	Issued  time.Time
	Expires time.Time
	Roles   map[string]Role // root, policy, revocation: all three; break_glass where there is one
	// MaxExtension is how far break_glass may put off what has expired, counted
	// from the day it decides; zero without that role.
	MaxExtension time.Duration
}

// Role is the keys that may sign one kind of trust file.
type Role struct {
	Threshold int
	Keys      []string // PEM
}

// Policy is policy.toml: which publishers are believed, and in what.
type Policy struct {
	Serial            int64
	RootVersion       int64
	Issued            time.Time
	NextUpdate        time.Time
	TrustedRootSHA256 string // "" where no certificates, logs or TSAs are accepted
	Publishers        []Publisher
}

// Publisher is one [[publisher]].
type Publisher struct {
	Name       string
	Level      string // enforce | audit
	Threshold  int
	Kinds      []Kind
	Names      []string // prefixes; no two publishers' may overlap
	Keys       []PublisherKey
	Identities []Identity
	Sequences  []SequenceEpoch
	Require    Require
	Allow      Allow
}

// PublisherKey is one [[publisher.key]].
type PublisherKey struct {
	PEM        string
	ValidFrom  time.Time // zero when absent
	ValidUntil time.Time // zero when absent
}

// SequenceEpoch is one [[publisher.sequence]]: the sequences of a name begin anew
// in each epoch (THREATS 10). A name without one is in epoch 0.
type SequenceEpoch struct {
	Name  string
	Epoch int64
}

// Epoch is the sequence epoch of a name.
func (p *Publisher) Epoch(name string) int64 {
	for _, s := range p.Sequences {
		if s.Name == name {
			return s.Epoch
		}
	}
	return 0
}

// Identity is one [[publisher.identity]], a certificate's.
type Identity struct {
	Issuer    string
	SAN       string   // or SANRegexp
	SANRegexp string   // matched as \A(?:…)\z
	CA        []string // SHA-256 of the SPKI of the authorities it accepts; empty: any of the trusted root
	TSA       []string
	Log       []string
}

// Names says whether a certificate for that SAN by that issuer is one of i's.
func (i Identity) Names(issuer, san string) bool {
	if issuer != i.Issuer || san == "" {
		return false
	}
	if i.SANRegexp == "" {
		return san == i.SAN
	}
	re, err := regexp.Compile(`\A(?:` + i.SANRegexp + `)\z`)
	return err == nil && re.MatchString(san)
}

// Require is [publisher.require]: counts, and attestations by predicate type.
type Require struct {
	TLog         int
	Timestamps   int
	SCT          int
	Audience     bool // the audience must be named (THREATS 9)
	Attestations []RequiredAttestation
}

// RequiredAttestation is one [[publisher.require.attestation]].
type RequiredAttestation struct {
	PredicateType string
	Keys          []string   // PEM, disjoint from the publisher's
	Identities    []Identity // with an exact SAN that is none of the publisher's
	Builder       string     // provenance only
}

// Allow is [publisher.allow]: the ceiling of what its plugins may ask for.
type Allow struct {
	Network      string // none | loopback; default none
	HostRead     []string
	Interpreters []string
	Limits       Limits
	Secrets      []SecretGrant
}

// SecretGrant is one [[publisher.allow.secret]]: attempts of these plugins of the
// publisher may be given the secret of that name in runs of these DAGs in these
// tenants (THREATS 18). What no grant names is granted to nobody.
type SecretGrant struct {
	Name    string
	Tenants []string
	DAGs    []string // dag_id, or publisher/dag_id
	Plugins []string // names of bundles
}

// Grants says whether a plugin of the publisher may be given a secret of a
// tenant in a run of a DAG that dagPublisher has signed.
func (p *Publisher) Grants(secret, tenant, dagPublisher, dagID, plugin string) bool {
	return slices.ContainsFunc(p.Allow.Secrets, func(g SecretGrant) bool {
		return g.Name == secret && slices.Contains(g.Tenants, tenant) && slices.Contains(g.Plugins, plugin) &&
			(slices.Contains(g.DAGs, dagID) || slices.Contains(g.DAGs, dagPublisher+"/"+dagID))
	})
}

// Revocations is revocations.toml.
type Revocations struct {
	Serial      int64
	RootVersion int64
	Issued      time.Time
	NextUpdate  time.Time
	Revoked     []Revocation
}

// Revocation is one [[revoke]]: exactly one of its four names is set.
type Revocation struct {
	Key      string // SHA-256 of an SPKI
	Manifest string
	Blob     string
	Issuer   string // with SAN: a certificate identity
	SAN      string
	From     time.Time // zero: from the beginning
	Reason   string
}

// Extension is extension.toml: the decision of the root's break_glass role to
// go on for a while with trust files whose time is over. It is about one site
// and about exactly the files that it names.
type Extension struct {
	SiteID      string // 32 hex digits
	Serial      int64  // one more with each extension of a site
	Root        string // SHA-256 of root.toml
	Policy      string
	Revocations string // "" where there are none
	Issued      time.Time
	Until       time.Time
	Reason      string
}
