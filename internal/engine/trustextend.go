package engine

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// ExtendTrust implements [api.Trust].
func (s *site) ExtendTrust(_ context.Context, req api.TrustExtension) (api.TrustReport, error) {
	e := s.e
	now, err := e.clock()
	if err != nil {
		return api.TrustReport{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	rec, err := e.db.Extension()
	if err != nil {
		return api.TrustReport{}, dbError(err)
	}
	if req.Text == "" {
		x, err := e.draft(req, rec, now)
		if err != nil {
			return api.TrustReport{}, err
		}
		r := e.report(e.trust)
		r.Extension, r.DryRun = string(manifests.EncodeExtension(x)), true
		return r, nil
	}
	f := verify.RoleFile{Raw: []byte(req.Text)}
	for _, id := range slices.Sorted(maps.Keys(req.Signatures)) {
		if !e.trust.Names(id, verify.RoleBreakGlass) || e.trust.Revoked(id, now) {
			continue // it counts for nothing
		}
		f.Signatures = append(f.Signatures, attached(id, []byte(req.Signatures[id])))
	}
	next, err := e.trust.Extended(f, e.db.SiteID())
	if err != nil {
		return api.TrustReport{}, trustRefused(err)
	}
	x := next.Extension()
	if err := e.timely(x, rec, now); err != nil {
		return api.TrustReport{}, err
	}
	if req.DryRun {
		r := e.report(&inForce{next, e.trust.files})
		r.DryRun = true
		return r, nil
	}
	return s.putExtension(f, &inForce{next, e.trust.files})
}

// draft is the extension that this site needs.
func (e *Engine) draft(req api.TrustExtension, rec *ledger.TrustExtension, now time.Time) (*manifests.Extension, error) {
	root := e.trust.Root()
	if _, ok := root.Roles[verify.RoleBreakGlass]; !ok {
		return nil, &api.Error{Code: api.CodeForbidden, Message: "the root in force names no break_glass role",
			Hint: "who may go on with expired trust is decided beforehand, in root.toml: [roles.break_glass] and max_extension"}
	}
	if req.Reason == "" {
		return nil, invalid("a reason is needed: it is signed and recorded")
	}
	until := now.Add(root.MaxExtension)
	if req.Until != "" {
		var err error
		if until, err = stamp.Parse(req.Until); err != nil {
			return nil, invalid("%v", err)
		}
	}
	ref := e.trust.Ref()
	x := &manifests.Extension{
		SiteID: e.db.SiteID(), Serial: 1, Root: ref.Root, Policy: ref.Policy, Revocations: ref.Revocations,
		Issued: now, Until: until, Reason: clip(req.Reason),
	}
	if rec != nil {
		x.Serial = rec.Serial + 1
	}
	if until.Sub(now) > root.MaxExtension || !until.After(now) {
		return nil, invalid("an extension lasts at most %s: until %s", root.MaxExtension, stamp.Format(now.Add(root.MaxExtension)))
	}
	if _, err := manifests.ParseExtension("extension.toml", manifests.EncodeExtension(x)); err != nil {
		return nil, faults(api.CodeInvalid, "the extension would not be valid", err)
	}
	return x, nil
}

// timely checks what the signers of an extension could not know: that it is the
// next one, about the files in force, and neither over nor from the future.
func (e *Engine) timely(x *manifests.Extension, rec *ledger.TrustExtension, now time.Time) error {
	const slack = 10 * time.Minute // THREATS 12
	ref := e.trust.Ref()
	want := int64(1)
	if rec != nil {
		want = rec.Serial + 1
	}
	fault := ""
	switch {
	case x.Serial != want:
		fault = "its serial is not the next one"
	case x.Policy != ref.Policy || x.Revocations != ref.Revocations:
		fault = "it is about trust files that are not in force"
	case x.Issued.After(now.Add(slack)):
		fault = "it was issued after the clock of this machine"
	case !x.Until.After(now):
		fault = "it is over"
	}
	if fault == "" {
		return nil
	}
	return trustRefused(&verify.RejectError{
		Reason: verify.ExtensionInvalid, Subject: "extension.toml", Detail: fault,
		Hint: "draft it anew: stella trust break-glass --reason TEXT --out extension.toml",
	})
}

// putExtension seals, records and adopts an extension. e.mu is held.
func (s *site) putExtension(f verify.RoleFile, next *inForce) (api.TrustReport, error) {
	e := s.e
	x := next.Extension()
	entry := &ledger.TrustExtension{
		File: bundle.Digest(f.Raw), Serial: x.Serial, Root: x.Root, Policy: x.Policy, Until: stamp.Format(x.Until), Reason: x.Reason,
	}
	if _, err := e.db.Blobs().PutFile(f.Raw); err != nil {
		return api.TrustReport{}, spaceError(err)
	}
	for _, sig := range f.Signatures {
		digest, err := e.db.Blobs().PutFile(sig.Data)
		if err != nil {
			return api.TrustReport{}, spaceError(err)
		}
		entry.Signatures, entry.Signers = append(entry.Signatures, digest), append(entry.Signers, sig.ID)
	}
	slices.Sort(entry.Signatures)
	if _, err := e.db.Append(ledger.TrustExtended, s.actor, entry); err != nil {
		return api.TrustReport{}, dbError(err)
	}
	e.trust = next
	e.copyHead()
	return e.report(next), nil
}
