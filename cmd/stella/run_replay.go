package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// replayOptions are the flags of run replay.
type replayOptions struct {
	id   string
	req  api.ReplayRequest
	wait bool
}

func newRunReplayCmd(a *app) *cobra.Command {
	var opt replayOptions
	c := &cobra.Command{
		Use:   "replay RUN",
		Short: "Run again what an ended run has run, and compare every output",
		Long: "Run again what an ended run has run: the plan that it froze, from the sealed bundles, with\n" +
			"the same inputs; nothing is taken from the cache. When the replay has ended, the end of each\n" +
			"step, its outputs and its artifacts are compared with the first run's, and the result is\n" +
			"recorded. People are asked again where they were asked before.\n\n" +
			"What has run and is not idempotent is done twice by that: it needs --repeat (else CONFLICT).\n" +
			"--dry-run shows what would run.\n\n" +
			"Without a daemon the replay executes here. The exit code is 4 if the two differ, and 0 if they do\n" +
			"not, also where both have failed; the same holds for stella orch run resume of a replay.",
		Example: "  stella orch run replay 01935b1e-… --rationale \"audit 2026-11: is it reproducible?\" --wait",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			opt.id = args[0]
			return runRunReplay(c.Context(), a, opt)
		},
	}
	c.Flags().StringVar(&opt.req.Rationale, "rationale", "", "why, a `TEXT`; it is recorded (required)")
	c.Flags().BoolVar(&opt.wait, "wait", false, "wait for the end of the replay: also with a daemon, and for people")
	c.Flags().BoolVar(&opt.req.Repeat, "repeat", false, "also do again what is not idempotent")
	c.Flags().BoolVar(&opt.req.DryRun, "dry-run", false, "show what would run, and start nothing")
	c.MarkFlagsMutuallyExclusive("wait", "dry-run")
	_ = c.MarkFlagRequired("rationale")
	return c
}

func runRunReplay(ctx context.Context, a *app, opt replayOptions) error {
	if opt.req.DryRun {
		return a.withSite(ctx, func(ctx context.Context, r *reached) error {
			res, err := r.ReplayRun(ctx, opt.id, opt.req)
			if err != nil {
				return err
			}
			a.stderr.note("dry run: nothing was started")
			return a.emit(res, func(s *screen) { renderReplayed(s, res) })
		})
	}
	var e execution
	var begun string
	return a.withExecutor(ctx, func(ctx context.Context, r *reached) error {
		return e.run(ctx, a, r, opt.wait, func() ([]state.Run, error) {
			if begun != "" { // whoever executed it went away: it goes on elsewhere
				return r.ResumeRun(ctx, begun)
			}
			res, err := r.ReplayRun(ctx, opt.id, opt.req)
			begun = res.Run.RunID
			return []state.Run{res.Run}, err
		})
	})
}

// renderReplayed shows what a replay would run.
func renderReplayed(s *screen, res api.StartResult) {
	s.fields("replay of", res.Run.RunID, "dag", res.Run.DAGID+" "+res.Run.DAGVersion, "it is", statusOf(res.Run))
	s.printf("\n")
	rows := make([][]string, len(res.Steps))
	for i, x := range res.Steps {
		note := ""
		switch {
		case len(x.Once) > 0 && x.Begun:
			note = "not idempotent, done twice: " + strings.Join(x.Once, ", ")
		case len(x.Once) > 0:
			note = "not idempotent, had not run: " + strings.Join(x.Once, ", ")
		}
		rows[i] = []string{x.StepID, x.Runs, string(x.Was), note}
	}
	s.table([]string{"STEP", "RUNS", "WAS", "NOTE"}, rows)
}

// comparisons are how the replays compare that have ended, by run.
func comparisons(ctx context.Context, r *reached, details []api.RunDetail) (map[string]*ledger.RunComparison, error) {
	out := map[string]*ledger.RunComparison{}
	for _, d := range details {
		if d.ReplayOf == "" || !d.Status.Ended() {
			continue
		}
		in, err := r.InspectRun(ctx, d.RunID)
		if err != nil {
			return nil, err
		}
		out[d.RunID] = in.Replay
	}
	return out, nil
}

// differing is the outcome of a command that cared for a replay that is not the same.
func differing(d api.RunDetail, c *ledger.RunComparison) error {
	return &outcome{exit: exitRunFailed, err: api.Error{
		Code: codeRunFailed, Message: fmt.Sprintf("the replay differs from run %s: %s", c.With, differencesInWords(c.Differs)),
		TraceID: d.TraceID, Hint: "stella orch run diff " + c.With + " " + d.RunID,
	}}
}

func renderComparison(s *screen, c *ledger.RunComparison) {
	switch {
	case c == nil:
		return
	case c.Same:
		s.printf("\nthe replay gave the same as run %s: every end, output and artifact of %d steps\n", c.With, c.Steps)
		return
	}
	rows := make([][]string, len(c.Differs))
	for i, d := range c.Differs {
		rows[i] = []string{d.StepID, d.Field, short(d.Was), short(d.Is)}
	}
	s.printf("\nthe replay differs from run %s:\n", c.With)
	s.table([]string{"STEP", "WHAT", "WAS", "IS"}, rows)
}
