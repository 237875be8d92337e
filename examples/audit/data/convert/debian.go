package main

import (
	"compress/gzip"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/examples/audit/internal/debver"
	"github.com/stellarun/stella/examples/audit/internal/osv"
)

// release is a release of Debian.
type release struct {
	number, name string
	day          time.Time // when it came out
}

func findRelease(number string) (release, error) {
	for _, r := range []release{
		{"11", "bullseye", time.Date(2021, 8, 14, 0, 0, 0, 0, time.UTC)},
		{"12", "bookworm", time.Date(2023, 6, 10, 0, 0, 0, 0, time.UTC)},
		{"13", "trixie", time.Date(2025, 8, 9, 0, 0, 0, 0, time.UTC)},
	} {
		if r.number == number {
			return r, nil
		}
	}
	return release{}, fmt.Errorf("-release %q: 11, 12 or 13 is wanted", number)
}

// has says whether an entry was uploaded for the release: to bookworm,
// bookworm-security, bookworm-updates or bookworm-proposed-updates.
func (r release) has(e entry) bool {
	return slices.ContainsFunc(e.suites, func(s string) bool {
		rest, ok := strings.CutPrefix(s, r.name)
		return ok && (rest == "" || rest == "-security" || rest == "-updates" || rest == "-proposed-updates")
	})
}

// fix says in which version of a source package a fault was fixed.
type fix struct {
	cve, source, version string
	date                 time.Time // of that version
}

// fixes finds what a changelog, newest entry first, says was fixed, and the
// first version with the fix that the release had. Corrections that were of use
// are marked.
func (r release) fixes(entries []entry, review []correction) []fix {
	first := map[string]fix{}
	settled := map[string]bool{} // a later entry completed the fix
	var carrier *entry           // the oldest entry of the release that is newer than e
	for i := range entries {
		e := &entries[i]
		if r.has(*e) {
			carrier = e
		}
		at := r.arrival(e, carrier)
		if at == nil {
			continue
		}
		for _, it := range e.items {
			for _, c := range it.claims() {
				word := correct(review, e, c.cve)
				if word == reviewOmit {
					continue
				}
				if !settled[c.cve] {
					first[c.cve] = fix{c.cve, e.source, at.version, at.date}
				}
				settled[c.cve] = settled[c.cve] || c.completes || word == reviewComplete
			}
		}
	}
	return slices.SortedFunc(maps.Values(first), func(a, b fix) int { return strings.Compare(a.cve, b.cve) })
}

// arrival is the entry whose version brought e to the release, nil when the
// changelog does not say. An entry for another suite came with the release when
// it is older, or else in a rebuild for it: 1.2-3~deb12u1 of 1.2-3. That a later
// version for the release lists it does not count: an earlier one may have been
// left out of the changelog.
func (r release) arrival(e, carrier *entry) *entry {
	if carrier == e {
		return e
	}
	if carrier != nil && strings.HasPrefix(carrier.version, e.version+"~deb"+r.number+"u") {
		return carrier
	}
	if !e.date.Before(r.day) {
		return nil
	}
	if carrier != nil {
		// Versions were checked when they were read.
		if c, err := debver.Compare(e.version, carrier.version); err != nil || c > 0 {
			return nil
		}
	}
	return e
}

// readChangelogs makes records of the changelogs in a folder, one for each CVE.
// A file is a changelog, or one compressed by gzip. A correction that nothing in
// the changelogs called for is an error: it is stale, or mistaken.
func readChangelogs(folder string, r release, since time.Time, review []correction) ([]osv.Record, error) {
	names, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var all []fix
	for _, n := range names {
		path := filepath.Join(folder, n.Name())
		entries, err := readChangelogFile(path, since)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, r.fixes(entries, review)...)
	}
	for _, c := range review {
		if !c.used {
			return nil, fmt.Errorf("no changelog calls for the correction %s %s %s %s", c.word, c.source, c.version, c.cve)
		}
	}
	return r.records(all), nil
}

func readChangelogFile(path string, since time.Time) ([]entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !strings.HasSuffix(path, ".gz") {
		return readChangelog(f, since)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	entries, err := readChangelog(z, since)
	return entries, errors.Join(err, z.Close())
}

func (r release) records(all []fix) []osv.Record {
	byCVE := map[string][]fix{}
	for _, f := range all {
		byCVE[f.cve] = append(byCVE[f.cve], f)
	}
	var out []osv.Record
	for _, cve := range slices.Sorted(maps.Keys(byCVE)) {
		out = append(out, r.record(cve, byCVE[cve]))
	}
	return out
}

// record is published with the first of its fixes and modified with the last.
func (r release) record(cve string, fixes []fix) osv.Record {
	slices.SortFunc(fixes, func(a, b fix) int {
		return strings.Compare(a.source+" "+a.version, b.source+" "+b.version)
	})
	fixes = slices.Compact(fixes)
	published, modified := fixes[0].date, fixes[0].date
	rec := osv.Record{
		SchemaVersion: schemaVersion, ID: "DEBIAN-" + cve, Upstream: []string{cve},
		References: []osv.Reference{{Type: "ADVISORY", URL: trackerURL + cve}},
	}
	for _, f := range fixes {
		if f.date.Before(published) {
			published = f.date
		}
		if f.date.After(modified) {
			modified = f.date
		}
		rec.Affected = append(rec.Affected, osv.Affected{
			Package: osv.Package{Ecosystem: "Debian:" + r.number, Name: f.source},
			Ranges:  []osv.Range{{Type: osv.RangeEcosystem, Events: []osv.Event{{Introduced: "0"}, {Fixed: f.version}}}},
		})
	}
	rec.Published, rec.Modified = published.Format(time.RFC3339), modified.Format(time.RFC3339)
	return rec
}
