package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"github.com/stellarun/stella/archive"
	"github.com/stellarun/stella/server/api"
)

var _ api.Artifacts = (*site)(nil)

// ListArtifacts lists the files that the attempts of a run handed over.
func (s *site) ListArtifacts(_ context.Context, runID string) ([]api.Artifact, error) {
	if _, err := s.run(runID); err != nil {
		return nil, err
	}
	attempts, err := s.e.db.Attempts(runID, "")
	if err != nil {
		return nil, dbError(err)
	}
	out := []api.Artifact{}
	for _, a := range attempts {
		if a.End == nil {
			continue
		}
		for _, x := range a.End.Artifacts {
			out = append(out, api.Artifact{
				StepID: a.StepID, Attempt: a.Attempt, Name: x.Name, SHA256: x.SHA256, Size: x.Size, MediaType: x.MediaType,
			})
		}
	}
	return out, nil
}

// ReadArtifact writes an artifact of this tenant to w, hashing it again.
func (s *site) ReadArtifact(_ context.Context, digest string, w io.Writer) error {
	ours, err := s.e.db.HasArtifact(s.tenant, digest)
	if err != nil {
		return dbError(err)
	}
	if !ours {
		return notFound("there is no artifact %q", digest)
	}
	f, err := s.e.db.Blobs().Open(digest)
	if err != nil {
		return archiveError(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, h), f); err != nil {
		var bad *archive.DamagedError
		if errors.As(err, &bad) {
			return damaged("artifact %s: %v", digest, err)
		}
		return internal(err)
	}
	if hex.EncodeToString(h.Sum(nil)) != digest {
		return damaged("the sealed bytes of artifact %s are not what was sealed", digest)
	}
	return nil
}
