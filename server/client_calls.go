package server

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// query builds a query from names and values; zero values are left out.
func query(pairs ...any) url.Values {
	out := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		var s string
		switch v := pairs[i+1].(type) {
		case string:
			s = v
		case bool:
			if v {
				s = "true"
			}
		case int:
			if v != 0 {
				s = strconv.Itoa(v)
			}
		case int64:
			if v != 0 {
				s = strconv.FormatInt(v, 10)
			}
		default:
			panic("server: a query cannot hold this type")
		}
		if s != "" {
			out.Set(pairs[i].(string), s)
		}
	}
	return out
}

// segment makes one path segment of a name, whatever the name is: an empty one
// would be another route, and dots would be cleaned away.
func segment(s string) string {
	switch s {
	case "":
		return "%00"
	case ".", "..":
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}

// StartRun implements [api.Runs].
func (c *Client) StartRun(ctx context.Context, req api.StartRequest) (api.StartResult, error) {
	return get[api.StartResult](ctx, c, call{method: http.MethodPost, path: "/runs", body: req})
}

// ListRuns implements [api.Runs].
func (c *Client) ListRuns(ctx context.Context, q api.RunQuery) (api.RunPage, error) {
	return get[api.RunPage](ctx, c, call{method: http.MethodGet, path: "/runs", query: query(
		"active", q.Active, "dag_id", q.DAGID, "status", q.Status, "page_size", q.PageSize, "page_token", q.PageToken)})
}

// GetRun implements [api.Runs].
func (c *Client) GetRun(ctx context.Context, id string) (api.RunDetail, error) {
	return get[api.RunDetail](ctx, c, call{method: http.MethodGet, path: "/runs/" + segment(id)})
}

// RunOverview implements [api.Runs].
func (c *Client) RunOverview(ctx context.Context, id string) (api.RunDetail, error) {
	return get[api.RunDetail](ctx, c, call{method: http.MethodGet, path: "/runs/" + segment(id) + "/overview"})
}

// InspectRun implements [api.Runs].
func (c *Client) InspectRun(ctx context.Context, id string) (api.RunInspection, error) {
	return get[api.RunInspection](ctx, c, call{method: http.MethodGet, path: "/runs/" + segment(id) + "/inspection"})
}

// RunLogs implements [api.Runs].
func (c *Client) RunLogs(ctx context.Context, q api.LogQuery, f func(api.LogLine) error) error {
	_, err := follow[struct{}](ctx, c, call{
		method: http.MethodGet, path: "/runs/" + segment(q.RunID) + "/logs",
		query: query("step", q.StepID, "attempt", q.Attempt, "follow", q.Follow),
	}, func(e event) error {
		if e.Line == nil {
			return nil
		}
		return f(*e.Line)
	})
	return err
}

// CancelRun implements [api.Runs].
func (c *Client) CancelRun(ctx context.Context, id, reason string) (state.Run, error) {
	return get[state.Run](ctx, c, call{method: http.MethodPost, path: "/runs/" + segment(id) + ":cancel", body: reasonBody{reason}})
}

// TryCancelRun implements [api.Runs].
func (c *Client) TryCancelRun(ctx context.Context, id, reason string) (api.Recovered, error) {
	return get[api.Recovered](ctx, c, call{method: http.MethodPost, path: "/runs/" + segment(id) + ":cancel", body: api.EndRequest{Reason: reason, DryRun: true}})
}

// ReplayRun implements [api.Runs].
func (c *Client) ReplayRun(ctx context.Context, id string, req api.ReplayRequest) (api.StartResult, error) {
	return get[api.StartResult](ctx, c, call{method: http.MethodPost, path: "/runs/" + segment(id) + ":replay", body: req})
}

// ResumeRun implements [api.Runs].
func (c *Client) ResumeRun(ctx context.Context, id string) ([]state.Run, error) {
	path := "/runs:resume"
	if id != "" {
		path = "/runs/" + segment(id) + ":resume"
	}
	body, err := get[runsBody](ctx, c, call{method: http.MethodPost, path: path, body: struct{}{}})
	return body.Runs, err
}

// WaitRun implements [api.Runs].
func (c *Client) WaitRun(ctx context.Context, id string) (state.Run, error) {
	for {
		run, status, err := ask[state.Run](ctx, c, call{method: http.MethodGet, path: "/runs/" + segment(id) + "/wait"})
		if err != nil || status == http.StatusOK {
			return run, err
		}
	}
}

// ListDAGs implements [api.DAGs].
func (c *Client) ListDAGs(ctx context.Context, q api.DAGQuery) ([]api.DAG, error) {
	body, err := get[dagsBody](ctx, c, call{method: http.MethodGet, path: "/dags", query: query("active", q.Active, "dag_id", q.DAGID)})
	return body.DAGs, err
}

// PublishDAG implements [api.DAGs].
func (c *Client) PublishDAG(ctx context.Context, ref string) (api.DAG, error) {
	return get[api.DAG](ctx, c, call{method: http.MethodPost, path: "/dags", body: refBody{ref}})
}

// ShowDAG implements [api.DAGs].
func (c *Client) ShowDAG(ctx context.Context, id, version string) (api.DAGDetail, error) {
	path := "/dags/" + segment(id)
	if version != "" {
		path += "/" + segment(version)
	}
	return get[api.DAGDetail](ctx, c, call{method: http.MethodGet, path: path})
}

// ListBundles implements [api.Bundles].
func (c *Client) ListBundles(ctx context.Context, q api.BundleQuery) ([]api.Bundle, error) {
	body, err := get[bundlesBody](ctx, c, call{method: http.MethodGet, path: "/bundles", query: query(
		"kind", q.Kind, "publisher", q.Publisher, "name", q.Name)})
	return body.Bundles, err
}

// ImportBundle implements [api.Bundles].
func (c *Client) ImportBundle(ctx context.Context, req api.ImportRequest, p api.Progress) (api.ImportResult, error) {
	return long[api.ImportResult](ctx, c, call{method: http.MethodPost, path: "/bundles", body: req}, p)
}

// VerifyBundle implements [api.Bundles].
func (c *Client) VerifyBundle(ctx context.Context, req api.VerifyRequest, p api.Progress) (ledger.Verdict, error) {
	return long[ledger.Verdict](ctx, c, call{method: http.MethodPost, path: "/bundles:verify", body: req}, p)
}

// ShowBundle implements [api.Bundles].
func (c *Client) ShowBundle(ctx context.Context, ref string) (api.BundleDetail, error) {
	return get[api.BundleDetail](ctx, c, call{method: http.MethodGet, path: "/bundles/" + segment(ref)})
}

// ShowTrust implements [api.Trust].
func (c *Client) ShowTrust(ctx context.Context) (api.TrustReport, error) {
	return get[api.TrustReport](ctx, c, call{method: http.MethodGet, path: "/trust"})
}

// AddTrust implements [api.Trust].
func (c *Client) AddTrust(ctx context.Context, add api.TrustAddition) (api.TrustReport, error) {
	return get[api.TrustReport](ctx, c, call{method: http.MethodPost, path: "/trust", body: add})
}

// RotateTrust implements [api.Trust].
func (c *Client) RotateTrust(ctx context.Context, r api.TrustRotation) (api.TrustReport, error) {
	return get[api.TrustReport](ctx, c, call{method: http.MethodPost, path: "/trust:rotate", body: r})
}

// RevokeTrust implements [api.Trust].
func (c *Client) RevokeTrust(ctx context.Context, r api.TrustRevocation) (api.TrustReport, error) {
	return get[api.TrustReport](ctx, c, call{method: http.MethodPost, path: "/trust:revoke", body: r})
}

// ExtendTrust implements [api.Trust].
func (c *Client) ExtendTrust(ctx context.Context, x api.TrustExtension) (api.TrustReport, error) {
	return get[api.TrustReport](ctx, c, call{method: http.MethodPost, path: "/trust:extend", body: x})
}

// AcceptTime implements [api.Trust].
func (c *Client) AcceptTime(ctx context.Context, t api.TimeAcceptance) error {
	_, err := get[struct{}](ctx, c, call{method: http.MethodPost, path: "/trust:accept-time", body: t})
	return err
}

// TailLedger implements [api.Ledger].
func (c *Client) TailLedger(ctx context.Context, q api.LedgerQuery) ([]api.LedgerLine, error) {
	body, err := get[entriesBody](ctx, c, call{method: http.MethodGet, path: "/ledger/entries", query: query(
		"from", q.From, "last", q.Last, "limit", q.Limit, "type", q.Type, "run_id", q.RunID)})
	return body.Entries, err
}

// ShowLedger implements [api.Ledger].
func (c *Client) ShowLedger(ctx context.Context, seq int64) (api.LedgerLine, error) {
	return get[api.LedgerLine](ctx, c, call{method: http.MethodGet, path: "/ledger/entries/" + strconv.FormatInt(seq, 10)})
}

// VerifyLedger implements [api.Ledger].
func (c *Client) VerifyLedger(ctx context.Context, req api.LedgerCheck, p api.Progress) (api.LedgerReport, error) {
	return long[api.LedgerReport](ctx, c, call{method: http.MethodPost, path: "/ledger:verify", body: req}, p)
}

// Checkpoint implements [api.Ledger].
func (c *Client) Checkpoint(ctx context.Context) (api.CheckpointNote, error) {
	return get[api.CheckpointNote](ctx, c, call{method: http.MethodPost, path: "/ledger/checkpoints", body: struct{}{}})
}

// ProveEntry implements [api.Ledger].
func (c *Client) ProveEntry(ctx context.Context, seq, to int64) ([]byte, error) {
	res, err := c.open(ctx, call{method: http.MethodGet, path: "/ledger/entries/" + strconv.FormatInt(seq, 10) + "/proof", query: query("to", to)})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return readAll(ctx, res.Body)
}

// ProveConsistency implements [api.Ledger].
func (c *Client) ProveConsistency(ctx context.Context, size, to int64) (api.ConsistencyProof, error) {
	return get[api.ConsistencyProof](ctx, c, call{method: http.MethodGet, path: "/ledger/consistency", query: query("size", size, "to", to)})
}

// ListExports implements [api.Exports].
func (c *Client) ListExports(ctx context.Context) ([]api.ExportResult, error) {
	body, err := get[exportsBody](ctx, c, call{method: http.MethodGet, path: "/exports"})
	return body.Exports, err
}

// CreateExport implements [api.Exports].
func (c *Client) CreateExport(ctx context.Context, req api.ExportRequest, p api.Progress) (api.ExportResult, error) {
	return long[api.ExportResult](ctx, c, call{method: http.MethodPost, path: "/exports", body: req}, p)
}

// Status implements [api.Host].
func (c *Client) Status(ctx context.Context) (api.SiteStatus, error) {
	return get[api.SiteStatus](ctx, c, call{method: http.MethodGet, path: "/admin/status"})
}

// Stop implements [api.Host].
func (c *Client) Stop(ctx context.Context, force bool) error {
	_, err := get[struct{}](ctx, c, call{method: http.MethodPost, path: "/admin/stop", body: stopBody{force}})
	return err
}
