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

func (h *handler) importMedia(w http.ResponseWriter, q *request) error {
	var req api.MediaRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	if !q.wantsStream() {
		rep, err := q.site.ImportMedia(q.Context(), req, nil)
		return h.reply(w, q, http.StatusOK, rep, err)
	}
	s := h.stream(w, q)
	rep, err := q.site.ImportMedia(q.Context(), req, s.media)
	return s.end(rep, err)
}

// ImportMedia implements [api.Bundles].
func (c *Client) ImportMedia(ctx context.Context, req api.MediaRequest, watch func(api.MediaEvent)) (api.MediaReport, error) {
	q := call{method: http.MethodPost, path: "/bundles:import", body: req}
	if watch == nil {
		return get[api.MediaReport](ctx, c, q)
	}
	return follow[api.MediaReport](ctx, c, q, func(e event) error {
		if e.Media != nil {
			watch(*e.Media)
		}
		return nil
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
