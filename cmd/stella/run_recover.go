package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// recovering is one thing done to a run by hand, or with dry only looked at.
type recovering func(ctx context.Context, r *reached, dry bool) (api.Recovered, error)

// recoverRun does something to a run by hand. What ends or repeats work asks before:
// verb is then what the question says, and "" for all else.
func recoverRun(ctx context.Context, a *app, verb string, dry bool, do recovering) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		out, err := recoverBy(ctx, a, r, verb, dry, do)
		if err != nil {
			return err
		}
		return renderRecovered(a, verb, out)
	})
}

func recoverBy(ctx context.Context, a *app, r *reached, verb string, dry bool, do recovering) (api.Recovered, error) {
	if verb != "" || dry {
		plan, err := do(ctx, r, true)
		if err != nil || dry || !plan.Changed {
			plan.DryRun = dry
			return plan, err
		}
		if err := a.confirm(recoverQuestion(verb, plan)); err != nil {
			return plan, err
		}
	}
	return do(ctx, r, false)
}

// recoverQuestion asks whether something is to be done, naming what comes of it.
func recoverQuestion(verb string, plan api.Recovered) string {
	q := fmt.Sprintf("%s run %s of %s? ", verb, plan.Run.RunID, plan.Run.DAGID)
	stopped := 0
	for _, s := range plan.Steps {
		if s.Stopped > 0 {
			stopped++
		}
	}
	q += count(len(plan.Steps), "step is affected", "steps are affected")
	if n := len(plan.Twice); n > 0 {
		q += ", " + count(n, "step that is not idempotent is done twice", "steps that are not idempotent are done twice")
	}
	if stopped > 0 {
		q += ", " + count(stopped, "attempt is stopped", "attempts are stopped")
	}
	if n := len(plan.Subruns); n > 0 {
		q += ", " + count(n, "sub-run is ended", "sub-runs are ended")
	}
	return q + "."
}

func renderRecovered(a *app, verb string, out api.Recovered) error {
	switch {
	case out.DryRun:
		a.stderr.note("dry run: nothing was changed")
	case !out.Changed:
		a.stderr.note("note: it was so before; nothing was changed")
	}
	if err := a.acted(out.DryRun, out, func(s *screen) { recoveredTable(s, out) }); err != nil {
		return err
	}
	a.twice(out.Twice)
	how := "--downstream"
	if verb == "Reset" { // which has no such flag
		how = "run retry " + out.Run.RunID + " --step STEP --downstream"
	}
	a.kept(out.Kept, how)
	a.goesOn(out.Run, out.Executed || out.DryRun)
	if note := alone(out.Parent); note != "" && !out.Run.Status.Ended() {
		a.stderr.note("note: %s", note)
	}
	return nil
}

// twice names what is not idempotent and may do twice what it has done.
func (a *app) twice(steps []string) {
	if len(steps) > 0 {
		a.stderr.note("note: not idempotent, done twice: %s", strings.Join(steps, ", "))
	}
}

// kept names what stays as it is although what it was built on is done again.
func (a *app) kept(steps []string, how string) {
	if len(steps) > 0 {
		a.stderr.note("note: built on what is done again, and left as it is: %s; %s does that again, too", strings.Join(steps, ", "), how)
	}
}

// goesOn says what lets a run go on that nobody executes.
func (a *app) goesOn(run state.Run, executed bool) {
	if !executed && !run.Status.Ended() {
		a.stderr.note("note: nobody executes run %s; it goes on with: stella orch run resume %s", run.RunID, run.RunID)
	}
}

func recoveredTable(s *screen, out api.Recovered) {
	s.fields("run", out.Run.RunID, "dag", out.Run.DAGID+" "+out.Run.DAGVersion, "status", statusOf(out.Run),
		"generation", strconv.Itoa(out.Run.Generation), "reason", reason(out.Run))
	for _, id := range out.Subruns {
		s.fields("sub-run asked to end", id)
	}
	effectsTable(s, out.Steps)
}

// effectsTable says what becomes of each step.
func effectsTable(s *screen, steps []api.StepEffect) {
	if len(steps) == 0 {
		return
	}
	rows := make([][]string, len(steps))
	for i, x := range steps {
		note := string(x.Code)
		if x.Stopped > 0 {
			note = join(", ", fmt.Sprintf("attempt %d is stopped", x.Stopped), note)
		} else if x.From == x.To {
			note = "begun anew"
		}
		rows[i] = []string{x.StepID, string(x.From), string(x.To), note}
	}
	s.printf("\n")
	s.table([]string{"STEP", "WAS", "IS", "NOTE"}, rows)
}

// retryOptions are the flags of run retry.
type retryOptions struct {
	req    api.RetryRequest
	delay  time.Duration
	file   string
	inputs []string
	wait   bool
}

func newRunRetryCmd(a *app) *cobra.Command {
	var opt retryOptions
	c := &cobra.Command{
		Use:   "retry RUN",
		Short: "Begin a step again",
		Long: "Begin a step of a run again, by default the one for which the run has failed. A run that has failed is\n" +
			"reopened by that; one that is completed or cancelled is final. What was skipped only because\n" +
			"the step had failed gets its turn again; with --downstream everything that depends on the step\n" +
			"is done again, even if it had succeeded. Of a step with for_each that had failed only the items are\n" +
			"done again that have not succeeded, of one that is done again with another step all. A step that\n" +
			"cleans up is done again with what waited for it: what has cleaned up is done, and the run fails\n" +
			"afterwards for what it had failed for.\n\n" +
			"--input changes parameters of the step: they are merged over what the spec gives it (a JSON merge\n" +
			"patch: k:=null takes k away; with for_each, those of each item that is done again), and are held\n" +
			"against the schema of the action. The run is then\n" +
			"marked as overridden. A later --input replaces an earlier one.\n\n" +
			"Where that does again what is not idempotent and was not named (steps and items that go on with it, and\n" +
			"whatever a sub-run has done), it needs --repeat (else CONFLICT). With --only what the end of\n" +
			"the run has stopped, or kept from its turn, is not among that: it stays as it is.\n\n" +
			"It is refused with CONFLICT while the step, or what depends on it, is queued or under way, or waits for\n" +
			"people. With a daemon the run goes on at once; without one it is recorded, and goes on with stella orch\n" +
			"run resume.",
		Example: "  stella orch run retry 01935b1e-… --reason \"the mirror is back\"\n" +
			"  stella orch run retry 01935b1e-… --step fetch --input mirror=file:///media/b --delay 5m --wait",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runRunRetry(c.Context(), a, args[0], opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.req.StepID, "step", "", "`STEP` to begin again, or an item of it, STEP.N (default: the one for which the run has failed)")
	f.BoolVar(&opt.req.Downstream, "downstream", false, "do everything again that depends on it")
	f.BoolVar(&opt.req.Repeat, "repeat", false, "also what is not idempotent and was not named: in a sub-run, or what goes on with the step")
	f.BoolVar(&opt.req.Only, "only", false, onlyUsage)
	f.DurationVar(&opt.delay, "delay", 0, "`TIME` to wait before, at most 24h; it survives a restart")
	f.StringVar(&opt.file, "inputs", "", "`FILE` with parameters to change, a JSON object")
	f.StringArrayVar(&opt.inputs, "input", nil, "one `PARAMETER` to change: k=v or k:=json; may be given again")
	f.StringVar(&opt.req.Reason, "reason", "", "why, a `TEXT`; it is recorded")
	f.BoolVar(&opt.wait, "wait", false, "wait for the end of the run, if somebody executes it")
	f.BoolVar(&opt.req.DryRun, "dry-run", false, "show what would be, and change nothing")
	c.MarkFlagsMutuallyExclusive("wait", "dry-run")
	return c
}

func runRunRetry(ctx context.Context, a *app, id string, opt retryOptions) error {
	var err error
	if opt.req.Input, err = readPatch("input", opt.file, opt.inputs); err != nil {
		return err
	}
	opt.req.DelayMs = opt.delay.Milliseconds()
	retry := func(ctx context.Context, r *reached, dry bool) (api.Recovered, error) {
		req := opt.req
		req.DryRun = dry
		return r.RetryRun(ctx, id, req)
	}
	if !opt.wait {
		return recoverRun(ctx, a, "", opt.req.DryRun, retry)
	}
	var e execution
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		if len(e.runs) == 0 { // else the process that executed it went away, and another answers
			before, err := r.GetRun(ctx, id)
			if err != nil {
				return err
			}
			out, err := retry(ctx, r, false)
			if err != nil {
				return err
			}
			if !out.Executed {
				now, err := r.GetRun(ctx, id) // it may have ended before the answer was there
				if err != nil {
					return err
				}
				if !now.Status.Ended() {
					return renderRecovered(a, "Retry", out)
				}
			}
			e.runs, e.watch.stay = []state.Run{out.Run}, true
			e.watch.next = map[string]int64{id: before.LastSeq + 1}
		}
		in, err := r.InspectRun(ctx, id)
		if err != nil {
			return err
		}
		if !in.Run.Status.Ended() && (r.held != nil || !in.Executed) {
			return &api.Error{Code: api.CodeNotExecuting, Message: "the step is to be begun again, but nobody executes run " + id + " any more",
				Hint: "stella orch run resume " + id, TraceID: in.Run.TraceID}
		}
		if err := e.watch.until(ctx, a, r, e.runs); err != nil {
			return e.interrupted(ctx, r, err)
		}
		return e.render(ctx, a, r, true)
	})
}

// readPatch is readObject where nothing given is nothing to change.
func readPatch(flag, file string, single []string) ([]byte, error) {
	if file == "" && len(single) == 0 {
		return nil, nil
	}
	return readObject(flag, file, single)
}

// onlyUsage is the flag of retry, skip and reset.
const onlyUsage = "what was stopped, or has lost its turn, was not named and must not be done twice, stays as it is"

// skipOptions are the flags of run skip.
type skipOptions struct {
	req    api.SkipRequest
	file   string
	values []string
}

func newRunSkipCmd(a *app) *cobra.Command {
	var opt skipOptions
	c := &cobra.Command{
		Use:   "skip RUN",
		Short: "Pass over a step as if it had succeeded",
		Long: "Pass over a step, by default the one for which the run has failed: what depends on it goes on as if it had\n" +
			"succeeded. Only steps whose spec says allow_skip = true can be skipped, none that is under way, and\n" +
			"none whose approval is required. --set and --outputs give the outputs that stand for the step's own;\n" +
			"they are held against the schema of the action. The run is marked as overridden, and one that has\n" +
			"failed is reopened; for a step that cleans up for that alone. Where what goes on then has done\n" +
			"something that is not idempotent and would do it twice, it needs --repeat (else CONFLICT);\n" +
			"with --only what the end of the run has stopped, or kept from its turn, stays as it is instead.",
		Example: "  stella orch run skip 01935b1e-… --step notify --reason \"no mail tonight\" --dry-run\n" +
			"  stella orch run skip 01935b1e-… --step count --set n:=0 --reason \"nothing came in\" --yes",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runRunSkip(c.Context(), a, args[0], opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.req.StepID, "step", "", "`STEP` to pass over, or an item of it, STEP.N (default: the one for which the run has failed)")
	f.StringVar(&opt.file, "outputs", "", "`FILE` with outputs, a JSON object")
	f.StringArrayVar(&opt.values, "set", nil, "one `OUTPUT`: k=v or k:=json; may be given again")
	f.BoolVar(&opt.req.Repeat, "repeat", false, "also where what goes on after it does twice what it has done")
	f.BoolVar(&opt.req.Only, "only", false, onlyUsage)
	f.StringVar(&opt.req.Reason, "reason", "", "why, a `TEXT`; it is recorded (required)")
	f.BoolVar(&opt.req.DryRun, "dry-run", false, "show what would be, and change nothing")
	_ = c.MarkFlagRequired("reason")
	return c
}

func runRunSkip(ctx context.Context, a *app, id string, opt skipOptions) error {
	var err error
	if opt.req.Outputs, err = readPatch("set", opt.file, opt.values); err != nil {
		return err
	}
	return recoverRun(ctx, a, "Skip a step in", opt.req.DryRun, func(ctx context.Context, r *reached, dry bool) (api.Recovered, error) {
		req := opt.req
		req.DryRun = dry
		return r.SkipStep(ctx, id, req)
	})
}
