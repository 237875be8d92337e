package findings

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/examples/audit/internal/cyclonedx"
	"github.com/stellarun/stella/examples/audit/internal/osv"
)

// Bill is a bill of materials with the name and digest under which it came.
type Bill struct {
	Name, SHA256 string
	cyclonedx.Bill
}

// Match judges every package of the bills by every record that names it.
// Records that were withdrawn are counted and not used. generated is the time
// that the document is to bear.
func Match(bills []Bill, records []osv.Record, generated string) (Document, error) {
	d := Document{
		Schema: Schema, Generated: generated, Bills: []BillRef{},
		Database: Database{Records: len(records)},
		Findings: []Finding{}, Upgrades: []Upgrade{}, Skipped: []Skipped{},
	}
	for _, b := range bills {
		d.Bills = append(d.Bills, refer(b))
	}
	slices.SortFunc(d.Bills, func(a, b BillRef) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.SHA256, b.SHA256))
	})
	index := map[string][]osv.Record{} // by name of package
	for _, r := range records {
		if r.IsWithdrawn() {
			d.Database.Withdrawn++
			continue
		}
		for _, name := range packageNames(r) {
			index[name] = append(index[name], r)
		}
	}
	parts, skipped := collect(bills)
	d.Skipped = append(d.Skipped, skipped...)
	for _, p := range parts {
		if err := d.judge(p, index[p.Name]); err != nil {
			return Document{}, err
		}
	}
	slices.SortStableFunc(d.Skipped, func(a, b Skipped) int { return comparePackages(a.Package, b.Package) })
	d.count()
	return d, nil
}

func refer(b Bill) BillRef {
	ref := BillRef{
		Name: b.Name, SHA256: b.SHA256, Subject: b.Subject.Name, Taken: b.Timestamp, Components: len(b.Components),
	}
	for _, c := range b.Components {
		if c.Type == cyclonedx.TypeSystem {
			ref.System = strings.TrimSpace(c.Name + " " + c.Version)
		}
	}
	return ref
}

func packageNames(r osv.Record) []string {
	var names []string
	for _, a := range r.Affected {
		names = append(names, a.Package.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// hit is a record that speaks of a part.
type hit struct {
	record  osv.Record
	verdict osv.Verdict
}

func (d *Document) judge(p *part, records []osv.Record) error {
	subject := osv.Subject{Ecosystem: p.Ecosystem, Name: p.Name, Version: p.Version}
	if reason := unjudgeable(p.Package); reason != "" {
		d.Skipped = append(d.Skipped, Skipped{Package: p.Package, Reason: reason, Where: p.places()})
		return nil
	}
	d.Counts.Packages++
	var hits []hit
	var unknown bool
	for _, r := range records {
		v, err := r.Judge(subject)
		switch {
		case err != nil:
			return fmt.Errorf("findings: %s %s by %s: %w", p.Name, p.Version, r.ID, err)
		case v.Affected:
			hits = append(hits, hit{r, v})
		}
		unknown = unknown || v.Unknown
	}
	if unknown {
		d.Skipped = append(d.Skipped, Skipped{Package: p.Package, Reason: UnknownOrder, Where: p.places()})
	}
	if len(hits) == 0 {
		return nil
	}
	group := p.findings(hits)
	d.Findings = append(d.Findings, group...)
	up, err := p.upgrade(group, records)
	d.Upgrades = append(d.Upgrades, up)
	return err
}

// unjudgeable says why p cannot be judged, "" when it can. A package that no
// record names counts as judged only if one could have.
func unjudgeable(p Package) Reason {
	pkg := osv.Package{Ecosystem: p.Ecosystem, Name: p.Name}
	base, _, _ := strings.Cut(p.Ecosystem, ":")
	if base != "Go" && base != "Debian" {
		return UnknownEcosystem
	}
	if _, err := osv.Compare(pkg, p.Version, p.Version); err != nil {
		return UnknownVersion
	}
	return ""
}

// findings makes one finding of all records that are aliases of each other.
func (p *part) findings(hits []hit) []Finding {
	slices.SortFunc(hits, func(a, b hit) int {
		return cmp.Or(
			cmp.Compare(sourceRank(p.Ecosystem, a.record.ID), sourceRank(p.Ecosystem, b.record.ID)),
			cmp.Compare(a.record.ID, b.record.ID))
	})
	var out []Finding
	where := p.places()
	for _, same := range byAlias(hits) {
		out = append(out, p.finding(same, where))
	}
	slices.SortFunc(out, func(a, b Finding) int { return cmp.Compare(a.Advisory, b.Advisory) })
	return out
}

// sourceRank prefers the ecosystem's own database: it knows the packages best.
func sourceRank(ecosystem, id string) int {
	own := "GO-"
	if strings.HasPrefix(ecosystem, "Debian") {
		own = "DSA-"
	}
	if strings.HasPrefix(id, own) {
		return 0
	}
	return 1
}

// byAlias groups hits that name each other, directly or by a common alias, in
// the order of their first members.
func byAlias(hits []hit) [][]hit {
	parent := make([]int, len(hits))
	for i := range parent {
		parent[i] = i
	}
	find := func(i int) int {
		for parent[i] != i {
			i = parent[i]
		}
		return i
	}
	first := map[string]int{} // name → a hit that bears it
	for i, h := range hits {
		for _, name := range append([]string{h.record.ID}, h.record.Aliases...) {
			j, seen := first[name]
			if !seen {
				first[name] = i
				continue
			}
			a, b := find(i), find(j)
			parent[max(a, b)] = min(a, b)
		}
	}
	groups := make([][]hit, len(hits))
	for i, h := range hits {
		root := find(i)
		groups[root] = append(groups[root], h)
	}
	return slices.DeleteFunc(groups, func(g []hit) bool { return len(g) == 0 })
}

func (p *part) finding(same []hit, where []string) Finding {
	f := Finding{Package: p.Package, Advisory: same[0].record.ID, Where: where, Severity: Severity{Level: osv.LevelUnrated}}
	best := -1
	for _, h := range same {
		f.Aliases = append(append(f.Aliases, h.record.ID), h.record.Aliases...)
		f.Covers = append(f.Covers, h.record.Upstream...)
		if f.Fixed == "" {
			f.Fixed = p.notation(h.verdict.Fixed)
		}
		if f.Published == "" {
			f.Published = publishedDate(h.record)
		}
		level, tenths, vector := osv.Rate(h.verdict.Severity)
		if level != osv.LevelUnrated && tenths > best {
			best = tenths
			f.Severity = Severity{level, fmt.Sprintf("%d.%d", tenths/10, tenths%10), vector}
		} else if best < 0 && f.Severity.Vector == "" {
			f.Severity.Vector = vector
		}
		for _, r := range h.record.References {
			f.References = append(f.References, Reference{r.Type, r.URL})
		}
	}
	slices.Sort(f.Aliases)
	f.Aliases = slices.DeleteFunc(slices.Compact(f.Aliases), func(a string) bool { return a == f.Advisory })
	slices.Sort(f.Covers)
	f.Covers = slices.DeleteFunc(slices.Compact(f.Covers), func(a string) bool { return slices.Contains(f.Aliases, a) })
	slices.SortFunc(f.References, func(a, b Reference) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.URL, b.URL))
	})
	f.References = slices.Compact(f.References)
	return f
}

// publishedDate leaves out the year 1, with which some sources say nothing.
func publishedDate(r osv.Record) string {
	if strings.HasPrefix(r.Published, "0001-") {
		return ""
	}
	return r.Published
}

// notation writes a version of a record as the package itself writes versions:
// Go modules begin with v, and advisories leave that out.
func (p *part) notation(version string) string {
	if version != "" && p.Ecosystem == "Go" && strings.HasPrefix(p.Version, "v") {
		return "v" + version
	}
	return version
}

// maxSteps bounds the search for an upgrade: each step goes to a later fix.
const maxSteps = 1000

// upgrade looks for a version that ends all findings that can be ended, and
// that no record speaks of in a way that a still later version would end.
func (p *part) upgrade(group []Finding, records []osv.Record) (Upgrade, error) {
	up := Upgrade{Package: p.Package, Findings: len(group), Where: group[0].Where}
	pkg := osv.Package{Ecosystem: p.Ecosystem, Name: p.Name}
	later := func(a, b string) (bool, error) {
		c, err := osv.Compare(pkg, a, b)
		return c > 0, err
	}
	for _, f := range group {
		if f.Fixed == "" {
			up.Unfixed++
			continue
		}
		isLater, err := later(f.Fixed, cmp.Or(up.To, f.Package.Version))
		if err != nil {
			return up, err
		}
		if isLater {
			up.To = f.Fixed
		}
	}
	for range maxSteps {
		if up.To == "" {
			return up, nil
		}
		next := up.To
		for _, r := range records {
			v, err := r.Judge(osv.Subject{Ecosystem: p.Ecosystem, Name: p.Name, Version: up.To})
			if err != nil {
				return up, err
			}
			if isLater, err := p.isLater(later, v, next); err != nil {
				return up, err
			} else if isLater {
				next = p.notation(v.Fixed)
			}
		}
		if next == up.To {
			return up, nil
		}
		up.To = next
	}
	return up, errors.New("findings: records name ever later fixes of " + p.Name)
}

func (p *part) isLater(later func(a, b string) (bool, error), v osv.Verdict, than string) (bool, error) {
	if !v.Affected || v.Fixed == "" {
		return false, nil
	}
	return later(p.notation(v.Fixed), than)
}

func (d *Document) count() {
	d.Counts.Findings = len(d.Findings)
	d.Counts.Affected = len(d.Upgrades)
	d.Counts.Skipped = len(d.Skipped)
	for _, f := range d.Findings {
		if f.Fixed != "" {
			d.Counts.Fixable++
		}
	}
}
