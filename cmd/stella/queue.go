package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newQueueCmd(a *app) *cobra.Command {
	return group("queue", "What waits to be executed",
		"See what waits and for what, stop and start the handing out of work, refuse starts, and find what\n"+
			"only a person lets go on. All of it is about the tenant's part of the queue; --all-tenants is\n"+
			"about all of it, and needs the scope admin.",
		newQueueStatusCmd(a), newQueuePauseCmd(a), newQueueResumeCmd(a), newQueueDrainCmd(a), newQueueDeadCmd(a))
}

// queueOptions are the flags of changes of the queue.
type queueOptions struct {
	req  api.QueueRequest
	wait bool
}

// allTenants declares the flag that asks for all of the queue.
func allTenants(c *cobra.Command, all *bool) {
	c.Flags().BoolVar(all, "all-tenants", false, "the queue of all tenants")
	c.Flags().BoolVar(all, "site", false, "the same as --all-tenants")
	_ = c.Flags().MarkHidden("site")
}

func newQueueStatusCmd(a *app) *cobra.Command {
	var q api.QueueQuery
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what waits, and for what",
		Long: "Show how many steps wait, since when, for what, and how many attempts are under way. Delayed are\n" +
			"steps that wait for a time: a retry with its backoff. Served first is the tenant that has the\n" +
			"fewest attempts under way; then priority of the run, priority of the step, age of the run.",
		Example: "  stella orch queue status\n  stella orch queue status --all-tenants --output json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runQueueStatus(c.Context(), a, q) },
	}
	allTenants(c, &q.All)
	return c
}

func runQueueStatus(ctx context.Context, a *app, q api.QueueQuery) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		st, err := r.QueueStatus(ctx, q)
		if err != nil {
			return err
		}
		return a.emit(st, func(s *screen) { queueTable(s, st) })
	})
}

func queueTable(s *screen, st api.QueueStatus) {
	of, by, unattended := "all tenants", st.Mode, ""
	if st.Tenant != "" {
		of = st.Tenant
	}
	if !st.Executes {
		by = "nobody"
	}
	if st.Unattended > 0 {
		unattended = fmt.Sprintf("%s, go on with: stella orch run resume --all", count(st.Unattended, "run", "runs"))
	}
	s.fields("queue of", of, "executed by", by, "depth", strconv.Itoa(st.Depth), "delayed", strconv.Itoa(st.Delayed),
		"executing", fmt.Sprintf("%d, by %s of the site", st.Executing, count(st.Workers, "worker", "workers")),
		"oldest", oldest(st), "open runs", strconv.Itoa(st.Runs), "not executed", unattended,
		"paused", stopList(st.Paused), "draining", stopList(st.Draining))
	if len(st.Waits) > 0 {
		rows := make([][]string, len(st.Waits))
		for i, w := range st.Waits {
			rows[i] = []string{strconv.Itoa(w.Steps), w.For}
		}
		s.printf("\n")
		s.table([]string{"STEPS", "WAIT FOR"}, rows)
	}
	if st.Tenant != "" || len(st.Tenants) == 0 {
		return
	}
	rows := make([][]string, len(st.Tenants))
	for i, t := range st.Tenants {
		rows[i] = []string{t.Tenant, strconv.Itoa(t.Depth), strconv.Itoa(t.Delayed), strconv.Itoa(t.Executing), strconv.Itoa(t.Runs)}
	}
	s.printf("\n")
	s.table([]string{"TENANT", "DEPTH", "DELAYED", "EXECUTING", "RUNS"}, rows)
}

func oldest(st api.QueueStatus) string {
	if st.OldestUTC == "" {
		return ""
	}
	age := time.Duration(st.OldestMs) * time.Millisecond
	return fmt.Sprintf("%s, since %s", seconds(st.OldestUTC), age.Round(time.Second))
}

// stopList says by whom something is stopped, and why.
func stopList(stops []api.QueueStop) string {
	out := ""
	for _, x := range stops {
		if out != "" {
			out += "; "
		}
		what := "all tenants"
		if x.Tenant != "" {
			what = "tenant " + x.Tenant
		}
		out += fmt.Sprintf("%s by %s at %s", what, x.Actor, seconds(x.TimeUTC))
		if x.Reason != "" {
			out += ": " + x.Reason
		}
	}
	return out
}

func newQueuePauseCmd(a *app) *cobra.Command {
	var opt queueOptions
	c := &cobra.Command{
		Use:   "pause",
		Short: "Let nothing more be claimed",
		Long: "Let no step be claimed any more until stella orch queue resume. What is under way goes on to its\n" +
			"end, and starts are accepted: their steps wait. It survives a restart, and schedules go on to fire.\n" +
			"Pausing again changes nothing.",
		Example: "  stella orch queue pause --reason \"the scanner's licence server is down\"\n" +
			"  stella orch queue pause --all-tenants --reason \"backup of the disk\"",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runQueueChange(c.Context(), a, opt, api.Site.PauseQueue)
		},
	}
	c.Flags().StringVar(&opt.req.Reason, "reason", "", "`TEXT` that is recorded and shown (required)")
	allTenants(c, &opt.req.All)
	_ = c.MarkFlagRequired("reason")
	return c
}

func newQueueResumeCmd(a *app) *cobra.Command {
	var opt queueOptions
	c := &cobra.Command{
		Use:   "resume",
		Short: "End a pause or a drain",
		Long: "Let steps be claimed and runs be started again. With --all-tenants what was paused or drained with\n" +
			"--all-tenants ends; what was stopped of one tenant alone stays so.",
		Example: "  stella orch queue resume --reason \"it is back\"",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runQueueChange(c.Context(), a, opt, api.Site.ResumeQueue)
		},
	}
	c.Flags().StringVar(&opt.req.Reason, "reason", "", "`TEXT` that is recorded")
	allTenants(c, &opt.req.All)
	return c
}

func newQueueDrainCmd(a *app) *cobra.Command {
	var opt queueOptions
	c := &cobra.Command{
		Use:   "drain",
		Short: "Accept no starts; let what is open go on",
		Long: "Refuse starts with QUEUE_DRAINING until stella orch queue resume, those of schedules too, and let\n" +
			"what is open go on to its end, oldest first, with its sub-runs; runs that were interrupted can be\n" +
			"resumed. A start with a token that was used before still finds its run. With --wait the command\n" +
			"ends when nothing is queued or under way any more; runs that wait for people then still do.",
		Example: "  stella orch queue drain --reason \"new machine tonight\" --wait",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runQueueChange(c.Context(), a, opt, api.Site.DrainQueue)
		},
	}
	c.Flags().StringVar(&opt.req.Reason, "reason", "", "`TEXT` that is recorded, and told to whoever is refused")
	c.Flags().BoolVar(&opt.wait, "wait", false, "wait until nothing is queued or under way")
	allTenants(c, &opt.req.All)
	return c
}

type changeQueue func(api.Site, context.Context, api.QueueRequest) (api.QueueChanged, error)

func runQueueChange(ctx context.Context, a *app, opt queueOptions, do changeQueue) error {
	began := false // asked again of another process, it was not so before
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		out, err := do(r, ctx, opt.req)
		if err != nil {
			return err
		}
		out.Changed = out.Changed || began
		if began = true; !out.Changed {
			a.stderr.note("note: it was so before; nothing was changed")
		}
		if opt.wait && !out.Status.AtRest {
			if out.Status, err = r.WaitQueue(ctx, api.QueueQuery{All: opt.req.All}); err != nil {
				return unwaited(ctx, err)
			}
		}
		return a.acted(false, out, func(s *screen) { queueTable(s, out.Status) })
	})
}

// unwaited says that a drain is in force whose end was not waited for.
func unwaited(ctx context.Context, err error) error {
	const stands, ends = "the drain is in force, but its end was not waited for: ", "; stella orch queue resume ends the drain"
	var known *api.Error
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return &outcome{exit: exitInterrupted, err: api.Error{Code: codeInterrupted, Message: stands + errInterrupted.Error(),
			Hint: "stella orch queue status" + ends}}
	case errors.As(err, &known) && known.Code == api.CodeConflict:
		out := *known
		out.Message, out.Hint = stands+known.Message, known.Hint+ends
		return &out
	}
	return err
}

// deadList is what queue dead prints as JSON.
type deadList struct {
	Steps []api.DeadStep `json:"steps"`
}

func newQueueDeadCmd(a *app) *cobra.Command {
	limit := 0
	c := &cobra.Command{
		Use:   "dead",
		Short: "List steps that only a person lets go on",
		Long: "List steps that have failed in a way that is not tried again by itself, of the oldest runs first:\n\n" +
			"  POISON_PILL    it was interrupted more often than max_interruptions allows; it may be the step\n" +
			"                 that brings stella or the machine down\n" +
			"  INDETERMINATE  it was interrupted, may not be repeated, and nobody knows how far it came\n\n" +
			"Find out what it did, then run the command of the last column.",
		Example: "  stella orch queue dead\n  stella orch queue dead --output ndjson",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runQueueDead(c.Context(), a, limit) },
	}
	c.Flags().IntVar(&limit, "limit", 0, "`N` at most, up to 1000 (default 50)")
	return c
}

func runQueueDead(ctx context.Context, a *app, limit int) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		dead, err := r.ListDead(ctx, limit)
		if err != nil {
			return err
		}
		return emitList(a, deadList{dead}, dead, []string{"RUN", "DAG", "STEP", "ATTEMPT", "ENDED", "ERROR", "NEXT"}, func(d api.DeadStep) []string {
			return []string{d.RunID, d.DAGID + " " + d.DAGVersion, d.StepID, strconv.Itoa(d.Attempt), seconds(d.EndedUTC), codeAnd(d.ErrorCode, d.Message), d.Next}
		})
	})
}
