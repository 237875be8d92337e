package runner

import (
	"container/heap"
	"fmt"
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
	came   *line // that let it try; nil if it never waited, or waits
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
// An item that meets something taken, a limit or a lock, waits at that [gate] and
// nowhere else. So each item is looked at about as often as what it waits for comes
// free, and a queue of n items costs n log n.
//
// The runner's mu guards it.
type queue struct {
	lanes   map[string]*lane
	served  int64
	gates   map[string]*gate // limits, by what they limit
	limits  manifests.Concurrency
	stopped state.QueueState
	locks   *locks
}

// lane is what one tenant has waiting for a worker.
type lane struct {
	ready   items
	running int
	served  int64
}

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
	it.n.at = nil
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
		if it.came != nil {
			it.came.trying = false
		}
		if it.over() {
			q.call(it.came) // its run went another way
			continue
		}
		if !q.take(it) {
			continue
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

// closed says whether nothing of a lane may start now.
func (q *queue) closed(tenant string, l *lane) bool {
	_, paused := q.stopped.Paused[tenant]
	return paused || int64(l.running) >= limitOf(q.limits.Tenant, tenant, q.limits.PerTenant)
}

func limitOf(own map[string]int, name string, general int) int64 {
	if n, ok := own[name]; ok {
		return int64(n)
	}
	if general > 0 {
		return int64(general)
	}
	return math.MaxInt64
}

// needs are the gates that an item has to pass: the limits of its run, its DAG
// and its plugin, then its locks. That of the tenant is the lane's. A sub-run is no
// attempt: only its run counts it.
func (q *queue) needs(it item) []need {
	out := append(make([]need, 0, 4), need{&it.e.slots, 1})
	for _, g := range q.limitsOf(it) {
		out = append(out, need{g, 1})
	}
	for _, want := range it.n.locks {
		out = append(out, need{&q.locks.get(it.e.tenant, want).gate, want.Weight})
	}
	return out
}

// limitsOf are the limits that the site sets on an attempt.
func (q *queue) limitsOf(it item) []*gate {
	p := it.n.plan.Plugin
	if p == nil {
		return nil
	}
	var out []*gate
	dag, plugin := it.e.dag.ID, p.Publisher+"/"+p.Name
	if g := q.limit("the limit of DAG ", dag, limitOf(q.limits.DAG, dag, q.limits.PerDAG)); g != nil {
		out = append(out, g)
	}
	if g := q.limit("the limit of plugin ", plugin, limitOf(q.limits.Plugin, plugin, q.limits.PerPlugin)); g != nil {
		out = append(out, g)
	}
	return out
}

func (q *queue) limit(what, name string, limit int64) *gate {
	if limit == math.MaxInt64 {
		return nil
	}
	g := q.gates[what+name]
	if g == nil {
		g = &gate{name: fmt.Sprintf("%s%s, %d", what, name, limit), capacity: limit, key: what + name}
		q.gates[g.key] = g
	}
	return g
}

// forget lets go of a limit that nobody has anything of or waits at: it is made anew
// for the next who comes.
func (q *queue) forget(g *gate) {
	if g.key != "" && q.gates[g.key] == g && g.idle() {
		delete(q.gates, g.key)
	}
}

// done gives back what an item took. With rest a sub-run goes on: the slot of its
// run and its locks stay taken until [Runner.giveBack].
func (q *queue) done(it item, rest bool) {
	q.lane(it.e.tenant).running--
	if rest {
		return
	}
	q.free(&it.e.slots, 1)
	for _, g := range q.limitsOf(it) {
		q.free(g, 1)
		q.forget(g)
	}
	if !it.e.given.Load() { // on record the attempt of a run that was given up goes on
		q.locks.release(q, it.e, it.n)
	}
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
type TenantQueue struct{ Depth, Delayed, Executing int }

// Queue says what waits and for what, of one tenant, or with "" of all.
func (r *Runner) Queue(tenant string) QueueInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	info := QueueInfo{
		Workers: max(1, r.opt.Workers), Tenants: map[string]TenantQueue{}, Waits: map[string]int{}, State: r.queue.stopped,
	}
	r.queue.each(r.execs, func(it item) {
		if tenant != "" && it.e.tenant != tenant {
			return
		}
		info.Depth++
		t := info.Tenants[it.e.tenant]
		t.Depth++
		info.Tenants[it.e.tenant] = t
		info.Waits[r.queue.why(it.e, it.n)]++
		if info.Oldest.IsZero() || it.queued.Before(info.Oldest) {
			info.Oldest = it.queued
		}
	})
	for name, n := range r.delayed {
		t := info.Tenants[name]
		t.Delayed = n
		info.Tenants[name] = t
	}
	for name, l := range r.queue.lanes {
		if l.running > 0 {
			t := info.Tenants[name]
			t.Executing = l.running
			info.Tenants[name] = t
		}
	}
	for _, e := range r.execs {
		if tenant == "" || e.tenant == tenant {
			info.Runs++
		}
	}
	for name, t := range info.Tenants {
		if tenant != "" && name != tenant {
			delete(info.Tenants, name)
			continue
		}
		info.Delayed, info.Executing = info.Delayed+t.Delayed, info.Executing+t.Executing
	}
	return info
}

// Waits says what a queued step of a run waits for, "" where nobody executes it.
func (r *Runner) Waits(runID, stepID string) string {
	r.mu.Lock()
	e := r.execs[runID]
	r.mu.Unlock()
	if e == nil {
		return ""
	}
	n, lingers := e.byID[stepID], "" // which never changes: a busy run is not asked
	if n == nil || e.apart.Load() > 0 || r.hasOutlived(e) {
		e.mu.Lock()
		if n = e.find(stepID); n != nil {
			lingers = e.linger(n)
		}
		e.mu.Unlock()
	}
	if n == nil || lingers != "" {
		return lingers
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.queue.why(e, n)
}

// why says what a step that is queued waits for.
func (q *queue) why(e *execution, n *node) string {
	for _, key := range []string{"", e.tenant} {
		if note, ok := q.stopped.Paused[key]; ok && note.Reason != "" {
			return "the queue is paused by " + note.Actor + ": " + note.Reason
		} else if ok {
			return "the queue is paused by " + note.Actor
		}
	}
	switch l := q.lanes[e.tenant]; {
	case n.at != nil && n.at.lock != nil:
		return n.at.lock.describe(n)
	case n.at != nil:
		return n.at.name
	case l != nil && q.closed(e.tenant, l):
		return "the limit of tenant " + e.tenant
	}
	return "a free worker"
}

// each visits everything that waits.
func (q *queue) each(execs map[string]*execution, visit func(item)) {
	see := func(its []item) {
		for _, it := range its {
			if !it.over() {
				visit(it)
			}
		}
	}
	at := func(g *gate) {
		for _, l := range g.lines {
			see(l.waiting)
		}
		see(g.never)
	}
	for _, l := range q.lanes {
		see(l.ready)
	}
	for _, g := range q.gates {
		at(g)
	}
	for _, l := range q.locks.all {
		at(&l.gate)
	}
	for _, e := range execs {
		at(&e.slots)
	}
}

// empty says whether nothing waits in the queue.
func (q *queue) empty(execs map[string]*execution) bool {
	for _, l := range q.lanes {
		for _, it := range l.ready {
			if !it.over() {
				return false
			}
		}
	}
	none := true
	q.each(execs, func(item) { none = false })
	return none
}

// StopQueue takes over what is paused and what is drained from now on.
func (r *Runner) StopQueue(s state.QueueState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue.stopped = s
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
