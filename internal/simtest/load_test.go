package simtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

// load is clients that do everything that can be done, at random.
type load struct {
	home    string
	journal *journal
	most    int // runs that may be open

	mu     sync.Mutex // guards what follows
	faults []string
	counts map[string]int // of what was acknowledged, and of what was refused
	starts int
}

func newLoad(home string, most int) (*load, error) {
	j, err := newJournal(filepath.Join(filepath.Dir(home), "journal"))
	return &load{home: home, journal: j, most: most, counts: map[string]int{}}, err
}

// connect is a client at the socket of a person.
func connect(home string, i int) (*server.Client, error) {
	cookie, err := os.ReadFile(filepath.Join(home, "keys", "cookie"))
	if err != nil {
		return nil, err
	}
	return server.NewClient(server.ClientOptions{Socket: socket(home, i), Cookie: cookie}), nil
}

// client is one client.
type client struct {
	*load
	site  api.Site
	rng   *rand.Rand
	actor string
	again *api.StartRequest // nobody has answered it yet
	busy  bool              // it only starts and decides
}

// run lets n clients work until ctx is done.
func (l *load) run(ctx context.Context, n int, seed uint64) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			site, err := connect(l.home, i%people)
			if err != nil {
				l.fault("client %d: %v", i, err)
				return
			}
			defer site.Close()
			c := &client{load: l, site: site, rng: rand.New(rand.NewPCG(seed, uint64(i))), actor: person(i % people), busy: i%4 > 0}
			for ctx.Err() == nil {
				if err := c.act(ctx); !c.settle(ctx, err) {
					select { // nobody serves the site at the moment
					case <-time.After(2 * time.Millisecond):
					case <-ctx.Done():
					}
				}
			}
		})
	}
	all.Wait()
}

func (l *load) fault(format string, a ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, fmt.Sprintf(format, a...))
}

func (l *load) count(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what]++
}

func (l *load) summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := ""
	for _, what := range slices.Sorted(maps.Keys(l.counts)) {
		s += fmt.Sprintf(" %s=%d", what, l.counts[what])
	}
	return s
}

// refusals are the codes of what cannot be done now, to a run or by this process.
var refusals = []api.Code{
	api.CodeConflict, api.CodeRunEnded, api.CodeAlreadyDecided, api.CodeStale, api.CodeApprovalExpired, api.CodeStopping, api.CodeNotExecuting,
}

var errNothing = errors.New("there is nothing to do it to")

// settle takes over what came of a request: false if nobody answered.
func (l *load) settle(ctx context.Context, err error) bool {
	var e *api.Error
	switch {
	case err == nil || errors.Is(err, errNothing):
	case errors.Is(err, server.ErrUnreachable) || ctx.Err() != nil:
		return false
	case errors.As(err, &e) && slices.Contains(refusals, e.Code):
		l.count("refused:" + string(e.Code))
	default:
		l.fault("%v", err)
	}
	return true
}

// act does one thing.
func (c *client) act(ctx context.Context) error {
	if c.again != nil {
		return c.start(ctx)
	}
	switch n := c.rng.IntN(100); {
	case n < 55 || c.busy && n < 70:
		return c.start(ctx)
	case n < 80 || c.busy:
		return c.decide(ctx)
	case n < 85:
		st, err := c.site.Status(ctx)
		if err == nil && st.Entries == 0 {
			err = fmt.Errorf("the ledger is empty: %+v", st)
		}
		return err
	default:
		return c.byHand(ctx, c.rng.IntN(26))
	}
}

// start starts a run, or asks again for one whose answer did not come.
func (c *client) start(ctx context.Context) error {
	if c.again == nil {
		st, err := c.site.Status(ctx)
		if err != nil || st.ActiveRuns >= c.most {
			return err
		}
		c.mu.Lock()
		c.starts++
		token := fmt.Sprintf("t-%d", c.starts)
		c.mu.Unlock()
		ids := slices.Sorted(maps.Keys(dags))
		c.again = &api.StartRequest{DAGID: "sim-" + ids[c.rng.IntN(len(ids))], RunToken: token}
	}
	res, err := c.site.StartRun(ctx, *c.again)
	if err != nil {
		return err
	}
	token := c.again.RunToken
	c.again = nil
	return c.told("start", res.Run, ack{Token: token, Changed: !res.Replayed})
}

// told takes down what was acknowledged.
func (c *client) told(kind string, run state.Run, a ack) error {
	a.Kind, a.RunID, a.Actor, a.Seq = kind, run.RunID, c.actor, run.LastSeq
	c.count(kind)
	return c.journal.add(a)
}

func (c *client) decide(ctx context.Context) error {
	page, err := c.site.ListApprovals(ctx, api.ApprovalQuery{All: c.rng.IntN(10) == 0})
	if err == nil && len(page.Approvals) == 0 {
		err = errNothing
	}
	if err != nil {
		return err
	}
	a := page.Approvals[c.rng.IntN(len(page.Approvals))]
	if slices.ContainsFunc(a.Decisions, func(d state.Decision) bool { return d.Actor == c.actor }) && c.rng.IntN(10) > 0 {
		return errNothing // once is enough, most of the time
	}
	what := []string{"continue", "continue", "continue", "continue", "continue", "continue", "retry", "abort"}[c.rng.IntN(8)]
	out, err := c.site.DecideApproval(ctx, a.ID, api.DecisionRequest{Decision: what, PlanHash: a.PlanHash})
	if err != nil {
		return err
	}
	return c.told("decide", out.Run, ack{StepID: a.StepID, Attempt: a.Attempt, Changed: true})
}

// byHand does something to a run that fits: n is 0 to 25.
func (c *client) byHand(ctx context.Context, n int) error {
	q := api.RunQuery{Active: true, PageSize: 20}
	if n < 10 {
		q = api.RunQuery{Status: string(state.Failed), PageSize: 20}
	}
	page, err := c.site.ListRuns(ctx, q)
	if err == nil && len(page.Runs) == 0 && q.Status != "" {
		page, err = c.site.ListRuns(ctx, api.RunQuery{Active: true})
	}
	if err == nil && len(page.Runs) == 0 {
		err = errNothing
	}
	if err != nil {
		return err
	}
	run := page.Runs[c.rng.IntN(len(page.Runs))]
	id, step := run.RunID, ""
	if !run.Status.Ended() {
		step = "a" // it may have ended
	}
	var out api.Recovered
	kind := ""
	again := api.AgainRequest{Repeat: c.rng.IntN(2) == 0}
	switch {
	case n < 6:
		kind = "retry"
		out, err = c.site.RetryRun(ctx, id, api.RetryRequest{StepID: step, Downstream: again.Repeat, DelayMs: int64(c.rng.IntN(2) * 30)})
	case n < 10:
		kind = "skip"
		out, err = c.site.SkipStep(ctx, id, api.SkipRequest{StepID: step, Reason: "r"})
	case n < 13:
		kind, out.Changed = "cancel", true
		out.Run, err = c.site.CancelRun(ctx, id, "r")
	case n < 14:
		kind = "abort"
		out, err = c.site.AbortRun(ctx, id, api.EndRequest{Reason: "r"})
	case n < 16:
		kind = "fail"
		out, err = c.site.FailRun(ctx, id, api.EndRequest{Reason: "r"})
	case n < 20:
		kind = "restart"
		out, err = c.site.RestartRun(ctx, id, again)
	case n < 24:
		kind = "reset"
		out, err = c.site.ResetRun(ctx, id, again)
	default:
		kind = "nudge"
		out, err = c.site.NudgeRun(ctx, id, api.NudgeRequest{Reason: "r"})
	}
	if err != nil {
		return err
	}
	return c.told(kind, out.Run, ack{Changed: out.Changed})
}
