package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newWorkspaceCmd(a *app) *cobra.Command {
	return group("workspace", "Folders that attempts worked in",
		"A workspace is the folder of one attempt: runs/RUN/STEP/ATTEMPT in the home. It goes when the\n"+
			"attempt succeeds, and otherwise stays for whoever looks into it; keep_workspaces in site.toml\n"+
			"says it differently.",
		newWorkspaceListCmd(a), newWorkspaceCleanupCmd(a))
}

func newWorkspaceListCmd(a *app) *cobra.Command {
	var q api.WorkspaceQuery
	c := &cobra.Command{
		Use:   "list",
		Short: "List workspaces that are kept",
		Long: "List the workspaces that are there: active, their attempt is under way; kept, the attempt has\n" +
			"ended and its run has not; stale, the run has ended, or nobody knows of them.",
		Example: "  stella workspace list --stale",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runWorkspaceList(c.Context(), a, q) },
	}
	c.Flags().BoolVar(&q.Stale, "stale", false, "only those that a cleanup removes")
	c.Flags().StringVar(&q.RunID, "run", "", "only workspaces of this `RUN`")
	return c
}

func runWorkspaceList(ctx context.Context, a *app, q api.WorkspaceQuery) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		page, err := r.ListWorkspaces(ctx, q)
		if err != nil {
			return err
		}
		err = emitList(a, page, page.Workspaces, workspaceHeader(), workspaceRow)
		if err == nil && page.More > 0 {
			a.stderr.note("and %d more", page.More)
		}
		return err
	})
}

func workspaceHeader() []string {
	return []string{"WORKSPACE", "STATE", "ENDED", "FILES", "SIZE", "WHY"}
}

func workspaceRow(w api.Workspace) []string {
	files, bytes := strconv.FormatInt(w.Files, 10), size(w.Bytes)
	if w.Partial {
		files, bytes = files+"+", bytes+"+"
	}
	return []string{w.Path, w.State, seconds(w.EndedUTC), files, bytes, w.Why}
}

func newWorkspaceCleanupCmd(a *app) *cobra.Command {
	var req api.WorkspaceCleanup
	var stale bool
	var age string
	c := &cobra.Command{
		Use:   "cleanup --stale",
		Short: "Remove stale workspaces",
		Long: "Remove the workspaces of runs that have ended, and folders below runs/ that nobody knows of.\n" +
			"Those of attempts under way, and of runs that are open, stay. What a plugin has left there,\n" +
			"links and odd modes included, is removed without following it anywhere. The removal is an\n" +
			"entry of the ledger. Without --yes it says what would go, and asks.",
		Example: "  stella workspace cleanup --stale --dry-run\n  stella workspace cleanup --stale --older-than 7d --yes",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !stale {
				return &api.Error{Code: api.CodeInvalid, Message: "only stale workspaces are removed", Hint: "say so: stella workspace cleanup --stale"}
			}
			if age != "" {
				d, err := parseAge(age)
				if err != nil {
					return err
				}
				req.OlderThanMs = d.Milliseconds()
			}
			return runWorkspaceCleanup(c.Context(), a, req)
		},
	}
	f := c.Flags()
	f.BoolVar(&stale, "stale", false, "what is removed; nothing else can be")
	f.StringVar(&age, "older-than", "", "only those whose attempts ended longer ago than this `SPAN`, such as 12h or 7d")
	f.BoolVar(&req.DryRun, "dry-run", false, "only say what would go")
	return c
}

// parseAge reads a span of time: a duration, or a number of days.
func parseAge(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= 36500 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= time.Millisecond {
		return d, nil
	}
	return 0, invalid("%q is not a span of time: use 90m, 12h or 30d", s)
}

func runWorkspaceCleanup(ctx context.Context, a *app, req api.WorkspaceCleanup) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		if !req.DryRun && !a.opt.yes {
			plan, err := r.CleanWorkspaces(ctx, api.WorkspaceCleanup{DryRun: true, OlderThanMs: req.OlderThanMs}, nil)
			if err != nil {
				return err
			}
			if plan.Count > 0 {
				renderCleanup(a.stderr, plan)
				if err := a.confirm("Remove them?"); err != nil {
					return err
				}
			}
		}
		rep, err := r.CleanWorkspaces(ctx, req, a.progressOf("removing"))
		if err != nil {
			return err
		}
		err = a.acted(req.DryRun, rep, func(s *screen) { renderCleanup(s, rep) })
		if n := len(rep.Failed) + rep.FailedMore; n > 0 {
			err = errors.Join(err, &outcome{exitFailed, api.Error{Code: api.CodeInternal,
				Message: count(n, "workspace", "workspaces") + " could not be removed", Hint: "see what is said of each"}})
		}
		return err
	})
}

func renderCleanup(s *screen, rep api.WorkspaceReport) {
	removed := "removed"
	if rep.DryRun {
		removed = "would be removed"
		rows := make([][]string, len(rep.Workspaces))
		for i, w := range rep.Workspaces {
			rows[i] = workspaceRow(w)
		}
		if len(rows) > 0 {
			s.table(workspaceHeader(), rows)
			s.printf("\n")
		}
	}
	for _, f := range rep.Failed {
		s.printf("not removed: %s: %s\n", f.Path, f.Why)
	}
	if rep.FailedMore > 0 {
		s.printf("and %d more\n", rep.FailedMore)
	}
	more := ""
	if rep.Partial {
		more = " at least"
	}
	s.fields(removed, fmt.Sprintf("%s, %s, %s%s", count(rep.Count, "workspace", "workspaces"), count(rep.Files, "file", "files"), size(rep.Bytes), more))
}
