package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

func newRunCmd(a *app) *cobra.Command {
	return group("run", "Runs of DAGs",
		"Start, watch, resume and end runs, and help those that are in trouble. Without a daemon, start and\n"+
			"resume execute the run themselves and end with it; all other commands may be used meanwhile.",
		newRunStartCmd(a), newRunResumeCmd(a), newRunListCmd(a), newRunStatusCmd(a),
		newRunInspectCmd(a), newRunAttestCmd(a), newRunReplayCmd(a), newRunGraphCmd(a), newRunDiffCmd(a), newRunLogsCmd(a), newRunStreamCmd(a), newRunArtifactsCmd(a), newRunCancelCmd(a),
		newRunRetryCmd(a), newRunSkipCmd(a), newRunAbortCmd(a), newRunFailCmd(a), newRunRestartCmd(a), newRunNudgeCmd(a), newRunResetCmd(a))
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
	f.StringVar(&q.Status, "status", "", "only runs with this `STATUS`: "+strings.Join(state.RunStatuses(), ", "))
	f.IntVar(&q.PageSize, "page-size", 0, "`N` runs on a page, at most 500 (default 50)")
	f.StringVar(&q.PageToken, "page-token", "", "`TOKEN` at which the page begins")
	_ = c.RegisterFlagCompletionFunc("status", cobra.FixedCompletions(state.RunStatuses(), cobra.ShellCompDirectiveNoFileComp))
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
	case r.FailureReason != "" && r.FailedStep != "": // one that cleans up again keeps the step, and has no reason yet
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
	var all bool
	c := &cobra.Command{
		Use:   "status RUN",
		Short: "Show a run and its steps",
		Long: "Show the state of a run and of its steps, and what those that wait wait for. Of a run with\n" +
			"more than 200 steps only those are listed that do something, wait for people or have failed;\n" +
			"--all lists all.",
		Example: "  stella orch run status 01935b1e-…\n  stella orch run status 01935b1e-… --all --output json",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runRunStatus(c.Context(), a, args[0], all) },
	}
	c.Flags().BoolVar(&all, "all", false, "list all steps")
	return c
}

func runRunStatus(ctx context.Context, a *app, id string, all bool) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		read := r.RunOverview
		if all {
			read = r.GetRun
		}
		d, err := read(ctx, id)
		if err != nil {
			return err
		}
		return a.emit(d, func(s *screen) { renderRun(s, d) })
	})
}

func renderRun(s *screen, d api.RunDetail) {
	s.fields("run", d.RunID, "dag", d.DAGID+" "+d.DAGVersion, "status", statusOf(d.Run), "damaged", d.Damage, "reason", reason(d.Run), "message", d.Message,
		"part of", partOf(d.Run), "alone", alone(d.Parent), "replay of", d.ReplayOf, "started by", d.Actor, "for", strings.Join(d.Behalf, ", "), "created", seconds(d.CreatedUTC),
		"duration", duration(d.DurationMs, d.Status), "steps", counts(d))
	if len(d.StepList) == 0 {
		return
	}
	rows := make([][]string, len(d.StepList))
	for i, st := range d.StepList {
		note := st.Waiting
		if note == "" && st.Status != state.Completed {
			note = whyStep(st.ErrorCode, st.Reason)
		}
		if note == "" && st.Cached != nil {
			note = "from the cache: " + st.Cached.StepID + " of run " + st.Cached.RunID + ", until " + seconds(st.Cached.Expires)
		}
		took := ""
		if st.Attempt > 0 {
			took = duration(st.DurationMs, st.Status)
		}
		tried := attempts(st.Attempt)
		if st.Cached != nil {
			tried = "-" // nothing was executed
		}
		rows[i] = []string{st.StepID, string(st.Status), tried, took, note}
	}
	s.printf("\n")
	s.table([]string{"STEP", "STATUS", "ATTEMPTS", "DURATION", "NOTE"}, rows)
	if d.LeftOut > 0 {
		s.printf("and %d more that are not listed; --all lists them\n", d.LeftOut)
	}
}

// statusOf is the status of a run and what is about to change it.
func statusOf(r state.Run) string {
	status := string(r.Status)
	switch {
	case r.Status.Ended():
	case r.Aborted:
		status += ", abort requested"
	case r.CancelRequested():
		status += ", cancel requested"
	case r.FailRequested():
		status += ", to fail"
	case r.TimedOutUTC != "":
		status += ", timed out"
	case r.Stuck != "":
		status += ", stuck (" + r.Stuck + ")"
	}
	if r.Overridden {
		status += " (overridden by hand)"
	}
	return status
}

func partOf(r state.Run) string {
	if r.ParentRunID == "" {
		return ""
	}
	return "step " + r.ParentStepID + " of run " + r.ParentRunID
}

// alone says of a sub-run for which its parent does not wait what that means.
func alone(p *api.Parent) string {
	if p == nil {
		return ""
	}
	return p.Note
}

// counts says of a run with many steps how many there are in each state.
func counts(d api.RunDetail) string {
	if d.LeftOut == 0 {
		return ""
	}
	all := maps.Clone(d.Counts)
	if all == nil {
		all = map[state.Status]int{}
	}
	if n := d.Unneeded(); n > 0 {
		all[state.Skipped] += n
	}
	parts := []string{strconv.Itoa(d.Pending()-d.Unneeded()) + " pending"}
	for _, st := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, fmt.Sprintf("%d %s", all[st], st))
	}
	return strings.Join(parts, ", ")
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

func newRunCancelCmd(a *app) *cobra.Command {
	var why string
	var wait, dry bool
	c := &cobra.Command{
		Use:   "cancel RUN",
		Short: "Ask for the end of a run",
		Long: "Ask for the end of a run: what executes is told to stop, and killed after its grace.\n" +
			"Cancelling a run that is cancelled already changes nothing and succeeds; one that has\n" +
			"ended otherwise is an error (exit 3). With --wait it stays until the run has ended, if somebody\n" +
			"executes it: a run that is cancelled then is what was asked for (exit 0), one that was completed\n" +
			"before it could be stopped is an error as above, and one that has failed ends with exit 4.",
		Example: "  stella orch run cancel 01935b1e-… --reason \"wrong advisories\" --wait",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if dry {
				return recoverRun(c.Context(), a, "", true, func(ctx context.Context, r *reached, _ bool) (api.Recovered, error) {
					return r.TryCancelRun(ctx, args[0], why)
				})
			}
			if wait {
				return runRunCancelled(c.Context(), a, args[0], why)
			}
			return runRunCancel(c.Context(), a, args[0], why)
		},
	}
	c.Flags().StringVar(&why, "reason", "", "why, a `TEXT`; it is recorded")
	c.Flags().BoolVar(&wait, "wait", false, "wait for the end of the run, if somebody executes it")
	c.Flags().BoolVar(&dry, "dry-run", false, "show what would be, and change nothing")
	c.MarkFlagsMutuallyExclusive("wait", "dry-run")
	return c
}

func runRunCancel(ctx context.Context, a *app, id, why string) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		run, err := r.CancelRun(ctx, id, why)
		if err != nil {
			return err
		}
		return a.acted(false, run, func(s *screen) { cancelText(s, run) })
	})
}

func cancelText(s *screen, run state.Run) {
	if run.Status.Ended() {
		s.printf("run %s is %s\n", run.RunID, string(run.Status))
		return
	}
	s.printf("run %s is asked to end\n", run.RunID)
}

// runRunCancelled asks for the end of a run and waits for it, where somebody brings it
// about.
func runRunCancelled(ctx context.Context, a *app, id, why string) error {
	e := execution{watch: watcher{stay: true}}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		if len(e.runs) == 0 { // else the process that executed it went away, and another answers
			before, err := r.RunOverview(ctx, id)
			if err != nil {
				return err
			}
			run, err := r.CancelRun(ctx, id, why)
			if err != nil {
				return err
			}
			e.runs, e.watch.next = []state.Run{run}, map[string]int64{id: before.LastSeq + 1}
		}
		in, err := r.InspectRun(ctx, id)
		if err != nil {
			return err
		}
		executed := r.held == nil && in.Executed
		if executed || in.Run.Status.Ended() { // then it only tells what has happened
			if err := e.watch.until(ctx, a, r, e.runs); err != nil {
				return e.interrupted(ctx, r, err)
			}
		}
		d, err := r.RunOverview(ctx, id)
		if err != nil {
			return err
		}
		if err := a.acted(false, d.Run, func(s *screen) { cancelText(s, d.Run) }); err != nil {
			return err
		}
		a.goesOn(d.Run, executed)
		if d.Status == state.Completed {
			return &api.Error{Code: api.CodeRunEnded, Message: "run " + id + " is completed: it had ended before it could be stopped", TraceID: d.TraceID}
		}
		if d.Status == state.Cancelled {
			return nil
		}
		return e.failed(ctx, r, []api.RunDetail{d}, nil)
	})
}
