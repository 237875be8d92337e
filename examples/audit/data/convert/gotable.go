package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/examples/audit/internal/osv"
)

// vulnURL is where the Go project shows an advisory.
const vulnURL = "https://pkg.go.dev/vuln/"

// goColumns are the columns of the table. A line is one module of an advisory;
// lines with the same id stand together.
//
//	id         GO-2024-0001
//	aliases    CVE and GHSA ids with spaces between
//	module     module path; stdlib or toolchain
//	affected   ranges with spaces between: 0..1.21.8 1.22.0-0..1.22.1, the second
//	           version being the first without the fault; 0.. has no end
//	published  day on which it became public, empty where it is not known
//	cvss       vector of the base score, empty where none is known
//	checked    address of the text that the line was compared with
func goColumns() []string {
	return []string{"id", "aliases", "module", "affected", "published", "cvss", "checked"}
}

func readGoTable(path string) ([]osv.Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	records, err := decodeGoTable(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return records, nil
}

func decodeGoTable(r io.Reader) ([]osv.Record, error) {
	c := csv.NewReader(r)
	c.FieldsPerRecord = len(goColumns())
	head, err := c.Read()
	if err != nil {
		return nil, err
	}
	if !slices.Equal(head, goColumns()) {
		return nil, fmt.Errorf("columns %q; want %q", head, goColumns())
	}
	var out []osv.Record
	for {
		row, err := c.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := c.FieldPos(0)
		rec, err := goRecord(row)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		at := slices.IndexFunc(out, func(o osv.Record) bool { return o.ID == rec.ID })
		switch {
		case at < 0:
			out = append(out, rec)
		case at != len(out)-1:
			return nil, fmt.Errorf("line %d: lines of %s do not stand together", line, rec.ID)
		case out[at].Published != rec.Published || !slices.Equal(out[at].Aliases, rec.Aliases) || !slices.Equal(out[at].Severity, rec.Severity):
			return nil, fmt.Errorf("line %d: lines of %s differ in more than the module", line, rec.ID)
		default:
			out[at].Affected = append(out[at].Affected, rec.Affected...)
		}
	}
}

func goRecord(row []string) (osv.Record, error) {
	id, module, checked := row[0], row[2], row[6]
	if !isGoID(id) || module == "" || !strings.HasPrefix(checked, "https://") {
		return osv.Record{}, errors.New("id, module or checked is missing or not one")
	}
	rec := osv.Record{
		SchemaVersion: schemaVersion, ID: id, Modified: time.Time{}.Format(time.RFC3339), Aliases: strings.Fields(row[1]),
		References: []osv.Reference{{Type: "ADVISORY", URL: vulnURL + id}},
	}
	if row[4] != "" {
		day, err := time.Parse(time.DateOnly, row[4])
		if err != nil {
			return osv.Record{}, fmt.Errorf("published %q is not a day", row[4])
		}
		rec.Published = day.Format(time.RFC3339)
		rec.Modified = rec.Published
	}
	for _, a := range rec.Aliases {
		if !strings.HasPrefix(a, "CVE-") && !strings.HasPrefix(a, "GHSA-") {
			return osv.Record{}, fmt.Errorf("alias %q is neither CVE nor GHSA", a)
		}
	}
	if cvss := row[5]; cvss != "" {
		rec.Severity = []osv.Severity{{Type: "CVSS_V3", Score: cvss}}
		if level, _, _ := osv.Rate(rec.Severity); level == osv.LevelUnrated {
			return osv.Record{}, fmt.Errorf("cvss %q is no vector", cvss)
		}
	}
	events, err := goEvents(osv.Package{Ecosystem: "Go", Name: module}, row[3])
	if err != nil {
		return osv.Record{}, err
	}
	rec.Affected = []osv.Affected{{
		Package: osv.Package{Ecosystem: "Go", Name: module},
		Ranges:  []osv.Range{{Type: osv.RangeSemver, Events: events}},
	}}
	return rec, nil
}

func isGoID(id string) bool {
	parts := strings.Split(id, "-")
	return len(parts) == 3 && parts[0] == "GO" && len(parts[1]) == 4 && len(parts[2]) >= 4 && digits(parts[1]) == 4 && digits(parts[2]) == len(parts[2])
}

// goEvents reads ranges in the order of their versions: each begins where the
// one before has ended, or later.
func goEvents(p osv.Package, ranges string) ([]osv.Event, error) {
	var events []osv.Event
	end := "0"
	for _, text := range strings.Fields(ranges) {
		from, to, ok := strings.Cut(text, "..")
		if !ok || from == "" || end == "" {
			return nil, fmt.Errorf("affected %q: FROM..TO is wanted, and nothing after a range without an end", ranges)
		}
		if err := inOrder(p, end, from); err != nil {
			return nil, err
		}
		events = append(events, osv.Event{Introduced: from})
		if end = to; to == "" {
			continue
		}
		if err := inOrder(p, from, to); err != nil {
			return nil, err
		}
		events = append(events, osv.Event{Fixed: to})
	}
	if len(events) == 0 {
		return nil, errors.New("affected is empty")
	}
	return events, nil
}

// inOrder: "0" is before every version.
func inOrder(p osv.Package, a, b string) error {
	if a == "0" && b == "0" {
		return nil
	}
	if a == "0" {
		a = b
	}
	c, err := osv.Compare(p, a, b)
	if err != nil {
		return err
	}
	if c > 0 {
		return fmt.Errorf("%s is not before %s", a, b)
	}
	return nil
}
