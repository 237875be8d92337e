package simtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

var (
	kills = flag.Int("kills", 10, "how often the process is killed")
	seed  = flag.Uint64("seed", 0, "of everything that is random; 0 for another one each time")
)

// Of a site each process is killed, the next one goes on, and the last lets
// everything end.
const (
	killsOfASite = 25
	patience     = 3 * time.Minute // for all runs of a site to end
	atOnce       = time.Second     // within which an interrupted attempt is marked, from the start of the process
)

// others skips a test of other processes, of which the race detector sees nothing.
func others(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED with -short: what other processes do")
	}
}

// theSeed prints the seed of a test.
func theSeed(t *testing.T) uint64 {
	t.Helper()
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("to do the same again: -seed=%d", s)
	return s
}

// The process is killed at random moments of busy work. Nothing that anybody was
// told is lost, nothing runs twice that must not, what was under way is marked at
// once, and nothing hangs.
//
// Every second site is that of the real program with its clients and plugins, in
// the background and in the foreground. The others have a daemon of this test, in
// which attempts are no processes: there the dispatcher is busier.
//
// It was seen to fail: without the recovery that opening does, in all processes or
// in a foreground alone (attempts of a dead process are open while others begin),
// with writes acknowledged before their commit (an entry that was shown is gone, a
// resumption of the queue is not on record), with a step begun again after
// INDETERMINATE (silently), with a start that is recorded after what it did about attempts, with locks that the end of an attempt does not give back
// (the daemon ends, or runs hang), with a pause that the next process does not know
// (a step begins), a schedule that starts while it is paused, an older version of a
// secret than the record says (a program finds it), and with an init process that
// does not end with stella (a program goes on). [TestClientsWithOneToken]
// was, without the look at the token in the transaction of the start (14 runs);
// [TestClientsAtOnce] with a quorum that is one short (an approval closed by 1 of 2).
func TestKills(t *testing.T) {
	others(t)
	s := theSeed(t)
	rng := rand.New(rand.NewPCG(s, 0))
	trace, stella := filepath.Join(t.TempDir(), "trace"), build(t)
	real, null := template(t, trace, 1), template(t, trace, 2)
	total := &tally{kills: map[string]int{}, marks: map[string]int{}}
	for i, n := range sites(*kills) {
		v := &victim{trace: trace, rng: rng, execs: map[int]began{}, kills: map[string]int{}}
		if i%2 == 0 { // half of the sites, and the first
			v.home, v.stella = copied(t, real), stella
			if i%4 == 2 {
				if err := v.encrypts(); err != nil {
					t.Fatal(err)
				}
			}
		} else {
			v.home = copied(t, null)
		}
		a, err := v.suffer(n, s+uint64(i))
		if err != nil {
			t.Fatalf("site %d: %v\nthe processes said:\n%s", i, err, v.said())
		}
		t.Logf("%v: %d entries, attempts marked %v, the last after %s;%s", v.kills, len(a.entries), a.marks, a.slow, v.load.summary())
		total.add(v, a)
	}
	total.judge(t)
}

// sites is how often the process of each site is killed: two of them at least, if
// there is anything to share.
func sites(kills int) (all []int) {
	for most := min(killsOfASite, (kills+1)/2); kills > 0; kills -= most {
		all = append(all, min(kills, most))
	}
	return all
}

// tally is what all sites together have gone through.
type tally struct {
	kills, marks map[string]int // processes that were killed, and attempts that were interrupted thereby, by kind
	slow         time.Duration
}

func (s *tally) add(v *victim, a *audit) {
	for kind, n := range v.kills {
		s.kills[kind] += n
		s.marks[kind] += a.marks[kind]
	}
	s.slow = max(s.slow, a.slow)
}

// judge makes sure that kills of each kind were felt, where there were many.
func (s *tally) judge(t *testing.T) {
	t.Helper()
	all := 0
	for _, kind := range append([]string{withoutProcesses}, inTurn...) {
		all += s.marks[kind]
		if *kills >= 100 && s.marks[kind] == 0 {
			t.Errorf("%d kills of %q interrupted nothing: they show nothing", s.kills[kind], kind)
		}
	}
	if *kills >= 10 && all == 0 {
		t.Errorf("no kill has interrupted anything: they show nothing")
	}
	for _, kind := range slices.Sorted(maps.Keys(s.kills)) {
		t.Logf("%3d kills of %q interrupted %d attempts", s.kills[kind], kind, s.marks[kind])
	}
	t.Logf("each was marked within %s of the start of the next process", s.slow)
	if *kills >= 100 && s.slow > atOnce {
		t.Errorf("an interrupted attempt was marked after %s", s.slow)
	}
}

// victim is a site whose processes are killed.
type victim struct {
	home, trace string
	stella      string // the real program; "" for the daemon without processes
	rng         *rand.Rand
	load        *load
	from        int64 // where its part of the trace begins
	execs       map[int]began
	kills       map[string]int // by kind
	process     *process
	disk        *disk  // that is cut off with each process; nil where only the process is killed
	identity    string // file with the age key that reads its snapshots; "" where they are in the clear
	snapshot    string // ID of the last one that was found to be whole
}

// kind is what is started as the i-th.
func (v *victim) kind(i int) string {
	if v.stella == "" {
		return withoutProcesses
	}
	return inTurn[i%len(inTurn)]
}

// suffer kills n processes, and returns what the last audit found.
func (v *victim) suffer(n int, seed uint64) (a *audit, err error) {
	many := n >= killsOfASite
	if fi, err := os.Stat(v.trace); err == nil {
		v.from = fi.Size()
	}
	if v.load, err = newLoad(v.home, 16, v.stella != ""); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	clients.Go(func() { v.load.run(ctx, 8, seed) })
	defer func() {
		cancel()
		clients.Wait()
		v.kill()
	}()
	for i := 0; n > 0; i++ {
		kind := v.kind(i)
		if err := v.start(kind); err != nil {
			return nil, err
		}
		if i == 0 {
			if err := v.schedule(ctx); err != nil {
				return nil, err
			}
		}
		at := time.Now()
		v.wait(ctx)
		killed, err := v.kill()
		if err != nil {
			return nil, err
		}
		if killed {
			v.kills[kind]++
			n--
		}
		if a, err = v.audit(false); err != nil {
			return nil, fmt.Errorf("process %d, %s, killed %v after %s: %w", i, kind, killed, time.Since(at), err)
		}
	}
	cancel()
	clients.Wait()
	if err := v.finish(); err != nil {
		return nil, err
	}
	if v.stella == "" && many && v.load.seen(ledger.DataErased) == 0 {
		return nil, errors.New("nothing was erased: that this outlives it was not tested")
	}
	return v.audit(true)
}

// wait lets a process live for a while: until it has just begun, until later, or
// until attempts are under way or a snapshot is made, however long that takes on this machine.
func (v *victim) wait(ctx context.Context) {
	while := 5 + v.rng.IntN(75)
	switch v.rng.IntN(7) {
	case 0, 1:
		while = 200 + v.rng.IntN(1000)
	case 2, 3:
		v.busy(ctx)
	case 4:
		v.kept(ctx)
	}
	time.Sleep(time.Duration(while) * time.Millisecond)
}

// busy waits until attempts are under way, or until it seems that there are none to
// come.
func (v *victim) busy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := v.load.connect(0)
	if err != nil {
		return
	}
	defer c.Close()
	for ctx.Err() == nil && !gone(v.process.pid) {
		if st, err := c.Status(ctx); err == nil && st.Executing > 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// kept waits until a client was told of another snapshot, or until it seems that there is none to
// come.
func (v *victim) kept(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	n := v.load.seen(ledger.SnapshotCreated)
	for ctx.Err() == nil && !gone(v.process.pid) && v.load.seen(ledger.SnapshotCreated) == n {
		time.Sleep(5 * time.Millisecond)
	}
}

// audit looks at the site as it lies there.
func (v *victim) audit(last bool) (*audit, error) {
	raw, err := os.ReadFile(filepath.Join(v.home, "ledger.db")) // opening erases what is to be erased
	if err != nil {
		return nil, err
	}
	r, err := readRecord(v.home)
	if err != nil {
		return nil, err
	}
	acks, err := v.load.journal.read()
	if err != nil {
		return nil, err
	}
	trace, err := readTrail(v.trace, v.from)
	if err != nil {
		return nil, err
	}
	a := &audit{record: r, once: onces()}
	a.acknowledged(acks)
	a.marked(acks)
	a.attempts(trace)
	a.secrets(trace)
	a.outlived(trace)
	a.interrupted(v.execs)
	a.stopped()
	a.decisions()
	a.erasures(acks, raw, last)
	fired := a.schedules()
	if err := errors.Join(a.events(v.home, last), v.restorable(acks)); err != nil {
		return nil, err
	}
	if last {
		for _, run := range r.active {
			a.fault("run %s of %s is %s in the end\n%s", run.RunID, run.DAGID, run.Status, a.story(run.RunID))
		}
		for _, l := range r.held {
			a.fault("%s %s is held in the end: %+v", l.Kind, l.Name, l.Holders)
		}
		v.load.counts["fired"] = fired
	}
	v.load.mu.Lock()
	defer v.load.mu.Unlock()
	if all := append(a.faults, v.load.faults...); len(all) > 0 {
		return nil, fmt.Errorf("%d faults, the first of them: %s", len(all), all[0])
	}
	return a, nil
}

// onces are the steps that must not be repeated silently.
func onces() map[string]bool {
	return map[string]bool{"sim-once.a": true, "sim-once.o2": true, "sim-once.o3": true}
}

// asked tries something until somebody serves the site.
func asked(ctx context.Context, f func() error) error {
	for {
		err := f()
		var e *api.Error
		if err == nil || errors.As(err, &e) || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (v *victim) schedule(ctx context.Context) error {
	c, err := v.load.connect(0)
	if err != nil {
		return err
	}
	defer c.Close()
	return asked(ctx, func() error {
		_, err := c.AddSchedule(ctx, api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{
			Name: often, DAGID: "sim-fan", EveryMs: 1000, CatchUpMs: 5000, Overlap: api.OverlapAllow,
		}})
		return err
	})
}

// finish lets the last process bring everything to its end, with the help of people.
func (v *victim) finish() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := v.start(v.kind(0)); err != nil {
		return err
	}
	var all [people]api.Site
	for i := range people {
		c, err := v.load.connect(i)
		if err != nil {
			return err
		}
		defer c.Close()
		all[i] = c
	}
	err := asked(ctx, func() error {
		_, err := all[0].PauseSchedules(ctx, api.ScheduleSelection{All: true, Reason: "the end"})
		for _, site := range []bool{false, true} {
			if err == nil {
				_, err = all[0].ResumeQueue(ctx, api.QueueRequest{All: site, Reason: "the end"})
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for {
		page, err := all[0].ListRuns(ctx, api.RunQuery{Active: true})
		if err != nil {
			return fmt.Errorf("runs hang: %w", err)
		}
		if len(page.Runs) == 0 {
			break
		}
		if err := agree(ctx, all[:]); err != nil {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d runs hang: %+v", len(page.Runs), page.Runs)
		}
	}
	if err := all[0].Stop(ctx, false); err != nil {
		return err
	}
	err = v.process.cmd.Wait()
	v.process = nil
	return err
}

// agree lets people say that it shall go on.
func agree(ctx context.Context, all []api.Site) error {
	page, err := all[0].ListApprovals(ctx, api.ApprovalQuery{})
	if err != nil {
		return err
	}
	for _, a := range page.Approvals {
		for _, site := range all {
			_, err := site.DecideApproval(ctx, a.ID, api.DecisionRequest{Decision: "continue", PlanHash: a.PlanHash})
			var e *api.Error
			if err != nil && !errors.As(err, &e) {
				return err
			}
		}
	}
	return nil
}
