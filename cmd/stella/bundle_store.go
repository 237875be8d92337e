package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newBundleAuditCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "audit",
		Short: "Hash everything sealed, and compare it with the ledger",
		Long: "Hash every file of sealed storage and every log that the ledger names, and report all that\n" +
			"is wrong: what is missing, damaged, writable, or not stella's; each with what to do about it.\n" +
			"Damage is exit 7. Blobs that nothing names are garbage and no damage: a crash may leave some.\n" +
			"Archives of runs are read too; one that is not here is named, and no damage.\n" +
			"Nothing is changed. It takes as long as reading the home does.",
		Example: "  stella bundle audit\n  stella bundle audit --output json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runBundleAudit(c.Context(), a) },
	}
}

func runBundleAudit(ctx context.Context, a *app) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		rep, err := r.AuditStorage(ctx, a.progressOf("hashing"))
		if err != nil {
			return err
		}
		if err := a.emit(rep, func(s *screen) { renderAudit(s, rep) }); err != nil {
			return err
		}
		if rep.Damage == 0 {
			return nil
		}
		return &outcome{exitDamaged, api.Error{Code: api.CodeDamaged, Message: count(rep.Damage, "finding is damage", "findings are damage"),
			Hint: "keep a copy of the home as it is before anything is mended"}}
	})
}

func renderAudit(s *screen, rep api.AuditReport) {
	for _, f := range rep.Findings {
		s.printf("%s  %s\n", f.Kind, f.Path)
		what := f.Detail
		if f.What != "" {
			what += ": " + f.What
		}
		s.printf("    %s\n    fix: %s\n", what, f.Fix)
	}
	if rep.More > 0 {
		s.printf("and %d more\n", rep.More)
	}
	s.fields("hashed", count(rep.Blobs, "file", "files")+", "+size(rep.Bytes), "wanted", strconv.FormatInt(rep.Named, 10)+" by the ledger",
		"findings", strconv.Itoa(len(rep.Findings)+rep.More), "damage", strconv.Itoa(rep.Damage))
}

func newBundleGCCmd(a *app) *cobra.Command {
	var req api.GCRequest
	var superseded bool
	c := &cobra.Command{
		Use:   "gc",
		Short: "Give up what nothing needs",
		Long: "Move blobs that nothing names to trash/, and delete what has been there for a day. With\n" +
			"--superseded, or --keep N, the contents of bundles go too that have one, or N, newer ones of\n" +
			"the same kind, publisher and name, unless a published DAG version, a current DAG bundle or any\n" +
			"run refers to them. Manifests, signatures, verdicts, plans, inputs, outputs and artifacts always\n" +
			"stay. What is given up is an entry of the ledger; importing a bundle again brings it back.\n" +
			"Without --yes it says what would go, and asks.",
		Example: "  stella bundle gc --dry-run\n  stella bundle gc --superseded --yes\n  stella bundle gc --keep 3",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("keep") && (superseded || req.Keep < 1) {
				return invalid("--keep is a number of versions from 1 on, and stands without --superseded")
			}
			if superseded {
				req.Keep = 1
			}
			return runBundleGC(c.Context(), a, req)
		},
	}
	f := c.Flags()
	f.BoolVar(&req.DryRun, "dry-run", false, "only say what would go")
	f.BoolVar(&superseded, "superseded", false, "give up contents of all but the newest version of a bundle")
	f.IntVar(&req.Keep, "keep", 0, "give up contents of all but the newest `N` versions of a bundle")
	return c
}

func runBundleGC(ctx context.Context, a *app, req api.GCRequest) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		if !req.DryRun && !a.opt.yes {
			plan, err := r.CollectGarbage(ctx, api.GCRequest{DryRun: true, Keep: req.Keep}, a.progressOf("marking"))
			if err != nil {
				return err
			}
			if plan.Blobs+plan.TrashFiles+int64(len(plan.Bundles)) > 0 {
				renderGC(a.stderr, plan)
				if err := a.confirm("Give this up?"); err != nil {
					return err
				}
			}
		}
		rep, err := r.CollectGarbage(ctx, req, a.progressOf("marking"))
		if err != nil {
			return err
		}
		return a.acted(req.DryRun, rep, func(s *screen) { renderGC(s, rep) })
	})
}

func renderGC(s *screen, rep api.GCReport) {
	given, deleted := "given up", "deleted"
	if rep.DryRun {
		given, deleted = "would go", "would be deleted"
	}
	for _, b := range rep.Bundles {
		s.printf("contents of %s\n", b)
	}
	for _, k := range rep.Kept {
		s.printf("kept %s: %s\n", k.Bundle, k.Why)
	}
	busy := ""
	if rep.Busy > 0 {
		busy = count(rep.Busy, "blob", "blobs") + " that somebody may be about to use"
	}
	until := ""
	if rep.TrashedUntil != "" {
		until = "until " + seconds(rep.TrashedUntil)
	}
	kv := []string{given, count(rep.Blobs, "blob", "blobs") + ", " + size(rep.Bytes), "busy", busy, "in trash/", until,
		deleted, count(rep.TrashFiles, "file", "files") + " of trash/, " + size(rep.TrashBytes)}
	s.fields(append(kv, stillOnDisk(rep.Waits)...)...)
}
