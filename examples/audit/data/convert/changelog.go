package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/stellarun/stella/examples/audit/internal/debver"
)

// maxChangelog bounds one changelog, in bytes after decompression.
const maxChangelog = 64 << 20

var errChangelog = errors.New("not a Debian changelog")

// entry is one version in a changelog.
type entry struct {
	source, version string
	suites          []string // what the version was uploaded to: bookworm-security
	date            time.Time
	items           []item
}

// item is one bullet or paragraph of an entry, on one line.
type item struct {
	text  string
	under []string // the bullets that it stands below, outermost first
}

// readChangelog reads the format of deb-changelog(5), newest version first:
//
//	source (1.2-3) bookworm-security; urgency=medium
//
//	  * What was done.
//
//	 -- Name <address>  Thu, 01 Feb 2024 10:00:00 +0100
//
// It returns the entries dated since or later. Early history is often in other
// forms, so reading ends without an error at whatever cannot be read below an
// entry that is older than since.
func readChangelog(r io.Reader, since time.Time) ([]entry, error) {
	c := changelogReader{since: since}
	limited := &io.LimitedReader{R: r, N: maxChangelog + 1}
	s := bufio.NewScanner(limited)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		if err := c.line(s.Text()); err != nil {
			if c.old {
				return c.entries, nil
			}
			return nil, fmt.Errorf("%w: line %d: %w", errChangelog, n, err)
		}
	}
	switch {
	case s.Err() != nil:
		return nil, s.Err()
	case limited.N <= 0:
		return nil, fmt.Errorf("%w: more than %d bytes", errChangelog, maxChangelog)
	case c.open && !c.old:
		return nil, fmt.Errorf("%w: the last entry has no end", errChangelog)
	}
	return c.entries, nil
}

type changelogReader struct {
	since   time.Time
	entries []entry
	current entry
	open    bool // between a heading and its end
	old     bool // an entry older than since has been read
	body    body
}

func (c *changelogReader) line(line string) error {
	line = strings.TrimRight(line, " \t\r")
	switch {
	case strings.HasPrefix(line, "#"): // what tools leave: "older entries have been removed"
		return nil
	case strings.HasPrefix(line, " -- "):
		return c.end(line)
	case line == "" || line[0] == ' ' || line[0] == '\t':
		if !c.open && line != "" {
			return errors.New("text outside of an entry")
		}
		c.body.line(line)
		return nil
	case c.open:
		return errors.New("heading within an entry")
	}
	return c.heading(line)
}

func (c *changelogReader) heading(line string) error {
	head, _, ok := strings.Cut(line, ";")
	source, rest, ok2 := strings.Cut(head, " (")
	version, suites, ok3 := strings.Cut(rest, ") ")
	if !ok || !ok2 || !ok3 || source == "" || strings.ContainsAny(source, " \t/") {
		return errors.New("not a heading")
	}
	if _, err := debver.Parse(version); err != nil {
		return err
	}
	c.current = entry{source: source, version: version, suites: strings.Fields(suites)}
	c.open, c.body = true, body{}
	return nil
}

func (c *changelogReader) end(line string) error {
	if !c.open {
		return errors.New("end without a heading")
	}
	_, stamp, ok := strings.Cut(line, ">  ")
	date, err := time.Parse("Mon, 2 Jan 2006 15:04:05 -0700", strings.Join(strings.Fields(stamp), " "))
	if !ok || err != nil {
		return errors.New("not an end with a date")
	}
	c.open = false
	c.current.date, c.current.items = date.UTC(), c.body.items
	if c.current.date.Before(c.since) {
		c.old = true
		return nil
	}
	c.entries = append(c.entries, c.current)
	return nil
}

// body makes items of the lines of an entry.
type body struct {
	items  []item
	stack  []bullet // the bullets that are open, outermost first
	within bool     // the next line goes on with the last item
}

type bullet struct{ indent, item int }

func (b *body) line(line string) {
	text := strings.TrimLeft(line, " \t")
	indent := len(line) - len(text)
	switch {
	case text == "" || text == ".":
		b.within = false
	case strings.HasPrefix(text, "[ ") && strings.HasSuffix(text, " ]"): // who did it
		b.within, b.stack = false, nil
	case len(text) > 1 && text[1] == ' ' && strings.ContainsRune("*-+~o", rune(text[0])):
		b.add(indent, text[2:])
		b.stack = append(b.stack, bullet{indent, len(b.items) - 1})
	case b.within:
		b.items[len(b.items)-1].text += " " + text
	default:
		b.add(indent, text)
	}
}

func (b *body) add(indent int, text string) {
	for len(b.stack) > 0 && b.stack[len(b.stack)-1].indent >= indent {
		b.stack = b.stack[:len(b.stack)-1]
	}
	it := item{text: strings.TrimSpace(text)}
	for _, above := range b.stack {
		it.under = append(it.under, b.items[above.item].text)
	}
	b.items = append(b.items, it)
	b.within = true
}
