// Package diff says what differs between two values of the JSON kinds: nil,
// bool, int, int64, float64, json.Number, string, []any, map[string]any, and
// [Set]. It does no I/O and changes nothing that it is given.
package diff

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Kind says how a place differs. The strings reach JSON.
type Kind string

// Kinds.
const (
	Added   Kind = "added"   // only the second value has it
	Removed Kind = "removed" // only the first has it
	Changed Kind = "changed"
)

// A Change is one place at which two values differ. Of an element of a [Set]
// the path is that of the set.
type Change struct {
	Path []string `json:"path"` // keys from the outside inwards; [N] in a list
	Kind Kind     `json:"change"`
	Old  any      `json:"old,omitempty"`
	New  any      `json:"new,omitempty"`
}

// Where is the path as one word: keys that need quotes have them.
func (c *Change) Where() string { return Join(c.Path) }

// Join writes a path as one word.
func Join(path []string) string {
	var b strings.Builder
	for i, key := range path {
		switch {
		case strings.HasPrefix(key, "[") && strings.HasSuffix(key, "]"):
			b.WriteString(key)
			continue
		case i > 0:
			b.WriteByte('.')
		}
		if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r == '.' || r == '"' || r > '~' }) {
			key = strconv.Quote(key)
		}
		b.WriteString(key)
	}
	return b.String()
}

// A Set is a list whose order means nothing.
type Set []string

// Values compares two values, keys in their order. A key whose value is nil is
// the same as none.
func Values(a, b any) []Change {
	w := walk{}
	w.values(nil, a, b)
	return w.changes
}

type walk struct{ changes []Change }

func (w *walk) add(path []string, kind Kind, a, b any) {
	w.changes = append(w.changes, Change{Path: slices.Clone(path), Kind: kind, Old: a, New: b})
}

func (w *walk) values(path []string, a, b any) {
	switch {
	case a == nil && b == nil:
		return
	case a == nil:
		w.add(path, Added, nil, b)
		return
	case b == nil:
		w.add(path, Removed, a, nil)
		return
	}
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			w.maps(path, x, y)
			return
		}
	case []any:
		if y, ok := b.([]any); ok {
			w.lists(path, x, y)
			return
		}
	case Set:
		if y, ok := b.(Set); ok {
			w.sets(path, x, y)
			return
		}
	}
	if !same(a, b) {
		w.add(path, Changed, a, b)
	}
}

func (w *walk) maps(path []string, a, b map[string]any) {
	keys := slices.Collect(maps.Keys(a))
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		w.values(append(path, k), a[k], b[k])
	}
}

// lists leaves out what both begin and end with, and compares the rest by place.
func (w *walk) lists(path []string, a, b []any) {
	head := 0
	for head < len(a) && head < len(b) && same(a[head], b[head]) {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && same(a[len(a)-1-tail], b[len(b)-1-tail]) {
		tail++
	}
	a, b = a[head:len(a)-tail], b[head:len(b)-tail]
	for i := range max(len(a), len(b)) {
		at := append(path, fmt.Sprintf("[%d]", head+i))
		switch {
		case i >= len(a):
			w.add(at, Added, nil, b[i])
		case i >= len(b):
			w.add(at, Removed, a[i], nil)
		default:
			w.values(at, a[i], b[i])
		}
	}
}

func (w *walk) sets(path []string, a, b Set) {
	for _, x := range slices.Sorted(slices.Values(a)) {
		if !slices.Contains(b, x) {
			w.add(path, Removed, x, nil)
		}
	}
	for _, x := range slices.Sorted(slices.Values(b)) {
		if !slices.Contains(a, x) {
			w.add(path, Added, nil, x)
		}
	}
}

// same compares deeply; numbers by what they are worth, whatever their type.
func same(a, b any) bool {
	if x, ok := number(a); ok {
		y, ok := number(b)
		return ok && x.Cmp(y) == 0
	}
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		return ok && maps.EqualFunc(x, y, same)
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, same)
	}
	return reflect.DeepEqual(a, b)
}

func number(v any) (*big.Rat, bool) {
	switch x := v.(type) {
	case int:
		return new(big.Rat).SetInt64(int64(x)), true
	case int64:
		return new(big.Rat).SetInt64(x), true
	case float64:
		r := new(big.Rat).SetFloat64(x)
		return r, r != nil
	case json.Number:
		// As far as others read it: a text such as 1e999999999 would fill memory.
		f, err := strconv.ParseFloat(string(x), 64)
		if n, ierr := strconv.ParseInt(string(x), 10, 64); ierr == nil {
			return new(big.Rat).SetInt64(n), true
		}
		if err != nil {
			return nil, false
		}
		return new(big.Rat).SetFloat64(f), true
	}
	return nil, false
}

// Text is a value as one line of JSON; nil is "none".
func Text(v any) string {
	if v == nil {
		return "none"
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
