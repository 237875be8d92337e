package server

import (
	"context"
	"net/http"

	"github.com/stellarun/stella/server/api"
)

func (h *handler) listSessions(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.SessionQuery{
		All: p.bool("all"), RunID: p.str("run_id"), PageSize: p.int("page_size"), PageToken: p.str("page_token"),
	}
	if err := p.err(); err != nil {
		return err
	}
	page, err := q.site.ListSessions(q.Context(), query)
	page.Sessions = some(page.Sessions)
	return h.reply(w, q, http.StatusOK, page, err)
}

func (h *handler) captureSession(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.CaptureQuery{
		RunID: q.id, StepID: q.PathValue("step"), Attempt: p.int("attempt"), Tail: p.int("tail"), Follow: p.bool("follow"),
	}
	if err := p.err(); err != nil {
		return err
	}
	s := h.stream(w, q)
	err := q.site.CaptureSession(q.Context(), query, func(l api.LogLine) error { return s.send(event{Line: &l}) })
	return s.end(struct{}{}, err)
}

// ListSessions implements [api.Sessions].
func (c *Client) ListSessions(ctx context.Context, q api.SessionQuery) (api.SessionPage, error) {
	return get[api.SessionPage](ctx, c, call{method: http.MethodGet, path: "/sessions", query: query(
		"all", q.All, "run_id", q.RunID, "page_size", q.PageSize, "page_token", q.PageToken)})
}

// CaptureSession implements [api.Sessions].
func (c *Client) CaptureSession(ctx context.Context, q api.CaptureQuery, f func(api.LogLine) error) error {
	_, err := follow[struct{}](ctx, c, call{
		method: http.MethodGet, path: "/sessions/" + segment(q.RunID) + "/" + segment(q.StepID),
		query: query("attempt", q.Attempt, "tail", q.Tail, "follow", q.Follow),
	}, func(e event) error {
		if e.Line == nil {
			return nil
		}
		return f(*e.Line)
	})
	return err
}
