// Package runner decides what happens in a run and when: the plan a start
// freezes, the order of steps, attempts, retries, deadlines, approvals, sub-runs
// and cancellation. It starts no process itself (see [Executor]), stores nothing
// itself (see [Store]), and judges no signature itself (see [Sealed]).
//
// A run that this process takes care of has an [execution], a model in memory.
// Whoever changes the run decides on the model under its lock and commits the
// decision before letting go; a worker is a goroutine for one attempt. Work is
// handed out by calls, never by polling: see [queue].
package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// Errors that callers branch on.
var (
	ErrStopping     = errors.New("runner: shutting down")
	ErrNotExecuting = errors.New("runner: this process does not execute steps")
	ErrEnded        = errors.New("runner: the run has ended")
)

// Store is the durable state that a runner works on.
type Store interface {
	// StartRun writes the first entries of a run, and those of others along with
	// them; store.ErrTokenTaken and the run that has the token when it is taken.
	StartRun(run state.Run, start *ledger.RunStart, more []state.Proposal, along ...state.Batch) (state.Run, error)
	// Commit writes entries of a run in one transaction.
	Commit(runID string, p ...state.Proposal) (state.Run, error)
	Run(id string) (state.Run, error)
	RunByToken(tenant, token string) (state.Run, error)
	Steps(runID string) (map[string]state.Step, error)
	Step(runID, stepID string) (state.Step, error)
	Attempt(runID, stepID string, n int) (state.Attempt, error)
	// Restarted says of which steps somebody wants the last attempt stopped and begun
	// again, since it began.
	Restarted(runID string, steps []string) (map[string]bool, error)
	// CachedOutputs finds what was made under a cache key and is kept still.
	CachedOutputs(key, now string) (hit ledger.CacheHit, ok bool, err error)
	// Locks reads who holds what, of one tenant or with "" of all.
	Locks(tenant string) ([]state.LockRecord, error)
	// LoseLock records that a holder has lost a lock; an error if it holds it no more.
	LoseLock(t ledger.Type, actor, tenant string, loss ledger.LockLoss) error
}

// Sealed is the sealed content that runs are made of, under the trust in force.
type Sealed interface {
	// Put seals bytes and returns their SHA-256.
	Put(raw []byte) (string, error)
	// PutFrom seals what r gives, at most limit bytes.
	PutFrom(r io.Reader, limit int64) (digest string, size int64, err error)
	// Read reads a whole sealed blob, checked.
	Read(digest string, limit int64) ([]byte, error)
	// Open opens a sealed blob; the reader hashes what it relies on.
	Open(digest string) (io.ReadCloser, error)
	// Manifest returns the manifest of an admitted bundle.
	Manifest(digest string) (*manifests.Bundle, error)
	// Judge judges an admitted bundle again, now. A refusal is an error with a
	// Reason() string.
	Judge(digest string) (ledger.TrustRef, error)
	// DAG reads the spec of an admitted DAG bundle.
	DAG(digest string) (*manifests.DAG, error)
	// Startable says why a DAG version may not be started, nil if it may.
	Startable(dagID, version string) error
}

// Options of a runner. Store, Sealed and the folders are required.
type Options struct {
	Store          Store
	Sealed         Sealed
	Executor       Executor // nil: this process executes nothing
	Now            func() time.Time
	Rand           func() float64 // 0 ≤ x < 1; jitter. Default math/rand/v2
	Log            *slog.Logger
	Workers        int // attempts at a time
	Parallel       int // of one run, where its spec does not say
	Grace          time.Duration
	Limits         manifests.Limits // defaults of attempts
	MaxItems       int              // of one for_each; default 1000
	MaxEntries     int              // of one run; beyond it the run fails. Default 250,000
	Concurrency    manifests.Concurrency
	Semaphores     map[string]int64 // name → capacity
	Stuck          manifests.Stuck
	Stopped        state.QueueState // of the queue, see [Runner.StopQueue]
	RunsDir        string           // workspaces
	KeepWorkspaces manifests.Keep   // default: those of attempts that did not succeed
	LogsDir        string
	HMACKey        []byte // of STELLA_IDEMPOTENCY_KEY
	Secrets        Secrets
	RedactKey      []byte // of the tags that stand in the place of secrets
	PlainSecrets   bool   // tier plain may be given secrets
	Owner          string // of attempts: boot id and pid
	Contain        bool   // a run that is given up for a fault of ours ([FaultError]) ends no other; else the runner ends
}

// Runner takes care of runs. Its methods may be called from any goroutine.
type Runner struct {
	opt     Options
	schemas *schemas

	progs   programs
	trusts  atomic.Int64 // how often trust has changed
	begun   time.Time
	opening sync.Mutex // held while a model is made from records; taken before any other
	worked  worked

	mu         sync.Mutex // guards what follows; taken after an execution's
	execs      map[string]*execution
	inherited  bool                 // what is held on record was taken over
	outlived   map[string]*outlived // by sub-run
	plans      map[string]*usedPlan // by hash
	queue      *queue
	free       int                   // worker slots
	start      func(item)            // hands an item to a new worker; nil while nothing may start
	shut       bool                  // no further run is taken
	busy       int                   // workers, starts and decisions under way
	executing  int                   // workers among them
	delayed    map[string]int        // steps that wait for a time, by tenant
	reclaiming map[int64]*time.Timer // by fence, of locks whose holder may be gone
	idle       chan struct{}         // closed and replaced when nothing is left to take care of
	fatal      chan error            // the first fault that ends the runner
	recovered  []func()              // see Recovered
	chores     chan func()           // what nobody waits for
}

// maxChores bounds how much waits for the one goroutine that tidies up.
const maxChores = 64

// New makes a runner; [Runner.Run] lets it work.
func New(opt Options) *Runner {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Rand == nil {
		opt.Rand = rand.Float64
	}
	if opt.MaxItems == 0 {
		opt.MaxItems = 1000
	}
	if opt.MaxEntries == 0 {
		opt.MaxEntries = 250_000
	}
	r := &Runner{
		opt: opt, begun: opt.Now(), schemas: newSchemas(), execs: map[string]*execution{}, outlived: map[string]*outlived{}, plans: map[string]*usedPlan{}, queue: newQueue(opt.Concurrency, opt.Semaphores),
		free: max(1, opt.Workers), idle: make(chan struct{}), fatal: make(chan error, 1), reclaiming: map[int64]*time.Timer{},
		chores: make(chan func(), maxChores), delayed: map[string]int{},
	}
	r.queue.stopped = opt.Stopped
	return r
}

// Run hands out work until ctx is done, and returns when every attempt has
// ended. With untilIdle it also returns once no run is left to take care of;
// from then on no run is taken. The attempts that ctx ends are interrupted.
func (r *Runner) Run(ctx context.Context, untilIdle bool) error {
	until := func() bool { return false }
	if untilIdle {
		until = r.nothingLeft
	}
	return r.run(ctx, until)
}

// run hands out work until ctx is done, or until says so, which is asked under mu.
func (r *Runner) run(ctx context.Context, until func() bool) error {
	if r.opt.Executor == nil {
		return ErrNotExecuting
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := r.inheritLocks(); err != nil {
		return err
	}
	var workers, tidier sync.WaitGroup
	workers.Go(func() { r.watchStuck(ctx) })
	tidier.Go(func() {
		for f := range r.chores {
			f()
		}
	})
	defer tidier.Wait()
	defer close(r.chores) // once the workers have ended
	r.mu.Lock()
	r.start = func(it item) {
		workers.Go(func() {
			if err := r.work(ctx, it); err != nil {
				r.fail(err)
			}
		})
	}
	r.dispatch()
	r.mu.Unlock()
	err := r.wait(ctx, until)
	cancel() // after an error nothing more can be recorded: what is under way ends
	r.mu.Lock()
	r.start, r.shut = nil, true
	for _, t := range r.reclaiming {
		t.Stop()
	}
	r.mu.Unlock()
	workers.Wait()
	r.quiet()
	return err
}

// quiet returns when every decision under way has been written. No further one is
// taken by then.
func (r *Runner) quiet() {
	for {
		r.mu.Lock()
		idle, busy := r.idle, r.busy
		r.mu.Unlock()
		if busy == 0 {
			return
		}
		<-idle
	}
}

// Drain lets the attempts under way end and starts nothing more. Runs that are
// open stay open.
func (r *Runner) Drain(ctx context.Context) {
	r.mu.Lock()
	r.start, r.shut = nil, true
	r.mu.Unlock()
	for {
		r.mu.Lock()
		idle, busy := r.idle, r.busy
		r.mu.Unlock()
		if busy == 0 {
			return
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return
		}
	}
}

// Load says how many attempts are under way, how many steps wait to be
// claimed, and how many runs are taken care of.
func (r *Runner) Load() (executing, queued, runs int) {
	info := r.Queue("")
	return info.Executing, info.Depth, info.Runs
}

// Executes says whether a run is being taken care of here.
func (r *Runner) Executes(runID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.execs[runID]
	return ok
}

// later lets the next step of a run begin before something is done that nothing
// waits for, unless that has piled up. Workers call it.
func (r *Runner) later(f func()) {
	select {
	case r.chores <- f:
	default:
		f()
	}
}

func (r *Runner) fail(err error) {
	if given := (*FaultError)(nil); errors.As(err, &given) {
		return // the others go on
	}
	select {
	case r.fatal <- err:
	default: // the first one counts
	}
}

// hold counts work that keeps the runner from being idle; it fails once no
// further run is taken.
func (r *Runner) hold() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shut {
		return ErrStopping
	}
	r.busy++
	return nil
}

func (r *Runner) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy--
	r.signal()
}

// signal wakes whoever waits for idleness. The caller holds mu.
func (r *Runner) signal() {
	close(r.idle)
	r.idle = make(chan struct{})
}

// adopt takes care of a run from now on. The caller holds e.mu.
func (r *Runner) adopt(e *execution) {
	e.detached = false
	parallel := e.dag.MaxParallelSteps
	if parallel == 0 {
		parallel = max(1, r.opt.Parallel)
	}
	e.slots.capacity, e.slots.name = int64(parallel), fmt.Sprintf("max_parallel_steps of its run, %d", parallel)
	e.touch()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.execs[e.run.RunID] == nil {
		r.usePlans(e)
	}
	r.execs[e.run.RunID] = e
	e.slots.taken = 0
	for _, n := range e.all() {
		if n.former != "" {
			r.outlive(e, n)
		}
		if n.child != "" || n.former != "" { // it goes on to take its slot
			e.slots.taken++
		}
	}
}

// drop lets go of a run. The caller holds e.mu.
func (r *Runner) drop(e *execution) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.execs[e.run.RunID] == e {
		delete(r.execs, e.run.RunID)
		r.leavePlans(e)
	}
	r.queue.tidy()
	r.dispatch()
	r.signal()
}

// handOver gives the steps that were queued to the dispatcher, and lets go of
// a run that has ended. The caller holds e.mu, and has committed.
func (r *Runner) handOver(e *execution) {
	now := r.opt.Now()
	var due []item
	for _, n := range e.fresh {
		if n.status != state.Queued || n.claimed || n.worker || n.former != "" {
			continue // whoever has it queues it when he lets go of it
		}
		it := item{e: e, n: n, age: e.run.FirstSeq, round: n.round.Add(1), queued: now}
		if wait := n.due.Sub(now); !n.due.IsZero() && wait > 0 {
			r.delay(it, wait)
			continue
		}
		due = append(due, it)
	}
	e.fresh = e.fresh[:0]
	r.enqueue(due...)
	if e.ended.Load() {
		r.drop(e)
	}
}

// delay enqueues an item when its time has come, on the monotonic clock, unless
// it was queued anew meanwhile. The caller holds e.mu.
func (r *Runner) delay(it item, wait time.Duration) {
	r.mu.Lock()
	r.delayed[it.e.tenant]++
	r.mu.Unlock()
	it.e.after(wait, func() {
		if !it.over() {
			it.queued = r.opt.Now()
			r.enqueue(it)
		}
	}, func() { // once it is in the queue, so that it is always in one of the two
		r.mu.Lock()
		if r.delayed[it.e.tenant]--; r.delayed[it.e.tenant] == 0 {
			delete(r.delayed, it.e.tenant)
		}
		r.signal()
		r.mu.Unlock()
	})
}

func (r *Runner) enqueue(its ...item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, it := range its {
		r.queue.push(it)
	}
	r.dispatch()
}

// dispatch starts workers while there are slots. The caller holds mu.
func (r *Runner) dispatch() {
	for r.start != nil && r.free > 0 {
		it, ok := r.queue.next()
		if !ok {
			break
		}
		r.free--
		r.busy++
		r.executing++
		r.start(it)
	}
	if r.start != nil {
		r.watchLocks()
	}
}

// done returns what an item took, but for what a sub-run goes on to need.
func (r *Runner) done(it item, child bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free++
	r.executing--
	r.queue.done(it, child)
	r.dispatch()
}

// within lets f decide on a model under its lock, and does afterwards what
// concerns other runs: no two models are locked at a time.
func (r *Runner) within(e *execution, f func() error) error {
	later, err := e.locked(f)
	for _, f := range later {
		f()
	}
	return err
}

// locked runs f under the lock of the model, and returns what is to be done without it.
func (e *execution) locked(f func() error) (later []func(), err error) {
	e.mu.Lock()
	sane := false
	defer func() {
		if !sane { // f panics: what it was about to write is not, and the process ends
			e.setEnded()
		}
		e.mu.Unlock()
	}()
	err = f()
	later, e.later, sane = e.later, nil, true
	return later, err
}

// commit writes what was decided and hands over what follows. A write that
// fails leaves the model ahead of the store: the runner ends. The caller holds
// e.mu.
func (r *Runner) commit(e *execution) error {
	if e.gaveUp != nil {
		return e.gaveUp
	}
	if err := e.advance(); err != nil {
		return r.broken(e, err)
	}
	if len(e.batch) > 0 {
		run, err := r.opt.Store.Commit(e.run.RunID, e.batch...)
		if err != nil {
			return r.broken(e, err)
		}
		e.run, e.batch = run, e.batch[:0]
		e.touch()
		if e.excessive() {
			return r.commit(e)
		}
	}
	r.giveBack(e)
	if e.ended.Load() {
		e.untold = true
		r.tellWhenQuiet(e)
	}
	if e.detached {
		e.fresh = nil // queued for whoever executes the run next
		return nil
	}
	r.handOver(e)
	return nil
}
