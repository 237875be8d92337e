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

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

// load is clients that do everything that can be done, at random.
type load struct {
	home    string
	journal *journal
	most    int  // runs that may be open
	real    bool // the real program serves: it has one socket, and who speaks there is one person

	mu     sync.Mutex // guards what follows
	faults []string
	counts map[string]int // of what was acknowledged, and of what was refused
	starts int
	marks  int
	asked  []api.StartRequest // by others, who may not have been answered
}

func newLoad(home string, most int, real bool) (*load, error) {
	j, err := newJournal(filepath.Join(filepath.Dir(home), "journal"))
	return &load{home: home, journal: j, most: most, real: real, counts: map[string]int{}}, err
}

// connect is a client at the socket of a person.
func (l *load) connect(i int) (*server.Client, error) {
	cookie, err := os.ReadFile(filepath.Join(l.home, "keys", "cookie"))
	if err != nil {
		return nil, err
	}
	path := socket(l.home, i)
	if l.real {
		path = engine.SocketPath(l.home)
	}
	return server.NewClient(server.ClientOptions{Socket: path, Cookie: cookie}), nil
}

// person is who speaks through a client.
func (l *load) person(i int) string {
	if l.real {
		return server.LocalPrincipal(os.Geteuid())
	}
	return person(i)
}

// token is one for a new run.
func (l *load) token() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.starts++
	return fmt.Sprintf("t-%d", l.starts)
}

// later has a client make a start that was made before once more.
func (l *load) later(req api.StartRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, req)
}

// next is a start to be made, one that was made before or a new one.
func (c *client) next() *api.StartRequest {
	c.mu.Lock()
	if n := len(c.asked); n > 0 {
		req := c.asked[n-1]
		c.asked = c.asked[:n-1]
		c.mu.Unlock()
		return &req
	}
	c.mu.Unlock()
	ids := slices.Sorted(maps.Keys(dags))
	id := ids[c.rng.IntN(len(ids))]
	for slices.Contains(crowded, id) && c.rng.IntN(5) > 0 {
		id = ids[c.rng.IntN(len(ids))]
	}
	return &api.StartRequest{DAGID: "sim-" + id, RunToken: c.token()}
}

// client is one client.
type client struct {
	*load
	site  api.Site
	rng   *rand.Rand
	actor string
	again *api.StartRequest // nobody has answered it yet
	role  int               // what it does most: see act
}

// run lets n clients work until ctx is done.
func (l *load) run(ctx context.Context, n int, seed uint64) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			site, err := l.connect(i % people)
			if err != nil {
				l.fault("client %d: %v", i, err)
				return
			}
			defer site.Close()
			c := &client{load: l, site: site, rng: rand.New(rand.NewPCG(seed, uint64(i))), actor: l.person(i % people), role: i % 4}
			if i == n-1 {
				c.role = maintainer
			}
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

// seen is how often something was acknowledged.
func (l *load) seen(kind ledger.Type) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[string(kind)]
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
	api.CodeQueueDraining, api.CodeDAGDisabled,
}

// closed are the codes of starts that cannot be made for now.
var closed = []api.Code{api.CodeQueueDraining, api.CodeDAGDisabled}

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
	case c.role == maintainer:
		return c.maintain(ctx)
	case n < 45 || c.role > 1 && n < 70:
		return c.start(ctx)
	case n < 65 || c.role > 1:
		return c.decide(ctx)
	case n < 75:
		return c.look(ctx)
	case c.role == 1:
		return c.wide(ctx)
	default:
		return c.byHand(ctx, c.rng.IntN(26))
	}
}

// look only reads.
func (c *client) look(ctx context.Context) error {
	st, err := c.site.Status(ctx)
	if err == nil && st.Entries == 0 {
		err = fmt.Errorf("the ledger is empty: %+v", st)
	}
	if err != nil {
		return err
	}
	page, err := c.site.ListRuns(ctx, api.RunQuery{PageSize: 20})
	if err != nil || len(page.Runs) == 0 {
		return err
	}
	id := page.Runs[c.rng.IntN(len(page.Runs))].RunID
	if c.rng.IntN(2) == 0 {
		return c.site.RunLogs(ctx, api.LogQuery{RunID: id}, func(api.LogLine) error { return nil })
	}
	_, err = c.site.InspectRun(ctx, id)
	return err
}

// start starts a run, or asks again for one whose answer did not come.
func (c *client) start(ctx context.Context) error {
	if c.again == nil {
		st, err := c.site.Status(ctx)
		if err != nil || st.ActiveRuns >= c.most {
			return err
		}
		c.again = c.next()
	}
	res, err := c.site.StartRun(ctx, *c.again)
	var e *api.Error
	if errors.As(err, &e) && slices.Contains(closed, e.Code) {
		c.again = nil // whoever insists would never let the queue go on
	}
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

// aCancel is an n for [client.byHand].
const aCancel = 10

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
	case n < aCancel:
		kind = "skip"
		out, err = c.site.SkipStep(ctx, id, api.SkipRequest{StepID: step, Reason: "r"})
	case n < 13:
		kind, out.Changed = "cancel", true
		out.Run, err = c.site.CancelRun(ctx, id, c.words())
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
