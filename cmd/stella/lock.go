package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newLockCmd(a *app) *cobra.Command {
	return group("lock", "Locks and semaphores that steps hold",
		"See who holds the locks and semaphores of a tenant and who waits for them, and take one away. Locks\n"+
			"come free by themselves: when the attempt ends that holds them, also when that was killed with\n"+
			"stella, and with a step that is a sub-run, when that has ended. Where nobody has executed such a\n"+
			"step for 60 s its lock is stale, and whoever executes a step that waits for it takes it.",
		newLockListCmd(a), newLockStatusCmd(a), newLockReleaseCmd(a))
}

// lockList is what lock list and lock status print as JSON.
type lockList struct {
	Locks []api.Lock `json:"locks"`
}

func newLockListCmd(a *app) *cobra.Command {
	var q api.LockQuery
	c := &cobra.Command{
		Use:     "list",
		Short:   "List what is held, and all semaphores",
		Long:    "List the locks that are held and the semaphores of site.toml, with a line for each holder.",
		Example: "  stella lock list\n  stella lock list --stale",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runLockList(c.Context(), a, q) },
	}
	c.Flags().BoolVar(&q.Stale, "stale", false, "only those whose holder is stale")
	c.Flags().StringVar(&q.Kind, "kind", "", "only this `KIND`: lock or semaphore")
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"lock", "semaphore"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func runLockList(ctx context.Context, a *app, q api.LockQuery) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		all, err := r.ListLocks(ctx, q)
		if err != nil {
			return err
		}
		if a.opt.output != outTable {
			return emitList(a, lockList{all}, all, nil, nil)
		}
		lockTable(a.stdout, all)
		return a.stdout.err
	})
}

// lockTable has a line for each holder, and one for what nobody holds.
func lockTable(s *screen, all []api.Lock) {
	var rows [][]string
	for _, l := range all {
		row := []string{l.Name, l.Kind, fmt.Sprintf("%d/%d", l.Held, l.Capacity), strconv.Itoa(len(l.Waiting))}
		if len(l.Holders) == 0 {
			rows = append(rows, append(row, "free"))
		}
		for _, h := range l.Holders {
			rows = append(rows, append(row[:4:4], holderState(h), strconv.FormatInt(h.Fence, 10), seconds(h.SinceUTC),
				fmt.Sprintf("%s#%d of run %s", h.StepID, h.Attempt, h.RunID)))
		}
	}
	s.table([]string{"NAME", "KIND", "HELD", "WAITING", "STATE", "FENCE", "SINCE", "HOLDER"}, rows)
}

func holderState(h api.LockHolder) string {
	switch {
	case h.Lingers != "":
		return "ending"
	case h.Executing:
		return "executing"
	case h.Stale:
		return "stale"
	}
	return "not executing"
}

func newLockStatusCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status NAME",
		Short: "Show one lock, its holders and who waits",
		Long: "Show a lock or semaphore: who holds it since when and under which fence number, whether the holder\n" +
			"is executing, and who waits for it. A lock that nobody holds is free.",
		Example: "  stella lock status merge",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runLockStatus(c.Context(), a, args[0]) },
	}
}

func runLockStatus(ctx context.Context, a *app, name string) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		all, err := r.ShowLock(ctx, name)
		if err != nil {
			return err
		}
		if a.opt.output != outTable {
			return emitList(a, lockList{all}, all, nil, nil)
		}
		for i, l := range all {
			if i > 0 {
				a.stdout.printf("\n")
			}
			renderLock(a.stdout, l)
		}
		return a.stdout.err
	})
}

func renderLock(s *screen, l api.Lock) {
	held := "free"
	if len(l.Holders) > 0 {
		held = fmt.Sprintf("%d of %d", l.Held, l.Capacity)
	}
	s.fields(l.Kind, l.Name, "tenant", l.Tenant, "held", held)
	for _, h := range l.Holders {
		s.printf("\n")
		last := ""
		if !h.Executing {
			last = seconds(h.LastUTC)
		}
		s.fields("holder", fmt.Sprintf("%s#%d of run %s", h.StepID, h.Attempt, h.RunID), "dag", h.DAGID, "weight", strconv.FormatInt(h.Weight, 10),
			"fence", strconv.FormatInt(h.Fence, 10), "since", seconds(h.SinceUTC), "state", holderState(h), "last heard of", last)
	}
	if len(l.Waiting) == 0 {
		return
	}
	rows := make([][]string, len(l.Waiting))
	for i, w := range l.Waiting {
		rows[i] = []string{w.StepID, w.RunID, strconv.FormatInt(w.Weight, 10), seconds(w.QueuedUTC)}
	}
	s.printf("\n")
	s.table([]string{"WAITS", "RUN", "WEIGHT", "SINCE"}, rows)
}

// releaseOptions are the flags of lock release.
type releaseOptions struct {
	req   api.LockRelease
	force bool
}

func newLockReleaseCmd(a *app) *cobra.Command {
	var opt releaseOptions
	c := &cobra.Command{
		Use:   "release NAME --force",
		Short: "Take a lock from its holder",
		Long: "Take a lock away from a step that holds it, and let the next have it at once. What relied on it\n" +
			"fails with LOCK_LOST: an attempt under way is told to stop, and counts as failed even if it ends\n" +
			"well; a sub-run is cancelled. For as long as that takes both may be at work, so look first whether\n" +
			"the holder still does something: stella lock status NAME. Who did it and why is recorded; the next\n" +
			"holder has a higher fence number.",
		Example: "  stella lock release merge --force --reason \"its host is gone\" --dry-run\n" +
			"  stella lock release scanners --force --run 01935b1e-… --reason \"the licence server lost it\"",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runLockRelease(c.Context(), a, args[0], opt) },
	}
	f := c.Flags()
	f.BoolVar(&opt.force, "force", false, "take it away (required)")
	f.StringVar(&opt.req.RunID, "run", "", "of several holders that of this `RUN`")
	f.StringVar(&opt.req.StepID, "step", "", "of several holders this `STEP`")
	f.StringVar(&opt.req.Kind, "kind", "", "`KIND` of what is meant: lock or semaphore")
	f.StringVar(&opt.req.Reason, "reason", "", "`TEXT` that is recorded (required)")
	f.BoolVar(&opt.req.DryRun, "dry-run", false, "show what would be, and change nothing")
	_ = c.MarkFlagRequired("reason")
	return c
}

func runLockRelease(ctx context.Context, a *app, name string, opt releaseOptions) error {
	if !opt.force {
		return &api.Error{Code: api.CodeInvalid, Message: "a lock comes free when its holder ends; taking it away before needs --force",
			Hint: "stella lock status " + name + " says who holds it"}
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		plan := opt.req
		plan.DryRun = true
		out, err := r.ReleaseLock(ctx, name, plan)
		if err != nil {
			return err
		}
		if !opt.req.DryRun {
			if err := a.confirm(releaseQuestion(out)); err != nil {
				return err
			}
			req := opt.req // what was asked about, and nobody who came since
			req.Kind, req.RunID, req.StepID = out.Lock.Kind, out.Lost.RunID, out.Lost.StepID
			if out, err = r.ReleaseLock(ctx, name, req); err != nil {
				return err
			}
		}
		return renderReleased(a, out)
	})
}

func releaseQuestion(out api.LockReleased) string {
	q := fmt.Sprintf("Take %s %s from step %s of run %s? ", out.Lock.Kind, out.Lock.Name, out.Lost.StepID, out.Lost.RunID)
	if out.Lost.Executing {
		q += "It is executing: it is stopped and fails with LOCK_LOST"
	} else {
		q += "Nobody executes it; when it goes on it fails with LOCK_LOST"
	}
	if n := len(out.Lock.Waiting); n > 0 {
		q += "; " + count(n, "step waits for it", "steps wait for it")
	}
	return q + "."
}

func renderReleased(a *app, out api.LockReleased) error {
	if out.DryRun {
		a.stderr.note("dry run: nothing was changed")
	}
	return a.acted(out.DryRun, out, func(s *screen) {
		next := "nobody waits for it"
		if len(out.Lock.Waiting) > 0 {
			w := out.Lock.Waiting[0]
			next = fmt.Sprintf("step %s of run %s", w.StepID, w.RunID)
		}
		s.fields(out.Lock.Kind, out.Lock.Name, "taken from", fmt.Sprintf("%s#%d of run %s", out.Lost.StepID, out.Lost.Attempt, out.Lost.RunID),
			"fence", strconv.FormatInt(out.Lost.Fence, 10), "holder", strings.TrimSpace(holderState(out.Lost)), "next", next)
	})
}
