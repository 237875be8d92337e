package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

func newLedgerCmd(a *app) *cobra.Command {
	return group("ledger", "The append-only record",
		"Read the ledger, check it, sign its head, and prove what it holds.",
		newLedgerTailCmd(a), newLedgerShowCmd(a), newLedgerVerifyCmd(a), newLedgerCheckpointCmd(a), newLedgerProveCmd(a), newLedgerCheckProofCmd(a),
		newLedgerEraseCmd(a), newLedgerCosignCmd(a), newLedgerKeygenCmd(a))
}

func entryHeader() []string { return []string{"SEQ", "TIME", "TYPE", "ACTOR", "SUBJECT"} }

// entryRow shows an entry. What its envelope does not say is left empty.
func entryRow(l api.LedgerLine) []string {
	var e ledger.Envelope
	if err := json.Unmarshal(l.Envelope, &e); err != nil {
		return []string{strconv.FormatInt(l.Seq, 10), "", "cannot be read", "", ""}
	}
	subject := e.RunID
	if e.StepID != "" {
		subject += " " + e.StepID
	}
	if e.Attempt > 0 {
		subject += fmt.Sprintf("#%d", e.Attempt)
	}
	if e.Type == ledger.LockReclaimed || e.Type == ledger.LockForced {
		subject = lockLost(l, subject)
	}
	if subject == "" && e.DAGID != "" {
		subject = e.DAGID + " " + e.DAGVersion
	}
	return []string{strconv.FormatInt(l.Seq, 10), seconds(e.Time), string(e.Type), e.Actor, subject}
}

// lockLost says which lock an entry is about, and from whom it was taken.
func lockLost(l api.LedgerLine, from string) string {
	var line struct{ Data ledger.LockLoss }
	if json.Unmarshal(l.Data, &line) != nil || line.Data.Name == "" { // its data may be erased
		return from
	}
	if from == "" {
		from = line.Data.RunID + " " + line.Data.StepID
	}
	return line.Data.Kind + " " + line.Data.Name + ", from " + from
}

// tailOptions are the flags of ledger tail.
type tailOptions struct {
	q      api.LedgerQuery
	follow bool
}

func newLedgerTailCmd(a *app) *cobra.Command {
	opt := tailOptions{q: api.LedgerQuery{From: -1}}
	c := &cobra.Command{
		Use:   "tail",
		Short: "Show the newest entries",
		Long: "Show the newest entries, or those from --from on. With --follow it goes on until it is\n" +
			"interrupted. NDJSON has the two exact lines of each entry.",
		Example: "  stella ledger tail -f\n  stella ledger tail --from 0 --limit 1000 --output ndjson",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runLedgerTail(c.Context(), a, opt) },
	}
	f := c.Flags()
	f.BoolVarP(&opt.follow, "follow", "f", false, "go on with what is added")
	f.Int64Var(&opt.q.From, "from", -1, "`SEQ` of the first entry to show (default: the newest ones)")
	f.IntVar(&opt.q.Limit, "limit", 0, "`N` entries to show, at most 1000 (default 20)")
	f.StringVar(&opt.q.Type, "type", "", "only entries of this `TYPE`")
	f.StringVar(&opt.q.RunID, "run", "", "only entries of this `RUN`")
	_ = c.RegisterFlagCompletionFunc("type", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var types []string
		for _, info := range ledger.Types() {
			types = append(types, string(info.Type)+"\t"+info.Doc)
		}
		return types, cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

// followPause is between two looks at the ledger. Between them the site is not
// held, so that others may have it.
const followPause = 500 * time.Millisecond

func runLedgerTail(ctx context.Context, a *app, opt tailOptions) error {
	if opt.follow && a.opt.output == outJSON {
		return invalid("--follow has no end, so it cannot be one JSON value: use --output ndjson")
	}
	q := opt.q
	if q.Last = q.From < 0; q.Last {
		q.From = 0
	}
	for first := true; ; first = false {
		var lines []api.LedgerLine
		err := a.withSite(ctx, func(ctx context.Context, r *reached) (err error) {
			lines, err = r.TailLedger(ctx, q)
			return err
		})
		if err != nil {
			return err
		}
		if err := renderEntries(a, lines, first); err != nil || !opt.follow {
			return err
		}
		q.Last, q.Limit = false, 1000
		if n := len(lines); n > 0 {
			q.From = lines[n-1].Seq + 1
		}
		select {
		case <-time.After(followPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func renderEntries(a *app, lines []api.LedgerLine, first bool) error {
	if a.opt.output != outTable || first {
		return emitList(a, entryList{lines}, lines, entryHeader(), entryRow)
	}
	for _, l := range lines {
		c := entryRow(l)
		a.stdout.printf("%s  %s  %s  %s  %s\n", c[0], c[1], c[2], c[3], c[4])
	}
	return a.stdout.err
}

func newLedgerShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show SEQ",
		Short:   "Show one entry",
		Long:    "Show both lines of an entry: the envelope, which the tree holds, and its data.",
		Example: "  stella ledger show 0",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runLedgerShow(c.Context(), a, args[0]) },
	}
}

func parseSeq(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, invalid("%q is not the number of an entry", s)
	}
	return n, nil
}

func runLedgerShow(ctx context.Context, a *app, arg string) error {
	seq, err := parseSeq(arg)
	if err != nil {
		return err
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		l, err := r.ShowLedger(ctx, seq)
		if err != nil {
			return err
		}
		return a.emit(l, func(s *screen) {
			s.printf("envelope  %s\n", string(l.Envelope))
			if len(l.Data) == 0 {
				s.printf("data      erased\n")
				return
			}
			s.printf("data      %s\n", string(l.Data))
		})
	})
}

func newLedgerVerifyCmd(a *app) *cobra.Command {
	var req api.LedgerCheck
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check the whole ledger",
		Long: "Check that ledger.db holds what was written: hash every line and the tree, hold all\n" +
			"checkpoints against it, and every record of runs, bundles and the like against the sum of\n" +
			"them. It changes nothing. Damage is exit 7. A million entries take seconds.\n\n" +
			"--full also makes every record anew from the entries, and hashes every sealed file that\n" +
			"they name: contents of bundles, evidence, artifacts, logs, and opens all secrets.",
		Example: "  stella ledger verify\n  stella ledger verify --full",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runLedgerVerify(c.Context(), a, req) },
	}
	c.Flags().BoolVar(&req.Full, "full", false, "also that records are what the entries say, and everything sealed")
	return c
}

func runLedgerVerify(ctx context.Context, a *app, req api.LedgerCheck) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		rep, err := r.VerifyLedger(ctx, req, a.progressOf("checking"))
		if err != nil {
			return err
		}
		return a.emit(rep, func(s *screen) {
			blobs := strconv.Itoa(rep.Blobs)
			if !rep.Full {
				blobs = "not looked at: --full"
			}
			s.fields("ledger", "ok", "origin", rep.Origin, "entries", strconv.FormatInt(rep.Size, 10), "root", rep.Root,
				"checkpoints", strconv.Itoa(rep.Checkpoints), "runs", strconv.Itoa(rep.Runs), "blobs", blobs,
				"took", (time.Duration(rep.Millis) * time.Millisecond).String())
			a.notHere(rep.Away)
			for _, what := range rep.Spoiled {
				a.stderr.note("%s", what)
			}
		})
	})
}

func newLedgerCheckpointCmd(a *app) *cobra.Command {
	var opt checkpointOptions
	c := &cobra.Command{
		Use:   "checkpoint [--add NOTE --witness KEY... | --cosigned]",
		Short: "Sign the head of the tree",
		Long: "Sign the head of the tree, if it has grown since the last time, and print the newest\n" +
			"signed note. A copy of it elsewhere proves later that nothing was taken away.\n\n" +
			"--add takes in a note that has come back from witnesses (ledger cosign): that it is of this\n" +
			"ledger and that they have signed it is verified, and recorded. --cosigned prints the newest\n" +
			"of these, which auditors give to `export verify --cosigned`.",
		Example: "  stella ledger checkpoint > /media/stick/site-a.note\n" +
			"  stella ledger checkpoint --add /media/stick/site-a.cosigned.note --witness audit.key.pub\n" +
			"  stella ledger checkpoint --cosigned > /media/stick/november.cosigned.note",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if opt.add != "" {
				return runTakeCosigned(c.Context(), a, opt)
			}
			return runLedgerCheckpoint(c.Context(), a, opt.cosigned)
		},
	}
	f := c.Flags()
	f.StringVar(&opt.add, "add", "", "`NOTE` that has come back from witnesses")
	f.StringArrayVar(&opt.witnesses, "witness", nil, "`FILE` with the public key of one, or the key itself; may be given again")
	f.BoolVar(&opt.cosigned, "cosigned", false, "print the newest one that has come back")
	f.BoolVar(&opt.dryRun, "dry-run", false, "with --add: only verify it")
	c.MarkFlagsMutuallyExclusive("add", "cosigned")
	c.MarkFlagsRequiredTogether("add", "witness")
	return c
}

func runLedgerCheckpoint(ctx context.Context, a *app, cosigned bool) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		if cosigned {
			note, err := r.Cosigned(ctx)
			if err != nil {
				return err
			}
			return a.emit(note, func(s *screen) { s.exact([]byte(note.Note)) })
		}
		note, err := r.Checkpoint(ctx)
		if err != nil {
			return err
		}
		return a.emit(note, func(s *screen) { s.exact([]byte(note.Note)) })
	})
}

// proveOptions are the flags of ledger prove.
type proveOptions struct {
	consistency, to int64
	out             string
}

func newLedgerProveCmd(a *app) *cobra.Command {
	opt := proveOptions{consistency: -1}
	c := &cobra.Command{
		Use:   "prove SEQ [--to SIZE] | --consistency SIZE [--to SIZE]",
		Short: "Prove that an entry is in the ledger, or that nothing was taken away",
		Long: "Write a proof that the ledger under the newest checkpoint holds an entry, as a C2SP\n" +
			"tlog-proof file; or, with --consistency, that it extends the tree of the first SIZE\n" +
			"entries, as JSON that holds the checkpoint, too. --to takes an earlier checkpoint than the\n" +
			"newest, by the size of its tree: that of an archive, or one that a witness has signed.\n" +
			"`ledger check-proof` checks both without a site.",
		Example: "  stella ledger prove 42 --out 42.tlog-proof\n  stella ledger prove 42 --to 95\n  stella ledger prove --consistency 40\n  stella ledger prove --consistency 40 --to 95 --out 40-95.proof",
		Args:    cobra.MaximumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runLedgerProve(c.Context(), a, args, opt) },
	}
	c.Flags().Int64Var(&opt.consistency, "consistency", -1, "`SIZE` of the smaller tree")
	c.Flags().Int64Var(&opt.to, "to", 0, "`SIZE` of the larger tree, of which there is a checkpoint (default the newest)")
	c.Flags().StringVarP(&opt.out, "out", "o", "", "`FILE` to write (default stdout)")
	return c
}

func runLedgerProve(ctx context.Context, a *app, args []string, opt proveOptions) error {
	if (len(args) == 1) == (opt.consistency >= 0) {
		return invalid("name an entry or --consistency, one of the two")
	}
	var seq int64
	if len(args) == 1 {
		var err error
		if seq, err = parseSeq(args[0]); err != nil {
			return err
		}
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		if opt.consistency >= 0 {
			p, err := r.ProveConsistency(ctx, opt.consistency, opt.to)
			if err != nil {
				return err
			}
			raw, err := json.MarshalIndent(p, "", "  ")
			if err != nil {
				return fmt.Errorf("encode: %w", err)
			}
			return a.deliver(opt.out, append(raw, '\n'))
		}
		proof, err := r.ProveEntry(ctx, seq, opt.to)
		if err != nil {
			return err
		}
		return a.deliver(opt.out, proof)
	})
}

// deliver writes exact bytes to a file, or to stdout where none is named. It
// never replaces a file.
func (a *app) deliver(path string, b []byte) error {
	if path == "" || path == "-" {
		a.stdout.exact(b)
		return a.stdout.err
	}
	if err := absent(path); err != nil {
		return err
	}
	if err := fsx.WriteFile(path, b, fsx.ByUmask(0o666)); err != nil {
		return fileError(path, err)
	}
	return nil
}

// absent refuses a path where something is.
func absent(path string) error {
	return absentElse(path, "choose another name, or remove it")
}

// absentElse is absent, with what to do about a file that is there.
func absentElse(path, hint string) error {
	if _, err := os.Lstat(path); err == nil {
		return &api.Error{Code: api.CodeConflict, Message: path + " exists", Hint: hint}
	}
	return nil
}
