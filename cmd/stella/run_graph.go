package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/drawing"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// newRunGraph joins the DAG of a run with what became of its steps.
func newRunGraph(d *manifests.DAG, run api.RunDetail) dagGraph {
	g := newGraph(d)
	g.RunID, g.Status, g.Reason = run.RunID, string(run.Status), reason(run.Run)
	at := map[string]*graphNode{}
	for i := range g.Steps {
		n := &g.Steps[i]
		n.nodeState = &nodeState{Status: string(state.Pending)}
		at[n.StepID] = n
	}
	for _, s := range run.StepList {
		if n := at[s.StepID]; n != nil {
			n.Status, n.Attempt, n.DurationMs, n.Cached = string(s.Status), s.Attempt, s.DurationMs, s.Cached != nil
			if n.Why = s.Waiting; n.Why == "" && s.Status != state.Completed {
				n.Why = whyStep(s.ErrorCode, s.Reason)
			}
			continue
		}
		// An item of for_each is the step id.N.
		id, _, _ := strings.Cut(s.StepID, ".")
		if n := at[id]; n != nil {
			if n.Items == nil {
				n.Items = map[string]int{}
			}
			n.Items[string(s.Status)]++
		}
	}
	return g
}

// draw puts the state into a node of the drawing.
func (st *nodeState) draw(n *drawing.Node) {
	n.State = st.Status
	var parts []string
	if st.Cached {
		parts = append(parts, "from the cache")
	}
	if st.Attempt > 1 {
		parts = append(parts, "attempt "+strconv.Itoa(st.Attempt))
	}
	if st.DurationMs > 0 {
		parts = append(parts, (time.Duration(st.DurationMs) * time.Millisecond).String())
	}
	n.Detail = strings.Join(parts, ", ")
	var items []string
	for _, status := range slices.Sorted(maps.Keys(st.Items)) {
		items = append(items, fmt.Sprintf("%d %s", st.Items[status], status))
	}
	if len(items) > 0 {
		n.Marks = append(n.Marks, "items: "+strings.Join(items, ", "))
	}
	if st.Why != "" {
		n.Marks = append(n.Marks, "why: "+st.Why)
	}
}
