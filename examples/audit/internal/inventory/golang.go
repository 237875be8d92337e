package inventory

import (
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/stellarun/stella/examples/audit/internal/cyclonedx"
	"github.com/stellarun/stella/examples/audit/internal/gobin"
)

// Go makes the bill of Go programs: each program as an application, each
// module linked into one as a library, and the standard library of the
// toolchain that built it. The programs of a toolchain itself stand for it
// under the name toolchain, as advisories have it.
func Go(programs []gobin.Program, o Origin) cyclonedx.BOM {
	g := goBill{BOM: newBOM(o), paths: map[string][]string{}, index: map[string]int{}}
	for _, p := range programs {
		g.program(p)
	}
	for ref, i := range g.index {
		c := &g.Components[i]
		c.Properties = append(c.Properties, pathProperties(g.paths[ref])...)
	}
	return g.BOM
}

type goBill struct {
	cyclonedx.BOM
	paths map[string][]string // bom-ref → where it was found, in the order of the programs
	index map[string]int      // bom-ref → place among the components
}

func (g *goBill) program(p gobin.Program) {
	ref := "file:" + printable(p.Path)
	app := cyclonedx.Component{
		Type: cyclonedx.TypeApplication, Ref: ref, Name: printable(p.Info.Main.Path),
		Version: goVersion(p.Info.Main.Version),
		Hashes:  []cyclonedx.Hash{{Algorithm: "SHA-256", Content: p.SHA256}},
	}
	if app.Name == "" { // built from files, or before modules
		app.Name, app.Version = printable(p.Info.Path), ""
	}
	if app.Name == "" {
		app.Name = printable(filepath.Base(p.Path))
	}
	app.PURL = goPURL(app.Name, app.Version)
	if p.Info.Path != "" {
		app.Properties = append(app.Properties, cyclonedx.Property{Name: cyclonedx.PropGoPackage, Value: printable(p.Info.Path)})
	}
	if p.Info.Main.Path == "" && len(p.Info.Deps) == 0 && !isToolchain(p.Info) {
		app.Properties = append(app.Properties, cyclonedx.Property{Name: cyclonedx.PropGoModules, Value: "unknown"})
	}
	g.add(app, p.Path)
	g.Dependencies[subjectRef] = append(g.Dependencies[subjectRef], ref)

	needs := []string{g.add(toolchainPart(p.Info), p.Path)}
	for _, dep := range p.Info.Deps {
		if dep != nil {
			needs = append(needs, g.add(modulePart(*dep), p.Path))
		}
	}
	g.Dependencies[ref] = needs
}

// add puts c into the bill unless it is there, notes where it was found, and
// returns its bom-ref.
func (g *goBill) add(c cyclonedx.Component, path string) string {
	if _, there := g.index[c.Ref]; !there {
		g.index[c.Ref] = len(g.Components)
		g.Components = append(g.Components, c)
	}
	if n := len(g.paths[c.Ref]); n == 0 || g.paths[c.Ref][n-1] != path {
		g.paths[c.Ref] = append(g.paths[c.Ref], path)
	}
	return c.Ref
}

// toolchainPart is the standard library that the toolchain linked in, or the
// toolchain where the program is one of its commands.
func toolchainPart(info *debug.BuildInfo) cyclonedx.Component {
	name := "stdlib"
	if isToolchain(info) {
		name = "toolchain"
	}
	full := printable(info.GoVersion)
	version := strings.TrimPrefix(full, "go")
	if i := strings.IndexAny(version, " -"); i >= 0 { // "go1.26.1 X:nodwarf5", "go1.24.3-distribution"
		version = version[:i]
	}
	if version == "devel" || version == "unknown" {
		version = ""
	}
	return cyclonedx.Component{
		Type: cyclonedx.TypeLibrary, Ref: "go:" + name + "@" + full, Name: name, Version: version,
		PURL:       goPURL(name, version),
		Properties: []cyclonedx.Property{{Name: cyclonedx.PropGoVersion, Value: full}},
	}
}

// isToolchain: commands of Go itself are the packages below cmd.
func isToolchain(info *debug.BuildInfo) bool { return strings.HasPrefix(info.Path, "cmd/") }

// modulePart is a module as it is linked in: the one that replaces it, where
// there is one.
func modulePart(m debug.Module) cyclonedx.Component {
	original := printable(m.Path + "@" + m.Version)
	c := cyclonedx.Component{Type: cyclonedx.TypeLibrary, Name: printable(m.Path), Version: goVersion(m.Version)}
	switch r := m.Replace; {
	case r == nil:
	case goVersion(r.Version) == "":
		// A folder of the builder's: the name is known, the code is not.
		c.Version = ""
		c.Properties = append(c.Properties, cyclonedx.Property{Name: cyclonedx.PropGoReplaced, Value: printable(r.Path)})
	default:
		c.Name, c.Version = printable(r.Path), goVersion(r.Version)
		c.Properties = append(c.Properties, cyclonedx.Property{Name: cyclonedx.PropGoReplaces, Value: original})
	}
	c.PURL = goPURL(c.Name, c.Version)
	c.Ref = "go:" + c.Name + "@" + c.Version
	for _, p := range c.Properties {
		c.Ref += "?" + p.Name + "=" + p.Value
	}
	return c
}

// goVersion leaves out what is no version: "(devel)" is what the linker writes
// for code that has none.
func goVersion(v string) string {
	if v == "(devel)" {
		return ""
	}
	return printable(v)
}
