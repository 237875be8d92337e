package verifytest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/stamp"
)

// Tree is testdata/bundles: every fixture as NAME.stella, every trust as
// trust/NAME/ in the layout of a site, and index.toml, which says all that
// somebody else needs to judge them: for which site, fleet and version, under
// which trust, at which time, with which limit and floor, and the outcome. Keys
// are slash-separated paths.
func Tree() map[string][]byte {
	out := map[string][]byte{}
	trusts := Trusts()
	for name, t := range trusts {
		named, err := t.Files().Named()
		must(err)
		for path, raw := range named {
			out["trust/"+name+"/"+path] = raw
		}
	}
	var index strings.Builder
	fmt.Fprintf(&index, "# Made by go run ./testdata/bundles/gen; do not edit.\n")
	fmt.Fprintf(&index, "schema = \"stella.fixtures/1\"\nsite_id = %q\nfleet_id = %q\nstella = %q\n", SiteID, FleetID, Stella)
	fixtures := Fixtures()
	used := map[string]bool{}
	for i := range fixtures {
		f := &fixtures[i]
		used[f.Trust] = true
		out[f.Name+".stella"] = f.Raw
		index.WriteString("\n" + f.index())
	}
	for _, name := range slices.Sorted(maps.Keys(trusts)) {
		if !used[name] {
			panic("verifytest: no fixture uses the trust " + name)
		}
	}
	out["index.toml"] = []byte(index.String())
	return out
}

// index is the entry of f in index.toml.
func (f *Fixture) index() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[[fixture]]\nname = %q\nnote = %q\ntrust = %q\nnow = %q\nexpect = %q\n", f.Name, f.Note, f.Trust, stamp.Format(f.Now), f.Expect)
	if f.Limit > 0 {
		fmt.Fprintf(&b, "limit_bytes = %d\n", f.Limit)
	}
	if f.Floors != nil {
		fmt.Fprintf(&b, "[fixture.floor]\nsequence = %d\ndigest = %q\n", f.Floors.Sequence, f.Floors.Digest)
		if f.Floors.Version != "" {
			fmt.Fprintf(&b, "version_digest = %q\n", f.Floors.Version)
		}
		if f.Floors.Admitted {
			b.WriteString("admitted = true\n")
		}
	}
	return b.String()
}
