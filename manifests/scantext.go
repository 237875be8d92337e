package manifests

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// text reads a string of any of the four forms. Only its end matters here.
func (s *scanner) text() bool {
	quote := s.at()
	if bytes.HasPrefix(s.raw[s.pos:], []byte{quote, quote, quote}) {
		s.pos += 3
		return s.lines(quote)
	}
	s.pos++
	if quote == '"' {
		return s.basic(nil)
	}
	for s.pos < len(s.raw) && s.at() != '\n' {
		s.pos++
		if s.raw[s.pos-1] == '\'' {
			return true
		}
	}
	return s.fail("the text has no closing '", "text over several lines stands in '''")
}

// basic reads a "…" string behind its opening quote. Its text goes to b, unless
// that is nil.
func (s *scanner) basic(b *strings.Builder) bool {
	for s.pos < len(s.raw) {
		switch c := s.at(); c {
		case '"':
			s.pos++
			return true
		case '\n':
			return s.fail(`the text has no closing "`, `text over several lines stands in """`)
		case '\\':
			r, ok := s.escape()
			if !ok {
				return false
			}
			if b != nil {
				b.WriteRune(r)
			}
		default:
			s.pos++
			if b != nil {
				b.WriteByte(c)
			}
		}
	}
	return s.fail(`the text has no closing "`, "")
}

// lines reads a string of several lines behind its three opening quotes. It
// ends with the first run of three to five quotes: up to two belong to it.
func (s *scanner) lines(quote byte) bool {
	first := s.line
	for s.pos < len(s.raw) {
		switch c := s.at(); {
		case c == quote:
			run := 0
			for s.at() == quote {
				s.pos++
				run++
			}
			if run > 5 {
				return s.fail(fmt.Sprintf("%d quotes in a row", run), "")
			}
			if run >= 3 {
				return true
			}
		case c == '\\' && quote == '"':
			if s.joinLines() {
				continue
			}
			if _, ok := s.escape(); !ok {
				return false
			}
		case s.newline():
		default:
			s.pos++
		}
	}
	s.add(first, "", "the text that begins here has no end", "it ends with "+strings.Repeat(string(quote), 3))
	return false
}

// joinLines steps over a backslash that ends its line, and that line's end.
func (s *scanner) joinLines() bool {
	back := s.pos
	s.pos++
	s.spaces()
	if s.newline() {
		return true
	}
	s.pos = back
	return false
}

// escape reads a backslash and what belongs to it.
func (s *scanner) escape() (rune, bool) {
	s.pos++
	c := s.at()
	s.pos++
	digits := 0
	switch c {
	case 'b':
		return '\b', true
	case 't':
		return '\t', true
	case 'n':
		return '\n', true
	case 'f':
		return '\f', true
	case 'r':
		return '\r', true
	case 'e':
		return 0x1b, true
	case '"', '\\':
		return rune(c), true
	case 'x':
		digits = 2
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	default:
		s.pos--
		return 0, s.fail("a backslash before "+s.what()+" has no meaning", `write \\ for a backslash, or use '…'`)
	}
	if len(s.raw)-s.pos >= digits {
		n, err := strconv.ParseUint(string(s.raw[s.pos:s.pos+digits]), 16, 32)
		if err == nil && n <= utf8.MaxRune && utf8.ValidRune(rune(n)) {
			s.pos += digits
			return rune(n), true
		}
	}
	return 0, s.fail(fmt.Sprintf(`\%c wants the %d hex digits of a character`, c, digits), "")
}
