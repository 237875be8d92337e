package server

import (
	"context"
	"net/http"

	"github.com/stellarun/stella/server/api"
)

func (h *handler) auditStorage(w http.ResponseWriter, q *request) error {
	if err := q.decode(&struct{}{}); err != nil {
		return err
	}
	return h.long(w, q, http.StatusOK, func(p api.Progress) (any, error) {
		rep, err := q.site.AuditStorage(q.Context(), p)
		rep.Findings = some(rep.Findings)
		return rep, err
	})
}

func (h *handler) collectGarbage(w http.ResponseWriter, q *request) error {
	var req api.GCRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	return h.long(w, q, http.StatusOK, func(p api.Progress) (any, error) {
		rep, err := q.site.CollectGarbage(q.Context(), req, p)
		rep.Bundles, rep.Kept, rep.Seq = some(rep.Bundles), some(rep.Kept), some(rep.Seq)
		return rep, err
	})
}

// AuditStorage implements [api.Bundles].
func (c *Client) AuditStorage(ctx context.Context, p api.Progress) (api.AuditReport, error) {
	return long[api.AuditReport](ctx, c, call{method: http.MethodPost, path: "/bundles:audit", body: struct{}{}}, p)
}

// CollectGarbage implements [api.Bundles].
func (c *Client) CollectGarbage(ctx context.Context, req api.GCRequest, p api.Progress) (api.GCReport, error) {
	return long[api.GCReport](ctx, c, call{method: http.MethodPost, path: "/bundles:gc", body: req}, p)
}
