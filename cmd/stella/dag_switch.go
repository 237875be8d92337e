package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newDAGDisableCmd(a *app) *cobra.Command {
	var req api.DAGSwitch
	c := &cobra.Command{
		Use:   "disable ID@VERSION",
		Short: "Keep a DAG version from being started",
		Long: "Keep a DAG version from being started: by commands, by schedules, and as a part of other\n" +
			"runs. Starts without a version take the highest one that is enabled, so this is also the way\n" +
			"back to the version before. Runs that are under way go on: stella orch run list --active\n" +
			"--dag-id ID lists them, stella orch run cancel ends one. Schedules that have no version left\n" +
			"stop, and go on after an enable. Disabling again changes nothing.",
		Example: "  stella orch dag disable audit@1.1.0 --reason \"joins the wrong table\" --dry-run\n" +
			"  stella orch dag disable audit@1.1.0 --reason \"joins the wrong table\"",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runDAGDisable(c.Context(), a, args[0], req) },
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "`TEXT` that is recorded and shown to whoever is refused (required)")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "show what would be, and change nothing")
	_ = c.MarkFlagRequired("reason")
	return c
}

func newDAGEnableCmd(a *app) *cobra.Command {
	var req api.DAGSwitch
	c := &cobra.Command{
		Use:   "enable ID@VERSION",
		Short: "Let a DAG version be started again",
		Long: "Let a DAG version that was disabled be started again. Schedules that had stopped fire again\n" +
			"from their next instant on; of what fell in between, only what lies within their catch-up\n" +
			"window is made up for. Enabling again changes nothing.",
		Example: "  stella orch dag enable audit@1.1.0 --reason \"the table is mended\"",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runDAGEnable(c.Context(), a, args[0], req) },
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "`TEXT` that is recorded")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "show what would be, and change nothing")
	return c
}

// pinned splits ID@VERSION, both of which must be there.
func pinned(name string) (id, version string, err error) {
	id, version, _ = strings.Cut(name, "@")
	if id == "" || version == "" {
		return "", "", invalid("%q is not ID@VERSION", name)
	}
	return id, version, nil
}

func runDAGDisable(ctx context.Context, a *app, name string, req api.DAGSwitch) error {
	id, version, err := pinned(name)
	if err != nil {
		return err
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		plan := req
		plan.DryRun = true
		out, err := r.DisableDAG(ctx, id, version, plan)
		if err != nil {
			return err
		}
		if !req.DryRun && out.Changed {
			if err := a.confirm(disableQuestion(out)); err != nil {
				return err
			}
		}
		if !req.DryRun {
			if out, err = r.DisableDAG(ctx, id, version, req); err != nil {
				return err
			}
		}
		return renderSwitched(a, out, false)
	})
}

func runDAGEnable(ctx context.Context, a *app, name string, req api.DAGSwitch) error {
	id, version, err := pinned(name)
	if err != nil {
		return err
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		out, err := r.EnableDAG(ctx, id, version, req)
		if err != nil {
			return err
		}
		return renderSwitched(a, out, true)
	})
}

// disableQuestion asks whether a version is to be disabled, naming what comes
// of it.
func disableQuestion(out api.DAGSwitched) string {
	q := fmt.Sprintf("Disable %s %s? ", out.DAG.DAGID, out.DAG.Version)
	if out.Next == "" {
		q += "No version of it can be started then"
	} else {
		q += "Starts without a version then take " + out.Next
	}
	if n := len(out.Schedules); n > 0 {
		q += ", and " + count(n, "schedule stops", "schedules stop")
	}
	return q + "."
}

func renderSwitched(a *app, out api.DAGSwitched, enable bool) error {
	switch {
	case out.DryRun:
		a.stderr.note("dry run: nothing was changed")
	case !out.Changed:
		a.stderr.note("note: it was %s before; nothing was changed", dagState(out.DAG))
	}
	return a.acted(out.DryRun, out, func(s *screen) {
		next := out.Next
		if next == "" {
			next = "nothing: no version is enabled"
		}
		runs, which := "", "schedules that stop"
		if out.ActiveRuns > 0 {
			runs = strconv.Itoa(out.ActiveRuns) + ", not touched"
		}
		if enable {
			which = "schedules that fire"
		}
		s.fields("dag", out.DAG.DAGID+" "+out.DAG.Version, "state", dagStateWhy(out.DAG), "unpinned starts", next,
			"runs under way", runs, which, strings.Join(out.Schedules, ", "))
	})
}

func dagState(d api.DAG) string {
	if d.Enabled {
		return "enabled"
	}
	return "disabled"
}

// dagStateWhy is the state with who made it so and why, where somebody did.
func dagStateWhy(d api.DAG) string {
	out := dagState(d)
	if d.SwitchedBy == "" {
		return out
	}
	out += " by " + d.SwitchedBy + " at " + seconds(d.SwitchedUTC)
	if d.SwitchReason != "" {
		out += ": " + d.SwitchReason
	}
	return out
}
