package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheThreatModelNamesTestsThatExist reads docs/threat-model.md: each test
// that it names is there, and each of the rules at the door names some.
func TestTheThreatModelNamesTestsThatExist(t *testing.T) {
	raw, err := os.ReadFile("../../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")
	declared := map[string]bool{}
	seen := map[string]bool{}
	for _, m := range named.FindAllStringSubmatch(string(raw), -1) {
		pkg, name := m[1], m[2]
		if !seen[pkg] {
			seen[pkg] = true
			declare(t, pkg, declared)
		}
		if !declared[pkg+"."+name] {
			t.Errorf("docs/threat-model.md names %s.%s, which does not exist", pkg, name)
		}
	}
	row := regexp.MustCompile(`(?m)^\| ([0-9]+) \|.*$`)
	rules := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(raw), -1) {
		rules[m[1]] = named.MatchString(m[0])
	}
	for _, rule := range strings.Fields("1 2 3 4 5 6 7 8 9 10 11 12 13 20 38 39 40") {
		if !rules[rule] {
			t.Errorf("docs/threat-model.md names no test for rule %s", rule)
		}
	}
}

// declare takes note of the tests of a package.
func declare(t *testing.T, pkg string, declared map[string]bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pkg), "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("package %s has no tests: %v", pkg, err)
	}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9]+)\([a-z]+ \*testing\.[TF]\)`)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range function.FindAllStringSubmatch(string(raw), -1) {
			declared[pkg+"."+m[1]] = true
		}
	}
}
