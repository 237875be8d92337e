package verify_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stellarun/stella/verify"
)

// TestReasonsAreInTheDocs compares the table of docs/format.md with the reasons.
// With UPDATE_DOCS in the environment it writes the table anew.
func TestReasonsAreInTheDocs(t *testing.T) {
	const file, begin, end = "../docs/format.md", "<!-- reasons -->\n", "<!-- end of reasons -->\n"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(raw), begin)
	got, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no table between %q and %q", file, begin, end)
	}
	var want strings.Builder
	for _, r := range verify.Reasons() {
		fmt.Fprintf(&want, "| `%s` | %s | %s |\n", r.Reason, r.Stage, r.Doc)
	}
	if got == want.String() {
		return
	}
	if os.Getenv("UPDATE_DOCS") == "" {
		t.Fatalf("the table of reasons differs; UPDATE_DOCS=1 go test ./verify -run Docs writes\n%s", &want)
	}
	if err := os.WriteFile(file, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
