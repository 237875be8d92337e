package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
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
	out := e.currentTrust().Warnings(e.opt.Now(), e.site.TrustWarning)
	if n := e.db.Waiting(); n > 0 {
		out = append(out, fmt.Sprintf("what is agreed to be erased is still on disk, entries: %d; stella bundle gc tries again", n))
	}
	return out
}

// change is a change of trust under way: an edit of the files in force.
type change struct {
	actor, reason string
	dryRun        bool
	edit          func(t *inForce, now time.Time) (verify.Files, error)
	before        func() error // the last step before it is recorded; may be nil
}

// changeTrust edits the trust files and puts them in force: judged as what
// follows, sealed, recorded, and then written to trust/. Once it is recorded
// nothing makes it an error any more.
func (e *Engine) changeTrust(c change) (api.TrustReport, error) {
	now, err := e.clock()
	if err != nil {
		return api.TrustReport{}, err
	}
	next, err := e.tryTrust(c, now)
	if err != nil {
		return api.TrustReport{}, err
	}
	return e.changed(next, c.dryRun), nil
}

// tryTrust makes, judges and, but for a dry run, commits what follows.
func (e *Engine) tryTrust(c change, now time.Time) (*inForce, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.writeUnwritten(); err != nil {
		return nil, err
	}
	files, err := c.edit(e.trust, now)
	if err != nil {
		return nil, err
	}
	t, err := e.trust.Successor(files, now)
	if err != nil {
		return nil, trustRefused(err)
	}
	next, err := e.withExtension(&inForce{t, files})
	if err != nil || c.dryRun {
		return next, err
	}
	if err := sealTrust(e.db.Blobs(), next.files); err != nil {
		return nil, spaceError(err)
	}
	if c.before != nil {
		if err := c.before(); err != nil {
			return nil, err
		}
	}
	entry := next.Change(c.reason)
	if _, err := e.db.Append(ledger.TrustChanged, c.actor, &entry); err != nil {
		return nil, dbError(err)
	}
	e.adopt(next)
	return next, nil
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

// adopt puts trust in force whose entry is written. Where trust/ cannot be
// written, the next change or the next open does it. e.mu is held.
func (e *Engine) adopt(next *inForce) {
	e.trust = next
	e.unwritten = writeTrust(filepath.Join(e.opt.Home, "trust"), next.files)
	if e.unwritten != nil {
		e.opt.Log.Error("trust is changed, and trust/ could not be written", "error", e.unwritten)
	}
}

// writeUnwritten writes trust/ if the change before could not: the folder may be
// one state behind the ledger, never two. e.mu is held.
func (e *Engine) writeUnwritten() error {
	if e.unwritten == nil {
		return nil
	}
	if e.unwritten = writeTrust(filepath.Join(e.opt.Home, "trust"), e.trust.files); e.unwritten != nil {
		return &api.Error{Code: api.CodeNotWritable, Message: "the trust in force cannot be written to trust/: " + e.unwritten.Error(),
			Hint: "mend the folder; nothing of trust is changed until it holds what the ledger names"}
	}
	return nil
}

// changed reports a change, and ends what it no longer allows.
func (e *Engine) changed(next *inForce, dryRun bool) api.TrustReport {
	r := e.report(next)
	r.DryRun = dryRun
	if !dryRun {
		r.Ended = e.runner.Rejudge()
		e.copyHead()
	}
	e.mu.RLock()
	if !dryRun && e.unwritten != nil {
		r.Warnings = append(r.Warnings, "trust/ could not be written, the next open does it: "+e.unwritten.Error())
	}
	e.mu.RUnlock()
	var err error
	if r.Refused, err = e.refusedBy(next); err != nil {
		r.Warnings = append(r.Warnings, "what the change refuses could not be found out: "+err.Error())
	}
	if !dryRun {
		if err := e.forgetRefused(r.Refused); err != nil {
			e.opt.Log.Error("what is kept of bundles that are refused could not be forgotten; hits are judged anew", "error", err)
		}
	}
	return r
}

// copyHead issues a checkpoint where copies of it lie outside the home: a home
// that is put back from before must be told from this one.
func (e *Engine) copyHead() {
	if len(e.site.CheckpointCopies) == 0 {
		return
	}
	if _, err := e.issueCheckpoint(); err != nil {
		e.opt.Log.Error("checkpoint", "error", err)
	}
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
			out = append(out, api.RefusedBundle{Ref: rec.Ref(), Digest: rec.Digest, Reason: string(api.CodeDamaged)})
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
	if err := s.e.acceptTime(s.actor, t); err != nil {
		return err
	}
	s.e.copyHead()
	return nil
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
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "")
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
	err := s.stillAllowed(b)
	out := api.ImportResult{Verdict: *b.res.Verdict, Bytes: b.res.FileBytes}
	if err != nil {
		return out, err
	}
	if err := addEvidence(b); err != nil {
		return out, spaceError(err)
	}
	put, next, err := s.putTrust(b)
	out.Seq, out.Already = put.Seq, put.Again
	if err != nil || next == nil {
		return out, err
	}
	r := s.e.changed(next, false)
	out.TrustChanged, out.Refused, out.Ended, out.Warnings = true, r.Refused, r.Ended, r.Warnings
	return out, nil
}

// putTrust seals, records and adopts; next is nil where nothing changes.
func (s *site) putTrust(b *awaiting) (put store.Admitted, next *inForce, err error) {
	e := s.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.trust != b.j.trust {
		return put, nil, errTrustMoved
	}
	if err := e.writeUnwritten(); err != nil {
		return put, nil, err
	}
	if err := store.SealAll(b.q); err != nil {
		return put, nil, spaceError(err)
	}
	entry := store.Admitting{Admission: b.res.Admission(), JudgedAt: b.j.floor}
	if b.res.Next != nil {
		if next, err = e.withExtension(&inForce{b.res.Next, b.res.NextFiles}); err != nil {
			return put, nil, err
		}
		if err := sealTrust(e.db.Blobs(), next.files); err != nil {
			return put, nil, spaceError(err)
		}
		c := next.Change("bundle " + b.res.Digest)
		entry.Change = &c
	}
	put, err = e.db.Admit(s.actor, entry)
	if err != nil || next == nil {
		return put, nil, err
	}
	e.adopt(next)
	return put, next, nil
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
