package debian

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/stellarun/stella/examples/audit/internal/debver"
)

// Package is one installed binary package.
type Package struct {
	Name, Version, Arch string
	// Source and SourceVersion name what it was built from; advisories speak of
	// these. They equal Name and Version where the database names no source.
	Source, SourceVersion string
	Depends               [][]string // each a choice of package names, any of which will do
	Provides              []string
	File                  string // where the database says so: status, or status.d/NAME
}

// Database is what [ReadDatabase] found.
type Database struct {
	Packages []Package // by name, then architecture, then version
	Partial  int       // packages that are neither installed nor gone: an unpack or a set-up was interrupted
}

// ReadDatabase reads the database of dpkg below root, a file system that holds
// var/lib/dpkg/status, or status.d as minimal container images have it, or
// both. Neither is an error of kind [fs.ErrNotExist]. It does not follow a
// link in the last part of a path.
func ReadDatabase(root string) (Database, error) {
	var db Database
	found := false
	folder := root + "/var/lib/dpkg/"
	files := []string{"status"}
	entries, err := os.ReadDir(folder + "status.d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Database{}, err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasSuffix(e.Name(), ".md5sums") {
			files = append(files, "status.d/"+e.Name())
		}
	}
	for _, name := range files {
		switch err := db.readFile(folder+name, name); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return Database{}, err
		default:
			found = true
		}
	}
	if !found {
		return Database{}, fmt.Errorf("debian: no package database below %s: %w", root, fs.ErrNotExist)
	}
	slices.SortFunc(db.Packages, comparePackages)
	return db, nil
}

func comparePackages(a, b Package) int {
	for _, c := range []int{
		strings.Compare(a.Name, b.Name), strings.Compare(a.Arch, b.Arch),
		strings.Compare(a.Version, b.Version), strings.Compare(a.File, b.File),
	} {
		if c != 0 {
			return c
		}
	}
	return 0
}

func (db *Database) readFile(path, name string) error {
	f, err := openRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := db.read(f, name); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// read adds the packages of one file. Files of status.d have no Status field:
// what is there is installed.
func (db *Database) read(r io.Reader, name string) error {
	single := strings.HasPrefix(name, "status.d/")
	return ReadControl(r, func(p Paragraph) error {
		status, has := p["status"]
		switch {
		case !has && !single:
			return fmt.Errorf("debian: package %q has no status", p["package"])
		case has && gone(status):
			return nil
		case has && !installed(status):
			db.Partial++
			return nil
		}
		pkg, err := newPackage(p)
		pkg.File = name
		db.Packages = append(db.Packages, pkg)
		return err
	})
}

// installed says whether the files of a package are in place and set up. The
// third word decides: a package on hold, or one marked for removal, is there
// all the same.
func installed(status string) bool {
	switch state(status) {
	case "installed", "triggers-awaited", "triggers-pending":
		return true
	}
	return false
}

func gone(status string) bool {
	switch state(status) {
	case "not-installed", "config-files":
		return true
	}
	return false
}

func state(status string) string {
	words := strings.Fields(status)
	if len(words) != 3 {
		return ""
	}
	return words[2]
}

func newPackage(p Paragraph) (Package, error) {
	pkg := Package{Name: p["package"], Version: p["version"], Arch: p["architecture"]}
	if !isPackageName(pkg.Name) {
		return pkg, fmt.Errorf("debian: %.80q is not a package name", pkg.Name)
	}
	if _, err := debver.Parse(pkg.Version); err != nil {
		return pkg, fmt.Errorf("debian: package %s: %w", pkg.Name, err)
	}
	if pkg.Arch == "" || !all(pkg.Arch, isNameByte) {
		return pkg, fmt.Errorf("debian: package %s: architecture %.80q", pkg.Name, pkg.Arch)
	}
	var err error
	if pkg.Source, pkg.SourceVersion, err = parseSource(p["source"], pkg); err != nil {
		return pkg, err
	}
	for _, field := range []string{p["pre-depends"], p["depends"]} {
		for choice := range strings.SplitSeq(field, ",") {
			if names := relationNames(choice); len(names) > 0 {
				pkg.Depends = append(pkg.Depends, names)
			}
		}
	}
	for choice := range strings.SplitSeq(p["provides"], ",") {
		pkg.Provides = append(pkg.Provides, relationNames(choice)...)
	}
	return pkg, nil
}

// parseSource takes "NAME" or "NAME (VERSION)".
func parseSource(field string, pkg Package) (name, version string, err error) {
	if field == "" {
		return pkg.Name, pkg.Version, nil
	}
	name, version, ok := strings.Cut(field, "(")
	name = strings.TrimSpace(name)
	if !isPackageName(name) {
		return "", "", fmt.Errorf("debian: package %s: source %.80q", pkg.Name, field)
	}
	if !ok {
		return name, pkg.Version, nil
	}
	version, ok = strings.CutSuffix(version, ")")
	if _, err := debver.Parse(version); !ok || err != nil {
		return "", "", fmt.Errorf("debian: package %s: source %.80q", pkg.Name, field)
	}
	return name, version, nil
}

// relationNames gives the package names of one relation: "a (>= 1) | b:any".
// Versions are left out: dpkg saw to them when it installed the package.
func relationNames(choice string) []string {
	var names []string
	for one := range strings.SplitSeq(choice, "|") {
		name := strings.TrimSpace(one)
		if i := strings.IndexAny(name, " \t\n([<:"); i >= 0 {
			name = name[:i]
		}
		if isPackageName(name) {
			names = append(names, name)
		}
	}
	return names
}

// isPackageName: policy 5.6.1, but dpkg takes upper case and an underscore too.
func isPackageName(s string) bool {
	return s != "" && len(s) <= 255 && s[0] != '-' && s[0] != '.' && s[0] != '+' && all(s, isNameByte)
}

func isNameByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '+' || c == '-' || c == '.' || c == '_'
}

// openRegular opens a regular file without following a link in the last part
// of its path and without waiting for the other end of a pipe.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("debian: %s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func all(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}
