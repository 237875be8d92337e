package verify

import (
	"fmt"
	"slices"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

// byPublisher counts the signers of the manifest's publisher. One whose key is
// out of its window or revoked, or whose signature lacks what the policy
// demands, is not counted, which the verdict's checks say; if too few are left,
// the first such cause is the reason.
func (j *judgement) byPublisher() error {
	m := j.in.Manifest
	p := j.trust.publishers[m.Publisher]
	if p == nil {
		return reject(PublisherUnknown, "publisher", "the policy does not name %s", m.Publisher)
	}
	j.publisher, j.threshold = p, p.Threshold
	var first *RejectError
	mine := 0
	for _, s := range j.in.Signed.signers {
		c := s.as(p)
		if c == nil {
			continue
		}
		mine++
		if why := j.uncounted(s, c); why != nil {
			if first == nil {
				first = why
			}
			j.why[s.id] = why
			j.checks = append(j.checks, "not counted: "+s.id+": "+string(why.Reason))
			continue
		}
		for _, r := range c.missing {
			j.soften(r)
		}
		j.count(s, p.Name)
	}
	switch {
	case mine == 0:
		return reject(SignerForeign, "publisher", "none of the signers is one of %s", p.Name)
	case len(j.counted) >= p.Threshold:
		return nil
	case first != nil:
		first.Detail += "; without it " + tally(len(j.counted), p.Threshold)
		return first
	}
	return reject(ThresholdNotMet, "publisher", "%s", tally(len(j.counted), p.Threshold))
}

func tally(have, want int) string { return fmt.Sprintf("%d of %d signers count", have, want) }

// as is what s is for p, nil if it is nothing.
func (s *signer) as(p *publisher) *claim {
	i := slices.IndexFunc(s.claims, func(c claim) bool { return c.publisher == p })
	if i < 0 {
		return nil
	}
	return &s.claims[i]
}

func (j *judgement) count(s *signer, publisher string) {
	ref := ledger.SignerRef{ID: s.id, Publisher: publisher, Flow: FlowKey, File: s.file}
	if s.key == nil {
		ref.Flow, ref.Issuer, ref.SAN = FlowCertificate, s.issuer, s.san
	}
	j.counted = append(j.counted, ref)
}

// uncounted says why a verified signer does not count, nil if it does.
func (j *judgement) uncounted(s *signer, c *claim) *RejectError {
	now := j.in.Now
	if r := j.trust.revokedKey(s.id, s.times, now); r != nil {
		return reject(RevokedKey, s.id, "the key is revoked: %s", r.Reason)
	}
	if c.identity != nil {
		if r := j.trust.revokedIdentity(s.issuer, s.san, s.times, now); r != nil {
			return reject(RevokedIdentity, s.san, "the identity is revoked: %s", r.Reason)
		}
	}
	if s.key != nil {
		if why := outside(s.key.window, s.id, s.times, now); why != nil {
			return why
		}
	}
	for _, r := range c.missing {
		if !j.softens(r) {
			return reject(r, s.id, "the policy demands it of each signature")
		}
	}
	return nil
}

// outside compares a key's window with the trusted times of its signature, or
// with the clock where it has none.
func outside(window manifests.PublisherKey, id string, times []time.Time, now time.Time) *RejectError {
	if len(times) == 0 {
		times = []time.Time{now}
	}
	for _, at := range times {
		switch {
		case at.Before(window.ValidFrom):
			return reject(KeyNotYetValid, id, "the key is valid from %s, the time is %s", utc(window.ValidFrom), utc(at))
		case passed(window.ValidUntil, at):
			return reject(KeyExpired, id, "the key was valid until %s, the time is %s", utc(window.ValidUntil), utc(at))
		}
	}
	return nil
}

// byRoles demands, for each trust file in the bundle, the threshold of its role
// in the root in force. Publishers count for nothing here.
func (j *judgement) byRoles() error {
	roles := rolesOf(j.in.Manifest.Trust)
	counts := func(s *signer) bool { return s.key != nil && j.trust.revokedKey(s.id, s.times, j.in.Now) == nil }
	for _, s := range j.in.Signed.signers {
		if counts(s) && slices.ContainsFunc(s.key.roles, func(r string) bool { return slices.Contains(roles, r) }) {
			j.count(s, "root.toml")
		}
	}
	if len(j.counted) == 0 {
		return reject(SignerForeign, "kind", "trust bundles are signed by the roles of root.toml; none of the signers has %v", roles)
	}
	for _, role := range roles {
		n := 0
		for _, s := range j.in.Signed.signers {
			if counts(s) && slices.Contains(s.key.roles, role) {
				n++
			}
		}
		want := j.trust.root.Roles[role].Threshold
		j.threshold = max(j.threshold, want)
		if n < want {
			return reject(ThresholdNotMet, "role "+role, "%s", tally(n, want))
		}
	}
	return nil
}

// rolesOf lists the roles that may replace the trust files that t names.
func rolesOf(t *manifests.TrustFiles) []string {
	if t == nil {
		return nil
	}
	var roles []string
	for _, f := range []struct{ path, role string }{{t.Root, RoleRoot}, {t.Policy, RolePolicy}, {t.Revocations, RoleRevocation}} {
		if f.path != "" {
			roles = append(roles, f.role)
		}
	}
	return roles
}
