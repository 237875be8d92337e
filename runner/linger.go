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
// has. On record the one has ended and the other is a run by itself; their locks are
// free. Here they are the run's: it neither ends nor begins to clean up before them, the
// step begins nothing, and the locks stay taken.

// stray is an attempt that was taken back.
type stray struct {
	attempt int
	cancel  context.CancelCauseFunc
}

// lingering says whether something is under way that no step waits for. A sub-run that
// nobody executes does nothing.
func (e *execution) lingering() bool {
	return len(e.strays) > 0 || slices.ContainsFunc(e.all(), func(n *node) bool {
		return n.former != "" && (!e.detached || e.r.Executes(n.former))
	})
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

// Lingers says what of a step is under way although it does not wait for it any more,
// "" where nothing is.
func (r *Runner) Lingers(runID, stepID string) string {
	e := r.executed(runID)
	if e == nil {
		return ""
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.find(stepID)
	if n == nil {
		return ""
	}
	why := e.linger(n)
	for _, item := range n.every {
		if why == "" {
			why = e.linger(item)
		}
	}
	return why
}

// Strays are the attempts of a run that were taken back and have yet to end, by step.
func (r *Runner) Strays(runID string) map[string]int {
	e := r.executed(runID)
	if e == nil {
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

func (r *Runner) executed(runID string) *execution {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.execs[runID]
}

// Lingering is a lock that is free on record and taken here.
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
		if e.tenant == tenant {
			execs = append(execs, e)
		}
	}
	r.mu.Unlock()
	var out []Lingering
	for _, e := range execs {
		e.mu.Lock()
		for _, n := range e.all() {
			if why := e.linger(n); why != "" {
				for _, l := range n.locks {
					out = append(out, Lingering{l, e.runID, n.id, n.attempt, why})
				}
			}
		}
		e.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Lingering) int { return strings.Compare(a.RunID+a.StepID, b.RunID+b.StepID) })
	return out
}
