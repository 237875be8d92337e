package export_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stellarun/stella/ledger"
)

// The specification names every type of entry and every check.
func TestTheSpecificationIsComplete(t *testing.T) {
	raw, err := os.ReadFile("../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	var names []string
	for _, info := range ledger.Types() {
		names = append(names, string(info.Type))
	}
	s := busySite(t)
	for _, c := range check(t, s.archive(window(4, 20)), s.auditor()).Checks {
		names = append(names, c.Name)
	}
	for _, name := range names {
		if !strings.Contains(doc, "`"+name+"`") {
			t.Errorf("docs/format.md does not name %s", name)
		}
	}
}
