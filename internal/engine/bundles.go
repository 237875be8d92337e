package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"syscall"

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
	e := s.e
	e.importing.Lock()
	defer e.importing.Unlock()
	if err := e.room(req.Path); err != nil {
		return api.ImportResult{}, err
	}
	q, err := e.db.Blobs().Quarantine()
	if err != nil {
		return api.ImportResult{}, internal(err)
	}
	defer q.Discard()
	now, err := e.clock()
	if err != nil {
		return api.ImportResult{}, err
	}
	j := &judging{trust: e.currentTrust(), now: now, dir: q.Dir(), sink: quarantined{q}, only: req.Kind}
	res, err := e.check(ctx, req.Path, j, p)
	var refusal *verify.RejectError
	switch {
	case errors.As(err, &refusal):
		if out, ok := e.knownTrust(res, refusal); ok {
			return out, nil
		}
		seq, aerr := e.db.Reject(s.actor, res.Rejection(err))
		if aerr != nil {
			return api.ImportResult{}, dbError(aerr)
		}
		return api.ImportResult{}, rejected(req.Path, res, refusal, seq)
	case err != nil:
		return api.ImportResult{}, readError(req.Path, err)
	}
	return s.admit(q, res, j)
}

// admit seals the evidence with the contents, and writes the admission.
func (s *site) admit(q *store.Quarantine, res *verify.Result, j *judging) (api.ImportResult, error) {
	e := s.e
	if res.Manifest.Kind == manifests.KindSecrets {
		return api.ImportResult{}, invalid("%s is a secrets bundle: its signatures are good, but this version does not take such bundles in", res.Manifest.Ref())
	}
	out := api.ImportResult{Verdict: *res.Verdict, Bytes: res.FileBytes}
	if _, err := e.db.Bundle(res.Digest); err == nil {
		out.Already = true
	} else if !store.IsNotFound(err) {
		return out, dbError(err)
	}
	raws := [][]byte{res.Raw}
	for _, a := range slices.Concat(res.Signatures, res.Attestations) {
		raws = append(raws, a.Data)
	}
	for _, raw := range raws {
		if err := q.AddBytes(raw); err != nil {
			return out, internal(err)
		}
	}
	if res.Manifest.Kind == manifests.KindTrust {
		return s.admitTrust(q, res, j, out)
	}
	if err := q.Seal(); err != nil {
		return out, spaceError(err)
	}
	e.mu.RLock() // trust does not change between here and the entry
	defer e.mu.RUnlock()
	if e.trust != j.trust {
		return out, errTrustMoved
	}
	var err error
	if out.Seq, err = e.db.Admit(s.actor, res.Admission(), j.floor, nil); err != nil {
		return out, dbError(err)
	}
	out.Warnings = e.warnings()
	return out, nil
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
	dir, err := os.MkdirTemp(filepath.Join(s.e.opt.Home, "quarantine"), "verify-")
	if err != nil {
		return ledger.Verdict{}, internal(err)
	}
	defer os.RemoveAll(dir)
	res, err := s.e.check(ctx, req.Path, &judging{trust: s.e.currentTrust(), now: now, dir: dir}, p)
	var refusal *verify.RejectError
	switch {
	case errors.As(err, &refusal):
		return ledger.Verdict{}, rejected(req.Path, res, refusal, 0)
	case err != nil:
		return ledger.Verdict{}, readError(req.Path, err)
	}
	return *res.Verdict, nil
}

// judging is one judgement: what it is made under, and what it saw.
type judging struct {
	trust *inForce
	now   time.Time
	dir   string // for the spool
	sink  verify.Sink
	floor store.Floor // that it was held against
	only  string      // kind that is wanted; "" for any
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
	spool, err := os.OpenFile(filepath.Join(j.dir, "spool"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer spool.Close()
	r := &watched{ctx: ctx, r: f, total: fi.Size(), progress: p}
	return verify.Check(r, j.trust.Trust, verify.Options{
		Files: &j.trust.files,
		Now:   j.now, Limits: bundle.Limits{Bytes: e.site.MaxBundleBytes}, SiteID: e.db.SiteID(), Stella: e.opt.Version,
		Spool: spool, Floors: func(m *manifests.Bundle, digest string) (verify.Floors, error) { return e.floors(j, m, digest) },
	}, j.sink)
}

func (e *Engine) floors(j *judging, m *manifests.Bundle, digest string) (verify.Floors, error) {
	var f verify.Floors
	if j.only != "" && string(m.Kind) != j.only {
		return f, invalid("%s is of kind %s, a %s bundle is wanted", m.Ref(), m.Kind, j.only)
	}
	_, err := e.db.Bundle(digest)
	if f.Admitted = err == nil; err != nil && !store.IsNotFound(err) {
		return f, err
	}
	if f.Version, err = e.db.DigestOf(m.Ref()); err != nil {
		return f, err
	}
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
	w.done += int64(n)
	if w.progress != nil {
		w.progress(w.done, w.total)
	}
	return n, err
}

// room refuses an import that would eat into the space that is kept for the
// ledger.
func (e *Engine) room(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return readError(path, err)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(e.opt.Home, &fs); err != nil {
		return internal(err)
	}
	free := int64(fs.Bavail) * fs.Bsize
	if free-fi.Size() < e.site.FreeSpaceReserve {
		return &api.Error{Code: api.CodeNoSpace,
			Message: fmt.Sprintf("%s has %d bytes, %d are free and %d are kept for the ledger", path, fi.Size(), free, e.site.FreeSpaceReserve),
			Hint:    "free space, or lower free_space_reserve in site.toml"}
	}
	return nil
}

func spaceError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &api.Error{Code: api.CodeNoSpace, Message: err.Error(), Hint: "free space and try again; nothing was kept"}
	}
	return internal(err)
}

func readError(path string, err error) error {
	var known *api.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, os.ErrNotExist):
		return notFound("%s: no such file", path)
	case errors.Is(err, fsx.ErrNotRegular):
		return invalid("%s is not a regular file", path)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return spaceError(err)
	}
	return internal(fmt.Errorf("%s: %w", path, err))
}

// rejected says what a refusal was, and what to do about it.
func rejected(path string, res *verify.Result, r *verify.RejectError, seq int64) error {
	return &api.Error{
		Code: api.Code(r.Reason), Message: filepath.Base(path) + ": " + r.Error(), Hint: r.Hint,
		Refusal: &api.Refusal{
			Reason: string(r.Reason), Subject: r.Subject, Offset: res.FileBytes, SHA256: res.FileSHA256,
			Digest: res.Digest, Seq: seq,
		},
	}
}

// ListBundles lists what is admitted, by reference.
func (s *site) ListBundles(_ context.Context, q api.BundleQuery) ([]api.Bundle, error) {
	recs, err := s.e.db.Bundles()
	if err != nil {
		return nil, dbError(err)
	}
	out := []api.Bundle{}
	for _, r := range recs {
		v := r.Admission.Verdict
		if q.Kind != "" && q.Kind != v.Kind || q.Publisher != "" && q.Publisher != v.Publisher || q.Name != "" && q.Name != v.Name {
			continue
		}
		out = append(out, showBundle(r))
	}
	slices.SortFunc(out, func(a, b api.Bundle) int {
		if c := strings.Compare(a.Publisher+"/"+a.Name, b.Publisher+"/"+b.Name); c != 0 {
			return c
		}
		return manifests.CompareVersions(a.Version, b.Version)
	})
	return out, nil
}

func showBundle(r store.BundleRecord) api.Bundle {
	v := r.Admission.Verdict
	return api.Bundle{
		Digest: r.Digest, Kind: v.Kind, Publisher: v.Publisher, Name: v.Name, Version: v.Version, Sequence: v.Sequence,
		Decision: v.Decision, AdmittedUTC: r.Time, Seq: r.Seq, Bytes: r.Admission.FileBytes,
	}
}

// ShowBundle shows one admitted bundle with its evidence.
func (s *site) ShowBundle(_ context.Context, ref string) (api.BundleDetail, error) {
	rec, err := s.e.db.Bundle(ref)
	if err != nil {
		return api.BundleDetail{}, dbError(err)
	}
	raw, err := s.e.db.Blobs().Read(rec.Digest, bundle.MaxManifest)
	if err != nil {
		return api.BundleDetail{}, dbError(err)
	}
	m, err := manifests.ParseBundle(bundle.ManifestName, raw)
	if err != nil {
		return api.BundleDetail{}, damaged("%v", err)
	}
	out := api.BundleDetail{Bundle: showBundle(rec), Admission: rec.Admission, Manifest: string(raw), Files: []api.BundleFile{}}
	for _, f := range m.Files {
		out.Files = append(out.Files, api.BundleFile{Path: f.Path, SHA256: f.SHA256, Size: f.Size, Mode: f.Mode})
	}
	return out, nil
}
