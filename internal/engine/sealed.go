package engine

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// maxSpec bounds the text of a DAG spec.
const maxSpec = 1 << 20

// sealed is the sealed content of a site as the runner sees it.
type sealed struct {
	e *Engine

	// What follows is derived from bytes that their digest names, so that it
	// never goes stale; mu guards it.
	mu        sync.Mutex
	manifests map[string]*manifests.Bundle
	signed    map[string]*verified // by digest
	dags      map[string]*spec     // by digest of the bundle
	programs  map[fileID]string    // SHA-256 of programs of the host
}

// verified is what the signatures of a bundle are worth under one trust. Only
// dates are judged again each time.
type verified struct {
	trust        *verify.Trust
	signed       *verify.Signed
	attestations []bundle.Attached
}

// spec is a DAG spec with its exact text.
type spec struct {
	dag  *manifests.DAG
	text []byte
}

func newSealed(e *Engine) *sealed {
	return &sealed{
		e: e, manifests: map[string]*manifests.Bundle{}, signed: map[string]*verified{}, dags: map[string]*spec{},
		programs: map[fileID]string{},
	}
}

// Put seals raw.
func (s *sealed) Put(raw []byte) (string, error) { return s.e.db.Blobs().Put(raw) }

// PutFrom seals what r gives, at most limit bytes.
func (s *sealed) PutFrom(r io.Reader, limit int64) (string, int64, error) {
	return s.e.db.Blobs().PutFrom(r, limit)
}

// Read reads a sealed blob and checks it.
func (s *sealed) Read(digest string, limit int64) ([]byte, error) {
	return s.e.db.Blobs().Read(digest, limit)
}

// A spoiledError is a sealed file of an admitted bundle that is missing, or not what it was.
type spoiledError struct {
	what, digest string
	err          error
}

func (e *spoiledError) Error() string {
	if store.IsNotFound(e.err) {
		return fmt.Sprintf("the sealed %s %s is missing", e.what, e.digest)
	}
	return fmt.Sprintf("the sealed %s %s is not what it was: %v", e.what, e.digest, e.err)
}

func (e *spoiledError) Unwrap() error { return e.err }

// content reads a sealed file of an admitted bundle, which may be a *spoiledError.
func (s *sealed) content(what, digest string, limit int64) ([]byte, error) {
	raw, err := s.Read(digest, limit)
	if store.IsNotFound(err) || errors.Is(err, store.ErrDigest) {
		err = &spoiledError{what, digest, err}
	}
	return raw, err
}

// Open opens a sealed blob.
func (s *sealed) Open(digest string) (io.ReadCloser, error) { return s.e.db.Blobs().Open(digest) }

// Manifest parses the manifest of an admitted bundle once.
func (s *sealed) Manifest(digest string) (*manifests.Bundle, error) {
	s.mu.Lock()
	m := s.manifests[digest]
	s.mu.Unlock()
	if m != nil {
		return m, nil
	}
	raw, err := s.content("manifest", digest, bundle.MaxManifest)
	if err != nil {
		return nil, err
	}
	if m, err = manifests.ParseBundle(bundle.ManifestName, raw); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.manifests[digest] = m
	s.mu.Unlock()
	return m, nil
}

// Judge judges the sealed evidence of a bundle under the trust in force, now.
func (s *sealed) Judge(digest string) (ledger.TrustRef, error) {
	return s.judge(s.e.currentTrust(), digest)
}

// judge judges it under another trust than the one in force.
func (s *sealed) judge(t *inForce, digest string) (ledger.TrustRef, error) {
	now, err := s.e.clock()
	if err != nil {
		return ledger.TrustRef{}, err
	}
	m, err := s.Manifest(digest)
	if err != nil {
		return ledger.TrustRef{}, err
	}
	v, err := s.verified(t.Trust, digest, now)
	if err == nil {
		var verdict *ledger.Verdict
		verdict, err = t.Judge(verify.Input{
			Manifest: m, Signed: v.signed, Attestations: v.attestations,
			SiteID: s.e.db.SiteID(), Stella: s.e.opt.Version, Now: now,
		})
		s.narrow(digest, v, verdict)
	}
	var r *verify.RejectError
	if errors.As(err, &r) {
		return t.Ref(), &refused{r}
	}
	return t.Ref(), err
}

// narrow remembers which attestations counted: under the same trust the others
// need not be read again. Nothing is remembered of a refusal, where verdict is nil.
func (s *sealed) narrow(digest string, v *verified, verdict *ledger.Verdict) {
	if verdict == nil || len(verdict.Attestations) == len(v.attestations) {
		return
	}
	less := &verified{trust: v.trust, signed: v.signed}
	for _, a := range v.attestations {
		if slices.Contains(verdict.Attestations, a.ID) {
			less.attestations = append(less.attestations, a)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.signed[digest] == v {
		s.signed[digest] = less
	}
}

// verified verifies the signatures of an admitted bundle, once for each trust.
func (s *sealed) verified(t *verify.Trust, digest string, now time.Time) (*verified, error) {
	s.mu.Lock()
	v := s.signed[digest]
	s.mu.Unlock()
	if v != nil && v.trust == t {
		return v, nil
	}
	rec, err := s.e.db.Bundle(digest)
	if err != nil {
		return nil, err
	}
	ev, err := s.evidence(rec)
	if err != nil {
		return nil, err
	}
	ev = spared(t, rec, ev, now)
	signed, err := t.Signatures(ev.Manifest, ev.Signatures, now)
	if err != nil {
		return nil, err
	}
	v = &verified{t, signed, ev.Attestations}
	s.mu.Lock()
	s.signed[digest] = v
	s.mu.Unlock()
	return v, nil
}

// refused is a refusal in the form that the runner asks for.
type refused struct{ err *verify.RejectError }

func (r *refused) Error() string  { return r.err.Error() }
func (r *refused) Unwrap() error  { return r.err }
func (r *refused) Reason() string { return string(r.err.Reason) }

// spared is evidence without the signatures that never counted, if one of them is
// refused now: it came along unverified, and must not spoil the others once
// somebody is named for its key.
func spared(t *verify.Trust, rec store.BundleRecord, ev verify.Evidence, now time.Time) verify.Evidence {
	var refusal *verify.RejectError
	if _, err := t.Signatures(ev.Manifest, ev.Signatures, now); !errors.As(err, &refusal) {
		return ev
	}
	ev.Signatures = slices.DeleteFunc(slices.Clone(ev.Signatures), func(a bundle.Attached) bool {
		return !slices.ContainsFunc(rec.Admission.Verdict.Signers, func(s ledger.SignerRef) bool { return s.File == bundle.Digest(a.Data) })
	})
	return ev
}

// forget lets the evidence of a bundle be read anew, after an admission has added
// to it.
func (s *sealed) forget(digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.signed, digest)
}

// evidence reads what the admissions of a bundle sealed: each signature and
// attestation that ever came with it, whoever counted then. A signer's newest
// signature is taken.
func (s *sealed) evidence(rec store.BundleRecord) (verify.Evidence, error) {
	var ev verify.Evidence
	var err error
	if ev.Manifest, err = s.content("manifest", rec.Digest, bundle.MaxManifest); err != nil {
		return ev, err
	}
	known := map[string]bool{}
	for i, d := range rec.Signatures() {
		raw, err := s.content("signature", d, bundle.MaxSignature)
		if err != nil {
			return ev, err
		}
		id, certificate, err := verify.SignerID(raw)
		if err != nil {
			return ev, fmt.Errorf("sealed signature %s: %w", d, err)
		}
		if certificate && i >= len(rec.Admission.Signatures) {
			continue // each signing has a key of its own: two would be one signer twice
		}
		if !known[id] && len(ev.Signatures) < bundle.MaxSignatures {
			known[id] = true
			ev.Signatures = append(ev.Signatures, bundle.Attached{ID: id, Data: raw})
		}
	}
	for _, d := range rec.Attestations() {
		raw, err := s.content("attestation", d, bundle.MaxAttestation)
		if err != nil {
			return ev, err
		}
		ev.Attestations = append(ev.Attestations, bundle.Attached{ID: d, Data: raw})
	}
	return ev, nil
}

// Resolve finds what a reference of a DAG means, if it may be used now.
func (s *sealed) Resolve(ref manifests.Ref, kind manifests.Kind) (string, *manifests.Bundle, error) {
	rec, err := s.e.db.Bundle(ref.String())
	if store.IsNotFound(err) {
		return "", nil, fmt.Errorf("%s has not been imported", ref)
	}
	if err != nil {
		return "", nil, err
	}
	digest := rec.Digest
	m, err := s.Manifest(digest)
	if err != nil {
		return "", nil, err
	}
	if rec.Removed > 0 {
		return "", nil, fmt.Errorf("the contents of %s were given up by a collection, entry %d: bring them back with stella bundle import of the same bundle", ref, rec.Removed)
	}
	if m.Kind != kind {
		return "", nil, fmt.Errorf("%s is a %s bundle, a %s is wanted", ref, m.Kind, kind)
	}
	if _, err := s.Judge(digest); err != nil {
		return "", nil, fmt.Errorf("%s may not be used now: %w", ref, err)
	}
	return digest, m, nil
}

// catalog is what a DAG is planned with. It keeps what of it is damaged: that is no fault of
// the DAG.
type catalog struct {
	*sealed
	spoiled error
}

func (c *catalog) note(err error) error {
	if spoiled := (*spoiledError)(nil); errors.As(err, &spoiled) {
		c.spoiled = cmp.Or(c.spoiled, err)
	}
	return err
}

// Resolve implements [runner.Catalog].
func (c *catalog) Resolve(ref manifests.Ref, kind manifests.Kind) (string, *manifests.Bundle, error) {
	digest, m, err := c.sealed.Resolve(ref, kind)
	return digest, m, c.note(err)
}

// SubDAG implements [runner.Catalog].
func (c *catalog) SubDAG(id, version string) (string, *manifests.DAG, error) {
	digest, d, err := c.sealed.SubDAG(id, version)
	return digest, d, c.note(err)
}

// newPlan plans a DAG.
func (e *Engine) newPlan(d *manifests.DAG, digest string) (*runner.Plan, error) {
	c := &catalog{sealed: e.sealed}
	p, err := runner.NewPlan(d, digest, c)
	return p, cmp.Or(c.spoiled, err)
}

// HashHostFile hashes a program of the host, again whenever it has changed.
func (s *sealed) HashHostFile(path string) (string, error) {
	id, fi, err := identify(path)
	if err != nil {
		return "", err
	}
	if !fi.Mode().IsRegular() {
		return "", errors.New("it is not a regular file")
	}
	s.mu.Lock()
	sum, ok := s.programs[id]
	s.mu.Unlock()
	if ok {
		return sum, nil
	}
	if sum, err = hashFile(path); err != nil {
		return "", err
	}
	s.mu.Lock()
	s.programs[id] = sum
	s.mu.Unlock()
	return sum, nil
}

// dagSpec reads the spec of an admitted DAG bundle; text is its exact bytes.
func (e *Engine) dagSpec(digest string) (d *manifests.DAG, text []byte, err error) {
	s := e.sealed
	s.mu.Lock()
	known := s.dags[digest]
	s.mu.Unlock()
	if known != nil {
		return known.dag, known.text, nil
	}
	m, err := s.Manifest(digest)
	if err != nil {
		return nil, nil, err
	}
	f, err := specFile(m)
	if err != nil {
		return nil, nil, err
	}
	if text, err = s.content("spec", f.SHA256, maxSpec); err != nil {
		return nil, nil, err
	}
	if d, err = manifests.ParsePublishedDAG(f.Path, text); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	s.dags[digest] = &spec{d, text}
	s.mu.Unlock()
	return d, text, nil
}

func specFile(m *manifests.Bundle) (manifests.File, error) {
	if m.DAG == nil {
		return manifests.File{}, fmt.Errorf("%s is a %s bundle, not a DAG", m.Ref(), m.Kind)
	}
	for _, f := range m.Files {
		if f.Path == m.DAG.Spec {
			return f, nil
		}
	}
	return manifests.File{}, fmt.Errorf("%s: its spec %s is not among its files", m.Ref(), m.DAG.Spec)
}

// plan reads the sealed plan of a run.
func (e *Engine) plan(hash string) (*runner.Plan, error) {
	raw, err := e.db.Blobs().Read(hash, 16<<20)
	if err != nil {
		return nil, err
	}
	return runner.DecodePlan(raw)
}
