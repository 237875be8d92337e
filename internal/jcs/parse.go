package jcs

import (
	"slices"
	"sync"
	"unicode/utf8"
)

// A parser reads in once and writes the canonical form to out.
type parser struct {
	in  []byte
	pos int
	out []byte

	members []member // of the objects under way, innermost last
	few     [16]member
	scratch []byte
}

// parsers are those of [Check], which keeps nothing of what they write.
var parsers = sync.Pool{New: func() any { return new(parser) }}

const maxKept = 64 << 10 // bytes of a buffer of a parser that is kept

func (p *parser) giveBack() {
	if cap(p.out) > maxKept || cap(p.scratch) > maxKept {
		return
	}
	*p = parser{out: p.out[:0], scratch: p.scratch[:0]}
	parsers.Put(p)
}

// whole writes the canonical encoding of the one value that raw holds.
func (p *parser) whole(raw []byte) error {
	p.in, p.members = raw, p.few[:0]
	p.space()
	if err := p.value(0); err != nil {
		return err
	}
	p.space()
	if p.pos < len(p.in) {
		return p.fail(p.pos, "bytes after the value")
	}
	return nil
}

// A member is one key and value of an object under way.
type member struct {
	key        []byte // unescaped
	at         int    // of the key, in the input
	start, end int    // of `"key":value`, in the output
}

func (p *parser) fail(at int, problem string) error {
	return &Error{Offset: at, Problem: problem}
}

func (p *parser) space() {
	for p.pos < len(p.in) {
		switch p.in[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end; a NUL in the input is no token.
func (p *parser) peek() byte {
	if p.pos < len(p.in) {
		return p.in[p.pos]
	}
	return 0
}

func (p *parser) unexpected(want string) error {
	if p.pos >= len(p.in) {
		return p.fail(p.pos, "input ends where "+want+" should be")
	}
	return p.fail(p.pos, "no "+want)
}

// value reads one value that lies inside depth others.
func (p *parser) value(depth int) error {
	switch c := p.peek(); {
	case c == '"':
		_, err := p.str()
		return err
	case c == '{' || c == '[':
		if depth >= MaxDepth {
			return p.fail(p.pos, "nesting too deep")
		}
		if c == '{' {
			return p.object(depth + 1)
		}
		return p.array(depth + 1)
	case c == '-' || isDigit(c):
		return p.number()
	case c == 't':
		return p.literal("true")
	case c == 'f':
		return p.literal("false")
	case c == 'n':
		return p.literal("null")
	}
	return p.unexpected("value")
}

func (p *parser) literal(s string) error {
	if rest := p.in[p.pos:]; len(rest) < len(s) || string(rest[:len(s)]) != s {
		return p.unexpected("value")
	}
	p.pos += len(s)
	p.out = append(p.out, s...)
	return nil
}

func (p *parser) array(depth int) error {
	p.pos++
	p.out = append(p.out, '[')
	p.space()
	if p.peek() == ']' {
		p.pos++
		p.out = append(p.out, ']')
		return nil
	}
	for {
		if err := p.value(depth); err != nil {
			return err
		}
		p.space()
		switch p.peek() {
		case ',':
			p.pos++
			p.out = append(p.out, ',')
			p.space()
		case ']':
			p.pos++
			p.out = append(p.out, ']')
			return nil
		default:
			return p.unexpected("comma or ]")
		}
	}
}

func (p *parser) object(depth int) error {
	p.pos++
	p.out = append(p.out, '{')
	p.space()
	if p.peek() == '}' {
		p.pos++
		p.out = append(p.out, '}')
		return nil
	}
	base, sorted := len(p.members), true
	for {
		if err := p.member(depth); err != nil {
			return err
		}
		if n := len(p.members); n > base+1 && compareUTF16(p.members[n-2].key, p.members[n-1].key) >= 0 {
			sorted = false
		}
		p.space()
		switch p.peek() {
		case ',':
			p.pos++
			p.out = append(p.out, ',')
			p.space()
		case '}':
			p.pos++
			if !sorted {
				if err := p.sort(p.members[base:]); err != nil {
					return err
				}
			}
			p.out = append(p.out, '}')
			p.members = p.members[:base]
			return nil
		default:
			return p.unexpected("comma or }")
		}
	}
}

func (p *parser) member(depth int) error {
	m := member{at: p.pos, start: len(p.out)}
	if p.peek() != '"' {
		return p.unexpected("key")
	}
	var err error
	if m.key, err = p.str(); err != nil {
		return err
	}
	p.space()
	if p.peek() != ':' {
		return p.unexpected("colon")
	}
	p.pos++
	p.out = append(p.out, ':')
	p.space()
	if err := p.value(depth); err != nil {
		return err
	}
	m.end = len(p.out)
	p.members = append(p.members, m)
	return nil
}

// sort puts the members ms, the tail of out, in the order of their keys. Two
// equal keys are an error at the later one.
func (p *parser) sort(ms []member) error {
	start := ms[0].start
	slices.SortStableFunc(ms, func(a, b member) int { return compareUTF16(a.key, b.key) })
	for i := 1; i < len(ms); i++ {
		if string(ms[i-1].key) == string(ms[i].key) {
			return p.fail(ms[i].at, "duplicate key")
		}
	}
	p.scratch = p.scratch[:0]
	for i, m := range ms {
		if i > 0 {
			p.scratch = append(p.scratch, ',')
		}
		p.scratch = append(p.scratch, p.out[m.start:m.end]...)
	}
	p.out = append(p.out[:start], p.scratch...)
	return nil
}

// compareUTF16 compares two strings of valid UTF-8 by their UTF-16 code units.
// That is the order of the bytes, except that characters beyond U+FFFF, whose
// first byte is 0xF0 or more, come before U+E000 to U+FFFF (0xEE, 0xEF).
func compareUTF16[T string | []byte](a, b T) int {
	n := min(len(a), len(b))
	for i := range n {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x >= 0xEE && y >= 0xEE && (x >= 0xF0) != (y >= 0xF0) {
			x, y = y, x
		}
		return int(x) - int(y)
	}
	return len(a) - len(b)
}

// str reads a string, writes its canonical form and returns the unescaped text,
// which may share memory with the input.
func (p *parser) str() ([]byte, error) {
	p.pos++
	first := p.pos
	if err := p.plain(); err != nil {
		return nil, err
	}
	if p.in[p.pos] == '"' {
		text := p.in[first:p.pos]
		p.pos++
		p.out = append(p.out, p.in[first-1:p.pos]...)
		return text, nil
	}
	text := slices.Clone(p.in[first:p.pos])
	for p.in[p.pos] != '"' {
		var err error
		if text, err = p.escape(text); err != nil {
			return nil, err
		}
		from := p.pos
		if err = p.plain(); err != nil {
			return nil, err
		}
		text = append(text, p.in[from:p.pos]...)
	}
	p.pos++
	p.out = appendString(p.out, text)
	return text, nil
}

// plain skips characters that stand for themselves, up to the quote or
// backslash that it leaves next.
func (p *parser) plain() error {
	in, i := p.in, p.pos
	for i < len(in) {
		c := in[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		switch {
		case c < ' ':
			return p.fail(i, "control character in a string")
		case c < utf8.RuneSelf:
			p.pos = i
			return nil
		}
		r, size := utf8.DecodeRune(in[i:])
		if r == utf8.RuneError && size == 1 {
			return p.fail(i, "invalid UTF-8 in a string")
		}
		i += size
	}
	return p.fail(i, "string without end")
}

// escape reads one escape and appends what it stands for to text.
func (p *parser) escape(text []byte) ([]byte, error) {
	at := p.pos
	p.pos++
	c := p.peek()
	p.pos++
	switch c {
	case '"', '\\', '/':
		return append(text, c), nil
	case 'b':
		return append(text, '\b'), nil
	case 'f':
		return append(text, '\f'), nil
	case 'n':
		return append(text, '\n'), nil
	case 'r':
		return append(text, '\r'), nil
	case 't':
		return append(text, '\t'), nil
	case 'u':
	default:
		return nil, p.fail(at, "unknown escape")
	}
	r, ok := p.hex4()
	if !ok {
		return nil, p.fail(at, "unknown escape")
	}
	if r < 0xD800 || r > 0xDFFF {
		return utf8.AppendRune(text, r), nil
	}
	if r > 0xDBFF || p.peek() != '\\' || p.pos+1 >= len(p.in) || p.in[p.pos+1] != 'u' {
		return nil, p.fail(at, "unpaired surrogate")
	}
	p.pos += 2
	low, ok := p.hex4()
	if !ok || low < 0xDC00 || low > 0xDFFF {
		return nil, p.fail(at, "unpaired surrogate")
	}
	return utf8.AppendRune(text, (r-0xD800)<<10+(low-0xDC00)+0x10000), nil
}

// hex4 reads four hex digits.
func (p *parser) hex4() (rune, bool) {
	if len(p.in)-p.pos < 4 {
		return 0, false
	}
	var r rune
	for _, c := range p.in[p.pos : p.pos+4] {
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	p.pos += 4
	return r, true
}

// appendString writes text as RFC 8785 section 3.2.2.2 says: the short escapes
// where there is one, \u00xx for other control characters, all else as itself.
func appendString[T string | []byte](out []byte, text T) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	from := 0 // what stands for itself goes over in one piece
	for i := range len(text) {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		out = append(out, text[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\b':
			out = append(out, '\\', 'b')
		case '\f':
			out = append(out, '\\', 'f')
		case '\n':
			out = append(out, '\\', 'n')
		case '\r':
			out = append(out, '\\', 'r')
		case '\t':
			out = append(out, '\\', 't')
		default:
			out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	out = append(out, text[from:]...)
	return append(out, '"')
}
