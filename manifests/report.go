package manifests

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxFaults bounds what one file can make us say. Whoever has a thousand faults
// is not helped by the next.
const maxFaults = 1000

// A report collects the faults of one file.
type report struct {
	file   string
	faults Faults
	idle   Faults // keys that do nothing, and that older versions took
	more   int    // faults beyond maxFaults
	effort int    // spent on matching patterns; see match
}

func (r *report) add(line int, key, text, hint string) { r.broke("", line, key, text, hint) }

// broke is add with the name of the rule.
func (r *report) broke(rule Rule, line int, key, text, hint string) {
	if r.full() {
		return
	}
	r.faults = append(r.faults, Fault{File: r.file, Line: line, Key: key, Text: text, Hint: hint, Rule: rule})
}

// full tells, and counts one more, when there is no use in making up a fault.
func (r *report) full() bool {
	if len(r.faults) < maxFaults {
		return false
	}
	r.more++
	return true
}

// sorted returns the faults by line, those of one line in the order in which
// they were found. It is nil when there are none.
func (r *report) sorted() Faults {
	slices.SortStableFunc(r.faults, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	if r.more == 0 {
		return r.faults
	}
	return append(r.faults, Fault{File: r.file, Text: strconv.Itoa(r.more) + " more faults are not shown"})
}

// err returns the faults as an error, nil when there are none.
func (r *report) err() error {
	if f := r.sorted(); len(f) > 0 {
		return f
	}
	return nil
}

// show quotes text of the file for a message: escaped, and cut where it is long.
func show(s string) string {
	const most = 64
	if len(s) <= most {
		return strconv.Quote(s)
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut]) + "…"
}

// join appends a part to a key path; a part that needs quotes in TOML has them.
func join(path, part string) string {
	if !isBare(part) {
		part = show(part)
	} else if len(part) > 64 {
		part = part[:64] + "…"
	}
	if path == "" {
		return part
	}
	return path + "." + part
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func isBare(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		if !isBareChar(s[i]) {
			return false
		}
	}
	return true
}

func isBareChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// oneOf lists choices for a message: a, b or c.
func oneOf(choices []string) string {
	if len(choices) < 2 {
		return strings.Join(choices, "")
	}
	last := len(choices) - 1
	return strings.Join(choices[:last], ", ") + " or " + choices[last]
}

func lineHint(line int) string { return "first on line " + strconv.Itoa(line) }
