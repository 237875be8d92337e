package drawing

// Measures of the drawing, in pixels.
const (
	letter    = 29 // quarters of a pixel, of text in a box
	heading   = 32 // quarters of a pixel, of an id or a title
	line      = 17 // from one line of a box to the next
	padding   = 12
	beside    = 24 // between boxes
	bendWidth = 10
	between   = 46 // of layers, where edges bend
	laneWidth = 9
	margin    = 20
	stacked   = 4    // by which each box of a stack stands out
	most      = 44   // columns in a box
	rowWidth  = 1200 // that clusters side by side may fill
)

type point struct{ x, y int }

// A box is a node with its place. The lines are cut to its width.
type box struct {
	node       *Node
	lines      []string
	x, y, w, h int
}

// An arrow leads from the lower edge of a box to the upper edge of another:
// straight down within layers, with a bend from one point to the next between
// them.
type arrow struct {
	from, to int
	points   []point
}

// A frame is one group with its place.
type frame struct {
	name       string
	x, y, w, h int
	boxes      []box
	arrows     []arrow
}

// lay lays out one group, with its upper left corner at the origin: steps that
// edges connect together, and such clusters side by side, in rows.
func lay(g Group, bends func(nodes int) int) frame {
	f := frame{name: g.Name}
	var parts []frame
	limit, area := rowWidth, 0
	for _, nodes := range clusters(g.Nodes) {
		part := layCluster(nodes, bends(len(nodes)))
		limit = max(limit, part.w)
		area += (part.w + beside) * (part.h + between)
		parts = append(parts, part)
	}
	for limit*limit < 2*area { // about twice as wide as it is high
		limit += limit / 4
	}
	x, y, row := 0, 0, 0
	for i := range parts {
		part := &parts[i]
		if x > 0 && x+part.w > limit {
			x, y, row = 0, y+row+between, 0
		}
		part.move(x, y)
		for k := range part.arrows {
			part.arrows[k].from += len(f.boxes)
			part.arrows[k].to += len(f.boxes)
		}
		f.boxes = append(f.boxes, part.boxes...)
		f.arrows = append(f.arrows, part.arrows...)
		row = max(row, part.h)
		f.w, f.h = max(f.w, x+part.w), y+row
		x += part.w + beside
	}
	return f
}

// clusters are the steps that edges connect, each list in order; in the order
// of their first steps.
func clusters(nodes []Node) [][]*Node {
	at := make(map[string]int, len(nodes))
	up := make([]int, len(nodes)) // towards the first of a cluster
	first := func(i int) int {
		for up[i] != i {
			up[i] = up[up[i]]
			i = up[i]
		}
		return i
	}
	for i := range nodes {
		up[i] = i
		for _, need := range nodes[i].Needs {
			if k, ok := at[need]; ok {
				a, b := first(i), first(k)
				up[max(a, b)] = min(a, b)
			}
		}
		at[nodes[i].ID] = i
	}
	var out [][]*Node
	place := map[int]int{}
	for i := range nodes {
		k, ok := place[first(i)]
		if !ok {
			k = len(out)
			place[i] = k // the first of a cluster comes first
			out = append(out, nil)
		}
		out[k] = append(out[k], &nodes[i])
	}
	return out
}

// layCluster lays out steps that edges connect.
func layCluster(nodes []*Node, bends int) frame {
	n := newNet(nodes, bends)
	n.order()
	boxes := make([]box, len(nodes))
	for i := range nodes {
		boxes[i] = measure(nodes[i])
	}
	tops, bottoms := n.heights(boxes)
	x := n.across(boxes)
	right := 0
	for i := range boxes {
		b := &boxes[i]
		b.x, b.y = x[i]-b.w/2, tops[n.layer[i]]
		right = max(right, b.x+b.w)
	}
	for v := len(boxes); v < len(x); v++ {
		right = max(right, x[v]+bendWidth/2)
	}
	f := frame{boxes: boxes, w: right, h: bottoms[len(bottoms)-1]}
	for _, e := range n.edges {
		f.arrows = append(f.arrows, n.arrow(e, boxes, x, tops, bottoms, right))
	}
	if n.lanes > 0 {
		f.w += beside + n.lanes*laneWidth
	}
	return f
}

// measure makes the box of a node, without its place.
func measure(n *Node) box {
	id := cut(clean(n.ID), most)
	b := box{node: n, lines: []string{id}, w: columns(id) * heading / 4}
	for _, s := range n.said() {
		s = cut(clean(s), most)
		b.lines = append(b.lines, s)
		b.w = max(b.w, columns(s)*letter/4)
	}
	b.w, b.h = b.w+2*padding, len(b.lines)*line+padding
	if n.Kind == Gate {
		b.w += 2 * padding // its sides are slanted
	}
	if n.Each {
		b.w, b.h = b.w+2*stacked, b.h+2*stacked
	}
	b.w += b.w % 2 // so that the middle is a whole number
	return b
}

// heights are the upper and lower edges of the layers.
func (n *net) heights(boxes []box) (tops, bottoms []int) {
	y := 0
	for _, l := range n.layers {
		h := 0
		for _, v := range l {
			if v < len(boxes) {
				h = max(h, boxes[v].h)
			}
		}
		tops, bottoms = append(tops, y), append(bottoms, y+h)
		y += h + between
	}
	return tops, bottoms
}

func (n *net) arrow(e link, boxes []box, x, tops, bottoms []int, right int) arrow {
	a, b := boxes[e.from], boxes[e.to]
	out := arrow{from: e.from, to: e.to, points: []point{{x[e.from], a.y + a.h}, {x[e.from], bottoms[n.layer[e.from]]}}}
	add := func(x, from, to int) { out.points = append(out.points, point{x, from}, point{x, to}) }
	if e.lane > 0 {
		add(right+beside+(e.lane-1)*laneWidth, tops[n.layer[e.from]+1], bottoms[n.layer[e.to]-1])
	}
	for _, v := range e.bends {
		add(x[v], tops[n.layer[v]], bottoms[n.layer[v]])
	}
	out.points = append(out.points, point{x[e.to], b.y})
	return out
}

// across finds the middle of each vertex: near to its neighbours, in the order
// of its layer, with the room between that boxes want.
func (n *net) across(boxes []box) []int {
	half := func(v int) int {
		if v < len(boxes) {
			return boxes[v].w / 2
		}
		return bendWidth / 2
	}
	x := make([]int, len(n.layer))
	for _, l := range n.layers {
		at := 0
		for _, v := range l {
			x[v] = at + half(v)
			at += 2*half(v) + beside
		}
	}
	rounds := 8
	if len(n.layer) > 20000 {
		rounds = 4
	}
	for r := range rounds {
		for i := range n.layers {
			l, near := n.layers[i], n.up
			if r%2 == 1 {
				l, near = n.layers[len(n.layers)-1-i], n.down
			}
			n.settle(l, near, len(boxes), half, x)
		}
	}
	left := 0
	for v := range x {
		if at := x[v] - half(v); v == 0 || at < left {
			left = at
		}
	}
	for v := range x {
		x[v] -= left
	}
	return x
}

// settle moves the vertices of a layer as near to the middle of their
// neighbours as their order and their widths let them: the least sum of squares,
// by pooling those that would overlap (isotonic regression). Bends weigh more, so that long
// edges are straight.
func (n *net) settle(l []int, near [][]int, nodes int, half func(int) int, x []int) {
	type pool struct{ sum, weight, first int }
	var pools []pool
	offset := make([]int, len(l)) // the least distance from the first vertex
	for i, v := range l {
		if i > 0 {
			offset[i] = offset[i-1] + half(l[i-1]) + beside + half(v)
		}
		want, weight := x[v], 1
		if k := len(near[v]); k > 0 {
			sum := 0
			for _, w := range near[v] {
				sum += x[w]
			}
			want, weight = floor(sum, k), 2
			if v >= nodes {
				weight = 16
			}
		}
		p := pool{(want - offset[i]) * weight, weight, i}
		for len(pools) > 0 && floor(pools[len(pools)-1].sum, pools[len(pools)-1].weight) >= floor(p.sum, p.weight) {
			last := pools[len(pools)-1]
			p = pool{p.sum + last.sum, p.weight + last.weight, last.first}
			pools = pools[:len(pools)-1]
		}
		pools = append(pools, p)
	}
	for k, p := range pools {
		end := len(l)
		if k+1 < len(pools) {
			end = pools[k+1].first
		}
		for i := p.first; i < end; i++ {
			x[l[i]] = floor(p.sum, p.weight) + offset[i]
		}
	}
}

// floor divides and rounds down, below zero as well.
func floor(a, b int) int {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
