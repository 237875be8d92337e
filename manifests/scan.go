package manifests

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Limits of a file. Whoever reads one from outside needs to read no more than
// MaxBytes+1 of it.
const (
	MaxBytes     = 1 << 20  // of every language but site.toml
	MaxSiteBytes = 64 << 10 // of site.toml
)

// Limits of the scan (THREATS 1, FORMATS section 1).
const (
	maxLine    = 4096     // bytes of a physical line without its line feed
	maxParts   = 4        // of a dotted key or a header
	maxNesting = 8        // arrays and inline tables inside each other
	maxItems   = 65536    // keys, headers and array elements together
	maxKeyPart = 256      // bytes
	maxPaths   = 16 << 20 // weight of all full key paths; see weigh
	partCost   = 48       // what a parser spends on a part of a path besides its text
)

const byteOrderMark = "\ufeff"

// Scan is the first look at a file of any language, before a TOML parser sees
// it. It refuses what could cost that parser time or memory out of proportion,
// what a reader cannot see, keys and tables that are set twice, and syntax that
// it does not follow. It takes time and memory linear in the length of raw, and
// nothing more than MaxBytes is looked at. The result is nil when raw passes;
// it says nothing of what the keys mean.
//
// What passes is TOML 1.1 whose every key the scan has seen.
func Scan(file string, raw []byte) Faults {
	r := &report{file: file}
	scan(r, raw, MaxBytes)
	return r.sorted()
}

// scan reports to r. It returns the tree of the keys of raw, nil when raw is too
// large, and the text that has exactly these keys: raw, with spaces in the place
// of what is set for a second time, which is reported but keeps nobody from
// reading the rest. The text is nil, and the tree of no use, where something else
// was reported, or all that can be.
func scan(r *report, raw []byte, most int) (tree *node, text []byte) {
	if len(raw) > most {
		r.add(0, "", fmt.Sprintf("the file has %d bytes, at most %d are allowed", len(raw), most), "")
		return nil, nil
	}
	scanBytes(r, raw)
	raw = bytes.TrimPrefix(raw, []byte(byteOrderMark))
	s := scanner{report: r, raw: raw, line: 1, lost: -1, root: (&node{line: 1}).table(byHeader)}
	s.table = s.root
	s.run()
	s.endCut()
	if len(r.faults)+r.more > s.again || len(r.faults) >= maxFaults {
		return s.root, nil
	}
	return s.root, s.kept()
}

// scanBytes checks each physical line for its length and for bytes that no file
// may hold; it reports at most two faults a line.
func scanBytes(r *report, raw []byte) {
	if bytes.HasPrefix(raw, []byte(byteOrderMark)) {
		r.add(1, "", "begins with a byte order mark", "save the file as UTF-8 without it")
		raw = raw[len(byteOrderMark):]
	}
	for line := 1; len(raw) > 0; line++ {
		text := raw
		if end := bytes.IndexByte(raw, '\n'); end >= 0 {
			text, raw = raw[:end], raw[end+1:]
			text = bytes.TrimSuffix(text, []byte("\r"))
		} else {
			raw = nil
		}
		if len(text) > maxLine {
			r.broke(RuleShape, line, "", fmt.Sprintf("the line has %d bytes, at most %d are allowed", len(text), maxLine),
				`break it up; in a """ string a \ at the end of a line joins it to the next`)
		}
		scanLine(r, line, text)
	}
}

func scanLine(r *report, line int, text []byte) {
	for i := 0; i < len(text); {
		if c := text[i]; c >= 0x20 && c < 0x7f || c == '\t' {
			i++
			continue
		}
		c, n := utf8.DecodeRune(text[i:])
		cr := c == '\r' // the one before a line feed was cut off
		bad := c == utf8.RuneError && n == 1
		switch {
		case !cr && !bad && !hidden(c):
		case r.full():
			return
		case bad:
			r.add(line, "", fmt.Sprintf("byte 0x%02x is not UTF-8", text[i]), "save the file as UTF-8")
			return
		case cr:
			r.add(line, "", "a carriage return that no line feed follows", "end lines with a line feed alone")
			return
		default:
			r.add(line, "", fmt.Sprintf("the character U+%04X cannot be seen and is not allowed", c),
				fmt.Sprintf(`take it out; where a string needs it, write \u%04x`, c))
			return
		}
		i += n
	}
}

// hidden tells whether c is a control character other than tab, or changes the
// direction of the text around it: a file must read as it runs.
func hidden(c rune) bool {
	switch {
	case c == '\t':
		return false
	case c < 0x20, c >= 0x7f && c <= 0x9f:
		return true
	case c == 0x61c, c == 0x200e, c == 0x200f, c >= 0x202a && c <= 0x202e, c >= 0x2066 && c <= 0x2069:
		return true
	}
	return c == 0xfeff
}

// plain tells whether s is one line without hidden characters.
func plain(s string) bool {
	for _, c := range s {
		if c == '\t' || hidden(c) {
			return false
		}
	}
	return true
}

// prose is plain, but may have line feeds and tabs.
func prose(s string) bool {
	for _, c := range s {
		if c != '\n' && hidden(c) {
			return false
		}
	}
	return true
}

// A scanner goes through raw once, from left to right. Its methods that return
// a bool return false when they have reported a fault of syntax and the rest of
// the construct cannot be followed; run then looks for the next line that makes
// sense.
type scanner struct {
	*report
	raw   []byte
	pos   int
	line  int
	stop  bool // a limit of the whole file was passed
	items int
	paths int

	root  *node
	table *node // the keys of the current lines go here

	open []frame // arrays and inline tables that are open

	again int    // faults that are but a second setting of something
	cuts  []span // what they set, in the order of the file
	lost  int    // where a header of that kind begins, whose lines go nowhere; -1: nowhere
}

func (s *scanner) run() {
	for !s.stop {
		s.blank()
		if s.pos >= len(s.raw) {
			return
		}
		ok := false
		if s.raw[s.pos] == '[' {
			ok = s.header()
		} else {
			ok = s.keyValue()
		}
		if !ok || !s.endOfLine() {
			s.recover()
		}
	}
}

// fail reports a fault of syntax on the current line.
func (s *scanner) fail(text, hint string) bool {
	s.add(s.line, "", text, hint)
	return false
}

// limit reports a fault of the whole file and ends the scan.
func (s *scanner) limit(text string) bool {
	s.broke(RuleShape, s.line, "", text, "")
	s.stop = true
	return false
}

// count takes note of one more key, header or element.
func (s *scanner) count() bool {
	if s.items++; s.items > maxItems {
		return s.limit(fmt.Sprintf("more than %d keys, tables and list items", maxItems))
	}
	return true
}

// weigh takes note of the full path of one more key. A parser keeps each path
// as a string of its own, so that a long header before many short keys costs
// it far more than the file's length.
func (s *scanner) weigh(n *node) bool {
	if s.paths += n.weight; s.paths > maxPaths {
		return s.limit("the full names of all keys together are too long")
	}
	return true
}

// at is the byte at the current position, 0 at the end. (A real NUL was
// reported by scanBytes and fits no syntax either.)
func (s *scanner) at() byte {
	if s.pos < len(s.raw) {
		return s.raw[s.pos]
	}
	return 0
}

// what describes the current position for a message.
func (s *scanner) what() string {
	switch s.at() {
	case '\n', '\r':
		return "the end of the line"
	case 0:
		return "the end of the file"
	}
	c, _ := utf8.DecodeRune(s.raw[s.pos:])
	return strconv.QuoteRune(c)
}

func (s *scanner) spaces() {
	for s.at() == ' ' || s.at() == '\t' {
		s.pos++
	}
}

// newline steps over a line end, if there is one here.
func (s *scanner) newline() bool {
	if s.at() == '\r' && s.pos+1 < len(s.raw) && s.raw[s.pos+1] == '\n' {
		s.pos++
	}
	if s.at() != '\n' {
		return false
	}
	s.pos++
	s.line++
	return true
}

func (s *scanner) comment() {
	if s.at() == '#' {
		if end := bytes.IndexByte(s.raw[s.pos:], '\n'); end >= 0 {
			s.pos += end
		} else {
			s.pos = len(s.raw)
		}
	}
}

// blank steps over spaces, comments and line ends.
func (s *scanner) blank() {
	for {
		s.spaces()
		s.comment()
		if !s.newline() {
			return
		}
	}
}

// endOfLine wants nothing but a comment before the end of the line.
func (s *scanner) endOfLine() bool {
	if s.stop {
		return false
	}
	s.spaces()
	s.comment()
	if s.pos >= len(s.raw) || s.newline() {
		return true
	}
	return s.fail("want the end of the line, found "+s.what(), "one key to a line; text stands in quotes")
}

// recover goes on to the next line; out of an open list or table to the next
// line that looks like a key or a header, so that one mistake in a list does not
// make each of its lines another.
func (s *scanner) recover() {
	inside := len(s.open) > 0
	s.open = s.open[:0]
	for s.pos < len(s.raw) {
		if end := bytes.IndexByte(s.raw[s.pos:], '\n'); end >= 0 {
			s.pos += end
		} else {
			s.pos = len(s.raw)
		}
		s.newline()
		if !inside || s.plausible() {
			return
		}
	}
}

// plausible tells whether the line here begins like "[name]", "[[name]]" or
// "name =". It looks at no more than a line.
func (s *scanner) plausible() bool {
	line, _, _ := bytes.Cut(s.raw[s.pos:], []byte("\n"))
	line = bytes.TrimSpace(line)
	if len(line) > 0 && line[0] == '[' {
		line, _, _ = bytes.Cut(line, []byte("#"))
		line = bytes.TrimRight(line, " \t")
		return line[len(line)-1] == ']' && isDotted(bytes.Trim(line, "[] \t"))
	}
	name, _, ok := bytes.Cut(line, []byte("="))
	return ok && isDotted(bytes.TrimRight(name, " \t"))
}

func isDotted(name []byte) bool {
	return isBare(string(bytes.ReplaceAll(name, []byte("."), nil)))
}
