package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/server/api"
)

// codeNotAll is the code of an import of several files that did not admit all:
// exit 5 if one was refused, else 1.
const codeNotAll api.Code = "NOT_ALL_ADMITTED"

// importOptions are the flags of bundle import.
type importOptions struct {
	req     api.MediaRequest
	receipt string
}

func newBundleImportCmd(a *app) *cobra.Command {
	var opt importOptions
	c := &cobra.Command{
		Use:   "import PATH...",
		Short: "Judge bundles and seal them",
		Long: "Judge bundles under the site's trust, and seal those that it admits: copied, read-only,\n" +
			"with the evidence they were judged by. PATH is a bundle, or a folder or a whole medium, of\n" +
			"which all files named *.stella are taken, folders below it included; links are not followed.\n" +
			"Trust comes first, then plugins and data, then DAGs, each by name and sequence, so that a\n" +
			"delta comes after its base; what nobody known has signed comes last. What comes of each is\n" +
			"said in the order in which they are judged, which is that of --fail-fast too. A bundle is\n" +
			"admitted as a whole or not at all, and one that is refused does not stop the others; it is\n" +
			"recorded, and makes the exit code 5.\n" +
			"Importing again is judging again, and costs no copy: an import that was cut off (a stick pulled\n" +
			"out, a kill) is simply repeated. An import of a folder, or with --carrier or --receipt, is an\n" +
			"entry of its own that names a sealed receipt of every file.",
		Example: "  stella bundle import /media/stick\n" +
			"  stella bundle import /media/stick --carrier 'A. Jones, badge 4711' --receipt stick.json\n" +
			"  stella bundle import match-1.2.0.stella --dry-run",
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runBundleImport(c.Context(), a, args, opt) },
	}
	f := c.Flags()
	f.BoolVar(&opt.req.DryRun, "dry-run", false, "judge all, and keep nothing")
	f.BoolVar(&opt.req.FailFast, "fail-fast", false, "end at the first that is not admitted, in the order of judgement")
	f.StringVar(&opt.req.Carrier, "carrier", "", "`NAME` of who brought the medium, for the receipt")
	f.StringVar(&opt.receipt, "receipt", "", "write the receipt to this `FILE`; its SHA-256 is in the ledger")
	return c
}

func runBundleImport(ctx context.Context, a *app, paths []string, opt importOptions) error {
	for _, path := range paths {
		abs, err := absolute(path)
		if err != nil {
			return err
		}
		opt.req.Paths = append(opt.req.Paths, abs)
	}
	if opt.receipt != "" {
		if opt.req.DryRun {
			return invalid("a dry run keeps nothing, and has no receipt")
		}
		if err := writable(opt.receipt); err != nil {
			return err
		}
		opt.req.Receipt = true
	}
	var rep api.MediaReport
	told := importTeller{a: a, dry: opt.req.DryRun, done: map[string]bool{}}
	err := a.withSite(ctx, func(ctx context.Context, r *reached) error {
		var err error
		rep, err = r.ImportMedia(ctx, opt.req, told.tell)
		return err
	})
	var unwritten error
	if len(rep.Receipt) > 0 && opt.receipt != "" {
		unwritten = writeReceipt(opt.receipt, rep)
	}
	if a.opt.output == outJSON && rep.Imports != nil {
		if jerr := a.stdout.json(rep, true); err == nil {
			err = jerr
		}
	}
	if err == nil {
		err = told.err
	}
	if err == nil {
		a.warn(rep.Warnings)
		told.summary(rep)
		err = notAll(rep)
	}
	if err != nil && unwritten != nil { // one error ends the command; the other is said too
		a.stderr.note("%s", unwritten)
		return err
	}
	return cmp.Or(err, unwritten)
}

// writable tries whether a receipt can be put at a path, before anything is
// admitted.
func writable(path string) error {
	if err := absent(path); err != nil {
		return err
	}
	f, err := fsx.Create(path, fsx.ByUmask(0o666))
	if err == nil {
		err = f.Abort()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return invalid("%s: there is no such folder to write a receipt to", path)
	}
	if err != nil {
		return fileError(path, err)
	}
	return nil
}

// writeReceipt writes a receipt that is sealed already.
func writeReceipt(path string, rep api.MediaReport) error {
	err := fsx.WriteFile(path, rep.Receipt, fsx.ByUmask(0o666))
	if err == nil {
		return nil
	}
	return &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf("the receipt could not be written: %v", err),
		Hint: fmt.Sprintf("the import is done, and its receipt lies in sealed/ under its digest %s: copy it from there", rep.ReceiptSHA256)}
}

// notAll is the error of an import that did not admit everything.
func notAll(rep api.MediaReport) error {
	if rep.Refused+rep.Failed == 0 {
		return nil
	}
	if len(rep.Imports) == 1 {
		return rep.Imports[0].Error
	}
	exit := exitFailed
	if rep.Refused > 0 {
		exit = exitRefused
	}
	var what []string
	if rep.Refused > 0 {
		what = append(what, count(rep.Refused, "was refused", "were refused"))
	}
	if rep.Failed > 0 {
		what = append(what, strconv.Itoa(rep.Failed)+" could not be taken in")
	}
	return &outcome{exit, api.Error{Code: codeNotAll, Message: fmt.Sprintf("of %d bundles %s", len(rep.Imports), strings.Join(what, " and "))}}
}

// importTeller says what comes of each file, as soon as it is known. When the
// site changes hands and the import begins anew, nothing is said twice.
type importTeller struct {
	a    *app
	dry  bool
	mu   sync.Mutex // guards what follows
	done map[string]bool
	last time.Time
	err  error
}

func (t *importTeller) tell(e api.MediaEvent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Item == nil {
		t.progress(e)
		return
	}
	key := e.Path + " " + e.Item.SHA256 // two names may be spelt alike
	if t.done[key] || t.err != nil {
		return
	}
	t.done[key] = true
	t.err = t.item(*e.Item, e.Files)
}

func (t *importTeller) progress(e api.MediaEvent) {
	s := t.a.stderr
	now := t.a.now()
	if !s.terminal || s.quiet || now.Sub(t.last) < progressEvery {
		return
	}
	t.last = now
	s.showProgress(progressLine(e))
}

// progressLine says how far an import is. Of a file that was not opened yet the
// size is not known.
func progressLine(e api.MediaEvent) string {
	line := fmt.Sprintf("importing %d of %d", e.File, e.Files)
	if e.Total > 0 {
		line += fmt.Sprintf(": %3d%% of %s", e.Done*100/e.Total, size(e.Total))
	}
	return line
}

func (t *importTeller) item(item api.ImportItem, files int) error {
	a := t.a
	switch {
	case a.opt.output == outJSON:
		return nil
	case a.opt.output == outNDJSON:
		return a.stdout.json(item, false)
	case item.ImportResult != nil:
		return a.imported(t.dry, *item.ImportResult)
	case files > 1 && item.Error != nil: // of one file the command's own error says it
		a.stderr.printf("%s  %s: %s\n", item.Outcome, item.Path, named(item.Error))
		if item.Error.Hint != "" && !a.opt.quiet {
			a.stderr.printf("    hint: %s\n", item.Error.Hint)
		}
	}
	return a.stderr.err
}

// summary says what an import of several files came to.
func (t *importTeller) summary(rep api.MediaReport) {
	const listed = 10
	a := t.a
	if a.opt.output != outTable {
		return
	}
	for i, s := range rep.Skipped {
		if i == listed {
			a.stderr.note("and %d more were skipped; --output json lists them", len(rep.Skipped)-listed)
			break
		}
		a.stderr.note("skipped %s: %s", s.Path, s.Why)
	}
	if len(rep.Imports) > 1 {
		dry := ""
		if rep.DryRun {
			dry = "; this was a dry run, nothing was kept"
		}
		a.stderr.note("%d admitted, %d again, %d refused, %d failed%s", rep.Admitted, rep.Again, rep.Refused, rep.Failed, dry)
	}
	if rep.Seq > 0 {
		a.stderr.note("entry %d, receipt sha256:%s", rep.Seq, rep.ReceiptSHA256)
	}
}

// imported says what became of one file, as soon as it is known.
func (a *app) imported(dry bool, res api.ImportResult) error {
	v := res.Verdict
	again := ""
	if res.Already {
		again = " again"
	}
	if a.silent(dry) {
		return nil
	}
	a.stdout.printf("%s%s  %s  %s/%s@%s  sha256:%s\n", v.Decision, again, v.Kind, v.Publisher, v.Name, v.Version, short(v.Digest))
	return a.stdout.err
}
