package manifests

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// Limits of regular expressions.
const (
	maxPattern = 1024    // bytes
	maxRegex   = 1000    // size of the program, about; see regexSize
	maxMatch   = 1 << 26 // size times bytes of text, over all patterns of a file
)

// regex reads a regular expression in RE2's syntax, compiled to match the whole
// of a text; nil when absent or wrong.
func (t *table) regex(key string) (string, *pattern) {
	s := t.text(key, isLine(maxPattern))
	if s == "" {
		return "", nil
	}
	tree, err := syntax.Parse(s, syntax.Perl) // by itself: "a)(b" must not become two groups
	if err != nil {
		t.fault(key, "is not a regular expression: "+prosaic(err.Error()), "RE2 syntax")
		return "", nil
	}
	size := regexSize(tree)
	if size > maxRegex {
		t.fault(key, "the regular expression is too large", "repeat less: its counts multiply")
		return "", nil
	}
	re, err := regexp.Compile(`\A(?:` + s + `)\z`)
	if err != nil {
		t.fault(key, "is not a regular expression: "+prosaic(err.Error()), "RE2 syntax")
		return "", nil
	}
	return s, &pattern{re: re, size: size}
}

// A pattern is a regular expression and what it costs to match one byte.
type pattern struct {
	re   *regexp.Regexp
	size int
}

// regexSize bounds the program that an expression compiles to, without
// compiling it: a kilobyte of text can ask for a hundred thousand instructions.
// The parser bounds the depth of the tree.
func regexSize(re *syntax.Regexp) int {
	size := 1 // also of a class of characters, however long
	if re.Op == syntax.OpLiteral {
		size = len(re.Rune)
	}
	for _, sub := range re.Sub {
		size += regexSize(sub)
	}
	if re.Op == syntax.OpRepeat {
		size *= max(re.Min, re.Max, 1)
	}
	return min(size, maxRegex+1)
}

// inputs reads [inputs.NAME].
func inputs(t *table) map[string]Input {
	var all map[string]Input
	for _, row := range t.named("inputs", isField()) {
		if all == nil {
			all = map[string]Input{}
		}
		all[row.node.name] = input(row)
	}
	return all
}

func input(t *table) Input {
	defer t.done()
	t.need("type")
	in := Input{
		Type:        t.text("type", rule{validType, "string, integer, number, boolean, array or object"}),
		Description: t.text("description", isProse()),
		Required:    t.boolean("required", false),
		Default:     t.free("default"),
		Secret:      t.boolean("secret", false),
	}
	var re *pattern
	in.Pattern, re = t.regex("pattern")
	if in.Pattern != "" && in.Type != "string" && in.Type != "" {
		t.fault("pattern", "belongs to type string only", "")
	}
	count := 0
	t.elements("enum", "a list of values", func(value any, n *node) {
		if count++; count > maxEnum {
			return
		}
		v := t.json(value, n, 1)
		if v == nil {
			return
		}
		t.fits(in, re, v, n)
		for _, old := range in.Enum {
			if equal(old, v) {
				t.add(n.line, n.path(), "the value stands in the list twice", "")
			}
		}
		in.Enum = append(in.Enum, v)
	})
	if t.has("enum") && count == 0 {
		t.fault("enum", "allows no value", "")
	}
	if count > maxEnum {
		t.fault("enum", fmt.Sprintf("has %d values, at most %d are allowed", count, maxEnum), "use a pattern")
	}
	inputDefault(t, in, re)
	return in
}

func inputDefault(t *table, in Input, re *pattern) {
	if in.Secret {
		if in.Type != "string" && in.Type != "" {
			t.fault("secret", "belongs to type string only", "")
		}
		for _, key := range []string{"default", "enum"} {
			if t.has(key) {
				t.fault(key, "would put a secret in the clear", "take it out; callers give a secretRef")
			}
		}
		return
	}
	if in.Default == nil {
		return
	}
	n := t.node.kids["default"]
	if in.Required {
		t.fault("default", "is never used, as the input is required", "take one of the two out")
	}
	t.fits(in, re, in.Default, n)
	t.secrets(in.Default, n, secretName(t.node.name))
	for _, v := range in.Enum {
		if equal(v, in.Default) {
			return
		}
	}
	if in.Enum != nil {
		t.fault("default", "is not among the values of enum", "")
	}
}

// maxEnum keeps the search for double values, which compares each with each,
// from costing more than reading the file.
const maxEnum = 256

func validType(s string) bool {
	switch s {
	case "string", "integer", "number", "boolean", "array", "object":
		return true
	}
	return false
}

// fits reports a value that is not of an input's type, or against its pattern.
func (r *report) fits(in Input, re *pattern, value any, n *node) {
	ok := in.Type == "" // wrong or missing, and reported
	switch v := value.(type) {
	case string:
		ok = ok || in.Type == "string"
		if ok && re != nil {
			r.match(re, v, n)
		}
	case int64:
		ok = ok || in.Type == "integer" || in.Type == "number"
	case float64:
		ok = ok || in.Type == "number"
	case bool:
		ok = ok || in.Type == "boolean"
	case []any:
		ok = ok || in.Type == "array"
	case map[string]any:
		ok = ok || in.Type == "object"
	}
	if !ok {
		r.add(n.line, n.path(), "want a value of type "+in.Type+", found "+found(value), "")
	}
}

// match reports a text that a pattern does not match. What a file can make us
// spend on matching is bounded: the rest of it counts as a fault.
func (r *report) match(re *pattern, s string, n *node) {
	r.effort += re.size * len(s)
	switch {
	case r.effort > maxMatch:
		r.add(n.line, n.path(), "the patterns of this file take too long to match", "shorter texts or simpler patterns")
	case !re.re.MatchString(s):
		r.add(n.line, n.path(), show(s)+" does not match the pattern", "it must match the whole text")
	}
}
