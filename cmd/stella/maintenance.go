package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

func newMaintenanceCmd(a *app) *cobra.Command {
	return group("maintenance", "Snapshots, restore, recovery, archives of runs, compaction",
		"Copy a site while it is in use, put a copy in the place of what was lost, go on with\nwhat is intact of a damaged ledger, move what old runs have left out of the way, and give\nback the space that the database does not need.",
		newSnapshotCmd(a), newSnapshotsCmd(a), newRestoreCmd(a), newRecoverCmd(a), newArchiveCmd(a), newArchivesCmd(a), newCompactCmd(a))
}

func newSnapshotCmd(a *app) *cobra.Command {
	var req api.SnapshotRequest
	c := &cobra.Command{
		Use:   "snapshot",
		Short: "Copy the site while it is in use",
		Long: "Copy ledger, trust, secrets (which stay encrypted), sealed files and logs as they are at one\n" +
			"moment, while runs go on. Keys are left out: keep a copy of keys/ by a way of its own. Every\n" +
			"file is hashed while it is copied, the copy of the ledger is checked entry by entry, and the\n" +
			"list of all files is signed. Archives of runs that are here are in it too. A snapshot has its\n" +
			"name only when all of that is done and on disk.\n\n" +
			"Where site.toml names recovery_recipients it is one file that is encrypted to these keys of\n" +
			"age, ID.tar.age, and of an epoch N after the first ID.epochN.tar.age.",
		Example: "  stella maintenance snapshot\n  stella maintenance snapshot --out /mnt/backup\n  stella maintenance snapshot --dry-run",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runSnapshot(c.Context(), a, req) },
	}
	f := c.Flags()
	f.StringVar(&req.Dir, "out", "", "`FOLDER` that gets it (default: snapshots/ of the home)")
	f.BoolVar(&req.DryRun, "dry-run", false, "only say how large it becomes, and whether that fits")
	return c
}

func runSnapshot(ctx context.Context, a *app, req api.SnapshotRequest) (err error) {
	if req.Dir != "" {
		if req.Dir, err = absolute(req.Dir); err != nil {
			return err
		}
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		snap, err := r.CreateSnapshot(ctx, req, a.progressOf("copying"))
		if err != nil {
			return err
		}
		return a.acted(req.DryRun, snap, func(s *screen) {
			if req.DryRun {
				s.fields("would go to", snap.Path, "size", size(snap.Bytes), "entries", strconv.FormatInt(snap.Size, 10))
				return
			}
			for _, file := range snap.Away {
				a.stderr.note("what lies in the archive %s is not in the snapshot, since it is not here", file)
			}
			where := "folder"
			if snap.Encrypted {
				where = "encrypted"
			}
			s.fields("snapshot", snap.ID, where, snap.Path, "entries", strconv.FormatInt(snap.Size, 10),
				"root", snap.Root, "files", strconv.FormatInt(snap.Files, 10), "size", size(snap.Bytes))
		})
	})
}

func newSnapshotsCmd(a *app) *cobra.Command {
	var from string
	c := &cobra.Command{
		Use:   "snapshots",
		Short: "List snapshots",
		Long: "List snapshots, oldest first, by what they say of themselves: a restore verifies it. The oldest\n" +
			"is that of the first epoch with the fewest entries, since clocks may go wrong. The site is not\n" +
			"opened, and may be damaged, closed or gone.",
		Example: "  stella maintenance snapshots\n  stella maintenance snapshots --from /mnt/backup --output json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runSnapshots(c.Context(), a, from) },
	}
	c.Flags().StringVar(&from, "from", "", "`FOLDER` that they lie in (default: snapshots/ of the home)")
	return c
}

func runSnapshots(ctx context.Context, a *app, from string) (err error) {
	if from != "" {
		if from, err = absolute(from); err != nil {
			return err
		}
	}
	if err := a.needHome(); err != nil {
		return err
	}
	if a.opt.apiURL != "" {
		return a.withSite(ctx, func(ctx context.Context, r *reached) error {
			all, err := r.ListSnapshots(ctx, from)
			if err != nil {
				return err
			}
			return a.emitSnapshots(all)
		})
	}
	all, err := engine.Snapshots(a.opt.home, from)
	if err != nil {
		return err
	}
	return a.emitSnapshots(all)
}

func (a *app) emitSnapshots(all []api.Snapshot) error {
	return emitList(a, map[string]any{"snapshots": all}, all, []string{"ID", "CREATED", "ENTRIES", "SIZE", "ORIGIN"}, func(s api.Snapshot) []string {
		return []string{s.ID, seconds(s.Created), strconv.FormatInt(s.Size, 10), size(s.Bytes), s.Origin}
	})
}

func newRestoreCmd(a *app) *cobra.Command {
	var opt engine.RestoreOptions
	var identity, accept string
	c := &cobra.Command{
		Use:   "restore-snapshot (--latest | --id ID)",
		Short: "Put a snapshot in the place of what the home has",
		Long: "Verify a snapshot with the site's own key, add what is sealed, and put its ledger, trust and\n" +
			"secrets in the place of those of the home, which are kept in replaced/. Nobody may hold the\n" +
			"site. The home needs its keys/, which no snapshot has.\n\n" +
			"The ledger goes on in a new epoch, whose first entry says what was adopted and which\n" +
			"checkpoint is known beyond it. A checkpoint.note, or a copy of it, that covers more than the\n" +
			"snapshot keeps the site closed until it is waived by name (trust waive): what it covers\n" +
			"beyond is lost. Where runs are open or entries lost the queue is paused: more may have been done\n" +
			"than the snapshot knows. A restore that was cut off is finished by the same command, which\n" +
			"then tells what that had told: another --id is refused meanwhile.\n\n" +
			"Where the last entry of the snapshot is further from the clock than max_gap in site.toml\n" +
			"allows (90 days), or the ledger that it replaces knew a later time than the clock says,\n" +
			"nothing is written before somebody types the time that another clock shows (--accept-time).",
		Example: "  stella maintenance restore-snapshot --latest --dry-run\n" +
			"  stella maintenance restore-snapshot --id 0000004711-20261126T221500Z --from /mnt/backup --reason \"disk failed\"",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if opt.Accept, err = acceptedTime(accept); err != nil {
				return err
			}
			return runRestore(c.Context(), a, opt, identity)
		},
	}
	f := c.Flags()
	f.BoolVar(&opt.Latest, "latest", false, "the newest one: of the last epoch, the one with the most entries")
	f.StringVar(&opt.ID, "id", "", "the one with this `ID`")
	f.StringVar(&opt.Dir, "from", "", "`FOLDER` that it lies in (default: snapshots/ of the home)")
	f.StringVar(&identity, "identity", "", "`FILE` with the age key of a snapshot that is encrypted")
	f.Int64Var(&opt.Epoch, "epoch", 0, "`N` of the new epoch, where a higher one is known than the home tells")
	f.StringVar(&opt.Reason, "reason", "", "`TEXT` that is recorded")
	f.BoolVar(&opt.DryRun, "dry-run", false, "only verify it, and say what would be lost")
	f.StringVar(&accept, "accept-time", "", "`TIME` that another clock shows, where what is put back is far from the clock (recorded)")
	c.MarkFlagsMutuallyExclusive("latest", "id")
	return c
}

// acceptedTime reads a time that may be left out.
func acceptedTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	return parseTime(text)
}

// notByAPI refuses --api-url: what needs the site for itself asks nobody.
func notByAPI(command string) error {
	return invalid("maintenance %s works on the home itself, which nobody may hold; --api-url is for what a daemon is asked", command)
}

func runRestore(ctx context.Context, a *app, opt engine.RestoreOptions, identity string) (err error) {
	if err := a.needHome(); err != nil {
		return err
	}
	if a.opt.apiURL != "" {
		return notByAPI("restore-snapshot")
	}
	if err := a.needOwner(); err != nil {
		return err
	}
	if opt.Identity, err = readIdentity(identity); err != nil {
		return err
	}
	if opt.Dir != "" {
		if opt.Dir, err = absolute(opt.Dir); err != nil {
			return err
		}
	}
	opt.Home, opt.Actor, opt.Now = a.opt.home, server.LocalPrincipal(os.Getuid()), a.now
	if !opt.DryRun && !a.opt.yes {
		dry := opt
		dry.DryRun = true
		plan, err := engine.Restore(ctx, dry)
		if err == nil {
			renderRestored(a.stderr, plan)
			err = a.confirm("Put this in the place of what the home has?")
		}
		if err != nil && !cutOff(err) { // who only lets it finish was asked before
			return err
		}
	}
	opt.Progress = a.progressOf("restoring")
	res, err := engine.Restore(ctx, opt)
	if err != nil {
		return err
	}
	return a.acted(opt.DryRun, res, func(s *screen) { renderRestored(s, res) })
}

func renderRestored(s *screen, r api.Restored) {
	var kv []string
	if r.Finished {
		kv = append(kv, "finished", cutOffWas(r.Recovery, r.Snapshot.ID))
	}
	if r.Untold {
		renderUntold(s, append(kv, "kept", r.Kept))
		return
	}
	if !r.Recovery {
		kv = append(kv, "snapshot", r.Snapshot.ID, "made", seconds(r.Snapshot.Created), "entries", strconv.FormatInt(r.Snapshot.Size, 10))
	}
	kv = append(kv, "lost", lostOf(r.Known, r.Lost))
	if r.Unread > 0 {
		kv = append(kv, "unread", unreadPages(r.Unread))
	}
	kv = append(kv, "origin", r.Origin)
	if r.Kept != "" {
		kv = append(kv, "kept", r.Kept)
	}
	if len(r.Runs) > 0 {
		kv = append(kv, "open runs", strings.Join(r.Runs, " "))
	}
	if len(r.Asked) > 0 {
		kv = append(kv, "asked again", strings.Join(r.Asked, " "))
	}
	s.fields(slices.Concat(kv, newerTrust(r.Trust), stays(r.NewEpoch), erasedAgain(r.Erased, r.Unsure, r.Waits), willBe(r.NewEpoch))...)
	if r.DryRun {
		s.printf("nothing was changed\n")
		return
	}
	renderNext(s, r.Floors, r.Paused)
}

// newerTrust are fields of a restore or a recovery: what became of newer trust that the home had.
func newerTrust(t *api.NewerTrust) (kv []string) {
	switch {
	case t == nil:
		return nil
	case t.Why != "":
		kv = append(kv, "trust", "goes back, in part or all of it: "+t.Why)
	case t.Root > 0:
		text := fmt.Sprintf("root %d, policy %d", t.Root, t.Policy)
		if t.Revocations > 0 {
			text += fmt.Sprintf(", revocations %d", t.Revocations)
		}
		text += " stay in force"
		if t.Seq > 0 {
			text += fmt.Sprintf(" (entry %d)", t.Seq)
		}
		kv = append(kv, "trust", text)
	}
	if len(t.Lost) > 0 {
		kv = append(kv, "revoke again", strings.Join(t.Lost, ", "))
	}
	if t.Unsure != "" {
		kv = append(kv, "not known", "whether that is all the home had: "+t.Unsure)
	}
	return kv
}

// stays are fields of a restore or a recovery: what the ledger before had decided for good.
func stays(r api.NewEpoch) (kv []string) {
	for _, x := range []struct {
		name string
		list []string
		says string
	}{
		{"remembered", r.Remembered, "older versions stay refused; these are to be imported again"},
		{"disabled", r.Disabled, "stays so"},
		{"not disabled", r.Unpublished, "it was, and is not published here: disable it once it is"},
	} {
		if len(x.list) > 0 {
			kv = append(kv, x.name, strings.Join(x.list, " ")+": "+x.says)
		}
	}
	if r.Unclear > 0 {
		kv = append(kv, "not known", fmt.Sprintf("what else %s decided: import the newest of each name first, and look at stella orch dag list", count(r.Unclear, "entry that cannot be read has", "entries that cannot be read have")))
	}
	return kv
}

// lostOf says what is lost with a snapshot.
func lostOf(known, lost int64) string {
	switch {
	case known == 0:
		return "not known: nothing says how far the ledger had come"
	case lost > 0:
		return fmt.Sprintf("%d of %d entries that are known", lost, known)
	}
	return "none that is known"
}

func newCompactCmd(a *app) *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use:   "compact",
		Short: "Rewrite ledger.db without its free pages",
		Long: "Copy ledger.db into a file without free pages, check that, and put it in its place. No entry\n" +
			"is touched. Nobody may hold the site meanwhile; cut off at any moment, the site is as it was\n" +
			"or compacted.",
		Example: "  stella daemon stop && stella maintenance compact && stella daemon start",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runCompact(c.Context(), a, dry) },
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "only say how large it is, and how much of it is free")
	return c
}

func runCompact(ctx context.Context, a *app, dry bool) error {
	if err := a.needHome(); err != nil {
		return err
	}
	if a.opt.apiURL != "" {
		return notByAPI("compact")
	}
	if err := a.needOwner(); err != nil {
		return err
	}
	opt := engine.Options{Home: a.opt.home, Version: version, Log: a.log(false), Now: a.now}
	res, err := engine.Compact(ctx, opt, server.LocalPrincipal(os.Getuid()), dry)
	if err != nil {
		return err
	}
	return a.acted(dry, res, func(s *screen) {
		if dry {
			s.fields("size", size(res.Before), "free", size(res.Free))
			return
		}
		s.fields(append([]string{"before", size(res.Before), "after", size(res.After)}, stillOnDisk(res.Waits)...)...)
	})
}
