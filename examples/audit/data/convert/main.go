// Command convert turns published advisories into the records of the data
// bundle acme/advisories: minimal OSV records with facts alone, one file each.
// The same input gives the same files, byte for byte.
//
//	convert -out DIR -changelogs FOLDER -release 12 [-since DAY] [-review FILE]
//	convert -out DIR -go FILE
//	convert -out DIR -osv FOLDER [-packages FILE]
//	convert -out DIR -dsa FILE -release 12 [-packages FILE]
//
// -changelogs reads the changelogs of Debian packages for what they say was
// fixed, -go a table of advisories about Go, -osv records in the Open Source
// Vulnerability format, one in each .json file, and -dsa the list of advisories
// that Debian's security tracker keeps (data/DSA/list). With -packages it keeps
// records that name a package of the file. Withdrawn ones are left out.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/examples/audit/internal/findings"
	"github.com/stellarun/stella/examples/audit/internal/osv"
)

// schemaVersion is the version of the format that records are written in.
const schemaVersion = "1.6.0"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "convert:", err)
		}
		os.Exit(1)
	}
}

// options are the arguments. Exactly one source is given.
type options struct {
	packages, out          string
	folder, list           string // OSV records; Debian's list of advisories
	changelogs, table      string // changelogs of Debian packages; advisories about Go
	release, since, review string
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("convert", flag.ContinueOnError)
	flags.StringVar(&o.packages, "packages", "", "file with one ECOSYSTEM NAME in a line; without it all is kept")
	flags.StringVar(&o.out, "out", "", "folder to write to")
	flags.StringVar(&o.folder, "osv", "", "folder of upstream records")
	flags.StringVar(&o.list, "dsa", "", "Debian's list of advisories")
	flags.StringVar(&o.changelogs, "changelogs", "", "folder of changelogs of Debian packages")
	flags.StringVar(&o.table, "go", "", "table of advisories about Go")
	flags.StringVar(&o.release, "release", "", "number of the Debian release: 12")
	flags.StringVar(&o.since, "since", "2023-01-01", "day of the oldest entry to read in changelogs")
	flags.StringVar(&o.review, "review", "", "file with what a person found in changelogs")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	sources := 0
	for _, s := range []string{o.folder, o.list, o.changelogs, o.table} {
		if s != "" {
			sources++
		}
	}
	if o.out == "" || sources != 1 || flags.NArg() > 0 {
		return o, errors.New("-out and one of -osv, -dsa, -changelogs and -go are wanted")
	}
	return o, nil
}

func run(args []string, stdout io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	var wanted map[pkg]bool
	if o.packages != "" {
		if wanted, err = readPackages(o.packages); err != nil {
			return err
		}
	}
	records, err := o.read()
	if err != nil {
		return err
	}
	records = reduce(records, wanted)
	for _, r := range records {
		if err := write(o.out, r); err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "%d records\n", len(records))
	return nil
}

func (o options) read() ([]osv.Record, error) {
	switch {
	case o.folder != "":
		return findings.ReadAdvisories(os.DirFS(o.folder))
	case o.table != "":
		return readGoTable(o.table)
	}
	r, err := findRelease(o.release)
	if err != nil {
		return nil, err
	}
	if o.list != "" {
		return readDSAFile(o.list, r)
	}
	since, err := time.Parse(time.DateOnly, o.since)
	if err != nil {
		return nil, fmt.Errorf("-since %q: a day such as 2023-01-01 is wanted", o.since)
	}
	var review []correction
	if o.review != "" {
		if review, err = readReview(o.review); err != nil {
			return nil, err
		}
	}
	return readChangelogs(o.changelogs, r, since, review)
}

// pkg is a package of the list. An ecosystem is without its release.
type pkg struct{ ecosystem, name string }

func readPackages(path string) (map[pkg]bool, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	wanted := map[pkg]bool{}
	n := 0
	for line := range strings.Lines(string(raw)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		switch words := strings.Fields(line); len(words) {
		case 0:
		case 2:
			wanted[pkg{words[0], words[1]}] = true
		default:
			return nil, fmt.Errorf("%s:%d: ECOSYSTEM NAME is wanted", path, n)
		}
	}
	return wanted, nil
}

// reduce keeps what the bundle is to hold: of all packages when wanted is nil.
func reduce(records []osv.Record, wanted map[pkg]bool) []osv.Record {
	var out []osv.Record
	for _, r := range records {
		r.Affected = slices.DeleteFunc(r.Affected, func(a osv.Affected) bool {
			ecosystem, _, _ := strings.Cut(a.Package.Ecosystem, ":")
			return wanted != nil && !wanted[pkg{ecosystem, a.Package.Name}]
		})
		if len(r.Affected) == 0 || r.IsWithdrawn() {
			continue
		}
		if strings.HasPrefix(r.Published, "0001-") { // how a source says nothing
			r.Published = ""
		}
		r.References = slices.DeleteFunc(r.References, func(f osv.Reference) bool {
			return f.Type != "ADVISORY" && f.Type != "FIX" || !strings.HasPrefix(f.URL, "https://")
		})
		slices.Sort(r.Aliases)
		slices.Sort(r.Related)
		slices.Sort(r.Upstream)
		out = append(out, r)
	}
	return out
}

// write refuses to replace a file that differs: two sources with one id are a
// mistake that somebody must look at.
func write(folder string, r osv.Record) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(r); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	path := filepath.Join(folder, r.ID+".json")
	switch old, err := os.ReadFile(path); {
	case err == nil && bytes.Equal(old, b.Bytes()):
		return nil
	case err == nil:
		return fmt.Errorf("%s is there with other content", path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
