package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/drawing"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

func newDAGGraphCmd(a *app) *cobra.Command {
	format := ""
	c := &cobra.Command{
		Use:   "graph FILE|DIR|ID[@VERSION]",
		Short: "Draw a DAG",
		Long: "Draw a DAG from a file, a bundle's source folder, or a published version. As text, each\n" +
			"step stands below the last of the steps that it needs. svg is a picture that needs\n" +
			"nothing else; mermaid and dot are for other programs. What a step runs shows in the form\n" +
			"of its box: a plugin, a run of another DAG (double border), an approval (six sides), one\n" +
			"run for each of several items (a stack), and disabled (dashes).",
		Example: "  stella orch dag graph dag.toml\n  stella orch dag graph audit@1.0.0 --format svg > audit.svg",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			d, err := specOf(c.Context(), a, args[0])
			if err != nil {
				return err
			}
			return a.emitGraph(newGraph(d), format)
		},
	}
	addFormat(c, &format)
	return c
}

func newRunGraphCmd(a *app) *cobra.Command {
	format := ""
	c := &cobra.Command{
		Use:   "graph RUN",
		Short: "Draw a run: its DAG with the state of each step",
		Long: "Draw the DAG of a run with the state of each step: status, attempts, duration, and why it\n" +
			"did not complete. The forms are those of stella orch dag graph; the colour of a box is its\n" +
			"status.",
		Example: "  stella orch run graph 01935b1e-…\n  stella orch run graph 01935b1e-… --format svg > run.svg",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			return runRunGraph(c.Context(), a, args[0], format)
		},
	}
	addFormat(c, &format)
	return c
}

// Forms of a drawing.
const (
	formText    = "text"
	formMermaid = "mermaid"
	formDOT     = "dot"
	formSVG     = "svg"
)

func addFormat(c *cobra.Command, format *string) {
	c.Flags().StringVar(format, "format", formText, "`FORMAT`: text, mermaid, dot or svg")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{formText, formMermaid, formDOT, formSVG}, cobra.ShellCompDirectiveNoFileComp))
}

func checkFormat(format string) error {
	switch format {
	case formText, formMermaid, formDOT, formSVG:
		return nil
	}
	return invalid("--format is text, mermaid, dot or svg, not %q", format)
}

// A dagGraph is a DAG as a picture has it, or a run of one.
type dagGraph struct {
	DAGID   string      `json:"dagId"`
	Version string      `json:"version"`
	RunID   string      `json:"runId,omitempty"`
	Status  string      `json:"status,omitempty"` // of the run
	Reason  string      `json:"reason,omitempty"` // why it did not complete
	Steps   []graphNode `json:"steps"`            // in the order in which they would be started
}

type graphNode struct {
	StepID      string   `json:"stepId"`
	Group       string   `json:"group"` // the key of its list: step, on_failure or on_cancel
	Needs       []string `json:"needs"`
	Kind        string   `json:"kind"` // plugin, run or approval
	Does        string   `json:"does"` // what it runs
	When        string   `json:"when,omitempty"`
	ForEach     any      `json:"forEach,omitempty"`
	MaxParallel int      `json:"maxParallel,omitempty"`
	Question    string   `json:"question,omitempty"` // of its approval
	Disabled    bool     `json:"disabled,omitempty"`
	*nodeState
}

// nodeState is what became of a step in a run.
type nodeState struct {
	Status     string         `json:"status"`
	Attempt    int            `json:"attempt"`
	DurationMs int64          `json:"durationMs,omitempty"`
	Cached     bool           `json:"cached,omitempty"` // its outputs came from the cache
	Why        string         `json:"why,omitempty"`    // it did not complete, or waits
	Items      map[string]int `json:"items,omitempty"`  // of for_each, by status
}

// Kinds of steps in JSON.
const (
	kindPlugin   = "plugin"
	kindRun      = "run"
	kindApproval = "approval"
)

func newGraph(d *manifests.DAG) dagGraph {
	group := map[string]string{}
	for key, list := range map[string][]manifests.Step{"step": d.Steps, "on_failure": d.OnFailure, "on_cancel": d.OnCancel} {
		for i := range list {
			group[list[i].ID] = key
		}
	}
	g := dagGraph{DAGID: d.ID, Version: d.Version, Steps: []graphNode{}}
	for _, s := range runner.Order(d) {
		n := graphNode{
			StepID: s.ID, Group: group[s.ID], Needs: slices.Sorted(slices.Values(s.Needs)), When: s.When,
			ForEach: s.ForEach, MaxParallel: s.MaxParallel, Disabled: s.Disabled,
		}
		if n.Needs == nil {
			n.Needs = []string{}
		}
		if s.Checkpoint != nil {
			n.Question = s.Checkpoint.Question
		}
		switch {
		case s.Plugin != nil:
			n.Kind, n.Does = kindPlugin, s.Plugin.String()+" "+s.Action
		case s.DAG != "":
			n.Kind, n.Does = kindRun, "run of "+s.DAG
		default:
			n.Kind, n.Does = kindApproval, strings.TrimSuffix("approval: "+n.Question, ": ")
		}
		g.Steps = append(g.Steps, n)
	}
	return g
}

// picture turns a graph into what is drawn.
func (g *dagGraph) picture() drawing.Graph {
	out := drawing.Graph{Title: g.DAGID + " " + g.Version}
	if g.RunID != "" {
		out.Title += ", run " + g.RunID
		out.Note = strings.TrimSuffix(g.Status+": "+g.Reason, ": ")
	}
	for _, key := range []string{"step", "on_failure", "on_cancel"} {
		var group drawing.Group
		if key != "step" {
			group.Name = key
		}
		for i := range g.Steps {
			if n := &g.Steps[i]; n.Group == key {
				group.Nodes = append(group.Nodes, n.picture())
			}
		}
		if len(group.Nodes) > 0 || key == "step" {
			out.Groups = append(out.Groups, group)
		}
	}
	return out
}

func (n *graphNode) picture() drawing.Node {
	out := drawing.Node{ID: n.StepID, Does: n.Does, Needs: n.Needs, Each: n.ForEach != nil, Disabled: n.Disabled}
	switch n.Kind {
	case kindRun:
		out.Kind = drawing.Run
	case kindApproval:
		out.Kind = drawing.Gate
	}
	switch each := n.ForEach.(type) {
	case nil:
	case []any:
		out.Marks = append(out.Marks, "for each of "+count(len(each), "item", "items"))
	default:
		out.Marks = append(out.Marks, fmt.Sprintf("for each of %v", each))
	}
	if n.MaxParallel > 0 {
		out.Marks[len(out.Marks)-1] += fmt.Sprintf(", %d at a time", n.MaxParallel)
	}
	if n.When != "" {
		out.Marks = append(out.Marks, "when "+n.When)
	}
	if n.Question != "" && n.Kind != kindApproval {
		out.Marks = append(out.Marks, "then approval: "+n.Question)
	}
	if n.Disabled {
		out.Marks = append(out.Marks, "disabled")
	}
	if n.nodeState != nil {
		n.draw(&out)
	}
	return out
}

// emitGraph writes a graph in the form that was asked for.
func (a *app) emitGraph(g dagGraph, format string) error {
	return a.emit(g, func(s *screen) {
		p := g.picture()
		var draw func(io.Writer, drawing.Graph) error
		switch format {
		case formMermaid:
			draw = drawing.Mermaid
		case formDOT:
			draw = drawing.DOT
		case formSVG:
			draw = drawing.SVG
		default:
			drawTree(s, p)
			return
		}
		var b strings.Builder
		_ = draw(&b, p) // a Builder does not fail
		s.text(b.String())
	})
}

// drawTree writes a drawing as text, its states coloured.
func drawTree(s *screen, g drawing.Graph) {
	var b strings.Builder
	for _, l := range drawing.Text(g) {
		b.WriteString(escape(l.Head))
		if l.ID != "" {
			b.WriteString(escape(l.ID) + "  ")
			if l.State != "" {
				b.WriteString(s.paint(escape(l.State), false))
				if l.Detail != "" {
					b.WriteString(", " + escape(l.Detail))
				}
				b.WriteString("  ")
			}
			b.WriteString(escape(l.Rest))
		}
		b.WriteByte('\n')
	}
	s.write([]byte(b.String()))
}

func runRunGraph(ctx context.Context, a *app, id, format string) error {
	var g dagGraph
	err := a.withSite(ctx, func(ctx context.Context, r *reached) error {
		run, err := r.GetRun(ctx, id)
		if err != nil {
			return err
		}
		detail, err := r.ShowDAG(ctx, run.DAGID, run.DAGVersion)
		if err != nil {
			return err
		}
		d, err := manifests.ParsePublishedDAG(detail.DAGID+"@"+detail.Version, []byte(detail.Spec))
		if err != nil {
			return err
		}
		g = newRunGraph(d, run)
		return nil
	})
	if err != nil {
		return err
	}
	return a.emitGraph(g, format)
}
