package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newLedgerEraseCmd(a *app) *cobra.Command {
	var req api.ErasureRequest
	var agree int64
	c := &cobra.Command{
		Use:   "erase (SEQ... --reason TEXT | --agree SEQ)",
		Short: "Erase what people have said in entries",
		Long: "Where the law demands it, what people have said in their own words (reasons, notes, messages,\n" +
			"metadata, carriers) is erased from entries: one person asks and says why, another agrees by the\n" +
			"seq of that request. Both are entries. The envelopes stay, and with them the tree and every\n" +
			"proof; archives say of these entries that their data is withheld, and are INCOMPLETE.\n\n" +
			"From then on nobody is shown the data, no archive and no event has it, and it is gone from\n" +
			"ledger.db, which is made anew, and overwritten: nothing is written meanwhile, which takes as\n" +
			"long as stella ledger verify --full, and as much room as ledger.db has. Where that fails the answer\n" +
			"says why, the site goes on, and the next erasure, stella bundle gc, a compaction or the start\n" +
			"of a daemon tries again. It stays in snapshots, archives and copies that were made before, and\n" +
			"in sealed files. The answer names those in the home, and where a snapshot is being made. It names\n" +
			"other entries with the same words, too: stella itself takes the reason of a run's end on to its\n" +
			"sub-runs.",
		Example: "  stella ledger erase 4711 4712 --reason \"erasure, art. 17\"\n  stella ledger erase --agree 4720",
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("agree") {
				if len(args) > 0 || req.Reason != "" {
					return invalid("--agree names the request; the entries and the reason are in that")
				}
				req.Agree = &agree
			}
			for _, arg := range args {
				seq, err := strconv.ParseInt(arg, 10, 64)
				if err != nil || seq < 0 {
					return invalid("%q is no seq of an entry", arg)
				}
				req.Entries = append(req.Entries, seq)
			}
			return runLedgerErase(c.Context(), a, req)
		},
	}
	f := c.Flags()
	f.StringVar(&req.Reason, "reason", "", "`TEXT` that is recorded, and stays")
	f.Int64Var(&agree, "agree", 0, "`SEQ` of somebody else's request")
	f.BoolVar(&req.DryRun, "dry-run", false, "only say whether it can be done")
	return c
}

func runLedgerErase(ctx context.Context, a *app, req api.ErasureRequest) error {
	if req.Agree != nil && !req.DryRun {
		if err := a.confirm("Erase for ever what was said in the entries of request " + strconv.FormatInt(*req.Agree, 10) + "?"); err != nil {
			return err
		}
	}
	var rep api.ErasureReport
	err := a.withSite(ctx, func(ctx context.Context, r *reached) (err error) {
		rep, err = r.EraseData(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	return a.acted(req.DryRun, rep, func(s *screen) { renderErasure(s, rep) })
}

func renderErasure(s *screen, rep api.ErasureReport) {
	kv := []string{"entries", seqList(rep.Entries), "reason", rep.Reason}
	switch {
	case rep.DryRun:
		kv = append(kv, "erased", "nothing: this was a dry run")
	case !rep.Agreed:
		kv = append(kv, "request", strconv.FormatInt(rep.Seq, 10), "next", "another person: stella ledger erase --agree "+strconv.FormatInt(rep.Seq, 10))
	case rep.Waits != "":
		kv = append(kv, "erased", "not yet: the entries are shown without it")
	default:
		kv = append(kv, "erased", "yes")
	}
	kv = append(kv, stillOnDisk(rep.Waits)...)
	if len(rep.AlsoIn) > 0 {
		kv = append(kv, "the same words", "are in "+seqList(rep.AlsoIn)+" too, and stay there: name these as well")
	}
	if rep.Unsearched != "" {
		kv = append(kv, "not looked through", "all entries, for the same words: "+rep.Unsearched)
	}
	if len(rep.Copies) > 0 {
		kv = append(kv, "not erased in", strings.Join(rep.Copies, " "))
	}
	s.fields(kv...)
}

// stillOnDisk is a field of any answer: why data could not be erased, and what is done about it.
func stillOnDisk(waits string) []string {
	if waits == "" {
		return nil
	}
	return []string{"still on disk", "what is agreed to be erased: " + waits + "; stella bundle gc, or the next start of the daemon, tries again"}
}

func seqList(seqs []int64) string {
	var out []string
	for _, seq := range seqs {
		out = append(out, strconv.FormatInt(seq, 10))
	}
	return strings.Join(out, " ")
}

// erasedAgain are fields of a restore or a recovery.
func erasedAgain(erased, unsure []int64, waits string) []string {
	var kv []string
	if len(erased) > 0 {
		kv = append(kv, "erased again", seqList(erased))
	}
	if kv = append(kv, stillOnDisk(waits)...); len(unsure) > 0 {
		kv = append(kv, "not erased", seqList(unsure)+": meta of the ledger before says that it was, and no entry that can be read; ask again with stella ledger erase")
	}
	return kv
}
