// Package debian reads what a Debian system says of itself: the database of
// dpkg and the release file. It decides nothing about vulnerabilities, writes
// nothing and starts no goroutine.
package debian

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of a control file. A status file of a large machine has some 5 MB
// and 5,000 paragraphs.
const (
	maxControlBytes = 64 << 20
	maxLineBytes    = 1 << 20
	maxParagraphs   = 200_000
	maxFields       = 200
)

// ErrTooLarge is the error of a file beyond the limits of this package.
var ErrTooLarge = errors.New("debian: file is too large")

// SyntaxError is a line that breaks the rules of deb822(5).
type SyntaxError struct {
	Line int // from 1
	Text string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("debian: line %d: %s", e.Line, e.Text)
}

// Paragraph is one block of fields; names are in lower case, since they are
// compared without regard to case. Lines of a value are joined by line feeds,
// each without the white space at its ends.
type Paragraph map[string]string

// ReadControl calls yield for each paragraph of a deb822(5) file. It stops at
// the first line that breaks the rules, with a *[SyntaxError], beyond the
// limits, with [ErrTooLarge], or when yield fails, with that error.
func ReadControl(r io.Reader, yield func(Paragraph) error) error {
	limited := &io.LimitedReader{R: r, N: maxControlBytes + 1}
	p := controlParser{yield: yield}
	s := bufio.NewScanner(limited)
	s.Buffer(make([]byte, 0, 64<<10), maxLineBytes)
	for s.Scan() {
		p.line++
		if err := p.take(s.Text()); err != nil {
			return err
		}
	}
	switch err := s.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%w: line %d has more than %d bytes", ErrTooLarge, p.line+1, maxLineBytes)
	case err != nil:
		return err
	case limited.N == 0:
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxControlBytes)
	}
	return p.flush()
}

type controlParser struct {
	yield      func(Paragraph) error
	line       int
	paragraphs int
	field      string // of the last line; what a continuation belongs to
	current    map[string]*strings.Builder
}

func (p *controlParser) take(line string) error {
	trimmed := strings.Trim(line, " \t\r")
	switch {
	case trimmed == "":
		return p.flush()
	case line[0] == '#': // a comment, which may stand inside a value
		return nil
	case line[0] == ' ' || line[0] == '\t':
		return p.continuation(trimmed)
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || !isFieldName(name) {
		return &SyntaxError{p.line, "neither a field nor its continuation"}
	}
	return p.begin(strings.ToLower(name), strings.Trim(value, " \t\r"))
}

func (p *controlParser) begin(name, value string) error {
	if p.current == nil {
		p.current = map[string]*strings.Builder{}
	}
	if _, twice := p.current[name]; twice {
		return &SyntaxError{p.line, "field " + name + " twice in one paragraph"}
	}
	if len(p.current) == maxFields {
		return fmt.Errorf("%w: line %d: more than %d fields", ErrTooLarge, p.line, maxFields)
	}
	b := new(strings.Builder)
	b.WriteString(value)
	p.current[name], p.field = b, name
	return nil
}

func (p *controlParser) continuation(text string) error {
	if p.field == "" {
		return &SyntaxError{p.line, "continuation of no field"}
	}
	b := p.current[p.field]
	if b.Len()+len(text) > maxLineBytes {
		return fmt.Errorf("%w: line %d: field %s", ErrTooLarge, p.line, p.field)
	}
	b.WriteByte('\n')
	b.WriteString(text)
	return nil
}

func (p *controlParser) flush() error {
	fields := p.current
	p.current, p.field = nil, ""
	if fields == nil {
		return nil
	}
	if p.paragraphs++; p.paragraphs > maxParagraphs {
		return fmt.Errorf("%w: more than %d paragraphs", ErrTooLarge, maxParagraphs)
	}
	done := make(Paragraph, len(fields))
	for name, b := range fields {
		done[name] = b.String()
	}
	return p.yield(done)
}

// isFieldName: printable ASCII but colon, not beginning with # or -.
func isFieldName(s string) bool {
	if s == "" || s[0] == '#' || s[0] == '-' {
		return false
	}
	return all(s, func(c byte) bool { return '!' <= c && c <= '~' && c != ':' })
}
