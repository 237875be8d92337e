package jcs

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"unicode/utf8"
)

// hasInvalidUTF8 says whether v holds a string that encoding/json would have
// to repair. It looks where encoding/json looks, v having been encoded before,
// so it meets neither cycles nor types that cannot be encoded.
func hasInvalidUTF8(v any) bool { return invalid(reflect.ValueOf(v)) }

func invalid(v reflect.Value) bool {
	if !v.IsValid() {
		return false
	}
	if bad, done := invalidText(v); done {
		return bad
	}
	switch v.Kind() {
	case reflect.String:
		return !utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return invalid(v.Elem())
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if invalid(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if invalid(it.Key()) || invalid(it.Value()) {
				return true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			skipped := strings.Split(f.Tag.Get("json"), ",")[0] == "-" || !f.IsExported() && !f.Anonymous
			if !skipped && invalid(v.Field(i)) {
				return true
			}
		}
	}
	return false
}

// invalidText judges a value that encodes itself; done is false for others.
func invalidText(v reflect.Value) (bad, done bool) {
	if v.Kind() != reflect.Pointer && v.CanAddr() {
		v = v.Addr() // methods of the pointer count where encoding/json can reach them
	}
	if !v.CanInterface() || v.Kind() == reflect.Pointer && v.IsNil() {
		return false, false
	}
	switch m := v.Interface().(type) {
	case json.Marshaler: // its bytes are copied as they are and judged by the parser
		return false, true
	case encoding.TextMarshaler:
		text, err := m.MarshalText()
		return err == nil && !utf8.Valid(text), true
	}
	return false, false
}
