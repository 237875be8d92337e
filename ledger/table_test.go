package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stellarun/stella/ledger"
)

// documented reads types.go: each type, and the struct that its comment names.
func documented(t *testing.T) map[ledger.Type]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	out := map[ledger.Type]string{}
	for _, decl := range file.Decls {
		g, ok := decl.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			if typ, ok := v.Type.(*ast.Ident); !ok || typ.Name != "Type" {
				continue
			}
			value, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			name, _, _ := strings.Cut(strings.TrimSpace(v.Comment.Text()), ";")
			out[ledger.Type(value)] = name
		}
	}
	return out
}

func TestTableHoldsEveryType(t *testing.T) {
	want := documented(t)
	if len(want) < 20 {
		t.Fatalf("found only %d types in types.go", len(want))
	}
	got := map[ledger.Type]string{}
	for _, info := range ledger.Types() {
		if _, twice := got[info.Type]; twice {
			t.Errorf("%s is in the table twice", info.Type)
		}
		got[info.Type] = reflect.TypeOf(info.New()).Elem().Name()
		if info.Version < 1 || !strings.HasSuffix(info.Doc, ".") || strings.Contains(info.Doc, "\n") {
			t.Errorf("%s: version %d, doc %q", info.Type, info.Version, info.Doc)
		}
		if !ledger.Known(info.Type) {
			t.Errorf("%s is in the table and not known", info.Type)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("types.go and the table differ (-types.go +table):\n%s", diff)
	}
	if ledger.Known("") || ledger.Known("run.exploded") {
		t.Error("an unknown type is known")
	}
}

// TestTypesAreAClone holds that callers cannot change the table.
func TestTypesAreAClone(t *testing.T) {
	ledger.Types()[0].Type = "x"
	if ledger.Types()[0].Type == "x" {
		t.Error("changing the result of Types changed the table")
	}
}

// fill draws a value for v, which must be of a kind that canonical JSON can
// give back: no floats, no interfaces, integers below 2^53.
func fill(t *rapid.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.String().Draw(t, "string"))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64Range(-(1<<53-1), 1<<53-1).Draw(t, "int"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "set") {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem())
		}
	case reflect.Slice:
		n := rapid.IntRange(0, 3).Draw(t, "len")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rapid.IntRange(0, 3).Draw(t, "len") {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, key)
			fill(t, value)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	default:
		t.Fatalf("a field of kind %s", v.Kind())
	}
}

// TestEveryTypeComesBack seals random data of each type and reads it again.
func TestEveryTypeComesBack(t *testing.T) {
	base := ledger.Envelope{Actor: "a", Time: "2026-11-22T08:21:00.000000000Z"}
	for _, info := range ledger.Types() {
		t.Run(string(info.Type), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				want := info.New()
				fill(t, reflect.ValueOf(want).Elem())
				env := base
				env.Type, env.Seq = info.Type, rapid.Int64Range(0, 1<<53-2).Draw(t, "seq")
				entry, err := ledger.Seal(env, want, [32]byte{1})
				if err != nil {
					t.Fatalf("Seal = %v", err)
				}
				env, err = ledger.ParseEnvelope(entry.Envelope)
				if err != nil {
					t.Fatalf("ParseEnvelope(%s) = %v", entry.Envelope, err)
				}
				if _, err := ledger.Match(env, entry.Data); err != nil {
					t.Fatal(err)
				}
				line, err := ledger.ParseData(entry.Data)
				if err != nil || line.Seq != env.Seq {
					t.Fatalf("ParseData(%s) = %+v, %v", entry.Data, line, err)
				}
				got, err := ledger.DecodeData(info.Type, line.Data)
				if err != nil {
					t.Fatalf("DecodeData(%s) = %v", line.Data, err)
				}
				again, err := ledger.Seal(env, got, [32]byte{1})
				if err != nil || !bytes.Equal(again.Data, entry.Data) || !bytes.Equal(again.Envelope, entry.Envelope) {
					t.Fatalf("%s came back as %s, %v", entry.Data, again.Data, err)
				}
			})
		})
	}
}

func TestDecodeDataRefuses(t *testing.T) {
	good := `{"generation":1,"outcome":"failed"}`
	if _, err := ledger.DecodeData(ledger.AttemptEnded, []byte(good)); err != nil {
		t.Fatalf("DecodeData(%s) = %v", good, err)
	}
	for name, raw := range map[string]string{
		"an unknown field":           `{"generation":1,"outcome":"failed","zeal":1}`,
		"an unknown field within":    `{"fences":[{"name":"a","state":"off","x":1}],"generation":1,"outcome":"failed"}`,
		"a missing field":            `{"generation":1}`,
		"another case":               `{"Generation":1,"outcome":"failed"}`,
		"both cases":                 `{"Generation":2,"generation":1,"outcome":"failed"}`,
		"a duplicate":                `{"generation":1,"generation":1,"outcome":"failed"}`,
		"white space":                `{"generation":1, "outcome":"failed"}`,
		"another order":              `{"outcome":"failed","generation":1}`,
		"null":                       `null`,
		"a null field":               `{"exitCode":null,"generation":1,"outcome":"failed"}`,
		"an empty field":             `{"errorCode":"","generation":1,"outcome":"failed"}`,
		"a fraction":                 `{"generation":1.5,"outcome":"failed"}`,
		"an exponent":                `{"generation":1e0,"outcome":"failed"}`,
		"a string for a number":      `{"generation":"1","outcome":"failed"}`,
		"a number beyond the type's": `{"generation":1e30,"outcome":"failed"}`,
		"an array":                   `[]`,
		"nothing":                    ``,
		"two values":                 good + good,
		"a needless escape":          `{"generation":1,"outcome":"\u0066ailed"}`,
		"invalid UTF-8":              "{\"generation\":1,\"outcome\":\"\xff\"}",
	} {
		data, err := ledger.DecodeData(ledger.AttemptEnded, []byte(raw))
		var form *ledger.FormError
		if !errors.As(err, &form) || data != nil {
			t.Errorf("%s: DecodeData(%s) = %v, %v; want a FormError", name, raw, data, err)
		}
	}
	if _, err := ledger.DecodeData("run.exploded", []byte(`{}`)); !errors.Is(err, ledger.ErrUnknownType) {
		t.Errorf("DecodeData of an unknown type = %v, want ErrUnknownType", err)
	}
}

// TestNoDataWhereNoneIsNeeded lists the types that nil stands for.
func TestNoDataWhereNoneIsNeeded(t *testing.T) {
	env := ledger.Envelope{Actor: "a", Time: "2026-11-22T08:21:00.000000000Z"}
	var got []string
	for _, info := range ledger.Types() {
		env.Type = info.Type
		entry, err := ledger.Seal(env, nil, [32]byte{})
		if err != nil {
			continue
		}
		got = append(got, string(info.Type))
		want := fmt.Sprintf(`{"data":{},"salt":"%064d","seq":0}`, 0)
		if string(entry.Data) != want {
			t.Errorf("%s without data is %s, want %s", info.Type, entry.Data, want)
		}
	}
	want := map[string]bool{}
	for typ, name := range documented(t) {
		if slices.Contains([]string{"Note", "Nudge", "QueueChange", "RunEnd", "StepEnd"}, name) {
			want[string(typ)] = true
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), got); diff != "" {
		t.Errorf("types that need no data (-want +got):\n%s", diff)
	}
}
