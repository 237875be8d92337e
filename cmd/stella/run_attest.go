package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

// attestOptions are the flags of run attest.
type attestOptions struct {
	run, out string
	req      api.AttestRequest
}

func newRunAttestCmd(a *app) *cobra.Command {
	var opt attestOptions
	c := &cobra.Command{
		Use:   "attest RUN",
		Short: "Sign what a completed run was made of and what became of it",
		Long: "Write an in-toto statement about a completed run, with SLSA provenance v1 and signed by the\n" +
			"site's key: a Sigstore bundle that cosign and `stella verify` take. It is about the run's\n" +
			"artifacts, as STEP/NAME, and its outputs; with --artifact about these files alone. It names\n" +
			"the DAG, the plugins and data by digest and verdict, inputs and outputs by hash only, and\n" +
			"what was skipped, given by hand, taken from the cache or admitted under audit.\n\n" +
			"The same run gives the same bytes, to stdout without --out. That the statement was made is\n" +
			"an entry of the ledger. A run that is not completed is refused.",
		Example: "  stella orch run attest 01935b1e-… --out run.sigstore.json\n" +
			"  stella orch run attest 01935b1e-… --artifact report.html --out report.html.sigstore.json\n" +
			"  stella verify report.html --bundle report.html.sigstore.json --key site.pub --no-log \\\n" +
			"    --predicate-type https://slsa.dev/provenance/v1",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			opt.run = args[0]
			return runRunAttest(c.Context(), a, opt)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&opt.req.Artifacts, "artifact", nil, "state something about this artifact `NAME` only, or STEP/NAME; may be given again")
	f.StringVarP(&opt.out, "out", "o", "", "`FILE` to write (default stdout)")
	return c
}

func runRunAttest(ctx context.Context, a *app, opt attestOptions) error {
	path := ""
	if opt.out != "" && opt.out != "-" {
		var err error
		if path, err = absolute(opt.out); err != nil {
			return err
		}
		if err := absent(path); err != nil { // before it is signed and recorded
			return err
		}
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		res, err := r.AttestRun(ctx, opt.run, opt.req)
		if err != nil {
			return err
		}
		if path == "" {
			if a.opt.output != outTable {
				return a.emit(res, nil)
			}
			return a.deliver("", res.Bundle)
		}
		if err := a.deliver(path, res.Bundle); err != nil {
			return err
		}
		res.Path, res.Bundle = path, nil
		return a.acted(false, res, func(s *screen) {
			s.fields("attested", res.Path, "run", res.RunID, "states", res.PredicateType, "sha256", res.SHA256)
			rows := make([][]string, len(res.Subjects))
			for i, x := range res.Subjects {
				rows[i] = []string{x.Name, x.SHA256}
			}
			s.printf("\n")
			s.table([]string{"SUBJECT", "SHA256"}, rows)
			if !res.New {
				a.stderr.note("note: the same statement is on record already; see stella ledger tail --run %s --type run.attested", res.RunID)
			}
		})
	})
}
