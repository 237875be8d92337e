package inventory_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/examples/audit/internal/cyclonedx"
	"github.com/stellarun/stella/examples/audit/internal/debian"
	"github.com/stellarun/stella/examples/audit/internal/gobin"
	"github.com/stellarun/stella/examples/audit/internal/inventory"
)

var update = flag.Bool("update", false, "write golden files")

func origin() inventory.Origin {
	return inventory.Origin{Subject: "m1", Timestamp: "2026-11-22T00:00:00Z"}
}

func programs() []gobin.Program {
	return []gobin.Program{
		{Path: "/usr/bin/go", SHA256: strings.Repeat("aa", 32), Info: &debug.BuildInfo{GoVersion: "go1.26.8", Path: "cmd/go"}},
		{Path: "/usr/bin/old", SHA256: strings.Repeat("bb", 32), Info: &debug.BuildInfo{GoVersion: "go1.24.3 X:nodwarf5", Path: "example.com/old/cmd/old"}},
		{Path: "/usr/bin/\xfftool", SHA256: strings.Repeat("cc", 32), Info: &debug.BuildInfo{
			GoVersion: "devel go1.27-abc", Path: "example.com/Tool/cmd/tool", Main: debug.Module{Path: "example.com/Tool", Version: "v1.2.3+dirty"},
			Deps: []*debug.Module{
				{Path: "example.com/a", Version: "v1.0.0"},
				{Path: "example.com/b", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/fork/b", Version: "v1.0.1"}},
				{Path: "example.com/c", Version: "v1.0.0", Replace: &debug.Module{Path: "../c", Version: "(devel)"}},
				{Path: "example.com/a", Version: "v1.0.0"},
				nil,
			},
		}},
		{Path: "/usr/local/bin/tool", SHA256: strings.Repeat("dd", 32), Info: &debug.BuildInfo{
			GoVersion: "go1.22rc1", Path: "example.com/other", Main: debug.Module{Path: "example.com/other", Version: "(devel)"},
			Deps: []*debug.Module{{Path: "example.com/a", Version: "v1.0.0"}},
		}},
	}
}

func packages() (debian.Release, []debian.Package) {
	return debian.Release{ID: "debian", VersionID: "12"}, []debian.Package{
		{Name: "libc6", Version: "2.36-9+deb12u14", Arch: "amd64", Source: "glibc", SourceVersion: "2.36-9+deb12u14", File: "status"},
		{Name: "libc6", Version: "2.36-9+deb12u14", Arch: "i386", Source: "glibc", SourceVersion: "2.36-9+deb12u14", File: "status"},
		{Name: "mawk", Version: "1.3.4", Arch: "amd64", Source: "mawk", SourceVersion: "1.3.4", File: "status", Provides: []string{"awk", "mawk"}},
		{
			Name: "tool", Version: "1:1.0+b1", Arch: "amd64", Source: "tool", SourceVersion: "1:1.0", File: "status",
			Depends: [][]string{{"libc6"}, {"gawk", "awk"}, {"tool"}, {"absent"}},
		},
		{Name: "tool", Version: "1:1.0+b1", Arch: "amd64", Source: "tool", SourceVersion: "1:1.0", File: "status.d/tool"},
	}
}

func encode(t *testing.T, b cyclonedx.BOM) []byte {
	t.Helper()
	raw, err := cyclonedx.Encode(b)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s: -want +got:\n%s", name, diff)
	}
}

func TestGo(t *testing.T) {
	raw := encode(t, inventory.Go(programs(), origin()))
	golden(t, "go.json", raw)
	if again := encode(t, inventory.Go(programs(), origin())); !bytes.Equal(raw, again) {
		t.Error("the same programs gave another bill")
	}
}

func TestDebian(t *testing.T) {
	release, list := packages()
	golden(t, "debian.json", encode(t, inventory.Debian(release, list, origin())))
}

func TestNothing(t *testing.T) {
	golden(t, "empty.json", encode(t, inventory.Debian(debian.Release{ID: "linux"}, nil, inventory.Origin{Timestamp: "2026-11-22T00:00:00Z"})))
}

// TestGoKnowsHowMuchItLists: a part found in more programs than are listed says
// how many are left out.
func TestGoKnowsHowMuchItLists(t *testing.T) {
	var many []gobin.Program
	for i := range 130 {
		many = append(many, gobin.Program{
			Path: fmt.Sprintf("/bin/p%03d", i), SHA256: strings.Repeat("aa", 32), Info: &debug.BuildInfo{GoVersion: "go1.26.8", Path: "example.com/p"},
		})
	}
	b := inventory.Go(many, origin())
	i := slices.IndexFunc(b.Components, func(c cyclonedx.Component) bool { return c.Name == "stdlib" })
	c := b.Components[i]
	if got, omitted := len(c.Values(cyclonedx.PropPath)), c.Value(cyclonedx.PropPathsOmitted); got != 100 || omitted != "30" {
		t.Errorf("%d paths listed, %q omitted; want 100 and 30", got, omitted)
	}
}
