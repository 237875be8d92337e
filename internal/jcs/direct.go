package jcs

import (
	"cmp"
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// A plan appends the canonical encoding of a value of one type. It says false where
// encoding/json has to: for a value that is refused, and for whoever it is that says why.
type plan func(b []byte, v reflect.Value) ([]byte, bool)

// plans are those of types seen so far, nil for types that encoding/json has to encode.
var plans sync.Map // of reflect.Type

// direct encodes v without encoding/json where its type has a plan: structs of plain
// fields, in slices and maps too, which is what is encoded for every entry of a ledger.
func direct(v any) ([]byte, bool) {
	t := reflect.TypeOf(v)
	if t == nil {
		return nil, false
	}
	p, ok := plans.Load(t)
	if !ok {
		p, _ = plans.LoadOrStore(t, planOf(t, nil))
	}
	if p.(plan) == nil {
		return nil, false
	}
	return p.(plan)(make([]byte, 0, 512), reflect.ValueOf(v))
}

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
	number        = reflect.TypeFor[json.Number]()
)

// planOf is nil for a type that holds what has no plan. Within are the types that t lies in:
// one that holds itself has none, so that values are no deeper than their types.
func planOf(t reflect.Type, within []reflect.Type) plan {
	own := t.Implements(marshaler) || t.Implements(textMarshaler) ||
		reflect.PointerTo(t).Implements(marshaler) || reflect.PointerTo(t).Implements(textMarshaler)
	if own || t == number || len(within) >= MaxDepth || slices.Contains(within, t) {
		return nil
	}
	within = append(slices.Clip(within), t)
	switch t.Kind() {
	case reflect.String:
		return planString
	case reflect.Bool:
		return func(b []byte, v reflect.Value) ([]byte, bool) { return strconv.AppendBool(b, v.Bool()), true }
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(b []byte, v reflect.Value) ([]byte, bool) {
			n := v.Int()
			return strconv.AppendInt(b, n, 10), -limit < n && n < limit
		}
	case reflect.Pointer:
		return orNull(planOf(t.Elem(), within), func(p plan, b []byte, v reflect.Value) ([]byte, bool) { return p(b, v.Elem()) })
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return nil // base64
		}
		return orNull(planOf(t.Elem(), within), appendSlice)
	case reflect.Map:
		if t.Key().Kind() != reflect.String || planOf(t.Key(), nil) == nil {
			return nil
		}
		return orNull(planOf(t.Elem(), within), appendMap)
	case reflect.Struct:
		return planStruct(t, within)
	}
	return nil
}

func planString(b []byte, v reflect.Value) ([]byte, bool) {
	s := v.String()
	if !utf8.ValidString(s) {
		return b, false
	}
	return appendString(b, s), true
}

// orNull is the plan of what may be nil, given that of what it holds.
func orNull(p plan, full func(p plan, b []byte, v reflect.Value) ([]byte, bool)) plan {
	if p == nil {
		return nil
	}
	return func(b []byte, v reflect.Value) ([]byte, bool) {
		if v.IsNil() {
			return append(b, "null"...), true
		}
		return full(p, b, v)
	}
}

func appendSlice(p plan, b []byte, v reflect.Value) (_ []byte, ok bool) {
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, ok = p(b, v.Index(i)); !ok {
			return b, false
		}
	}
	return append(b, ']'), true
}

func appendMap(p plan, b []byte, v reflect.Value) (_ []byte, ok bool) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(x, y reflect.Value) int { return compareUTF16(x.String(), y.String()) })
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		if b, ok = planString(b, k); !ok {
			return b, false
		}
		if b, ok = p(append(b, ':'), v.MapIndex(k)); !ok {
			return b, false
		}
	}
	return append(b, '}'), true
}

// A field is one of a struct that is encoded.
type field struct {
	name      string
	index     int
	omitEmpty bool
	plan      plan
}

func planStruct(t reflect.Type, within []reflect.Type) plan {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous || name == "-" && strings.Contains(f.Tag.Get("json"), ","):
			return nil
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			name = f.Name
		}
		p := planOf(f.Type, within)
		if p == nil || options != "" && options != "omitempty" || strings.ContainsFunc(name, unusual) {
			return nil
		}
		fields = append(fields, field{name, i, options != "", p})
	}
	slices.SortFunc(fields, func(a, b field) int { return cmp.Compare(a.name, b.name) })
	for i := 1; i < len(fields); i++ {
		if fields[i-1].name == fields[i].name {
			return nil // neither is encoded, or one: that is encoding/json's to know
		}
	}
	return func(b []byte, v reflect.Value) ([]byte, bool) { return appendStruct(fields, b, v) }
}

// unusual says whether a rune is one of those that names of fields do without.
func unusual(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

func appendStruct(fields []field, b []byte, v reflect.Value) (_ []byte, ok bool) {
	b = append(b, '{')
	first := len(b)
	for i := range fields {
		f := &fields[i]
		value := v.Field(f.index)
		if f.omitEmpty && isEmpty(value) {
			continue
		}
		if len(b) > first {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), f.name...), '"', ':')
		if b, ok = f.plan(b, value); !ok {
			return b, false
		}
	}
	return append(b, '}'), true
}

// isEmpty says what omitempty leaves out, of the kinds that have a plan.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}
