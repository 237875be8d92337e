package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// ImportBundle judges a bundle and seals what it admits. The medium is read
// once; until the last byte is judged everything lies in a quarantine.
func (s *site) ImportBundle(ctx context.Context, req api.ImportRequest, p api.Progress) (api.ImportResult, error) {
	if err := s.e.enter(ctx); err != nil {
		return api.ImportResult{}, err
	}
	defer s.e.leave()
	out, err := s.importOne(ctx, req, p)
	if err == nil {
		s.e.copyHead()
	}
	out.Warnings = append(out.Warnings, s.e.warnings()...)
	return out, err
}

// importsAtOnce is how many files are judged at a time: a medium that is slow
// does not keep others waiting.
const importsAtOnce = 4

// enter waits for a turn to judge a file.
func (e *Engine) enter(ctx context.Context) error {
	select {
	case e.importing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *Engine) leave() { <-e.importing }

// errTrustMoved says that trust changed while a bundle was judged.
var errTrustMoved = &api.Error{Code: api.CodeConflict, Message: "trust changed while the bundle was judged", Hint: "import it again"}

// moved says whether a judgement must be made again: under another trust, or
// against another floor.
func moved(err error) bool {
	return errors.Is(err, store.ErrFloorMoved) || errors.Is(err, errTrustMoved)
}

// importOne judges a bundle and admits it by itself.
func (s *site) importOne(ctx context.Context, req api.ImportRequest, p api.Progress) (api.ImportResult, error) {
	const tries = 4
	for try := 1; ; try++ {
		q, res, j, err := s.judgeFile(ctx, req, p, nil)
		var known *knownError
		if errors.As(err, &known) {
			return known.out, nil
		}
		if err != nil {
			return api.ImportResult{}, err
		}
		out, err := s.admit(q, res, j)
		q.Discard()
		if !moved(err) || try == tries {
			return out, dbError(err)
		}
	}
}

// judgeFile judges a bundle into a new quarantine, which the caller discards
// once the admission is written. A refusal is recorded here. before, if set, is
// called before floors and holdings are looked at.
func (s *site) judgeFile(ctx context.Context, req api.ImportRequest, p api.Progress, before func(*manifests.Bundle)) (*store.Quarantine, *verify.Result, *judging, error) {
	e, path := s.e, req.Path
	if err := e.room(path); err != nil {
		return nil, nil, nil, err
	}
	q, err := e.db.Blobs().Quarantine()
	if err != nil {
		return nil, nil, nil, internal(err)
	}
	now, err := e.clock()
	if err != nil {
		q.Discard()
		return nil, nil, nil, err
	}
	j := &judging{trust: e.currentTrust(), now: now, dir: q.Dir(), sink: quarantined{q}, before: before, only: req.Kind}
	j.holdings = holdings{e: e, whole: q.Has}
	res, err := e.check(ctx, path, j, p)
	if err == nil {
		err = e.fit(q, res, req)
		if err == nil {
			return q, res, j, nil
		}
	}
	q.Discard()
	var refusal *verify.RejectError
	if !errors.As(err, &refusal) {
		return nil, res, nil, readError(path, err)
	}
	if known := e.knownTrust(res, refusal); known != nil {
		return nil, res, nil, known
	}
	seq, aerr := e.db.Reject(s.actor, res.Rejection(err))
	if aerr != nil {
		return nil, res, nil, dbError(aerr)
	}
	return nil, res, nil, rejected(path, res, refusal, seq)
}

// admit seals the evidence with the contents, and writes the admission. See
// [moved] for errors after which the bundle is to be judged again.
func (s *site) admit(q *store.Quarantine, res *verify.Result, j *judging) (api.ImportResult, error) {
	if res.Manifest.Kind == manifests.KindSecrets {
		return api.ImportResult{}, invalid("%s is a secrets bundle: its signatures are good, but this version does not take such bundles in", res.Manifest.Ref())
	}
	b := &awaiting{q: q, res: res, j: j}
	if res.Manifest.Kind == manifests.KindTrust {
		return s.admitTrust(b)
	}
	outs, err := s.admitAll([]*awaiting{b})
	if err != nil {
		return api.ImportResult{Verdict: *res.Verdict, Bytes: res.FileBytes}, err
	}
	return outs[0], nil
}

// An awaiting bundle waits for its admission in its quarantine.
type awaiting struct {
	path string
	q    *store.Quarantine
	res  *verify.Result
	j    *judging
}

// admitAll seals and admits bundles of one trust together, or none of them.
func (s *site) admitAll(all []*awaiting) ([]api.ImportResult, error) {
	e := s.e
	outs := make([]api.ImportResult, len(all))
	qs := make([]*store.Quarantine, len(all))
	entries := make([]store.Admitting, len(all))
	for i, b := range all {
		if err := s.stillAllowed(b); err != nil {
			return nil, err
		}
		outs[i] = api.ImportResult{Verdict: *b.res.Verdict, Bytes: b.res.FileBytes}
		if err := addEvidence(b); err != nil {
			return nil, spaceError(err)
		}
		qs[i], entries[i] = b.q, store.Admitting{Admission: b.res.Admission(), JudgedAt: b.j.floor}
	}
	if err := store.SealAll(qs...); err != nil {
		return nil, spaceError(err)
	}
	e.mu.RLock() // trust does not change between here and the entry
	defer e.mu.RUnlock()
	for _, b := range all {
		if e.trust != b.j.trust {
			return nil, errTrustMoved
		}
	}
	done, err := e.db.AdmitAll(s.actor, entries)
	if err != nil {
		return nil, err
	}
	for i := range outs {
		outs[i].Seq, outs[i].Already = done[i].Seq, done[i].Again
		e.sealed.forget(all[i].res.Digest)
	}
	return outs, nil
}

// stillAllowed judges a bundle again whose medium took its time: what was in its
// time when the reading began may have expired since. The verdict is then of now: an
// auditor holds it against the time of its entry. See [moved].
func (s *site) stillAllowed(b *awaiting) error {
	const soon = 10 * time.Second
	e := s.e
	now, err := e.clock()
	if err != nil || now.Sub(b.j.now) < soon {
		return err
	}
	ev := verify.Evidence{Manifest: b.res.Raw, Signatures: b.res.Signatures, Attestations: b.res.Attestations}
	again, err := b.j.trust.Rejudge(ev, e.db.SiteID(), e.opt.Version, now)
	var refusal *verify.RejectError
	if errors.As(err, &refusal) {
		return errTrustMoved // judged again it gets its reason
	}
	if err != nil {
		return err
	}
	again.Checks, again.Ignored = b.res.Verdict.Checks, b.res.Verdict.Ignored // of all that was checked, its contents too
	b.res.Verdict = again
	return nil
}

// addEvidence puts what a bundle was judged by beside its contents.
func addEvidence(b *awaiting) error {
	if err := b.q.AddBytes(b.res.Raw); err != nil {
		return err
	}
	for _, a := range slices.Concat(b.res.Signatures, b.res.Attestations) {
		if err := b.q.AddBytes(a.Data); err != nil {
			return err
		}
	}
	return nil
}

// VerifyBundle judges a bundle as an import would, and keeps nothing.
func (s *site) VerifyBundle(ctx context.Context, req api.VerifyRequest, p api.Progress) (ledger.Verdict, error) {
	var now time.Time
	var err error
	if req.AsOf != "" {
		if now, err = stamp.Parse(req.AsOf); err != nil {
			return ledger.Verdict{}, invalid("%v", err)
		}
	} else if now, err = s.e.clock(); err != nil {
		return ledger.Verdict{}, err
	}
	res, err := s.e.verifyFile(ctx, req.Path, now, nil, p)
	if err != nil && req.AsOf != "" {
		err = JudgedAsOf(err, now)
	}
	if err != nil {
		return ledger.Verdict{}, err
	}
	return *res.Verdict, nil
}

// verifyFile judges a bundle and keeps nothing. extra, if set, adds to what a
// delta may leave out. The result is nil when there was nothing to judge.
func (e *Engine) verifyFile(ctx context.Context, path string, now time.Time, extra func(publisher, name string) map[string]bool, p api.Progress) (*verify.Result, error) {
	dir, err := os.MkdirTemp(filepath.Join(e.opt.Home, "quarantine"), "verify-")
	if err != nil {
		return nil, internal(err)
	}
	defer os.RemoveAll(dir)
	j := &judging{trust: e.currentTrust(), now: now, dir: dir}
	j.holdings = holdings{e: e, extra: extra, whole: func(digest string) bool {
		_, err := e.db.Blobs().Check(digest)
		return err == nil
	}}
	res, err := e.check(ctx, path, j, p)
	var refusal *verify.RejectError
	switch {
	case errors.As(err, &refusal):
		return res, rejected(path, res, refusal, 0)
	case err != nil:
		return res, readError(path, err)
	}
	return res, nil
}

// judging is one judgement: what it is made under, and what it saw.
type judging struct {
	trust    *inForce
	now      time.Time
	dir      string // for the spool
	sink     verify.Sink
	floor    store.Floor // that it was held against
	holdings holdings
	before   func(*manifests.Bundle) // the manifest is signed by somebody known, and nothing of the site was asked yet; may be nil
	only     string                  // kind that is wanted; "" for any
}

// check opens a bundle on a medium and judges it.
func (e *Engine) check(ctx context.Context, path string, j *judging, p api.Progress) (*verify.Result, error) {
	f, err := fsx.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	spool := &spoolFile{path: filepath.Join(j.dir, "spool")}
	defer spool.Close()
	r := &watched{ctx: ctx, r: f, total: fi.Size(), progress: p}
	return verify.Check(r, j.trust.Trust, verify.Options{
		Files: &j.trust.files,
		Now:   j.now, Limits: bundle.Limits{Bytes: e.site.MaxBundleBytes, Size: fi.Size()}, SiteID: e.db.SiteID(), Stella: e.opt.Version,
		Spool: spool, Floors: func(m *manifests.Bundle, digest string) (verify.Floors, error) { return e.floors(j, m, digest) },
		Have: j.holdings.have,
	}, j.sink)
}

func (e *Engine) floors(j *judging, m *manifests.Bundle, digest string) (verify.Floors, error) {
	var f verify.Floors
	if j.only != "" && string(m.Kind) != j.only {
		return f, invalid("%s is of kind %s, a %s bundle is wanted", m.Ref(), m.Kind, j.only)
	}
	if j.before != nil {
		j.before(m)
	}
	if j.sink != nil {
		if err := e.roomFor(m); err != nil {
			return f, err
		}
	}
	var err error
	if f.Version, err = e.db.DigestOf(m.Ref()); err != nil {
		return f, err
	}
	f.Admitted = f.Version == digest // here, or by the ledger before
	j.floor, err = e.db.Floor(string(m.Kind), m.Publisher, m.Name)
	f.Sequence, f.Digest, f.Epoch = j.floor.Sequence, j.floor.Digest, j.floor.Epoch
	return f, err
}

// quarantined is the sink of an import.
type quarantined struct{ q *store.Quarantine }

func (s quarantined) Blob(b *bundle.Blob) (verify.BlobWriter, error) {
	w, err := s.q.Begin(b.SHA256)
	if w == nil || err != nil {
		return nil, err
	}
	return w, nil
}

// watched is a reader that can be interrupted and says how far it is.
type watched struct {
	ctx         context.Context
	r           io.Reader
	done, total int64
	progress    api.Progress
}

func (w *watched) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &mediumError{w.done + int64(n), err}
	}
	w.done += int64(n)
	if w.progress != nil {
		w.progress(w.done, w.total)
	}
	return n, err
}

// mediumError says that a medium could not be read.
type mediumError struct {
	at  int64
	err error
}

func (e *mediumError) Error() string { return fmt.Sprintf("byte %d cannot be read: %v", e.at, e.err) }
func (e *mediumError) Unwrap() error { return e.err }

// room refuses an import that would eat into the space that is kept for the
// ledger.
func (e *Engine) room(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return readError(path, err)
	}
	if fi.Size() > e.site.MaxBundleBytes {
		return nil // which is the refusal; space would be the wrong advice
	}
	return e.roomOf(filepath.Base(path), fi.Size())
}

// roomFor is room once the manifest says how large the contents are: those that
// are not sealed yet, and the largest stored one, which is spooled.
func (e *Engine) roomFor(m *manifests.Bundle) error {
	var need, spool int64
	seen := map[string]bool{}
	for _, f := range m.Files {
		spool = max(spool, f.StoredSize)
		if seen[f.SHA256] {
			continue
		}
		seen[f.SHA256] = true
		if _, err := os.Lstat(e.db.Blobs().Path(f.SHA256)); err != nil {
			need += f.Size
		}
	}
	return e.roomOf(m.Ref(), need+spool)
}

func (e *Engine) roomOf(what string, need int64) error {
	free, err := freeIn(e.opt.Home)
	if err != nil {
		return internal(err)
	}
	if free-need < e.site.FreeSpaceReserve {
		return &api.Error{Code: api.CodeNoSpace,
			Message: fmt.Sprintf("%s needs %d bytes, %d are free and %d are kept for the ledger", what, need, free, e.site.FreeSpaceReserve),
			Hint:    "free space (stella bundle gc), or lower free_space_reserve in site.toml"}
	}
	return nil
}

func spaceError(err error) error {
	switch {
	case noSpace(err):
		return &api.Error{Code: api.CodeNoSpace, Message: err.Error(), Hint: "free space and try again; nothing was kept"}
	case errors.Is(err, syscall.EFBIG):
		return &api.Error{Code: api.CodeNotWritable, Message: err.Error(), Hint: helpsLarge + " and try again; nothing was kept"}
	}
	return internal(err)
}

func readError(path string, err error) error {
	var known *api.Error
	var medium *mediumError
	var file *os.PathError
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &medium), errors.As(err, &file) && file.Path == path && failing(err):
		return &api.Error{Code: api.CodeMedium, Message: fmt.Sprintf("%s: %v", path, err),
			Hint: "nothing of it was kept; put the medium in again, or copy the file anew, and import it again"}
	case errors.Is(err, os.ErrNotExist):
		return notFound("%s: no such file", path)
	case errors.Is(err, fsx.ErrNotRegular):
		return invalid("%s is not a regular file", path)
	case errors.Is(err, os.ErrPermission):
		return &api.Error{Code: api.CodeInvalid, Message: path + ": permission denied", Hint: "the user of the site must be able to read it"}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return spaceError(err)
	}
	return internal(fmt.Errorf("%s: %w", path, err))
}

// failing says whether err is that of a medium that fails or is gone.
func failing(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ESTALE)
}

// hashOfRead is the hash of what was read of a file, "" for nothing.
func hashOfRead(res *verify.Result) string {
	if res.FileBytes == 0 {
		return ""
	}
	return res.FileSHA256
}

// rejected says what a refusal was, and what to do about it.
func rejected(path string, res *verify.Result, r *verify.RejectError, seq int64) error {
	f := refusalOf(r)
	f.Offset, f.SHA256, f.Digest, f.Seq, f.Report = res.FileBytes, hashOfRead(res), res.Digest, seq, Report(res.Report(r))
	return &api.Error{
		Code: api.Code(r.Reason), Message: filepath.Base(path) + ": " + r.Error(), Hint: r.Hint, Refusal: f,
	}
}
