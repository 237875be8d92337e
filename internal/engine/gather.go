package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/stellarun/stella/server/api"
)

// Limits of what one import looks at.
const (
	maxMediaPaths = 64
	maxMediaDepth = 8
	maxMediaFiles = 10_000  // bundles
	maxMediaNames = 100_000 // files and folders that are looked at
	maxSkipped    = 1_000   // that are listed; more are only counted
)

// bundleSuffix is how the name of a bundle ends that is found in a folder.
const bundleSuffix = ".stella"

// gathering collects the bundles below paths. It follows no links and opens
// nothing but folders.
type gathering struct {
	files   []string
	skipped []api.Skipped
	more    int64 // skipped and not listed
	names   int
	folders bool // at least one path is a folder
}

// gather finds the bundles that paths name or contain.
func gather(paths []string) (*gathering, error) {
	g := &gathering{}
	if len(paths) == 0 || len(paths) > maxMediaPaths {
		return nil, invalid("an import takes 1 to %d paths; name the folder that holds them", maxMediaPaths)
	}
	for _, path := range paths {
		if !filepath.IsAbs(path) {
			return nil, invalid("the path of an import must be absolute: %s", path)
		}
		fi, err := os.Lstat(path)
		switch {
		case err != nil:
			return nil, readError(path, err)
		case fi.IsDir():
			g.folders = true
			err = g.folder(path, 0)
		case fi.Mode()&fs.ModeSymlink != 0:
			err = invalid("%s is a symbolic link, not a regular file or folder: name what it points to", path)
		case !fi.Mode().IsRegular():
			err = invalid("%s is not a regular file or folder", path)
		default:
			err = g.file(path)
		}
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(g.files)
	g.files = slices.Compact(g.files)
	slices.SortFunc(g.skipped, func(a, b api.Skipped) int { return strings.Compare(a.Path, b.Path) })
	return g, nil
}

func (g *gathering) file(path string) error {
	if len(g.files) == maxMediaFiles {
		return invalid("there are more than %d bundles: import folder by folder", maxMediaFiles)
	}
	g.files = append(g.files, path)
	return nil
}

// folder looks at the names in a folder. One that cannot be read below the
// first is skipped: what else is on the medium may be good.
func (g *gathering) folder(path string, depth int) error {
	d, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return g.unreadable(path, depth, err)
	}
	entries, err := d.ReadDir(maxMediaNames + 1)
	d.Close()
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: it is empty
		if len(entries) == 0 {
			return g.unreadable(path, depth, err)
		}
		g.skip(path, fmt.Sprintf("the folder can only be read in part: %v", err))
	}
	for _, e := range entries {
		if g.names++; g.names > maxMediaNames {
			return invalid("there are more than %d files below the paths: import folder by folder", maxMediaNames)
		}
		if err := g.entry(filepath.Join(path, e.Name()), e, depth); err != nil {
			return err
		}
	}
	return nil
}

func (g *gathering) unreadable(path string, depth int, err error) error {
	if depth == 0 {
		return readError(path, err)
	}
	g.skip(path, fmt.Sprintf("the folder cannot be read: %v", err))
	return nil
}

func (g *gathering) entry(path string, e fs.DirEntry, depth int) error {
	name := e.Name()
	switch {
	case strings.HasPrefix(name, "._"):
		g.skip(path, "macOS has put it beside a file; it is no bundle")
	case e.IsDir() && hidden(name):
		g.skip(path, "a folder of the system, or hidden")
	case e.IsDir() && depth == maxMediaDepth:
		g.skip(path, fmt.Sprintf("deeper than %d folders", maxMediaDepth))
	case e.IsDir():
		return g.folder(path, depth+1)
	case !e.Type().IsRegular():
		g.skip(path, "not a regular file")
	case !strings.HasSuffix(name, bundleSuffix) || strings.HasPrefix(name, "."):
		g.skip(path, "not named *"+bundleSuffix)
	default:
		return g.file(path)
	}
	return nil
}

// hidden says whether a folder is one in which systems keep what was deleted,
// and the like.
func hidden(name string) bool {
	return strings.HasPrefix(name, ".") || name == "$RECYCLE.BIN" || name == "System Volume Information" || name == "lost+found"
}

func (g *gathering) skip(path, why string) {
	if len(g.skipped) == maxSkipped {
		g.more++
		return
	}
	g.skipped = append(g.skipped, api.Skipped{Path: valid(path), Why: valid(why)})
}

// nothing says that there is no bundle, and what there is instead.
func (g *gathering) nothing(paths []string) error {
	err := notFound("there is no file named *%s in %s", bundleSuffix, strings.Join(paths, ", "))
	for _, s := range g.skipped[:min(len(g.skipped), 10)] {
		err.Faults = append(err.Faults, s.Path+": "+s.Why)
	}
	return err
}
