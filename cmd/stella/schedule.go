package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/runner/schedule"
	"github.com/stellarun/stella/server/api"
)

func newScheduleCmd(a *app) *cobra.Command {
	return group("schedule", "Runs that start by the clock",
		"Start runs of a DAG again and again: by cron in a time zone, or at an interval. Schedules fire\n"+
			"while a daemon runs; what comes of each instant is in the ledger (--type schedule.fired).",
		newScheduleAddCmd(a), newScheduleListCmd(a), newScheduleShowCmd(a), newScheduleNextCmd(a),
		newSchedulePauseCmd(a), newScheduleResumeCmd(a), newScheduleRemoveCmd(a), newScheduleClearCmd(a))
}

// whenOptions are the flags that say when something recurs.
type whenOptions struct {
	cron, zone, anchor string
	every              time.Duration
}

func (o *whenOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.cron, "cron", "", "five `FIELDS`: minute hour day month weekday; or @hourly @daily @weekly @monthly @yearly")
	f.StringVar(&o.zone, "zone", "", "time `ZONE` of --cron, such as Europe/Berlin (default UTC)")
	f.DurationVar(&o.every, "every", 0, "`INTERVAL`, such as 90s or 6h: whole seconds")
	f.StringVar(&o.anchor, "anchor", "", "`TIME` of the first instant of --every (default: one interval from now)")
	c.MarkFlagsMutuallyExclusive("cron", "every")
	c.MarkFlagsMutuallyExclusive("cron", "anchor")
	c.MarkFlagsMutuallyExclusive("every", "zone")
}

// anchorTime is the anchor in the one form of a time, or "".
func (o *whenOptions) anchorTime() (string, error) {
	if o.anchor == "" {
		return "", nil
	}
	at, err := parseTime(o.anchor)
	if err != nil {
		return "", err
	}
	return stamp.Format(at), nil
}

// scheduleAddOptions are the flags of schedule add.
type scheduleAddOptions struct {
	when    whenOptions
	req     api.ScheduleRequest
	file    string
	inputs  []string
	meta    []string
	catchUp time.Duration
}

func newScheduleAddCmd(a *app) *cobra.Command {
	var opt scheduleAddOptions
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a schedule",
		Long: "Start a DAG again and again, as schedule:NAME. Without --version each instant takes the highest\n" +
			"version that is enabled then. A local time that does not exist, when clocks go forward, comes at\n" +
			"the moment of the change; one that exists twice comes once.\n\n" +
			"An instant at which no daemon ran is missed. --catch-up says how long after it is still started:\n" +
			"all within that time are, oldest first, at most 100. --overlap says what happens to an instant\n" +
			"that comes while the last run is open: skip it, queue it until that run ends, cancel-running (that\n" +
			"run is cancelled, then the newest instant starts), or allow another run beside it.\n\n" +
			"Adding the same again changes nothing. A schedule cannot be changed: remove it, then add it.",
		Example: "  stella orch schedule add nightly --dag-id audit --cron \"30 2 * * *\" --zone Europe/Berlin --catch-up 6h\n" +
			"  stella orch schedule add probe --dag-id probe --every 15m --overlap queue --input target=all",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			opt.req.Name = args[0]
			return runScheduleAdd(c.Context(), a, opt)
		},
	}
	opt.when.flags(c)
	f := c.Flags()
	f.StringVar(&opt.req.DAGID, "dag-id", "", "`ID` of the DAG to run (required)")
	f.StringVar(&opt.req.Version, "version", "", "`VERSION` of the DAG (default: the highest enabled one at each instant)")
	f.StringVar(&opt.file, "inputs", "", "`FILE` with the inputs, a JSON object")
	f.StringArrayVar(&opt.inputs, "input", nil, "one `INPUT`: k=v or k:=json; may be given again")
	f.StringArrayVar(&opt.meta, "meta", nil, "a `NOTE` on each run: k=v; may be given again")
	f.DurationVar(&opt.catchUp, "catch-up", 0, "`DURATION` for which a missed instant is still started (default: not at all)")
	f.StringVar(&opt.req.Overlap, "overlap", "", "`POLICY` while the last run is open: skip, queue, cancel-running or allow (default skip)")
	_ = c.MarkFlagRequired("dag-id")
	c.MarkFlagsOneRequired("cron", "every")
	_ = c.RegisterFlagCompletionFunc("overlap", cobra.FixedCompletions(
		[]string{api.OverlapSkip, api.OverlapQueue, api.OverlapCancel, api.OverlapAllow}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func runScheduleAdd(ctx context.Context, a *app, opt scheduleAddOptions) error {
	req := opt.req
	var err error
	if req.Inputs, err = readInputs(opt.file, opt.inputs); err != nil {
		return err
	}
	if req.Metadata, err = readMeta(opt.meta); err != nil {
		return err
	}
	if req.Anchor, err = opt.when.anchorTime(); err != nil {
		return err
	}
	req.Cron, req.Zone = opt.when.cron, opt.when.zone
	if req.EveryMs, err = millis("every", opt.when.every); err != nil {
		return err
	}
	if req.CatchUpMs, err = millis("catch-up", opt.catchUp); err != nil {
		return err
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		s, err := r.AddSchedule(ctx, req)
		if err != nil {
			return err
		}
		if r.held != nil { // nobody else was there
			a.stderr.note("note: no daemon is running; schedules fire while one is: stella daemon start")
		}
		return a.acted(false, s, func(out *screen) { renderSchedule(out, s) })
	})
}

// millis is a duration of the command line in milliseconds, exactly.
func millis(flag string, d time.Duration) (int64, error) {
	if d%time.Millisecond != 0 {
		return 0, invalid("--%s %s has fractions of a millisecond", flag, d)
	}
	return d.Milliseconds(), nil
}

// recurs is when a schedule fires, as people read it.
func recurs(s api.ScheduleSpec) string {
	if s.Cron == "" {
		return "every " + (time.Duration(s.EveryMs) * time.Millisecond).String()
	}
	if s.Zone == "" {
		return s.Cron + " UTC"
	}
	return s.Cron + " " + s.Zone
}

// lastOf is what came of the newest instant.
func lastOf(s api.Schedule) string {
	switch {
	case s.LastUTC == "":
		return ""
	case s.LastErrorCode != "":
		return seconds(s.LastUTC) + " " + s.LastReason + " " + s.LastErrorCode
	case s.LastReason != "":
		return seconds(s.LastUTC) + " " + s.LastReason
	}
	return seconds(s.LastUTC) + " " + s.LastRunStatus
}

func renderSchedule(out *screen, s api.Schedule) {
	dag := s.DAGID
	if s.Version != "" {
		dag += " " + s.Version
	}
	state, catchUp, last := s.State, "", ""
	if s.Why != "" {
		state += ": " + s.Why
	}
	if s.CatchUpMs > 0 {
		catchUp = (time.Duration(s.CatchUpMs) * time.Millisecond).String()
	}
	if s.LastRunID != "" {
		last = s.LastRunID + " " + s.LastRunStatus
	}
	out.fields("schedule", s.Name, "dag", dag, "when", recurs(s.ScheduleSpec), "anchor", seconds(s.Anchor), "state", state,
		"next", seconds(s.NextUTC), "catch-up", catchUp, "overlap", s.Overlap, "inputs", "sha256:"+s.InputsHash,
		"added", seconds(s.AddedUTC)+" by "+s.AddedBy, "runs", strconv.FormatInt(s.Fired, 10), "skipped", strconv.FormatInt(s.Skipped, 10),
		"last instant", lastOf(s), "last run", last)
}

func newScheduleListCmd(a *app) *cobra.Command {
	var q api.ScheduleQuery
	c := &cobra.Command{
		Use:   "list",
		Short: "List schedules",
		Long: "List schedules by name, with the next instant of each, what came of the last one, and why it\n" +
			"does not fire if it does not: paused, or stopped because no version of its DAG is enabled.",
		Example: "  stella orch schedule list\n  stella orch schedule list --state stopped --output ndjson",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runScheduleList(c.Context(), a, q) },
	}
	c.Flags().StringVar(&q.DAGID, "dag-id", "", "only schedules of this DAG `ID`")
	c.Flags().StringVar(&q.State, "state", "", "only schedules in this `STATE`: active, paused or stopped")
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(
		[]string{api.ScheduleActive, api.SchedulePaused, api.ScheduleStopped}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

type scheduleList struct {
	Schedules []api.Schedule `json:"schedules"`
}

func runScheduleList(ctx context.Context, a *app, q api.ScheduleQuery) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		list, err := r.ListSchedules(ctx, q)
		if err != nil {
			return err
		}
		return emitSchedules(a, scheduleList{list}, list)
	})
}

func emitSchedules(a *app, v any, list []api.Schedule) error {
	return emitList(a, v, list, []string{"SCHEDULE", "DAG", "VERSION", "WHEN", "NEXT", "LAST", "STATE"}, func(s api.Schedule) []string {
		state, version := s.State, s.Version
		if s.Why != "" {
			state += ": " + s.Why
		}
		if version == "" {
			version = "-"
		}
		return []string{s.Name, s.DAGID, version, recurs(s.ScheduleSpec), orDash(seconds(s.NextUTC)), orDash(lastOf(s)), state}
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newScheduleShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a schedule with its inputs",
		Long:    "Show a schedule: when it fires, what it starts with which inputs, and what came of it so far.",
		Example: "  stella orch schedule show nightly",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runScheduleShow(c.Context(), a, args[0]) },
	}
}

func runScheduleShow(ctx context.Context, a *app, name string) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		d, err := r.ShowSchedule(ctx, name)
		if err != nil {
			return err
		}
		return a.emit(d, func(s *screen) {
			renderSchedule(s, d.Schedule)
			s.printf("\n%s\n", string(d.Inputs))
		})
	})
}

func newScheduleNextCmd(a *app) *cobra.Command {
	var when whenOptions
	n := 5
	c := &cobra.Command{
		Use:   "next [NAME]",
		Short: "List coming instants",
		Long: "List the coming instants of a schedule, whether or not it would fire then; or of --cron or --every,\n" +
			"without a site, before a schedule is added.",
		Example: "  stella orch schedule next nightly\n  stella orch schedule next --cron \"30 2 * * *\" --zone Europe/Berlin --count 10",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			planned := when.cron != "" || when.every != 0
			switch {
			case n < 1 || n > 1000:
				return invalid("--count is 1 to 1000, not %d", n)
			case planned == (len(args) == 1):
				return invalid("name a schedule, or give --cron or --every; one of the two")
			case planned:
				return runScheduleNextOf(a, when, n)
			}
			return runScheduleNext(c.Context(), a, args[0], n)
		},
	}
	when.flags(c)
	c.Flags().IntVar(&n, "count", 5, "how many, at most 1000: `N`")
	return c
}

func runScheduleNext(ctx context.Context, a *app, name string, n int) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		list, err := r.NextInstants(ctx, name, n)
		if err != nil {
			return err
		}
		return emitInstants(a, list)
	})
}

func runScheduleNextOf(a *app, when whenOptions, n int) error {
	spec := schedule.Spec{Cron: strings.Join(strings.Fields(when.cron), " "), Zone: when.zone, Every: when.every}
	if when.every != 0 {
		spec.Anchor = a.now().UTC().Truncate(time.Second).Add(when.every)
	}
	if when.anchor != "" {
		var err error
		if spec.Anchor, err = parseTime(when.anchor); err != nil {
			return err
		}
	}
	s, err := schedule.New(spec)
	if err != nil {
		return invalid("%v", err)
	}
	list := []string{}
	for at := s.Next(a.now()); !at.IsZero() && len(list) < n; at = s.Next(at) {
		list = append(list, stamp.Format(at))
	}
	return emitInstants(a, list)
}

type instantList struct {
	Instants []string `json:"instants"`
}

func emitInstants(a *app, list []string) error {
	return emitList(a, instantList{list}, list, []string{"INSTANT"}, func(at string) []string { return []string{seconds(at)} })
}
