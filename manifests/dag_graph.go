package manifests

import (
	"fmt"
	"slices"
	"strings"
)

// needs checks what the steps of one list need: steps of the same list, in no
// circle.
func (c *dagCheck) needs(key string, rows []*table, steps []Step) {
	at := make(map[string]int, len(steps))
	for i := range steps {
		if _, ok := at[steps[i].ID]; !ok && steps[i].ID != "" {
			at[steps[i].ID] = i
		}
	}
	ids := make([]string, 0, len(at))
	for _, s := range steps {
		ids = append(ids, s.ID)
	}
	edges := make([][]int, len(steps))
	for i, row := range rows {
		list, _ := row.values["needs"].([]any)
		for e, v := range list {
			need, _ := v.(string)
			if j, ok := at[need]; ok {
				edges[i] = append(edges[i], j)
			} else if ValidStepID(need) {
				n := row.node.kids["needs"].elems[e]
				c.add(n.line, n.path(), "there is no step "+need+" in [["+key+"]]", c.meant(need, ids))
			}
		}
	}
	c.circles(rows, steps, edges)
}

// meant says where a step is that cannot be needed, or which one was meant.
func (c *dagCheck) meant(need string, ids []string) string {
	if line, ok := c.first[need]; ok {
		return fmt.Sprintf("line %d has it in another list; steps need only those of their own list", line)
	}
	if len(ids) > 50 || len(c.faults) >= maxFaults { // bounds the number of distances
		return ""
	}
	if hint := nearest(need, ids); strings.HasPrefix(hint, "did you mean") {
		return hint
	}
	return ""
}

// circles reports one circle of each group of steps that wait for each other,
// and how many other steps wait for them. Nothing else makes a step
// unreachable: whatever a need becomes, its dependents are started or skipped.
func (c *dagCheck) circles(rows []*table, steps []Step, edges [][]int) {
	groups, waiting := components(edges)
	for _, g := range groups {
		path := shortestCircle(edges, g)
		names := make([]string, 0, len(path)+1)
		for _, i := range path {
			names = append(names, steps[i].ID)
		}
		names = append(names, names[0])
		if len(names) > 20 {
			names = append(append(names[:10:10], "…"), names[len(names)-9:]...)
		}
		hint := "take one of these needs away"
		if waiting > 0 {
			hint += fmt.Sprintf("; the circles also keep %d other steps from starting", waiting)
		}
		row := rows[path[0]]
		row.fault("needs", "the steps wait for each other: "+strings.Join(names, " -> "), hint)
	}
}

// components returns the groups of steps that can reach each other through
// edges, each sorted, in the order of their first steps; and how many steps
// outside them need one of them, at whatever distance.
func components(edges [][]int) (groups [][]int, waiting int) {
	n := len(edges)
	f := finder{edges: edges, number: make([]int, n), low: make([]int, n), next: make([]int, n),
		onStack: make([]bool, n), stuck: make([]bool, n)}
	for v := range n {
		if f.number[v] == 0 {
			f.from(v)
		}
	}
	slices.SortFunc(f.groups, func(a, b []int) int { return a[0] - b[0] })
	return f.groups, f.waiting
}

// A finder finds strongly connected components (Tarjan 1972) without recursion.
type finder struct {
	edges   [][]int
	number  []int // of a step, in the order of the first visits; 0: not visited
	low     []int // lowest number on the stack that a step reaches
	next    []int // edges of a step looked at so far
	onStack []bool
	stuck   []bool // in a group, or needs one that is
	stack   []int  // visited, not yet in a component
	path    []int  // from the root to the current step
	last    int    // number given out last
	groups  [][]int
	waiting int
}

func (f *finder) visit(v int) {
	f.last++
	f.number[v], f.low[v], f.onStack[v] = f.last, f.last, true
	f.stack, f.path = append(f.stack, v), append(f.path, v)
}

func (f *finder) from(root int) {
	f.visit(root)
	for len(f.path) > 0 {
		v := f.path[len(f.path)-1]
		if f.next[v] == len(f.edges[v]) {
			f.leave(v)
			continue
		}
		w := f.edges[v][f.next[v]]
		f.next[v]++
		if f.number[w] == 0 {
			f.visit(w)
		} else if f.onStack[w] {
			f.low[v] = min(f.low[v], f.number[w])
		}
	}
}

// leave ends the visit of v, and takes its component off the stack if v is the
// first of it.
func (f *finder) leave(v int) {
	f.path = f.path[:len(f.path)-1]
	if len(f.path) > 0 {
		above := f.path[len(f.path)-1]
		f.low[above] = min(f.low[above], f.low[v])
	}
	if f.low[v] != f.number[v] {
		return
	}
	start := len(f.stack) - 1
	for f.stack[start] != v {
		start--
	}
	group := slices.Clone(f.stack[start:])
	f.stack = f.stack[:start]
	for _, w := range group {
		f.onStack[w] = false
	}
	switch {
	case len(group) > 1 || slices.Contains(f.edges[v], v):
		slices.Sort(group)
		f.groups = append(f.groups, group)
		for _, w := range group {
			f.stuck[w] = true
		}
	case slices.ContainsFunc(f.edges[v], func(w int) bool { return f.stuck[w] }): // all it needs was left before
		f.stuck[v] = true
		f.waiting++
	}
}

// shortestCircle returns the steps of a shortest circle through the first step
// of group, from that step on.
func shortestCircle(edges [][]int, group []int) []int {
	start := group[0]
	inside := make(map[int]bool, len(group))
	for _, v := range group {
		inside[v] = true
	}
	from := map[int]int{}
	queue := []int{start}
	for len(queue) > 0 {
		v := queue[0]
		queue = queue[1:]
		for _, w := range edges[v] {
			if w == start {
				circle := []int{v}
				for v != start {
					v = from[v]
					circle = append(circle, v)
				}
				slices.Reverse(circle)
				return circle
			}
			if _, seen := from[w]; inside[w] && !seen {
				from[w] = v
				queue = append(queue, w)
			}
		}
	}
	panic("manifests: a group of steps without a circle")
}
