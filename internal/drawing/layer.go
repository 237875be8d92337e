package drawing

import (
	"cmp"
	"slices"
)

// A net is the steps of one cluster in layers: a step stands one layer below the
// last of its needs, which is the wave in which it can begin. An edge that
// spans layers passes each of them in a bend, a vertex without a box, so that
// it never crosses a box.
type net struct {
	layer  []int   // by vertex: the nodes, then the bends
	up     [][]int // neighbours in the layer above
	down   [][]int
	layers [][]int // vertices from left to right
	edges  []link
	lanes  int // beside the steps; see route
}

// A link is one need: from is needed, to needs it.
type link struct {
	from, to int
	bends    []int // from the layer below from to that above to
	lane     int   // else the lane that it takes, from 1
}

// bendsFor bounds how many bends a cluster may have: without it a few thousand
// edges over a few thousand layers would be millions. Links beyond it, the
// longest, are led beside the steps.
func bendsFor(nodes int) int { return 2000 + 20*nodes }

func newNet(nodes []*Node, bends int) *net {
	n := &net{layer: make([]int, len(nodes))}
	at := make(map[string]int, len(nodes))
	height := 0
	for i := range nodes {
		seen := map[int]bool{i: true}
		for _, need := range nodes[i].Needs {
			from, ok := at[need]
			if !ok || seen[from] {
				continue // nobody draws what is not in order
			}
			seen[from] = true
			n.layer[i] = max(n.layer[i], n.layer[from]+1)
			n.edges = append(n.edges, link{from: from, to: i})
		}
		at[nodes[i].ID] = i
		height = max(height, n.layer[i]+1)
	}
	n.up, n.down = make([][]int, len(nodes)), make([][]int, len(nodes))
	n.layers = make([][]int, height)
	for i := range nodes {
		n.layers[n.layer[i]] = append(n.layers[n.layer[i]], i)
	}
	n.route(bends)
	return n
}

func (n *net) span(e link) int { return n.layer[e.to] - n.layer[e.from] }

// route gives every link its bends, the shortest links first, or a lane where
// there would be too many.
func (n *net) route(left int) {
	byLength := make([]int, len(n.edges))
	for i := range byLength {
		byLength[i] = i
	}
	slices.SortStableFunc(byLength, func(a, b int) int { return cmp.Compare(n.span(n.edges[a]), n.span(n.edges[b])) })
	var aside []int
	for _, i := range byLength {
		e := &n.edges[i]
		if left -= n.span(*e) - 1; left < 0 {
			aside = append(aside, i)
			continue
		}
		above := e.from
		for l := n.layer[e.from] + 1; l < n.layer[e.to]; l++ {
			v := len(n.layer)
			n.layer = append(n.layer, l)
			n.up, n.down = append(n.up, nil), append(n.down, nil)
			n.layers[l] = append(n.layers[l], v)
			n.join(above, v)
			e.bends = append(e.bends, v)
			above = v
		}
		n.join(above, e.to)
	}
	n.takeLanes(aside)
}

func (n *net) join(above, below int) {
	n.down[above] = append(n.down[above], below)
	n.up[below] = append(n.up[below], above)
}

// takeLanes gives links lanes beside the steps: links from the same step share
// one, and a lane is free again where its links have ended.
func (n *net) takeLanes(aside []int) {
	last := map[int]int{} // step → the lowest layer that its lane leads to
	for _, i := range aside {
		e := n.edges[i]
		last[e.from] = max(last[e.from], n.layer[e.to])
	}
	sources := make([]int, 0, len(last))
	for v := range last {
		sources = append(sources, v)
	}
	slices.SortFunc(sources, func(a, b int) int {
		return cmp.Or(cmp.Compare(n.layer[a], n.layer[b]), cmp.Compare(a, b))
	})
	lane := map[int]int{}
	var free []int                         // lanes, the last is taken next
	ends := make([][]int, len(n.layers)+1) // layer → lanes that end there
	layer := 0
	for _, v := range sources {
		for ; layer <= n.layer[v]; layer++ {
			free = append(free, ends[layer]...)
		}
		if len(free) == 0 {
			n.lanes++
			free = append(free, n.lanes)
		}
		lane[v] = free[len(free)-1]
		free = free[:len(free)-1]
		ends[last[v]] = append(ends[last[v]], lane[v])
	}
	for _, i := range aside {
		n.edges[i].lane = lane[n.edges[i].from]
	}
}

// order sorts each layer so that few edges cross: by turns downwards and
// upwards, each vertex goes to the mean place of its neighbours. The best order
// that was seen stays.
func (n *net) order() {
	place := make([]int, len(n.layer))
	number := func() {
		for _, l := range n.layers {
			for i, v := range l {
				place[v] = i
			}
		}
	}
	number()
	best, least := clones(n.layers), n.crossings(place)
	rounds := 8
	if len(n.layer) > 20000 {
		rounds = 4
	}
	for r := 0; r < rounds && least > 0; r++ {
		n.sweep(r%2 == 0, place)
		if c := n.crossings(place); c < least {
			best, least = clones(n.layers), c
		}
	}
	n.layers = best
}

func clones(layers [][]int) [][]int {
	out := make([][]int, len(layers))
	for i := range layers {
		out[i] = slices.Clone(layers[i])
	}
	return out
}

// sweep sorts all layers by their neighbours above, or below.
func (n *net) sweep(downwards bool, place []int) {
	near := n.down
	if downwards {
		near = n.up
	}
	mean := make([]int, len(n.layer))
	for i := range n.layers {
		l := n.layers[i]
		if !downwards {
			l = n.layers[len(n.layers)-1-i]
		}
		for _, v := range l {
			mean[v] = place[v] << 8
			if len(near[v]) > 0 {
				sum := 0
				for _, w := range near[v] {
					sum += place[w]
				}
				mean[v] = sum << 8 / len(near[v])
			}
		}
		slices.SortStableFunc(l, func(a, b int) int { return cmp.Compare(mean[a], mean[b]) })
		for i, v := range l {
			place[v] = i
		}
	}
}

// crossings counts the pairs of edges that cross, layer by layer, with a
// Fenwick tree.
func (n *net) crossings(place []int) int {
	total := 0
	for i := 1; i < len(n.layers); i++ {
		size := len(n.layers[i])
		tree := make([]int, size+1)
		seen := 0
		for _, v := range n.layers[i-1] {
			for _, w := range n.down[v] { // those that end left of it cross it: all seen but those at or right of it
				below := 0
				for k := place[w] + 1; k > 0; k -= k & -k {
					below += tree[k]
				}
				total += seen - below
			}
			for _, w := range n.down[v] {
				for k := place[w] + 1; k <= size; k += k & -k {
					tree[k]++
				}
				seen++
			}
		}
	}
	return total
}
