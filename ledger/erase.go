package ledger

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/stellarun/stella/internal/jcs"
)

// What people have said in their own words may have to be erased by law. The fields that hold
// it are marked in the structs; all others are ids, digests, codes and numbers that a replay
// of the ledger needs. An envelope is never erased: see FORMATS section 4.

// MaxErased bounds how many entries one request names.
const MaxErased = 500

// Remains is what a replay needs of an entry whose data line is erased: the data without what
// people have said, in canonical form. It belongs to the site alone, and into no archive.
// Data in which nobody has said anything has nothing to erase: ok is false.
func Remains(t Type, data json.RawMessage) (raw json.RawMessage, ok bool, err error) {
	v, err := DecodeData(t, data)
	if err != nil {
		return nil, false, err
	}
	if !blank(reflect.ValueOf(v).Elem()) {
		return nil, false, nil
	}
	if raw, err = jcs.Marshal(v); err != nil {
		return nil, false, fmt.Errorf("ledger: remains of %s: %w", t, err)
	}
	return raw, true, nil
}

// Erasable says whether data of a type can be erased, since people speak in it. A type that is not
// known here may be one of those.
func Erasable(t Type) bool {
	info, ok := lookup(t)
	for i := 0; ok && i < info.data.NumField(); i++ {
		if info.data.Field(i).Tag.Get("erase") == "text" {
			return true
		}
	}
	return !ok
}

// blank empties the marked fields of a struct, and says whether any held something.
func blank(v reflect.Value) (held bool) {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("erase") != "text" {
			continue
		}
		f := v.Field(i)
		held = held || f.Len() > 0
		if f.Kind() == reflect.Slice {
			f.Set(reflect.MakeSlice(f.Type(), 0, 0))
		} else {
			f.SetZero()
		}
	}
	return held
}

// Said is what people have said in data, each text once and none that is empty.
func Said(t Type, data json.RawMessage) ([]string, error) {
	v, err := DecodeData(t, data)
	if err != nil {
		return nil, err
	}
	var all []string
	s := reflect.ValueOf(v).Elem()
	for i := range s.NumField() {
		if s.Type().Field(i).Tag.Get("erase") == "text" {
			all = texts(all, s.Field(i))
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// texts appends the texts in v.
func texts(all []string, v reflect.Value) []string {
	switch v.Kind() {
	case reflect.String:
		if v.Len() > 0 {
			all = append(all, v.String())
		}
	case reflect.Slice:
		for i := range v.Len() {
			all = texts(all, v.Index(i))
		}
	case reflect.Map:
		for _, value := range v.Seq2() {
			all = texts(all, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			all = texts(all, v.Field(i))
		}
	}
	return all
}
