package manifests

import (
	"maps"
	"slices"
	"strings"
)

// stepLines says where the expressions of a step stand. What they say is for
// the runner to judge, which has no other way to name their lines.
func stepLines(t *table, s *Step) map[string]int {
	var lines map[string]int
	if n := t.node.kids["when"]; n != nil && s.When != "" {
		lines = map[string]int{"when": n.line}
	}
	if n := t.node.kids["with"]; n != nil && s.With != nil {
		lines = expressionLines(lines, "with", s.With, n)
	}
	if n := t.node.kids["for_each"]; n != nil {
		lines = expressionLines(lines, "for_each", s.ForEach, n)
	}
	if n := t.node.kids["checkpoint"]; n != nil && s.Checkpoint != nil {
		if n := n.kids["question"]; n != nil {
			lines = expressionLines(lines, "checkpoint.question", s.Checkpoint.Question, n)
		}
	}
	return lines
}

// expressionLines adds the line of each text with ${ in it below a path.
func expressionLines(to map[string]int, path string, value any, n *node) map[string]int {
	switch v := value.(type) {
	case string:
		if strings.Contains(v, "${") {
			if to == nil {
				to = map[string]int{}
			}
			to[path] = n.line
		}
	case []any:
		for i, e := range v {
			to = expressionLines(to, index(path, i), e, n.elems[i])
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			to = expressionLines(to, join(path, name), v[name], n.kids[name])
		}
	}
	return to
}

// inputLines adds the lines on which the inputs begin.
func inputLines(to map[string]int, inputs map[string]Input, t *table) map[string]int {
	for name := range inputs {
		if to == nil {
			to = map[string]int{}
		}
		to[join("inputs", name)] = t.node.kids["inputs"].kids[name].line
	}
	return to
}

// At is the path of a key below another, as [Step.Lines] has it; the key is a
// string, or of a list an int.
func At(path string, key any) string {
	if i, ok := key.(int); ok {
		return index(path, i)
	}
	return join(path, key.(string))
}
