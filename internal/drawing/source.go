package drawing

import (
	"fmt"
	"io"
	"strings"
)

// Mermaid writes the graph as a flowchart of Mermaid.
func Mermaid(w io.Writer, g Graph) error {
	p := newPen(w)
	p.printf("flowchart TD\n")
	states := map[string]bool{}
	off := false
	for _, group := range g.Groups {
		indent := "  "
		if group.Name != "" {
			p.printf("  subgraph group_%s[\"%s\"]\n", word(group.Name), mermaidText(group.Name))
			indent = "    "
		}
		for i := range group.Nodes {
			n := &group.Nodes[i]
			open, end := mermaidForm(n)
			class := ""
			if n.Disabled {
				class, off = ":::disabled", true
			}
			if n.State != "" {
				class, states[n.State] = ":::"+word(n.State), true
			}
			label := mermaidText(n.ID)
			for _, s := range n.said() {
				label += "<br/>" + mermaidText(s)
			}
			p.printf("%s%s%s\"%s\"%s%s\n", indent, mermaidID(n.ID), open, label, end, class)
		}
		for i := range group.Nodes {
			for _, need := range group.Nodes[i].Needs {
				p.printf("%s%s --> %s\n", indent, mermaidID(need), mermaidID(group.Nodes[i].ID))
			}
		}
		if group.Name != "" {
			p.printf("  end\n")
		}
	}
	if off {
		p.printf("  classDef disabled stroke-dasharray: 3 3\n")
	}
	for _, c := range palette {
		if states[c.state] {
			p.printf("  classDef %s fill:%s,stroke:%s,color:#1f2328\n", c.state, c.fill, c.stroke)
		}
	}
	return p.end()
}

func mermaidForm(n *Node) (open, end string) {
	switch n.Kind {
	case Run:
		return "[[", "]]"
	case Gate:
		return "{{", "}}"
	}
	return "[", "]"
}

// mermaidID makes an id of a step id.
func mermaidID(step string) string {
	var b strings.Builder
	b.WriteString("s_")
	for _, r := range step {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_':
			b.WriteRune(r)
		case r == '-':
			b.WriteString("_d_")
		default:
			fmt.Fprintf(&b, "_%x_", r)
		}
	}
	return b.String()
}

func mermaidText(s string) string {
	return strings.NewReplacer(`"`, "#quot;", "<", "#lt;", ">", "#gt;", "#", "#35;", "&", "#amp;").Replace(clean(s))
}

// DOT writes the graph for Graphviz.
func DOT(w io.Writer, g Graph) error {
	p := newPen(w)
	p.printf("digraph %s {\n  rankdir=TB;\n  node [shape=box];\n", dotText(clean(g.Title)))
	for _, group := range g.Groups {
		indent := "  "
		if group.Name != "" {
			p.printf("  subgraph %s {\n    label=%s;\n    style=dashed;\n", dotText("cluster_"+clean(group.Name)), dotText(clean(group.Name)))
			indent = "    "
		}
		for i := range group.Nodes {
			n := &group.Nodes[i]
			p.printf("%s%s [label=%s%s];\n", indent, dotText(clean(n.ID)), dotLabel(n), dotForm(n))
		}
		for i := range group.Nodes {
			for _, need := range group.Nodes[i].Needs {
				p.printf("%s%s -> %s;\n", indent, dotText(clean(need)), dotText(clean(group.Nodes[i].ID)))
			}
		}
		if group.Name != "" {
			p.printf("  }\n")
		}
	}
	p.printf("}\n")
	return p.end()
}

func dotLabel(n *Node) string {
	lines := []string{clean(n.ID)}
	for _, s := range n.said() {
		lines = append(lines, clean(s))
	}
	return dotText(strings.Join(lines, "\n"))
}

// dotForm is the form of a node, in the attributes of Graphviz.
func dotForm(n *Node) string {
	out := ""
	switch {
	case n.Kind == Gate:
		out += ", shape=hexagon"
	case n.Each:
		out += ", shape=box3d"
	}
	if n.Kind == Run {
		out += ", peripheries=2"
	}
	var styles []string
	for _, c := range palette {
		if c.state == n.State {
			styles = append(styles, "filled")
			out += fmt.Sprintf(", fillcolor=%q, color=%q", c.fill, c.stroke)
		}
	}
	if n.Disabled {
		styles = append(styles, "dashed")
		out += ", fontcolor=gray40"
	}
	if len(styles) > 0 {
		out += fmt.Sprintf(", style=%q", strings.Join(styles, ","))
	}
	return out
}

// dotText quotes a string for DOT; a line feed becomes \n there as well.
func dotText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// palette is the colours of states, for programs that bring no style.
var palette = [...]struct{ state, fill, stroke string }{
	{"completed", "#dafbe1", "#1a7f37"},
	{"failed", "#ffebe9", "#cf222e"},
	{"running", "#ddf4ff", "#0969da"},
	{"queued", "#ddf4ff", "#0969da"},
	{"checkpoint_pending", "#fff8c5", "#9a6700"},
	{"cancelled", "#eaeef2", "#8c959f"},
	{"skipped", "#eaeef2", "#8c959f"},
}
