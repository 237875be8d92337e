package api

import (
	"context"
	"io"
)

// Artifacts are the files that runs of the tenant have made.
type Artifacts interface {
	// ListArtifacts lists those of one run, by step, attempt and name.
	ListArtifacts(ctx context.Context, runID string) ([]Artifact, error)
	// ReadArtifact writes the bytes of one to w, and fails unless they have
	// this SHA-256. What w received before an error is not to be used.
	ReadArtifact(ctx context.Context, sha256 string, w io.Writer) error
}

// Artifact is a file that an attempt handed over.
type Artifact struct {
	StepID    string `json:"stepId"`
	Attempt   int    `json:"attempt"`
	Name      string `json:"name"`
	SHA256    string `json:"sha256"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType,omitempty"`
}
