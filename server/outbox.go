package server

import (
	"context"
	"net/http"

	"github.com/stellarun/stella/server/api"
)

func (h *handler) listOutbox(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.OutboxQuery{State: p.str("state"), Sink: p.str("sink"), PageSize: p.int("page_size"), PageToken: p.str("page_token")}
	if err := p.err(); err != nil {
		return err
	}
	page, err := q.site.ListOutbox(q.Context(), query)
	page.Sinks, page.Events = some(page.Sinks), some(page.Events)
	return h.reply(w, q, http.StatusOK, page, err)
}

func (h *handler) showEvent(w http.ResponseWriter, q *request) error {
	ev, err := q.site.ShowEvent(q.Context(), q.PathValue("event"))
	return h.reply(w, q, http.StatusOK, ev, err)
}

func (h *handler) requeueEvents(w http.ResponseWriter, q *request) error {
	var req api.RequeueRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	res, err := q.site.RequeueEvents(q.Context(), req)
	res.Sinks = some(res.Sinks)
	return h.reply(w, q, http.StatusOK, res, err)
}

func (h *handler) forgetSink(w http.ResponseWriter, q *request) error {
	var req api.ForgetRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	res, err := q.site.ForgetSink(q.Context(), req)
	return h.reply(w, q, http.StatusOK, res, err)
}

// ListOutbox implements [api.Outbox].
func (c *Client) ListOutbox(ctx context.Context, q api.OutboxQuery) (api.OutboxPage, error) {
	return get[api.OutboxPage](ctx, c, call{method: http.MethodGet, path: "/outbox", query: query(
		"state", q.State, "sink", q.Sink, "page_size", q.PageSize, "page_token", q.PageToken)})
}

// ShowEvent implements [api.Outbox].
func (c *Client) ShowEvent(ctx context.Context, id string) (api.OutboxEvent, error) {
	return get[api.OutboxEvent](ctx, c, call{method: http.MethodGet, path: "/outbox/" + segment(id)})
}

// RequeueEvents implements [api.Outbox].
func (c *Client) RequeueEvents(ctx context.Context, req api.RequeueRequest) (api.RequeueResult, error) {
	return get[api.RequeueResult](ctx, c, call{method: http.MethodPost, path: "/outbox:requeue", body: req})
}

// ForgetSink implements [api.Outbox].
func (c *Client) ForgetSink(ctx context.Context, req api.ForgetRequest) (api.ForgetResult, error) {
	return get[api.ForgetResult](ctx, c, call{method: http.MethodPost, path: "/outbox:forget", body: req})
}
