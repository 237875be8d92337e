package runner

import (
	"fmt"
	"maps"
	"slices"

	"github.com/stellarun/stella/runner/state"
)

// CouldRun names what waits although nothing keeps it from running.
func (r *Runner) CouldRun() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	_, all := r.queue.stopped.Paused[""]
	if r.start == nil || r.free == 0 || all {
		return nil
	}
	var waiting []item
	r.queue.each(r.execs, func(it item) { waiting = append(waiting, it) })
	for _, it := range waiting {
		if r.queue.couldRun(it) {
			out = append(out, fmt.Sprintf("%s of %s", it.n.id, it.e.runID))
		}
	}
	return out
}

func (q *queue) couldRun(it item) bool {
	if q.closed(it.e.tenant, q.lane(it.e.tenant)) {
		return false
	}
	for _, n := range q.needs(it) {
		if h := n.line(it.e.tenant).head(); h != nil && h.n == it.n && n.weight <= n.capacity-n.taken {
			continue
		}
		if !n.admits(it, n.weight) {
			return false
		}
	}
	return true

}

// Invariants names what the models in memory hold against their own rules, see
// [execution]. Nobody changes a run meanwhile.
func (r *Runner) Invariants() error {
	r.mu.Lock()
	execs := slices.Collect(maps.Values(r.execs))
	r.mu.Unlock()
	for _, e := range execs {
		e.mu.Lock()
		err := e.invariants()
		if err == nil && !e.ended.Load() {
			err = e.asRecorded()
		}
		e.mu.Unlock()
		if err != nil {
			return fmt.Errorf("run %s: %w", e.runID, err)
		}
	}
	return nil
}

func (e *execution) invariants() error {
	if e.ended.Load() {
		return nil // it decides nothing any more
	}
	live, asked, left, failed := 0, 0, 0, false
	for _, n := range e.all() {
		if n.live {
			live++
		}
		if n.status == state.CheckpointPending {
			asked++
		}
		main := n.phase == ordinary && n.parent == nil
		if main && !n.status.Ended() {
			left++
		}
		failed = failed || main && n.status == state.Failed && n.now && !n.settled()
		if e.swept && e.over(n.phase) && e.begun(n.phase) && n.parent == nil && n.status == state.Pending {
			return fmt.Errorf("step %s: the sweep has left it", n.id)
		}
		if err := e.invariantsOf(n); err != nil {
			return fmt.Errorf("step %s, %s: %w", n.id, n.status, err)
		}
	}
	for id := range e.cancels {
		if n := e.find(id); n == nil || n.status != state.Running || !n.claimed || n.child != "" {
			return fmt.Errorf("an attempt of step %s is to be told to stop, and there is none", id)
		}
	}
	switch {
	case live != e.live || asked != e.asked || left != e.left:
		return fmt.Errorf("live %d asked %d left %d, counted %d %d %d", e.live, e.asked, e.left, live, asked, left)
	case failed != e.failing:
		return fmt.Errorf("failing is %v", e.failing)
	case e.late != (e.run.TimedOutUTC != "") || e.timeout && !e.late:
		return fmt.Errorf("late %v timeout %v, timed out %q", e.late, e.timeout, e.run.TimedOutUTC)
	case e.detached || e.run.Status.Ended():
		return fmt.Errorf("it is executed, detached %v, and %s", e.detached, e.run.Status)
	case len(e.todo)+len(e.batch)+len(e.freed)+len(e.later) > 0:
		return fmt.Errorf("left to do: %d ends, %d entries, %d to give back, %d for others", len(e.todo), len(e.batch), len(e.freed), len(e.later))
	}
	return nil
}

func (e *execution) invariantsOf(n *node) error {
	open := 0
	for _, need := range n.needs {
		if !need.over {
			open++
		}
	}
	switch {
	case n.live != (n.status == state.Queued || n.status == state.Running):
		return fmt.Errorf("live is %v", n.live)
	case n.claimed && !n.live:
		return fmt.Errorf("it is claimed")
	case n.again && e.cancels[n.id] == nil:
		return fmt.Errorf("it is to be begun again, and nothing is under way")
	case n.child != "" && n.status != state.Running:
		return fmt.Errorf("it has the sub-run %s", n.child)
	case (n.approval != nil) != (n.status == state.CheckpointPending):
		return fmt.Errorf("its approval is %+v", n.approval)
	case n.now && !n.status.Ended():
		return fmt.Errorf("it ended in this generation")
	case n.status == state.Running && n.list != "" && n.parent == nil && n.left != unended(n.items):
		return fmt.Errorf("%d items are left, counted %d", n.left, unended(n.items))
	case n.parent != nil && n.live && n.parent.status != state.Running:
		return fmt.Errorf("it is under way, and its step is %s", n.parent.status)
	case n.waiting != open:
		return fmt.Errorf("it waits for %d needs, %d are not over", n.waiting, open)
	case n.parent == nil && n.over != (n.status.Ended() && n.waiting == 0):
		return fmt.Errorf("it is over: %v", n.over)
	}
	return nil
}

func unended(items []*node) (n int) {
	for _, x := range items {
		if !x.status.Ended() {
			n++
		}
	}
	return n
}

// Kept is how much a runner keeps of runs beyond their models.
func (r *Runner) Kept() (gates, plans, lanes, programs int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.queue.gates), len(r.plans), len(r.queue.lanes), len(r.progs.copy())
}

// Leaves says whether an attempt that has ended so may have left something done.
var Leaves = leaves

// asRecorded says where the model differs from one that is made from its records, as
// after a crash.
func (e *execution) asRecorded() error {
	o, err := e.r.load(e.runID)
	if err != nil {
		return err
	}
	f, err := e.r.opened(o)
	if err != nil {
		return err
	}
	type counts struct {
		failing, late     bool
		left, live, asked int
	}
	if a, b := (counts{e.failing, e.late, e.left, e.live, e.asked}), (counts{f.failing, f.late, f.left, f.live, f.asked}); a != b {
		return fmt.Errorf("the model has %+v, its records give %+v", a, b)
	}
	forgotten := func(n *node) bool { // an item that no list has any more, and of which there may be no record
		return n.parent != nil && n.index >= len(n.parent.items) && n.status == state.Pending && n.attempt == 0 && n.overlay == ""
	}
	a, b := slices.DeleteFunc(slices.Clone(e.all()), forgotten), slices.DeleteFunc(slices.Clone(f.all()), forgotten)
	if len(a) != len(b) {
		return fmt.Errorf("the model has %d nodes, its records give %d", len(a), len(b))
	}
	for i := range a {
		if a, b := a[i].recorded(), b[i].recorded(); a != b {
			return fmt.Errorf("the model has %s, its records give %s", a, b)
		}
	}
	return nil
}

// recorded is what of a node is on record.
func (n *node) recorded() string {
	out := fmt.Sprint(n.id, n.status, n.reason, n.attempt, n.afresh, n.repeat, n.overlay, n.child, n.former, n.list, n.now, len(n.items), n.outputsHash)
	if !n.status.Ended() { // counts begin anew with the next turn
		out += fmt.Sprint(n.failures, n.interruptions, n.infra, n.after.UTC().Round(0))
	}
	return out
}
