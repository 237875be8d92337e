package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/examples/audit/internal/cyclonedx"
	"github.com/stellarun/stella/examples/audit/internal/findings"
	"github.com/stellarun/stella/examples/audit/internal/osv"
)

// Audit is what a report is about.
type Audit struct {
	Title    string
	Document findings.Document
	SHA256   string // of the findings document, which the report names as its source
	Bills    []cyclonedx.Bill
}

// view is an audit in the order in which it is told.
type view struct {
	Audit
	title    string
	subject  string
	system   string
	date     string
	verdict  string
	groups   []group // by number of findings, then name
	levels   []levelCount
	programs []program
	mixed    bool // more than one ecosystem is affected
	dated    bool // some finding has a date
}

// group is one package with its findings.
type group struct {
	findings.Upgrade
	list []findings.Finding
}

func (g group) fixable() int { return g.Findings - g.Unfixed }

type levelCount struct {
	level osv.Level
	n     int
}

// program is one Go program.
type program struct {
	path, name, toolchain string
	modules, findings     int
	opaque                bool // what is in it is not known
}

func newView(a Audit) view {
	v := view{Audit: a, title: cmp.Or(a.Title, "Software audit"), date: longDate(a.Document.Generated)}
	for _, b := range a.Document.Bills {
		v.subject = cmp.Or(v.subject, b.Subject)
		v.system = cmp.Or(v.system, b.System)
	}
	v.verdict = Verdict(a.Document)
	byPackage := map[findings.Package][]findings.Finding{}
	perPath := map[string]int{}
	levels := map[osv.Level]int{}
	for _, f := range a.Document.Findings {
		byPackage[f.Package] = append(byPackage[f.Package], f)
		levels[f.Severity.Level]++
		v.dated = v.dated || f.Published != ""
		for _, w := range f.Where {
			perPath[w]++
		}
	}
	for _, u := range a.Document.Upgrades {
		v.groups = append(v.groups, group{u, byPackage[u.Package]})
		v.mixed = v.mixed || u.Package.Ecosystem != a.Document.Upgrades[0].Package.Ecosystem
	}
	slices.SortStableFunc(v.groups, func(a, b group) int { return cmp.Compare(b.Findings, a.Findings) })
	for _, l := range []osv.Level{osv.LevelCritical, osv.LevelHigh, osv.LevelMedium, osv.LevelLow, osv.LevelNone, osv.LevelUnrated} {
		if levels[l] > 0 {
			v.levels = append(v.levels, levelCount{l, levels[l]})
		}
	}
	v.programs = programs(a.Bills, perPath)
	return v
}

// rated says whether any record carried a score.
func (v view) rated() bool {
	return slices.ContainsFunc(v.levels, func(l levelCount) bool { return l.level != osv.LevelUnrated })
}

// Verdict says the result of an audit in one or two sentences.
func Verdict(d findings.Document) string {
	c := d.Counts
	switch {
	case c.Packages == 0:
		return "Nothing was found that advisories could speak of."
	case c.Findings == 0:
		return fmt.Sprintf("None of the %s is named by an advisory in the database.", plural(c.Packages, "package", "packages"))
	case c.Fixable == c.Findings:
		return fmt.Sprintf("%s affected. A fixed version exists for every finding.", are(c.Affected))
	case c.Fixable == 0:
		return fmt.Sprintf("%s affected. No fixed version is known yet.", are(c.Affected))
	}
	return fmt.Sprintf("%s affected. For %d of %s a fixed version exists.",
		are(c.Affected), c.Fixable, plural(c.Findings, "finding", "findings"))
}

func are(packages int) string {
	if packages == 1 {
		return "1 package is"
	}
	return fmt.Sprintf("%d packages are", packages)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// programs lists the Go programs of the bills by path.
func programs(bills []cyclonedx.Bill, perPath map[string]int) []program {
	var out []program
	toolchain := map[string]string{}
	modules := map[string]int{}
	for _, b := range bills {
		for _, c := range b.Components {
			paths := c.Values(cyclonedx.PropPath)
			switch version := c.Value(cyclonedx.PropGoVersion); {
			case c.Type == cyclonedx.TypeApplication && len(paths) > 0:
				out = append(out, program{path: paths[0], name: strings.TrimSpace(c.Name + " " + c.Version), opaque: c.Value(cyclonedx.PropGoModules) != ""})
			case version != "":
				for _, p := range paths {
					toolchain[p] = version
				}
			default:
				for _, p := range paths {
					modules[p]++
				}
			}
		}
	}
	for i, p := range out {
		out[i].toolchain, out[i].modules, out[i].findings = toolchain[p.path], modules[p.path], perPath[p.path]
	}
	slices.SortFunc(out, func(a, b program) int {
		return cmp.Or(cmp.Compare(b.findings, a.findings), cmp.Compare(a.path, b.path))
	})
	return out
}

// remark says of a package what its name does not.
func (v view) remark(p findings.Package) string {
	switch {
	case p.Ecosystem == "Go" && p.Name == "stdlib":
		return "Go’s own library, linked in: rebuild the program"
	case p.Ecosystem == "Go" && p.Name == "toolchain":
		return "the Go installation itself"
	case v.mixed:
		return p.Ecosystem
	}
	return ""
}

// longDate writes a time of RFC 3339 for people; what is none stays.
func longDate(stamp string) string {
	t, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		return stamp
	}
	return t.UTC().Format("2 January 2006, 15:04 UTC")
}

// shortDate keeps the day.
func shortDate(stamp string) string {
	t, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		return ""
	}
	return t.UTC().Format("2006-01-02")
}

// reasonText says in words why something was not judged.
func reasonText(r findings.Reason) string {
	switch r {
	case findings.NoVersion:
		return "built from a folder; bears no version"
	case findings.NoModules:
		return "keeps no list of the modules in it"
	case findings.UnknownVersion:
		return "its version is not one of its ecosystem"
	case findings.UnknownEcosystem:
		return "no advisories of its ecosystem can be judged"
	case findings.UnknownOrder:
		return "an advisory orders its versions in a way not known here"
	}
	return string(r)
}

// address gives the link of a finding that tells most: the advisory itself.
func address(f findings.Finding) string {
	for _, r := range f.References {
		if r.Type == "ADVISORY" {
			return r.URL
		}
	}
	if len(f.References) > 0 {
		return f.References[0].URL
	}
	return ""
}
