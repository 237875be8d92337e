package engine

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// EraseData asks for an erasure, or agrees to one that somebody else has asked for: then the
// data goes.
func (s *site) EraseData(ctx context.Context, req api.ErasureRequest) (api.ErasureReport, error) {
	if req.Agree != nil {
		return s.agreeToErasure(ctx, *req.Agree, req.DryRun)
	}
	out := api.ErasureReport{Entries: slices.Compact(slices.Sorted(slices.Values(req.Entries))), Reason: clip(req.Reason), DryRun: req.DryRun}
	switch {
	case len(out.Entries) == 0 || len(out.Entries) > ledger.MaxErased:
		return out, invalid("an erasure names 1 to %d entries", ledger.MaxErased)
	case req.Reason == "":
		return out, invalid("a reason is needed: it is recorded, and stays")
	}
	for _, seq := range out.Entries {
		if err := s.e.db.Erasable(seq); err != nil {
			return out, erasureError(err)
		}
	}
	if err := s.sameWords(ctx, &out); err != nil || req.DryRun {
		return out, err
	}
	seq, err := s.e.db.RequestErasure(s.actor, ledger.ErasureRequest{Entries: out.Entries, Reason: out.Reason})
	if out.Seq = seq; err != nil {
		return out, erasureError(err)
	}
	out.Waits = s.e.eraseAgreed()
	return out, nil
}

// eraseAgreed erases what was agreed to be, and answers why it is still on disk where that
// fails: it is agreed all the same, and who has asked for something else gets it.
func (e *Engine) eraseAgreed() (waits string) {
	err := e.db.EraseAgreed()
	if err == nil {
		return ""
	}
	e.opt.Log.Error("what is agreed to be erased is still on disk", "entries", e.db.Waiting(), "error", err)
	return err.Error()
}

func (s *site) agreeToErasure(ctx context.Context, request int64, dry bool) (out api.ErasureReport, err error) {
	d, by, err := s.e.db.ErasureRequest(request)
	if err != nil {
		return out, erasureError(err)
	}
	out = api.ErasureReport{Entries: d.Entries, Actor: by, Reason: d.Reason, Agreed: true, DryRun: dry}
	if out.Copies, err = s.copiesWith(d.Entries); err != nil {
		return out, err
	}
	if err := s.sameWords(ctx, &out); err != nil {
		return out, err
	}
	same := func(a, b string) bool { return state.Person(a) == state.Person(b) }
	if dry {
		if same(s.actor, by) {
			err = store.ErrSamePerson
		}
		return out, erasureError(err)
	}
	seq, done, err := s.e.db.AgreeToErasure(s.actor, request, same)
	switch {
	case err == nil:
		out.Seq, out.Entries = seq, seqsOf(done.Entries)
	case !errors.Is(err, store.ErrErased) || s.e.db.Waiting() == 0: // else it is tried again
		return out, erasureError(err)
	}
	out.Waits = s.e.eraseAgreed()
	if now, err := s.copiesWith(d.Entries); err == nil { // a snapshot may have been finished meanwhile
		out.Copies = now
	}
	return out, nil
}

// sameWords names other entries with the same words. Damage elsewhere keeps nothing from being
// erased: it is said that not all were looked through. An error is that nobody waits any more.
func (s *site) sameWords(ctx context.Context, out *api.ErasureReport) (err error) {
	if out.AlsoIn, err = s.e.db.SameWords(ctx, out.Entries); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		out.Unsearched = strings.TrimPrefix(err.Error(), "store: ")
	}
	return nil
}

// copiesWith are the folders of the home with other ledgers that may have the data of entries,
// and the folder, wherever it is, of a snapshot that is being made.
func (s *site) copiesWith(seqs []int64) (out []string, err error) {
	snaps, err := Snapshots(s.e.opt.Home, "")
	if err != nil {
		return nil, err
	}
	for _, x := range snaps {
		if x.Size > slices.Min(seqs) {
			out = append(out, x.Path)
		}
	}
	if dir := s.e.copying.Load(); dir != nil {
		out = append(out, *dir)
	}
	kept, err := filepath.Glob(filepath.Join(s.e.opt.Home, "replaced", "*"))
	return append(out, kept...), err
}

// vanished is what the ledger that another takes the place of knows to be erased.
type vanished struct {
	gone []store.Gone
	said []int64 // only said to be
}

// again is what was erased again.
type again struct {
	erased []int64
	unsure []int64 // that are there, and were said to be erased
	waits  string  // why it is still on disk
}

// begin begins the epoch of the ledger that takes its place, in which it is erased again.
func (v vanished) begin(db *store.DB, actor string, d ledger.EpochStart, typed time.Time) (out again, err error) {
	if d.Erased, out.unsure, err = db.Back(v.gone, v.said); err != nil {
		return out, err
	}
	waits, err := db.BeginEpoch(actor, d, typed)
	if err != nil {
		return out, err
	}
	if out.erased = seqsOf(d.Erased); waits != nil {
		out.waits = waits.Error()
	}
	return out, nil
}

func seqsOf(list []ledger.ErasedData) (seqs []int64) {
	for _, x := range list {
		seqs = append(seqs, x.Seq)
	}
	return seqs
}

func erasureError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrSamePerson):
		return &api.Error{Code: api.CodeForbidden, Message: "who asked for an erasure cannot agree to it", Hint: "another person does, with stella ledger erase --agree SEQ"}
	case errors.Is(err, store.ErrNothingSaid):
		return &api.Error{Code: api.CodeConflict, Message: err.Error(), Hint: "ids, digests, codes and numbers are not erased: a replay of the ledger needs them"}
	case errors.Is(err, store.ErrErased), errors.Is(err, store.ErrNoRequest):
		return &api.Error{Code: api.CodeConflict, Message: err.Error()}
	}
	return dbError(err)
}
