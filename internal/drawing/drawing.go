// Package drawing draws a DAG: as a tree of text, as source for Mermaid and for
// Graphviz, and as SVG with a layout of its own. It knows nothing of specs, sites
// and runs, and does no I/O. The same graph gives the same bytes on
// every machine: the layout is computed in whole numbers. Text from outside is
// harmless in what it draws, and no graph is too large for it: every step costs
// near to linear time.
package drawing

import (
	"strings"
	"unicode"
)

// Graph is what is drawn: steps in groups, which no edge connects.
type Graph struct {
	Title  string
	Note   string  // a line below the title, may be empty
	Groups []Group // the first stands above the others
}

// Group is steps that wait for each other only.
type Group struct {
	Name  string // "" for the steps that a run begins with
	Nodes []Node // each after those that it needs
}

// Kind is what a step runs.
type Kind int

// Kinds.
const (
	Plugin Kind = iota // an action of a plugin
	Run                // a run of another DAG
	Gate               // nothing: people decide
)

// Node is one step.
type Node struct {
	ID       string
	Kind     Kind
	Does     string   // what it runs, in words
	Marks    []string // what else is to be said of it, in words
	Each     bool     // it runs once for each of several items
	Asks     bool     // people decide when it has run
	Disabled bool
	Needs    []string // ids of its group
	State    string   // its status in a run, "" where no run is drawn
	Detail   string   // of its state: attempt, duration
}

// said is everything about a node below its id.
func (n *Node) said() []string {
	var out []string
	if n.State != "" {
		out = append(out, strings.TrimSuffix(n.State+", "+n.Detail, ", "))
	}
	out = append(out, n.Does)
	return append(out, n.Marks...)
}

// clean makes text one line of characters that neither XML nor a terminal nor
// a reader is misled by.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Cs, unicode.Co) || r&0xFFFE == 0xFFFE {
			return '\uFFFD'
		}
		return r
	}, strings.Join(strings.Fields(s), " "))
}

// columns is how wide text is in a font whose letters all have one width.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

// runeColumns is generous: text that is narrower than its box does no harm.
func runeColumns(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case r >= 0x1100 && !unicode.In(r, unicode.Latin, unicode.Greek, unicode.Cyrillic) && (r < 0x2000 || r > 0x2BFF):
		return 2
	}
	return 1
}

// cut shortens clean text to the given columns.
func cut(s string, most int) string {
	if columns(s) <= most {
		return s
	}
	n := 0
	for i, r := range s {
		if n += runeColumns(r); n > most-1 {
			return s[:i] + "…"
		}
	}
	return s
}
