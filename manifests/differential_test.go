package manifests_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stellarun/stella/manifests"
)

// tomlText generates text that is nearly TOML: few names, so that they meet,
// and the places where readers differ.
func tomlText() *rapid.Generator[string] {
	pick := func(choices ...string) *rapid.Generator[string] { return rapid.SampledFrom(choices) }
	part := pick("a", "b", "c", `"a"`, `'b'`, `"a.b"`, `"\u0061"`, `"c\"d"`)
	dotted := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(part, 1, 3).Draw(t, "parts"), pick(".", " . ").Draw(t, "dot"))
	})
	scalar := pick("1", "0x1F", "-1.5e3", "inf", "-nan", "true", "1979-05-27", "1979-05-27 07:32:00", "1979-05-27T07:32:00Z", "07:32:00",
		`"x"`, `""`, `"\\"`, `"[a]"`, `"\"#"`, `'\'`, `''`, `''''''`, `""""""`, `"""a"""""`, "'''\n[a]\nb = 1'''", `"""\""""`, `"""\\"""`,
		"\"\"\"\n[[a]] \\\n   \n  b\"\"\"", `"""""a"""`, `'''a'''''`, "\"\"\"\\\\\\\n x\"\"\"", "+1", "1_0", `"\x41\e"`)
	space := pick("", "", " ", "\t", " ", "\n", " # [x]\n", "\r\n")
	value := rapid.Custom(func(t *rapid.T) string { return scalar.Draw(t, "scalar") })
	for range 3 {
		inner := value
		list := rapid.Custom(func(t *rapid.T) string {
			var b strings.Builder
			b.WriteString("[")
			for range rapid.IntRange(0, 3).Draw(t, "length") {
				b.WriteString(space.Draw(t, "space") + inner.Draw(t, "element") + space.Draw(t, "space") + ",")
			}
			return strings.TrimSuffix(b.String(), pick("", ",").Draw(t, "comma")) + space.Draw(t, "space") + "]"
		})
		braces := rapid.Custom(func(t *rapid.T) string {
			var b strings.Builder
			b.WriteString("{")
			for range rapid.IntRange(0, 3).Draw(t, "length") {
				b.WriteString(space.Draw(t, "space") + dotted.Draw(t, "key") + " = " + inner.Draw(t, "element") + space.Draw(t, "space") + ",")
			}
			return strings.TrimSuffix(b.String(), pick("", ",").Draw(t, "comma")) + space.Draw(t, "space") + "}"
		})
		value = rapid.OneOf(value, list, braces)
	}
	line := rapid.OneOf(
		rapid.Custom(func(t *rapid.T) string {
			return dotted.Draw(t, "key") + pick("=", " = ").Draw(t, "is") + value.Draw(t, "value")
		}),
		rapid.Custom(func(t *rapid.T) string { return "[" + dotted.Draw(t, "header") + "]" }),
		rapid.Custom(func(t *rapid.T) string { return "[[" + dotted.Draw(t, "header") + "]]" }),
		pick("# [a]", "", "  "),
	)
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(line, 0, 6).Draw(t, "lines"), pick("\n", "\r\n", " # x\n").Draw(t, "end"))
	})
}

// TestScanAndParserSeeTheSameKeys also counts how often both accept what was
// generated: a comparison of nothing would always succeed.
func TestScanAndParserSeeTheSameKeys(t *testing.T) {
	text := tomlText()
	tried, both := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		tried++
		if compare(t, []byte(text.Draw(t, "text"))) {
			both++
		}
	})
	if both < tried/10 {
		t.Errorf("only %d of %d texts were accepted by both", both, tried)
	}
}

// TestWhatIsSetTwiceIsLeftOut also counts how often something was set twice and
// nothing else was wrong.
func TestWhatIsSetTwiceIsLeftOut(t *testing.T) {
	text := tomlText()
	cut := 0
	rapid.Check(t, func(t *rapid.T) {
		raw := []byte(text.Draw(t, "text"))
		kept, faults := manifests.Kept(raw)
		if kept == nil || faults == 0 {
			return
		}
		cut++
		if bytes.Count(kept, []byte("\n")) != bytes.Count(raw, []byte("\n")) || len(kept) != len(raw) {
			t.Fatalf("lines have other numbers in\n%s\nthan in\n%s", kept, raw)
		}
		if f := manifests.Scan("f", kept); len(f) > 0 {
			t.Fatalf("what is left of\n%s\nis\n%s\n%v", raw, kept, f)
		}
		if diff := cmp.Diff(manifests.Keys(raw), manifests.Keys(kept)); diff != "" {
			t.Fatalf("what is left of\n%s\nis\n%s\n%s", raw, kept, diff)
		}
		if same, ok := manifests.Agree(kept, kept); ok && !same {
			t.Fatalf("the parser reads something else in\n%s", kept)
		}
	})
	if cut < 5 {
		t.Errorf("only %d texts set something twice", cut)
	}
}
