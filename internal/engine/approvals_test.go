package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

const gated = `
[[step]]
id = "a"
plugin = "acme/audit-hello@1.0.0"
action = "run"
[[step]]
id = "ask"
needs = ["a"]
[step.checkpoint]
question = "go on?"
quorum = 2
exclude_starter = true
approvers = ["uid:7(ann)", "uid:8", "uid:9", "` + who + `"]
`

// Two people must agree, neither of them who started the run; who decides is who
// asks, and nobody of another tenant sees anything of it.
func TestAQuorumCountsPeople(t *testing.T) {
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", gated)
	run := l.start(api.StartRequest{DAGID: "audit"}).Run
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.e.Execute(ctx, engine.Forever) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	as := func(name string) api.Site { return l.e.As(api.Principal{Name: name}) }
	waiting := l.waitFor(run.RunID, state.Checkpoint)
	if text := waiting.StepList[1].Waiting; !strings.Contains(text, "uid:7(ann) or uid:8 or uid:9") || !strings.Contains(text, "0 of 2") {
		t.Errorf("the step waits for: %s", text)
	}
	id := state.ApprovalID(run.RunID, "ask", 1)
	a, err := as("uid:7(ann)").ShowApproval(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.e.As(api.Principal{Name: "uid:7(ann)", Tenant: "other"}).ShowApproval(ctx, id); codeOf(err) != api.CodeNotFound {
		t.Errorf("another tenant's view: %v", err)
	}
	yes := api.DecisionRequest{Decision: "continue", PlanHash: a.PlanHash}
	for _, c := range []struct {
		actor string
		req   api.DecisionRequest
		want  api.Code
	}{
		{who, yes, api.CodeStarterExcluded},
		{"uid:6(mallory)", yes, api.CodeNotApprover},
		{"uid:7(bob)", yes, api.CodeNotApprover}, // the uid has another name than the spec says
		{"uid:8(x)", api.DecisionRequest{Decision: "continue"}, api.CodeStale},
		{"uid:8(x)", yes, ""},
		{"uid:8(y)", yes, api.CodeAlreadyDecided}, // the same person under another name
		{"uid:9", api.DecisionRequest{Decision: "retry", PlanHash: a.PlanHash}, ""},
	} {
		if _, err := as(c.actor).DecideApproval(ctx, id, c.req); codeOf(err) != c.want {
			t.Errorf("%s decides %s: %v, want %q", c.actor, c.req.Decision, err, c.want)
		}
	}
	page, err := as("uid:7(ann)").ListApprovals(ctx, api.ApprovalQuery{})
	if err != nil || len(page.Approvals) != 1 || len(page.Approvals[0].Decisions) != 2 {
		t.Fatalf("two who do not agree closed it: %+v, %v", page, err)
	}
	if _, err := as("uid:7(ann)").DecideApproval(ctx, id, yes); err != nil {
		t.Fatal(err)
	}
	if _, err := as("uid:9").DecideApproval(ctx, id, yes); codeOf(err) != api.CodeAlreadyDecided {
		t.Errorf("after the last decision: %v", err)
	}
	l.waitFor(run.RunID, state.Completed)
	closed, err := as(who).ListApprovals(ctx, api.ApprovalQuery{All: true, RunID: run.RunID})
	if err != nil || len(closed.Approvals) != 1 || closed.Approvals[0].Status != state.ApprovalApproved || len(closed.Approvals[0].Decisions) != 3 {
		t.Errorf("closed: %+v, %v", closed, err)
	}
	l.verify()
}

// Two who disagree have used each other up: that is said wherever it matters, and a
// reset asks both again.
func TestApproversWhoDisagree(t *testing.T) {
	l := newLab(t)
	l.publish("1.0.0", `
[[step]]
id = "ask"
[step.checkpoint]
question = "go on?"
quorum = 2
approvers = ["uid:7", "uid:8"]
`)
	run := l.start(api.StartRequest{DAGID: "audit"}).Run
	ctx := context.Background()
	as := func(name string) api.Site { return l.e.As(api.Principal{Name: name}) }
	id := state.ApprovalID(run.RunID, "ask", 1)
	say := func(name, id, what string) (api.Decided, error) {
		return as(name).DecideApproval(ctx, id, api.DecisionRequest{Decision: what, PlanHash: run.PlanHash})
	}
	if out, err := say("uid:7(ann)", id, "continue"); err != nil || out.Approval.Deadlocked || !slices.Equal(out.Approval.MayDecide, []string{"uid:8"}) {
		t.Errorf("after one of two: %+v, %v", out.Approval, err)
	}
	want := "it can no longer reach its quorum of 2: uid:7(ann) says continue, uid:8 says retry, nobody else may decide; stella orch run reset " +
		run.RunID + " --step ask asks all of them again, stella orch run cancel " + run.RunID + " ends the run"
	if out, err := say("uid:8", id, "retry"); err != nil || !out.Approval.Deadlocked || out.Approval.Note != want {
		t.Errorf("after both: %+v, %v", out.Approval, err)
	}
	var e *api.Error
	if _, err := say("uid:8", id, "continue"); !errors.As(err, &e) || e.Code != api.CodeAlreadyDecided || e.Hint != want {
		t.Errorf("an answer is not changed: %v", err)
	}
	in, err := l.site().InspectRun(ctx, run.RunID)
	if err != nil || !strings.Contains(in.Steps[0].Waiting, want) {
		t.Errorf("run inspect: %+v, %v", in.Steps, err)
	}
	if _, err := l.site().ResetRun(ctx, run.RunID, api.AgainRequest{StepID: "ask"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"uid:7(ann)", "uid:8"} {
		if _, err := say(name, state.ApprovalID(run.RunID, "ask", 2), "continue"); err != nil {
			t.Error(err)
		}
	}
	l.waitFor(run.RunID, state.Completed)
	l.verify()
}

// Pages of approvals meet, and leave none out.
func TestApprovalsAreListedInPages(t *testing.T) {
	l := newLab(t)
	l.publish("1.0.0", "[[step]]\nid = \"ask\"\n[step.checkpoint]\nquestion = \"?\"\n")
	want := map[string]bool{}
	for range 5 {
		want[state.ApprovalID(l.start(api.StartRequest{DAGID: "audit"}).Run.RunID, "ask", 1)] = true
	}
	token, pages := "", 0
	for {
		page, err := l.site().ListApprovals(context.Background(), api.ApprovalQuery{PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page.Approvals {
			if !want[a.ID] {
				t.Errorf("%s is listed twice, or is not ours", a.ID)
			}
			delete(want, a.ID)
		}
		pages++
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	if len(want) > 0 || pages != 3 {
		t.Errorf("%d pages left out %v", pages, want)
	}
	for _, token := range []string{"!", strings.Repeat("A", 400)} {
		if _, err := l.site().ListApprovals(context.Background(), api.ApprovalQuery{PageToken: token}); codeOf(err) != api.CodeInvalid {
			t.Errorf("token %q: %v", token, err)
		}
	}
}

// waitFor waits until a run has a status.
func (l *lab) waitFor(id string, want state.Status) api.RunDetail {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		d, err := l.site().GetRun(ctx, id)
		if err != nil {
			l.t.Fatal(err)
		}
		if d.Status == want {
			return d
		}
		select {
		case <-ctx.Done():
			raw, _ := json.Marshal(d)
			l.t.Fatalf("it is never %s: %s", want, raw)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
