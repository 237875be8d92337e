package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

func newExportCmd(a *app) *cobra.Command {
	return group("export", "Archives of evidence",
		"Write the archive of a window of time; and judge archives and look into them, which needs no site.",
		newExportCreateCmd(a), newExportVerifyCmd(a), newExportShowCmd(a), newExportViewCmd(a))
}

// exportOptions are the flags of export create.
type exportOptions struct {
	from, to, out string
	force         bool
}

func newExportCreateCmd(a *app) *cobra.Command {
	var opt exportOptions
	c := &cobra.Command{
		Use:   "create",
		Short: "Write the archive of a window",
		Long: "Write the archive of a half-open window of recorded time: ledger, runs, the sealed files\n" +
			"they rely on, logs, metrics and traces, hashed and signed. Without --from it begins with\n" +
			"the first entry, without --to it ends with the newest instant that is closed. The same\n" +
			"closed window gives the same bytes.",
		Example: "  stella export create --out november.tar --from 2026-11-01 --to 2026-12-01",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runExportCreate(c.Context(), a, opt) },
	}
	f := c.Flags()
	f.StringVarP(&opt.out, "out", "o", "", "`FILE` to write (required)")
	f.StringVar(&opt.from, "from", "", "`TIME` at which the window begins, included")
	f.StringVar(&opt.to, "to", "", "`TIME` at which it ends, excluded")
	f.BoolVar(&opt.force, "force", false, "replace the file")
	_ = c.MarkFlagRequired("out")
	return c
}

func runExportCreate(ctx context.Context, a *app, opt exportOptions) error {
	req := api.ExportRequest{Force: opt.force}
	for _, t := range []struct {
		flag string
		to   *string
	}{{opt.from, &req.From}, {opt.to, &req.To}} {
		if t.flag == "" {
			continue
		}
		at, err := parseTime(t.flag)
		if err != nil {
			return err
		}
		*t.to = stamp.Format(at)
	}
	var err error
	if req.Path, err = absolute(opt.out); err != nil {
		return err
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		res, err := r.CreateExport(ctx, req, a.progressOf("exporting"))
		if err != nil {
			return err
		}
		return a.acted(false, res, func(s *screen) {
			s.fields("archive", res.Path, "window", res.From+" to "+res.To,
				"entries", fmt.Sprintf("%d from %d, of a tree of %d", res.Count, res.FirstSeq, res.TreeSize),
				"root", res.Root, "sha256", res.SHA256, "size", size(res.Bytes), "withheld", strconv.FormatInt(res.Withheld, 10))
		})
	})
}

// verifyOptions are the flags of export verify.
type verifyOptions struct {
	logKey, siteKey, previous, consistency string
	cosigned, cosignedProof                string
	witnesses                              []string
	min                                    int
	siteID                                 string
	withheld                               int64
}

func newExportVerifyCmd(a *app) *cobra.Command {
	var opt verifyOptions
	c := &cobra.Command{
		Use:   "verify FILE|DIR",
		Short: "Judge an archive",
		Long: "Judge an archive, or the folder that it was unpacked to, without a site. Keys come from\n" +
			"outside: --log-key and --site-key are the log.pub and site.pub that the site handed over\n" +
			"earlier. Without them, or with another site's, the archive is at best consistent, never\n" +
			"authenticated.\n\n" +
			"A site that holds its own keys can keep two ledgers, and show each auditor another. --previous\n" +
			"tells whether this one goes on from what you saw before, --witness whether others saw the\n" +
			"same: --cosigned is a note that `ledger cosign` has signed, of a tree that holds the window.\n\n" +
			"Exit 0 VERIFIED, 8 INCOMPLETE, 5 UNAUTHENTICATED, 7 FAILED.",
		Example: "  stella export verify november.tar --log-key log.pub --site-key site.pub --previous october.note\n" +
			"  stella export verify november.tar --log-key log.pub --site-key site.pub \\\n" +
			"    --cosigned november.note --witness audit.key.pub --min 1",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runExportVerify(c.Context(), a, args[0], opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.logKey, "log-key", "", "`FILE` with the public key of the ledger, PEM")
	f.StringVar(&opt.siteKey, "site-key", "", "`FILE` with the public key of the site, PEM")
	f.StringVar(&opt.siteID, "site-id", "", "`ID` of the site that it must be of (default: the one it names)")
	f.StringVar(&opt.previous, "previous", "", "`FILE` with a signed note that you hold of an earlier tree")
	f.StringVar(&opt.consistency, "consistency", "", "`FILE` with a proof from that tree, as \"ledger prove --consistency\" writes it")
	f.StringVar(&opt.cosigned, "cosigned", "", "`FILE` with a note of a tree that holds the window, which witnesses have signed")
	f.StringVar(&opt.cosignedProof, "cosigned-consistency", "", "`FILE` with a proof between that tree and the archive's, as \"ledger prove --consistency\" writes it")
	f.StringArrayVar(&opt.witnesses, "witness", nil, "`FILE` with the public key of a witness, or the key itself; may be given again")
	f.IntVar(&opt.min, "min", 0, "`N` of these witnesses must have signed")
	f.Int64Var(&opt.withheld, "withheld", 0, "`N` things that you know to be withheld")
	return c
}

func runExportVerify(ctx context.Context, a *app, path string, opt verifyOptions) error {
	o := export.VerifyOptions{SiteID: opt.siteID, Withheld: opt.withheld, MinWitnesses: opt.min}
	if a.stderr.terminal && !a.opt.quiet {
		o.Progress = func(check string) { a.stderr.showProgress("checking " + check) }
	}
	for _, f := range []struct {
		path string
		to   *[]byte
	}{{opt.logKey, &o.LogKey}, {opt.siteKey, &o.SiteKey}, {opt.previous, &o.Previous}, {opt.cosigned, &o.Cosigned}} {
		if f.path == "" {
			continue
		}
		raw, err := fsx.ReadFile(f.path, ledger.MaxNote)
		if err != nil {
			return fileError(f.path, err)
		}
		*f.to = raw
	}
	for _, f := range []struct {
		path string
		to   *[]ledger.Hash
	}{{opt.consistency, &o.Consistency}, {opt.cosignedProof, &o.CosignedConsistency}} {
		if f.path == "" {
			continue
		}
		var err error
		if *f.to, err = readConsistency(f.path); err != nil {
			return err
		}
	}
	for _, arg := range opt.witnesses {
		w, err := readWitness(arg)
		if err != nil {
			return err
		}
		o.Witnesses = append(o.Witnesses, w)
	}
	rep, err := export.Verify(ctx, path, o)
	if err != nil {
		return fileError(path, err)
	}
	if err := a.emit(rep, func(s *screen) { renderReport(s, rep) }); err != nil {
		return err
	}
	return archiveOutcome(path, rep)
}

// readConsistency reads the hashes of a proof that ledger prove wrote.
func readConsistency(path string) ([]ledger.Hash, error) {
	raw, err := fsx.ReadFile(path, ledger.MaxNote+64<<10)
	if err != nil {
		return nil, fileError(path, err)
	}
	_, proof, err := parseConsistency(path, raw)
	return proof, err
}

func parseConsistency(path string, raw []byte) (p api.ConsistencyProof, proof []ledger.Hash, err error) {
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, nil, invalid("%s: %v", path, err)
	}
	proof = make([]ledger.Hash, len(p.Proof))
	for i, s := range p.Proof {
		if proof[i], err = ledger.ParseHash(s); err != nil {
			return p, nil, invalid("%s: %v", path, err)
		}
	}
	return p, proof, nil
}

// archiveOutcome makes a verdict the outcome of the command.
func archiveOutcome(path string, rep *export.Report) error {
	e := api.Error{Code: codeArchive, Message: path + " is " + string(rep.Verdict)}
	for _, c := range rep.Checks {
		if c.Status == export.Bad {
			e.Faults = append(e.Faults, c.Name+": "+c.Detail)
		}
	}
	switch rep.Verdict {
	case export.Verified:
		return nil
	case export.Incomplete:
		e.Hint = "see the checks that were skipped; --withheld N if you know what was withheld"
		return &outcome{exit: exitIncomplete, err: e}
	case export.Unauthenticated:
		e.Hint = "give the keys that you hold of the site: --log-key and --site-key"
		if len(e.Faults) > 0 {
			e.Hint = "it is another site's than the one whose keys you gave, or the keys are mistaken"
		}
		return &outcome{exit: exitRefused, err: e}
	}
	return &outcome{exit: exitDamaged, err: e}
}

func renderReport(s *screen, rep *export.Report) {
	witnessed := "UNWITNESSED"
	if rep.Witnessed > 0 {
		witnessed = fmt.Sprintf("WITNESSED %d", rep.Witnessed)
	}
	s.fields(append([]string{"verdict", string(rep.Verdict), "witnesses", witnessed}, summaryFacts(rep.Summary)...)...)
	rows := make([][]string, len(rep.Checks))
	for i, c := range rep.Checks {
		note := c.Proves
		if c.Status != export.OK {
			note = c.Detail
		}
		if c.File != "" && c.Line > 0 {
			note += fmt.Sprintf(" (%s:%d)", c.File, c.Line)
		} else if c.File != "" {
			note += " (" + c.File + ")"
		}
		rows[i] = []string{c.Name, string(c.Status), note}
	}
	s.printf("\n")
	s.table([]string{"CHECK", "RESULT", "WHAT IT PROVES"}, rows)
}

// summaryFacts are what an archive says of itself; none if it says nothing.
func summaryFacts(sum *export.Summary) []string {
	if sum == nil {
		return nil
	}
	out := []string{"origin", sum.Origin, "window", sum.Window.From + " to " + sum.Window.To,
		"entries", fmt.Sprintf("%d from %d, of a tree of %d", sum.Ledger.Count, sum.Ledger.FirstSeq, sum.Ledger.TreeSize),
		"root", sum.Ledger.Root, "stella", sum.Stella, "size", size(sum.Bytes) + " in " + count(sum.Files, "file", "files")}
	if len(sum.Withheld) > 0 {
		out = append(out, "withheld", strconv.Itoa(len(sum.Withheld)))
	}
	return out
}

func newExportShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE|DIR",
		Short: "Say what an archive says of itself",
		Long: "Say what an archive says of itself. Nothing of it is checked but its form, so all of it may\n" +
			"be lies: `stella export verify` judges it.",
		Example: "  stella export show november.tar",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return runExportShow(a, args[0]) },
	}
}

func runExportShow(a *app, path string) error {
	sum, err := export.Show(path)
	if err != nil {
		return fileError(path, err)
	}
	return a.emit(sum, func(s *screen) {
		s.fields(summaryFacts(sum)...)
		rows := [][]string{}
		for _, p := range slices.Sorted(maps.Keys(sum.Records)) {
			rows = append(rows, []string{strconv.FormatInt(sum.Records[p], 10), p})
		}
		s.printf("\n")
		s.table([]string{"RECORDS", "FILE"}, rows)
		a.stderr.note("note: this is what the archive says; stella export verify judges it")
	})
}
