package runner

import "container/heap"

// A gate is something of which there is only so much: attempts of a run, a DAG or
// a plugin at a time, a lock, the capacity of a semaphore. Whoever finds it closed
// waits at it in the line of its tenant.
//
// Of each line one item at a time is let try again when something comes free: the
// best. It goes back to the lane of its tenant, where it takes its turn with the
// others; when it takes what it needs, or waits for something else, the next of its
// line follows as long as there is room. So a line never waits at an open gate, and
// no tenant waits for another's line to move.
type gate struct {
	name     string // for people
	capacity int64
	taken    int64
	lines    map[string]*line // by tenant
	never    []item           // want more than there is; site.toml must give more
	lock     *lock            // whose gate it is, nil for a limit
	key      string           // of a limit that the site sets: its name among them
}

// line is items of one tenant that wait at one gate.
type line struct {
	waiting items
	trying  bool // an item of it is on its way
}

func (g *gate) line(tenant string) *line {
	l := g.lines[tenant]
	if l == nil {
		l = &line{}
		if g.lines == nil {
			g.lines = map[string]*line{}
		}
		g.lines[tenant] = l
	}
	return l
}

// idle says whether nobody has anything of the gate or wants it.
func (g *gate) idle() bool {
	for tenant, l := range g.lines {
		if l.head() == nil && !l.trying {
			delete(g.lines, tenant)
		}
	}
	return g.taken == 0 && len(g.lines) == 0 && len(g.never) == 0
}

// head is the best that waits, nil if nothing does.
func (l *line) head() *item {
	for len(l.waiting) > 0 && l.waiting[0].over() {
		heap.Pop(&l.waiting)
	}
	if len(l.waiting) == 0 {
		return nil
	}
	return &l.waiting[0]
}

// admits says whether an item may take a weight. What is better and waits is not
// overtaken, so that a heavy weight is not starved by light ones.
func (g *gate) admits(it item, weight int64) bool {
	if weight > g.capacity-g.taken {
		return false
	}
	l := g.lines[it.e.tenant]
	if l == nil {
		return true
	}
	h := l.head()
	return h == nil || !h.less(it)
}

// need is what an item wants of one gate.
type need struct {
	*gate
	weight int64
}

// take takes everything that an item needs, or nothing; then the item waits at
// the gate that it found closed first.
func (q *queue) take(it item) bool {
	needs := q.needs(it)
	for _, n := range needs {
		if !n.admits(it, n.weight) {
			q.park(it, n)
			for _, n := range needs { // which were perhaps made for this look alone
				q.forget(n.gate)
			}
			return false
		}
	}
	for _, n := range needs {
		n.taken += n.weight
		if n.lock != nil {
			q.locks.taken++
			n.lock.holders = append(n.lock.holders, holder{nth: q.locks.taken, owner: it.n, runID: it.e.runID, stepID: it.n.id, weight: n.weight})
		}
	}
	for _, n := range needs {
		if n.taken < n.capacity {
			q.open(n.gate)
		}
	}
	return true
}

// park lets an item wait. If it came from another line, the next of that follows.
func (q *queue) park(it item, n need) {
	came := it.came
	it.came, it.n.at = nil, n.gate
	if n.weight > n.capacity {
		n.never = append(n.never, it)
		q.call(came)
		return
	}
	l := n.line(it.e.tenant)
	heap.Push(&l.waiting, it)
	if h := l.head(); came != l || h == nil || h.n != it.n { // it may be over by now, and in no line
		q.call(came)
	}
}

// open lets the best of each line of a gate try.
func (q *queue) open(g *gate) {
	for _, l := range g.lines {
		q.call(l)
	}
}

// call lets the best of a line try, unless one is on its way.
func (q *queue) call(l *line) {
	if l == nil || l.trying || l.head() == nil {
		return
	}
	it := heap.Pop(&l.waiting).(item)
	it.came, l.trying = l, true
	q.push(it)
}

// tidy is called when a run has ended: what its steps kept waiting need not wait
// for anything to come free.
func (q *queue) tidy() {
	for _, g := range q.gates {
		q.tidyGate(g)
		q.forget(g)
	}
	for _, l := range q.locks.all {
		q.tidyGate(&l.gate)
	}
}

func (q *queue) tidyGate(g *gate) {
	for _, l := range g.lines {
		if len(l.waiting) > 0 && l.waiting[0].over() {
			q.call(l)
		}
	}
}

// free gives back a weight of a gate.
func (q *queue) free(g *gate, weight int64) {
	g.taken -= weight
	q.open(g)
}
