// Package manifests is the languages of a site: bundle manifest, DAG spec,
// root, policy, revocations and site.toml. TOML goes in, checked values come
// out, and back; it does no I/O and starts no goroutine. Each parser first scans
// the bytes in linear time (THREATS 1), so that a hostile file never reaches the
// TOML decoder, and then reports every fault of the file at once, with line and
// hint. What CEL expressions say it leaves to the runner, who may sign what to
// verify.
package manifests

import (
	"fmt"
	"slices"
	"strings"
)

// A Fault is one thing wrong in a file.
type Fault struct {
	File string `json:"file"`
	Line int    `json:"line"` // from 1; 0 when the fault has no place
	Key  string `json:"key,omitempty"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
	Rule Rule   `json:"rule,omitempty"` // where it is one that a caller tells from others
}

// Rule names what a fault breaks, where a caller tells it from other faults.
type Rule string

// Rules that have a name.
const (
	RuleShape     Rule = "shape"     // what the scan refuses so that no parser spends on it: lines, depth, count
	RuleTraversal Rule = "traversal" // a path that is absolute, or has a part that is empty, . or ..
	RuleForbidden Rule = "forbidden" // a path with other characters than the allowed ones, or too long
	RuleCollision Rule = "collision" // two paths that differ only in case, or not at all
)

func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	b.WriteString(": ")
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Text)
	if f.Hint != "" {
		b.WriteString(" (" + f.Hint + ")")
	}
	return b.String()
}

// Faults is the error of every parser here: all that is wrong, by line.
type Faults []Fault

// Breaks says whether one of the faults breaks the rule.
func (f Faults) Breaks(rule Rule) bool {
	return slices.ContainsFunc(f, func(x Fault) bool { return x.Rule == rule })
}

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, x := range f {
		lines[i] = x.String()
	}
	return strings.Join(lines, "\n")
}
