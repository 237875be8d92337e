package telemetry

// A needle is one form of a secret.
type needle struct {
	text   []byte
	secret int
}

// noMatch is the root, which is no match.
const noMatch = int32(0)

// An automaton finds all needles at once (Aho and Corasick 1975). Most of it is
// chains, so the child that was made right after a node is not looked up.
type automaton struct {
	nodes    []acNode
	root     [256]int32       // its children, 0 for none
	branches map[branch]int32 // other children of the others
}

type acNode struct {
	fail, out int32 // out: the longest needle that ends here, noMatch if none does
	parent    int32
	depth     int32
	secret    int32
	via       byte // from the parent
	next      byte // to the node after this one, where chained
	chained   bool
	branches  bool
	end       bool
}

type branch struct {
	from int32
	via  byte
}

func newAutomaton(needles []needle) automaton {
	size := 1
	for _, n := range needles {
		size += len(n.text)
	}
	a := automaton{nodes: make([]acNode, 1, size), branches: map[branch]int32{}}
	for _, n := range needles {
		at := int32(0)
		for _, c := range n.text {
			to, ok := a.child(at, c)
			if !ok {
				to = a.add(at, c, n.secret)
			}
			at = to
		}
		if !a.nodes[at].end {
			a.nodes[at].end, a.nodes[at].secret = true, int32(n.secret)
		}
	}
	a.link()
	return a
}

func (a *automaton) child(at int32, c byte) (int32, bool) {
	if at == 0 {
		return a.root[c], a.root[c] != 0
	}
	n := &a.nodes[at]
	if n.chained && n.next == c {
		return at + 1, true
	}
	if !n.branches {
		return 0, false
	}
	to, ok := a.branches[branch{at, c}]
	return to, ok
}

func (a *automaton) add(parent int32, c byte, secret int) int32 {
	to := int32(len(a.nodes))
	p := &a.nodes[parent]
	if parent == 0 {
		a.root[c] = to
	} else if to == parent+1 {
		p.chained, p.next = true, c
	} else {
		p.branches = true
		a.branches[branch{parent, c}] = to
	}
	a.nodes = append(a.nodes, acNode{parent: parent, via: c, depth: p.depth + 1, secret: int32(secret)})
	return to
}

// link computes where a node goes on when none of its children fits: the longest
// other beginning of a needle that ends in the same bytes.
func (a *automaton) link() {
	deepest := int32(0)
	for i := range a.nodes {
		deepest = max(deepest, a.nodes[i].depth)
	}
	count := make([]int32, deepest+2)
	for i := range a.nodes {
		count[a.nodes[i].depth+1]++
	}
	for d := range deepest {
		count[d+1] += count[d]
	}
	order := make([]int32, len(a.nodes)) // by depth
	for i := range a.nodes {
		d := a.nodes[i].depth
		order[count[d]] = int32(i)
		count[d]++
	}
	for _, i := range order[1:] {
		n := &a.nodes[i]
		if n.depth > 1 {
			n.fail = a.next(a.nodes[n.parent].fail, n.via)
		}
		if n.out = a.nodes[n.fail].out; n.end {
			n.out = i
		}
	}
}

// next is the state after a byte.
func (a *automaton) next(at int32, c byte) int32 {
	for {
		if to, ok := a.child(at, c); ok {
			return to
		}
		if at == 0 {
			return 0
		}
		at = a.nodes[at].fail
	}
}

// matchAt is the node of the longest needle that ends in a state.
func (a *automaton) matchAt(at int32) int32 { return a.nodes[at].out }
