package engine

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

var _ api.Approvals = (*site)(nil)

var approvalStates = []string{
	state.ApprovalPending, state.ApprovalApproved, state.ApprovalRejected, state.ApprovalExpired, state.ApprovalWithdrawn,
}

// ListApprovals pages through the approvals of the tenant.
func (s *site) ListApprovals(_ context.Context, q api.ApprovalQuery) (api.ApprovalPage, error) {
	size := q.PageSize
	if size == 0 {
		size = 50
	}
	switch {
	case size < 0 || size > 500:
		return api.ApprovalPage{}, invalid("page_size is 1 to 500")
	case q.Status != "" && !slices.Contains(approvalStates, q.Status):
		return api.ApprovalPage{}, invalid("a status is %s, not %q", strings.Join(approvalStates, ", "), q.Status)
	}
	cursor, err := base64.RawURLEncoding.DecodeString(q.PageToken)
	if err != nil || len(cursor) > 256 {
		return api.ApprovalPage{}, invalid("the page token is not one of ours")
	}
	if q.RunID != "" {
		if _, err := s.run(q.RunID); err != nil {
			return api.ApprovalPage{}, err
		}
	}
	open := !q.All && (q.Status == "" || q.Status == state.ApprovalPending)
	recs, next, err := s.e.db.Approvals(s.tenant, open, string(cursor), size, func(r store.ApprovalRecord) bool {
		return (q.RunID == "" || r.Run.RunID == q.RunID) && (q.Status == "" || r.Approval.Status == q.Status)
	})
	if err != nil {
		return api.ApprovalPage{}, dbError(err)
	}
	out := api.ApprovalPage{Approvals: []api.Approval{}}
	for _, rec := range recs {
		a, err := s.showApproval(rec)
		if err != nil {
			return out, err
		}
		out.Approvals = append(out.Approvals, a)
	}
	if next != "" {
		out.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(next))
	}
	return out, nil
}

// showApproval is an approval as others see it.
func (s *site) showApproval(rec store.ApprovalRecord) (api.Approval, error) {
	a, run, req := rec.Approval, rec.Run, rec.Approval.Request
	out := api.Approval{
		ID: state.ApprovalID(run.RunID, rec.StepID, a.Attempt), RunID: run.RunID, DAGID: run.DAGID, DAGVersion: run.DAGVersion,
		StepID: rec.StepID, Attempt: a.Attempt, Status: a.Status, Question: req.Question, Options: req.Options,
		Approvers: req.Approvers, Quorum: req.Quorum, ExcludeStarter: req.ExcludeStarter, StartedBy: run.Actor, Required: req.Required,
		PlanHash: req.PlanHash, OutputsHash: req.OutputsHash, RequestedUTC: a.RequestedUTC, ExpiresUTC: req.Expires,
		ClosedUTC: a.ClosedUTC, Decision: a.Decision, Decisions: a.Decisions,
	}
	if out.Decisions == nil {
		out.Decisions = []state.Decision{}
	}
	out.Overdue = a.Status == state.ApprovalPending && s.e.overdue(req)
	starters, err := s.starters(run)
	if err != nil {
		return out, err
	}
	out.StartedBy, out.StartedFor = starters[0], starters[1:]
	reach := a.Reach(starters)
	out.MayDecide, out.Deadlocked, out.Note = reach.Left, reach.Lost, deadlock(run, rec.StepID, &a, reach)
	return out, nil
}

// overdue says whether the time of an approval is over.
func (e *Engine) overdue(req ledger.ApprovalRequest) bool {
	at, err := stamp.Parse(req.Expires)
	return err == nil && !at.After(e.opt.Now())
}

// approval finds an approval of this tenant; those of others are not there.
func (s *site) approval(id string) (store.ApprovalRecord, error) {
	runID, stepID, attempt, ok := state.ParseApprovalID(id)
	if !ok {
		return store.ApprovalRecord{}, notFound("there is no approval %q: its id is RUN.STEP.ATTEMPT; see: stella orch approvals list", id)
	}
	rec, err := s.e.db.Approval(runID, stepID, attempt)
	if store.IsNotFound(err) || err == nil && rec.Run.Tenant != s.tenant {
		return rec, notFound("there is no approval %q", id)
	}
	return rec, dbError(err)
}

// ShowApproval reads an approval with what it is about.
func (s *site) ShowApproval(_ context.Context, id string) (api.ApprovalDetail, error) {
	rec, err := s.approval(id)
	if err != nil {
		return api.ApprovalDetail{}, err
	}
	out := api.ApprovalDetail{Artifacts: []ledger.Artifact{}}
	if out.Approval, err = s.showApproval(rec); err != nil {
		return out, err
	}
	blobs := s.e.db.Blobs()
	if out.Inputs, err = blobs.Read(rec.Run.InputsHash, runner.MaxInputsBytes); err != nil {
		return out, dbError(err)
	}
	if hash := rec.Approval.Request.OutputsHash; hash != "" {
		if out.Outputs, err = blobs.Read(hash, maxShownOutputs); err != nil {
			return out, dbError(err)
		}
	}
	for _, d := range rec.Approval.Decisions {
		if d.Modifications == "" {
			continue
		}
		if out.Modifications == nil {
			out.Modifications = map[string]json.RawMessage{}
		}
		if out.Modifications[d.Modifications], err = blobs.Read(d.Modifications, runner.MaxInputsBytes); err != nil {
			return out, dbError(err)
		}
	}
	at, err := s.e.db.Attempt(rec.Run.RunID, rec.StepID, rec.Approval.Attempt)
	switch {
	case store.IsNotFound(err): // a gate, or outputs that came from the cache
	case err != nil:
		return out, dbError(err)
	case at.End != nil:
		out.Artifacts = append(out.Artifacts, at.End.Artifacts...)
	}
	return out, nil
}

// maxShownOutputs bounds the outputs of a step that are shown: of one with
// for_each they are those of all its items.
const maxShownOutputs = 64 << 20

// DecideApproval records what the caller decides: in the name of who asks, never of
// whom the request names.
func (s *site) DecideApproval(_ context.Context, id string, req api.DecisionRequest) (api.Decided, error) {
	rec, err := s.approval(id)
	if err != nil {
		return api.Decided{}, err
	}
	d := runner.Decision{
		StepID: rec.StepID, Attempt: rec.Approval.Attempt, PlanHash: req.PlanHash, Actor: s.actor, Decision: req.Decision,
		Option: req.Option, BackTo: req.BackTo, Downstream: req.Downstream, Repeat: req.Repeat, Notes: req.Notes, Modifications: req.Modifications,
	}
	if err := choose(&d, rec.Approval.Request.Options); err != nil {
		return api.Decided{}, err
	}
	o, err := s.e.opened(rec.Run)
	if err != nil {
		return api.Decided{}, dbError(err)
	}
	eff, err := s.e.runner.Try(o, func(r *runner.Runner) (state.Run, error) { return r.Decide(o, d) })
	if err != nil && req.DryRun {
		return api.Decided{}, s.decisionError(err, rec)
	}
	out := api.Decided{DryRun: req.DryRun, Run: eff.Run, Steps: effects(eff), Kept: eff.Kept, Twice: eff.Twice}
	if req.DryRun {
		out.Executed = s.e.runner.Executes(rec.Run.RunID)
		out.Approval, err = s.showApproval(rec)
		return out, err
	}
	if out.Run, err = s.e.runner.Decide(o, d); err != nil { // a decision that does not count is recorded
		return out, s.decisionError(err, rec)
	}
	if out.Run, out.Executed, err = s.executed(out.Run); err != nil {
		return out, err
	}
	if rec, err = s.approval(id); err == nil {
		out.Approval, err = s.showApproval(rec)
	}
	return out, err
}

// choose finds the decision that the label of an option stands for.
func choose(d *runner.Decision, options []ledger.ApprovalOption) error {
	if d.Option != "" {
		var labels []string
		for _, o := range options {
			if o.Label != d.Option {
				labels = append(labels, fmt.Sprintf("%q", o.Label))
				continue
			}
			if d.Decision != "" && d.Decision != o.Decision {
				return invalid("the option %q means %s, not %s", o.Label, o.Decision, d.Decision)
			}
			d.Decision = o.Decision
			return nil
		}
		return invalid("there is no option %q; there are %s", d.Option, strings.Join(labels, ", "))
	}
	if d.Decision != "continue" && d.Decision != "retry" && d.Decision != "abort" {
		return invalid("a decision is continue, retry or abort, not %q", d.Decision)
	}
	return nil
}

// decisionError adds to a refused decision where to look, or what helps where no
// decision does.
func (s *site) decisionError(err error, rec store.ApprovalRecord) error {
	var refused *runner.DecisionError
	if e := byHand(err); e != nil && errors.As(err, &refused) {
		id := state.ApprovalID(rec.Run.RunID, rec.StepID, rec.Approval.Attempt)
		switch e.Code {
		case api.CodeAlreadyDecided, api.CodeNotApprover, api.CodeStarterExcluded:
			e.Hint = "stella orch approvals show " + id
		case api.CodeStale:
			e.Hint = "look at it again: stella orch approvals show " + id
		}
		if now, err := s.approval(id); err == nil {
			if a, err := s.showApproval(now); err == nil && a.Deadlocked {
				e.Hint = a.Note
			}
		}
		return e
	}
	return dbError(err)
}
