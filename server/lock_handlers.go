package server

import (
	"context"
	"net/http"

	"github.com/stellarun/stella/server/api"
)

type locksBody struct {
	Locks []api.Lock `json:"locks"`
}

type cacheBody struct {
	Entries []api.CacheEntry `json:"entries"`
}

func (h *handler) listLocks(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.LockQuery{Stale: p.bool("stale"), Kind: p.str("kind")}
	if err := p.err(); err != nil {
		return err
	}
	list, err := q.site.ListLocks(q.Context(), query)
	return h.reply(w, q, http.StatusOK, locksBody{some(list)}, err)
}

func (h *handler) showLock(w http.ResponseWriter, q *request) error {
	list, err := q.site.ShowLock(q.Context(), q.id)
	return h.reply(w, q, http.StatusOK, locksBody{some(list)}, err)
}

func (h *handler) releaseLock(w http.ResponseWriter, q *request) error {
	var req api.LockRelease
	if err := q.decode(&req); err != nil {
		return err
	}
	out, err := q.site.ReleaseLock(q.Context(), q.id, req)
	return h.reply(w, q, http.StatusOK, out, err)
}

func (h *handler) listCache(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.CacheQuery{DAGID: p.str("dag_id")}
	if err := p.err(); err != nil {
		return err
	}
	list, err := q.site.ListCache(q.Context(), query)
	return h.reply(w, q, http.StatusOK, cacheBody{some(list)}, err)
}

func (h *handler) clearCache(w http.ResponseWriter, q *request) error {
	var req api.CacheClearing
	if err := q.decode(&req); err != nil {
		return err
	}
	out, err := q.site.ClearCache(q.Context(), req)
	return h.reply(w, q, http.StatusOK, out, err)
}

func (h *handler) planRun(w http.ResponseWriter, q *request) error {
	var req api.StartRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	out, err := q.site.PlanRun(q.Context(), req)
	out.Problems, out.Limits, out.Paused, out.Steps = some(out.Problems), some(out.Limits), some(out.Paused), some(out.Steps)
	return h.reply(w, q, http.StatusOK, out, err)
}

func (h *handler) warm(w http.ResponseWriter, q *request) error {
	var req api.WarmRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	out, err := q.site.Warm(q.Context(), req)
	out.DAGs = some(out.DAGs)
	return h.reply(w, q, http.StatusOK, out, err)
}

// ListLocks implements [api.Locks].
func (c *Client) ListLocks(ctx context.Context, q api.LockQuery) ([]api.Lock, error) {
	body, err := get[locksBody](ctx, c, call{method: http.MethodGet, path: "/locks", query: query("stale", q.Stale, "kind", q.Kind)})
	return body.Locks, err
}

// ShowLock implements [api.Locks].
func (c *Client) ShowLock(ctx context.Context, name string) ([]api.Lock, error) {
	body, err := get[locksBody](ctx, c, call{method: http.MethodGet, path: "/locks/" + segment(name)})
	return body.Locks, err
}

// ReleaseLock implements [api.Locks].
func (c *Client) ReleaseLock(ctx context.Context, name string, req api.LockRelease) (api.LockReleased, error) {
	return get[api.LockReleased](ctx, c, call{method: http.MethodPost, path: "/locks/" + segment(name) + ":release", body: req})
}

// ListCache implements [api.Cache].
func (c *Client) ListCache(ctx context.Context, q api.CacheQuery) ([]api.CacheEntry, error) {
	body, err := get[cacheBody](ctx, c, call{method: http.MethodGet, path: "/cache", query: query("dag_id", q.DAGID)})
	return body.Entries, err
}

// ClearCache implements [api.Cache].
func (c *Client) ClearCache(ctx context.Context, req api.CacheClearing) (api.CacheCleared, error) {
	return get[api.CacheCleared](ctx, c, call{method: http.MethodPost, path: "/cache:clear", body: req})
}

// PlanRun implements [api.Planning].
func (c *Client) PlanRun(ctx context.Context, req api.StartRequest) (api.RunPlan, error) {
	return get[api.RunPlan](ctx, c, call{method: http.MethodPost, path: "/runs:plan", body: req})
}

// Warm implements [api.Cache].
func (c *Client) Warm(ctx context.Context, req api.WarmRequest) (api.WarmReport, error) {
	return get[api.WarmReport](ctx, c, call{method: http.MethodPost, path: "/admin/warm", body: req})
}
