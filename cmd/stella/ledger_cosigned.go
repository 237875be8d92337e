package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

// checkpointOptions are the flags of ledger checkpoint.
type checkpointOptions struct {
	add       string
	witnesses []string
	cosigned  bool
	dryRun    bool
}

// runTakeCosigned takes in a note that has come back from witnesses.
func runTakeCosigned(ctx context.Context, a *app, opt checkpointOptions) error {
	note, err := fsx.ReadFile(opt.add, ledger.MaxNote)
	if err != nil {
		return fileError(opt.add, err)
	}
	req := api.CosignedRequest{Note: string(note), DryRun: opt.dryRun}
	for _, w := range opt.witnesses {
		key, err := readWitness(w)
		if err != nil {
			return err
		}
		req.Witnesses = append(req.Witnesses, key.String())
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		res, err := r.TakeCosigned(ctx, req)
		if err != nil {
			return err
		}
		return a.acted(opt.dryRun, res, func(s *screen) {
			s.fields("entries", strconv.FormatInt(res.Size, 10), "root", res.Root, "witnesses", strings.Join(res.Witnesses, "\n"))
		})
	})
}
