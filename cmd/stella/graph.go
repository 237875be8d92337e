package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

func newDAGGraphCmd(a *app) *cobra.Command {
	format := "text"
	c := &cobra.Command{
		Use:   "graph FILE|DIR|ID[@VERSION]",
		Short: "Draw a DAG",
		Long: "Draw a DAG from a file, a bundle's source folder, or a published version. As text, each\n" +
			"step stands below the last of the steps that it needs; mermaid and dot are for other\n" +
			"programs.",
		Example: "  stella orch dag graph dag.toml\n  stella orch dag graph audit@1.0.0 --format dot | dot -Tsvg",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runDAGGraph(c.Context(), a, args[0], format) },
	}
	c.Flags().StringVar(&format, "format", format, "`FORMAT`: text, mermaid or dot")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "mermaid", "dot"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// A dagGraph is a DAG as a picture has it.
type dagGraph struct {
	DAGID   string      `json:"dagId"`
	Version string      `json:"version"`
	Steps   []graphNode `json:"steps"` // in the order in which they would be started
}

type graphNode struct {
	StepID string   `json:"stepId"`
	Needs  []string `json:"needs"`
	Does   string   `json:"does"` // what it runs
	When   string   `json:"when,omitempty"`
}

func runDAGGraph(ctx context.Context, a *app, name, format string) error {
	var draw func(*screen, dagGraph)
	switch format {
	case "text":
		draw = drawText
	case "mermaid":
		draw = drawMermaid
	case "dot":
		draw = drawDOT
	default:
		return invalid("--format is text, mermaid or dot, not %q", format)
	}
	d, err := specOf(ctx, a, name)
	if err != nil {
		return err
	}
	g := newGraph(d)
	return a.emit(g, func(s *screen) { draw(s, g) })
}

func newGraph(d *manifests.DAG) dagGraph {
	g := dagGraph{DAGID: d.ID, Version: d.Version, Steps: []graphNode{}}
	for _, s := range runner.Order(d) {
		n := graphNode{StepID: s.ID, Needs: slices.Sorted(slices.Values(s.Needs)), When: s.When}
		if n.Needs == nil {
			n.Needs = []string{}
		}
		switch {
		case s.Plugin != nil:
			n.Does = s.Plugin.String() + " " + s.Action
		case s.DAG != "":
			n.Does = "run of " + s.DAG
		default:
			n.Does = "approval"
		}
		g.Steps = append(g.Steps, n)
	}
	return g
}

// drawText draws each step once: below that one of its needs which comes last.
// Further needs are named beside it.
func drawText(s *screen, g dagGraph) {
	place := map[string]int{}
	for i, n := range g.Steps {
		place[n.StepID] = i
	}
	below := map[string][]graphNode{}
	for _, n := range g.Steps {
		parent := ""
		for _, need := range n.Needs {
			if parent == "" || place[need] > place[parent] {
				parent = need
			}
		}
		below[parent] = append(below[parent], n)
	}
	s.printf("%s %s\n", g.DAGID, g.Version)
	var draw func(parent, indent string)
	draw = func(parent, indent string) {
		for i, n := range below[parent] {
			branch, next := "├─ ", "│  "
			if i == len(below[parent])-1 {
				branch, next = "└─ ", "   "
			}
			s.printf("%s%s%s  %s%s\n", indent, branch, n.StepID, n.Does, aside(n, parent))
			draw(n.StepID, indent+next)
		}
	}
	draw("", "")
}

// aside names what a line of the drawing does not show.
func aside(n graphNode, parent string) string {
	var out string
	if more := slices.DeleteFunc(slices.Clone(n.Needs), func(x string) bool { return x == parent }); len(more) > 0 {
		out += "  (also needs " + strings.Join(more, ", ") + ")"
	}
	if n.When != "" {
		out += "  when " + n.When
	}
	return out
}

// Step ids are of a-z 0-9 _ -; only labels have to be quoted.

func drawMermaid(s *screen, g dagGraph) {
	s.printf("flowchart TD\n")
	id := func(step string) string { return "s_" + strings.ReplaceAll(step, "-", "_d_") }
	for _, n := range g.Steps {
		s.printf("  %s[\"%s<br/>%s\"]\n", id(n.StepID), n.StepID, mermaidText(n.Does))
	}
	for _, n := range g.Steps {
		for _, need := range n.Needs {
			s.printf("  %s --> %s\n", id(need), id(n.StepID))
		}
	}
}

func mermaidText(s string) string {
	return strings.NewReplacer(`"`, "#quot;", "<", "#lt;", ">", "#gt;").Replace(s)
}

func drawDOT(s *screen, g dagGraph) {
	s.printf("digraph %s {\n  rankdir=TB;\n  node [shape=box];\n", dotText(g.DAGID))
	for _, n := range g.Steps {
		s.printf("  %s [label=%s];\n", dotText(n.StepID), dotText(n.StepID+"\n"+n.Does))
	}
	for _, n := range g.Steps {
		for _, need := range n.Needs {
			s.printf("  %s -> %s;\n", dotText(need), dotText(n.StepID))
		}
	}
	s.printf("}\n")
}

// dotText quotes a string for DOT; a line feed becomes \n there as well.
func dotText(s string) string {
	return fmt.Sprintf(`"%s"`, strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s))
}
