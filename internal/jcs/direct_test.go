package jcs

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

type named string

type inner struct {
	Text  named  `json:"text"`
	Other string `json:"a,omitempty"`
}

type outer struct {
	Z       string            `json:"z"`
	Big     int64             `json:"big,omitempty"`
	Small   int8              `json:"_small"`
	Yes     bool              `json:"yes,omitempty"`
	No      bool              `json:"no"`
	Items   []inner           `json:"items,omitempty"`
	Lists   [][]string        `json:"lists"`
	Map     map[named]string  `json:"map,omitempty"`
	Deep    map[string]*inner `json:"deep"`
	Pointer *inner            `json:"pointer,omitempty"`
	Null    *string           `json:"null"`
	Struct  inner             `json:"struct,omitempty"`
	Took    time.Duration     `json:"took"`
	Hidden  string            `json:"-"`
	Name    string
	private string
}

// fill sets v to something random, of all that its type allows.
func fill(r *rand.Rand, v reflect.Value) {
	some := r.IntN(3)
	switch v.Kind() {
	case reflect.String:
		v.SetString([]string{"", "x", "<&>\u2028\"\\\n\x00é", "\U0001F600", "\ufb33", "\ufffd", "\xff", "k\xc3"}[r.IntN(8-r.IntN(2)*2)])
	case reflect.Bool:
		v.SetBool(some > 0)
	case reflect.Int, reflect.Int8, reflect.Int64:
		v.SetInt([]int64{0, 7, -1, 1<<53 - 1, 1 << 53, -1 << 53, -1 << 63}[r.IntN(7-r.IntN(2)*3)])
	case reflect.Pointer:
		if some > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem())
		}
	case reflect.Slice:
		if some > 0 {
			v.Set(reflect.MakeSlice(v.Type(), r.IntN(3), 3))
			for i := range v.Len() {
				fill(r, v.Index(i))
			}
		}
	case reflect.Map:
		if some > 0 {
			v.Set(reflect.MakeMap(v.Type()))
			for range r.IntN(4) {
				key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
				fill(r, key)
				fill(r, value)
				v.SetMapIndex(key, value)
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(r, v.Field(i))
			}
		}
	}
}

// What is encoded directly is what comes of it by way of encoding/json, or nothing.
func TestDirectIsIndirect(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	encoded, refused := 0, 0
	for range 20_000 {
		v := new(outer)
		fill(r, reflect.ValueOf(v).Elem())
		want, err := indirect(v)
		got, ok := direct(v)
		if ok != (err == nil) || ok && !bytes.Equal(got, want) {
			t.Fatalf("%+v: direct %s, %v; otherwise %s, %v", *v, got, ok, want, err)
		}
		if ok {
			encoded++
		} else {
			refused++
		}
	}
	if encoded < 1000 || refused < 1000 {
		t.Errorf("%d encoded and %d refused: too few to compare", encoded, refused)
	}
}

type byPointer struct{ A string }

func (*byPointer) MarshalJSON() ([]byte, error) { return []byte(`1`), nil }

type byText string

func (byText) MarshalText() ([]byte, error) { return []byte("t"), nil }

type itself struct {
	Next *itself `json:"next"`
}

// Of what encoding/json has its own ways with nothing is encoded directly.
func TestNotDirect(t *testing.T) {
	for _, v := range []any{
		nil, 1.5, uint64(1), []byte("x"), [1]string{"x"}, json.RawMessage(`1`), json.Number("1e2"), time.Time{}, &byPointer{}, []byPointer{{}}, byText("x"),
		map[byText]string{"x": "y"}, map[int]string{1: "x"}, []any{"x"}, itself{},
		struct{ inner }{}, struct {
			A int `json:"a,string"`
		}{}, struct {
			A int `json:"a,omitzero"`
		}{}, struct {
			A int `json:"-,"`
		}{}, struct {
			A int `json:"a b"`
		}{}, struct {
			A int
			B int `json:"A"`
		}{},
	} {
		if got, ok := direct(v); ok {
			t.Errorf("%T is encoded directly, as %s", v, got)
		}
		if _, err := Marshal(v); err != nil {
			t.Errorf("Marshal(%T): %v", v, err)
		}
	}
	deep := reflect.TypeFor[string]()
	for range MaxDepth + 1 {
		deep = reflect.SliceOf(deep)
	}
	if planOf(deep, nil) != nil {
		t.Error("a type of more lists in each other than are allowed is encoded directly")
	}
	if s := strings.Repeat("x", 1<<16); func() bool { b, ok := direct(&s); return !ok || len(b) != 1<<16+2 }() {
		t.Error("a long string is not encoded directly")
	}
}
