package runner_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// A history is drawn before it is played: DAGs, and moves whose numbers choose
// among what there is when their turn comes. So it can be played in a bubble of
// its own time, and shrinks by leaving moves out.
type history struct {
	DAGs    []*manifests.DAG
	Child   *manifests.DAG
	Moves   []move
	Workers int
	Salt    byte
	Chain   bool
	Finale  int // how it comes to its end
}

// The ways in which histories end.
const (
	bySucceeding = iota
	byGoingOn    // the same
	byAbort
	byAbortOfIdle // nobody executes the runs any more
)

type move struct {
	Kind    string
	A, B, C int
}

func (m move) String() string { return fmt.Sprintf("%s(%d,%d,%d)", m.Kind, m.A, m.B, m.C) }

// Each history is about something: where every kind of move comes as often as any other,
// what takes several of one kind hardly ever happens.
var themes = [][]string{
	{ // everything
		"start", "finish", "finish", "finish", "finish", "finish", "finish", "flow", "decide", "decide", "decide",
		"cancel", "abort", "fail", "retry", "retry", "skip", "reset", "restart", "nudge",
		"crash", "arm", "away", "wait", "wait", "jump", "pause", "unpause", "resume", "lose",
	},
	{"finish", "finish", "flow", "flow", "flow", "reset", "reset", "retry", "retry", "decide", "restart", "skip", "crash"},                             // again and again
	{"finish", "finish", "finish", "flow", "flow", "decide", "decide", "decide", "reset", "reset", "cancel", "fail", "abort", "nudge", "arm", "crash"}, // endings
	{"finish", "flow", "flow", "away", "wait", "resume", "decide", "reset", "retry", "skip", "fail", "cancel", "nudge"},                                // nobody executes it
}

func drawHistory(t *rapid.T) history {
	h := history{
		Child: drawDAG(t, "child", false), Workers: rapid.IntRange(1, 3).Draw(t, "workers"),
		Salt: rapid.Byte().Draw(t, "salt"), Chain: rare(t, "chain"),
	}
	for i := range rapid.IntRange(1, 2).Draw(t, "dags") {
		h.DAGs = append(h.DAGs, drawDAG(t, fmt.Sprintf("d%d", i), true))
	}
	kinds := append([]string{"rest"}, rapid.SampledFrom(themes).Draw(t, "theme")...)
	moves := rapid.Custom(func(t *rapid.T) move {
		n := rapid.IntRange(0, 99)
		return move{rapid.SampledFrom(kinds).Draw(t, "kind"), n.Draw(t, "a"), n.Draw(t, "b"), n.Draw(t, "c")}
	})
	h.Moves = append([]move{{Kind: "start"}}, rapid.SliceOfN(moves, 12, 40).Draw(t, "moves")...)
	h.Moves = slices.DeleteFunc(h.Moves, func(m move) bool { return m.Kind == "rest" }) // so that long ones shrink
	h.Finale = rapid.IntRange(bySucceeding, byAbortOfIdle).Draw(t, "finale")
	return h
}

// Whatever is done to runs, in whatever order, and wherever the process dies: the
// record is one that the model allows, nothing that was acknowledged is lost, and
// everything ends. rapid prints the seed of a history that breaks this.
func TestRandomHistoriesOfTheRunner(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(rt)
		var told []string
		var err error
		synctest.Test(t, func(*testing.T) {
			told, err = play(h)
		})
		if err != nil {
			sketches := ""
			for _, d := range append(slices.Clone(h.DAGs), h.Child) {
				sketches += "\n" + sketch(d)
			}
			rt.Fatalf("%v\nafter %s\nworkers %d salt %d chain %v%s", err, strings.Join(told, "\n      "), h.Workers, h.Salt, h.Chain, sketches)
		}
	})
}

// stage is a site on which a history is played.
type stage struct {
	history
	home   string
	disk   *mortal
	sealed *memory
	box    *box
	r      *runner.Runner
	ran    chan error // receives when the runner has returned
	stop   context.CancelFunc
	offset atomic.Int64 // of the clock
	model  *model
	starts []string // runs whose start was acknowledged
	told   []string
}

func play(h history) (told []string, err error) {
	s := &stage{history: h}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		told = s.told
	}()
	if s.home, err = os.MkdirTemp("", "history"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(s.home)
	if err := s.create(); err != nil {
		return nil, err
	}
	defer s.die()
	for _, m := range h.Moves {
		s.told = append(s.told, m.String())
		err := s.move(m)
		s.told[len(s.told)-1] += fmt.Sprintf(" = %v", err)
		if err != nil && !tolerated(err) {
			return nil, err
		}
		if err := s.look(); err != nil {
			return nil, err
		}
	}
	if err := s.finale(); err != nil {
		return nil, err
	}
	s.die()
	db, err := store.Open(s.home, store.Options{Now: s.now})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	_, err = db.Check(context.Background(), store.CheckOptions{})
	return nil, err
}

// tolerated says whether a move may end like this.
func tolerated(err error) bool {
	var conflict *runner.ConflictError
	var request *runner.RequestError
	var decision *runner.DecisionError
	return errors.As(err, &conflict) || errors.As(err, &request) || errors.As(err, &decision) ||
		errors.Is(err, runner.ErrEnded) || errors.Is(err, errDead) || errors.Is(err, store.ErrHeld)
}

func (s *stage) now() time.Time { return time.Now().Add(time.Duration(s.offset.Load())) }

func (s *stage) create() error {
	for _, dir := range []string{"sealed/sha256", "quarantine", "cache", "runs", "logs"} {
		if err := os.MkdirAll(filepath.Join(s.home, dir), 0o755); err != nil {
			return err
		}
	}
	db, err := newStore(s.home, s.now)
	if err != nil {
		return err
	}
	s.sealed = newMemory()
	s.model = newModel()
	for _, d := range append(slices.Clone(s.DAGs), s.Child) {
		s.sealed.publish(d)
		s.model.dags[d.ID] = d
	}
	return s.run(db, true)
}

// run lets a new process work on the store.
func (s *stage) run(db *store.DB, resume bool) error {
	s.disk, s.box = &mortal{DB: db, left: -1, see: s.beside}, &box{salt: s.Salt}
	stopped, err := db.Queue()
	if err != nil {
		return err
	}
	s.r = runner.New(runner.Options{
		Store: s.disk, Sealed: s.sealed, Executor: s.box, Now: s.now, Rand: func() float64 { return 0.5 }, Workers: s.Workers,
		RunsDir: filepath.Join(s.home, "runs"), LogsDir: filepath.Join(s.home, "logs"), HMACKey: []byte("k"), Owner: "test",
		Semaphores: map[string]int64{"parent": 3, "child": 3}, Stopped: stopped,
		Stuck: manifests.Stuck{Warn: 5 * time.Minute, Stalled: time.Hour, Chain: s.Chain, Nudges: 1, NudgeWait: time.Minute, Restarts: 1, RestartWait: 5 * time.Minute},
	})
	if err := s.recover(); err != nil {
		return err
	}
	if resume {
		if err := s.resume(); err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.ran = stop, make(chan error, 1)
	go func() { s.ran <- s.r.Run(ctx, false) }()
	return nil
}

// recover ends what the end of the last process interrupted.
func (s *stage) recover() error {
	active, err := s.disk.ActiveRuns()
	for _, run := range active {
		if run.Open == 0 || err != nil {
			continue
		}
		var o runner.Opened
		if o, err = s.opened(run); err == nil {
			_, err = s.r.Recover(context.Background(), o)
		}
	}
	if err == nil {
		s.r.Recovered()
	}
	return err
}

func (s *stage) resume() error {
	active, err := s.disk.ActiveRuns()
	for _, run := range active {
		if err == nil {
			err = s.resumeOne(run)
		}
	}
	return err
}

func (s *stage) resumeOne(run state.Run) error {
	o, err := s.opened(run)
	if err == nil {
		err = s.r.Resume(context.Background(), "uid:9", o)
	}
	if errors.Is(err, runner.ErrEnded) { // with its parent, a moment ago
		return nil
	}
	return err
}

func (s *stage) opened(run state.Run) (runner.Opened, error) {
	raw, err := s.sealed.Read(run.PlanHash, 0)
	if err != nil {
		return runner.Opened{}, err
	}
	p, err := runner.DecodePlan(raw)
	if err != nil {
		return runner.Opened{}, err
	}
	d, err := s.sealed.DAG(run.DAGDigest)
	return runner.Opened{Run: run, DAG: d, Plan: p, Inputs: []byte("{}")}, err
}

// die ends the process: nothing it does is written any more.
func (s *stage) die() error {
	s.disk.arm(0, false)
	s.stop()
	s.box.kill()
	err := <-s.ran
	s.ran <- err
	synctest.Wait() // calls that were under way have returned
	s.disk.Close()
	if errors.Is(err, errDead) || s.box.gone {
		return nil
	}
	return err
}

// reopen lets another process go on.
func (s *stage) reopen(resume bool) error {
	if err := s.die(); err != nil {
		return err
	}
	db, err := store.Open(s.home, store.Options{Now: s.now})
	if err != nil {
		return err
	}
	if err := s.model.read(db); err != nil {
		return err
	}
	return s.run(db, resume)
}

// look waits until nothing moves, opens the site again where the process has died,
// and holds the record against the model.
func (s *stage) look() error {
	synctest.Wait()
	if s.disk.isDead() {
		s.told = append(s.told, "died")
		if err := s.reopen(true); err != nil {
			return fmt.Errorf("reopened: %w", err)
		}
		synctest.Wait()
	}
	select {
	case err := <-s.ran:
		s.ran <- err
		if !s.disk.isDead() {
			return fmt.Errorf("the runner has ended: %w", err)
		}
		return s.look()
	default:
	}
	if s.box.fault != "" {
		return errors.New(s.box.fault + s.stories())
	}
	if err := s.r.Invariants(); err != nil {
		return fmt.Errorf("%w%s", err, s.stories())
	}
	if err := s.model.read(s.disk.DB); err != nil {
		return err
	}
	for _, id := range s.starts {
		if s.model.runs[id] == nil {
			return fmt.Errorf("run %s was started, and is not there", id)
		}
	}
	if err := errors.Join(s.known(), s.model.compare(s.disk.DB, s.box)); err != nil {
		return fmt.Errorf("%w%s", err, s.stories())
	}
	return nil
}

// stories are what has happened to all runs.
func (s *stage) stories() string {
	out := ""
	for l := range s.disk.Entries(0, s.disk.Size()) {
		env, _ := ledger.ParseEnvelope(l.Envelope)
		data, _ := ledger.ParseData(l.Data)
		if env.RunID != "" {
			out += fmt.Sprintf("\n   %d %s %s %s %s %d by %s %s", env.Seq, env.Time[11:23], env.RunID[:13], env.Type, env.StepID, env.Attempt, env.Actor, data.Data)
		}
	}
	return out
}

// order numbers the runs by their first entries.
func (m *model) order() map[string]int64 {
	out := map[string]int64{}
	for id, r := range m.runs {
		out[id] = r.first
	}
	return out
}

// pick is one of what there is.
func pick[T any](list []T, n int) (x T, ok bool) {
	if len(list) == 0 {
		return x, false
	}
	return list[n%len(list)], true
}

// aRun is one of the runs on record, mostly of those that are open.
func (s *stage) aRun(n int) (runner.Opened, bool) {
	ids := make([]string, 0, len(s.model.runs))
	for id := range s.model.runs {
		ids = append(ids, id)
	}
	if open := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return s.model.runs[id].ended != "" }); n%4 > 0 && len(open) > 0 {
		ids = open
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(s.model.runs[a].first, s.model.runs[b].first) })
	id, ok := pick(ids, n/4)
	if !ok {
		return runner.Opened{}, false
	}
	run, err := s.disk.Run(id)
	if err != nil {
		return runner.Opened{}, false
	}
	o, err := s.opened(run)
	return o, err == nil
}

// unpause lets everything be claimed again.
func (s *stage) unpause() error {
	q, err := s.disk.Queue()
	if err != nil || len(q.Paused) == 0 {
		return err
	}
	if q, err = s.disk.ChangeQueue(ledger.QueueResumed, "uid:9", ledger.QueueChange{}); err == nil {
		s.r.StopQueue(q)
	}
	return err
}
