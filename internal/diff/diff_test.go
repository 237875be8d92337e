package diff_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stellarun/stella/internal/diff"
)

func decode(t *testing.T, s string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestValues(t *testing.T) {
	for _, c := range []struct{ name, a, b, want string }{
		{"the same has no changes", `{"a":[1,{"b":null}],"c":"x"}`, `{"c":"x","a":[1,{"b":null}]}`, ``},
		{"numbers are worth the same in any form", `{"a":1,"b":1e2,"c":0.5}`, `{"a":1.0,"b":100,"c":5e-1}`, ``},
		{"a huge exponent costs nothing", `{"a":1e999999999}`, `{"a":1e999999998}`, `a changed 1e999999999 1e999999998`},
		{"null is the same as absent", `{"a":null}`, `{}`, ``},
		{"changed, added and removed by key", `{"a":1,"b":2}`, `{"a":3,"c":4}`, "a changed 1 3\nb removed 2 none\nc added none 4"},
		{"another kind", `{"a":{"b":1}}`, `{"a":[1]}`, `a changed {"b":1} [1]`},
		{"one more in the middle of a list", `[1,2,3,4]`, `[1,2,9,3,4]`, `[2] added none 9`},
		{"one less at the start of a list", `[9,1,2]`, `[1,2]`, `[0] removed 9 none`},
		{"lists inside lists", `[[1,2],[3]]`, `[[1,5],[3]]`, `[0][1] changed 2 5`},
		{"keys with dots and quotes", `{"a.b":{"c\"d":1}}`, `{"a.b":{"c\"d":2}}`, `"a.b"."c\"d" changed 1 2`},
		{"a string that reads like a number is none", `{"a":"1"}`, `{"a":1}`, `a changed "1" 1`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, x := range diff.Values(decode(t, c.a), decode(t, c.b)) {
				got = append(got, fmt.Sprint(x.Where(), " ", x.Kind, " ", diff.Text(x.Old), " ", diff.Text(x.New)))
			}
			if d := cmp.Diff(c.want, strings.Join(got, "\n")); d != "" {
				t.Errorf("%s against %s (-want +got):\n%s", c.a, c.b, d)
			}
		})
	}
}

func TestSetsHaveNoOrder(t *testing.T) {
	got := diff.Values(map[string]any{"needs": diff.Set{"a", "b", "c"}}, map[string]any{"needs": diff.Set{"c", "d", "a"}})
	want := []diff.Change{
		{Path: []string{"needs"}, Kind: diff.Removed, Old: "b"},
		{Path: []string{"needs"}, Kind: diff.Added, New: "d"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// value draws a value of the JSON kinds.
func value(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		switch k := rapid.IntRange(0, 4+2*min(depth, 1)).Draw(t, "kind"); k {
		case 0:
			return rapid.Bool().Draw(t, "b")
		case 1:
			return rapid.Int64Range(-9, 9).Draw(t, "n")
		case 2:
			return rapid.Float64Range(-2, 2).Draw(t, "f")
		case 3, 4:
			return rapid.StringN(0, 2, 4).Draw(t, "s")
		case 5:
			return rapid.SliceOfN(value(depth-1), 0, 3).Draw(t, "l")
		default:
			return rapid.MapOfN(rapid.StringMatching(`[a-c]`), value(depth-1), 0, 3).Draw(t, "m")
		}
	})
}

// The same values have no changes, and the changes one way are those of the
// other way turned round.
func TestRandomValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := value(3).Draw(t, "a"), value(3).Draw(t, "b")
		if got := diff.Values(a, a); len(got) != 0 {
			t.Fatalf("%v differs from itself: %v", a, got)
		}
		there, back := diff.Values(a, b), diff.Values(b, a)
		if len(there) != len(back) {
			t.Fatalf("%v against %v: %v, and back %v", a, b, there, back)
		}
		for i, c := range there {
			if d := cmp.Diff(c.Old, back[i].New); d != "" || c.Where() != back[i].Where() {
				t.Fatalf("%v against %v: %v, and back %v", a, b, c, back[i])
			}
		}
	})
}
