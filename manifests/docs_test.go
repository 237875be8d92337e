package manifests_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/manifests"
)

func reference(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "docs", "languages.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestExamplesOfTheReferenceAreRight parses each example of docs/languages.md;
// every language has one.
func TestExamplesOfTheReferenceAreRight(t *testing.T) {
	seen := map[string]int{}
	for i, block := range strings.Split(reference(t), "```toml\n")[1:] {
		text, _, ok := strings.Cut(block, "```\n")
		if !ok {
			t.Fatalf("example %d has no end", i)
		}
		for _, l := range languages() {
			if !strings.HasPrefix(text, "schema = \""+l.schema+"\"\n") || l.schema == manifests.BundleSchema &&
				(l.name == "bundle") != strings.Contains(text, "[[file]]") {
				continue
			}
			seen[l.name]++
			v, err := l.parse("f", []byte(text))
			if err != nil {
				t.Errorf("example %d, %s:\n%v", i, l.name, err)
				continue
			}
			fixedPoint(t, l, v)
		}
	}
	for _, l := range languages() {
		if seen[l.name] != 1 {
			t.Errorf("%s has %d examples, want 1", l.name, seen[l.name])
		}
	}
}

// TestReferenceNamesEveryKey looks for the keys of the samples, which together
// have all.
func TestReferenceNamesEveryKey(t *testing.T) {
	text := reference(t)
	for _, l := range languages() {
		for name, raw := range samples(t, l.name) {
			for _, path := range manifests.Keys(raw) {
				path, _, _ = strings.Cut(path, " ")
				key := path[strings.LastIndexByte(path, '.')+1:]
				switch {
				case strings.HasSuffix(key, "]"), strings.ContainsAny(path, `"`), strings.Contains(path, ".with."), strings.Contains(path, "outputs."),
					strings.HasPrefix(path, "inputs.") && strings.Count(path, ".") != 2, strings.Contains(path, "for_each"), strings.Contains(path, "default["),
					strings.Contains(path, ".actions.") && strings.Count(path, ".") == 2, strings.Contains(path, "semaphores."):
					continue // names that the author chose
				}
				named := false
				for _, form := range []string{"`" + key + "`", "`" + key + " = ", "[" + key + "]", "[" + key + ".", "." + key + "]", "." + key + "."} {
					named = named || strings.Contains(text, form)
				}
				if !named {
					t.Errorf("%s, %s: %s is not in the reference", l.name, name, path)
				}
			}
		}
	}
}
