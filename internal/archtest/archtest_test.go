// Package archtest holds the layers of stella: which package may import which,
// and which outside library belongs to whom. It parses the sources itself,
// since a test that asks the go command is cached across their changes.
package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/stellarun/stella"

// layers lists the packages from the bottom up, each with its level and the
// packages of its own level that it may import. Anything below is allowed.
// A new package adds its line in the commit that brings it.
var layers = map[string]struct {
	level int
	peers []string
}{
	"internal/stamp":          {0, nil},
	"internal/garbage":        {0, nil},
	"internal/background":     {0, []string{"internal/garbage"}},
	"internal/jcs":            {0, nil},
	"internal/ustar":          {0, nil},
	"internal/failpoint":      {0, nil},
	"internal/fsx":            {0, []string{"internal/failpoint"}},
	"manifests":               {0, []string{"internal/stamp"}},
	"ledger":                  {0, []string{"internal/jcs", "internal/stamp"}},
	"runner/state":            {0, []string{"ledger", "internal/stamp"}},
	"plugin":                  {0, nil},
	"internal/drawing":        {0, nil},
	"internal/diff":           {0, nil},
	"runner/schedule":         {0, nil},
	"bundle":                  {1, nil},
	"telemetry":               {1, nil},
	"server/api":              {1, nil},
	"archive":                 {1, nil},
	"verify":                  {2, nil},
	"verify/verifytest":       {2, []string{"verify"}},
	"store":                   {2, nil},
	"runner":                  {2, nil},
	"runner/sandbox":          {3, nil},
	"export":                  {3, nil},
	"outbox":                  {3, nil},
	"provenance":              {3, nil},
	"internal/engine":         {4, nil},
	"server":                  {4, nil},
	"cmd/stella":              {5, nil},
	"cmd/stella-audit":        {0, nil}, // imports nothing of ours: see alone
	"internal/archtest":       {5, nil},
	"internal/simtest":        {5, nil},
	"bench":                   {6, []string{"bench/minverify/keyflow"}},
	"bench/minverify":         {6, []string{"bench/minverify/keyflow"}},
	"bench/minverify/keyflow": {6, nil},
	"testdata/bundles/gen":    {6, nil},
}

// owners are the outside libraries, and the packages that alone may import
// them. Tests may import anything.
var owners = map[string][]string{
	"github.com/spf13/cobra":              {"cmd/stella"},
	"github.com/spf13/pflag":              {"cmd/stella"},
	"github.com/sigstore":                 {"verify", "verify/verifytest", "bench/minverify/keyflow"},
	"go.etcd.io/bbolt":                    {"store", "bench"},
	"filippo.io/age":                      {"store", "export"},
	"cel.dev/cel-go":                      {"runner"},
	"github.com/google/jsonschema-go":     {"runner"},
	"github.com/robfig/cron":              {"runner/schedule"},
	"github.com/klauspost/compress":       {"archive", "bundle", "export", "bench", "cmd/stella-audit"},
	"go.opentelemetry.io/collector/pdata": {"telemetry"},
	"github.com/prometheus/client_golang": {"telemetry"},
	"github.com/tetratelabs/wazero":       {"runner/sandbox"},
	"golang.org/x/sys":                    {"runner/sandbox", "internal/background", "internal/fsx"},
	"github.com/landlock-lsm/go-landlock": {"runner/sandbox"},
	"github.com/BurntSushi/toml":          {"manifests", "cmd/stella-audit"},
	"golang.org/x/mod/sumdb":              {"ledger"},
	"github.com/coder/websocket":          {"server"},
	"a.stella/initproc":                   {"runner/sandbox"},
	"net/http":                            {"server", "server/api", "outbox"},
	"os/exec":                             {"cmd/stella", "runner/sandbox", "bench"},
	"github.com/transparency-dev/merkle":  {"cmd/stella-audit"},
	"github.com/rogpeppe/go-internal":     nil,
	"pgregory.net/rapid":                  nil,
}

// known are library paths that nobody owns: small, or used where they fit.
var known = []string{"golang.org/x/mod/semver", "golang.org/x/sync", "google.golang.org/protobuf", "github.com/google/go-cmp"}

// alone lists what packages that are built and read by themselves may import
// beyond the standard library.
var alone = map[string][]string{
	"cmd/stella-audit": {
		"github.com/BurntSushi/toml", "github.com/klauspost/compress/zstd", "github.com/transparency-dev/merkle/compact",
		"github.com/transparency-dev/merkle/proof", "github.com/transparency-dev/merkle/rfc6962",
	},
}

type source struct {
	pkg, file string
	imports   []string
	doc       bool
}

func TestLayers(t *testing.T) {
	sources := read(t, "../..")
	seen, documented := map[string]bool{}, map[string]bool{}
	for _, s := range sources {
		seen[s.pkg] = true
		documented[s.pkg] = documented[s.pkg] || s.doc
		if strings.HasPrefix(s.pkg, "examples/") {
			checkExample(t, s)
			continue
		}
		if libs, ok := alone[s.pkg]; ok {
			for _, path := range s.imports {
				if strings.Contains(strings.Split(path, "/")[0], ".") && !slices.Contains(libs, path) {
					t.Errorf("%s: %s stands alone and imports %s", s.file, s.pkg, path)
				}
			}
		}
		from, ok := layers[s.pkg]
		if !ok {
			t.Errorf("%s: package %s has no line in the table of layers", s.file, s.pkg)
			continue
		}
		for _, path := range s.imports {
			if own, isOurs := strings.CutPrefix(path, module+"/"); isOurs {
				to, ok := layers[own]
				if !ok || to.level > from.level || to.level == from.level && !slices.Contains(from.peers, own) {
					t.Errorf("%s: %s may not import %s", s.file, s.pkg, own)
				}
				continue
			}
			checkOwner(t, s, path)
		}
	}
	for pkg := range layers {
		if !seen[pkg] && layers[pkg].level < 6 && pkg != "internal/archtest" {
			t.Errorf("the table names %s, which does not exist", pkg)
		}
	}
	for pkg := range seen {
		if !documented[pkg] {
			t.Errorf("package %s has no package comment", pkg)
		}
	}
}

// checkExample holds plugins to what their authors have: the standard library
// and the SDK.
func checkExample(t *testing.T, s source) {
	t.Helper()
	for _, path := range s.imports {
		own, isOurs := strings.CutPrefix(path, module+"/")
		if isOurs && own != "plugin" && !strings.HasPrefix(own, "examples/") || !isOurs && strings.Contains(path, ".") && !slices.Contains(known, path) {
			t.Errorf("%s: an example imports %s", s.file, path)
		}
	}
}

func checkOwner(t *testing.T, s source, path string) {
	t.Helper()
	for lib, pkgs := range owners {
		if path == lib || strings.HasPrefix(path, lib+"/") {
			if !slices.Contains(pkgs, s.pkg) {
				t.Errorf("%s: %s may not import %s; it belongs to %v", s.file, s.pkg, path, pkgs)
			}
			return
		}
	}
	if !strings.Contains(strings.Split(path, "/")[0], ".") {
		return // the standard library
	}
	for _, lib := range known {
		if path == lib || strings.HasPrefix(path, lib+"/") {
			return
		}
	}
	t.Errorf("%s: %s is a library that the table does not name; say in docs/rationale.md why it is needed", s.file, path)
}

// read parses every source file that ships, tests left out.
func read(t *testing.T, root string) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if name := d.Name(); rel != "." && strings.HasPrefix(name, ".") || rel == "dist" || name == "testdata" && rel != "testdata" {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && rel != "." {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{pkg: filepath.ToSlash(filepath.Dir(rel)), file: rel, doc: f.Doc != nil}
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, p)
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d source files were found", len(out))
	}
	return out
}
