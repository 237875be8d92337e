package inventory

import (
	"slices"
	"strconv"
	"strings"

	"github.com/stellarun/stella/examples/audit/internal/cyclonedx"
	"github.com/stellarun/stella/examples/audit/internal/debian"
)

// Debian makes the bill of a system's packages: the system itself, and each
// installed package with its source, which is what advisories name.
func Debian(release debian.Release, packages []debian.Package, o Origin) cyclonedx.BOM {
	b := newBOM(o)
	system := cyclonedx.Component{
		Type: cyclonedx.TypeSystem, Ref: "system", Name: release.ID, Version: release.VersionID,
	}
	b.Components = append(b.Components, system)
	b.Dependencies[subjectRef] = []string{system.Ref}
	d := resolver{packages: packages, seen: map[string]int{}, byName: map[string][]int{}}
	for i, p := range packages {
		ref := d.add(i, p)
		b.Dependencies[system.Ref] = append(b.Dependencies[system.Ref], ref)
		b.Components = append(b.Components, cyclonedx.Component{
			Type: cyclonedx.TypeLibrary, Ref: ref, Name: p.Name, Version: p.Version,
			PURL: cyclonedx.PURL{
				Type: "deb", Namespace: strings.ToLower(release.ID), Name: strings.ToLower(p.Name), Version: p.Version,
				Qualifiers: map[string]string{"arch": p.Arch, "distro": release.Distro()},
			}.String(),
			Properties: []cyclonedx.Property{
				{Name: cyclonedx.PropDebSource, Value: p.Source},
				{Name: cyclonedx.PropDebSourceVers, Value: p.SourceVersion},
				{Name: cyclonedx.PropDebFile, Value: printable(p.File)},
			},
		})
	}
	for i, p := range packages {
		if needs := d.needs(i, p); len(needs) > 0 {
			b.Dependencies[d.refs[i]] = needs
		}
	}
	return b
}

// maxProviders bounds the packages that stand for one name, lest a hostile
// database ask for the square of its size.
const maxProviders = 64

// resolver finds the packages that satisfy a relation among the installed
// ones.
type resolver struct {
	packages []debian.Package
	refs     []string         // bom-refs, by package
	seen     map[string]int   // bom-ref before numbering → how often
	byName   map[string][]int // names, provided ones included → packages
}

func (d *resolver) add(i int, p debian.Package) (ref string) {
	ref = "deb:" + p.Name + ":" + p.Arch + "@" + p.Version
	d.seen[ref]++
	if n := d.seen[ref]; n > 1 { // the same package in two files of the database
		ref += "#" + strconv.Itoa(n)
	}
	d.refs = append(d.refs, ref)
	for _, name := range append([]string{p.Name}, p.Provides...) {
		if len(d.byName[name]) < maxProviders {
			d.byName[name] = append(d.byName[name], i)
		}
	}
	return ref
}

// needs gives the bom-refs of all installed packages that p's relations name.
// Of one name in several architectures it takes p's own, or else all.
func (d *resolver) needs(self int, p debian.Package) []string {
	var out []string
	for _, choice := range p.Depends {
		for _, name := range choice {
			found := d.byName[name]
			same := slices.DeleteFunc(slices.Clone(found), func(i int) bool {
				return d.packages[i].Arch != p.Arch && d.packages[i].Arch != "all"
			})
			if len(same) > 0 {
				found = same
			}
			for _, i := range found {
				if i != self {
					out = append(out, d.refs[i])
				}
			}
		}
	}
	return out
}
