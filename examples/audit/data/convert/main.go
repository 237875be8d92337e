// Command convert turns published advisories into the records of the data
// bundle acme/advisories: minimal OSV records with facts alone, one file each.
// The same input gives the same files, byte for byte.
//
//	convert -packages data/packages.txt -out DIR -osv FOLDER
//	convert -packages data/packages.txt -out DIR -dsa FILE -release bookworm=12
//
// FOLDER holds records in the Open Source Vulnerability format, one in each
// .json file. FILE is the list of advisories that Debian's security tracker
// keeps (data/DSA/list). It keeps records that name a package of the list, and
// of these leaves out the withdrawn ones.
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

	"github.com/stellarun/stella/examples/audit/internal/findings"
	"github.com/stellarun/stella/examples/audit/internal/osv"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "convert:", err)
		}
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("convert", flag.ContinueOnError)
	packages := flags.String("packages", "", "file with one ECOSYSTEM NAME in a line")
	out := flags.String("out", "", "folder to write to")
	folder := flags.String("osv", "", "folder of upstream records")
	list := flags.String("dsa", "", "Debian's list of advisories")
	release := flags.String("release", "", "the Debian release to take from the list: NAME=NUMBER")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *packages == "" || *out == "" || (*folder == "") == (*list == "") || flags.NArg() > 0 {
		return errors.New("-packages, -out and one of -osv and -dsa are wanted")
	}
	wanted, err := readPackages(*packages)
	if err != nil {
		return err
	}
	var records []osv.Record
	if *folder != "" {
		records, err = findings.ReadAdvisories(os.DirFS(*folder))
	} else {
		records, err = readDSAFile(*list, *release)
	}
	if err != nil {
		return err
	}
	records = reduce(records, wanted)
	for _, r := range records {
		if err := write(*out, r); err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "%d records\n", len(records))
	return nil
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

// reduce keeps what the bundle is to hold.
func reduce(records []osv.Record, wanted map[pkg]bool) []osv.Record {
	var out []osv.Record
	for _, r := range records {
		r.Affected = slices.DeleteFunc(r.Affected, func(a osv.Affected) bool {
			ecosystem, _, _ := strings.Cut(a.Package.Ecosystem, ":")
			return !wanted[pkg{ecosystem, a.Package.Name}]
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
