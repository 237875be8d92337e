package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// inForce is the trust of a site with its files. It never changes.
type inForce struct {
	*verify.Trust
	files verify.Files
}

// ShowTrust implements [api.Trust].
func (s *site) ShowTrust(context.Context) (api.TrustReport, error) {
	return s.e.report(s.e.currentTrust()), nil
}

func (e *Engine) report(t *inForce) api.TrustReport {
	r := api.TrustReport{
		Trust: t.Ref(), SiteID: e.db.SiteID(), FleetID: t.Root().FleetID,
		Root: string(t.files.Roots[len(t.files.Roots)-1].Raw), Policy: string(t.files.Policy.Raw),
		Revocations: string(t.files.Revocations.Raw), Warnings: t.Warnings(e.opt.Now(), e.site.TrustWarning),
	}
	if x := t.Extension(); x != nil {
		r.Extension = string(manifests.EncodeExtension(x))
	}
	return r
}

// warnings say what is about to end of the trust in force.
func (e *Engine) warnings() []string {
	return e.currentTrust().Warnings(e.opt.Now(), e.site.TrustWarning)
}

// change is a change of trust under way: an edit of the files in force.
type change struct {
	actor, reason string
	dryRun        bool
	edit          func(t *inForce, now time.Time) (verify.Files, error)
}

// changeTrust edits the trust files and puts them in force: judged as what
// follows, sealed, recorded, and then written to trust/.
func (e *Engine) changeTrust(c change) (api.TrustReport, error) {
	now, err := e.clock()
	if err != nil {
		return api.TrustReport{}, err
	}
	e.mu.Lock()
	next, err := e.prepareTrust(c, now)
	if err != nil || c.dryRun {
		e.mu.Unlock()
		if err != nil {
			return api.TrustReport{}, err
		}
		return e.changed(next, true)
	}
	err = e.commitTrust(c, next)
	e.mu.Unlock()
	if err != nil {
		return api.TrustReport{}, err
	}
	return e.changed(next, false)
}

// prepareTrust makes and judges what follows. e.mu is held.
func (e *Engine) prepareTrust(c change, now time.Time) (*inForce, error) {
	files, err := c.edit(e.trust, now)
	if err != nil {
		return nil, err
	}
	next, err := e.trust.Successor(files, now)
	if err != nil {
		return nil, trustRefused(err)
	}
	return e.withExtension(&inForce{next, files})
}

// withExtension applies the extension on record, which another root ends.
func (e *Engine) withExtension(next *inForce) (*inForce, error) {
	rec, err := e.db.Extension()
	if err != nil || rec == nil || rec.Root != next.Ref().Root {
		return next, dbError(err)
	}
	t, err := extend(e.db, next.Trust, rec)
	if err != nil {
		return nil, err
	}
	return &inForce{t, next.files}, nil
}

// commitTrust seals, records and writes. e.mu is held.
func (e *Engine) commitTrust(c change, next *inForce) error {
	if err := sealTrust(e.db.Blobs(), next.files); err != nil {
		return spaceError(err)
	}
	entry := next.Change(c.reason)
	if _, err := e.db.Append(ledger.TrustChanged, c.actor, &entry); err != nil {
		return dbError(err)
	}
	return e.adopt(next)
}

// adopt puts trust in force whose entry is written. e.mu is held.
func (e *Engine) adopt(next *inForce) error {
	e.trust = next
	if err := writeTrust(filepath.Join(e.opt.Home, "trust"), next.files); err != nil {
		return internal(err) // the next open mends it
	}
	return nil
}

// changed reports a change, and ends what it no longer allows.
func (e *Engine) changed(next *inForce, dryRun bool) (api.TrustReport, error) {
	r := e.report(next)
	r.DryRun = dryRun
	if !dryRun {
		r.Ended = e.runner.Rejudge()
	}
	var err error
	r.Refused, err = e.refusedBy(next)
	return r, err
}

// refusedBy lists the admitted bundles that a trust refuses now.
func (e *Engine) refusedBy(t *inForce) ([]api.RefusedBundle, error) {
	recs, err := e.db.Bundles()
	if err != nil {
		return nil, dbError(err)
	}
	var out []api.RefusedBundle
	for _, rec := range recs {
		if rec.Admission.Verdict.Kind == string(manifests.KindTrust) {
			continue // what it brought is in force, or was
		}
		_, err := e.sealed.judge(t, rec.Digest)
		var r *refused
		switch {
		case errors.As(err, &r):
			out = append(out, api.RefusedBundle{Ref: rec.Ref(), Digest: rec.Digest, Reason: r.Reason()})
		case err != nil:
			return nil, dbError(err)
		}
	}
	slices.SortFunc(out, func(a, b api.RefusedBundle) int { return compare(a.Ref, b.Ref) })
	return out, nil
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// trustRefused is a refusal of trust files as the API says it.
func trustRefused(err error) error {
	var r *verify.RejectError
	if !errors.As(err, &r) {
		return internal(err)
	}
	return &api.Error{
		Code: api.Code(r.Reason), Message: r.Error(), Hint: r.Hint,
		Refusal: refusalOf(r),
	}
}

// clock is the time to judge by.
func (e *Engine) clock() (time.Time, error) {
	now, err := e.db.Clock()
	if err != nil {
		return now, clockError(err)
	}
	return now, nil
}

func clockError(err error) error {
	hint := "set the clock; where it is right and the record is not: stella trust accept-time TIME --reason TEXT"
	switch {
	case errors.Is(err, store.ErrClockBehind):
		return &api.Error{Code: api.CodeClockBehind, Message: err.Error(), Hint: hint}
	case errors.Is(err, store.ErrClockAhead):
		return &api.Error{Code: api.CodeClockAhead, Message: err.Error(), Hint: hint}
	case errors.Is(err, store.ErrClockTyped):
		return &api.Error{Code: api.CodeInvalid, Message: err.Error(), Hint: "set the clock first, then type the time that another clock shows"}
	}
	return nil
}

// AcceptTime implements [api.Trust].
func (s *site) AcceptTime(_ context.Context, t api.TimeAcceptance) error {
	return s.e.acceptTime(s.actor, t)
}

func (e *Engine) acceptTime(actor string, t api.TimeAcceptance) error {
	at, err := stamp.Parse(t.Time)
	if err != nil {
		return invalid("%v", err)
	}
	if t.Reason == "" {
		return invalid("a reason is needed: it is recorded")
	}
	if _, err := e.db.Clock(); err == nil {
		return &api.Error{Code: api.CodeConflict, Message: "the clock agrees with the record: there is nothing to accept"}
	}
	_, err = e.db.AcceptTime(actor, clip(t.Reason), at)
	return dbError(err)
}

// clip bounds a text of an operator that goes into an entry.
func clip(s string) string {
	const most = 1024
	if len(s) > most {
		return s[:most]
	}
	return s
}

// A knownError is a bundle of kind trust that was admitted before and would be
// refused now: the roles that signed it may have given way to others since,
// through what it brought. It changes nothing any more, and is no reason to stop.
type knownError struct{ out api.ImportResult }

func (k *knownError) Error() string { return "the trust bundle was admitted before" }

// knownTrust recognises such a bundle; nil for others.
func (e *Engine) knownTrust(res *verify.Result, refusal *verify.RejectError) error {
	switch refusal.Reason {
	case verify.SignerUnknown, verify.SignerForeign, verify.ThresholdNotMet:
	default:
		return nil
	}
	rec, err := e.db.Bundle(res.Digest)
	if err != nil || rec.Admission.Verdict.Kind != string(manifests.KindTrust) {
		return nil
	}
	return &knownError{api.ImportResult{Verdict: rec.Admission.Verdict, Already: true, Seq: rec.Seq, Bytes: res.FileBytes}}
}

// admitTrust seals and admits a bundle of kind trust, and puts in force what it
// brings.
func (s *site) admitTrust(b *awaiting) (api.ImportResult, error) {
	out := api.ImportResult{Verdict: *b.res.Verdict, Bytes: b.res.FileBytes}
	if _, err := s.e.db.Bundle(b.res.Digest); err == nil {
		out.Already = true
	} else if !store.IsNotFound(err) {
		return out, dbError(err)
	}
	if err := addEvidence(b); err != nil {
		return out, spaceError(err)
	}
	seq, next, err := s.putTrust(b)
	out.Seq = seq
	if err != nil || next == nil {
		return out, err
	}
	r, err := s.e.changed(next, false)
	out.TrustChanged, out.Refused, out.Ended = true, r.Refused, r.Ended
	return out, err
}

// putTrust seals, records and adopts; next is nil where nothing changes.
func (s *site) putTrust(b *awaiting) (seq int64, next *inForce, err error) {
	e := s.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.trust != b.j.trust {
		return 0, nil, errTrustMoved
	}
	if err := store.SealAll(b.q); err != nil {
		return 0, nil, spaceError(err)
	}
	entry := store.Admitting{Admission: b.res.Admission(), JudgedAt: b.j.floor}
	if b.res.Next != nil {
		if next, err = e.withExtension(&inForce{b.res.Next, b.res.NextFiles}); err != nil {
			return 0, nil, err
		}
		if err := sealTrust(e.db.Blobs(), next.files); err != nil {
			return 0, nil, spaceError(err)
		}
		c := next.Change("bundle " + b.res.Digest)
		entry.Change = &c
	}
	seq, err = e.db.Admit(s.actor, entry)
	if err != nil || next == nil {
		return seq, nil, err
	}
	return seq, next, e.adopt(next)
}

// LoadTrust loads the trust files of a home without opening its site, for
// judgements outside it. They are held against nothing but their signatures.
func LoadTrust(home string) (*verify.Trust, error) {
	t, _, err := LoadTrustDir(filepath.Join(home, "trust"))
	return t, err
}

// extend applies a recorded extension to the trust that it was signed under.
func extend(db *store.DB, t *verify.Trust, rec *ledger.TrustExtension) (*verify.Trust, error) {
	f := verify.RoleFile{}
	var err error
	if f.Raw, err = db.Blobs().Read(rec.File, maxTrustFile); err != nil {
		return nil, dbError(err)
	}
	for _, digest := range rec.Signatures {
		raw, err := db.Blobs().Read(digest, maxTrustFile)
		if err != nil {
			return nil, dbError(err)
		}
		d, err := verify.Describe(raw)
		if err != nil {
			return nil, damaged("a signature of the extension on record: %v", err)
		}
		f.Signatures = append(f.Signatures, attached(d.ID, raw))
	}
	next, err := t.Extended(f, db.SiteID())
	if err != nil {
		return nil, fmt.Errorf("the extension on record: %w", err)
	}
	return next, nil
}
