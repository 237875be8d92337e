package ledger_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
)

// talkative gives each text in v words of its own, and each list an item.
func talkative(v reflect.Value, n *int) {
	switch v.Kind() {
	case reflect.String:
		*n++
		v.SetString(fmt.Sprintf("words %d", *n))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		talkative(v.Elem(), n)
	case reflect.Slice:
		if v.Type() != reflect.TypeFor[json.RawMessage]() {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			talkative(v.Index(0), n)
		}
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.String {
			*n++
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf("key"), reflect.ValueOf(fmt.Sprintf("words %d", *n)))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			talkative(v.Field(i), n)
		}
	}
}

// words are the texts in JSON.
func words(v any) (all []string) {
	switch v := v.(type) {
	case string:
		all = append(all, v)
	case []any:
		for _, item := range v {
			all = append(all, words(item)...)
		}
	case map[string]any:
		for _, item := range v {
			all = append(all, words(item)...)
		}
	}
	return all
}

// What people have said is exactly what an erasure takes out, for each type of entry.
func TestSaidIsWhatAnErasureTakesOut(t *testing.T) {
	said := 0
	for _, info := range ledger.Types() {
		data, n := info.New(), 0
		talkative(reflect.ValueOf(data).Elem(), &n)
		raw, err := jcs.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ledger.Said(info.Type, raw)
		if err != nil {
			t.Fatalf("%s: %v", info.Type, err)
		}
		remains, ok, err := ledger.Remains(info.Type, raw)
		if err != nil || ok != (len(got) > 0) {
			t.Errorf("%s: remains %v, %v; said %q", info.Type, ok, err, got)
		}
		if can := ledger.Erasable(info.Type); can != ok {
			t.Errorf("%s can be erased: %t, want %t", info.Type, can, ok)
		}
		var before, after any
		if err := json.Unmarshal(raw, &before); err != nil {
			t.Fatal(err)
		}
		if remains != nil {
			if err := json.Unmarshal(remains, &after); err != nil {
				t.Fatal(err)
			}
			left := words(after)
			want := slices.DeleteFunc(words(before), func(w string) bool { return slices.Contains(left, w) })
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s: said %q, taken out %q", info.Type, got, want)
			}
		}
		said += len(got)
	}
	if !ledger.Erasable("moon.landed") {
		t.Error("of a type that nobody knows it is known that it cannot be erased")
	}
	if said < 20 {
		t.Errorf("%d texts in all types", said)
	}
}
