package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

func newRunStreamCmd(a *app) *cobra.Command {
	st := stream{next: -1}
	c := &cobra.Command{
		Use:   "stream [RUN]",
		Short: "Show what happens in runs as it happens",
		Long: "Show the entries of a run from its first, or from --after on, as they come: when what was started,\n" +
			"ended, decided or changed, and by whom. It ends with the run, whatever becomes of that. Without RUN\n" +
			"it shows the entries of all runs of the tenant that come from now on, until it is interrupted. Where\n" +
			"nobody executes the run, nothing more comes, and it says so.\n\n" +
			"NDJSON has the two exact lines of each entry; --after with the seq of the last one goes on without a\n" +
			"gap. What the steps write is in stella orch run logs --follow.",
		Example: "  stella orch run stream 01935b1e-…\n  stella orch run stream --output ndjson",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				st.runID = args[0]
			}
			return runRunStream(c.Context(), a, &st)
		},
	}
	c.Flags().Int64Var(&st.next, "after", -1, "`SEQ` of an entry; only what comes after it")
	return c
}

// A stream is what was shown of a run, or of all runs of the tenant.
type stream struct {
	runID string          // "": all
	next  int64           // first entry that was not shown; below 0 before the first look
	ours  map[string]bool // runs of the tenant, and others
	words timeline
}

func runRunStream(ctx context.Context, a *app, st *stream) error {
	if a.opt.output == outJSON {
		return invalid("a stream cannot be one JSON value: use --output ndjson")
	}
	if st.next >= 0 {
		st.next++
	}
	for {
		over := false
		err := a.withSite(ctx, func(ctx context.Context, r *reached) (err error) {
			if st.runID == "" {
				return st.all(ctx, a, r)
			}
			over, err = st.one(ctx, a, r)
			return err
		})
		if err != nil || over {
			return errors.Join(err, a.stdout.err)
		}
		select {
		case <-time.After(followPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// one shows what is new of one run, and says whether nothing more comes.
func (st *stream) one(ctx context.Context, a *app, r *reached) (over bool, err error) {
	d, err := r.RunOverview(ctx, st.runID) // before its entries: after an end that it tells of there are none
	if err != nil {
		return false, err
	}
	st.next = max(st.next, d.FirstSeq)
	for st.next <= d.LastSeq {
		lines, err := r.TailLedger(ctx, api.LedgerQuery{From: st.next, RunID: st.runID, Limit: 500})
		if err != nil || len(lines) == 0 {
			return false, err
		}
		for _, l := range lines {
			st.show(a, l)
		}
	}
	if !d.Status.Ended() && r.held != nil { // whoever could execute it would need the site that we hold
		a.noteIdle(ctx, r, st.runID)
		return true, nil
	}
	return d.Status.Ended(), nil
}

// all shows what is new of all runs of the tenant.
func (st *stream) all(ctx context.Context, a *app, r *reached) error {
	if st.next < 0 {
		newest, err := r.TailLedger(ctx, api.LedgerQuery{Last: true, Limit: 1})
		if err != nil {
			return err
		}
		for st.next = 0; len(newest) > 0; newest = nil {
			st.next = newest[0].Seq + 1
		}
	}
	for {
		lines, err := r.TailLedger(ctx, api.LedgerQuery{From: st.next, Limit: 1000})
		if err != nil {
			return err
		}
		for _, l := range lines {
			e, err := ledger.ParseEnvelope(l.Envelope)
			if err == nil && e.RunID != "" && st.isOurs(ctx, r, e.RunID) {
				st.show(a, l)
			}
			st.next = l.Seq + 1
		}
		if len(lines) < 1000 {
			return nil
		}
	}
}

// isOurs says whether a run is one of the tenant's: others are as good as absent.
func (st *stream) isOurs(ctx context.Context, r *reached, id string) bool {
	known, ok := st.ours[id]
	if ok {
		return known
	}
	_, err := r.RunOverview(ctx, id)
	if st.ours == nil {
		st.ours = map[string]bool{}
	}
	st.ours[id] = err == nil
	return err == nil
}

func (st *stream) show(a *app, l api.LedgerLine) {
	st.next = l.Seq + 1
	if a.opt.output == outNDJSON {
		_ = a.stdout.json(l, false) // the screen keeps the error
		return
	}
	text := strconv.FormatInt(l.Seq, 10)
	if e, err := ledger.ParseEnvelope(l.Envelope); err == nil && st.runID == "" {
		text += "  " + e.RunID
	}
	m, ok := st.words.moment(l)
	switch {
	case !ok:
		text += "  cannot be read"
	case m.step == "":
		text += "  " + m.at + "  " + m.text
	default:
		text += "  " + m.at + "  " + m.step + "  " + m.text
	}
	a.stdout.printf("%s\n", text)
}
