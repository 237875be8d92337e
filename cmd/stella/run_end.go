package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newRunAbortCmd(a *app) *cobra.Command {
	return newRunEndCmd(a, "Abort", func(ctx context.Context, r *reached, id string, req api.EndRequest) (api.Recovered, error) {
		return r.AbortRun(ctx, id, req)
	}, &cobra.Command{
		Use:   "abort RUN",
		Short: "End a run at once, without grace and without cleanup",
		Long: "End a run at once: what executes is killed without its grace, sub-runs are aborted too, and neither\n" +
			"on_cancel nor on_failure runs. The run is cancelled then, which is final: stella orch run cancel does\n" +
			"the same in order. Aborting what is cancelled already changes nothing and succeeds; a run that has\n" +
			"ended otherwise is an error (exit 3).",
		Example: "  stella orch run abort 01935b1e-… --reason \"it fills the disk\" --yes",
	})
}

func newRunFailCmd(a *app) *cobra.Command {
	return newRunEndCmd(a, "Fail", func(ctx context.Context, r *reached, id string, req api.EndRequest) (api.Recovered, error) {
		return r.FailRun(ctx, id, req)
	}, &cobra.Command{
		Use:   "fail RUN",
		Short: "End a run as failed",
		Long: "End a run as failed, whatever its steps do: what executes is told to stop and fails with\n" +
			"FAILED_BY_HAND, what waits is skipped, and on_failure runs; where that had begun, it is ended likewise.\n" +
			"A failed run can be reopened: stella orch run retry. Failing what has failed already changes nothing\n" +
			"and succeeds; a run that has ended otherwise is an error (exit 3).",
		Example: "  stella orch run fail 01935b1e-… --reason \"it waits for a machine that is gone\" --yes",
	})
}

// newRunEndCmd is a command that ends a run by hand.
func newRunEndCmd(a *app, verb string, do func(context.Context, *reached, string, api.EndRequest) (api.Recovered, error), c *cobra.Command) *cobra.Command {
	var req api.EndRequest
	c.Args = cobra.ExactArgs(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		return recoverRun(c.Context(), a, verb, req.DryRun, func(ctx context.Context, r *reached, dry bool) (api.Recovered, error) {
			req := req
			req.DryRun = dry
			return do(ctx, r, args[0], req)
		})
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "why, a `TEXT`; it is recorded (required)")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "show what would be, and change nothing")
	_ = c.MarkFlagRequired("reason")
	return c
}

func newRunRestartCmd(a *app) *cobra.Command {
	return newRunAgainCmd(a, "Restart", func(ctx context.Context, r *reached, id string, req api.AgainRequest) (api.Recovered, error) {
		return r.RestartRun(ctx, id, req)
	}, &cobra.Command{
		Use:   "restart RUN",
		Short: "Stop what is under way and begin it again",
		Long: "Stop the attempts of a run that are under way, all or those of one step, and begin them again when\n" +
			"they have ended. That is an interruption, and does not count as one. Steps that are not idempotent\n" +
			"are refused (CONFLICT) unless --repeat takes it upon itself that they do twice what they have done.",
		Example: "  stella orch run restart 01935b1e-… --step convert --reason \"no output for an hour\" --yes",
	})
}

func newRunResetCmd(a *app) *cobra.Command {
	var only bool
	c := newRunAgainCmd(a, "Reset", func(ctx context.Context, r *reached, id string, req api.AgainRequest) (api.Recovered, error) {
		req.Only = only
		return r.ResetRun(ctx, id, req)
	}, &cobra.Command{
		Use:   "reset RUN",
		Short: "Take steps out of the hands they are in and begin them anew",
		Long: "Take a step out of whatever hands it is in, or all that are under way, and begin it anew. The\n" +
			"generation of the run grows: whatever an earlier attempt still reports counts no more. It is for what\n" +
			"restart does not help, and for a step that is to forget its failures and its approval. Steps that are\n" +
			"under way and not idempotent need --repeat, and so do steps whose sub-runs have done something that is\n" +
			"not idempotent. What depends on the step and is under way, or waits for people, is reset with it, a\n" +
			"for_each with all of its items. A failed run is reopened; for a step that cleans up for that\n" +
			"alone, and then it fails again for what it had failed for.",
		Example: "  stella orch run reset 01935b1e-… --step convert --reason \"its disk was replaced\" --dry-run",
	})
	c.Flags().BoolVar(&only, "only", false, onlyUsage)
	return c
}

// newRunAgainCmd is a command that begins again what is under way.
func newRunAgainCmd(a *app, verb string, do func(context.Context, *reached, string, api.AgainRequest) (api.Recovered, error), c *cobra.Command) *cobra.Command {
	var req api.AgainRequest
	c.Args = cobra.ExactArgs(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		return recoverRun(c.Context(), a, verb, req.DryRun, func(ctx context.Context, r *reached, dry bool) (api.Recovered, error) {
			req := req
			req.DryRun = dry
			return do(ctx, r, args[0], req)
		})
	}
	f := c.Flags()
	f.StringVar(&req.StepID, "step", "", "`STEP` that is meant (default: all that are under way)")
	f.BoolVar(&req.Repeat, "repeat", false, "also steps that are not idempotent")
	f.StringVar(&req.Reason, "reason", "", "why, a `TEXT`; it is recorded")
	f.BoolVar(&req.DryRun, "dry-run", false, "show what would be, and change nothing")
	return c
}

func newRunNudgeCmd(a *app) *cobra.Command {
	var req api.NudgeRequest
	c := &cobra.Command{
		Use:   "nudge RUN",
		Short: "Let a run try again at once what it waits to try",
		Long: "Look at a run again: waiting times of its steps (backoff, --delay) are over, and sub-runs are asked for\n" +
			"what became of them. It repeats nothing and stops nothing.",
		Example: "  stella orch run nudge 01935b1e-…",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return recoverRun(c.Context(), a, "", false, func(ctx context.Context, r *reached, _ bool) (api.Recovered, error) {
				return r.NudgeRun(ctx, args[0], req)
			})
		},
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "why, a `TEXT`; it is recorded")
	return c
}
