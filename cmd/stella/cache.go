package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newCacheCmd(a *app) *cobra.Command {
	return group("cache", "Outputs that are kept for steps that would do the same",
		"A step with cache = {ttl = …} takes its outputs from one that did the same before: the same DAG\n"+
			"version and plugin, the same parameters, artifacts and data, behind the same fences, of the same\n"+
			"tenant. Its plugin is judged anew each time. run status and run inspect show what came from where.",
		newCacheListCmd(a), newCacheClearCmd(a))
}

// cacheList is what cache list prints as JSON.
type cacheList struct {
	Entries []api.CacheEntry `json:"entries"`
}

func newCacheListCmd(a *app) *cobra.Command {
	var q api.CacheQuery
	c := &cobra.Command{
		Use:   "list",
		Short: "List what is kept, and how often it was used",
		Long: "List the outputs that are kept, the newest first: the step that made them, until when they are\n" +
			"kept, and how many steps have taken them.",
		Example: "  stella orch cache list --dag-id audit",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runCacheList(c.Context(), a, q) },
	}
	c.Flags().StringVar(&q.DAGID, "dag-id", "", "only of this DAG `ID`")
	return c
}

func runCacheList(ctx context.Context, a *app, q api.CacheQuery) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		all, err := r.ListCache(ctx, q)
		if err != nil {
			return err
		}
		return emitList(a, cacheList{all}, all, []string{"KEY", "DAG", "STEP", "HITS", "TTL", "STORED", "RUN"}, func(e api.CacheEntry) []string {
			ttl := (time.Duration(e.TTLMs) * time.Millisecond).Round(time.Second)
			return []string{short(e.Key), e.DAGID, fmt.Sprintf("%s#%d", e.StepID, e.Attempt), strconv.Itoa(e.Hits), ttl.String(), seconds(e.StoredUTC), e.RunID}
		})
	})
}

func newCacheClearCmd(a *app) *cobra.Command {
	var req api.CacheClearing
	c := &cobra.Command{
		Use:   "clear",
		Short: "Forget what is kept",
		Long: "Forget the outputs that are kept of the tenant, or of one DAG, so that the next runs do the work\n" +
			"again. Runs that have taken them stay as they are. It is recorded.",
		Example: "  stella orch cache clear --dag-id audit --reason \"the advisories were wrong\"",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runCacheClear(c.Context(), a, req) },
	}
	c.Flags().StringVar(&req.DAGID, "dag-id", "", "only of this DAG `ID`")
	c.Flags().StringVar(&req.Reason, "reason", "", "`TEXT` that is recorded")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "show what would be, and change nothing")
	return c
}

func runCacheClear(ctx context.Context, a *app, req api.CacheClearing) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		plan := req
		plan.DryRun = true
		out, err := r.ClearCache(ctx, plan)
		if err != nil {
			return err
		}
		if !req.DryRun && out.Count > 0 {
			of := "the tenant"
			if req.DAGID != "" {
				of = req.DAGID
			}
			if err := a.confirm(fmt.Sprintf("Forget the outputs of %s of %s?", count(out.Count, "step", "steps"), of)); err != nil {
				return err
			}
			if out, err = r.ClearCache(ctx, req); err != nil {
				return err
			}
		}
		if out.DryRun = req.DryRun; out.DryRun {
			a.stderr.note("dry run: nothing was changed")
		}
		return a.acted(out.DryRun, out, func(s *screen) { s.fields("dag", out.DAGID, "forgotten", strconv.Itoa(out.Count)) })
	})
}

func newWarmCmd(a *app) *cobra.Command {
	dag := ""
	c := &cobra.Command{
		Use:   "warm",
		Short: "Make ready what DAGs need",
		Long: "Read and judge what DAGs need, so that their next run does not pay for it: specs, manifests,\n" +
			"signatures, interpreters, expressions, schemas, and the programs themselves. It names what may not\n" +
			"be used now, and why: after a key was rotated, a bundle replaced or trust changed, that shows\n" +
			"before the next run does. Without --dag-id all DAGs are looked at, of each the highest enabled\n" +
			"version. The exit code is 1 if one of them cannot be started. Without a daemon there is nobody to\n" +
			"keep it; the report is the same.",
		Example: "  stella orch warm\n  stella orch warm --dag-id audit@1.1.0 --output json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runWarm(c.Context(), a, dag) },
	}
	c.Flags().StringVar(&dag, "dag-id", "", "only this DAG: `ID`, or ID@VERSION")
	return c
}

func runWarm(ctx context.Context, a *app, dag string) error {
	var req api.WarmRequest
	var pin bool
	if req.DAGID, req.Version, pin = strings.Cut(dag, "@"); pin && (req.DAGID == "" || req.Version == "") {
		return invalid("--dag-id %q is neither ID nor ID@VERSION", dag)
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		out, err := r.Warm(ctx, req)
		if err != nil {
			return err
		}
		if !out.Kept {
			a.stderr.note("note: nobody keeps what was made ready; a daemon does")
		}
		if err := a.emit(out, func(s *screen) { warmTable(s, out) }); err != nil {
			return err
		}
		for _, d := range out.DAGs {
			if !d.Ready {
				return &outcome{exit: exitFailed, err: api.Error{Code: codeNotReady, Message: fmt.Sprintf("%d of %s cannot be started now",
					len(out.DAGs)-out.Ready, count(len(out.DAGs), "DAG version", "DAG versions")), Hint: d.Hint}}
			}
		}
		return nil
	})
}

func warmTable(s *screen, out api.WarmReport) {
	rows := make([][]string, len(out.DAGs))
	for i, d := range out.DAGs {
		state := "ready"
		if !d.Ready {
			state = "not ready"
		}
		rows[i] = []string{d.DAGID, d.Version, state, strconv.Itoa(d.Steps), and(d.Code, strings.Join(d.Faults, "; "))}
	}
	s.table([]string{"DAG", "VERSION", "STATE", "STEPS", "WHY"}, rows)
	s.printf("\n")
	s.fields("bundles judged", strconv.Itoa(out.Bundles), "schemas compiled", strconv.Itoa(out.Schemas), "programs read", size(out.Programs))
}
