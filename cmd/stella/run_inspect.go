package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

func newRunInspectCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect RUN",
		Short: "Tell the whole story of a run",
		Long: "Show a run with its steps and what they wait for, every attempt with outcome, fences and\n" +
			"usage, its sub-runs, the bundles that it and they are made of with their verdicts, its inputs\n" +
			"and outputs, and what happened when, with what was given by hand. With --output json\n" +
			"everything: the plan, the spec and the exact ledger entries as well.",
		Example: "  stella orch run inspect 01935b1e-…\n  stella orch run inspect 01935b1e-… --output json",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runRunInspect(c.Context(), a, args[0]) },
	}
}

func runRunInspect(ctx context.Context, a *app, id string) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		in, err := r.InspectRun(ctx, id)
		if err != nil {
			return err
		}
		return a.emit(in, func(s *screen) { renderInspection(s, in) })
	})
}

func renderInspection(s *screen, in api.RunInspection) {
	renderRun(s, api.RunDetail{Run: in.Run, StepList: in.Steps, Parent: in.Parent, Damage: in.Damage})
	s.printf("\n")
	s.fields("token", in.Run.RunToken, "trace", in.Run.TraceID, "generation", strconv.Itoa(in.Run.Generation), "plan", in.Run.PlanHash,
		"inputs", in.Run.InputsHash, "outputs", in.Run.OutputsHash)
	if len(in.Attempts) > 0 {
		rows := make([][]string, len(in.Attempts))
		for i, at := range in.Attempts {
			rows[i] = attemptRow(at)
		}
		s.printf("\n")
		s.table([]string{"ATTEMPT", "STARTED", "OUTCOME", "EXIT", "WALL", "TIER", "ERROR"}, rows)
	}
	if rows := approvalRows(in.Run, in.Steps); len(rows) > 0 {
		s.printf("\n")
		s.table([]string{"APPROVAL", "STATUS", "DECIDED", "SINCE", "EXPIRES", "BY"}, rows)
	}
	if len(in.Children) > 0 {
		rows := make([][]string, len(in.Children))
		for i, c := range in.Children {
			rows[i] = []string{c.RunID, c.ParentStepID, c.DAGID + " " + c.DAGVersion, string(c.Status), reason(c)}
		}
		s.printf("\n")
		s.table([]string{"SUB-RUN", "STEP", "DAG", "STATUS", "REASON"}, rows)
	}
	rows := make([][]string, len(in.Bundles))
	for i, b := range in.Bundles {
		rows[i] = []string{b.Ref, b.Kind, short(b.Digest), b.Decision, shortAll(b.Signers), b.Now, strings.Join(b.Steps, " ")}
	}
	s.printf("\n")
	s.table([]string{"BUNDLE", "KIND", "DIGEST", "VERDICT", "SIGNED BY", "NOW", "STEPS"}, rows)
	s.printf("\n")
	s.fields("inputs", string(in.Inputs), "outputs", string(in.Outputs))
	renderComparison(s, in.Replay)
	rows = make([][]string, 0, len(in.Entries))
	story := timeline{given: in.Given}
	for _, e := range in.Entries {
		if m, ok := story.moment(e); ok {
			rows = append(rows, []string{strconv.FormatInt(e.Seq, 10), m.at, m.actor, m.step, m.text})
		} else {
			rows = append(rows, []string{strconv.FormatInt(e.Seq, 10), "", "", "", "cannot be read"})
		}
	}
	s.printf("\n")
	s.table([]string{"ENTRY", "TIME", "ACTOR", "STEP", "WHAT HAPPENED"}, rows)
}

func shortAll(ids []string) string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = short(id)
	}
	return strings.Join(out, " ")
}

func attemptRow(at state.Attempt) []string {
	row := []string{fmt.Sprintf("%s#%d", at.StepID, at.Attempt), seconds(at.StartedUTC), "under way", "", "", "", ""}
	if at.Start != nil {
		row[5] = at.Start.Tier
	}
	e := at.End
	if e == nil {
		return row
	}
	row[2] = e.Outcome
	switch {
	case e.ExitCode != nil:
		row[3] = strconv.Itoa(*e.ExitCode)
	case e.Signal != "":
		row[3] = e.Signal
	}
	if e.Usage != nil {
		row[4] = (time.Duration(e.Usage.WallMs) * time.Millisecond).String()
	}
	row[6] = codeAnd(e.ErrorCode, e.Message)
	return row
}
