package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"github.com/stellarun/stella/server/api"
)

// A screen is the one way out. Everything that it writes is escaped, except
// JSON, which escapes control characters itself, and exact bytes that were
// asked for and do not go to a terminal. It keeps the first error.
type screen struct {
	w        io.Writer
	terminal bool
	color    bool
	quiet    bool // notes are not written
	progress bool // a line of progress stands at the cursor
	err      error
}

func newScreen(f *os.File) *screen { return &screen{w: f, terminal: isTerminal(f)} }

func isTerminal(f *os.File) bool {
	var t syscall.Termios
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&t)))
	return errno == 0
}

// escape makes text harmless: no control character, line end, terminal
// sequence, or character that reorders or hides others survives. What is not
// UTF-8 is shown as bytes.
func escape(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || hostile(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n <= 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
			n = 1
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case hostile(r) && r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case hostile(r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// hostile says whether a terminal or a reader could be misled by r: control
// and format characters (bidirectional ones among them), line and paragraph
// separators, surrogates, private use.
func hostile(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Cs, unicode.Co)
}

func (s *screen) write(b []byte) {
	if s.err == nil {
		s.clearProgress()
		_, s.err = s.w.Write(b)
	}
}

// printf writes formatted text. The format is ours; strings and errors among
// the arguments are escaped.
func (s *screen) printf(format string, args ...any) {
	clean := make([]any, len(args))
	for i, arg := range args {
		switch v := arg.(type) {
		case string:
			clean[i] = escape(v)
		case error:
			clean[i] = escape(v.Error())
		case fmt.Stringer:
			clean[i] = escape(v.String())
		case int, int64, bool, float64:
			clean[i] = v
		default:
			clean[i] = escape(fmt.Sprint(v))
		}
	}
	s.write(fmt.Appendf(nil, format, clean...))
}

// note writes a line that is neither result nor error.
func (s *screen) note(format string, args ...any) {
	if !s.quiet {
		s.printf(format+"\n", args...)
	}
}

// text writes text of several lines, each escaped.
func (s *screen) text(t string) {
	for line := range strings.Lines(t) {
		s.write([]byte(escapeKeepTabs(strings.TrimSuffix(line, "\n")) + "\n"))
	}
}

func escapeKeepTabs(s string) string {
	parts := strings.Split(s, "\t")
	for i := range parts {
		parts[i] = escape(parts[i])
	}
	return strings.Join(parts, "\t")
}

// exact writes bytes as they are, or escaped where a terminal would read them.
func (s *screen) exact(b []byte) {
	if s.terminal {
		s.text(string(b))
		return
	}
	s.write(b)
}

// table writes rows below a header, in columns. A row may be shorter.
func (s *screen) table(header []string, rows [][]string) {
	width := make([]int, len(header))
	clean := make([][]string, 0, len(rows)+1)
	for _, row := range append([][]string{header}, rows...) {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = escape(c)
			width[i] = max(width[i], utf8.RuneCountInString(cells[i]))
		}
		clean = append(clean, cells)
	}
	var b bytes.Buffer
	for n, cells := range clean {
		for i, c := range cells {
			pad := width[i] - utf8.RuneCountInString(c)
			if i == len(cells)-1 {
				pad = -2
			}
			b.WriteString(s.paint(c, n == 0))
			b.WriteString(strings.Repeat(" ", pad+2))
		}
		b.WriteByte('\n')
	}
	s.write(b.Bytes())
}

// paint colours a heading, or a cell that is a status.
func (s *screen) paint(cell string, heading bool) string {
	if !s.color {
		return cell
	}
	code := ""
	switch {
	case heading:
		code = "1"
	case cell == "completed" || cell == "admitted" || cell == "ok" || cell == "VERIFIED":
		code = "32"
	case cell == "failed" || cell == "rejected" || cell == "FAILED":
		code = "31"
	case cell == "running" || cell == "queued" || cell == "planning":
		code = "36"
	case cell == "cancelled" || cell == "skipped" || cell == "interrupted" || cell == "INCOMPLETE" || cell == "UNAUTHENTICATED":
		code = "33"
	default:
		return cell
	}
	return "\x1b[" + code + "m" + cell + "\x1b[0m"
}

// count is a number with the words that fit it.
func count[N int | int64](n N, one, many string) string {
	words := many
	if n == 1 {
		words = one
	}
	return fmt.Sprint(n) + " " + words
}

// fields writes names and values; those without a value are left out.
func (s *screen) fields(pairs ...string) {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		width = max(width, len(pairs[i]))
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			value := s.paint(escape(pairs[i+1]), false)
			s.write(fmt.Appendf(nil, "%-*s  %s\n", width, pairs[i], value))
		}
	}
}

// json writes v, indented or as one line. Raw parts keep their bytes, apart
// from white space.
func (s *screen) json(v any, indent bool) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if indent {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	s.write(b.Bytes())
	return s.err
}

// emit writes one result in the form that was asked for.
func (a *app) emit(v any, table func(*screen)) error {
	switch a.opt.output {
	case outJSON:
		return a.stdout.json(v, true)
	case outNDJSON:
		return a.stdout.json(v, false)
	}
	table(a.stdout)
	return a.stdout.err
}

// acted writes what a command has done: a result only where it was asked for, by the
// form of the output or as a dry run; --quiet leaves nothing else of it.
func (a *app) acted(dry bool, v any, table func(*screen)) error {
	if a.silent(dry) {
		return nil
	}
	return a.emit(v, table)
}

func (a *app) silent(dry bool) bool { return a.opt.quiet && a.opt.output == outTable && !dry }

// emitList writes a list: all of v as JSON, an item a line as NDJSON, or rows.
func emitList[T any](a *app, v any, items []T, header []string, row func(T) []string) error {
	switch a.opt.output {
	case outJSON:
		return a.stdout.json(v, true)
	case outNDJSON:
		for _, item := range items {
			if err := a.stdout.json(item, false); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([][]string, len(items))
	for i, item := range items {
		rows[i] = row(item)
	}
	a.stdout.table(header, rows)
	return a.stdout.err
}

// renderError writes an error: as JSON where results are JSON, else as text.
func (a *app) renderError(what string, e *api.Error) {
	if a.opt.output == outJSON || a.opt.output == outNDJSON {
		_ = a.stderr.json(map[string]*api.Error{"error": e}, false)
		return
	}
	prefix := "stella: "
	if what != "" {
		prefix += what + ": "
	}
	a.stderr.printf("%s%s\n", prefix, named(e))
	for _, f := range e.Faults {
		if !strings.Contains(e.Message, f) {
			a.stderr.printf("  %s\n", f)
		}
	}
	if e.Hint != "" && !a.opt.quiet {
		a.stderr.printf("hint: %s\n", e.Hint)
	}
}

// named is the message, with the code before it where that is what people and
// scripts look for.
func named(e *api.Error) string {
	switch e.Code {
	case api.CodeRunTokenConflict, api.CodeRunEnded, api.CodeDAGIDTaken, api.CodeDAGDisabled, api.CodePlainForbidden, api.CodeTrustChanged,
		api.CodeQueueDraining, api.CodeClockBehind, api.CodeDamaged, api.CodeNoSpace, api.CodeConflict,
		api.CodeAlreadyDecided, api.CodeStale, api.CodeApprovalExpired, api.CodeNotApprover, api.CodeStarterExcluded,
		api.CodeArchiveAway, api.CodeArchiveUnreadable:
		return string(e.Code) + ": " + e.Message
	}
	return e.Message
}
