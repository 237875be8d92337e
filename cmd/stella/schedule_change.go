package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

// selectOptions are the flags that select schedules.
type selectOptions struct {
	dag string // ID or ID@VERSION
	sel api.ScheduleSelection
}

func (o *selectOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.dag, "dag-id", "", "all schedules of this DAG: `ID`, or ID@VERSION for those that are pinned to it")
	f.BoolVar(&o.sel.All, "all", false, "all schedules of the tenant")
	o.common(c)
	c.MarkFlagsMutuallyExclusive("dag-id", "all")
}

func (o *selectOptions) common(c *cobra.Command) {
	c.Flags().StringVar(&o.sel.Reason, "reason", "", "`TEXT` that is recorded")
	c.Flags().BoolVar(&o.sel.DryRun, "dry-run", false, "show what would be, and change nothing")
}

// selection joins flags and arguments.
func (o *selectOptions) selection(args []string) (api.ScheduleSelection, error) {
	sel := o.sel
	if len(args) == 1 {
		sel.Name = args[0]
	}
	if o.dag != "" {
		var pin bool
		if sel.DAGID, sel.Version, pin = strings.Cut(o.dag, "@"); sel.DAGID == "" || pin && sel.Version == "" {
			return sel, invalid("--dag-id %q is neither ID nor ID@VERSION", o.dag)
		}
	}
	if sel.Name == "" && sel.DAGID == "" && !sel.All || sel.Name != "" && (sel.DAGID != "" || sel.All) {
		return sel, invalid("name a schedule, --dag-id or --all, one of the three")
	}
	return sel, nil
}

func newSchedulePauseCmd(a *app) *cobra.Command {
	var opt selectOptions
	c := &cobra.Command{
		Use:   "pause NAME | --dag-id ID[@VERSION] | --all",
		Short: "Keep schedules from firing",
		Long: "Keep schedules from firing until they are resumed. Their runs that are under way go on. What falls\n" +
			"into the pause is past: it is not caught up with. Pausing again changes nothing.",
		Example: "  stella orch schedule pause nightly --reason \"the source is being moved\"\n  stella orch schedule pause --all",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runScheduleSwitch(c.Context(), a, opt, args, api.Site.PauseSchedules, "paused")
		},
	}
	opt.flags(c)
	return c
}

func newScheduleResumeCmd(a *app) *cobra.Command {
	var opt selectOptions
	c := &cobra.Command{
		Use:     "resume NAME | --dag-id ID[@VERSION] | --all",
		Short:   "Let paused schedules fire again",
		Long:    "Let paused schedules fire again, from their next instant on.",
		Example: "  stella orch schedule resume nightly\n  stella orch schedule resume --all",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runScheduleSwitch(c.Context(), a, opt, args, api.Site.ResumeSchedules, "resumed")
		},
	}
	opt.flags(c)
	return c
}

type switchSchedules func(api.Site, context.Context, api.ScheduleSelection) (api.ScheduleReport, error)

func runScheduleSwitch(ctx context.Context, a *app, opt selectOptions, args []string, do switchSchedules, done string) error {
	sel, err := opt.selection(args)
	if err != nil {
		return err
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		rep, err := do(r, ctx, sel)
		if err != nil {
			return err
		}
		return renderScheduleReport(a, rep, done)
	})
}

func newScheduleRemoveCmd(a *app) *cobra.Command {
	var opt selectOptions
	c := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a schedule",
		Long: "Remove a schedule. Once the command has returned it fires no more; runs that it has started go on.\n" +
			"What it did stays in the ledger.",
		Example: "  stella orch schedule remove nightly",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runScheduleRemove(c.Context(), a, opt, args) },
	}
	opt.common(c)
	return c
}

func newScheduleClearCmd(a *app) *cobra.Command {
	var opt selectOptions
	c := &cobra.Command{
		Use:   "clear --dag-id ID[@VERSION] | --all",
		Short: "Remove all schedules of a DAG",
		Long: "Remove all schedules of a DAG, or with a version those that are pinned to it, or all of the tenant.\n" +
			"Once the command has returned none of them fires any more. The runs that they have started go on:\n" +
			"stella orch run list --active, stella orch run cancel.",
		Example: "  stella orch schedule clear --dag-id audit@1.1.0 --dry-run\n  stella orch schedule clear --dag-id audit --yes",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, args []string) error { return runScheduleRemove(c.Context(), a, opt, args) },
	}
	opt.flags(c)
	c.MarkFlagsOneRequired("dag-id", "all")
	return c
}

func runScheduleRemove(ctx context.Context, a *app, opt selectOptions, args []string) error {
	sel, err := opt.selection(args)
	if err != nil {
		return err
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		plan := sel
		plan.DryRun = true
		rep, err := r.RemoveSchedules(ctx, plan)
		if err != nil {
			return err
		}
		if !sel.DryRun && len(rep.Changed) > 0 {
			if err := a.confirm(removeQuestion(rep)); err != nil {
				return err
			}
			if rep, err = r.RemoveSchedules(ctx, sel); err != nil {
				return err
			}
		}
		rep.DryRun = sel.DryRun
		return renderScheduleReport(a, rep, "removed")
	})
}

func removeQuestion(rep api.ScheduleReport) string {
	if n := len(rep.Changed); n > 1 {
		return fmt.Sprintf("Remove %d schedules?", n)
	}
	return "Remove the schedule " + rep.Changed[0].Name + "?"
}

func renderScheduleReport(a *app, rep api.ScheduleReport, done string) error {
	switch n := len(rep.Changed); {
	case rep.DryRun:
		a.stderr.note("dry run: nothing was changed; %s", count(n, "schedule would be ", "schedules would be ")+done)
	case n == 0 && rep.Unchanged > 0:
		a.stderr.note("note: %s before; nothing was changed", count(rep.Unchanged, "schedule was ", "schedules were ")+done)
	default:
		a.stderr.note("%s %s", count(n, "schedule", "schedules"), done)
	}
	if a.silent(rep.DryRun) {
		return nil
	}
	return emitSchedules(a, rep, rep.Changed)
}
