package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/manifests"
)

// folder is a source folder: an author's stella.toml and the files beside it.
type folder struct {
	root  *os.Root
	files []string // sorted, stella.toml not among them
}

// openFolder lists dir and refuses, all at once, what a bundle cannot hold.
func openFolder(dir string) (*folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("bundle: pack: %w", err)
	}
	f := &folder{root: root}
	faults, err := f.list()
	if err == nil && len(faults) > 0 {
		err = faults
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	slices.Sort(f.files)
	return f, nil
}

func (f *folder) close() error { return f.root.Close() }

// list fills files and returns what is wrong with the others.
func (f *folder) list() (manifests.Faults, error) {
	var faults manifests.Faults
	folded := map[string]string{}
	err := fs.WalkDir(f.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("bundle: pack: %w", err)
		}
		if name == "." || name == ManifestName {
			return nil
		}
		if text, hint := refused(name, d); text != "" {
			faults = append(faults, manifests.Fault{File: name, Text: text, Hint: hint})
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		lower := strings.ToLower(name)
		if other, ok := folded[lower]; ok {
			faults = append(faults, manifests.Fault{File: name, Text: "differs from " + other + " in case only", Hint: "rename one of the two"})
		}
		folded[lower] = name
		f.files = append(f.files, name)
		return nil
	})
	return faults, err
}

// refused says why name cannot be packed, "" if it can.
func refused(name string, d fs.DirEntry) (text, hint string) {
	base := path.Base(name)
	switch {
	case strings.HasPrefix(base, "._") || base == ".DS_Store":
		return "is a file of macOS's Finder", "delete it, or copy the folder without it"
	case base == ".git" || base == ".hg" || base == ".svn":
		return "is the history of a version control system", "pack an exported copy of the folder"
	case d.Type()&fs.ModeSymlink != 0:
		return "is a link", "put a copy of the file in its place"
	case !d.IsDir() && !d.Type().IsRegular():
		return "is not a regular file", "a bundle holds regular files only"
	case !manifests.ValidPath(name):
		return "has a path that a bundle cannot hold", "at most 255 bytes of letters, digits and . _ + @ / - are allowed"
	}
	return "", ""
}

// open opens a file of the folder without waiting for anything.
func (f *folder) open(name string) (*os.File, fs.FileInfo, error) {
	file, err := f.root.OpenFile(name, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle: pack: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: fsx.ErrNotRegular}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("bundle: pack: %w", errors.Join(err, file.Close()))
	}
	return file, info, nil
}

// mode is the normalised mode of a file.
func mode(info fs.FileInfo) string {
	if info.Mode()&0o100 != 0 {
		return "0755"
	}
	return "0644"
}
