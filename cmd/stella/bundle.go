package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
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
	var asOf string
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Judge a bundle as an import would, and keep nothing",
		Long: "Judge a bundle under the site's trust, as an import would, and keep nothing. --as-of asks\n" +
			"what the judgement would have been, or will be, at another time. A refusal is exit 5.",
		Example: "  stella bundle verify match-1.2.0.stella\n  stella bundle verify match-1.2.0.stella --as-of 2027-01-01",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runBundleVerify(c.Context(), a, args[0], asOf) },
	}
	c.Flags().StringVar(&asOf, "as-of", "", "`TIME` of the judgement (default: now)")
	return c
}

func runBundleVerify(ctx context.Context, a *app, file, asOf string) error {
	req := api.VerifyRequest{}
	if asOf != "" {
		t, err := parseTime(asOf)
		if err != nil {
			return err
		}
		req.AsOf = stamp.Format(t)
	}
	var err error
	if req.Path, err = absolute(file); err != nil {
		return err
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		v, err := r.VerifyBundle(ctx, req, a.progressOf("verifying"))
		if err != nil {
			return err
		}
		return a.emit(v, func(s *screen) {
			facts := []string{"bundle", v.Publisher + "/" + v.Name + "@" + v.Version, "kind", v.Kind, "decision", v.Decision, "digest", "sha256:" + v.Digest}
			s.fields(append(facts, signerFacts(v)...)...)
		})
	})
}

// signerFacts are who vouched for a bundle, and under which trust.
func signerFacts(v ledger.Verdict) []string {
	var out []string
	for _, x := range v.Signers {
		who := "key " + x.ID
		if x.Flow == "certificate" {
			who = x.SAN + " by " + x.Issuer
		}
		out = append(out, "signed by", who)
	}
	for _, id := range v.Ignored {
		out = append(out, "ignored", "signature of the unknown key "+id)
	}
	for _, x := range v.Softened {
		out = append(out, "softened", x)
	}
	return append(out, "judged at", seconds(v.Now), "policy", "serial "+strconv.FormatInt(v.Trust.PolicySerial, 10))
}

func newBundleListCmd(a *app) *cobra.Command {
	var q api.BundleQuery
	c := &cobra.Command{
		Use:     "list",
		Short:   "List what is admitted",
		Long:    "List the bundles that the site has admitted, by name and version.",
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
		return emitList(a, bundleList{list}, list, []string{"BUNDLE", "KIND", "SEQUENCE", "DIGEST", "SIZE", "DECISION", "ADMITTED"},
			func(b api.Bundle) []string {
				return []string{b.Publisher + "/" + b.Name + "@" + b.Version, b.Kind, strconv.FormatInt(b.Sequence, 10),
					short(b.Digest), size(b.Bytes), b.Decision + removed(b), seconds(b.AdmittedUTC)}
			})
	})
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
		Long: "Show an admitted bundle with its verdict and files. REF is a digest, at least 8 digits of\n" +
			"one, or publisher/name@version. --manifest prints the sealed stella.toml itself.",
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
				"sequence", strconv.FormatInt(b.Sequence, 10), "decision", b.Decision, "admitted", seconds(b.AdmittedUTC),
				"entry", strconv.FormatInt(b.Seq, 10), "container", size(b.Bytes) + ", sha256:" + b.Admission.FileSHA256}
			if b.Removed > 0 {
				facts = append(facts, "contents", fmt.Sprintf("given up, entry %d; importing the bundle again brings them back", b.Removed))
			}
			s.fields(append(facts, signerFacts(b.Admission.Verdict)...)...)
			rows := make([][]string, len(b.Files))
			for i, f := range b.Files {
				rows[i] = []string{f.Mode, strconv.FormatInt(f.Size, 10), short(f.SHA256), f.Path}
			}
			s.printf("\n")
			s.table([]string{"MODE", "SIZE", "SHA256", "PATH"}, rows)
		})
	})
}
