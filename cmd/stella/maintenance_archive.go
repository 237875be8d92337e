package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newArchiveCmd(a *app) *cobra.Command {
	var req api.ArchiveRequest
	var age string
	c := &cobra.Command{
		Use:   "archive --older-than SPAN",
		Short: "Move what old runs have left into an archive",
		Long: "Write the logs and artifacts of runs that ended longer ago than the span to a file in\n" +
			"archives/ of the home, read it back byte for byte, record it, and move the originals to\n" +
			"trash/. What a younger run, a bundle or the cache names as well stays in its place, and so do\n" +
			"plans, inputs, outputs and workspaces; `stella workspace cleanup --stale` removes the last.\n\n" +
			"Nothing is lost: logs, artifacts, exports and checks read from the archive as long as it lies\n" +
			"in archives/, under any name. It can be taken elsewhere: then exports declare each log that\n" +
			"they lack, and who asks for one is told which file to bring back. The file is a tar that tar,\n" +
			"zstd and sha256sum open. Cut off at any moment, the same command goes on. A run of which an\n" +
			"artifact or a log is damaged or missing stays as it is and is named; the others are archived.",
		Example: "  stella maintenance archive --older-than 90d --dry-run\n  stella maintenance archive --older-than 90d",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := parseAge(age)
			if err != nil {
				return err
			}
			req.OlderThanMs = d.Milliseconds()
			return runArchive(c.Context(), a, req)
		},
	}
	f := c.Flags()
	f.StringVar(&age, "older-than", "", "of runs that ended longer ago than this `SPAN`, such as 12h or 90d")
	f.BoolVar(&req.DryRun, "dry-run", false, "only say what would move, and how large it is")
	_ = c.MarkFlagRequired("older-than")
	return c
}

func runArchive(ctx context.Context, a *app, req api.ArchiveRequest) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		rep, err := r.ArchiveRuns(ctx, req, a.progressOf("archiving"))
		if err != nil {
			return err
		}
		if err := a.acted(req.DryRun, rep, func(s *screen) { renderArchived(s, rep) }); err != nil {
			return err
		}
		return notArchived(rep)
	})
}

// notArchived names the runs that were not archived since something of them is damaged; nil
// where there is none.
func notArchived(rep api.ArchiveReport) error {
	if len(rep.Damaged) == 0 {
		return nil
	}
	err := api.Error{Code: api.CodeDamaged, Message: "runs are damaged and stay as they are",
		Hint: "put each file back, from a snapshot or a backup, then archive again; stella bundle audit names all that is damaged"}
	if !rep.DryRun && len(rep.Archives) > 0 {
		err.Message = "the rest is done, but " + err.Message
	}
	for _, r := range rep.Damaged {
		err.Faults = append(err.Faults, fmt.Sprintf("%s: %s: %s", r.RunID, r.SHA256, r.What))
	}
	return &outcome{exitDamaged, err}
}

func renderArchived(s *screen, r api.ArchiveReport) {
	if r.Artifacts+r.Logs+r.Finished == 0 {
		s.printf("nothing is to be archived of runs that ended before %s\n", seconds(r.Before))
		return
	}
	moved := "moved"
	if r.DryRun {
		moved = "would move"
	}
	for _, x := range r.Archives {
		s.fields("archive", x.Path, "sha256", x.SHA256, "size", size(x.Bytes), "entry", strconv.FormatInt(x.Seq, 10))
	}
	kv := []string{moved, count(r.Logs, "log", "logs") + " and " + count(r.Artifacts, "artifact", "artifacts") +
		" of " + count(r.Runs, "run", "runs") + ", " + size(r.Content)}
	if r.Busy > 0 {
		kv = append(kv, "stay too", count(r.Busy, "file", "files")+" that somebody relies on")
	}
	if r.Finished > 0 {
		kv = append(kv, "finished", count(r.Finished, "file", "files")+" of an archiving that was cut off")
	}
	s.fields(kv...)
	if r.TrashedUntil != "" {
		s.printf("the originals are in trash/ until %s; stella bundle gc deletes them after that\n", seconds(r.TrashedUntil))
	}
}

func newArchivesCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "archives",
		Short: "List archives of runs",
		Long: "List the archives that `maintenance archive` has made, oldest first, and whether they are here:\n" +
			"one that is away is brought back into archives/ of the home, under any name. That one is here\n" +
			"says nothing of its bytes: `bundle audit` and `ledger verify --full` read them. Damaged files are named\n" +
			"beside whole copies too: those without the form of an archive, and those in which a daemon has\n" +
			"found damage since it was started. An unreadable file cannot be opened, mostly for its mode.",
		Example: "  stella maintenance archives\n  stella maintenance archives --output json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runArchives(c.Context(), a) },
	}
}

func runArchives(ctx context.Context, a *app) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		all, err := r.ListArchives(ctx)
		if err != nil {
			return err
		}
		for _, x := range all {
			for _, what := range x.Damaged {
				a.stderr.note("damaged: %s", what)
			}
		}
		header := []string{"FILE", "STATE", "ENDED BEFORE", "RUNS", "LOGS", "ARTIFACTS", "SIZE", "ENTRY"}
		return emitList(a, map[string]any{"archives": all}, all, header, func(x api.Archive) []string {
			return []string{x.File, x.State, seconds(x.Before), strconv.FormatInt(x.Runs, 10), strconv.FormatInt(x.Logs, 10),
				strconv.FormatInt(x.Artifacts, 10), size(x.Bytes), strconv.FormatInt(x.Seq, 10)}
		})
	})
}

// notHere names archives of runs that could not be looked into.
func (a *app) notHere(away []api.AwayArchive) {
	for _, x := range away {
		where := "is not here"
		if x.Unread != "" {
			where = "cannot be read: " + x.Unread
		}
		a.stderr.note("%s lie in the archive %s (SHA-256 %s), which %s", count(x.Files, "file", "files"), x.File, x.SHA256, where)
	}
}
