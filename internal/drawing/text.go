package drawing

import "strings"

// maxDepth is how far text is indented before the rest of a long chain begins
// anew at the margin: ten thousand steps in a row would be a hundred megabytes
// of indentation.
const maxDepth = 24

// Line is one line of a drawing as text: a step, or with only Head set a
// heading, which may be empty.
type Line struct {
	Head   string // branches of the tree, or a heading
	ID     string
	State  string // of a run
	Detail string
	Rest   string
}

// Text draws each step once, below that one of its needs which comes last.
// Further needs are named beside it.
func Text(g Graph) []Line {
	lines := []Line{{Head: clean(g.Title)}}
	if g.Note != "" {
		lines = append(lines, Line{Head: clean(g.Note)})
	}
	for _, group := range g.Groups {
		if group.Name != "" {
			lines = append(lines, Line{}, Line{Head: clean(group.Name)})
		}
		t := newTree(group.Nodes)
		t.draw(-1, "", 0)
		for len(t.later) > 0 { // grows while it is worked off
			root := t.later[0]
			t.later = t.later[1:]
			t.lines = append(t.lines, Line{}, Line{Head: "… " + clean(t.nodes[root].ID)})
			t.draw(root, "", 0)
		}
		lines = append(lines, t.lines...)
	}
	return lines
}

// A tree is a group as text has it.
type tree struct {
	nodes []Node
	below map[int][]int // by the step above; -1 is the root
	lines []Line
	later []int // steps whose dependents are drawn at the margin
}

func newTree(nodes []Node) *tree {
	t := &tree{nodes: nodes, below: map[int][]int{}}
	at := map[string]int{}
	for i := range nodes {
		parent := -1
		for _, need := range nodes[i].Needs {
			if k, ok := at[need]; ok {
				parent = max(parent, k)
			}
		}
		at[nodes[i].ID] = i
		t.below[parent] = append(t.below[parent], i)
	}
	return t
}

func (t *tree) draw(parent int, indent string, depth int) {
	list := t.below[parent]
	for k, i := range list {
		branch, next := "├─ ", "│  "
		if k == len(list)-1 {
			branch, next = "└─ ", "   "
		}
		n := &t.nodes[i]
		l := Line{Head: indent + branch, ID: clean(n.ID), State: n.State, Detail: clean(n.Detail), Rest: t.rest(n, parent)}
		if depth+1 == maxDepth && len(t.below[i]) > 0 {
			l.Rest += "  (goes on below)"
			t.lines = append(t.lines, l)
			t.later = append(t.later, i)
			continue
		}
		t.lines = append(t.lines, l)
		t.draw(i, indent+next, depth+1)
	}
}

// rest is what a line says of its step.
func (t *tree) rest(n *Node, parent int) string {
	out := clean(n.Does)
	var more []string
	for _, need := range n.Needs {
		if parent < 0 || need != t.nodes[parent].ID {
			more = append(more, clean(need))
		}
	}
	if len(more) > 0 {
		out += "  (also needs " + strings.Join(more, ", ") + ")"
	}
	for _, m := range n.Marks {
		out += "  " + clean(m)
	}
	return out
}
