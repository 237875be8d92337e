package main

import (
	"context"
	"errors"
	"io/fs"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
)

// viewOptions are the flags of export view.
type viewOptions struct {
	format, out     string
	logKey, siteKey string
	identity        string
	withheld        int64
}

func newExportViewCmd(a *app) *cobra.Command {
	var opt viewOptions
	c := &cobra.Command{
		Use:   "view FILE|DIR",
		Short: "Write what an archive says as tables or events",
		Long: "Judge an archive, and write what its ledger says to a new folder in a form that other\n" +
			"programs read: csv is tables of entries, runs, steps and attempts, ocsf is a security event\n" +
			"for each entry, a line of JSON each. No site is needed. The same archive gives the same bytes.\n\n" +
			"A view proves nothing: the archive does. One that fails a check, or is by other keys than\n" +
			"--log-key and --site-key, gets no view. In tables a cell that a spreadsheet would take for a\n" +
			"formula begins with a ' more.\n\n" +
			"The exit code is that of `export verify`: a view of an archive that is INCOMPLETE (8) or,\n" +
			"without keys, UNAUTHENTICATED (5) is written all the same.",
		Example: "  stella export view november.tar --format csv --out november --log-key log.pub --site-key site.pub\n" +
			"  stella export view november.tar --format ocsf --out events",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runExportView(c.Context(), a, args[0], opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.format, "format", "", "`FORM`: csv or ocsf (required)")
	f.StringVarP(&opt.out, "out", "o", "", "`FOLDER` to make (required)")
	f.StringVar(&opt.logKey, "log-key", "", "`FILE` with the public key of the ledger, PEM")
	f.StringVar(&opt.siteKey, "site-key", "", "`FILE` with the public key of the site, PEM")
	f.StringVar(&opt.identity, "identity", "", "`FILE` with the age key of an archive that is encrypted")
	f.Int64Var(&opt.withheld, "withheld", 0, "`N` things that you know to be withheld")
	_ = c.MarkFlagRequired("format")
	_ = c.MarkFlagRequired("out")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{export.ViewCSV, export.ViewOCSF}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func runExportView(ctx context.Context, a *app, path string, opt viewOptions) error {
	if opt.format != export.ViewCSV && opt.format != export.ViewOCSF {
		return invalid("--format is csv or ocsf, not %q", opt.format)
	}
	dir, err := absolute(opt.out)
	if err != nil {
		return err
	}
	if err := absent(dir); err != nil { // before the archive is read
		return err
	}
	o := export.VerifyOptions{Withheld: opt.withheld}
	if a.stderr.terminal && !a.opt.quiet {
		o.Progress = func(check string) { a.stderr.showProgress("checking " + check) }
	}
	for _, f := range []struct {
		path string
		to   *[]byte
	}{{opt.logKey, &o.LogKey}, {opt.siteKey, &o.SiteKey}} {
		if f.path == "" {
			continue
		}
		if *f.to, err = fsx.ReadFile(f.path, ledger.MaxNote); err != nil {
			return fileError(f.path, err)
		}
	}
	if o.Identity, err = readIdentity(opt.identity); err != nil {
		return err
	}
	view, rep, err := export.WriteView(ctx, path, opt.format, dir, o)
	if errors.Is(err, export.ErrNoView) {
		return archiveOutcome(path, rep)
	}
	if err != nil {
		return viewError(path, dir, err)
	}
	err = a.acted(false, view, func(s *screen) {
		s.fields("view", view.Path, "of", path, "archive is", string(view.Verdict))
		rows := make([][]string, len(view.Files))
		for i, f := range view.Files {
			rows[i] = []string{f.Path, strconv.FormatInt(f.Records, 10), size(f.Bytes), f.SHA256}
		}
		s.printf("\n")
		s.table([]string{"FILE", "RECORDS", "SIZE", "SHA256"}, rows)
		if view.LeftOut > 0 {
			a.stderr.note("note: %s left out: the archive does not hold all of their data", count(view.LeftOut, "run is", "runs are"))
		}
	})
	if err != nil {
		return err
	}
	err = archiveOutcome(path, rep)
	if o := (*outcome)(nil); errors.As(err, &o) && rep.Verdict == export.Incomplete {
		o.err.Hint = "stella export verify says what is missing; --withheld N if you know what was withheld"
	}
	return err
}

// viewError says of which of the two the error is.
func viewError(path, dir string, err error) error {
	var e *fs.PathError
	if errors.As(err, &e) && e.Path != path {
		return fileError(dir, err)
	}
	return archiveError(path, err)
}
