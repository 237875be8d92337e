package server

import (
	"context"
	"net/http"

	"github.com/stellarun/stella/server/api"
)

type schedulesBody struct {
	Schedules []api.Schedule `json:"schedules"`
}

type instantsBody struct {
	Instants []string `json:"instants"`
}

func (h *handler) addSchedule(w http.ResponseWriter, q *request) error {
	var req api.ScheduleRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	out, err := q.site.AddSchedule(q.Context(), req)
	return h.reply(w, q, http.StatusOK, out, err)
}

func (h *handler) listSchedules(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.ScheduleQuery{DAGID: p.str("dag_id"), State: p.str("state")}
	if err := p.err(); err != nil {
		return err
	}
	list, err := q.site.ListSchedules(q.Context(), query)
	return h.reply(w, q, http.StatusOK, schedulesBody{some(list)}, err)
}

func (h *handler) showSchedule(w http.ResponseWriter, q *request) error {
	out, err := q.site.ShowSchedule(q.Context(), q.id)
	return h.reply(w, q, http.StatusOK, out, err)
}

func (h *handler) nextInstants(w http.ResponseWriter, q *request) error {
	p := q.params()
	n := p.int("count")
	if err := p.err(); err != nil {
		return err
	}
	list, err := q.site.NextInstants(q.Context(), q.id, n)
	return h.reply(w, q, http.StatusOK, instantsBody{some(list)}, err)
}

func (h *handler) pauseSchedules(w http.ResponseWriter, q *request) error {
	return h.switchSchedules(w, q, q.site.PauseSchedules)
}

func (h *handler) resumeSchedules(w http.ResponseWriter, q *request) error {
	return h.switchSchedules(w, q, q.site.ResumeSchedules)
}

func (h *handler) removeSchedules(w http.ResponseWriter, q *request) error {
	return h.switchSchedules(w, q, q.site.RemoveSchedules)
}

// switchSchedules changes the schedule that the path names, or those that the
// body selects.
func (h *handler) switchSchedules(w http.ResponseWriter, q *request, do func(context.Context, api.ScheduleSelection) (api.ScheduleReport, error)) error {
	var sel api.ScheduleSelection
	if err := q.decode(&sel); err != nil {
		return err
	}
	if q.id != "" {
		if sel.Name != "" && sel.Name != q.id {
			return invalid("the path names the schedule %q, the body %q", q.id, sel.Name)
		}
		sel.Name = q.id
	}
	out, err := do(q.Context(), sel)
	out.Changed = some(out.Changed)
	return h.reply(w, q, http.StatusOK, out, err)
}

// AddSchedule implements [api.Schedules].
func (c *Client) AddSchedule(ctx context.Context, req api.ScheduleRequest) (api.Schedule, error) {
	return get[api.Schedule](ctx, c, call{method: http.MethodPost, path: "/schedules", body: req})
}

// ListSchedules implements [api.Schedules].
func (c *Client) ListSchedules(ctx context.Context, q api.ScheduleQuery) ([]api.Schedule, error) {
	body, err := get[schedulesBody](ctx, c, call{method: http.MethodGet, path: "/schedules", query: query("dag_id", q.DAGID, "state", q.State)})
	return body.Schedules, err
}

// ShowSchedule implements [api.Schedules].
func (c *Client) ShowSchedule(ctx context.Context, name string) (api.ScheduleDetail, error) {
	return get[api.ScheduleDetail](ctx, c, call{method: http.MethodGet, path: "/schedules/" + segment(name)})
}

// NextInstants implements [api.Schedules].
func (c *Client) NextInstants(ctx context.Context, name string, count int) ([]string, error) {
	body, err := get[instantsBody](ctx, c, call{method: http.MethodGet, path: "/schedules/" + segment(name) + "/next", query: query("count", count)})
	return body.Instants, err
}

// PauseSchedules implements [api.Schedules].
func (c *Client) PauseSchedules(ctx context.Context, sel api.ScheduleSelection) (api.ScheduleReport, error) {
	return c.switchSchedules(ctx, "pause", sel)
}

// ResumeSchedules implements [api.Schedules].
func (c *Client) ResumeSchedules(ctx context.Context, sel api.ScheduleSelection) (api.ScheduleReport, error) {
	return c.switchSchedules(ctx, "resume", sel)
}

// RemoveSchedules implements [api.Schedules].
func (c *Client) RemoveSchedules(ctx context.Context, sel api.ScheduleSelection) (api.ScheduleReport, error) {
	return c.switchSchedules(ctx, "remove", sel)
}

func (c *Client) switchSchedules(ctx context.Context, verb string, sel api.ScheduleSelection) (api.ScheduleReport, error) {
	path := "/schedules:" + verb
	if sel.Name != "" {
		path = "/schedules/" + segment(sel.Name) + ":" + verb
	}
	return get[api.ScheduleReport](ctx, c, call{method: http.MethodPost, path: path, body: sel})
}
