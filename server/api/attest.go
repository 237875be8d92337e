package api

import (
	"context"
	"encoding/json"
)

// Attestations are signed statements about runs.
type Attestations interface {
	// AttestRun states what a completed run was made of and what became of it, signed
	// by the key of the site. The same run gives the same bytes. A run that is not
	// completed is RUN_NOT_COMPLETED.
	AttestRun(ctx context.Context, id string, req AttestRequest) (Attestation, error)
}

// AttestRequest asks for the statement about a run.
type AttestRequest struct {
	Artifacts []string `json:"artifacts,omitempty"` // NAME or STEP/NAME: only about these
}

// Attestation is a statement about a run that was signed and recorded.
type Attestation struct {
	RunID         string            `json:"runId"`
	PredicateType string            `json:"predicateType"`
	Statement     string            `json:"statement"` // SHA-256 of the in-toto statement
	SHA256        string            `json:"sha256"`    // of the bundle
	Subjects      []AttestedSubject `json:"subjects"`
	New           bool              `json:"new"`              // it was recorded now; else it was before
	Bundle        json.RawMessage   `json:"bundle,omitempty"` // a Sigstore bundle v0.3: its exact bytes
	Path          string            `json:"path,omitempty"`   // where a command has written it
}

// AttestedSubject is one thing that a statement is about.
type AttestedSubject struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}
