package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"

	"github.com/stellarun/stella/server/api"
)

func (h *handler) attestRun(w http.ResponseWriter, q *request) error {
	var req api.AttestRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	a, err := q.site.AttestRun(q.Context(), q.id, req)
	a.Subjects = some(a.Subjects)
	return h.reply(w, q, http.StatusOK, a, err)
}

// AttestRun implements [api.Attestations]. It hashes what it receives: the bundle has
// to be the one that was recorded, byte for byte.
func (c *Client) AttestRun(ctx context.Context, id string, req api.AttestRequest) (api.Attestation, error) {
	a, err := get[api.Attestation](ctx, c, call{method: http.MethodPost, path: "/runs/" + segment(id) + ":attest", body: req})
	if err != nil {
		return a, err
	}
	if sum := sha256.Sum256(a.Bundle); hex.EncodeToString(sum[:]) != a.SHA256 {
		return a, errors.New("server: the answer does not hold the bundle that it names")
	}
	return a, nil
}
