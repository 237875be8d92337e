package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

func newInitCmd(a *app) *cobra.Command {
	var opt engine.InitOptions
	c := &cobra.Command{
		Use:   "init",
		Short: "Make a site",
		Long: "Make a site in the home folder: its keys, its trust, and a ledger whose first entry\n" +
			"binds them. The folder must be empty or not there yet.\n\n" +
			"Without --root the site is its own root of trust: the key lies in keys/root.key, and\n" +
			"`stella trust add` signs with it. With --root it joins a fleet: the folder of the file\n" +
			"also holds root.toml.signatures/, policy.toml and policy.toml.signatures/.",
		Example: "  stella init\n" +
			"  stella init --home /srv/stella --root /media/fleet/root.toml --expect-root sha256:5f2c…",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runInit(a, opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.RootFile, "root", "", "`FILE` that is the root.toml of a fleet")
	f.StringVar(&opt.ExpectRoot, "expect-root", "", "`DIGEST` of that file, sha256:HEX, learned by another way")
	f.BoolVar(&opt.AllowPlain, "allow-plain", false, "allow attempts without fences; each records that it had none")
	c.MarkFlagsRequiredTogether("root", "expect-root")
	return c
}

func runInit(a *app, opt engine.InitOptions) error {
	if err := a.needHome(); err != nil {
		return err
	}
	opt.Actor, opt.Now = server.LocalPrincipal(os.Getuid()), a.now
	res, err := engine.Init(a.opt.home, opt)
	if err != nil {
		return err
	}
	if err := a.acted(false, res, func(s *screen) {
		s.fields("site", res.SiteID, "fleet", res.FleetID, "home", res.Home, "root", "sha256:"+res.Root)
	}); err != nil {
		return err
	}
	a.warn(res.Warnings)
	a.stderr.note("note: name a path on another disk in checkpoint_copies of site.toml: a home that is put back from an")
	a.stderr.note("note: old backup can then be told from the newest one")
	if res.RootKey != "" {
		a.stderr.note("note: %s signs this site's trust: move it to a medium that stays elsewhere,", res.RootKey)
		a.stderr.note("note: and give it with --root-key to the commands of `stella trust`")
	}
	return nil
}

func newStatusCmd(a *app) *cobra.Command {
	var verbose bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Say what the site is doing",
		Long: "Say who holds the site, what runs, and how much the ledger and the store hold. It asks\n" +
			"the process that holds the site, or opens the site where there is none.",
		Example: "  stella status\n  stella status --output json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runStatus(c.Context(), a, verbose) },
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "with identities and digests")
	return c
}

func runStatus(ctx context.Context, a *app, verbose bool) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		st, err := r.Status(ctx)
		if err != nil {
			return err
		}
		if pid := a.waits(); r.held != nil && pid != 0 {
			full := waitsForRoom(pid)
			if st.Refuses != nil { // it names what may go
				full.Hint = st.Refuses.Hint
			}
			st.Refuses = &full
		}
		a.warn(st.Warnings)
		return a.emit(st, func(s *screen) {
			holder := "nobody"
			if r.held == nil {
				holder = fmt.Sprintf("%s, pid %d, since %s", st.Mode, st.PID, seconds(st.StartedUTC))
			}
			s.fields(slices.Concat([]string{"held by", holder}, refusalFacts(st.Refuses), statusFacts(st, verbose))...)
		})
	})
}

// refusalFacts say that nothing is accepted, why, and what to do.
func refusalFacts(e *api.Error) []string {
	if e == nil {
		return nil
	}
	return []string{"accepts", "nothing: " + named(e), "to do", e.Hint}
}

// roomText is the room on a disk for people, "" where an older stella does not say.
func roomText(d api.Disk) string {
	if d == (api.Disk{}) {
		return ""
	}
	text := fmt.Sprintf("%s free, %s of it kept for the ledger", size(d.Free), size(d.Reserved))
	if d.Free < d.Reserved {
		text = fmt.Sprintf("%s free, less than the %s that are kept for the ledger: nothing is imported", size(d.Free), size(d.Reserved))
	}
	return text
}

func statusFacts(st api.SiteStatus, verbose bool) []string {
	plain := "no"
	if st.AllowPlain {
		plain = "yes"
	}
	out := []string{
		"runs", fmt.Sprintf("%d active, %s queued, %s executing", st.ActiveRuns, count(st.Queued, "step", "steps"), count(st.Executing, "attempt", "attempts")),
		"ledger", fmt.Sprintf("%d entries, checkpoint at %d", st.Entries, st.Checkpoint),
		"bundles", strconv.Itoa(st.Bundles), "dags", strconv.Itoa(st.DAGs), "store", size(st.StoreBytes), "disk", roomText(st.Disk),
		"fences", st.Tier, "plain allowed", plain,
	}
	if !verbose {
		return out
	}
	return append(out,
		"site", st.SiteID, "fleet", st.FleetID, "epoch", strconv.FormatInt(st.Epoch, 10), "home", st.Home,
		"stella", st.Version, "workers", strconv.Itoa(st.Workers),
		"root", fmt.Sprintf("version %d, sha256:%s", st.Trust.RootVersion, st.Trust.Root),
		"policy", fmt.Sprintf("serial %d, sha256:%s", st.Trust.PolicySerial, st.Trust.Policy),
	)
}

// size is a number of bytes for people.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < 3 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %s", v, []string{"KiB", "MiB", "GiB", "TiB"}[unit])
}
