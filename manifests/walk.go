package manifests

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A table is one table of a file while its keys are being read. Each method
// that reads a key notes its name, so that done can report the others. Faults
// are reported as they are found, and the zero value or the default stands in.
type table struct {
	*report
	node   *node
	values map[string]any
	known  []string
}

// A rule is what a text must be; want says it in a message.
type rule struct {
	ok   func(string) bool
	want string
}

// shown is a text that breaks the rule. One that may be a secret, given in the place of what
// goes with it, is not repeated.
func (r rule) shown(s string) string {
	if strings.HasPrefix(s, "AGE-SECRET-KEY-") {
		return "a secret key"
	}
	return show(s)
}

func (t *table) mark(keys ...string) { t.known = append(t.known, keys...) }

func (t *table) has(key string) bool {
	_, ok := t.values[key]
	return ok
}

// path is the full name of a key of t.
func (t *table) path(key string) string { return join(t.node.path(), key) }

// fault reports something about a key: at its line, or where the table begins
// if the key is not there.
func (t *table) fault(key, text, hint string) { t.broken("", key, text, hint) }

// broken is fault with the name of the rule.
func (t *table) broken(rule Rule, key, text, hint string) {
	line := t.node.line
	if kid := t.node.kids[key]; kid != nil {
		line = kid.line
	} else if t.node.parent == nil {
		line = 0
	}
	t.broke(rule, line, t.path(key), text, hint)
}

func (t *table) faultf(key, format string, args ...any) {
	t.fault(key, fmt.Sprintf(format, args...), "")
}

// need reports the keys that are missing.
func (t *table) need(keys ...string) {
	t.mark(keys...)
	for _, key := range keys {
		if !t.has(key) {
			t.fault(key, "is missing", "")
		}
	}
}

// done reports the keys that nobody asked for.
func (t *table) done() {
	slices.Sort(t.known)
	t.known = slices.Compact(t.known)
	unknown := slices.DeleteFunc(slices.Collect(maps.Keys(t.values)), func(key string) bool {
		_, ok := slices.BinarySearch(t.known, key)
		return ok
	})
	slices.SortFunc(unknown, func(a, b string) int {
		return cmp.Or(cmp.Compare(t.node.kids[a].line, t.node.kids[b].line), strings.Compare(a, b))
	})
	for _, key := range unknown {
		if t.full() {
			continue
		}
		t.fault(key, "unknown key", nearest(key, t.known))
	}
}

// take reads a key as a T; ok is false when it is not there or not a T.
func take[T any](t *table, key, want string) (v T, ok bool) {
	t.mark(key)
	value, ok := t.values[key]
	if !ok {
		return v, false
	}
	if v, ok = value.(T); !ok {
		hint := ""
		if want == "a string" {
			hint = "put it in quotes"
		}
		t.fault(key, "want "+want+", found "+found(value), hint)
	}
	return v, ok
}

// found names the type of a decoded value.
func found(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case time.Time:
		return "a date or time without quotes"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	case []any:
		return "a list"
	}
	return fmt.Sprintf("a %T", value)
}

// text reads a string.
func (t *table) text(key string, r rule) string {
	s, ok := take[string](t, key, "a string")
	if !ok {
		return ""
	}
	if !r.ok(s) {
		t.fault(key, r.shown(s)+" is not allowed here", "want "+r.want)
		return ""
	}
	return s
}

// file reads the path of a file of the bundle.
func (t *table) file(key string) string {
	s, ok := take[string](t, key, "a string")
	if !ok {
		return ""
	}
	if broken := PathRule(s); broken != "" {
		t.broken(broken, key, show(s)+" is not allowed here", "want "+pathRule)
		return ""
	}
	return s
}

// choice reads a string that is one of a few; the first is the default.
func (t *table) choice(key string, choices ...string) string {
	s, ok := take[string](t, key, "a string")
	if !ok {
		return choices[0]
	}
	if !slices.Contains(choices, s) {
		t.fault(key, show(s)+" is not one of the choices", "want "+oneOf(choices))
		return choices[0]
	}
	return s
}

// texts reads a list of different strings. An empty list is nil.
func (t *table) texts(key string, r rule) []string {
	var all []string
	seen := map[string]int{}
	t.elements(key, "a list of strings", func(value any, n *node) {
		s, ok := value.(string)
		switch first := seen[s]; {
		case !ok:
			t.add(n.line, n.path(), "want a string, found "+found(value), "")
		case !r.ok(s):
			t.add(n.line, n.path(), r.shown(s)+" is not allowed here", "want "+r.want)
		case first > 0:
			t.add(n.line, n.path(), show(s)+" stands in the list twice", lineHint(first))
		default:
			seen[s] = n.line
			all = append(all, s)
		}
	})
	return all
}

// lines reads a list of strings in which order matters and one may come twice.
func (t *table) lines(key string, r rule) []string {
	var all []string
	t.elements(key, "a list of strings", func(value any, n *node) {
		s, ok := value.(string)
		switch {
		case !ok:
			t.add(n.line, n.path(), "want a string, found "+found(value), "")
		case !r.ok(s):
			t.add(n.line, n.path(), r.shown(s)+" is not allowed here", "want "+r.want)
		default:
			all = append(all, s)
		}
	})
	return all
}

// elements calls do for each element of a list.
func (t *table) elements(key, want string, do func(value any, n *node)) {
	t.mark(key)
	switch list := t.values[key].(type) {
	case nil:
	case []any:
		for i, value := range list {
			do(value, t.node.kids[key].elems[i])
		}
	case []map[string]any:
		for i, value := range list {
			do(value, t.node.kids[key].elems[i])
		}
	default:
		t.fault(key, "want "+want+", found "+found(list), "")
	}
}

// boolean reads true or false.
func (t *table) boolean(key string, otherwise bool) bool {
	if v, ok := take[bool](t, key, "true or false"); ok {
		return v
	}
	return otherwise
}

// integer reads a whole number from least to most.
func (t *table) integer(key string, otherwise, least, most int64) int64 {
	v, ok := take[int64](t, key, "a whole number")
	if !ok {
		return otherwise
	}
	if v < least || v > most {
		t.fault(key, fmt.Sprintf("%d is out of range", v), fmt.Sprintf("want %d to %d", least, most))
		return otherwise
	}
	return v
}

// sub reads a table, nil when there is none.
func (t *table) sub(key string) *table {
	v, ok := take[map[string]any](t, key, "a table")
	if !ok {
		return nil
	}
	return &table{report: t.report, node: t.node.kids[key], values: v}
}

// named reads a table of tables, in the order of their names.
func (t *table) named(key string, names rule) []*table {
	all := t.sub(key)
	if all == nil {
		return nil
	}
	var subs []*table
	for _, name := range slices.Sorted(maps.Keys(all.values)) {
		if !names.ok(name) {
			all.fault(name, "the name is not allowed", "want "+names.want)
		}
		if sub := all.sub(name); sub != nil {
			subs = append(subs, sub)
		}
	}
	return subs
}

// list reads a list of tables.
func (t *table) list(key string) []*table {
	var all []*table
	t.elements(key, "a list of tables", func(value any, n *node) {
		if v, ok := value.(map[string]any); ok {
			all = append(all, &table{report: t.report, node: n, values: v})
		} else {
			t.add(n.line, n.path(), "want a table, found "+found(value), "")
		}
	})
	return all
}
