package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

func TestAScheduleIsCheckedWhenItIsAdded(t *testing.T) {
	inBubble(t, func(t *testing.T, c *clockwork) {
		c.publish("0.9.0", 2)
		if _, err := c.site().DisableDAG(context.Background(), "audit", "0.9.0", api.DAGSwitch{Reason: "old"}); err != nil {
			t.Fatal(err)
		}
		for name, k := range map[string]struct {
			req  api.ScheduleRequest
			code api.Code
		}{
			"no DAG":               {api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{DAGID: "nothing", Cron: "@daily"}}, api.CodeNotFound},
			"a disabled version":   {api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Version: "0.9.0", Cron: "@daily"}}, api.CodeDAGDisabled},
			"an unknown input":     {api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "@daily"}, Inputs: json.RawMessage(`{"x":1}`)}, api.CodeInputsInvalid},
			"no time":              {api.ScheduleRequest{}, api.CodeInvalid},
			"an unknown overlap":   {api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "@daily", Overlap: "maybe"}}, api.CodeInvalid},
			"a negative window":    {api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "@daily", CatchUpMs: -1}}, api.CodeInvalid},
			"half a second":        {api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{EveryMs: 500}}, api.CodeInvalid},
			"more than there is":   {api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{EveryMs: 1 << 62}}, api.CodeInvalid},
			"an anchor of no sort": {api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{EveryMs: 1000, Anchor: "noon"}}, api.CodeInvalid},
			"a bad name":           {api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Name: "A b", Cron: "@daily"}}, api.CodeInvalid},
		} {
			if k.req.Name == "" {
				k.req.Name = "s"
			}
			if k.req.DAGID == "" {
				k.req.DAGID = "audit"
			}
			var e *api.Error
			if _, err := c.site().AddSchedule(context.Background(), k.req); !errors.As(err, &e) || e.Code != k.code {
				t.Errorf("%s: %v, want %s", name, err, k.code)
			}
		}
		req := api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{EveryMs: 60_000}}
		first := c.add(req)
		c.pass(time.Second)
		if again := c.add(req); again.Seq != first.Seq || again.Anchor != first.Anchor {
			t.Errorf("the same once more is %+v, it was %+v", again, first)
		}
		req.Name, req.DAGID, req.EveryMs = "s", "audit", 61_000
		var e *api.Error
		if _, err := c.site().AddSchedule(context.Background(), req); !errors.As(err, &e) || e.Code != api.CodeConflict || !strings.Contains(e.Message, "everyMs") {
			t.Errorf("another one of its name: %v", err)
		}
		if _, err := c.site().StartRun(context.Background(), api.StartRequest{DAGID: "audit", RunToken: "stella:sched:s:x"}); !errors.As(err, &e) || e.Code != api.CodeInvalid {
			t.Errorf("a caller with a token of a schedule: %v", err)
		}
	})
}

// What another tenant has is not there; and removal ends it at once.
func TestSchedulesBelongToTenants(t *testing.T) {
	inBubble(t, func(t *testing.T, c *clockwork) {
		c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "*/10 * * * *"}})
		other := c.e.As(api.Principal{Name: who, Tenant: "other"})
		var e *api.Error
		if _, err := other.ShowSchedule(context.Background(), "s"); !errors.As(err, &e) || e.Code != api.CodeNotFound {
			t.Errorf("a foreign schedule: %v", err)
		}
		if rep, err := other.RemoveSchedules(context.Background(), api.ScheduleSelection{All: true}); err != nil || len(rep.Changed) != 0 {
			t.Errorf("removing all of another tenant: %+v, %v", rep, err)
		}
		if _, err := other.AddSchedule(context.Background(), api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Name: "s", DAGID: "audit", Cron: "*/10 * * * *"}}); err != nil {
			t.Errorf("a name that another tenant has: %v", err)
		}
		if rep, err := c.site().RemoveSchedules(context.Background(), api.ScheduleSelection{Name: "s", DryRun: true}); err != nil || len(rep.Changed) != 1 || !rep.DryRun {
			t.Errorf("RemoveSchedules for show: %+v, %v", rep, err)
		}
		if rep, err := c.site().RemoveSchedules(context.Background(), api.ScheduleSelection{Name: "s"}); err != nil || len(rep.Changed) != 1 {
			t.Errorf("RemoveSchedules: %+v, %v", rep, err)
		}
		c.pass(10 * time.Minute)
		mine, err := c.site().ListRuns(context.Background(), api.RunQuery{})
		theirs, err2 := other.ListRuns(context.Background(), api.RunQuery{})
		if err != nil || err2 != nil || len(mine.Runs) != 0 || len(theirs.Runs) != 1 {
			t.Errorf("%d runs of ours, %d of theirs, %v, %v; want 0 and 1", len(mine.Runs), len(theirs.Runs), err, err2)
		}
	})
}

// The inputs of a schedule are named by its entry alone until it fires.
func TestTheInputsOfAScheduleAreKept(t *testing.T) {
	inBubble(t, func(t *testing.T, c *clockwork) {
		c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "@yearly"}, Inputs: json.RawMessage(`{"who":"kept"}`)})
		c.down() // what was just put counts as busy
		c.up()
		rep, err := c.site().CollectGarbage(context.Background(), api.GCRequest{}, nil)
		if err != nil || rep.Blobs != 0 {
			t.Errorf("a collection gave up %+v, %v", rep, err)
		}
		d, err := c.site().ShowSchedule(context.Background(), "s")
		if err != nil || string(d.Inputs) != `{"who":"kept"}` {
			t.Errorf("the inputs are %s, %v", d.Inputs, err)
		}
	})
}

// A run in the foreground executes what it was asked for, and nothing else.
func TestOnlyADaemonFires(t *testing.T) {
	inBubble(t, func(t *testing.T, c *clockwork) {
		c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "*/10 * * * *"}})
		c.down()
		e, err := engine.Open(context.Background(), engine.Options{
			Home: c.home, Mode: engine.ModeForeground, Executes: true, Version: "0.1.0", Executor: &c.work, Now: c.now,
		})
		if err != nil {
			t.Fatal(err)
		}
		c.e = e
		c.work.takes.Store(int64(15 * time.Minute))
		c.start(api.StartRequest{DAGID: "audit"})
		c.execute() // until 00:30
		c.want("in the foreground")
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		c.up()
		c.want("in a daemon", "00:20:00 MISSED ×2", "00:30:00 run")
	})
}

// A daemon that was asked to end waits for its attempts, and starts nothing more.
func TestADaemonThatEndsFiresNoMore(t *testing.T) {
	inBubble(t, func(t *testing.T, c *clockwork) {
		c.work.takes.Store(int64(25 * time.Minute))
		c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "*/10 * * * *", Overlap: "allow"}})
		c.pass(11 * time.Minute)
		if err := c.site().Stop(context.Background(), false); err != nil {
			t.Fatal(err)
		}
		c.pass(20 * time.Minute)
		c.want("while it waits", "00:10:00 run")
	})
}
