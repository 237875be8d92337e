package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newExportListCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the archives on record",
		Long: "List the archives that the site has made, oldest first: an entry of the ledger says of each\n" +
			"what it holds and its SHA-256, which is of the archive itself, also where it was encrypted or\n" +
			"split. The entry comes before the file has its name: of one that could not take it, or was\n" +
			"made again, there is more than one.",
		Example: "  stella export list\n  stella export list --output json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runExportList(c.Context(), a) },
	}
}

func runExportList(ctx context.Context, a *app) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		all, err := r.ListExports(ctx)
		if err != nil {
			return err
		}
		return emitList(a, map[string]any{"exports": all}, all, []string{"ENTRY", "FROM", "TO", "FIRST", "ENTRIES", "WITHHELD", "SHA256"},
			func(x api.ExportResult) []string {
				return []string{strconv.FormatInt(x.Seq, 10), x.From, x.To, strconv.FormatInt(x.FirstSeq, 10), strconv.FormatInt(x.Count, 10), strconv.FormatInt(x.Withheld, 10), x.SHA256}
			})
	})
}
