package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// nextKey is where a new key of the root lies until the trust that it signs is
// on record.
const nextKey = rootKey + ".next"

// RotateTrust implements [api.Trust].
func (s *site) RotateTrust(_ context.Context, r api.TrustRotation) (api.TrustReport, error) {
	if r.Publisher == "" {
		return s.e.rotateRoot(s.actor, r)
	}
	return s.e.changeTrust(change{actor: s.actor, reason: "rotation of a key of " + r.Publisher, dryRun: r.DryRun, edit: func(t *inForce, now time.Time) (verify.Files, error) {
		key, err := s.e.rootSigner(t, r.RootKey, verify.RolePolicy)
		if err != nil {
			return t.files, err
		}
		p, err := rotatedPolicy(t, r, now)
		if err != nil {
			return t.files, err
		}
		files := t.files
		files.Policy, err = signPolicy(p, key)
		return files, err
	}})
}

// rotatedPolicy adds the new key of a publisher, and gives the old one an end.
func rotatedPolicy(t *inForce, r api.TrustRotation, now time.Time) (*manifests.Policy, error) {
	p := renewed(t, *t.Policy(), now)
	p.Publishers = slices.Clone(p.Publishers)
	i := slices.IndexFunc(p.Publishers, func(x manifests.Publisher) bool { return x.Name == r.Publisher })
	if i < 0 {
		return nil, notFound("the policy names no publisher %q", r.Publisher)
	}
	if _, err := verify.ParsePublicKey([]byte(r.NewKey)); err != nil {
		return nil, invalid("the new key: %v", err)
	}
	x := &p.Publishers[i]
	x.Keys = slices.Clone(x.Keys)
	var old *manifests.PublisherKey
	for k := range x.Keys {
		pub, err := verify.ParsePublicKey([]byte(x.Keys[k].PEM))
		if err != nil {
			return nil, internal(err)
		}
		if id := verify.KeyID(pub); r.OldKey == id || r.OldKey == "" && len(x.Keys) == 1 {
			old = &x.Keys[k]
		}
	}
	if old == nil {
		return nil, invalid("%s has %d keys: name the one that goes by its id (stella trust show)", r.Publisher, len(x.Keys))
	}
	until := now.Add(time.Duration(r.OverlapMs) * time.Millisecond)
	switch {
	case r.OverlapMs < 0:
		return nil, invalid("the overlap is below zero")
	case !old.ValidUntil.IsZero() && old.ValidUntil.Before(until): // it ends earlier by itself
	case !until.After(old.ValidFrom):
		return nil, invalid("the old key is not valid yet: add the new one, and revoke the old")
	default:
		old.ValidUntil = until
	}
	x.Keys = append(x.Keys, manifests.PublisherKey{PEM: r.NewKey})
	return p, nil
}

// rotateRoot makes the next root: the new key takes the place of the old one in
// every role, both sign the root, and the new one everything below it. A key that
// is made here is on disk before the root that names it is recorded, and takes
// the old one's place afterwards, or at the next open.
func (e *Engine) rotateRoot(actor string, r api.TrustRotation) (api.TrustReport, error) {
	e.rotating.Lock()
	defer e.rotating.Unlock()
	old, err := e.rootSigner(e.currentTrust(), r.RootKey, verify.RoleRoot)
	if err != nil {
		return api.TrustReport{}, err
	}
	if err := e.keepsKeys(old, r); err != nil {
		return api.TrustReport{}, err
	}
	next, raw, err := nextRootKey(r)
	if err != nil {
		return api.TrustReport{}, err
	}
	c := change{actor: actor, reason: "rotation of the root", dryRun: r.DryRun, edit: func(t *inForce, now time.Time) (verify.Files, error) {
		return rotatedRoot(t, old, next, now)
	}}
	if raw != nil {
		c.before = func() error {
			if err := fsx.WriteFile(filepath.Join(e.opt.Home, "keys", nextKey), raw, 0o600); err != nil {
				return spaceError(err)
			}
			return nil
		}
	}
	rep, err := e.changeTrust(c)
	if err != nil || r.DryRun {
		return rep, err
	}
	if raw == nil {
		if k, kerr := e.readRootKey(""); kerr == nil && !e.currentTrust().Names(k.id, verify.RoleRoot) {
			rep.Warnings = append(rep.Warnings, filepath.Join(e.opt.Home, "keys", rootKey)+" signs nothing any more: destroy it")
		}
		return rep, nil
	}
	rep.RootKey = filepath.Join(e.opt.Home, "keys", rootKey)
	if err := e.finishRotation(); err != nil {
		rep.RootKey = filepath.Join(e.opt.Home, "keys", nextKey)
		rep.Warnings = append(rep.Warnings, "the new key of the root could not be put in its place, the next open does it: "+err.Error())
	}
	return rep, nil
}

// keepsKeys refuses a rotation that would write a new key over one that still has
// a role: that of a rotation which could not be finished, or another one in
// keys/root.key.
func (e *Engine) keepsKeys(old *signingKey, r api.TrustRotation) error {
	if r.NewRootKey != "" {
		return nil
	}
	for _, name := range []string{nextKey, rootKey} {
		path := filepath.Join(e.opt.Home, "keys", name)
		k, err := readSigningKey(path)
		if err != nil || k.id == old.id && name == rootKey || !e.currentTrust().Names(k.id, verify.RoleRoot) {
			continue
		}
		return &api.Error{Code: api.CodeConflict, Message: path + " is a key of the root in force, and would be written over",
			Hint: "make the next key elsewhere (stella bundle keygen), and name it with --new-root-key"}
	}
	return nil
}

// nextRootKey reads the private key of the next root, or makes one; raw is then
// its file.
func nextRootKey(r api.TrustRotation) (k *signingKey, raw []byte, err error) {
	if r.NewRootKey != "" {
		if k, err = readSigningKey(r.NewRootKey); err != nil {
			return nil, nil, readError(r.NewRootKey, err)
		}
		return k, nil, nil
	}
	key, err := verify.GenerateKey()
	if err != nil {
		return nil, nil, internal(err)
	}
	if raw, err = verify.MarshalPrivateKey(key); err != nil {
		return nil, nil, internal(err)
	}
	k, err = newSigningKey(key)
	return k, raw, err
}

func rotatedRoot(t *inForce, old, next *signingKey, now time.Time) (verify.Files, error) {
	root := *t.Root()
	root.Version = root.Version + 1
	if now.After(root.Issued) {
		root.Issued = now // it never falls, not even where the clock was once ahead
	}
	root.Expires = root.Issued.AddDate(rootYears, 0, 0)
	root.Roles = map[string]manifests.Role{}
	found := false
	for name, role := range t.Root().Roles {
		role.Keys = slices.Clone(role.Keys)
		for i, pem := range role.Keys {
			pub, err := verify.ParsePublicKey([]byte(pem))
			if err != nil {
				return t.files, internal(err)
			}
			if verify.KeyID(pub) == old.id {
				role.Keys[i], found = next.pem, true
			}
		}
		root.Roles[name] = role
	}
	if !found {
		return t.files, invalid("the key %s has no role in root %d", old.id, t.Root().Version)
	}
	for name, role := range root.Roles {
		if name != verify.RoleBreakGlass && role.Threshold > 1 {
			return t.files, &api.Error{Code: api.CodeInvalid,
				Message: "role " + name + " needs more keys than one",
				Hint:    "write the next root.toml, have it signed by stella trust sign, and import it as a trust bundle"}
		}
	}
	raw := manifests.EncodeRoot(&root)
	if _, err := manifests.ParseRoot("root.toml", raw); err != nil {
		return t.files, faults(api.CodeInvalid, "the root would not be valid", err)
	}
	signed, err := signRole(raw, old, next)
	if err != nil {
		return t.files, err
	}
	files := t.files
	files.Roots = append(slices.Clone(files.Roots), signed)
	p := renewed(t, *t.Policy(), now)
	p.RootVersion = root.Version
	if files.Policy, err = signPolicy(p, next); err != nil {
		return files, err
	}
	if files.Revocations.Raw != nil {
		revs := renewedRevocations(t, now)
		revs.RootVersion = root.Version
		files.Revocations, err = signRevocations(revs, next)
	}
	return files, err
}

// finishRotation puts a new key of the root in its place, once a root names it.
// One that no root names is left over from a rotation that came to nothing.
func (e *Engine) finishRotation() error {
	made := filepath.Join(e.opt.Home, "keys", nextKey)
	k, err := readSigningKey(made)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", made, err)
	}
	if e.currentTrust().Names(k.id, verify.RoleRoot) {
		return fsx.Rename(made, filepath.Join(e.opt.Home, "keys", rootKey))
	}
	return os.Remove(made)
}
