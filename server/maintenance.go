package server

import (
	"context"
	"net/http"

	"github.com/stellarun/stella/server/api"
)

// What keeps a site that lasts: handlers, and the same on the client's side.

func (h *handler) createSnapshot(w http.ResponseWriter, q *request) error {
	var req api.SnapshotRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	return h.long(w, q, http.StatusOK, func(p api.Progress) (any, error) {
		return q.site.CreateSnapshot(q.Context(), req, p)
	})
}

func (h *handler) listSnapshots(w http.ResponseWriter, q *request) error {
	p := q.params()
	dir := p.str("dir")
	if err := p.err(); err != nil {
		return err
	}
	all, err := q.site.ListSnapshots(q.Context(), dir)
	return h.reply(w, q, http.StatusOK, snapshotsBody{some(all)}, err)
}

type snapshotsBody struct {
	Snapshots []api.Snapshot `json:"snapshots"`
}

func (h *handler) eraseData(w http.ResponseWriter, q *request) error {
	var req api.ErasureRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	rep, err := q.site.EraseData(q.Context(), req)
	rep.Entries = some(rep.Entries)
	return h.reply(w, q, http.StatusOK, rep, err)
}

// EraseData implements [api.Ledger].
func (c *Client) EraseData(ctx context.Context, req api.ErasureRequest) (api.ErasureReport, error) {
	return get[api.ErasureReport](ctx, c, call{method: http.MethodPost, path: "/ledger:erase", body: req})
}

func (h *handler) cosigned(w http.ResponseWriter, q *request) error {
	note, err := q.site.Cosigned(q.Context())
	note.Witnesses = some(note.Witnesses)
	return h.reply(w, q, http.StatusOK, note, err)
}

func (h *handler) takeCosigned(w http.ResponseWriter, q *request) error {
	var req api.CosignedRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	note, err := q.site.TakeCosigned(q.Context(), req)
	note.Witnesses = some(note.Witnesses)
	return h.reply(w, q, http.StatusOK, note, err)
}

// Cosigned implements [api.Ledger].
func (c *Client) Cosigned(ctx context.Context) (api.CosignedNote, error) {
	return get[api.CosignedNote](ctx, c, call{method: http.MethodGet, path: "/ledger/cosigned"})
}

// TakeCosigned implements [api.Ledger].
func (c *Client) TakeCosigned(ctx context.Context, req api.CosignedRequest) (api.CosignedNote, error) {
	return get[api.CosignedNote](ctx, c, call{method: http.MethodPost, path: "/ledger/cosigned", body: req})
}

// CreateSnapshot implements [api.Maintenance].
func (c *Client) CreateSnapshot(ctx context.Context, req api.SnapshotRequest, p api.Progress) (api.Snapshot, error) {
	return long[api.Snapshot](ctx, c, call{method: http.MethodPost, path: "/maintenance/snapshots", body: req}, p)
}

// ListSnapshots implements [api.Maintenance].
func (c *Client) ListSnapshots(ctx context.Context, dir string) ([]api.Snapshot, error) {
	body, err := get[snapshotsBody](ctx, c, call{method: http.MethodGet, path: "/maintenance/snapshots", query: query("dir", dir)})
	return body.Snapshots, err
}

func (h *handler) archiveRuns(w http.ResponseWriter, q *request) error {
	var req api.ArchiveRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	return h.long(w, q, http.StatusOK, func(p api.Progress) (any, error) {
		rep, err := q.site.ArchiveRuns(q.Context(), req, p)
		rep.Archives = some(rep.Archives)
		return rep, err
	})
}

func (h *handler) listArchives(w http.ResponseWriter, q *request) error {
	all, err := q.site.ListArchives(q.Context())
	return h.reply(w, q, http.StatusOK, archivesBody{some(all)}, err)
}

type archivesBody struct {
	Archives []api.Archive `json:"archives"`
}

// ArchiveRuns implements [api.Maintenance].
func (c *Client) ArchiveRuns(ctx context.Context, req api.ArchiveRequest, p api.Progress) (api.ArchiveReport, error) {
	return long[api.ArchiveReport](ctx, c, call{method: http.MethodPost, path: "/maintenance/archives", body: req}, p)
}

// ListArchives implements [api.Maintenance].
func (c *Client) ListArchives(ctx context.Context) ([]api.Archive, error) {
	body, err := get[archivesBody](ctx, c, call{method: http.MethodGet, path: "/maintenance/archives"})
	return body.Archives, err
}
