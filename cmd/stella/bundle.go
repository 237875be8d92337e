package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newBundleCmd(a *app) *cobra.Command {
	return group("bundle", "Signed containers of plugins, DAGs and data",
		"Make, sign and look at bundles, which needs no site; import them into a site, and list\n"+
			"what it has admitted.",
		newBundleNewCmd(a), newBundlePackCmd(a), newBundleKeygenCmd(a), newBundleSignCmd(a), newBundleInspectCmd(a),
		newBundleVerifyCmd(a), newBundleImportCmd(a), newBundleListCmd(a), newBundleShowCmd(a),
		newBundleAuditCmd(a), newBundleGCCmd(a))
}

func newBundleVerifyCmd(a *app) *cobra.Command {
	var opt judgeOptions
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Judge a bundle as an import would, and keep nothing",
		Long: "Judge a bundle under the site's trust, as an import would, and keep nothing. --as-of asks\n" +
			"what the judgement would have been, or will be, at another time. A refusal is exit 5; with\n" +
			"--output json it says who signed, and what each check found.\n\n" +
			"--trust judges by the trust files in a folder, and needs no site: a publisher or a fleet\n" +
			"can try a bundle before it travels. A site that has admitted nothing yet would judge the\n" +
			"same; what one has admitted (the floors) is not known. --site-id names the site that the\n" +
			"bundle must be for; without it a bundle for the fleet passes, one for a site does not.",
		Example: "  stella bundle verify match-1.2.0.stella\n" +
			"  stella bundle verify match-1.2.0.stella --as-of 2027-01-01\n" +
			"  stella bundle verify match-1.2.0.stella --trust fleet/trust --output json",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runBundleVerify(c.Context(), a, args[0], opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.asOf, "as-of", "", "`TIME` of the judgement (default: now)")
	f.StringVar(&opt.trust, "trust", "", "`DIR` with trust files, laid out like trust/ of a site; no site is then needed")
	f.StringVar(&opt.siteID, "site-id", "", "`ID` of the site that judges, with --trust")
	return c
}

func newBundleListCmd(a *app) *cobra.Command {
	var q api.BundleQuery
	c := &cobra.Command{
		Use:   "list",
		Short: "List what is admitted",
		Long: "List the bundles that the site has admitted, by name and version. ADMITTED is when a bundle\n" +
			"came, however often it was imported since. NOW is ok where the trust in force still admits\n" +
			"it, else the reason for which nothing starts with it: a key that was revoked, a date that\n" +
			"has passed.",
		Example: "  stella bundle list --kind plugin",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runBundleList(c.Context(), a, q) },
	}
	f := c.Flags()
	f.StringVar(&q.Kind, "kind", "", "only this `KIND`")
	f.StringVar(&q.Publisher, "publisher", "", "only of this `PUBLISHER`")
	f.StringVar(&q.Name, "name", "", "only with this `NAME`")
	return c
}

func runBundleList(ctx context.Context, a *app, q api.BundleQuery) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		list, err := r.ListBundles(ctx, q)
		if err != nil {
			return err
		}
		return emitList(a, bundleList{list}, list, []string{"BUNDLE", "KIND", "SEQUENCE", "DIGEST", "SIZE", "DECISION", "NOW", "ADMITTED"},
			func(b api.Bundle) []string {
				return []string{b.Publisher + "/" + b.Name + "@" + b.Version, b.Kind, strconv.FormatInt(b.Sequence, 10),
					short(b.Digest), size(b.Bytes), b.Decision + removed(b), b.Now, seconds(b.AdmittedUTC)}
			})
	})
}

// entryAt is an entry of the ledger and its time.
func entryAt(utc string, seq int64) string { return fmt.Sprintf("%s, entry %d", seconds(utc), seq) }

// judgedLast is the last judgement of a bundle that was imported again.
func judgedLast(b api.BundleDetail) string {
	if b.Seq == b.FirstSeq {
		return ""
	}
	return entryAt(b.JudgedUTC, b.Seq)
}

// removed marks a bundle whose contents were given up.
func removed(b api.Bundle) string {
	if b.Removed == 0 {
		return ""
	}
	return ", given up"
}

func newBundleShowCmd(a *app) *cobra.Command {
	var manifest bool
	c := &cobra.Command{
		Use:   "show REF",
		Short: "Show an admitted bundle",
		Long: "Show an admitted bundle: the verdict of its last import, its files, and what the trust in\n" +
			"force says of it now, check by check. REF is a digest, at least 8 digits of one, or\n" +
			"publisher/name@version. --manifest prints the sealed stella.toml itself.",
		Example: "  stella bundle show acme/match@1.2.0",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runBundleShow(c.Context(), a, args[0], manifest) },
	}
	c.Flags().BoolVar(&manifest, "manifest", false, "print the exact stella.toml")
	return c
}

func runBundleShow(ctx context.Context, a *app, ref string, manifest bool) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		b, err := r.ShowBundle(ctx, ref)
		if err != nil {
			return err
		}
		if manifest {
			a.stdout.exact([]byte(b.Manifest))
			return a.stdout.err
		}
		return a.emit(b, func(s *screen) {
			facts := []string{"bundle", b.Publisher + "/" + b.Name + "@" + b.Version, "kind", b.Kind, "digest", "sha256:" + b.Digest,
				"sequence", strconv.FormatInt(b.Sequence, 10), "decision", b.Decision,
				"admitted", entryAt(b.AdmittedUTC, b.FirstSeq), "judged last", judgedLast(b), "container", size(b.Bytes) + ", sha256:" + b.Admission.FileSHA256}
			if b.Removed > 0 {
				facts = append(facts, "contents", fmt.Sprintf("given up, entry %d; importing the bundle again brings them back", b.Removed))
			}
			s.fields(append(facts, verdictFacts(b.Admission.Verdict)...)...)
			s.printf("\nNow: %s\n\n", b.Now)
			if b.Report != nil {
				renderJudgement(s, b.Report)
			}
			rows := make([][]string, len(b.Files))
			for i, f := range b.Files {
				rows[i] = []string{f.Mode, strconv.FormatInt(f.Size, 10), short(f.SHA256), f.Path}
			}
			s.printf("\n")
			s.table([]string{"MODE", "SIZE", "SHA256", "PATH"}, rows)
		})
	})
}
