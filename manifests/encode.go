package manifests

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/stamp"
)

// breakAt is the length from which a line is broken where TOML allows it. The
// longest token, a key of maxKeyPart escaped characters, may still follow.
const breakAt = 1000

// A writer writes TOML in one way only: keys in the order of the calls, the
// names of maps sorted, text in "…", or in """…""" where it has line feeds or is
// long. A key whose value is the zero value of its type is left out.
//
// It does not check what it writes: whoever signs it parses it first.
type writer struct{ bytes.Buffer }

func newWriter(schema string) *writer {
	w := &writer{}
	w.text("schema", schema)
	return w
}

// table begins [name], or [[name]].
func (w *writer) table(name string, list bool) {
	if list {
		name = "[" + name + "]"
	}
	w.WriteString("\n[" + name + "]\n")
}

func (w *writer) text(key, s string) {
	if s != "" {
		w.raw(key, s)
	}
}

func (w *writer) texts(key string, list []string) {
	if len(list) > 0 {
		w.raw(key, anys(list))
	}
}

func (w *writer) integer(key string, n int64) {
	if n != 0 {
		w.raw(key, n)
	}
}

func (w *writer) number(key string, f float64) {
	if f != 0 {
		w.raw(key, f)
	}
}

func (w *writer) boolean(key string, b bool) {
	if b {
		w.raw(key, b)
	}
}

func (w *writer) instant(key string, t time.Time) {
	if !t.IsZero() {
		w.raw(key, stamp.Format(t))
	}
}

func (w *writer) duration(key string, d time.Duration) {
	if d != 0 {
		w.raw(key, formatDuration(d))
	}
}

func (w *writer) size(key string, n int64) {
	if n == 0 {
		return
	}
	if s, short := formatSize(n); short {
		w.raw(key, s)
	} else {
		w.raw(key, n)
	}
}

// limits writes the table called name, if anything in it is set.
func (w *writer) limits(name string, l Limits) {
	if l == (Limits{}) {
		return
	}
	w.table(name, false)
	w.size("memory", l.Memory)
	w.number("cpu", l.CPU)
	w.integer("pids", l.PIDs)
	w.duration("timeout", l.Timeout)
	w.size("workspace", l.Workspace)
	w.size("log", l.Log)
}

// fields writes the keys of a table of free values.
func (w *writer) fields(values map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		w.raw(name, values[name])
	}
}

// raw writes a line, or several, with any value.
func (w *writer) raw(key string, value any) {
	w.WriteString(tomlKey(key) + " = ")
	w.value(value)
	w.WriteByte('\n')
}

func (w *writer) value(value any) {
	switch v := value.(type) {
	case string:
		w.string(v)
	case int64:
		w.WriteString(strconv.FormatInt(v, 10))
	case bool:
		w.WriteString(strconv.FormatBool(v))
	case float64:
		s := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		w.WriteString(s)
	case []any:
		w.sequence("[", "]", len(v), func(i int) { w.value(v[i]) })
	case map[string]any:
		names := slices.Sorted(maps.Keys(v))
		w.sequence("{", "}", len(v), func(i int) {
			w.WriteString(tomlKey(names[i]) + " = ")
			w.value(v[names[i]])
		})
	default:
		panic(fmt.Sprintf("manifests: no TOML for a %T", value))
	}
}

// sequence writes the items of a list or inline table, and begins a new line
// wherever the current one has become long. (Inline tables over several lines
// are TOML 1.1; only a DAG spec can need them.)
func (w *writer) sequence(open, end string, n int, item func(i int)) {
	w.WriteString(open)
	for i := range n {
		if i > 0 {
			w.WriteString(", ")
		}
		if w.column() > breakAt {
			w.WriteByte('\n')
		}
		item(i)
	}
	w.WriteString(end)
}

// column is the length of the current line, or breakAt+1 if it is longer.
func (w *writer) column() int {
	tail := w.Bytes()
	tail = tail[max(0, len(tail)-breakAt-1):]
	return len(tail) - 1 - bytes.LastIndexByte(tail, '\n')
}

// string writes text.
func (w *writer) string(s string) {
	line := quoted(s)
	if len(line) <= breakAt && !strings.Contains(s, "\n") {
		w.WriteString(line)
		return
	}
	// A backslash at the end of a line takes all white space up to the next
	// character with it: white space there is escaped.
	w.WriteString("\"\"\"\n")
	column, broken := 0, false
	for _, c := range s {
		text := escaped(c)
		switch {
		case c == '\n' && !broken:
			text, column = "\n", -1
		case c == ' ' && broken:
			text = `\u0020`
		}
		broken = false
		w.WriteString(text)
		if column += len(text); column >= breakAt {
			w.WriteString("\\\n")
			column, broken = 0, true
		}
	}
	w.WriteString(`"""`)
}

// quoted is s as "…".
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		b.WriteString(escaped(c))
	}
	b.WriteByte('"')
	return b.String()
}

// escaped is a character inside "…". A byte that is not UTF-8 becomes U+FFFD.
func escaped(c rune) string {
	switch {
	case c == '"':
		return `\"`
	case c == '\\':
		return `\\`
	case c == '\n':
		return `\n`
	case c == '\t':
		return `\t`
	case c == '\r':
		return `\r`
	case hidden(c):
		return fmt.Sprintf(`\u%04x`, c)
	}
	return string(c)
}

func tomlKey(key string) string {
	if isBare(key) {
		return key
	}
	return quoted(key)
}

func anys(list []string) []any {
	all := make([]any, len(list))
	for i, s := range list {
		all[i] = s
	}
	return all
}

// byName calls do for each entry of a map, in the order of the names.
func byName[K cmp.Ordered, V any](m map[K]V, do func(K, V)) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		do(k, m[k])
	}
}
