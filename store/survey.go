package store

import (
	"context"
	"fmt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

// A Ref says why a sealed file is there.
type Ref struct {
	Seq  int64  // of an entry that names it, directly or through a manifest
	What string // in words
	From string // the bundle that brings it, publisher/name@version; "" for what no bundle brings

	moves bool // it may lie in an archive of runs
}

// A Survey is everything that the ledger names, up to an entry. It is for one
// goroutine.
type Survey struct {
	db    *DB
	size  int64
	named map[string]Ref      // evidence and artifacts: what is never given up
	plans map[string]struct{} // planHash of every run
	logs  map[string]Ref

	files map[string][]manifests.File // of bundles, by the digest of their manifest
}

// NewSurvey returns a survey of nothing yet.
func (db *DB) NewSurvey() *Survey {
	return &Survey{
		db: db, named: map[string]Ref{}, plans: map[string]struct{}{}, logs: map[string]Ref{},
		files: map[string][]manifests.File{},
	}
}

// Advance reads the entries that came since the last time.
func (s *Survey) Advance(ctx context.Context, progress func(done, total int64)) error {
	size := s.db.Size()
	for l, err := range s.db.Entries(s.size, size) {
		if err != nil {
			return damaged(err, "entry %d", l.Seq)
		}
		env, err := ledger.ParseEnvelope(l.Envelope)
		if err != nil {
			return damaged(err, "entry %d", l.Seq)
		}
		data, err := l.data(env.Type)
		if err != nil {
			return damaged(err, "entry %d", l.Seq)
		}
		s.add(l.Seq, env.Type, data)
		if l.Seq%pageSize == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if progress != nil {
				progress(l.Seq, size)
			}
		}
	}
	s.size = size
	return nil
}

// add notes what one entry names.
func (s *Survey) add(seq int64, t ledger.Type, data any) {
	ref := Ref{Seq: seq, What: fmt.Sprintf("evidence of entry %d (%s)", seq, t)}
	switch d := data.(type) {
	case *ledger.BundleAdmission:
		v := d.Verdict
		ref.From = v.Publisher + "/" + v.Name + "@" + v.Version
		for _, digest := range append([]string{v.Digest}, append(d.Signatures, v.Attestations...)...) {
			s.name(digest, ref)
		}
		ref.From = "" // the rest is trust
	case *ledger.RunStart:
		s.plans[d.PlanHash] = struct{}{}
	case *ledger.AttemptEnd:
		for _, a := range d.Artifacts {
			s.name(a.SHA256, Ref{Seq: seq, What: fmt.Sprintf("artifact %s of entry %d", a.Name, seq), moves: true})
		}
		if d.Logs != nil {
			s.logs[d.Logs.SHA256] = Ref{Seq: seq, What: fmt.Sprintf("log of entry %d", seq), moves: true}
		}
	}
	for _, digest := range ledger.Evidence(data) {
		s.name(digest, ref)
	}
}

func (s *Survey) name(digest string, ref Ref) {
	if old, ok := s.named[digest]; !ok || old.moves && !ref.moves { // what must be in its place says more
		s.named[digest] = ref
	}
}

// Plans are the plan hashes of all runs.
func (s *Survey) Plans() map[string]struct{} { return s.plans }

// Logs are the log segments of attempts: sealed blobs without a file, or files
// elsewhere.
func (s *Survey) Logs() map[string]Ref { return s.logs }

// Files are the files of an admitted bundle, from its sealed manifest.
func (s *Survey) Files(digest string) ([]manifests.File, error) {
	if files, ok := s.files[digest]; ok {
		return files, nil
	}
	raw, err := s.db.blobs.Read(digest, maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := manifests.ParseBundle("stella.toml", raw)
	if err != nil {
		return nil, err
	}
	s.files[digest] = m.Files
	return m.Files, nil
}

// Names says which blobs must be here: what is named directly, and the contents
// of admitted bundles but those that were given up or that without lists. A
// bundle whose manifest cannot be read is handed to broken, which may end the
// survey.
func (s *Survey) Names(without map[string]bool, broken func(BundleRecord, error) error) (map[string]Ref, error) {
	recs, err := s.db.Bundles()
	if err != nil {
		return nil, err
	}
	out := make(map[string]Ref, len(s.named))
	for digest, ref := range s.named {
		out[digest] = ref
	}
	for _, rec := range recs {
		if rec.Removed > 0 || without[rec.Digest] {
			continue
		}
		files, err := s.Files(rec.Digest)
		if err != nil {
			if err := broken(rec, err); err != nil {
				return nil, err
			}
			continue
		}
		for _, f := range files {
			if old, ok := out[f.SHA256]; !ok || old.From == "" { // a bundle explains it better: it can bring it again
				out[f.SHA256] = Ref{Seq: rec.Seq, What: f.Path + " of " + rec.Ref(), From: rec.Ref()}
			}
		}
	}
	return out, nil
}
