package simtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

var operations = flag.Int("ops", 200, "what the clients do in all")

const clients = 16

// house is a site that this process holds, and serves.
type house struct {
	t     *testing.T
	home  string
	trace string
	e     *engine.Engine
	ended chan error
	stop  func()
	load  *load
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, trace: filepath.Join(t.TempDir(), "trace"), ended: make(chan error, 1)}
	h.home = copied(t, template(t, h.trace, 2))
	var err error
	if h.load, err = newLoad(h.home, 100, false); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	h.e, err = engine.Open(ctx, engine.Options{Home: h.home, Mode: engine.ModeDaemon, Executes: true, Version: "0.1.0", Executor: &quick{trace: h.trace}})
	if err != nil {
		t.Fatal(err)
	}
	stop, served, err := serve(ctx, h.e, h.home)
	if err != nil {
		t.Fatal(err)
	}
	h.stop = func() {
		stop()
		for range people {
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
	}
	go func() { h.ended <- h.e.Execute(ctx, engine.Forever) }()
	return h
}

// client is the i-th client: every second one is in this process and somebody of
// his own, the others speak over the socket.
func (h *house) client(i int) *client {
	h.t.Helper()
	c := &client{load: h.load, rng: rand.New(rand.NewPCG(theSeedOnce(h.t), uint64(i)))}
	if i%2 == 0 {
		c.actor = fmt.Sprintf("uid:%d", 2000+i)
		c.site = h.e.As(api.Principal{Name: c.actor})
		return c
	}
	c.actor = h.load.person(i % people)
	site, err := h.load.connect(i % people)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(site.Close)
	c.site = site
	return c
}

var theSeedOnce = func() func(*testing.T) uint64 {
	var once sync.Once
	var s uint64
	return func(t *testing.T) uint64 {
		once.Do(func() { s = theSeed(t) })
		return s
	}
}()

// finish lets everything end, and returns what is on record.
func (h *house) finish() *audit {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all []api.Site
	for i := range people {
		all = append(all, h.e.As(api.Principal{Name: fmt.Sprintf("uid:%d", 3000+i)}))
	}
	for {
		changed := time.After(20 * time.Millisecond)
		page, err := all[0].ListRuns(ctx, api.RunQuery{Active: true})
		if err != nil {
			h.t.Fatal(err)
		}
		if len(page.Runs) == 0 {
			break
		}
		if err := agree(ctx, all); err != nil {
			h.t.Fatal(err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			h.t.Fatalf("%d runs hang: %+v", len(page.Runs), page.Runs)
		}
	}
	if err := all[0].Stop(ctx, false); err != nil {
		h.t.Fatal(err)
	}
	err := <-h.ended
	h.stop()
	if err = errors.Join(err, h.e.Close()); err != nil {
		h.t.Fatal(err)
	}
	r, err := readRecord(h.home)
	if err != nil {
		h.t.Fatal(err)
	}
	acks, err := h.load.journal.read()
	if err != nil {
		h.t.Fatal(err)
	}
	trace, err := readTrail(h.trace, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	a := &audit{record: r, once: onces()}
	a.acknowledged(acks)
	a.attempts(trace)
	a.secrets(trace)
	a.decisions()
	a.counted(acks)
	if err := a.events(h.home, true); err != nil {
		h.t.Error(err)
	}
	for _, f := range append(a.faults, h.load.faults...) {
		h.t.Error(f)
	}
	return a
}

// counted: what was acknowledged is there as often as it was acknowledged. The
// principals from 3000 on belong to the test itself.
func (a *audit) counted(acks []ack) {
	told, wrote := map[string]int{}, map[string]int{}
	for _, k := range acks {
		if k.Changed && (k.Kind == "start" || k.Kind == "decide") {
			told[k.Kind+" by "+k.Actor]++
		}
	}
	for _, e := range a.entries {
		switch {
		case e.Type == ledger.RunStarted && e.data.(*ledger.RunStart).Parent == "":
			wrote["start by "+e.Actor]++
		case e.Type == ledger.ApprovalDecided && e.Actor < "uid:3":
			wrote["decide by "+e.Actor]++
		}
	}
	for what, n := range wrote {
		if told[what] != n {
			a.fault("%s: %d were acknowledged, %d are on record", what, told[what], n)
		}
	}
	for what, n := range told {
		if wrote[what] == 0 {
			a.fault("%s: %d were acknowledged, none is on record", what, n)
		}
	}
}

// 16 clients start, cancel, retry and decide at once, in process and over the
// socket. Whatever they are told is on record when they are told; everything else
// is refused with a code.
func TestClientsAtOnce(t *testing.T) {
	h := newHouse(t)
	var all sync.WaitGroup
	for i := range clients {
		c := h.client(i)
		all.Go(func() {
			for range *operations / clients {
				if err := c.oneOf(context.Background()); !h.load.settle(context.Background(), err) {
					h.load.fault("%s was not answered: %v", c.actor, err)
				}
			}
		})
	}
	all.Wait()
	a := h.finish()
	t.Logf("%d entries;%s", len(a.entries), h.load.summary())
}

// oneOf does one thing.
func (c *client) oneOf(ctx context.Context) error {
	err := errNothing
	switch n := c.rng.IntN(100); {
	case n < 30:
	case n < 60:
		err = c.decide(ctx)
	case n < 85:
		err = c.byHand(ctx, c.rng.IntN(8)) // retry, skip
	default:
		err = c.byHand(ctx, 10) // cancel
	}
	if errors.Is(err, errNothing) {
		return c.startShared(ctx)
	}
	return err
}

// startShared starts a run, now and then under a token that others use as well.
func (c *client) startShared(ctx context.Context) error {
	n := c.rng.IntN(10_000)
	if n%4 == 0 {
		n %= 40
	}
	ids := []string{"chain", "each", "fails", "fails", "fails", "fails", "gate", "gate", "gate", "locked", "once", "asks", "parent", "outer", "secret"}
	res, err := c.site.StartRun(ctx, api.StartRequest{DAGID: "sim-" + ids[n%len(ids)], RunToken: fmt.Sprintf("shared-%d", n)})
	if err != nil {
		return err
	}
	line, err := c.site.ShowLedger(ctx, res.Run.LastSeq)
	if err != nil {
		return fmt.Errorf("acknowledged, and not on record: %w", err)
	}
	if env, err := ledger.ParseEnvelope(line.Envelope); err != nil || env.RunID != res.Run.RunID {
		return fmt.Errorf("entry %d is of run %s, not %s: %w", res.Run.LastSeq, env.RunID, res.Run.RunID, err)
	}
	return c.told("start", res.Run, ack{Token: fmt.Sprintf("shared-%d", n), Changed: !res.Replayed})
}

// 64 starts with one token make one run, and one of them is told that it made it.
func TestClientsWithOneToken(t *testing.T) {
	h := newHouse(t)
	var all sync.WaitGroup
	var mu sync.Mutex
	ids, first := map[string]int{}, 0
	for i := range 64 {
		c := h.client(i)
		all.Go(func() {
			res, err := c.site.StartRun(context.Background(), api.StartRequest{DAGID: "sim-chain", RunToken: "one"})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[res.Run.RunID]++
			if !res.Replayed {
				first++
				if err := c.told("start", res.Run, ack{Token: "one", Changed: true}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if len(ids) != 1 || first != 1 {
		t.Errorf("64 starts made %d runs, %d say that they were the first: %v", len(ids), first, ids)
	}
	h.finish()
}

// All decide about one approval at once: as many count as it takes, and the others
// are told that it is closed.
func TestClientsWithOneApproval(t *testing.T) {
	h := newHouse(t)
	ctx := context.Background()
	res, err := h.client(0).site.StartRun(ctx, api.StartRequest{DAGID: "sim-gate", RunToken: "gate"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.client(0).told("start", res.Run, ack{Token: "gate", Changed: true}); err != nil {
		t.Fatal(err)
	}
	var open api.ApprovalPage
	for len(open.Approvals) == 0 {
		if open, err = h.client(0).site.ListApprovals(ctx, api.ApprovalQuery{}); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	counted := 0
	for i := range clients {
		c := h.client(2 * i) // somebody else each
		all.Go(func() {
			a := open.Approvals[0]
			out, err := c.site.DecideApproval(ctx, a.ID, api.DecisionRequest{Decision: "continue", PlanHash: a.PlanHash})
			var e *api.Error
			if errors.As(err, &e) && e.Code == api.CodeAlreadyDecided {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			counted++
			if err := c.told("decide", out.Run, ack{StepID: a.StepID, Attempt: a.Attempt, Changed: true}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if counted != open.Approvals[0].Quorum {
		t.Errorf("%d decisions were taken, %d are needed", counted, open.Approvals[0].Quorum)
	}
	a := h.finish()
	closed := slices.DeleteFunc(slices.Clone(a.entries), func(e entry) bool { return e.Type != ledger.ApprovalClosed })
	if len(closed) != 1 || closed[0].data.(*ledger.ApprovalClosing).Result != state.ApprovalApproved {
		t.Errorf("the approval was closed %d times: %+v", len(closed), closed)
	}
}
