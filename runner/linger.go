package runner

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/ledger"
)

// What a step does not wait for any more can still be under way: an attempt that was
// taken back, until its process has ended, and a sub-run that was given up, until that
// has. They are the run's: it neither ends nor begins to clean up before them, the step
// begins nothing, and the locks stay taken: by the sub-run also on record, where it is a
// run by itself; by the attempt, which has ended on record and goes with this process,
// only here.

// stray is an attempt that was taken back.
type stray struct {
	attempt int
	cancel  context.CancelCauseFunc
}

// lingering says whether something is under way that no step waits for. A sub-run that
// nobody executes does nothing now; whoever takes it up next lets it clean up.
func (e *execution) lingering() bool {
	return len(e.strays) > 0 || slices.ContainsFunc(e.all(), func(n *node) bool { return n.former != "" })
}

// linger says what of a step is under way still, "" where nothing is.
func (e *execution) linger(n *node) string {
	if s, ok := e.strays[n]; ok {
		return fmt.Sprintf("the end of attempt %d, which was taken back", s.attempt)
	}
	if n.former != "" {
		return "the end of run " + n.former + ", which it has given up"
	}
	return ""
}

// Linger is what of a step is under way although the step does not wait for it.
type Linger struct {
	Why    string // in words
	Former string // the sub-run that it is, "" for an attempt
}

// Lingers says that of each step of a run; what is an item's is its step's as well.
func (r *Runner) Lingers(runID string) map[string]Linger {
	e := r.executed(runID)
	if e == nil {
		return nil
	}
	out := map[string]Linger{}
	for _, l := range r.lingers(e) {
		out[l.n.id] = l.Linger
		if l.n.parent != nil && out[l.n.parent.id].Why == "" {
			out[l.n.parent.id] = l.Linger
		}
	}
	return out
}

// remnant is what is under way of a step that does not wait for it.
type remnant struct {
	n *node
	Linger
}

// lingers is all of a run that is under way and that no step waits for.
func (r *Runner) lingers(e *execution) (out []remnant) {
	if e.apart.Load() == 0 && !r.hasOutlived(e) {
		return nil // without asking a busy run
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	see := func(n *node) {
		if why := e.linger(n); why != "" {
			l := Linger{Why: why}
			if _, stray := e.strays[n]; !stray {
				l.Former = n.former
			}
			out = append(out, remnant{n, l})
		}
	}
	for n := range e.strays {
		see(n)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.outlived {
		if o.e == e && o.n.former != "" {
			see(o.n)
		}
	}
	return out
}

// Strays are the attempts of a run that were taken back and have yet to end, by step.
func (r *Runner) Strays(runID string) map[string]int {
	e := r.executed(runID)
	if e == nil || e.apart.Load() == 0 { // a busy run is not asked
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make(map[string]int, len(e.strays))
	for n, s := range e.strays {
		out[n.id] = s.attempt
	}
	return out
}

func (r *Runner) hasOutlived(e *execution) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.outlived {
		if o.e == e {
			return true
		}
	}
	return false
}

func (r *Runner) executed(runID string) *execution {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.execs[runID]
}

// Lingering is a lock that is free on record and taken here, by an attempt that was
// taken back.
type Lingering struct {
	ledger.Lock
	RunID, StepID string
	Attempt       int
	Why           string // it is not given to others yet
}

// Lingering lists such locks of a tenant.
func (r *Runner) Lingering(tenant string) []Lingering {
	r.mu.Lock()
	var execs []*execution
	for _, e := range r.execs {
		if e.tenant == tenant && e.apart.Load() > 0 { // a busy run is not asked
			execs = append(execs, e)
		}
	}
	r.mu.Unlock()
	var out []Lingering
	for _, e := range execs {
		e.mu.Lock()
		for n, s := range e.strays {
			for _, l := range n.locks {
				out = append(out, Lingering{l, e.runID, n.id, s.attempt, e.linger(n)})
			}
		}
		e.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Lingering) int { return strings.Compare(a.RunID+a.StepID, b.RunID+b.StepID) })
	return out
}
