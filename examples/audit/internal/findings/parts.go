package findings

import (
	"cmp"
	"slices"
	"strings"

	"github.com/stellarun/stella/examples/audit/internal/cyclonedx"
)

// maxWhere is how many places are listed for one package.
const maxWhere = 100

// part is a package with the places where it was found.
type part struct {
	Package
	where map[string]bool
}

func (p *part) places() []string {
	all := make([]string, 0, len(p.where))
	for w := range p.where {
		all = append(all, w)
	}
	slices.Sort(all)
	return all[:min(len(all), maxWhere)]
}

// collect gathers the packages of all bills, each name and version once, and
// apart from them what has no version. Both are sorted.
func collect(bills []Bill) (parts []*part, skipped []Skipped) {
	byPackage := map[Package]*part{}
	unversioned := map[Package]*part{}
	opaque := map[Package]*part{}
	for _, b := range bills {
		for _, c := range b.Components {
			pkg, where, ok := identify(c)
			if !ok {
				continue
			}
			into := byPackage
			switch {
			case c.Value(cyclonedx.PropGoModules) != "":
				into = opaque
			case pkg.Version == "":
				into = unversioned
			}
			if into[pkg] == nil {
				into[pkg] = &part{Package: pkg, where: map[string]bool{}}
			}
			for _, w := range where {
				into[pkg].where[w] = true
			}
		}
	}
	for _, p := range sortedParts(unversioned) {
		skipped = append(skipped, Skipped{Package: p.Package, Reason: NoVersion, Where: p.places()})
	}
	for _, p := range sortedParts(opaque) {
		skipped = append(skipped, Skipped{Package: p.Package, Reason: NoModules, Where: p.places()})
	}
	return sortedParts(byPackage), skipped
}

func sortedParts(m map[Package]*part) []*part {
	out := make([]*part, 0, len(m))
	for _, p := range m {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *part) int { return comparePackages(a.Package, b.Package) })
	return out
}

func comparePackages(a, b Package) int {
	return cmp.Or(cmp.Compare(a.Ecosystem, b.Ecosystem), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
}

// identify says which package of which ecosystem a component is. A component
// without a package URL is a Go module when our own inventory wrote it, and
// otherwise none that advisories could name.
func identify(c cyclonedx.Component) (pkg Package, where []string, ok bool) {
	if c.PURL == "" {
		if strings.HasPrefix(c.Value(cyclonedx.PropGoPackage), "cmd/") {
			return Package{}, nil, false // the part toolchain stands for it
		}
		ours := strings.HasPrefix(c.Ref, "go:") || c.Value(cyclonedx.PropGoPackage) != ""
		if !ours || c.Version != "" {
			return Package{}, nil, false
		}
		return Package{Ecosystem: "Go", Name: c.Name}, c.Values(cyclonedx.PropPath), true
	}
	p, err := cyclonedx.ParsePURL(c.PURL)
	if err != nil {
		return Package{}, nil, false
	}
	switch p.Type {
	case "golang":
		return identifyGo(c, p), c.Values(cyclonedx.PropPath), true
	case "deb":
		return identifyDeb(c, p), []string{c.Name + ":" + p.Qualifiers["arch"] + " " + c.Version}, true
	}
	return Package{Ecosystem: p.Type, Name: c.Name, Version: c.Version}, c.Values(cyclonedx.PropPath), true
}

// identifyGo: package URLs have the module in lower case, so the component's
// name is better where both agree.
func identifyGo(c cyclonedx.Component, p cyclonedx.PURL) Package {
	name := strings.TrimPrefix(p.Namespace+"/"+p.Name, "/")
	if strings.EqualFold(name, c.Name) {
		name = c.Name
	}
	return Package{Ecosystem: "Go", Name: name, Version: p.Version}
}

// identifyDeb: advisories name source packages. Other tools write the source
// into the qualifier upstream, as NAME or NAME@VERSION.
func identifyDeb(c cyclonedx.Component, p cyclonedx.PURL) Package {
	pkg := Package{Ecosystem: debEcosystem(p), Name: p.Name, Version: p.Version}
	if up := p.Qualifiers["upstream"]; up != "" {
		name, version, ok := strings.Cut(up, "@")
		pkg.Name = name
		if ok {
			pkg.Version = version
		}
	}
	if source := c.Value(cyclonedx.PropDebSource); source != "" {
		pkg.Name = source
	}
	if version := c.Value(cyclonedx.PropDebSourceVers); version != "" {
		pkg.Version = version
	}
	return pkg
}

// debEcosystem is "Debian:12" for distro=debian-12 and distro=debian-12.5, and
// "Debian" where no release is named. Other systems keep their own name, which
// no order is known for.
func debEcosystem(p cyclonedx.PURL) string {
	if p.Namespace != "debian" {
		return p.Namespace
	}
	release, ok := strings.CutPrefix(p.Qualifiers["distro"], "debian-")
	if !ok {
		return "Debian"
	}
	release, _, _ = strings.Cut(release, ".")
	return "Debian:" + release
}
