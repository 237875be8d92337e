package manifests

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A key is a dotted name.
type key struct {
	parts []string // the first maxParts
	over  int      // how many there are, if that is more
}

func (k key) String() string {
	path := ""
	for _, p := range k.parts {
		path = join(path, p)
	}
	if k.over > 0 {
		path += ".…"
	}
	return path
}

// key reads a dotted key up to what follows it. Too many parts are reported,
// but not a fault of syntax: s stands behind them.
func (s *scanner) key() (key, bool) {
	var k key
	for n := 1; ; n++ {
		s.spaces()
		part, ok := s.part()
		if !ok {
			return k, false
		}
		if n <= maxParts {
			k.parts = append(k.parts, part)
		} else {
			k.over = n
		}
		s.spaces()
		if s.at() != '.' {
			break
		}
		s.pos++
	}
	if k.over > 0 {
		s.broke(RuleShape, s.line, k.String(), fmt.Sprintf("the name has %d parts, at most %d are allowed", k.over, maxParts),
			"quote a name that has dots in it")
	}
	return k, true
}

// part reads one part of a key.
func (s *scanner) part() (string, bool) {
	start := s.pos
	var name string
	switch s.at() {
	case '"':
		var b strings.Builder
		s.pos++
		if !s.basic(&b) {
			return "", false
		}
		name = b.String()
	case '\'':
		s.pos++
		end := bytes.IndexAny(s.raw[s.pos:], "'\n")
		if end < 0 || s.raw[s.pos+end] == '\n' {
			return "", s.fail("a quoted key has no end", "")
		}
		name = string(s.raw[s.pos : s.pos+end])
		s.pos += end + 1
	default:
		for isBareChar(s.at()) {
			s.pos++
		}
		name = string(s.raw[start:s.pos])
		if name == "" {
			return "", s.fail("want a key, found "+s.what(), "")
		}
	}
	switch {
	case name == "":
		return "", s.fail("the key is empty", "")
	case len(name) > maxKeyPart:
		s.broke(RuleShape, s.line, "", fmt.Sprintf("a part of the key has %d bytes, at most %d are allowed", len(name), maxKeyPart), "")
		return "", false
	case !plain(name) || !utf8.ValidString(name):
		return "", s.fail("the key "+show(name)+" has characters that cannot be seen", "")
	}
	return name, true
}

// A frame is an array or inline table that is open.
type frame struct {
	node  *node
	comma bool // a comma or the end is due
	last  int  // where the last comma stands
	again bool // what follows it is set for a second time
}

// value reads a value into n. It keeps a stack of its own, maxNesting deep at
// most.
func (s *scanner) value(n *node) bool {
	if !s.begin(n) {
		return false
	}
	for len(s.open) > 0 && !s.stop {
		if !s.next(&s.open[len(s.open)-1]) {
			return false
		}
	}
	return !s.stop
}

// begin reads a scalar, or the opening of an array or inline table.
func (s *scanner) begin(n *node) bool {
	switch s.at() {
	case '"', '\'':
		return s.text()
	case '[':
		n.kind = arrayNode
	case '{':
		n.table(byBraces)
	default:
		return s.word()
	}
	if len(s.open) == maxNesting {
		s.broke(RuleShape, s.line, n.path(), fmt.Sprintf("lists and tables stand more than %d deep in each other", maxNesting), "")
		return false
	}
	s.pos++
	s.open = append(s.open, frame{node: n})
	return true
}

// next reads one item of the innermost open array or table, or its end.
func (s *scanner) next(f *frame) bool {
	if f.again { // its name was taken before, so that a comma stands before it
		s.cut(f.last)
		f.again = false
	}
	s.blank()
	end, name := byte(']'), "list"
	if f.node.kind == tableNode {
		end, name = '}', "table"
	}
	switch {
	case s.pos >= len(s.raw):
		return s.fail(fmt.Sprintf("the %s that begins on line %d has no end", name, f.node.line), "")
	case s.at() == end:
		s.pos++
		s.open = s.open[:len(s.open)-1]
		return true
	case f.comma && s.at() == ',':
		f.last = s.pos
		s.pos++
		f.comma = false
		return true
	case f.comma:
		return s.fail(fmt.Sprintf("want a comma or the %c of the %s that begins on line %d, found %s",
			end, name, f.node.line, s.what()), "")
	}
	f.comma = true
	if f.node.kind == arrayNode {
		if !s.count() {
			return false
		}
		return s.begin(f.node.newElem(s.line))
	}
	line := s.line
	k, ok := s.key()
	if !ok {
		return false
	}
	leaf := s.assign(f.node, k, line)
	if leaf == nil || !s.equals() {
		return false
	}
	f.again = leaf.again
	return s.begin(leaf)
}

// word reads a value that is neither text nor a list nor a table: a number, a
// date, true or false. What it means is for the parser to say.
func (s *scanner) word() bool {
	start := s.pos
	for isWordChar(s.at()) {
		s.pos++
	}
	w := string(s.raw[start:s.pos])
	if isDate(w) && s.at() == ' ' && s.pos+1 < len(s.raw) && isDigit(s.raw[s.pos+1]) {
		s.pos++
		for isWordChar(s.at()) {
			s.pos++
		}
		w = string(s.raw[start:s.pos])
	}
	switch {
	case w == "":
		return s.fail("want a value, found "+s.what(), "")
	case w == "true", w == "false", isDigit(w[0]):
		return true
	case (w[0] == '+' || w[0] == '-') && len(w) > 1, w == "inf", w == "nan":
		return true
	}
	return s.fail(show(w)+" is not a value", "text stands in quotes; true and false are lower-case")
}

func isWordChar(c byte) bool { return isBareChar(c) || c == '+' || c == '.' || c == ':' }

func isDate(w string) bool {
	return len(w) == len("2006-01-02") && isDigit(w[0]) && w[4] == '-' && w[7] == '-'
}
