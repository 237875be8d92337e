package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/stellarun/stella/examples/audit/internal/debver"
	"github.com/stellarun/stella/examples/audit/internal/osv"
)

// trackerURL is where Debian's security tracker shows an advisory.
const trackerURL = "https://security-tracker.debian.org/tracker/"

func readDSAFile(path string, r release) ([]osv.Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	records, err := readDSA(f, r.name, "Debian:"+r.number)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return records, nil
}

// readDSA reads the list:
//
//	[23 Mar 2023] DSA-1234-1 source - security update
//		{CVE-2023-0001 CVE-2023-0002}
//		[bookworm] - source 1.2-3+deb12u1
//
// It takes the lines of one release that name a fixed version. Advisories that
// name no CVE are left out: they mend an earlier update.
func readDSA(r io.Reader, release, ecosystem string) ([]osv.Record, error) {
	d := dsaReader{release: release, ecosystem: ecosystem}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		if err := d.line(s.Text()); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	d.flush()
	return d.records, s.Err()
}

type dsaReader struct {
	release, ecosystem string
	current            osv.Record
	records            []osv.Record
}

func (d *dsaReader) flush() {
	if len(d.current.Affected) > 0 && len(d.current.Upstream) > 0 {
		d.records = append(d.records, d.current)
	}
	d.current = osv.Record{}
}

func (d *dsaReader) line(line string) error {
	text := strings.TrimSpace(line)
	switch {
	case text == "":
		return nil
	case line[0] == '[':
		d.flush()
		return d.head(text)
	case d.current.ID == "":
		return fmt.Errorf("%.60q belongs to no advisory", text)
	case text[0] == '{':
		d.current.Upstream = strings.Fields(strings.Trim(text, "{}"))
	case strings.HasPrefix(text, "["+d.release+"] - "):
		return d.fix(strings.Fields(text)[2:])
	}
	return nil // other releases, and notes
}

func (d *dsaReader) head(text string) error {
	date, rest, ok := strings.Cut(text[1:], "] ")
	day, err := time.Parse("2 Jan 2006", date)
	if !ok || err != nil {
		return fmt.Errorf("%.60q does not begin with a date", text)
	}
	id, _, _ := strings.Cut(rest, " ")
	if !strings.HasPrefix(id, "DSA-") {
		return fmt.Errorf("%.60q is not an advisory's id", id)
	}
	stamp := day.Format(time.RFC3339)
	d.current = osv.Record{
		SchemaVersion: schemaVersion, ID: id, Modified: stamp, Published: stamp,
		References: []osv.Reference{{Type: "ADVISORY", URL: trackerURL + id}},
	}
	return nil
}

// fix takes "source version". A word in angle brackets stands for no version:
// not affected, not fixed, no longer supported.
func (d *dsaReader) fix(words []string) error {
	if len(words) < 2 || strings.HasPrefix(words[1], "<") {
		return nil
	}
	if _, err := debver.Parse(words[1]); err != nil {
		return err
	}
	d.current.Affected = append(d.current.Affected, osv.Affected{
		Package: osv.Package{Ecosystem: d.ecosystem, Name: words[0]},
		Ranges:  []osv.Range{{Type: osv.RangeEcosystem, Events: []osv.Event{{Introduced: "0"}, {Fixed: words[1]}}}},
	})
	return nil
}
