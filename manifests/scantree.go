package manifests

import (
	"fmt"
	"slices"
	"strings"
)

type nodeKind uint8

const (
	scalarNode nodeKind = iota
	arrayNode           // [ … ]
	tableNode
	tablesNode // [[name]]
)

// origin is how a table came about, which decides what may be added to it.
type origin uint8

const (
	byPath   origin = iota // as a part of a longer header; may get its own header once
	byHeader               // by [name] or [[name]]
	byDots                 // by a dotted key; other dotted keys may add to it
	byBraces               // inline; closed
)

// A node is what the scan knows of one value: where it stands, and what is in
// it. The tree has the shape of the file's contents.
type node struct {
	parent *node
	name   string // of a key
	index  int    // of an element
	kind   nodeKind
	origin origin // of a table
	line   int
	weight int              // see scanner.weigh
	again  bool             // its name was taken: the node stands outside the tree
	kids   map[string]*node // of a table
	elems  []*node          // of an array, or of tables
}

func (n *node) table(by origin) *node {
	n.kind, n.origin = tableNode, by
	if n.kids == nil {
		n.kids = map[string]*node{}
	}
	return n
}

// newKid returns a node for a key of n, not yet among its kids.
func (n *node) newKid(name string, line int) *node {
	return &node{parent: n, name: name, line: line, weight: n.weight + len(name) + partCost}
}

// newElem appends an element to n.
func (n *node) newElem(line int) *node {
	e := &node{parent: n, index: len(n.elems), line: line, weight: n.weight}
	n.elems = append(n.elems, e)
	return e
}

// list returns the elements of n, none where there is no n.
func (n *node) list() []*node {
	if n == nil {
		return nil
	}
	return n.elems
}

// path is the full name of n in messages, such as step[2].retry.jitter.
func (n *node) path() string {
	var chain []*node
	for ; n != nil && n.parent != nil; n = n.parent {
		chain = append(chain, n)
	}
	path := ""
	for _, n := range slices.Backward(chain) {
		if n.name != "" { // no key is empty
			path = join(path, n.name)
		} else {
			path = index(path, n.index)
		}
	}
	return path
}

// lose makes the next keys go nowhere: their header could not be understood.
func (s *scanner) lose(line int) { s.table = (&node{line: line}).table(byHeader) }

// header reads [name] or [[name]].
func (s *scanner) header() bool {
	s.endCut()
	start, line, brackets := s.pos, s.line, 1
	s.pos++
	if s.at() == '[' {
		brackets = 2
		s.pos++
	}
	k, ok := s.key()
	if !ok {
		s.lose(line)
		return false
	}
	for range brackets {
		if s.at() != ']' {
			s.lose(line)
			return s.fail("want "+strings.Repeat("]", brackets)+" after the name of the table, found "+s.what(), "")
		}
		s.pos++
	}
	if !s.count() {
		return false
	}
	if k.over > 0 {
		s.lose(line)
		return true
	}
	if !s.openTable(k, brackets == 2, line) {
		s.again++
		s.lost = start
		s.lose(line)
	}
	return !s.stop
}

// openTable finds or makes the table of a header and enters it. It returns false
// when it has reported that the name is taken.
func (s *scanner) openTable(k key, list bool, line int) bool {
	last := len(k.parts) - 1
	t := s.root
	for _, part := range k.parts[:last] {
		next := t.kids[part]
		switch {
		case next == nil:
			next = t.newKid(part, line).table(byPath)
			t.kids[part] = next
		case next.kind == tablesNode:
			next = next.elems[len(next.elems)-1]
		case next.kind != tableNode || next.origin == byBraces:
			s.add(line, k.String(), fmt.Sprintf("%s is set on line %d; nothing can be added to it here", next.path(), next.line), "")
			return false
		}
		t = next
	}
	own := t.kids[k.parts[last]]
	switch {
	case own == nil:
		own = t.newKid(k.parts[last], line)
		t.kids[own.name] = own
		if list {
			own.kind = tablesNode
		} else {
			own.table(byHeader)
		}
	case list && own.kind == tablesNode:
	case !list && own.kind == tableNode && own.origin == byPath:
		own.origin, own.line = byHeader, line
	default:
		s.headerTwice(line, own, list)
		return false
	}
	if list {
		own = own.newElem(line).table(byHeader)
	}
	s.table = own
	s.weigh(own)
	return true
}

// headerTwice reports a header for something that is there already.
func (s *scanner) headerTwice(line int, own *node, list bool) {
	text := fmt.Sprintf("the table is set twice, first on line %d", own.line)
	hint := ""
	switch {
	case own.kind == tablesNode:
		text = fmt.Sprintf("line %d begins a list of tables of this name", own.line)
		hint = "write [[…]] for one more"
	case own.kind != tableNode:
		text = fmt.Sprintf("the name is set twice, first on line %d as a value", own.line)
	case list:
		text = fmt.Sprintf("line %d makes this one table, not a list of tables", own.line)
	}
	s.add(line, own.path(), text, hint)
}

// keyValue reads name = value.
func (s *scanner) keyValue() bool {
	start, line := s.pos, s.line
	k, ok := s.key()
	if !ok {
		return false
	}
	leaf := s.assign(s.table, k, line)
	if leaf == nil || !s.equals() || !s.value(leaf) {
		return false
	}
	if leaf.again {
		s.cut(start)
	}
	return true
}

// equals steps over the sign between key and value.
func (s *scanner) equals() bool {
	if s.at() != '=' {
		return s.fail("want = after the key, found "+s.what(), "")
	}
	s.pos++
	s.spaces()
	return true
}

// twice marks a leaf whose name is taken, which was reported.
func (s *scanner) twice(leaf *node) *node {
	s.again++
	leaf.again = true
	return leaf
}

// assign makes the node of a key in table, and those of the tables that its
// dots name. A key that cannot be had there is reported, and its value goes to
// a node outside the tree. It returns nil only when a limit was passed.
//
// TOML wants all dotted keys of a table under one header. Where they are not,
// the way from the other header leads through a table that has one.
func (s *scanner) assign(table *node, k key, line int) *node {
	if !s.count() {
		return nil
	}
	if k.over > 0 {
		return table.newKid("…", line)
	}
	last := len(k.parts) - 1
	t := table
	for _, part := range k.parts[:last] {
		next := t.kids[part]
		if next == nil {
			next = t.newKid(part, line).table(byDots)
			t.kids[part] = next
		}
		if next.kind != tableNode || next.origin != byDots {
			leaf := next.newKid(k.parts[last], line)
			s.add(line, leaf.path(), fmt.Sprintf("%s is set on line %d; a dotted key cannot add to it", next.path(), next.line),
				"put the key where that table stands")
			return s.twice(leaf)
		}
		t = next
		if !s.weigh(t) {
			return nil
		}
	}
	leaf := t.newKid(k.parts[last], line)
	if old := t.kids[leaf.name]; old != nil {
		s.add(line, leaf.path(), fmt.Sprintf("the key is set twice, first on line %d", old.line), "")
		return s.twice(leaf)
	}
	t.kids[leaf.name] = leaf
	if !s.weigh(leaf) {
		return nil
	}
	return leaf
}
