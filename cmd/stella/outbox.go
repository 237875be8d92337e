package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newOutboxCmd(a *app) *cobra.Command {
	return group("outbox", "Events for receivers outside",
		"See what the sinks of site.toml have not taken, have it tried again, and give up sinks that\n"+
			"are configured no more. An event is an entry of the ledger; a sink is sent those it asks for,\n"+
			"at least once, those of a run in order, while a daemon or a run in the foreground executes.",
		newOutboxListCmd(a), newOutboxShowCmd(a), newOutboxRequeueCmd(a), newOutboxForgetCmd(a))
}

// outboxListOptions are the flags of outbox list.
type outboxListOptions struct {
	pending, failing, dead bool
	q                      api.OutboxQuery
}

func newOutboxListCmd(a *app) *cobra.Command {
	var opt outboxListOptions
	c := &cobra.Command{
		Use:   "list",
		Short: "List sinks, and the events that they have not taken",
		Long: "List the sinks with their counts, and the events that they have not taken: those that are\n" +
			"pending, the failing ones among them, and the dead, which were tried as often as they may be\n" +
			"and are set aside. NDJSON has the events alone; --output json the sinks too.",
		Example: "  stella orch outbox list\n  stella orch outbox list --failing --output ndjson\n  stella orch outbox list --dead --sink hook",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runOutboxList(c.Context(), a, opt) },
	}
	f := c.Flags()
	f.BoolVar(&opt.pending, "pending", false, "only events that are not taken yet, failing or not")
	f.BoolVar(&opt.failing, "failing", false, "only events of which an attempt has failed")
	f.BoolVar(&opt.dead, "dead", false, "only events that are set aside")
	f.StringVar(&opt.q.Sink, "sink", "", "only those of this sink, by `NAME`")
	f.IntVar(&opt.q.PageSize, "limit", 0, "`N` events to list, at most 500 (default 50)")
	f.StringVar(&opt.q.PageToken, "page-token", "", "go on after an earlier list: its nextPageToken, a `TOKEN`")
	c.MarkFlagsMutuallyExclusive("pending", "failing", "dead")
	return c
}

func runOutboxList(ctx context.Context, a *app, opt outboxListOptions) error {
	switch {
	case opt.pending:
		opt.q.State = api.EventPending
	case opt.failing:
		opt.q.State = api.EventFailing
	case opt.dead:
		opt.q.State = api.EventDead
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		page, err := r.ListOutbox(ctx, opt.q)
		if err != nil {
			return err
		}
		if a.opt.output != outTable {
			return emitList(a, page, page.Events, nil, nil)
		}
		renderOutbox(a.stdout, page)
		if page.NextPageToken != "" {
			a.stderr.note("note: there are more; go on with --page-token %s", page.NextPageToken)
		}
		return a.stdout.err
	})
}

func renderOutbox(s *screen, page api.OutboxPage) {
	if len(page.Sinks) == 0 {
		s.printf("no sink is configured, so nobody is told of anything. Add one to site.toml:\n\n" +
			"[[sink]]\nname = \"events\"    # a file, outbox/events.ndjson in the home\n\n" +
			"A running daemon reads that when it is started again.\n")
		return
	}
	rows := make([][]string, len(page.Sinks))
	for i, x := range page.Sinks {
		pending := strconv.Itoa(x.Pending)
		if x.AtLeast {
			pending += " or more"
		}
		rows[i] = []string{x.Name, x.Kind, sinkState(x), pending, strconv.Itoa(x.Failing), strconv.Itoa(x.Dead),
			strconv.FormatInt(x.Delivered, 10), seconds(x.LastUTC), x.Target}
	}
	s.table([]string{"SINK", "KIND", "STATE", "PENDING", "FAILING", "DEAD", "DELIVERED", "LAST", "TARGET"}, rows)
	if len(page.Events) == 0 {
		return
	}
	s.printf("\n")
	rows = make([][]string, len(page.Events))
	for i, e := range page.Events {
		rows[i] = []string{shortEvent(e.ID), e.State, e.Topic, e.RunID, attempts(e.Attempts), seconds(e.DueUTC), e.LastError}
	}
	s.table([]string{"EVENT", "STATE", "TOPIC", "RUN", "ATTEMPTS", "DUE", "LAST ERROR"}, rows)
}

// sinkState says in a word whether anything goes to a sink.
func sinkState(x api.Sink) string {
	switch {
	case !x.Configured:
		return "unconfigured"
	case !x.Begun:
		return "new"
	case !x.Delivering:
		return "waiting" // for something that executes
	}
	return "active"
}

// shortEvent is an id as tables show it: without its hash.
func shortEvent(id string) string {
	if i := strings.LastIndexByte(id, '/'); i > strings.IndexByte(id, '/') {
		return id[:i]
	}
	return id
}

func newOutboxShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show SINK/SEQ",
		Short: "Show one event with its payload",
		Long: "Show what has become of an event, and the payload that its sink is sent, exactly. SEQ is\n" +
			"the number of its ledger entry.",
		Example: "  stella orch outbox show hook/57",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runOutboxShow(c.Context(), a, args[0]) },
	}
}

func runOutboxShow(ctx context.Context, a *app, id string) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		e, err := r.ShowEvent(ctx, id)
		if err != nil {
			return err
		}
		return a.emit(e, func(s *screen) {
			s.fields("event", e.ID, "state", e.State, "topic", e.Topic, "run", e.RunID, "tenant", e.Tenant, "created", seconds(e.CreatedUTC),
				"attempts", attempts(e.Attempts), "due", seconds(e.DueUTC), "last error", e.LastError, "payload", string(e.Payload))
		})
	})
}

func newOutboxRequeueCmd(a *app) *cobra.Command {
	var req api.RequeueRequest
	c := &cobra.Command{
		Use:   "requeue SINK/SEQ... | --all-dead",
		Short: "Have events delivered again that failed",
		Long: "Have events tried again at once: dead ones once more, or with --reset-attempts as often as\n" +
			"new ones; failing ones before they are due. Mend the receiver first. Events of the same run\n" +
			"that are newer may have been delivered meanwhile. It is recorded in the ledger.",
		Example: "  stella orch outbox requeue hook/57 hook/61\n  stella orch outbox requeue --all-dead --sink hook --reset-attempts",
		Args:    cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			req.IDs = args
			return runOutboxRequeue(c.Context(), a, req)
		},
	}
	f := c.Flags()
	f.BoolVar(&req.AllDead, "all-dead", false, "all events that are set aside")
	f.StringVar(&req.Sink, "sink", "", "with --all-dead: only those of this sink, by `NAME`")
	f.BoolVar(&req.ResetAttempts, "reset-attempts", false, "count their attempts from the beginning")
	return c
}

func runOutboxRequeue(ctx context.Context, a *app, req api.RequeueRequest) error {
	if req.AllDead == (len(req.IDs) > 0) {
		return invalid("name events or --all-dead, one of the two")
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		res, err := r.RequeueEvents(ctx, req)
		if err != nil {
			return err
		}
		if len(res.Sinks) > 0 && !res.Delivering {
			a.stderr.note("note: nothing executes here now; they are delivered by the next daemon or run")
		}
		return a.acted(false, res, func(s *screen) {
			if len(res.Sinks) == 0 {
				s.printf("nothing is dead\n")
			}
			for _, x := range res.Sinks {
				s.printf("%s: %s requeued\n", x.Sink, count(x.Events, "event", "events"))
			}
		})
	})
}

func newOutboxForgetCmd(a *app) *cobra.Command {
	var req api.ForgetRequest
	c := &cobra.Command{
		Use:   "forget SINK",
		Short: "Give up a sink that is configured no more",
		Long: "Give up a sink that site.toml does not name any more: how far it had come, and the events\n" +
			"that it had not taken. Configured again under the same name it would be a new one. It is\n" +
			"recorded in the ledger, which keeps the entries themselves.",
		Example: "  stella orch outbox forget hook --dry-run\n  stella orch outbox forget hook --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			req.Sink = args[0]
			return runOutboxForget(c.Context(), a, req)
		},
	}
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "only say what would be given up")
	return c
}

func runOutboxForget(ctx context.Context, a *app, req api.ForgetRequest) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		look := req
		look.DryRun = true
		res, err := r.ForgetSink(ctx, look)
		if err != nil {
			return err
		}
		verb := "would be given up"
		if !req.DryRun {
			lost := count(res.Dropped, "event that it has not taken is", "events that it has not taken are")
			if err := a.confirm(fmt.Sprintf("give up sink %s? %s lost to it", req.Sink, lost)); err != nil {
				return err
			}
			if res, err = r.ForgetSink(ctx, req); err != nil {
				return err
			}
			verb = "is given up"
		}
		return a.acted(req.DryRun, res, func(s *screen) {
			s.printf("sink %s %s, with %s; it had seen %s\n", res.Sink, verb,
				count(res.Dropped, "event", "events"), count(res.Next, "entry", "entries"))
		})
	})
}
