package server

import (
	"context"
	"net/http"

	"github.com/stellarun/stella/server/api"
)

func (h *handler) disableDAG(w http.ResponseWriter, q *request) error {
	return h.switchDAG(w, q, q.site.DisableDAG)
}

func (h *handler) enableDAG(w http.ResponseWriter, q *request) error {
	return h.switchDAG(w, q, q.site.EnableDAG)
}

func (h *handler) switchDAG(w http.ResponseWriter, q *request, do func(context.Context, string, string, api.DAGSwitch) (api.DAGSwitched, error)) error {
	var req api.DAGSwitch
	if err := q.decode(&req); err != nil {
		return err
	}
	out, err := do(q.Context(), q.id, q.PathValue("version"), req)
	out.Schedules = some(out.Schedules)
	return h.reply(w, q, http.StatusOK, out, err)
}

// DisableDAG implements [api.DAGs].
func (c *Client) DisableDAG(ctx context.Context, id, version string, req api.DAGSwitch) (api.DAGSwitched, error) {
	return c.switchDAG(ctx, id, version, "disable", req)
}

// EnableDAG implements [api.DAGs].
func (c *Client) EnableDAG(ctx context.Context, id, version string, req api.DAGSwitch) (api.DAGSwitched, error) {
	return c.switchDAG(ctx, id, version, "enable", req)
}

func (c *Client) switchDAG(ctx context.Context, id, version, verb string, req api.DAGSwitch) (api.DAGSwitched, error) {
	return get[api.DAGSwitched](ctx, c, call{
		method: http.MethodPost, path: "/dags/" + segment(id) + "/" + segment(version) + ":" + verb, body: req,
	})
}
