package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/examples/audit/internal/findings"
	"github.com/stellarun/stella/examples/audit/internal/osv"
)

const head = "id,aliases,module,affected,published,cvss,checked\n"

func TestGoTable(t *testing.T) {
	records, err := decodeGoTable(strings.NewReader(head +
		"GO-2024-0001,CVE-2024-0001,stdlib,0..1.21.8 1.22.0-0..1.22.1,2024-03-05,CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H,https://example.com/a\n" +
		"GO-2024-0001,CVE-2024-0001,example.com/m,0..,2024-03-05,CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H,https://example.com/b\n" +
		"GO-2024-0002,,example.com/m,1.0.0..1.2.0,,,https://example.com/c\n"))
	if err != nil {
		t.Fatal(err)
	}
	severity := []osv.Severity{{Type: "CVSS_V3", Score: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"}}
	affected := func(name string, events ...osv.Event) osv.Affected {
		return osv.Affected{Package: osv.Package{Ecosystem: "Go", Name: name}, Ranges: []osv.Range{{Type: osv.RangeSemver, Events: events}}}
	}
	want := []osv.Record{
		{
			SchemaVersion: schemaVersion, ID: "GO-2024-0001", Modified: "2024-03-05T00:00:00Z", Published: "2024-03-05T00:00:00Z",
			Aliases: []string{"CVE-2024-0001"}, Severity: severity,
			Affected: []osv.Affected{
				affected("stdlib", osv.Event{Introduced: "0"}, osv.Event{Fixed: "1.21.8"}, osv.Event{Introduced: "1.22.0-0"}, osv.Event{Fixed: "1.22.1"}),
				affected("example.com/m", osv.Event{Introduced: "0"}),
			},
			References: []osv.Reference{{Type: "ADVISORY", URL: vulnURL + "GO-2024-0001"}},
		},
		{
			SchemaVersion: schemaVersion, ID: "GO-2024-0002", Modified: "0001-01-01T00:00:00Z", Aliases: []string{},
			Affected:   []osv.Affected{affected("example.com/m", osv.Event{Introduced: "1.0.0"}, osv.Event{Fixed: "1.2.0"})},
			References: []osv.Reference{{Type: "ADVISORY", URL: vulnURL + "GO-2024-0002"}},
		},
	}
	if diff := cmp.Diff(want, records); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestGoTableRefuses(t *testing.T) {
	const good = "GO-2024-0001,CVE-2024-0001,stdlib,0..1.21.8,2024-03-05,,https://example.com/a\n"
	for name, text := range map[string]string{
		"no heading":              good,
		"another number of cells": head + "GO-2024-0001,CVE-2024-0001\n",
		"not an id":               head + strings.Replace(good, "GO-2024-0001", "CVE-2024-0001", 1),
		"an id with words":        head + strings.Replace(good, "GO-2024-0001", "GO-2024-one1", 1),
		"no module":               head + strings.Replace(good, "stdlib", "", 1),
		"no day":                  head + strings.Replace(good, "2024-03-05", "March", 1),
		"not checked":             head + strings.Replace(good, "https://example.com/a", "", 1),
		"another alias":           head + strings.Replace(good, "CVE-2024-0001", "BUG-1", 1),
		"no range":                head + strings.Replace(good, "0..1.21.8", "", 1),
		"half a range":            head + strings.Replace(good, "0..1.21.8", "1.21.8", 1),
		"not a version":           head + strings.Replace(good, "1.21.8", "new", 1),
		"a range backwards":       head + strings.Replace(good, "0..1.21.8", "1.22.0..1.21.8", 1),
		"ranges that overlap":     head + strings.Replace(good, "0..1.21.8", "0..1.21.8 1.21.0..1.21.9", 1),
		"a range after no end":    head + strings.Replace(good, "0..1.21.8", "0.. 1.22.0..1.22.1", 1),
		"not a vector":            head + strings.Replace(good, "05,,", "05,high,", 1),
		"lines apart":             head + good + strings.Replace(good, "0001,", "0002,", 1) + good,
		"lines that differ":       head + good + strings.Replace(good, "2024-03-05", "2024-03-06", 1),
	} {
		if r, err := decodeGoTable(strings.NewReader(text)); err == nil {
			t.Errorf("%s: %+v; want an error", name, r)
		}
	}
}

// TestCommitted holds the records that are kept here to what SOURCES.md says.
func TestCommitted(t *testing.T) {
	const folder = "../advisories/records"
	records, err := findings.ReadAdvisories(os.DirFS(folder)) // ids come once, ranges can be evaluated
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]int{}
	for _, r := range records {
		kind, _, _ := strings.Cut(r.ID, "-")
		ours[kind]++
		if len(r.Affected) == 0 || len(r.References) == 0 || r.IsWithdrawn() {
			t.Errorf("%s: no package, no reference, or withdrawn", r.ID)
		}
		if _, err := os.Stat(filepath.Join(folder, r.ID+".json")); err != nil {
			t.Errorf("%s is not in a file of its name: %v", r.ID, err)
		}
		for _, a := range r.Affected {
			judge(t, r, a)
		}
	}
	if len(ours) != 2 || ours["DEBIAN"] < 500 || ours["GO"] < 50 {
		t.Errorf("records by kind: %v", ours)
	}
	sources, err := os.ReadFile("../SOURCES.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"go.csv", "-changelogs", "DEBIAN-CVE-"} {
		if !bytes.Contains(sources, []byte(want)) {
			t.Errorf("SOURCES.md does not speak of %s", want)
		}
	}
}

// judge: the version that fixes a fault does not have it, and "0" alone is no
// range that could be meant.
func judge(t *testing.T, r osv.Record, a osv.Affected) {
	t.Helper()
	if len(a.Ranges) != 1 {
		t.Errorf("%s: %s has %d ranges", r.ID, a.Package.Name, len(a.Ranges))
		return
	}
	for _, e := range a.Ranges[0].Events {
		if e.Fixed == "" {
			continue
		}
		v, err := r.Judge(osv.Subject{Ecosystem: a.Package.Ecosystem, Name: a.Package.Name, Version: e.Fixed})
		if err != nil || v.Affected || v.Unknown {
			t.Errorf("%s: %s %s: %+v, %v; want not affected", r.ID, a.Package.Name, e.Fixed, v, err)
		}
	}
}

// TestGoRecords: records and table are the same.
func TestGoRecords(t *testing.T) {
	out := t.TempDir()
	if err := run([]string{"-out", out, "-go", "../go.csv"}, new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	kept := files(t, "../advisories/records")
	for name := range kept {
		if !strings.HasPrefix(name, "GO-") {
			delete(kept, name)
		}
	}
	if diff := cmp.Diff(files(t, out), kept); diff != "" {
		t.Errorf("convert -go ../go.csv gives other records than those kept: -made +kept:\n%s", diff)
	}
}

func FuzzGoTable(f *testing.F) {
	f.Add(head + "GO-2024-0001,CVE-2024-0001,stdlib,0..1.21.8 1.22.0-0..1.22.1,2024-03-05,,https://example.com/a\n")
	f.Add(head + "GO-2024-0002,,example.com/m,1.0.0..,,CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H,https://example.com/c\n")
	f.Fuzz(func(t *testing.T, text string) {
		records, err := decodeGoTable(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, r := range records {
			out := t.TempDir()
			if err := write(out, r); err != nil {
				t.Fatal(err)
			}
			if _, err := findings.ReadAdvisories(os.DirFS(out)); err != nil {
				t.Errorf("%s cannot be read back: %v", r.ID, err)
			}
		}
	})
}
