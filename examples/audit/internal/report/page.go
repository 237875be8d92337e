// Package report writes the result of an audit for people: Markdown, one
// self-contained HTML page, and a table of upgrades. Every name in it comes
// from the machine that was looked at and may be hostile; nothing of that
// reaches the output unescaped. It reads no clock and does no I/O.
package report

import (
	"bytes"
	"html"
	"strings"
	"unicode"
)

// lit is markup of ours. Only constants turn into it by themselves, so that no
// foreign text does.
type lit string

// txt is text that may come from anywhere.
type txt string

// node is what a page is made of.
type node interface{ writeTo(*bytes.Buffer) }

func (l lit) writeTo(b *bytes.Buffer) { b.WriteString(string(l)) }
func (t txt) writeTo(b *bytes.Buffer) { b.WriteString(html.EscapeString(visible(string(t)))) }

// link is text with a link, if the address is one that a page may name.
type link struct{ href, text string }

func (l link) writeTo(b *bytes.Buffer) {
	if !strings.HasPrefix(l.href, "https://") && !strings.HasPrefix(l.href, "http://") {
		txt(l.text).writeTo(b)
		return
	}
	b.WriteString(`<a rel="noopener noreferrer" href="`)
	txt(l.href).writeTo(b)
	b.WriteString(`">`)
	txt(l.text).writeTo(b)
	b.WriteString(`</a>`)
}

// page collects nodes.
type page struct{ bytes.Buffer }

func (p *page) put(nodes ...node) {
	for _, n := range nodes {
		n.writeTo(&p.Buffer)
	}
}

// maxText is how many characters of one foreign text are shown.
const maxText = 400

// visible replaces what a reader could not see, or what would turn the text
// around it: control and format characters, and bytes that are not UTF-8.
func visible(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxText {
			b.WriteString("…")
			break
		}
		if unicode.IsGraphic(r) && r != '\u00a0' && r != unicode.ReplacementChar {
			b.WriteRune(r)
			continue
		}
		b.WriteString("⟨U+")
		writeHex(&b, r)
		b.WriteString("⟩")
	}
	return b.String()
}

func writeHex(b *strings.Builder, r rune) {
	const digits = "0123456789ABCDEF"
	shift := 12
	for r>>shift > 15 {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		b.WriteByte(digits[r>>shift&15])
	}
}
