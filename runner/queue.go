package runner

import (
	"container/heap"
	"math"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// item is a step that may be claimed. Once its node has gone another way, or was
// queued anew, its round is over and it is worth nothing.
type item struct {
	e      *execution
	n      *node
	age    int64 // seq of the run's first entry
	round  int32
	queued time.Time
}

func (it item) over() bool { return it.e.ended.Load() || it.n.round.Load() != it.round }

// less is the order of the queue: priority of the run, then of the step, then the
// oldest run first, then step id.
func (a item) less(b item) bool {
	switch {
	case a.e.priority != b.e.priority:
		return a.e.priority > b.e.priority
	case a.n.step.Priority != b.n.step.Priority:
		return a.n.step.Priority > b.n.step.Priority
	case a.age != b.age:
		return a.age < b.age
	}
	return byID(a.n, b.n) < 0
}

// items is a heap of them.
type items []item

func (q items) Len() int           { return len(q) }
func (q items) Less(i, j int) bool { return q[i].less(q[j]) }
func (q items) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *items) Push(x any)        { *q = append(*q, x.(item)) }

func (q *items) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	(*q)[last] = item{} // lets go of the run
	*q = (*q)[:last]
	return x
}

// A queue holds what may be claimed, a lane for each tenant. Whose turn it is
// decides first: the tenant that has the fewest attempts under way, and of these
// the one that was served longest ago. So a tenant with ten thousand steps takes
// nothing from one with a single step. Within a lane the order is item.less.
//
// An item that meets something taken, a limit or a lock, waits in the line of
// that and of nothing else; whoever gives it back lets the first of the line try
// again. So each item is looked at as often as what it waits for comes free, and
// a queue of n items costs n log n.
//
// The runner's mu guards it.
type queue struct {
	lanes   map[string]*lane
	served  int64
	gates   map[string]*gate // by what they limit
	limits  manifests.Concurrency
	stopped state.QueueState
	locks   *locks
}

// lane is what one tenant has waiting.
type lane struct {
	ready   items
	running int
	served  int64
}

// gate is a limit on how many attempts are under way at a time, and who waits
// for it.
type gate struct {
	name  string // for people
	limit int
	taken int
	line  line
}

// line is items that wait for one thing, in the order in which they came.
type line struct{ waiting []item }

func newQueue(c manifests.Concurrency, semaphores map[string]int64) *queue {
	return &queue{lanes: map[string]*lane{}, gates: map[string]*gate{}, limits: c, locks: newLocks(semaphores)}
}

func (q *queue) lane(tenant string) *lane {
	l := q.lanes[tenant]
	if l == nil {
		l = &lane{}
		q.lanes[tenant] = l
	}
	return l
}

func (q *queue) push(it item) {
	it.n.wait = ""
	heap.Push(&q.lane(it.e.tenant).ready, it)
}

// next takes the item whose turn it is, with everything that it needs to run; ok
// is false when nothing can be claimed.
func (q *queue) next() (item, bool) {
	for {
		l := q.turn()
		if l == nil {
			return item{}, false
		}
		it := heap.Pop(&l.ready).(item)
		if it.over() {
			q.passOn(it) // its run went another way
			continue
		}
		if !q.take(it) {
			continue // it waits in a line
		}
		q.served++
		l.running, l.served = l.running+1, q.served
		return it, true
	}
}

// turn is the lane whose turn it is, nil if none has anything that may start.
func (q *queue) turn() *lane {
	if _, all := q.stopped.Paused[""]; all {
		return nil
	}
	var best *lane
	for tenant, l := range q.lanes {
		if len(l.ready) == 0 {
			if l.running == 0 {
				delete(q.lanes, tenant) // so that tenants that come and go leave nothing behind
			}
			continue
		}
		if q.closed(tenant, l) {
			continue
		}
		if best == nil || l.running < best.running || l.running == best.running && l.served < best.served {
			best = l
		}
	}
	return best
}

func limitOf(own map[string]int, name string, general int) int {
	if n, ok := own[name]; ok {
		return n
	}
	if general > 0 {
		return general
	}
	return math.MaxInt
}

// take takes everything that an item needs, or nothing; then the item waits in
// the line of what it met first.
func (q *queue) take(it item) bool {
	gates := q.gatesOf(it)
	for _, g := range gates {
		if g.taken >= g.limit {
			q.park(it, &g.line, g.name)
			return false
		}
	}
	if l := q.locks.taken(it); l != nil {
		q.park(it, &l.line, l.describe())
		return false
	}
	for _, g := range gates {
		g.taken++
	}
	q.locks.take(it)
	it.n.wait, it.n.called = "", nil
	for _, want := range it.n.locks { // there may be room for one more
		if l := q.locks.get(it.e.tenant, want); l.held < l.capacity {
			q.call(&l.line)
		}
	}
	return true
}

// park lets an item wait. If it was called by another line and did not take what
// that line waits for, the next of that line is called in its place.
func (q *queue) park(it item, l *line, why string) {
	called := it.n.called
	it.n.wait, it.n.called = why, nil
	if called == l { // it keeps its place
		l.waiting = append([]item{it}, l.waiting...)
		return
	}
	l.waiting = append(l.waiting, it)
	if called != nil {
		q.call(called)
	}
}

// passOn is for an item that was called and does not come.
func (q *queue) passOn(it item) {
	if called := it.n.called; called != nil {
		it.n.called = nil
		q.call(called)
	}
}

// call lets the first of a line try again. What cannot start now anyway, because
// its tenant is paused or at its limit, joins the lane as if it were new: it must
// not keep others waiting.
func (q *queue) call(l *line) {
	for len(l.waiting) > 0 {
		it := l.waiting[0]
		l.waiting[0] = item{}
		l.waiting = l.waiting[1:]
		if it.over() {
			continue
		}
		to := q.lane(it.e.tenant)
		if q.closed(it.e.tenant, to) {
			it.n.wait = ""
			heap.Push(&to.ready, it)
			continue
		}
		it.n.called = l
		heap.Push(&to.ready, it)
		return
	}
}

// closed says whether nothing of a lane may start now.
func (q *queue) closed(tenant string, l *lane) bool {
	_, paused := q.stopped.Paused[tenant]
	return paused || l.running >= limitOf(q.limits.Tenant, tenant, q.limits.PerTenant)
}

// gatesOf are the limits that an item is under: of its run, its DAG, its plugin.
// Those of the tenant are the lane's. A sub-run is no attempt: only its run counts it.
func (q *queue) gatesOf(it item) []*gate {
	out := append(make([]*gate, 0, 3), &it.e.slots)
	if it.n.plan.Plugin == nil {
		return out
	}
	if g := q.gate("the limit of DAG ", it.e.dag.ID, limitOf(q.limits.DAG, it.e.dag.ID, q.limits.PerDAG)); g != nil {
		out = append(out, g)
	}
	plugin := it.n.plan.Plugin.Publisher + "/" + it.n.plan.Plugin.Name
	if g := q.gate("the limit of plugin ", plugin, limitOf(q.limits.Plugin, plugin, q.limits.PerPlugin)); g != nil {
		out = append(out, g)
	}
	return out
}

func (q *queue) gate(what, name string, limit int) *gate {
	if limit == math.MaxInt {
		return nil
	}
	g := q.gates[what+name]
	if g == nil {
		g = &gate{name: what + name, limit: limit}
		q.gates[what+name] = g
	}
	return g
}

// done gives back what an item took. With rest a sub-run goes on: the slot of its
// run and its locks stay taken until [queue.childDone].
func (q *queue) done(it item, rest bool) {
	q.lane(it.e.tenant).running--
	for _, g := range q.gatesOf(it) {
		if rest && g == &it.e.slots {
			continue
		}
		g.taken--
		q.call(&g.line)
	}
	if !rest {
		q.locks.release(q, it.e, it.n)
	}
}

// childDone gives back what a sub-run held of its parent.
func (q *queue) childDone(e *execution, n *node) {
	e.slots.taken--
	q.call(&e.slots.line)
	q.locks.release(q, e, n)
}

// QueueInfo is the queue at one moment.
type QueueInfo struct {
	Depth     int // steps that may be claimed now or wait for a limit or a lock
	Delayed   int // that wait for a time
	Executing int // attempts under way
	Workers   int
	Runs      int       // taken care of
	Oldest    time.Time // when the oldest that waits was queued; zero if none does
	Tenants   map[string]TenantQueue
	Waits     map[string]int // what is waited for → how many steps
	State     state.QueueState
}

// TenantQueue is one tenant's part of it.
type TenantQueue struct{ Depth, Executing int }

// Queue says what waits, and for what.
func (r *Runner) Queue() QueueInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	info := QueueInfo{
		Executing: r.executing, Workers: max(1, r.opt.Workers), Runs: len(r.execs), Delayed: r.delayed,
		Tenants: map[string]TenantQueue{}, Waits: map[string]int{}, State: r.queue.stopped,
	}
	see := func(its []item) {
		for _, it := range its {
			if it.over() {
				continue
			}
			info.Depth++
			t := info.Tenants[it.e.tenant]
			t.Depth++
			info.Tenants[it.e.tenant] = t
			why := it.n.wait
			if why == "" {
				why = "a free worker"
			}
			info.Waits[why]++
			if info.Oldest.IsZero() || it.queued.Before(info.Oldest) {
				info.Oldest = it.queued
			}
		}
	}
	r.queue.each(r.execs, see)
	for tenant, l := range r.queue.lanes {
		if l.running > 0 {
			t := info.Tenants[tenant]
			t.Executing = l.running
			info.Tenants[tenant] = t
		}
	}
	return info
}

// Waits says what a queued step of a run waits for, "" where nothing but a free
// worker is missing.
func (r *Runner) Waits(runID, stepID string) string {
	r.mu.Lock()
	e := r.execs[runID]
	r.mu.Unlock()
	if e == nil {
		return ""
	}
	e.mu.Lock()
	n := e.find(stepID)
	e.mu.Unlock()
	if n == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return n.wait
}

// each visits everything that waits.
func (q *queue) each(execs map[string]*execution, see func([]item)) {
	for _, l := range q.lanes {
		see(l.ready)
	}
	for _, g := range q.gates {
		see(g.line.waiting)
	}
	for _, l := range q.locks.all {
		see(l.line.waiting)
	}
	for _, e := range execs {
		see(e.slots.line.waiting)
	}
}

// StopQueue takes over what is paused and what is drained from now on.
func (r *Runner) StopQueue(s state.QueueState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue.stopped = s
	for tenant, l := range r.queue.lanes {
		if r.queue.closed(tenant, l) {
			for _, it := range l.ready {
				r.queue.passOn(it)
			}
		}
	}
	r.dispatch()
}

// Draining says whether starts of a tenant are refused, by whom and why.
func (r *Runner) Draining(tenant string) (state.QueueNote, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, key := range []string{"", tenant} {
		if note, ok := r.queue.stopped.Draining[key]; ok {
			return note, true
		}
	}
	return state.QueueNote{}, false
}

// locksOf are the locks and weights that a step needs, in the order of names.
func locksOf(s *manifests.Step) []ledger.Lock {
	var out []ledger.Lock
	for _, name := range distinct(s.Locks) {
		out = append(out, ledger.Lock{Kind: "lock", Name: name, Weight: 1})
	}
	for _, name := range sortedKeys(s.Semaphores) {
		out = append(out, ledger.Lock{Kind: "semaphore", Name: name, Weight: s.Semaphores[name]})
	}
	return out
}
