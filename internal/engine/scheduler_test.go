package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// sleeper executes nothing: each attempt takes a while, and ends well unless it
// is told to stop.
type sleeper struct{ takes atomic.Int64 }

func (*sleeper) Tier() string { return "ns" }

func (s *sleeper) Execute(ctx context.Context, _ runner.Task) (runner.Report, error) {
	zero := 0
	out := runner.Report{Tier: "ns", ExitCode: &zero, Output: runner.Output{Values: map[string]json.RawMessage{"n": json.RawMessage("42")}}}
	t := time.NewTimer(time.Duration(s.takes.Load()))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		out.ExitCode, out.Stop = nil, runner.StopCancel
		if errors.Is(context.Cause(ctx), runner.ErrShutdown) {
			out.Stop = runner.StopShutdown
		}
	}
	return out, nil
}

// clockwork is a daemon in a bubble of time, whose own clock can be set.
type clockwork struct {
	*lab
	work  sleeper
	shift atomic.Int64
	stop  func()
}

// inBubble runs f with a daemon that has the DAG audit 1.0.0, of which a run
// takes ten seconds. The bubble begins at midnight, the first of January 2000.
func inBubble(t *testing.T, f func(t *testing.T, c *clockwork)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.script("audit-hello", helloScript, true)
		l.publish("1.0.0", hello)
		if err := l.e.Close(); err != nil {
			t.Fatal(err)
		}
		c := &clockwork{lab: l}
		c.work.takes.Store(int64(5 * time.Second)) // of two steps
		c.up()
		defer c.down() // also after a failure: the bubble waits for what runs in it
		f(t, c)
		c.verify()
	})
}

func (c *clockwork) now() time.Time { return time.Now().Add(time.Duration(c.shift.Load())) }

// up starts the daemon, down ends it in order; what it executes is interrupted.
func (c *clockwork) up() {
	c.t.Helper()
	e, err := engine.Open(context.Background(), engine.Options{
		Home: c.home, Mode: engine.ModeDaemon, Executes: true, Version: "0.1.0", Executor: &c.work, Now: c.now, Log: slog.New(slog.NewTextHandler(c.t.Output(), nil)),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.e = e
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.Execute(ctx, engine.Forever); err != nil {
			c.t.Error(err)
		}
	})
	c.stop = func() { cancel(); wg.Wait(); c.stop = nil }
	synctest.Wait()
}

func (c *clockwork) down() {
	c.t.Helper()
	if c.stop == nil {
		return
	}
	c.stop()
	if err := c.e.Close(); err != nil {
		c.t.Error(err)
	}
}

// pass lets time go by.
func (c *clockwork) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (c *clockwork) add(req api.ScheduleRequest) api.Schedule {
	c.t.Helper()
	if req.Name == "" {
		req.Name = "s"
	}
	if req.DAGID == "" {
		req.DAGID = "audit"
	}
	out, err := c.site().AddSchedule(context.Background(), req)
	if err != nil {
		c.t.Fatalf("AddSchedule = %v", err)
	}
	synctest.Wait()
	return out
}

// publish makes another version of the DAG.
func (c *clockwork) publish(version string, sequence int) {
	c.t.Helper()
	path := c.dagFileOf(version, sequence, hello)
	res := c.importFile(path)
	if _, err := c.site().PublishDAG(context.Background(), res.Verdict.Digest); err != nil {
		c.t.Fatal(err)
	}
}

// came is what came of the instants of all schedules, oldest first: the time of
// the instants, and run or the reason, with the count where they were several.
func (c *clockwork) came() []string {
	c.t.Helper()
	lines, err := c.site().TailLedger(context.Background(), api.LedgerQuery{Type: "schedule.fired", Limit: 1000})
	if err != nil {
		c.t.Fatal(err)
	}
	out := []string{}
	for _, l := range lines {
		data, err := ledger.ParseData(l.Data)
		if err != nil {
			c.t.Fatal(err)
		}
		var d ledger.ScheduleFiring
		if err := json.Unmarshal(data.Data, &d); err != nil {
			c.t.Fatal(err)
		}
		at, err := stamp.Parse(d.Instant)
		if err != nil {
			c.t.Fatal(err)
		}
		s := at.Format("15:04:05") + " " + d.Reason
		if d.RunID != "" {
			s += "run"
		}
		if d.ErrorCode != "" {
			s += ":" + d.ErrorCode
		}
		if d.First != "" {
			s += fmt.Sprintf(" ×%d", d.Count)
		}
		out = append(out, s)
	}
	return out
}

func (c *clockwork) want(what string, want ...string) {
	c.t.Helper()
	if got := c.came(); strings.Join(got, ", ") != strings.Join(want, ", ") {
		c.t.Errorf("%s:\n got %s\nwant %s", what, strings.Join(got, ", "), strings.Join(want, ", "))
	}
}

func TestAScheduleFires(t *testing.T) {
	inBubble(t, func(t *testing.T, c *clockwork) {
		s := c.add(api.ScheduleRequest{
			ScheduleSpec: api.ScheduleSpec{Name: "nightly", Cron: "*/10 * * * *", Metadata: map[string]string{"why": "test"}},
			Inputs:       json.RawMessage(`{"who":"me"}`),
		})
		if s.State != "active" || s.NextUTC != "2000-01-01T00:10:00.000000000Z" || s.Overlap != "skip" {
			t.Errorf("it was added as %+v", s)
		}
		c.pass(9*time.Minute + 59*time.Second)
		c.want("before the first instant")
		c.pass(time.Second)
		c.want("at the first instant", "00:10:00 run")
		c.pass(20 * time.Minute)
		c.want("later", "00:10:00 run", "00:20:00 run", "00:30:00 run")
		runs, err := c.site().ListRuns(context.Background(), api.RunQuery{})
		if err != nil || len(runs.Runs) != 3 {
			t.Fatalf("%d runs, %v", len(runs.Runs), err)
		}
		r := runs.Runs[2]
		if r.Actor != "schedule:nightly" || r.RunToken != "stella:sched:nightly:2000-01-01T00:10:00.000000000Z" ||
			r.Metadata["why"] != "test" || r.Status != "completed" || r.CreatedUTC[:19] != "2000-01-01T00:10:00" {
			t.Errorf("the run is %+v", r)
		}
		detail, err := c.site().ShowSchedule(context.Background(), "nightly")
		if err != nil || detail.Fired != 3 || detail.LastRunID != runs.Runs[0].RunID || string(detail.Inputs) != `{"who":"me"}` {
			t.Errorf("the schedule is %+v, %v", detail, err)
		}
	})
}

func TestWhatWasMissed(t *testing.T) {
	for _, k := range []struct {
		name    string
		catchUp time.Duration
		overlap string
		want    []string
	}{
		{"is skipped", 0, "", []string{"00:10:00 run", "01:10:00 MISSED ×6", "01:20:00 run"}},
		{"is started within the window, one after the other", 30 * time.Minute, "",
			[]string{"00:10:00 run", "00:40:00 MISSED ×3", "00:50:00 run", "01:00:00 run", "01:10:00 run", "01:20:00 run"}},
		{"is started within the window, at once", 30 * time.Minute, "allow",
			[]string{"00:10:00 run", "00:40:00 MISSED ×3", "00:50:00 run", "01:00:00 run", "01:10:00 run", "01:20:00 run"}},
	} {
		t.Run(k.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *clockwork) {
				c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{
					Cron: "*/10 * * * *", CatchUpMs: k.catchUp.Milliseconds(), Overlap: k.overlap,
				}})
				c.pass(15 * time.Minute)
				c.down()
				c.pass(time.Hour) // 01:15
				c.up()
				c.pass(6 * time.Minute)
				c.want("after an hour without a daemon", k.want...)
			})
		})
	}
}

func TestOverlap(t *testing.T) {
	for overlap, want := range map[string][]string{
		// A run takes 25 minutes: from 00:10 to 00:35, and so on.
		"skip":           {"00:10:00 run", "00:20:00 OVERLAP", "00:30:00 OVERLAP", "00:40:00 run", "00:50:00 OVERLAP", "01:00:00 OVERLAP"},
		"queue":          {"00:10:00 run", "00:20:00 run", "00:30:00 run"},
		"cancel-running": {"00:10:00 run", "00:20:00 run", "00:30:00 run", "00:40:00 run", "00:50:00 run", "01:00:00 run"},
		"allow":          {"00:10:00 run", "00:20:00 run", "00:30:00 run", "00:40:00 run", "00:50:00 run", "01:00:00 run"},
	} {
		t.Run(overlap, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *clockwork) {
				c.work.takes.Store(int64(25 * time.Minute / 2))
				c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "*/10 * * * *", Overlap: overlap}})
				c.pass(66 * time.Minute)
				c.want("after an hour", want...)
				runs, err := c.site().ListRuns(context.Background(), api.RunQuery{Status: "cancelled"})
				if cancelled := map[string]int{"cancel-running": 5}[overlap]; err != nil || len(runs.Runs) != cancelled {
					t.Errorf("%d runs were cancelled, want %d; %v", len(runs.Runs), cancelled, err)
				}
			})
		})
	}
}

// A schedule that comes every second behind a run of minutes costs two entries,
// not one a second.
func TestAFloodOfOverlapsIsOneEntry(t *testing.T) {
	inBubble(t, func(t *testing.T, c *clockwork) {
		c.work.takes.Store(int64(5 * time.Minute))
		c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{EveryMs: 1000}})
		c.pass(10 * time.Minute)
		c.want("while the first run is open", "00:00:01 run", "00:00:02 OVERLAP")
		c.pass(3 * time.Second)
		c.want("after it", "00:00:01 run", "00:00:02 OVERLAP", "00:10:01 OVERLAP ×599", "00:10:02 run", "00:10:03 OVERLAP")
	})
}

func TestAVersionThatIsDisabledStopsItsSchedules(t *testing.T) {
	for _, k := range []struct {
		name    string
		version string
		catchUp time.Duration
		want    []string
	}{
		{"that are pinned to it", "1.0.0", 0, []string{"00:10:00 run", "01:10:00 DISABLED ×6", "01:20:00 run"}},
		{"that have no other", "", 0, []string{"00:10:00 run", "01:10:00 DISABLED ×6", "01:20:00 run"}},
		{"but for the window", "", 15 * time.Minute, []string{"00:10:00 run", "00:50:00 DISABLED ×4", "01:00:00 run", "01:10:00 run", "01:20:00 run"}},
	} {
		t.Run(k.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *clockwork) {
				c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Version: k.version, Cron: "*/10 * * * *", CatchUpMs: k.catchUp.Milliseconds()}})
				c.pass(15 * time.Minute)
				out, err := c.site().DisableDAG(context.Background(), "audit", "1.0.0", api.DAGSwitch{Reason: "wrong join"})
				if err != nil || len(out.Schedules) != 1 || out.Schedules[0] != "s" {
					t.Errorf("DisableDAG = %+v, %v", out, err)
				}
				c.pass(55*time.Minute + 20*time.Second) // a little after an instant, which is not in time all the same
				c.want("while it is disabled", "00:10:00 run")
				list, err := c.site().ListSchedules(context.Background(), api.ScheduleQuery{})
				if err != nil || len(list) != 1 || list[0].State != "stopped" || !strings.Contains(list[0].Why, "wrong join") || list[0].NextUTC != "" {
					t.Errorf("the schedules are %+v, %v", list, err)
				}
				if out, err = c.site().EnableDAG(context.Background(), "audit", "1.0.0", api.DAGSwitch{}); err != nil || len(out.Schedules) != 1 {
					t.Errorf("EnableDAG = %+v, %v", out, err)
				}
				c.pass(10 * time.Minute)
				c.want("after it was enabled", k.want...)
			})
		})
	}
}

func TestAnUnpinnedScheduleGoesBackToTheVersionBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, c *clockwork) {
		c.publish("1.1.0", 2)
		c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "*/10 * * * *"}})
		c.pass(10 * time.Minute)
		out, err := c.site().DisableDAG(context.Background(), "audit", "1.1.0", api.DAGSwitch{Reason: "wrong"})
		if err != nil || len(out.Schedules) != 0 || out.Next != "1.0.0" {
			t.Errorf("DisableDAG = %+v, %v", out, err)
		}
		c.pass(10 * time.Minute)
		runs, err := c.site().ListRuns(context.Background(), api.RunQuery{})
		if err != nil || len(runs.Runs) != 2 || runs.Runs[0].DAGVersion != "1.0.0" || runs.Runs[1].DAGVersion != "1.1.0" {
			t.Errorf("the runs are %+v, %v", runs.Runs, err)
		}
	})
}

func TestAClockThatIsSet(t *testing.T) {
	inBubble(t, func(t *testing.T, c *clockwork) {
		c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "*/10 * * * *"}})
		c.pass(15 * time.Minute)
		c.shift.Store(int64(time.Hour)) // it shows 01:15
		c.pass(time.Minute)
		c.want("forward", "00:10:00 run", "01:10:00 MISSED ×6")
		c.pass(5 * time.Minute)
		c.want("goes on", "00:10:00 run", "01:10:00 MISSED ×6", "01:20:00 run")
		c.shift.Add(-int64(3 * time.Minute)) // it shows 01:18, and then 01:20 once more
		c.pass(11 * time.Minute)
		c.want("back", "00:10:00 run", "01:10:00 MISSED ×6", "01:20:00 run")
		c.pass(2 * time.Minute)
		c.want("back, and on", "00:10:00 run", "01:10:00 MISSED ×6", "01:20:00 run", "01:30:00 run")
	})
}

// What falls into a pause is past, whatever the window.
func TestAPause(t *testing.T) {
	inBubble(t, func(t *testing.T, c *clockwork) {
		c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "*/10 * * * *", CatchUpMs: time.Hour.Milliseconds()}})
		c.pass(15 * time.Minute)
		rep, err := c.site().PauseSchedules(context.Background(), api.ScheduleSelection{All: true, Reason: "holiday"})
		if err != nil || len(rep.Changed) != 1 || rep.Changed[0].State != "paused" || !strings.Contains(rep.Changed[0].Why, "holiday") {
			t.Errorf("PauseSchedules = %+v, %v", rep, err)
		}
		if rep, err = c.site().PauseSchedules(context.Background(), api.ScheduleSelection{Name: "s"}); err != nil || len(rep.Changed) != 0 || rep.Unchanged != 1 {
			t.Errorf("PauseSchedules again = %+v, %v", rep, err)
		}
		c.pass(time.Hour)
		if rep, err = c.site().ResumeSchedules(context.Background(), api.ScheduleSelection{DAGID: "audit"}); err != nil || len(rep.Changed) != 1 {
			t.Errorf("ResumeSchedules = %+v, %v", rep, err)
		}
		c.pass(10 * time.Minute)
		c.want("after a pause", "00:10:00 run", "01:20:00 run")
	})
}

// A run that was started before its record could be written is found by its
// token, and not started again.
func TestAnInstantFiresOnceWhateverIsLost(t *testing.T) {
	inBubble(t, func(t *testing.T, c *clockwork) {
		c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "*/10 * * * *"}})
		c.pass(5 * time.Minute)
		c.down()
		c.pass(5 * time.Minute)
		// What the ledger holds after a kill between the two entries.
		l := c.lab
		l.open()
		res, err := engine.StartForSchedule(l.e, "s", time.Now(), api.StartRequest{DAGID: "audit"})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.e.Close(); err != nil {
			t.Fatal(err)
		}
		c.pass(5 * time.Minute) // by itself it would have been missed
		c.up()
		c.pass(time.Minute)
		c.want("after the kill", "00:10:00 run")
		runs, err := c.site().ListRuns(context.Background(), api.RunQuery{})
		if err != nil || len(runs.Runs) != 1 || runs.Runs[0].RunID != res.Run.RunID {
			t.Errorf("the runs are %+v, %v", runs.Runs, err)
		}
	})
}

// Whose runs a schedule starts: whoever added it, and whoever let it fire again.
func TestASchedulesRunsAreStartedForThosePeople(t *testing.T) {
	inBubble(t, func(t *testing.T, c *clockwork) {
		c.add(api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Name: "s", Cron: "*/10 * * * *"}})
		c.pass(10 * time.Minute)
		ann := c.e.As(api.Principal{Name: "uid:7(ann)"})
		for _, change := range []func(context.Context, api.ScheduleSelection) (api.ScheduleReport, error){c.site().PauseSchedules, ann.ResumeSchedules} {
			if rep, err := change(context.Background(), api.ScheduleSelection{Name: "s"}); err != nil || len(rep.Changed) != 1 {
				t.Fatalf("%+v, %v", rep, err)
			}
		}
		c.pass(10 * time.Minute)
		runs, err := c.site().ListRuns(context.Background(), api.RunQuery{})
		if err != nil || len(runs.Runs) != 2 {
			t.Fatalf("%d runs, %v", len(runs.Runs), err)
		}
		again, err := ann.ReplayRun(context.Background(), runs.Runs[1].RunID, api.ReplayRequest{Rationale: "test"})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][]string{}
		for name, run := range map[string]state.Run{"first": runs.Runs[1], "second": runs.Runs[0], "replay": again.Run} {
			got[name] = run.Starters()
		}
		want := map[string][]string{
			"first": {"schedule:s", who}, "second": {"schedule:s", who, "uid:7(ann)"}, "replay": {"uid:7(ann)", "schedule:s", who},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("who started them (-want +got):\n%s", diff)
		}
	})
}
