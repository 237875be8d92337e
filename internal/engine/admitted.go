package engine

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

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
		b, err := s.e.showBundle(r)
		if err != nil {
			return nil, err
		}
		b.Now = s.e.sealed.now(r)
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b api.Bundle) int {
		if c := strings.Compare(a.Publisher+"/"+a.Name, b.Publisher+"/"+b.Name); c != 0 {
			return c
		}
		return manifests.CompareVersions(a.Version, b.Version)
	})
	return out, nil
}

// showBundle is a bundle as it travels. The record is of its last judgement; when
// it came says the entry of the first.
func (e *Engine) showBundle(r store.BundleRecord) (api.Bundle, error) {
	v := r.Admission.Verdict
	b := api.Bundle{
		Digest: r.Digest, Kind: v.Kind, Publisher: v.Publisher, Name: v.Name, Version: v.Version, Sequence: v.Sequence,
		Decision: v.Decision, AdmittedUTC: r.Time, FirstSeq: r.FirstSeq, JudgedUTC: r.Time, Seq: r.Seq,
		Bytes: r.Admission.FileBytes, Removed: r.Removed,
	}
	if r.FirstSeq == r.Seq {
		return b, nil
	}
	lines, err := e.db.Entry(r.FirstSeq)
	if err != nil {
		return b, dbError(err)
	}
	first, err := ledger.ParseEnvelope(lines.Envelope)
	if err != nil {
		return b, damaged("entry %d: %v", r.FirstSeq, err)
	}
	b.AdmittedUTC = first.Time
	return b, nil
}

// bundleOf is the record of a bundle that somebody has named.
func (e *Engine) bundleOf(ref string) (store.BundleRecord, error) {
	rec, err := e.db.Bundle(ref)
	if err == nil {
		return rec, nil
	}
	err = dbError(err)
	var known *api.Error
	if errors.As(err, &known) && known.Code == api.CodeNotFound {
		known.Hint = "a bundle is named by publisher/name@version, or by 8 or more digits of its digest: stella bundle list"
	}
	return rec, err
}

// ShowBundle shows one admitted bundle with its evidence.
func (s *site) ShowBundle(_ context.Context, ref string) (api.BundleDetail, error) {
	rec, err := s.e.bundleOf(ref)
	if err != nil {
		return api.BundleDetail{}, err
	}
	raw, err := s.e.db.Blobs().Read(rec.Digest, bundle.MaxManifest)
	if err != nil {
		return api.BundleDetail{}, dbError(err)
	}
	m, err := manifests.ParseBundle(bundle.ManifestName, raw)
	if err != nil {
		return api.BundleDetail{}, damaged("%v", err)
	}
	b, err := s.e.showBundle(rec)
	if err != nil {
		return api.BundleDetail{}, err
	}
	out := api.BundleDetail{Bundle: b, Admission: rec.Admission, Manifest: string(raw), Files: []api.BundleFile{}}
	out.Now, out.Report = s.e.sealed.now(rec), s.e.sealed.explain(rec)
	for _, f := range m.Files {
		out.Files = append(out.Files, api.BundleFile{Path: f.Path, SHA256: f.SHA256, Size: f.Size, Mode: f.Mode})
	}
	return out, nil
}
