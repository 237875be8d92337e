package server_test

import (
	"context"
	"encoding/json"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// recovered answers with what it was asked, so that nothing can get lost on the way.
func (f *fake) recovered(id, what string, req any, dry bool) (api.Recovered, error) {
	run, err := f.find(id)
	if err != nil {
		return api.Recovered{}, err
	}
	raw, err := json.Marshal(req)
	if err != nil {
		return api.Recovered{}, err
	}
	run.Message, run.Actor = what+string(raw), f.principal.Name
	return api.Recovered{Run: run, DryRun: dry, Changed: true, Executed: !dry, Steps: []api.StepEffect{
		{StepID: "a.0", From: state.Running, To: state.Failed, Code: state.FailedByHand, Stopped: 2},
	}, Subruns: []string{"run-2"}}, nil
}

func (f *fake) RetryRun(_ context.Context, id string, req api.RetryRequest) (api.Recovered, error) {
	if req.StepID == "busy" {
		return api.Recovered{}, &api.Error{Code: api.CodeConflict, Message: "step busy is queued", Hint: "wait"}
	}
	return f.recovered(id, "retry", req, req.DryRun)
}

func (f *fake) SkipStep(_ context.Context, id string, req api.SkipRequest) (api.Recovered, error) {
	return f.recovered(id, "skip", req, req.DryRun)
}

func (f *fake) TryCancelRun(_ context.Context, id, reason string) (api.Recovered, error) {
	return f.recovered(id, "try to cancel "+reason, nil, true)
}

func (f *fake) AbortRun(_ context.Context, id string, req api.EndRequest) (api.Recovered, error) {
	return f.recovered(id, "abort", req, req.DryRun)
}

func (f *fake) FailRun(_ context.Context, id string, req api.EndRequest) (api.Recovered, error) {
	return f.recovered(id, "fail", req, req.DryRun)
}

func (f *fake) RestartRun(_ context.Context, id string, req api.AgainRequest) (api.Recovered, error) {
	return f.recovered(id, "restart", req, req.DryRun)
}

func (f *fake) NudgeRun(_ context.Context, id string, req api.NudgeRequest) (api.Recovered, error) {
	return f.recovered(id, "nudge", req, false)
}

func (f *fake) ResetRun(_ context.Context, id string, req api.AgainRequest) (api.Recovered, error) {
	return f.recovered(id, "reset", req, req.DryRun)
}

func approval(id string) api.Approval {
	return api.Approval{
		ID: id, RunID: "run-1", StepID: "ask", Attempt: 1, Status: state.ApprovalPending, Question: "ship <it>?", Quorum: 2,
		Options:  []ledger.ApprovalOption{{Label: "go on", Decision: "continue"}},
		PlanHash: "ab", Decisions: []state.Decision{{Actor: "uid:7", ApprovalDecision: ledger.ApprovalDecision{Decision: "continue", Option: "go on"}}},
	}
}

func (f *fake) ListApprovals(_ context.Context, q api.ApprovalQuery) (api.ApprovalPage, error) {
	switch {
	case q.PageSize > 500:
		return api.ApprovalPage{}, &api.Error{Code: api.CodeInvalid, Message: "a page has at most 500"}
	case q.Status == "":
		return api.ApprovalPage{}, nil
	}
	a := approval("run-1.ask.1")
	a.Status, a.RunID, a.Required = q.Status, q.RunID, q.All
	return api.ApprovalPage{Approvals: []api.Approval{a}, NextPageToken: "next" + q.PageToken}, nil
}

func (f *fake) ShowApproval(_ context.Context, id string) (api.ApprovalDetail, error) {
	if id == "nope" {
		return api.ApprovalDetail{}, notFound("approval " + id)
	}
	return api.ApprovalDetail{
		Approval: approval(id), Inputs: json.RawMessage(`{"a":"<&>"}`), Outputs: json.RawMessage(`{"x":1}`),
		Modifications: map[string]json.RawMessage{"cd": json.RawMessage(`{"x":2}`)},
	}, nil
}

func (f *fake) DecideApproval(_ context.Context, id string, req api.DecisionRequest) (api.Decided, error) {
	if req.PlanHash == "old" {
		return api.Decided{}, &api.Error{Code: api.CodeStale, Message: "the decision is about something else", Hint: "look again"}
	}
	raw, err := json.Marshal(req)
	if err != nil {
		return api.Decided{}, err
	}
	a := approval(id)
	a.Question, a.StartedBy = string(raw), f.principal.Name
	return api.Decided{Approval: a, Run: state.Run{RunID: "run-1", Status: state.Running}, Executed: true}, nil
}

// recoveryCalls asks what people do by hand, and what they decide.
func recoveryCalls() []siteCall {
	end := api.EndRequest{Reason: "a<b", DryRun: true}
	again := api.AgainRequest{StepID: "a", Repeat: true, Reason: "hangs", DryRun: true}
	return []siteCall{
		{"retry", "RetryRun", func(ctx context.Context, s api.Site) (any, error) {
			return s.RetryRun(ctx, "run-1", api.RetryRequest{StepID: "a", Downstream: true, DelayMs: 5, Input: json.RawMessage(`{"x":"<&>"}`), Reason: "r", DryRun: true})
		}},
		{"retry of the last step", "RetryRun", func(ctx context.Context, s api.Site) (any, error) {
			return s.RetryRun(ctx, "run-1", api.RetryRequest{})
		}},
		{"retry of what is under way", "RetryRun", func(ctx context.Context, s api.Site) (any, error) {
			return s.RetryRun(ctx, "run-1", api.RetryRequest{StepID: "busy"})
		}},
		{"retry of an unknown run", "RetryRun", func(ctx context.Context, s api.Site) (any, error) {
			return s.RetryRun(ctx, "nope", api.RetryRequest{})
		}},
		{"skip", "SkipStep", func(ctx context.Context, s api.Site) (any, error) {
			return s.SkipStep(ctx, "run-1", api.SkipRequest{StepID: "a", Outputs: json.RawMessage(`{"x":[1,null]}`), Reason: "known", DryRun: true})
		}},
		{"what a cancel would do", "TryCancelRun", func(ctx context.Context, s api.Site) (any, error) { return s.TryCancelRun(ctx, "run-1", "x") }},
		{"abort", "AbortRun", func(ctx context.Context, s api.Site) (any, error) { return s.AbortRun(ctx, "run-1", end) }},
		{"fail", "FailRun", func(ctx context.Context, s api.Site) (any, error) { return s.FailRun(ctx, "run-1", end) }},
		{"restart", "RestartRun", func(ctx context.Context, s api.Site) (any, error) { return s.RestartRun(ctx, "run-1", again) }},
		{"nudge", "NudgeRun", func(ctx context.Context, s api.Site) (any, error) {
			return s.NudgeRun(ctx, "run-1", api.NudgeRequest{Reason: "look"})
		}},
		{"reset", "ResetRun", func(ctx context.Context, s api.Site) (any, error) { return s.ResetRun(ctx, "run-1", again) }},
		{"no approvals", "ListApprovals", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListApprovals(ctx, api.ApprovalQuery{})
		}},
		{"approvals", "ListApprovals", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListApprovals(ctx, api.ApprovalQuery{All: true, Status: "expired", RunID: "run-1", PageSize: 2, PageToken: "a_b"})
		}},
		{"too large a page of approvals", "ListApprovals", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListApprovals(ctx, api.ApprovalQuery{PageSize: 501})
		}},
		{"an approval", "ShowApproval", func(ctx context.Context, s api.Site) (any, error) { return s.ShowApproval(ctx, "run-1.ask_me-2.1") }},
		{"an unknown approval", "ShowApproval", func(ctx context.Context, s api.Site) (any, error) { return s.ShowApproval(ctx, "nope") }},
		{"decide", "DecideApproval", func(ctx context.Context, s api.Site) (any, error) {
			return s.DecideApproval(ctx, "run-1.ask.1", api.DecisionRequest{
				Decision: "retry", Option: "again", BackTo: "a", Notes: "n\n", Modifications: json.RawMessage(`{"x":null}`), PlanHash: "ab",
			})
		}},
		{"decide about something else", "DecideApproval", func(ctx context.Context, s api.Site) (any, error) {
			return s.DecideApproval(ctx, "run-1.ask.1", api.DecisionRequest{Decision: "abort", PlanHash: "old"})
		}},
	}
}
