package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

func newApprovalsCmd(a *app) *cobra.Command {
	return group("approvals", "Steps that wait for people",
		"See which runs wait for a decision, look at what it is about, and decide. A decision is recorded in\n"+
			"the name of the user who runs the command, which no flag can change.",
		newApprovalsListCmd(a), newApprovalsShowCmd(a), newApprovalsDecideCmd(a))
}

func newApprovalsListCmd(a *app) *cobra.Command {
	var q api.ApprovalQuery
	c := &cobra.Command{
		Use:   "list",
		Short: "List approvals, of the oldest runs first",
		Long: "List the approvals of the tenant that are open, with --all or --status others too. The id of an\n" +
			"approval is RUN.STEP.ATTEMPT. One that is overdue is past its time, and nobody has executed the run\n" +
			"since; of one that is deadlocked those who may still decide are too few for its quorum, and a note\n" +
			"says which commands help. A further page begins with the token that the last line names.",
		Example: "  stella orch approvals list\n  stella orch approvals list --status rejected --output ndjson",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runApprovalsList(c.Context(), a, q) },
	}
	f := c.Flags()
	f.BoolVar(&q.All, "all", false, "also those that are closed")
	f.StringVar(&q.Status, "status", "", "only those with this `STATUS`: pending, approved, rejected, expired, withdrawn")
	f.StringVar(&q.RunID, "run", "", "only those of this `RUN`")
	f.IntVar(&q.PageSize, "page-size", 0, "`N` approvals on a page, at most 500 (default 50)")
	f.StringVar(&q.PageToken, "page-token", "", "`TOKEN` at which the page begins")
	_ = c.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{
		state.ApprovalPending, state.ApprovalApproved, state.ApprovalRejected, state.ApprovalExpired, state.ApprovalWithdrawn,
	}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func runApprovalsList(ctx context.Context, a *app, q api.ApprovalQuery) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		page, err := r.ListApprovals(ctx, q)
		if err != nil {
			return err
		}
		err = emitList(a, page, page.Approvals, []string{"APPROVAL", "DAG", "STATUS", "DECIDED", "SINCE", "EXPIRES", "OPTIONS", "QUESTION"},
			func(x api.Approval) []string {
				var labels []string
				for _, o := range x.Options {
					labels = append(labels, o.Label)
				}
				return []string{
					x.ID, x.DAGID + " " + x.DAGVersion, approvalStatus(x), quorumOf(x), seconds(x.RequestedUTC), seconds(x.ExpiresUTC),
					strings.Join(labels, " | "), x.Question,
				}
			})
		for _, x := range page.Approvals {
			a.deadlocked(x)
		}
		if err == nil && page.NextPageToken != "" {
			a.stderr.note("more: --page-token %s", page.NextPageToken)
		}
		return err
	})
}

// deadlocked says of an approval that nobody can decide any more what helps.
func (a *app) deadlocked(x api.Approval) {
	if x.Deadlocked {
		a.stderr.note("note: approval %s: %s", x.ID, x.Note)
	}
}

func approvalStatus(x api.Approval) string {
	switch {
	case x.Overdue:
		return "overdue"
	case x.Deadlocked:
		return "deadlocked"
	}
	return x.Status
}

// quorumOf is how many have decided, of how many that must.
func quorumOf(x api.Approval) string { return fmt.Sprintf("%d of %d", len(x.Decisions), x.Quorum) }

func newApprovalsShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show APPROVAL",
		Short: "Show what is to be decided",
		Long: "Show an approval: the question, who may decide, what has been decided and by whom, the inputs of the\n" +
			"run, and the outputs and files of the step that it follows.",
		Example: "  stella orch approvals show 01935b1e-….review.1",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runApprovalsShow(c.Context(), a, args[0]) },
	}
}

func runApprovalsShow(ctx context.Context, a *app, id string) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		d, err := r.ShowApproval(ctx, id)
		if err != nil {
			return err
		}
		return a.emit(d, func(s *screen) { renderApproval(s, d) })
	})
}

func renderApproval(s *screen, d api.ApprovalDetail) {
	who := "anybody who may write"
	if len(d.Approvers) > 0 {
		who = strings.Join(d.Approvers, ", ")
	}
	if d.ExcludeStarter {
		who += "; not " + strings.Join(append([]string{d.StartedBy}, d.StartedFor...), ", nor ") + ", who started it or had it started"
	}
	s.fields("approval", d.ID, "question", d.Question, "dag", d.DAGID+" "+d.DAGVersion, "run", d.RunID, "step", d.StepID,
		"status", approvalStatus(d.Approval), "note", d.Note, "decision", d.Decision, "decided", quorumOf(d.Approval), "who may", who,
		"since", seconds(d.RequestedUTC), "expires", seconds(d.ExpiresUTC), "closed", seconds(d.ClosedUTC), "plan", d.PlanHash)
	for _, o := range d.Options {
		s.fields("option", fmt.Sprintf("%s: %s", o.Label, o.Decision))
	}
	s.printf("\n")
	s.fields("inputs", string(d.Inputs), "outputs", string(d.Outputs))
	for _, f := range d.Artifacts {
		s.fields("artifact", fmt.Sprintf("%s  %s  sha256:%s", f.Name, size(f.Size), f.SHA256))
	}
	if len(d.Decisions) == 0 {
		return
	}
	rows := make([][]string, len(d.Decisions))
	for i, x := range d.Decisions {
		rows[i] = decisionRow(x, string(d.Modifications[x.Modifications]))
	}
	s.printf("\n")
	s.table([]string{"WHO", "WHEN", "DECISION", "NOTES", "MODIFICATIONS"}, rows)
}

func decisionRow(x state.Decision, modifications string) []string {
	what := x.Decision
	if x.BackTo != "" {
		what += ", back to " + x.BackTo
	}
	if x.Downstream {
		what += ", with what depends on it"
	}
	if x.Option != "" {
		what += " (" + x.Option + ")"
	}
	return []string{x.Actor, seconds(x.TimeUTC), what, x.Notes, modifications}
}

// decideOptions are the flags of approvals decide.
type decideOptions struct {
	req    api.DecisionRequest
	file   string
	modify []string
}

func newApprovalsDecideCmd(a *app) *cobra.Command {
	var opt decideOptions
	c := &cobra.Command{
		Use:   "decide APPROVAL",
		Short: "Decide",
		Long: "Decide what becomes of a run that waits: continue lets it go on, retry does the step again, or with\n" +
			"--back-to everything between an earlier step and this one, abort cancels the run. Instead of --decision\n" +
			"the label of an option can be given. Each person decides once, and takes nothing back, also while others are still\n" +
			"asked; when as many as the quorum wants have decided the same, it is done. If that cannot come about\n" +
			"any more, the command says so: stella orch run reset asks everybody again.\n\n" +
			"One abort is enough. Whatever does not count is recorded too: a decision after the\n" +
			"last (ALREADY_DECIDED), about another plan or attempt (STALE), after its time (APPROVAL_EXPIRED), by\n" +
			"somebody else (NOT_APPROVER, STARTER_EXCLUDED; exit 2).\n\n" +
			"What else was built on the step that --back-to names, and has ended, stays as it is and is named; with\n" +
			"--downstream it is done again, too. Steps that are neither named by --back-to nor the one that waits,\n" +
			"have done something and are not idempotent need --repeat (else CONFLICT); --dry-run shows all of them.\n\n" +
			"--modify changes what the step has given out, with continue, or its parameters, with retry: a JSON\n" +
			"merge patch that is held against the schema of the action. The run is marked as overridden.\n\n" +
			"A decision names the plan that it is about. The command sends the one that it reads at that moment;\n" +
			"--plan-hash the one that you have seen before.",
		Example: "  stella orch approvals decide 01935b1e-….review.1 --decision continue --notes \"checked by hand\"\n" +
			"  stella orch approvals decide 01935b1e-….review.1 --decision retry --back-to fetch --modify mirror=b\n" +
			"  stella orch approvals decide 01935b1e-….review.1 --option \"ship it\" --plan-hash 5f2c…",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runApprovalsDecide(c.Context(), a, args[0], opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.req.Decision, "decision", "", "`WHAT` is decided: continue, retry or abort")
	f.StringVar(&opt.req.Option, "option", "", "`LABEL` of the option that is chosen, instead")
	f.StringVar(&opt.req.BackTo, "back-to", "", "with retry: the `STEP` to go back to")
	f.BoolVar(&opt.req.Downstream, "downstream", false, "with retry: do everything again that depends on the step gone back to")
	f.BoolVar(&opt.req.Repeat, "repeat", false, "with retry: also what is not idempotent: what it has done is then done twice")
	f.BoolVar(&opt.req.DryRun, "dry-run", false, "show what would be, and decide nothing")
	f.StringVar(&opt.req.Notes, "notes", "", "why, a `TEXT`; it is recorded")
	f.StringVar(&opt.file, "modifications", "", "`FILE` with what is modified, a JSON object")
	f.StringArrayVar(&opt.modify, "modify", nil, "one `FIELD` to modify: k=v or k:=json; may be given again")
	f.StringVar(&opt.req.PlanHash, "plan-hash", "", "`HASH` of the plan that you have seen (default: the one that is read now)")
	c.MarkFlagsOneRequired("decision", "option")
	_ = c.RegisterFlagCompletionFunc("decision", cobra.FixedCompletions([]string{"continue", "retry", "abort"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func runApprovalsDecide(ctx context.Context, a *app, id string, opt decideOptions) error {
	var err error
	if opt.req.Modifications, err = readPatch("modify", opt.file, opt.modify); err != nil {
		return err
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		req := opt.req
		if req.PlanHash == "" {
			seen, err := r.ShowApproval(ctx, id)
			if err != nil {
				return err
			}
			req.PlanHash = seen.PlanHash
		}
		out, err := r.DecideApproval(ctx, id, req)
		if err != nil {
			return err
		}
		if out.DryRun {
			a.stderr.note("dry run: nothing was decided")
		}
		if err := a.acted(out.DryRun, out, func(s *screen) { renderDecided(s, out) }); err != nil {
			return err
		}
		a.deadlocked(out.Approval)
		a.twice(out.Twice)
		a.kept(out.Kept, "--downstream")
		a.goesOn(out.Run, out.Executed || out.DryRun)
		return nil
	})
}

func renderDecided(s *screen, out api.Decided) {
	x := out.Approval
	s.fields("approval", x.ID, "question", x.Question, "status", x.Status, "decision", x.Decision, "decided", quorumOf(x), "run", out.Run.RunID, "run is", statusOf(out.Run))
	effectsTable(s, out.Steps)
}

// approvalRows are the last approvals of steps, with who has decided what.
func approvalRows(run state.Run, steps []api.StepInfo) [][]string {
	var rows [][]string
	for _, st := range steps {
		a := st.Approval
		if a == nil {
			continue
		}
		var who []string
		for _, d := range a.Decisions {
			who = append(who, d.Actor+" "+d.Decision)
		}
		rows = append(rows, []string{
			state.ApprovalID(run.RunID, st.StepID, a.Attempt), a.Status, fmt.Sprintf("%d of %d", len(a.Decisions), a.Request.Quorum),
			seconds(a.RequestedUTC), seconds(a.Request.Expires), strings.Join(who, ", "),
		})
	}
	return rows
}
