package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

func attached(id string, raw []byte) bundle.Attached { return bundle.Attached{ID: id, Data: raw} }

// signRole signs a trust file with keys, each once.
func signRole(raw []byte, keys ...*signingKey) (verify.RoleFile, error) {
	f := verify.RoleFile{Raw: raw}
	for _, k := range keys {
		sig, err := verify.SignManifest(raw, k.key)
		if err != nil {
			return f, internal(err)
		}
		if !slices.ContainsFunc(f.Signatures, func(a bundle.Attached) bool { return a.ID == sig.ID }) {
			f.Signatures = append(f.Signatures, sig)
		}
	}
	slices.SortFunc(f.Signatures, func(a, b bundle.Attached) int { return strings.Compare(a.ID, b.ID) })
	return f, nil
}

// rootSigner reads the private key of the root, "" being that of the site, which
// must have a role in the root in force.
func (e *Engine) rootSigner(t *inForce, file, role string) (*signingKey, error) {
	k, err := e.readRootKey(file)
	switch {
	case err != nil:
		return nil, err
	case !t.Names(k.id, role):
		return nil, &api.Error{Code: api.CodeForbidden,
			Message: fmt.Sprintf("the key %s has not the role %s in root %d", k.id, role, t.Root().Version),
			Hint:    "name the file of a key that has: --root-key FILE; stella trust show lists the roles"}
	}
	return k, nil
}

func (e *Engine) readRootKey(file string) (*signingKey, error) {
	if file == "" {
		file = filepath.Join(e.opt.Home, "keys", rootKey)
	}
	k, err := readSigningKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &api.Error{Code: api.CodeNotFound, Message: file + ": there is no key of the root here",
			Hint: "name its file with --root-key; a fleet's trust comes in bundles: stella trust import"}
	}
	if err != nil {
		return nil, readError(file, err)
	}
	return k, nil
}

// AddTrust implements [api.Trust].
func (s *site) AddTrust(_ context.Context, add api.TrustAddition) (api.TrustReport, error) {
	reason := "publisher " + add.Publisher
	switch {
	case add.Renew:
		reason = "renewal"
	case add.Policy != "":
		reason = "policy"
	}
	return s.e.changeTrust(change{actor: s.actor, reason: reason, dryRun: add.DryRun, edit: func(t *inForce, now time.Time) (verify.Files, error) {
		if add.Renew {
			return s.e.renewedTrust(t, add.RootKey, now)
		}
		key, err := s.e.rootSigner(t, add.RootKey, verify.RolePolicy)
		if err != nil {
			return t.files, err
		}
		p, err := nextPolicy(t, add, now)
		if err != nil {
			return t.files, err
		}
		files := t.files
		if add.TrustedRoot != "" {
			files.TrustedRoot = []byte(add.TrustedRoot)
			p.TrustedRootSHA256 = bundle.Digest(files.TrustedRoot)
		}
		if p.TrustedRootSHA256 == "" {
			files.TrustedRoot = nil
		}
		files.Policy, err = signPolicy(p, key)
		return files, err
	}})
}

// renewedTrust is policy and revocations as they are, with the next serials and
// fresh dates.
func (e *Engine) renewedTrust(t *inForce, rootKey string, now time.Time) (verify.Files, error) {
	files := t.files
	key, err := e.rootSigner(t, rootKey, verify.RolePolicy)
	if err != nil {
		return files, err
	}
	if files.Policy, err = signPolicy(renewed(t, *t.Policy(), now), key); err != nil || files.Revocations.Raw == nil {
		return files, err
	}
	if !t.Names(key.id, verify.RoleRevocation) {
		return files, nil // its role renews them
	}
	files.Revocations, err = signRevocations(renewedRevocations(t, now), key)
	return files, err
}

// signPolicy writes a policy and signs it. What it could not be read from again
// is refused with all its faults.
func signPolicy(p *manifests.Policy, keys ...*signingKey) (verify.RoleFile, error) {
	raw := manifests.EncodePolicy(p)
	if _, err := manifests.ParsePolicy("policy.toml", raw); err != nil {
		return verify.RoleFile{}, faults(api.CodeInvalid, "the policy would not be valid", err)
	}
	return signRole(raw, keys...)
}

// renewed is a policy with the next serial and fresh dates.
func renewed(t *inForce, p manifests.Policy, now time.Time) *manifests.Policy {
	p.Serial, p.RootVersion = t.Policy().Serial+1, t.Root().Version
	p.Issued, p.NextUpdate = now, now.AddDate(policyYears, 0, 0)
	return &p
}

// nextPolicy is the policy with the addition and the next serial.
func nextPolicy(t *inForce, add api.TrustAddition, now time.Time) (*manifests.Policy, error) {
	if add.Policy != "" {
		p, err := manifests.ParsePolicy("policy.toml", []byte(add.Policy))
		if err != nil {
			return nil, faults(api.CodeInvalid, "the policy is not valid", err)
		}
		return renewed(t, *p, now), nil
	}
	p := renewed(t, *t.Policy(), now)
	p.Publishers = slices.Clone(p.Publishers)
	i := slices.IndexFunc(p.Publishers, func(x manifests.Publisher) bool { return x.Name == add.Publisher })
	if i < 0 {
		if len(add.Kinds) == 0 || len(add.Names) == 0 {
			return nil, invalid("a new publisher needs kinds and name prefixes")
		}
		if add.Key == "" && add.Identity == nil {
			return nil, invalid("a new publisher needs a key or an identity")
		}
		p.Publishers = append(p.Publishers, manifests.Publisher{Name: add.Publisher, Level: "enforce", Threshold: 1, Allow: manifests.Allow{Network: "none"}})
		i = len(p.Publishers) - 1
	}
	before := p.Publishers[i]
	var err error
	p.Publishers[i], err = extended(before, add)
	if err == nil && add.TrustedRoot == "" && reflect.DeepEqual(p.Publishers[i], before) {
		return nil, &api.Error{Code: api.CodeInvalid, Message: "there is nothing to add: " + add.Publisher + " is so already",
			Hint: "stella trust renew gives the policy fresh dates"}
	}
	return p, err
}

// extended is a publisher with an addition.
func extended(x manifests.Publisher, add api.TrustAddition) (manifests.Publisher, error) {
	if add.Key != "" {
		k := manifests.PublisherKey{PEM: add.Key}
		if _, err := verify.ParsePublicKey([]byte(add.Key)); err != nil {
			return x, invalid("the key: %v", err)
		}
		for _, t := range []struct {
			text string
			to   *time.Time
		}{{add.ValidFrom, &k.ValidFrom}, {add.ValidUntil, &k.ValidUntil}} {
			if t.text == "" {
				continue
			}
			at, err := stamp.Parse(t.text)
			if err != nil {
				return x, invalid("%v", err)
			}
			*t.to = at
		}
		x.Keys = append(slices.Clone(x.Keys), k)
	}
	if id := add.Identity; id != nil {
		x.Identities = append(slices.Clone(x.Identities), manifests.Identity{Issuer: id.Issuer, SAN: id.SAN, SANRegexp: id.SANRegexp})
	}
	x.Threshold = override(x.Threshold, add.Threshold)
	x.Level = override(x.Level, add.Level)
	if len(add.Kinds) > 0 {
		x.Kinds = nil
		for _, k := range add.Kinds {
			x.Kinds = append(x.Kinds, manifests.Kind(k))
		}
	}
	x.Names = overrideList(x.Names, add.Names)
	r := &x.Require
	r.TLog, r.Timestamps, r.SCT = override(r.TLog, add.TLog), override(r.Timestamps, add.Timestamps), override(r.SCT, add.SCT)
	if len(x.Identities) > 0 && r.TLog == 0 && r.Timestamps == 0 {
		return x, invalid("an identity needs a trusted time: --require-tlog 1 or --require-timestamps 1")
	}
	r.Audience = r.Audience || add.Audience
	r.Attestations = slices.Clone(r.Attestations)
	for _, a := range add.Attestations {
		r.Attestations = append(r.Attestations, manifests.RequiredAttestation{PredicateType: a.PredicateType, Keys: a.Keys, Builder: a.Builder})
	}
	x.Allow.Network = override(x.Allow.Network, add.Network)
	x.Allow.HostRead = overrideList(x.Allow.HostRead, add.HostRead)
	x.Allow.Interpreters = overrideList(x.Allow.Interpreters, add.Interpreters)
	x.Allow.Secrets = slices.Clone(x.Allow.Secrets)
	for _, g := range add.Secrets {
		grant := manifests.SecretGrant{Name: g.Name, Tenants: []string{g.Tenant}, DAGs: []string{g.DAG}, Plugins: []string{g.Plugin}}
		if !slices.ContainsFunc(x.Allow.Secrets, func(have manifests.SecretGrant) bool { return reflect.DeepEqual(have, grant) }) {
			x.Allow.Secrets = append(x.Allow.Secrets, grant)
		}
	}
	return x, nil
}

func override[T comparable](old, by T) T {
	var zero T
	if by == zero {
		return old
	}
	return by
}

func overrideList(old, by []string) []string {
	if len(by) == 0 {
		return old
	}
	return by
}

// RevokeTrust implements [api.Trust].
func (s *site) RevokeTrust(_ context.Context, r api.TrustRevocation) (api.TrustReport, error) {
	if r.Reason == "" {
		return api.TrustReport{}, invalid("a reason is needed: it is recorded, and shown to whoever is refused")
	}
	v := manifests.Revocation{Key: r.Key, Manifest: r.Manifest, Blob: r.Blob, Issuer: r.Issuer, SAN: r.SAN, Reason: r.Reason}
	if r.From != "" {
		var err error
		if v.From, err = stamp.Parse(r.From); err != nil {
			return api.TrustReport{}, invalid("%v", err)
		}
	}
	return s.e.changeTrust(change{actor: s.actor, reason: "revocation", dryRun: r.DryRun, edit: func(t *inForce, now time.Time) (verify.Files, error) {
		key, err := s.e.rootSigner(t, r.RootKey, verify.RoleRevocation)
		if err != nil {
			return t.files, err
		}
		if err := keepsRoles(t, v); err != nil {
			return t.files, err
		}
		revs := renewedRevocations(t, now)
		if revs.Revoked, err = widened(revs.Revoked, v); err != nil {
			return t.files, err
		}
		files := t.files
		files.Revocations, err = signRevocations(revs, key)
		return files, err
	}})
}

// widened adds a revocation. What is revoked already can be revoked from an
// earlier time, not from a later one.
func widened(all []manifests.Revocation, v manifests.Revocation) ([]manifests.Revocation, error) {
	all = slices.Clone(all)
	for i, old := range all {
		if old.Key != v.Key || old.Manifest != v.Manifest || old.Blob != v.Blob || old.Issuer != v.Issuer || old.SAN != v.SAN {
			continue
		}
		if old.From.IsZero() || !v.From.IsZero() && !v.From.Before(old.From) {
			from := "the beginning"
			if !old.From.IsZero() {
				from = stamp.Format(old.From)
			}
			return nil, &api.Error{Code: api.CodeConflict, Message: "it is revoked from " + from + " on already: " + old.Reason,
				Hint: "a revocation can be moved to an earlier time, never taken back"}
		}
		all[i] = v
		return all, nil
	}
	return append(all, v), nil
}

// keepsRoles refuses to revoke a key without which a role could sign nothing any
// more: nobody could then change trust, nor take the revocation back.
func keepsRoles(t *inForce, v manifests.Revocation) error {
	revoked := append(slices.Clone(t.Revocations().Revoked), v)
	for name, role := range t.Root().Roles {
		if left := t.KeysLeft(name, revoked); t.Names(v.Key, name) && left < role.Threshold {
			return &api.Error{Code: api.CodeConflict,
				Message: fmt.Sprintf("without the key role %s has %d keys left of the %d that must sign", name, left, role.Threshold),
				Hint:    "put another key in its place first: stella trust rotate root"}
		}
	}
	return nil
}

func renewedRevocations(t *inForce, now time.Time) *manifests.Revocations {
	r := *t.Revocations()
	r.Serial, r.RootVersion = r.Serial+1, t.Root().Version
	r.Issued, r.NextUpdate = now, now.AddDate(policyYears, 0, 0)
	return &r
}

func signRevocations(r *manifests.Revocations, keys ...*signingKey) (verify.RoleFile, error) {
	raw := manifests.EncodeRevocations(r)
	if _, err := manifests.ParseRevocations("revocations.toml", raw); err != nil {
		return verify.RoleFile{}, faults(api.CodeInvalid, "the revocations would not be valid", err)
	}
	return signRole(raw, keys...)
}
