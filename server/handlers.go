package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// Bodies that have no shape of their own in package api.
type (
	reasonBody struct {
		Reason string `json:"reason,omitempty"`
	}
	refBody struct {
		Ref string `json:"ref"`
	}
	stopBody struct {
		Force bool `json:"force,omitempty"`
	}
	runsBody struct {
		Runs []state.Run `json:"runs"`
	}
	dagsBody struct {
		DAGs []api.DAG `json:"dags"`
	}
	bundlesBody struct {
		Bundles []api.Bundle `json:"bundles"`
	}
	entriesBody struct {
		Entries []api.LedgerLine `json:"entries"`
	}
	exportsBody struct {
		Exports []api.ExportResult `json:"exports"`
	}
	stepsBody struct {
		Steps []api.StepInfo `json:"steps"`
	}
	stepBody struct {
		api.StepInfo
		Attempts []state.Attempt `json:"attempts"`
	}
	healthBody struct {
		Status     string `json:"status"` // ok
		Live       bool   `json:"live"`
		Ready      bool   `json:"ready"` // accepts and executes runs
		Mode       string `json:"mode"`
		QueueDepth int    `json:"queueDepth"`
		Executing  int    `json:"executing"`
	}
)

// some is v, or an empty list where v is nil: JSON readers want [] and not null.
func some[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

func (h *handler) startRun(w http.ResponseWriter, q *request) error {
	var req api.StartRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	// A run's token is its idempotency key: same token, same work, same run.
	if key := q.Header.Get(HeaderIdempotencyKey); key != "" {
		if req.RunToken != "" && req.RunToken != key {
			return invalid("%s and runToken differ; a run has one token", HeaderIdempotencyKey)
		}
		req.RunToken = key
	}
	if req.TraceID == "" && q.traced {
		req.TraceID = q.traceID
	}
	res, err := q.site.StartRun(q.Context(), req)
	status := http.StatusCreated
	if res.Replayed {
		status = http.StatusOK
	}
	return h.reply(w, q, status, res, err)
}

func (h *handler) listRuns(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.RunQuery{
		Active: p.bool("active"), DAGID: p.str("dag_id"), Status: p.str("status"),
		PageSize: p.int("page_size"), PageToken: p.str("page_token"),
	}
	if err := p.err(); err != nil {
		return err
	}
	page, err := q.site.ListRuns(q.Context(), query)
	page.Runs = some(page.Runs)
	return h.reply(w, q, http.StatusOK, page, err)
}

func (h *handler) getRun(w http.ResponseWriter, q *request) error {
	run, err := q.site.GetRun(q.Context(), q.id)
	run.StepList = some(run.StepList)
	return h.reply(w, q, http.StatusOK, run, err)
}

func (h *handler) runOverview(w http.ResponseWriter, q *request) error {
	run, err := q.site.RunOverview(q.Context(), q.id)
	run.StepList = some(run.StepList)
	return h.reply(w, q, http.StatusOK, run, err)
}

func (h *handler) listSteps(w http.ResponseWriter, q *request) error {
	run, err := q.site.GetRun(q.Context(), q.id)
	return h.reply(w, q, http.StatusOK, stepsBody{some(run.StepList)}, err)
}

func (h *handler) getStep(w http.ResponseWriter, q *request) error {
	in, err := q.site.InspectRun(q.Context(), q.id)
	if err != nil {
		return err
	}
	want := q.PathValue("step")
	for _, s := range in.Steps {
		if s.StepID != want {
			continue
		}
		body := stepBody{StepInfo: s, Attempts: []state.Attempt{}}
		for _, a := range in.Attempts {
			if a.StepID == want {
				body.Attempts = append(body.Attempts, a)
			}
		}
		return h.write(w, q, http.StatusOK, body)
	}
	return &api.Error{Code: api.CodeNotFound, Message: "run " + q.id + " has no step " + strconv.Quote(want)}
}

func (h *handler) inspectRun(w http.ResponseWriter, q *request) error {
	in, err := q.site.InspectRun(q.Context(), q.id)
	return h.reply(w, q, http.StatusOK, in, err)
}

func (h *handler) cancelRun(w http.ResponseWriter, q *request) error {
	var body api.EndRequest
	if err := q.decode(&body); err != nil {
		return err
	}
	if body.DryRun {
		out, err := q.site.TryCancelRun(q.Context(), q.id, body.Reason)
		return h.reply(w, q, http.StatusOK, out, err)
	}
	run, err := q.site.CancelRun(q.Context(), q.id, body.Reason)
	return h.reply(w, q, http.StatusOK, run, err)
}

func (h *handler) replayRun(w http.ResponseWriter, q *request) error {
	var req api.ReplayRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	res, err := q.site.ReplayRun(q.Context(), q.id, req)
	return h.reply(w, q, http.StatusCreated, res, err)
}

func (h *handler) resumeRun(w http.ResponseWriter, q *request) error {
	if err := q.decode(&struct{}{}); err != nil {
		return err
	}
	runs, err := q.site.ResumeRun(q.Context(), q.id)
	return h.reply(w, q, http.StatusOK, runsBody{some(runs)}, err)
}

// waiting is the context of a request that waits, for at most timeout_ms.
func (q *request) waiting() (context.Context, context.CancelFunc, error) {
	p := q.params()
	wait := time.Duration(min(max(0, p.int64("timeout_ms")), maxWait.Milliseconds())) * time.Millisecond
	if err := p.err(); err != nil {
		return nil, nil, err
	}
	if wait == 0 {
		wait = maxWait
	}
	ctx, cancel := context.WithTimeout(q.Context(), wait)
	return ctx, cancel, nil
}

// waitRun answers 200 with the ended run, or 202 with the run as it is when
// the time is over.
func (h *handler) waitRun(w http.ResponseWriter, q *request) error {
	ctx, cancel, err := q.waiting()
	if err != nil {
		return err
	}
	defer cancel()
	run, err := q.site.WaitRun(ctx, q.id)
	if err == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return h.reply(w, q, http.StatusOK, run, err)
	}
	detail, err := q.site.GetRun(q.Context(), q.id)
	return h.reply(w, q, http.StatusAccepted, detail.Run, err)
}

func (h *handler) runLogs(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.LogQuery{RunID: q.id, StepID: p.str("step"), Attempt: p.int("attempt"), Follow: p.bool("follow")}
	if err := p.err(); err != nil {
		return err
	}
	s := h.stream(w, q)
	err := q.site.RunLogs(q.Context(), query, func(l api.LogLine) error { return s.send(event{Line: &l}) })
	return s.end(struct{}{}, err)
}

func (h *handler) listDAGs(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.DAGQuery{Active: p.bool("active"), DAGID: p.str("dag_id")}
	if err := p.err(); err != nil {
		return err
	}
	dags, err := q.site.ListDAGs(q.Context(), query)
	return h.reply(w, q, http.StatusOK, dagsBody{some(dags)}, err)
}

func (h *handler) publishDAG(w http.ResponseWriter, q *request) error {
	var body refBody
	if err := q.decode(&body); err != nil {
		return err
	}
	dag, err := q.site.PublishDAG(q.Context(), body.Ref)
	return h.reply(w, q, http.StatusOK, dag, err)
}

func (h *handler) showDAG(w http.ResponseWriter, q *request) error {
	dag, err := q.site.ShowDAG(q.Context(), q.id, q.PathValue("version"))
	return h.reply(w, q, http.StatusOK, dag, err)
}

func (h *handler) listBundles(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.BundleQuery{Kind: p.str("kind"), Publisher: p.str("publisher"), Name: p.str("name")}
	if err := p.err(); err != nil {
		return err
	}
	bundles, err := q.site.ListBundles(q.Context(), query)
	return h.reply(w, q, http.StatusOK, bundlesBody{some(bundles)}, err)
}

func (h *handler) importBundle(w http.ResponseWriter, q *request) error {
	var req api.ImportRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	return h.long(w, q, http.StatusOK, func(p api.Progress) (any, error) {
		return q.site.ImportBundle(q.Context(), req, p)
	})
}

func (h *handler) verifyBundle(w http.ResponseWriter, q *request) error {
	var req api.VerifyRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	return h.long(w, q, http.StatusOK, func(p api.Progress) (any, error) {
		return q.site.VerifyBundle(q.Context(), req, p)
	})
}

func (h *handler) showBundle(w http.ResponseWriter, q *request) error {
	b, err := q.site.ShowBundle(q.Context(), q.PathValue("ref"))
	return h.reply(w, q, http.StatusOK, b, err)
}

func (h *handler) tailLedger(w http.ResponseWriter, q *request) error {
	p := q.params()
	query := api.LedgerQuery{
		From: p.int64("from"), Last: p.bool("last"), Limit: p.int("limit"),
		Type: p.str("type"), RunID: p.str("run_id"),
	}
	if err := p.err(); err != nil {
		return err
	}
	lines, err := q.site.TailLedger(q.Context(), query)
	return h.reply(w, q, http.StatusOK, entriesBody{some(lines)}, err)
}

func (h *handler) showTrust(w http.ResponseWriter, q *request) error {
	report, err := q.site.ShowTrust(q.Context())
	return h.reply(w, q, http.StatusOK, report, err)
}

// changeTrust decodes what is asked for and calls one method of [api.Trust].
func changeTrust[T any](h *handler, w http.ResponseWriter, q *request, change func(context.Context, T) (api.TrustReport, error)) error {
	var req T
	if err := q.decode(&req); err != nil {
		return err
	}
	report, err := change(q.Context(), req)
	return h.reply(w, q, http.StatusOK, report, err)
}

func (h *handler) addTrust(w http.ResponseWriter, q *request) error {
	return changeTrust(h, w, q, q.site.AddTrust)
}

func (h *handler) rotateTrust(w http.ResponseWriter, q *request) error {
	return changeTrust(h, w, q, q.site.RotateTrust)
}

func (h *handler) revokeTrust(w http.ResponseWriter, q *request) error {
	return changeTrust(h, w, q, q.site.RevokeTrust)
}

func (h *handler) extendTrust(w http.ResponseWriter, q *request) error {
	return changeTrust(h, w, q, q.site.ExtendTrust)
}

func (h *handler) acceptTime(w http.ResponseWriter, q *request) error {
	var req api.TimeAcceptance
	if err := q.decode(&req); err != nil {
		return err
	}
	err := q.site.AcceptTime(q.Context(), req)
	return h.reply(w, q, http.StatusOK, struct{}{}, err)
}

// seq reads the number of an entry out of the path.
func (q *request) seq() (int64, error) {
	n, err := strconv.ParseInt(q.PathValue("seq"), 10, 64)
	if err != nil {
		return 0, invalid("%q is not the number of an entry", q.PathValue("seq"))
	}
	return n, nil
}

func (h *handler) showLedger(w http.ResponseWriter, q *request) error {
	seq, err := q.seq()
	if err != nil {
		return err
	}
	line, err := q.site.ShowLedger(q.Context(), seq)
	return h.reply(w, q, http.StatusOK, line, err)
}

func (h *handler) proveEntry(w http.ResponseWriter, q *request) error {
	seq, err := q.seq()
	if err != nil {
		return err
	}
	p := q.params()
	to := p.int64("to")
	if err := p.err(); err != nil {
		return err
	}
	proof, err := q.site.ProveEntry(q.Context(), seq, to)
	if err != nil {
		return err
	}
	return h.writeBytes(w, q, http.StatusOK, "text/plain; charset=utf-8", proof)
}

func (h *handler) proveConsistency(w http.ResponseWriter, q *request) error {
	p := q.params()
	size, to := p.int64("size"), p.int64("to")
	if err := p.err(); err != nil {
		return err
	}
	proof, err := q.site.ProveConsistency(q.Context(), size, to)
	return h.reply(w, q, http.StatusOK, proof, err)
}

func (h *handler) checkpoint(w http.ResponseWriter, q *request) error {
	if err := q.decode(&struct{}{}); err != nil {
		return err
	}
	note, err := q.site.Checkpoint(q.Context())
	return h.reply(w, q, http.StatusOK, note, err)
}

func (h *handler) verifyLedger(w http.ResponseWriter, q *request) error {
	var req api.LedgerCheck
	if err := q.decode(&req); err != nil {
		return err
	}
	return h.long(w, q, http.StatusOK, func(p api.Progress) (any, error) {
		return q.site.VerifyLedger(q.Context(), req, p)
	})
}

func (h *handler) listExports(w http.ResponseWriter, q *request) error {
	list, err := q.site.ListExports(q.Context())
	return h.reply(w, q, http.StatusOK, exportsBody{some(list)}, err)
}

func (h *handler) createExport(w http.ResponseWriter, q *request) error {
	var req api.ExportRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	return h.long(w, q, http.StatusCreated, func(p api.Progress) (any, error) {
		return q.site.CreateExport(q.Context(), req, p)
	})
}

func (h *handler) health(w http.ResponseWriter, q *request) error {
	st, err := q.site.Status(q.Context())
	return h.reply(w, q, http.StatusOK, healthBody{
		Status: "ok", Live: true, Ready: st.Mode != "command" && st.Refuses == nil,
		Mode: st.Mode, QueueDepth: st.Queued, Executing: st.Executing,
	}, err)
}

func (h *handler) status(w http.ResponseWriter, q *request) error {
	st, err := q.site.Status(q.Context())
	return h.reply(w, q, http.StatusOK, st, err)
}

func (h *handler) stop(w http.ResponseWriter, q *request) error {
	var body stopBody
	if err := q.decode(&body); err != nil {
		return err
	}
	err := q.site.Stop(q.Context(), body.Force)
	return h.reply(w, q, http.StatusAccepted, struct{}{}, err)
}
