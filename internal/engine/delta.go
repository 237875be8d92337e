package engine

import (
	"errors"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
)

// holdings answers, for one judgement, which contents a delta may leave out:
// those of admitted bundles of the same publisher and name that are not revoked
// now, hashed again in the sealed store (THREATS 20).
type holdings struct {
	e     *Engine
	whole func(sha256 string) bool // the sealed blob is there and has its digest
	named map[string]bool          // contents of those bundles; nil until somebody asks
	extra func(publisher, name string) map[string]bool
}

// have is asked for blobs that the file leaves out. What cannot be found out
// counts as absent.
func (h *holdings) have(m *manifests.Bundle, sha256 string) bool {
	if h.named == nil {
		h.named = h.e.contents(m)
	}
	if h.extra != nil && h.extra(m.Publisher, m.Name)[sha256] {
		return true
	}
	return h.named[sha256] && h.whole(sha256)
}

// contents are the contents of all bundles that a delta of m may build upon.
func (e *Engine) contents(m *manifests.Bundle) map[string]bool {
	out := map[string]bool{}
	recs, err := e.db.Versions(m.Publisher, m.Name)
	if err != nil {
		return out
	}
	for _, rec := range recs {
		if k := rec.Admission.Verdict.Kind; k != string(m.Kind) || m.Kind == manifests.KindSecrets || rec.Removed > 0 {
			continue
		}
		if !e.stands(rec.Digest) {
			continue
		}
		base, err := e.sealed.Manifest(rec.Digest)
		if err != nil {
			continue
		}
		for _, f := range base.Files {
			out[f.SHA256] = true
		}
	}
	return out
}

// stands says whether nothing revokes an admitted bundle: neither its manifest,
// nor a file of it, nor its signers. That its own time has passed is no matter:
// whoever signed the delta vouches for the content anew.
func (e *Engine) stands(digest string) bool {
	_, err := e.sealed.Judge(digest)
	var r *verify.RejectError
	return err == nil || errors.As(err, &r) && r.Reason == verify.Expired
}
