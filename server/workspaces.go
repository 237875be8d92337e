package server

import (
	"context"
	"net/http"

	"github.com/stellarun/stella/server/api"
)

func (h *handler) listWorkspaces(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.WorkspaceQuery{Stale: p.bool("stale"), RunID: p.str("run_id")}
	if err := p.err(); err != nil {
		return err
	}
	page, err := q.site.ListWorkspaces(q.Context(), query)
	page.Workspaces = some(page.Workspaces)
	return h.reply(w, q, http.StatusOK, page, err)
}

func (h *handler) cleanWorkspaces(w http.ResponseWriter, q *request) error {
	var req api.WorkspaceCleanup
	if err := q.decode(&req); err != nil {
		return err
	}
	return h.long(w, q, http.StatusOK, func(p api.Progress) (any, error) {
		rep, err := q.site.CleanWorkspaces(q.Context(), req, p)
		rep.Workspaces, rep.Failed = some(rep.Workspaces), some(rep.Failed)
		return rep, err
	})
}

// ListWorkspaces implements [api.Workspaces].
func (c *Client) ListWorkspaces(ctx context.Context, q api.WorkspaceQuery) (api.WorkspacePage, error) {
	return get[api.WorkspacePage](ctx, c, call{method: http.MethodGet, path: "/workspaces", query: query("stale", q.Stale, "run_id", q.RunID)})
}

// CleanWorkspaces implements [api.Workspaces].
func (c *Client) CleanWorkspaces(ctx context.Context, req api.WorkspaceCleanup, p api.Progress) (api.WorkspaceReport, error) {
	return long[api.WorkspaceReport](ctx, c, call{method: http.MethodPost, path: "/workspaces:cleanup", body: req}, p)
}
