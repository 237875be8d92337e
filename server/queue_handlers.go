package server

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/stellarun/stella/server/api"
)

// Routes of the queue come twice: /queue is the tenant's part, /admin/queue all of
// it, which needs another scope.

type deadBody struct {
	Steps []api.DeadStep `json:"steps"`
}

// allTenants says whether a request is about the queue as a whole.
func (q *request) allTenants() bool { return strings.HasPrefix(q.URL.Path, Prefix+"/admin/") }

func fillQueue(s api.QueueStatus) api.QueueStatus {
	s.Tenants, s.Waits, s.Paused, s.Draining = some(s.Tenants), some(s.Waits), some(s.Paused), some(s.Draining)
	return s
}

func (h *handler) queueStatus(w http.ResponseWriter, q *request) error {
	st, err := q.site.QueueStatus(q.Context(), api.QueueQuery{All: q.allTenants()})
	return h.reply(w, q, http.StatusOK, fillQueue(st), err)
}

func (h *handler) pauseQueue(w http.ResponseWriter, q *request) error {
	return h.changeQueue(w, q, q.site.PauseQueue)
}

func (h *handler) drainQueue(w http.ResponseWriter, q *request) error {
	return h.changeQueue(w, q, q.site.DrainQueue)
}

func (h *handler) resumeQueue(w http.ResponseWriter, q *request) error {
	return h.changeQueue(w, q, q.site.ResumeQueue)
}

func (h *handler) changeQueue(w http.ResponseWriter, q *request, do func(context.Context, api.QueueRequest) (api.QueueChanged, error)) error {
	var body reasonBody
	if err := q.decode(&body); err != nil {
		return err
	}
	out, err := do(q.Context(), api.QueueRequest{All: q.allTenants(), Reason: body.Reason})
	out.Status = fillQueue(out.Status)
	return h.reply(w, q, http.StatusOK, out, err)
}

// waitQueue answers 200 when nothing is queued or under way, or 202 with the queue
// as it is when the time is over.
func (h *handler) waitQueue(w http.ResponseWriter, q *request) error {
	ctx, cancel, err := q.waiting()
	if err != nil {
		return err
	}
	defer cancel()
	query := api.QueueQuery{All: q.allTenants()}
	st, err := q.site.WaitQueue(ctx, query)
	if err == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return h.reply(w, q, http.StatusOK, fillQueue(st), err)
	}
	st, err = q.site.QueueStatus(q.Context(), query)
	return h.reply(w, q, http.StatusAccepted, fillQueue(st), err)
}

func (h *handler) listDead(w http.ResponseWriter, q *request) error {
	p := q.params()
	limit := p.int("limit")
	if err := p.err(); err != nil {
		return err
	}
	steps, err := q.site.ListDead(q.Context(), limit)
	return h.reply(w, q, http.StatusOK, deadBody{some(steps)}, err)
}

func queuePath(all bool) string {
	if all {
		return "/admin/queue"
	}
	return "/queue"
}

// QueueStatus implements [api.Queue].
func (c *Client) QueueStatus(ctx context.Context, q api.QueueQuery) (api.QueueStatus, error) {
	return get[api.QueueStatus](ctx, c, call{method: http.MethodGet, path: queuePath(q.All)})
}

// PauseQueue implements [api.Queue].
func (c *Client) PauseQueue(ctx context.Context, req api.QueueRequest) (api.QueueChanged, error) {
	return c.changeQueue(ctx, req, "pause")
}

// DrainQueue implements [api.Queue].
func (c *Client) DrainQueue(ctx context.Context, req api.QueueRequest) (api.QueueChanged, error) {
	return c.changeQueue(ctx, req, "drain")
}

// ResumeQueue implements [api.Queue].
func (c *Client) ResumeQueue(ctx context.Context, req api.QueueRequest) (api.QueueChanged, error) {
	return c.changeQueue(ctx, req, "resume")
}

func (c *Client) changeQueue(ctx context.Context, req api.QueueRequest, verb string) (api.QueueChanged, error) {
	return get[api.QueueChanged](ctx, c, call{method: http.MethodPost, path: queuePath(req.All) + ":" + verb, body: reasonBody{req.Reason}})
}

// WaitQueue implements [api.Queue].
func (c *Client) WaitQueue(ctx context.Context, q api.QueueQuery) (api.QueueStatus, error) {
	for {
		st, status, err := ask[api.QueueStatus](ctx, c, call{method: http.MethodGet, path: queuePath(q.All) + "/wait"})
		if err != nil || status == http.StatusOK {
			return st, err
		}
	}
}

// ListDead implements [api.Queue].
func (c *Client) ListDead(ctx context.Context, limit int) ([]api.DeadStep, error) {
	body, err := get[deadBody](ctx, c, call{method: http.MethodGet, path: "/queue/dead", query: query("limit", limit)})
	return body.Steps, err
}
