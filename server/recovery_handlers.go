package server

import (
	"context"
	"net/http"

	"github.com/stellarun/stella/server/api"
)

// recovering decodes what is asked for, and does it to the run that the path names.
func recovering[T any](h *handler, w http.ResponseWriter, q *request, do func(context.Context, string, T) (api.Recovered, error)) error {
	var req T
	if err := q.decode(&req); err != nil {
		return err
	}
	out, err := do(q.Context(), q.id, req)
	out.Steps, out.Subruns = some(out.Steps), some(out.Subruns)
	return h.reply(w, q, http.StatusOK, out, err)
}

func (h *handler) retryRun(w http.ResponseWriter, q *request) error {
	return recovering(h, w, q, q.site.RetryRun)
}

func (h *handler) skipStep(w http.ResponseWriter, q *request) error {
	return recovering(h, w, q, q.site.SkipStep)
}

func (h *handler) abortRun(w http.ResponseWriter, q *request) error {
	return recovering(h, w, q, q.site.AbortRun)
}

func (h *handler) failRun(w http.ResponseWriter, q *request) error {
	return recovering(h, w, q, q.site.FailRun)
}

func (h *handler) restartRun(w http.ResponseWriter, q *request) error {
	return recovering(h, w, q, q.site.RestartRun)
}

func (h *handler) nudgeRun(w http.ResponseWriter, q *request) error {
	return recovering(h, w, q, q.site.NudgeRun)
}

func (h *handler) resetRun(w http.ResponseWriter, q *request) error {
	return recovering(h, w, q, q.site.ResetRun)
}

func (h *handler) listApprovals(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.ApprovalQuery{
		All: p.bool("all"), Status: p.str("status"), RunID: p.str("run_id"), PageSize: p.int("page_size"), PageToken: p.str("page_token"),
	}
	if err := p.err(); err != nil {
		return err
	}
	page, err := q.site.ListApprovals(q.Context(), query)
	page.Approvals = some(page.Approvals)
	return h.reply(w, q, http.StatusOK, page, err)
}

func (h *handler) showApproval(w http.ResponseWriter, q *request) error {
	out, err := q.site.ShowApproval(q.Context(), q.id)
	out.Artifacts = some(out.Artifacts)
	return h.reply(w, q, http.StatusOK, out, err)
}

func (h *handler) decideApproval(w http.ResponseWriter, q *request) error {
	var req api.DecisionRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	out, err := q.site.DecideApproval(q.Context(), q.id, req)
	return h.reply(w, q, http.StatusOK, out, err)
}

// recover asks for something that is done by hand.
func (c *Client) recover(ctx context.Context, id, verb string, req any) (api.Recovered, error) {
	return get[api.Recovered](ctx, c, call{method: http.MethodPost, path: "/runs/" + segment(id) + ":" + verb, body: req})
}

// RetryRun implements [api.Recovery].
func (c *Client) RetryRun(ctx context.Context, id string, req api.RetryRequest) (api.Recovered, error) {
	return c.recover(ctx, id, "retry", req)
}

// SkipStep implements [api.Recovery].
func (c *Client) SkipStep(ctx context.Context, id string, req api.SkipRequest) (api.Recovered, error) {
	return c.recover(ctx, id, "skip", req)
}

// AbortRun implements [api.Recovery].
func (c *Client) AbortRun(ctx context.Context, id string, req api.EndRequest) (api.Recovered, error) {
	return c.recover(ctx, id, "abort", req)
}

// FailRun implements [api.Recovery].
func (c *Client) FailRun(ctx context.Context, id string, req api.EndRequest) (api.Recovered, error) {
	return c.recover(ctx, id, "fail", req)
}

// RestartRun implements [api.Recovery].
func (c *Client) RestartRun(ctx context.Context, id string, req api.AgainRequest) (api.Recovered, error) {
	return c.recover(ctx, id, "restart", req)
}

// NudgeRun implements [api.Recovery].
func (c *Client) NudgeRun(ctx context.Context, id string, req api.NudgeRequest) (api.Recovered, error) {
	return c.recover(ctx, id, "nudge", req)
}

// ResetRun implements [api.Recovery].
func (c *Client) ResetRun(ctx context.Context, id string, req api.AgainRequest) (api.Recovered, error) {
	return c.recover(ctx, id, "reset", req)
}

// ListApprovals implements [api.Approvals].
func (c *Client) ListApprovals(ctx context.Context, q api.ApprovalQuery) (api.ApprovalPage, error) {
	return get[api.ApprovalPage](ctx, c, call{method: http.MethodGet, path: "/approvals", query: query(
		"all", q.All, "status", q.Status, "run_id", q.RunID, "page_size", q.PageSize, "page_token", q.PageToken)})
}

// ShowApproval implements [api.Approvals].
func (c *Client) ShowApproval(ctx context.Context, id string) (api.ApprovalDetail, error) {
	return get[api.ApprovalDetail](ctx, c, call{method: http.MethodGet, path: "/approvals/" + segment(id)})
}

// DecideApproval implements [api.Approvals].
func (c *Client) DecideApproval(ctx context.Context, id string, req api.DecisionRequest) (api.Decided, error) {
	return get[api.Decided](ctx, c, call{method: http.MethodPost, path: "/approvals/" + segment(id) + ":decide", body: req})
}
