package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// maxInputs is the most that a file of inputs may hold.
const maxInputs = 1 << 20

// startOptions are the flags of run start.
type startOptions struct {
	req    api.StartRequest
	file   string
	inputs []string
	meta   []string
	wait   bool
	dryRun bool
}

func newRunStartCmd(a *app) *cobra.Command {
	var opt startOptions
	c := &cobra.Command{
		Use:   "start",
		Short: "Start a run",
		Long: "Start a run of a DAG. With a daemon it returns at once, unless --wait; without one it\n" +
			"executes the run itself and ends with it. The exit code is 4 if the run failed, and 9 if nothing\n" +
			"is left that moves without people: then it says for whom the run waits, and what decides. With\n" +
			"--wait it waits for them.\n\n" +
			"--input k=v gives a string, --input k:=v gives JSON (k:=5, k:=true, k:='[1,2]'); both win\n" +
			"over --inputs FILE. A start with a --run-token that was used before, for the same DAG and\n" +
			"inputs, is the same run and starts nothing; for other work it is refused.\n\n" +
			"--dry-run plans the start and starts nothing: which digests would run in which order, what would\n" +
			"come from the cache, which locks are needed, who would be asked, behind which fences, and what is\n" +
			"missing. Nothing is recorded, and the token stays free.",
		Example: "  stella orch run start --dag-id audit --input title=\"November\"\n" +
			"  stella orch run start --dag-id audit --version 1.0.0 --inputs in.json --run-token ticket-4711 --wait\n" +
			"  stella orch run start --dag-id audit --inputs in.json --dry-run --output json",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runRunStart(c.Context(), a, opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.req.DAGID, "dag-id", "", "`ID` of the DAG to run (required)")
	f.StringVar(&opt.req.Version, "version", "", "`VERSION` of the DAG (default: the highest enabled one)")
	f.StringVar(&opt.file, "inputs", "", "`FILE` with the inputs, a JSON object")
	f.StringArrayVar(&opt.inputs, "input", nil, "one `INPUT`: k=v or k:=json; may be given again")
	f.StringVar(&opt.req.RunToken, "run-token", "", "`TOKEN` that names the intended work; repeating it repeats nothing")
	f.StringArrayVar(&opt.meta, "meta", nil, "a `NOTE` on the run: k=v; may be given again")
	f.Int64Var(&opt.req.Priority, "priority", 0, "`N` that decides before age who is served first; higher is earlier")
	f.BoolVar(&opt.wait, "wait", false, "wait for the end of the run: also with a daemon, and for people")
	f.BoolVar(&opt.dryRun, "dry-run", false, "show what would happen, and start nothing")
	_ = c.MarkFlagRequired("dag-id")
	c.MarkFlagsMutuallyExclusive("wait", "dry-run")
	return c
}

func runRunStart(ctx context.Context, a *app, opt startOptions) error {
	req := opt.req
	var err error
	if req.Inputs, err = readInputs(opt.file, opt.inputs); err != nil {
		return err
	}
	if req.Metadata, err = readMeta(opt.meta); err != nil {
		return err
	}
	if opt.dryRun {
		return runRunPlan(ctx, a, req)
	}
	named := req.RunToken != ""
	if !named {
		req.RunToken = runner.NewRunToken(a.now()) // so that asking again is the same start
	}
	req.TraceID = a.opt.traceID
	var e execution
	return a.withExecutor(ctx, func(ctx context.Context, r *reached) error {
		return e.run(ctx, a, r, opt.wait, func() ([]state.Run, error) {
			res, err := r.StartRun(ctx, req)
			if len(e.runs) == 0 { // later calls ask again for what the first one began
				e.replayed = res.Replayed
			}
			if drains := (*api.Error)(nil); !named && errors.As(err, &drains) && drains.Code == api.CodeQueueDraining {
				drains.Hint = "try again later; stella orch queue resume ends the drain" // nobody knows the token
			}
			return []state.Run{res.Run}, err
		})
	})
}

// readInputs joins the file of inputs and the single ones to one object.
func readInputs(file string, single []string) (json.RawMessage, error) {
	return readObject("input", file, single)
}

// readObject joins a file with an object and single fields, which a flag gives as
// k=v or k:=json, to one object.
func readObject(flag, file string, single []string) (json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	if file != "" {
		raw, err := fsx.ReadFile(file, maxInputs)
		if err != nil {
			return nil, fileError(file, err)
		}
		if raw, err = jcs.Canonicalize(raw); err != nil { // no key twice, one value
			return nil, invalid("%s: %v", file, err)
		}
		if err := json.Unmarshal(raw, &all); err != nil || all == nil {
			return nil, invalid("%s: it must be a JSON object", file)
		}
	}
	given := map[string]bool{}
	for _, in := range single {
		k, v, ok := strings.Cut(in, "=")
		if !ok || k == "" || k == ":" {
			return nil, invalid("--%s %q is neither k=v nor k:=json", flag, in)
		}
		var value json.RawMessage
		if name, isJSON := strings.CutSuffix(k, ":"); isJSON {
			raw, err := jcs.Canonicalize([]byte(v))
			if err != nil {
				return nil, invalid("--%s %s: the value is not JSON: %v", flag, name, err)
			}
			k, value = name, raw
		} else if raw, err := jcs.Marshal(v); err != nil {
			return nil, invalid("--%s %s: %v", flag, k, err)
		} else {
			value = raw
		}
		if given[k] {
			return nil, invalid("--%s %s is given twice", flag, k)
		}
		given[k], all[k] = true, value
	}
	return jcs.Marshal(all)
}

func readMeta(pairs []string) (map[string]string, error) {
	var out map[string]string
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if _, twice := out[k]; !ok || k == "" || twice {
			return nil, invalid("--meta %q is not k=v, or is given twice", p)
		}
		if !utf8.ValidString(p) {
			return nil, invalid("--meta %q is no text in UTF-8", p)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = v
	}
	return out, nil
}

// resumeOptions are the flags of run resume.
type resumeOptions struct {
	id   string
	all  bool
	wait bool
}

func newRunResumeCmd(a *app) *cobra.Command {
	var opt resumeOptions
	c := &cobra.Command{
		Use:   "resume RUN | --all",
		Short: "Let an interrupted run go on",
		Long: "Let a run go on that was interrupted, by a signal, a crash or a power cut; or all of them.\n" +
			"A daemon does this by itself when it starts. Without a daemon the runs execute here, and\n" +
			"the command ends with them. What had succeeded is not done again.\n\n" +
			"Where nothing is left that moves without people the command ends with exit code 9, and says which\n" +
			"runs wait for whom, and what decides. With --wait it waits for them. Of a replay it says how it\n" +
			"compares, and the exit code is 4 if it differs. The failure of a sub-run counts as its parent takes it.",
		Example: "  stella orch run resume 01935b1e-…\n  stella orch run resume --all",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				opt.id = args[0]
			}
			return runRunResume(c.Context(), a, opt)
		},
	}
	c.Flags().BoolVar(&opt.all, "all", false, "all open runs")
	c.Flags().BoolVar(&opt.wait, "wait", false, "wait for the end of the runs: also with a daemon, and for people")
	return c
}

func runRunResume(ctx context.Context, a *app, opt resumeOptions) error {
	if opt.all == (opt.id != "") {
		return invalid("name a run or --all, one of the two")
	}
	var e execution
	return a.withExecutor(ctx, func(ctx context.Context, r *reached) error {
		return e.run(ctx, a, r, opt.wait, func() ([]state.Run, error) { return r.ResumeRun(ctx, opt.id) })
	})
}

// An execution is the runs that a command cares for, from their start to their
// end, or to the moment at which others care for them. When the process that
// executed them goes away, it is begun again with another.
type execution struct {
	runs     []state.Run // that were begun
	replayed bool        // the start had been made before
	watch    watcher
}

// run begins the runs and stays with them: with those that this process
// executes, those of another foreground, and with wait those of a daemon.
func (e *execution) run(ctx context.Context, a *app, r *reached, wait bool, begin func() ([]state.Run, error)) error {
	runs, err := begin()
	if err != nil {
		return e.afterwards(err)
	}
	e.runs, e.watch.stay = runs, wait
	if r.held == nil && !wait {
		st, err := r.Status(ctx)
		if err != nil {
			return err
		}
		if st.Mode == engine.ModeDaemon {
			return e.render(ctx, a, r, false)
		}
	}
	if r.held == nil {
		err = e.watch.until(ctx, a, r, runs)
	} else {
		err = e.execute(ctx, a, r, runs)
	}
	if err != nil && !errors.Is(err, errPeople) {
		return e.interrupted(ctx, r, err)
	}
	return e.render(ctx, a, r, true)
}

// afterwards makes sense of an error when the runs had begun before: a run
// that has ended meanwhile needs no resuming.
func (e *execution) afterwards(err error) error {
	var known *api.Error
	if len(e.runs) > 0 && errors.As(err, &known) && known.Code == api.CodeRunEnded {
		return nil
	}
	return err
}

// execute runs the steps in this process, and watches meanwhile. It returns
// when the runs have ended, or when a signal or a stop ended the execution.
func (e *execution) execute(ctx context.Context, a *app, r *reached, runs []state.Run) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		until := engine.Unattended
		if e.watch.stay {
			until = engine.Idle
		}
		err := r.held.execute(ctx, until)
		cancel()
		done <- err
	}()
	watched := e.watch.until(watching, a, r, runs)
	if err := <-done; err != nil {
		return err
	}
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), e.watch.rest(context.WithoutCancel(ctx), a, r, runs))
	}
	if watching.Err() == nil || !errors.Is(watched, context.Canceled) {
		return watched
	}
	return e.watch.rest(ctx, a, r, runs) // the execution was over first
}

// startResult is what start and resume print.
type startResult struct {
	Run      state.Run `json:"run"`
	Replayed bool      `json:"replayed"`
}

// render prints the runs as they are now, and makes a run that did not
// complete the outcome of the command.
func (e *execution) render(ctx context.Context, a *app, r *reached, ended bool) error {
	details := make([]api.RunDetail, len(e.runs))
	items := make([]startResult, len(e.runs))
	for i, run := range e.runs {
		d, err := r.GetRun(ctx, run.RunID)
		if err != nil {
			return err
		}
		details[i], items[i] = d, startResult{d.Run, e.replayed}
	}
	if err := e.print(a, details, items); err != nil || !ended {
		return err
	}
	return e.ends(ctx, a, r, details)
}

// failed is the outcome of a command that cared for runs of which one has ended
// otherwise than well: a replay otherwise than the run that it repeats. What the end of
// a sub-run means is told by its parent, if the command cares for that as well, unless
// somebody has reopened it, since when it is a run by itself.
func (e *execution) failed(ctx context.Context, r *reached, details []api.RunDetail, compared map[string]*ledger.RunComparison) error {
	for _, d := range details {
		told := toldByParent(d, details)
		if c := compared[d.RunID]; c != nil && !c.Same {
			return differing(d, c)
		} else if c != nil || told || d.Status == state.Completed || !d.Status.Ended() {
			continue
		}
		msg := fmt.Sprintf("run %s is %s", d.RunID, d.Status)
		if why := reason(d.Run); why != "" {
			msg += ": " + why
		}
		return &outcome{exit: exitRunFailed, err: api.Error{
			Code: codeRunFailed, Message: msg, TraceID: d.TraceID, Hint: failedWhere(d, lowest(ctx, r, d)),
		}}
	}
	return nil
}

func (e *execution) print(a *app, details []api.RunDetail, items []startResult) error {
	switch {
	case a.opt.output == outNDJSON:
		for _, x := range items {
			if err := a.stdout.json(x, false); err != nil {
				return err
			}
		}
	case a.opt.output == outJSON && len(items) == 1:
		return a.stdout.json(items[0], true)
	case a.opt.output == outJSON:
		return a.stdout.json(items, true)
	case len(details) == 0:
		a.stdout.printf("no run is open\n")
	}
	if a.opt.output != outTable {
		return a.stdout.err
	}
	for i, d := range details {
		if i > 0 {
			a.stdout.printf("\n")
		}
		renderRun(a.stdout, d)
		if e.replayed {
			a.stderr.note("note: this start had been made before; nothing was started")
		}
	}
	return a.stdout.err
}
