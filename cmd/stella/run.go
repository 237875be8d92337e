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

func newRunCmd(a *app) *cobra.Command {
	return group("run", "Runs of DAGs",
		"Start, watch, resume and cancel runs. Without a daemon, start and resume execute the run\n"+
			"themselves and end with it; all other commands may be used meanwhile, from anywhere.",
		newRunStartCmd(a), newRunResumeCmd(a), newRunListCmd(a), newRunStatusCmd(a),
		newRunInspectCmd(a), newRunGraphCmd(a), newRunDiffCmd(a), newRunLogsCmd(a), newRunArtifactsCmd(a), newRunCancelCmd(a))
}

func newRunListCmd(a *app) *cobra.Command {
	var q api.RunQuery
	c := &cobra.Command{
		Use:     "list",
		Short:   "List runs, newest first",
		Long:    "List runs, newest first. A further page begins with the token that the last line names.",
		Example: "  stella orch run list --active\n  stella orch run list --dag-id audit --status failed --output ndjson",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runRunList(c.Context(), a, q) },
	}
	f := c.Flags()
	f.BoolVar(&q.Active, "active", false, "only runs that have not ended")
	f.StringVar(&q.DAGID, "dag-id", "", "only runs of this DAG `ID`")
	f.StringVar(&q.Status, "status", "", "only runs with this `STATUS`")
	f.IntVar(&q.PageSize, "page-size", 0, "`N` runs on a page, at most 500 (default 50)")
	f.StringVar(&q.PageToken, "page-token", "", "`TOKEN` at which the page begins")
	return c
}

func runRunList(ctx context.Context, a *app, q api.RunQuery) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		page, err := r.ListRuns(ctx, q)
		if err != nil {
			return err
		}
		err = emitList(a, page, page.Runs, []string{"RUN", "DAG", "VERSION", "STATUS", "CREATED", "DURATION", "REASON"},
			func(r state.Run) []string {
				return []string{r.RunID, r.DAGID, r.DAGVersion, string(r.Status), seconds(r.CreatedUTC), duration(r.DurationMs, r.Status), reason(r)}
			})
		if err == nil && page.NextPageToken != "" {
			a.stderr.note("more: --page-token %s", page.NextPageToken)
		}
		return err
	})
}

// reason says why a run did not complete.
func reason(r state.Run) string {
	switch {
	case r.Status == state.Cancelled && r.CancelReason != "":
		return "cancelled by " + r.CancelledBy + ": " + r.CancelReason
	case r.Status == state.Cancelled && r.CancelledBy != "":
		return "cancelled by " + r.CancelledBy
	case r.FailedStep != "":
		return r.FailureReason + " in " + r.FailedStep
	}
	return r.FailureReason
}

// duration is how long something took, if it has ended.
func duration(ms int64, s state.Status) string {
	if !s.Ended() {
		return ""
	}
	return (time.Duration(ms) * time.Millisecond).String()
}

func newRunStatusCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "status RUN",
		Short:   "Show a run and its steps",
		Long:    "Show the state of a run and of each of its steps, and what those that wait wait for.",
		Example: "  stella orch run status 01935b1e-…",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runRunStatus(c.Context(), a, args[0]) },
	}
}

func runRunStatus(ctx context.Context, a *app, id string) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		d, err := r.GetRun(ctx, id)
		if err != nil {
			return err
		}
		return a.emit(d, func(s *screen) { renderRun(s, d) })
	})
}

func renderRun(s *screen, d api.RunDetail) {
	status := string(d.Status)
	if d.CancelRequested() && !d.Status.Ended() {
		status += ", cancel requested"
	}
	s.fields("run", d.RunID, "dag", d.DAGID+" "+d.DAGVersion, "status", status, "reason", reason(d.Run),
		"started by", d.Actor, "created", seconds(d.CreatedUTC), "duration", duration(d.DurationMs, d.Status))
	if len(d.StepList) == 0 {
		return
	}
	rows := make([][]string, len(d.StepList))
	for i, st := range d.StepList {
		note := st.Waiting
		if note == "" && st.Status != state.Completed {
			note = whyStep(st.ErrorCode, st.Reason)
		}
		took := ""
		if st.Attempt > 0 {
			took = duration(st.DurationMs, st.Status)
		}
		rows[i] = []string{st.StepID, string(st.Status), attempts(st.Attempt), took, note}
	}
	s.printf("\n")
	s.table([]string{"STEP", "STATUS", "ATTEMPTS", "DURATION", "NOTE"}, rows)
}

// whyStep joins the code and the reason of a step that did not complete.
func whyStep(code, reason string) string {
	if code == "" || reason == "" || code == reason {
		return code + strings.TrimPrefix(reason, code)
	}
	return code + ": " + reason
}

// codeAnd joins the code and the message of an attempt; either may be missing.
func codeAnd(code, message string) string {
	if code == "" || message == "" {
		return code + message
	}
	return code + ": " + message
}

func attempts(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func newRunInspectCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect RUN",
		Short: "Tell the whole story of a run",
		Long: "Show a run with its steps, every attempt with outcome, fences and usage, its inputs and\n" +
			"outputs, and its ledger entries. With --output json everything, the plan included.",
		Example: "  stella orch run inspect 01935b1e-… --output json",
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
	renderRun(s, api.RunDetail{Run: in.Run, StepList: in.Steps})
	s.printf("\n")
	s.fields("token", in.Run.RunToken, "trace", in.Run.TraceID, "plan", in.Run.PlanHash,
		"inputs", in.Run.InputsHash, "outputs", in.Run.OutputsHash)
	if len(in.Attempts) > 0 {
		rows := make([][]string, len(in.Attempts))
		for i, at := range in.Attempts {
			rows[i] = attemptRow(at)
		}
		s.printf("\n")
		s.table([]string{"ATTEMPT", "STARTED", "OUTCOME", "EXIT", "WALL", "TIER", "ERROR"}, rows)
	}
	s.printf("\n")
	s.fields("inputs", string(in.Inputs), "outputs", string(in.Outputs))
	s.printf("\n")
	rows := make([][]string, len(in.Entries))
	for i, e := range in.Entries {
		rows[i] = entryRow(e)
	}
	s.table(entryHeader(), rows)
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

func newRunCancelCmd(a *app) *cobra.Command {
	var why string
	c := &cobra.Command{
		Use:   "cancel RUN",
		Short: "Ask for the end of a run",
		Long: "Ask for the end of a run: what executes is told to stop, and killed after its grace.\n" +
			"Cancelling a run that is cancelled already changes nothing and succeeds; one that has\n" +
			"ended otherwise is an error (exit 3).",
		Example: "  stella orch run cancel 01935b1e-… --reason \"wrong advisories\"",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runRunCancel(c.Context(), a, args[0], why) },
	}
	c.Flags().StringVar(&why, "reason", "", "why, a `TEXT`; it is recorded")
	return c
}

func runRunCancel(ctx context.Context, a *app, id, why string) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		run, err := r.CancelRun(ctx, id, why)
		if err != nil {
			return err
		}
		return a.emit(run, func(s *screen) {
			if run.Status.Ended() {
				s.printf("run %s is %s\n", run.RunID, string(run.Status))
				return
			}
			s.printf("run %s is asked to end\n", run.RunID)
		})
	})
}
