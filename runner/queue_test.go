package runner_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// with replaces the world's runner by one with other options.
func (w *world) with(change func(*runner.Options)) {
	opt := runner.Options{
		Store: w.db, Sealed: w.sealed, Executor: w.exec, Now: w.now, Rand: func() float64 { return 0.5 }, Workers: 1,
		RunsDir: w.home + "/runs", LogsDir: w.home + "/logs", HMACKey: []byte("k"), Owner: "test",
	}
	change(&opt)
	w.r = runner.New(opt)
}

// startIn starts a run of a tenant with a priority.
func (w *world) startIn(tenant string, priority int64, d *manifests.DAG) state.Run {
	w.t.Helper()
	w.sealed.publish(d)
	p, err := runner.NewPlan(d, dagDigest(d), w.sealed)
	if err != nil {
		w.t.Fatal(err)
	}
	run, err := w.r.StartRun(context.Background(), runner.Start{
		Tenant: tenant, Actor: "uid:0(root)", RunToken: runner.NewRunToken(time.Now()), TraceID: runner.NewTraceID(),
		DAG: d, Plan: p, Inputs: []byte("{}"), Priority: priority,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return run
}

func paused(tenants ...string) (s state.QueueState) {
	s.Paused = map[string]state.QueueNote{}
	for _, t := range tenants {
		s.Paused[t] = state.QueueNote{Actor: "uid:7"}
	}
	return s
}

// many makes a DAG with one step of n items.
func many(n int) *manifests.DAG {
	d := dag(func(d *manifests.DAG) { d.Steps[0].ForEach, d.MaxParallelSteps = make([]any, n), n }, "a")
	d.ID = fmt.Sprint("many", n)
	return d
}

// A tenant with 10,000 steps that wait, for workers or for a limit that others
// need too, takes nothing from one with a single step.
func TestATenantWithLittleIsServedBesideOneWithMuch(t *testing.T) {
	for _, c := range []struct {
		name        string
		concurrency manifests.Concurrency
		workers     int
	}{
		{name: "workers are short", workers: 1},
		{name: "the plugin is limited", workers: 4, concurrency: manifests.Concurrency{Plugin: map[string]int{"p/n": 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			begun, goOn := make(chan string), make(chan bool)
			w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
				run, err := w.db.Run(task.RunID)
				if err != nil {
					return runner.Report{}, err
				}
				select {
				case begun <- run.Tenant:
				case <-ctx.Done():
					return runner.Report{Stop: runner.StopShutdown}, nil
				}
				<-goOn
				return exit(0), nil
			}
			w.with(func(o *runner.Options) { o.Workers, o.Concurrency, o.MaxItems = c.workers, c.concurrency, 10_000 })
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			w.startIn("big", 0, many(10_000))
			go func() { done <- w.r.Run(ctx, false) }()
			if got := <-begun; got != "big" {
				t.Fatalf("%s began first", got)
			}
			w.startIn("small", 0, dag(nil, "x"))
			goOn <- true
			if got := <-begun; got != "small" {
				t.Errorf("%s began next, want small", got)
			}
			if info := w.r.Queue("small"); info.Executing != 1 || info.Depth != 0 || len(info.Tenants) != 1 {
				t.Errorf("the queue of small is %+v", info)
			}
			if info := w.r.Queue(""); info.Depth != 9_999 || info.Runs != 2 {
				t.Errorf("%d wait in %d runs", info.Depth, info.Runs)
			}
			cancel()
			close(goOn)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestTheOrderIsPriorityThenAge(t *testing.T) {
	w := newWorld(t, nil)
	var order []string
	w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
		run, err := w.db.Run(task.RunID)
		order = append(order, fmt.Sprintf("%s %s", run.DAGVersion, task.StepID))
		return exit(0), err
	}
	w.with(func(o *runner.Options) { o.Stopped = paused("") })
	for i, priority := range []int64{0, 5, 0, 5, -1} {
		w.startIn("default", priority, dag(func(d *manifests.DAG) {
			d.Version = fmt.Sprintf("1.%d.0", i)
			d.Steps[1].Priority = 1
		}, "a", "b"))
	}
	if info := w.r.Queue(""); info.Depth != 10 || info.Waits["the queue is paused by uid:7"] != 10 {
		t.Errorf("the queue is %+v", info)
	}
	w.r.StopQueue(state.QueueState{})
	if err := w.r.Run(context.Background(), true); err != nil {
		t.Fatal(err)
	}
	want := []string{"1.1.0 b", "1.3.0 b", "1.1.0 a", "1.3.0 a", "1.0.0 b", "1.2.0 b", "1.0.0 a", "1.2.0 a", "1.4.0 b", "1.4.0 a"}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("the order (-want +got):\n%s", diff)
	}
}

// site is what a test of the queue does at random.
type site struct {
	workers     int
	concurrency manifests.Concurrency
	semaphores  map[string]int64
	runs        []plannedRun
	pauses      []pause
}

type plannedRun struct {
	at       time.Duration
	tenant   string
	priority int64
	dag      *manifests.DAG
	cancel   time.Duration // after its start; 0: not
}

type pause struct {
	at, during time.Duration
	tenant     string
}

func drawSite(t *rapid.T) site {
	limit := func(what string) int { return rapid.IntRange(0, 3).Draw(t, what) }
	s := site{
		workers:     rapid.IntRange(1, 6).Draw(t, "workers"),
		concurrency: manifests.Concurrency{PerTenant: limit("tenant"), PerDAG: limit("dag"), PerPlugin: limit("plugin")},
		semaphores:  map[string]int64{"s": rapid.Int64Range(1, 3).Draw(t, "s"), "u": 2},
	}
	if n := limit("tenant a"); n > 0 {
		s.concurrency.Tenant = map[string]int{"a": n}
	}
	millis := func(most int, what string) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, what)) * time.Millisecond
	}
	for i := range rapid.IntRange(1, 8).Draw(t, "runs") {
		s.runs = append(s.runs, plannedRun{
			at: millis(30, "at"), tenant: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "of"),
			priority: rapid.Int64Range(-1, 1).Draw(t, "priority"), dag: drawBusyDAG(t, i, s.semaphores),
		})
		if rapid.IntRange(0, 4).Draw(t, "cancelled") == 0 {
			s.runs[i].cancel = 1 + millis(20, "after")
		}
	}
	for range rapid.IntRange(0, 4).Draw(t, "pauses") {
		s.pauses = append(s.pauses, pause{millis(40, "at"), millis(20, "for"), rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "who")})
	}
	return s
}

func drawBusyDAG(t *rapid.T, i int, semaphores map[string]int64) *manifests.DAG {
	names := []string{"a", "b", "c", "d", "e"}[:rapid.IntRange(1, 5).Draw(t, "steps")]
	return dag(func(d *manifests.DAG) {
		d.ID, d.Version = rapid.SampledFrom([]string{"d1", "d2"}).Draw(t, "dag"), fmt.Sprintf("1.%d.0", i)
		d.MaxParallelSteps = rapid.IntRange(1, 4).Draw(t, "parallel")
		d.FailFast = rapid.Bool().Draw(t, "fail fast")
		for j := range d.Steps {
			st := &d.Steps[j]
			for _, before := range names[:j] {
				if rapid.IntRange(0, 3).Draw(t, "needs "+before) == 0 {
					st.Needs = append(st.Needs, before)
				}
			}
			st.Plugin = &manifests.Ref{Publisher: "p", Name: rapid.SampledFrom([]string{"n", "m"}).Draw(t, "plugin"), Version: "1.0.0"}
			st.Priority, st.Retry.MaxAttempts = rapid.Int64Range(0, 1).Draw(t, "priority"), 2
			if rapid.IntRange(0, 2).Draw(t, "items") == 0 {
				st.ForEach = make([]any, rapid.IntRange(0, 6).Draw(t, "items"))
			}
			for _, l := range []string{"l", "m"} {
				if rapid.IntRange(0, 3).Draw(t, "lock "+l) == 0 {
					st.Locks = append(st.Locks, l)
				}
			}
			if rapid.IntRange(0, 4).Draw(t, "sub-run") == 0 {
				st.Plugin, st.Action, st.DAG = nil, "", "sub@1.0.0"
			}
			st.Semaphores = map[string]int64{}
			for _, name := range []string{"s", "u"} {
				if w := rapid.Int64Range(0, semaphores[name]).Draw(t, "weight of "+name); w > 0 {
					st.Semaphores[name] = w
				}
			}
		}
	}, names...)
}

// usage counts what is used at a time, and keeps what was too much.
type usage struct {
	s      site
	mu     sync.Mutex // guards what follows
	used   map[string]int64
	faults []string
}

// take counts what an attempt uses; n is 1 at its begin and -1 at its end.
func (u *usage) take(run state.Run, st *manifests.Step, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	add := func(what string, weight, limit int64) {
		if u.used[what] += n * weight; limit > 0 && u.used[what] > limit {
			u.faults = append(u.faults, fmt.Sprintf("%s: %d at a time, at most %d", what, u.used[what], limit))
		}
	}
	c := u.s.concurrency
	tenant := c.PerTenant
	if of, ok := c.Tenant[run.Tenant]; ok {
		tenant = of
	}
	add("workers", 1, int64(u.s.workers))
	add("tenant "+run.Tenant, 1, int64(tenant))
	add("dag "+run.DAGID, 1, int64(c.PerDAG))
	add("plugin "+st.Plugin.Name, 1, int64(c.PerPlugin))
	for _, l := range st.Locks {
		add("lock "+run.Tenant+" "+l, 1, 1)
	}
	for name, weight := range st.Semaphores {
		add("semaphore "+run.Tenant+" "+name, weight, u.s.semaphores[name])
	}
}

// fewer lets rapid draw less than it would by default: each site writes to a disk.
func fewer(t *testing.T) {
	checks := flag.Lookup("rapid.checks")
	if checks.Value.String() != checks.DefValue {
		return
	}
	if err := flag.Set("rapid.checks", "25"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set("rapid.checks", checks.DefValue) })
}

// play lets a site do what was drawn, in a bubble where waiting costs no time; it
// returns what was wrong. A wakeup that is lost is a deadlock of the bubble.
func playSite(t *testing.T, s site) (faults []string) {
	w := newWorld(t, nil)
	u := &usage{s: s, used: map[string]int64{}}
	w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) { return u.execute(ctx, w, task) }
	w.with(func(o *runner.Options) {
		o.Workers, o.Concurrency, o.Semaphores = s.workers, s.concurrency, s.semaphores
	})
	w.sealed.publish(dag(func(d *manifests.DAG) { d.ID, d.Steps[1].Locks = "sub", []string{"n"} }, "x", "y<x"))
	over := w.act(s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.r.Run(ctx, false) }()
	for open := true; open; {
		select {
		case <-over:
			open = false
		case <-time.After(500 * time.Microsecond):
		}
		synctest.Wait()
		if idle := w.r.CouldRun(); len(idle) > 0 {
			faults = append(faults, fmt.Sprintf("nothing keeps these from running: %v", idle))
		}
	}
	if info := w.r.Queue(""); info.Depth != 0 || info.Runs != 0 || info.Executing != 0 {
		faults = append(faults, fmt.Sprintf("left in the queue: %+v", info))
	}
	cancel()
	if err := <-done; err != nil {
		faults = append(faults, err.Error())
	}
	for what, n := range u.used {
		if n != 0 {
			faults = append(faults, fmt.Sprintf("%s: %d in use still", what, n))
		}
	}
	if held, err := w.db.Locks(""); err != nil || len(held) > 0 {
		faults = append(faults, fmt.Sprintf("held in the end: %+v, %v", held, err))
	}
	return append(faults, u.faults...)
}

// execute is an attempt of any length, which may fail for the first time.
func (u *usage) execute(ctx context.Context, w *world, task runner.Task) (runner.Report, error) {
	run, err := w.db.Run(task.RunID)
	if err != nil {
		return runner.Report{}, err
	}
	d, err := w.sealed.DAG(run.DAGDigest)
	if err != nil {
		return runner.Report{}, err
	}
	name, _, _ := strings.Cut(task.StepID, ".")
	i := slices.IndexFunc(d.Steps, func(st manifests.Step) bool { return st.ID == name })
	u.take(run, &d.Steps[i], 1)
	defer u.take(run, &d.Steps[i], -1)
	select {
	case <-time.After(time.Duration(run.FirstSeq%5) * time.Millisecond):
	case <-ctx.Done():
		return runner.Report{Stop: runner.StopCancel}, nil
	}
	if run.FirstSeq%3 == 0 && task.Attempt == 1 {
		return exit(75), nil
	}
	return exit(0), nil
}

// act begins what others do to a site. The channel is closed when all of it is done
// and all runs have ended.
func (w *world) act(s site) <-chan bool {
	var sides sync.WaitGroup
	ids := make([]string, len(s.runs))
	for i, p := range s.runs {
		sides.Go(func() {
			time.Sleep(p.at)
			run := w.startIn(p.tenant, p.priority, p.dag)
			if ids[i] = run.RunID; p.cancel == 0 {
				return
			}
			time.Sleep(p.cancel)
			if run, err := w.db.Run(run.RunID); err != nil || run.Status.Ended() {
				return
			}
			w.r.Cancel("uid:7", "", w.opened(run, p.dag))
		})
	}
	stop := &pauses{r: w.r, n: map[string]int{}}
	for _, p := range s.pauses {
		sides.Go(func() {
			time.Sleep(p.at)
			stop.pause(p.tenant, 1)
			time.Sleep(p.during)
			stop.pause(p.tenant, -1)
		})
	}
	over := make(chan bool)
	go func() {
		sides.Wait()
		for _, id := range ids {
			w.wait(id)
		}
		close(over)
	}()
	return over
}

// pauses are what is paused, how often.
type pauses struct {
	r  *runner.Runner
	mu sync.Mutex // guards n, and the order of calls
	n  map[string]int
}

func (p *pauses) pause(tenant string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n[tenant] += n
	var who []string
	for t, n := range p.n {
		if n > 0 {
			who = append(who, t)
		}
	}
	p.r.StopQueue(paused(who...))
}

// wait waits for the end of a run.
func (w *world) wait(id string) state.Run {
	w.t.Helper()
	for {
		changed, _ := w.db.Changed()
		run, err := w.db.Run(id)
		if err != nil {
			w.t.Fatal(err)
		}
		if run.Status.Ended() {
			return run
		}
		<-changed
	}
}

func TestNothingIsOverItsLimitAndEverythingEnds(t *testing.T) {
	fewer(t)
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSite(rt)
		var faults []string
		synctest.Test(t, func(t *testing.T) { faults = playSite(t, s) })
		if len(faults) > 0 {
			rt.Fatalf("%s\nof %+v", faults, s)
		}
	})
}
