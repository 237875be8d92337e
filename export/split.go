package export

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/stellarun/stella/internal/fsx"
)

// Bounds of parts: their names have three digits, and what is smaller than this fits
// everywhere.
const (
	maxParts   = 999
	MinPart    = 64 << 10
	sumsSuffix = ".sha256"
)

// ErrPartSize is a size of parts that is none: too small, or more than 999 of them. It
// comes wrapped.
var ErrPartSize = errors.New("no size for parts")

func partName(base string, n int) string { return fmt.Sprintf("%s.%03d", base, n) }

// partOf takes the name of a part apart; n is 0 for any other name.
func partOf(path string) (base string, n int) {
	if len(path) < 5 || path[len(path)-4] != '.' {
		return path, 0
	}
	n, err := strconv.Atoi(path[len(path)-3:])
	if base = path[:len(path)-4]; err != nil || n < 1 || partName(base, n) != path {
		return path, 0
	}
	return base, n
}

// Part is one file that an archive was written to.
type Part struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Split is a file that is written in parts of at most one size, PATH.001 and so on,
// with the list PATH.sha256 of their digests that sha256sum -c reads. Until Commit
// nothing of it is at PATH. It is for one goroutine; close it in any case.
type Split struct {
	Perm fs.FileMode // of the files; NewSplit takes what the umask leaves

	base  string
	size  int64
	force bool
	temp  string // folder that the parts are written to
	f     *fsx.File
	part  counter // of the part that is written
	parts []Part
}

// NewSplit begins a file in parts. With force it takes the place of what is there under
// its names.
func NewSplit(path string, size int64, force bool) (*Split, error) {
	if size < MinPart {
		return nil, fmt.Errorf("export: %w: %d bytes, at least %d are needed", ErrPartSize, size, MinPart)
	}
	if strings.ContainsAny(filepath.Base(path), "\\\n\r") {
		return nil, fmt.Errorf("export: %w: sha256sum cannot read a list of the name %q", ErrPartSize, filepath.Base(path))
	}
	s := &Split{Perm: fsx.ByUmask(0o666), base: path, size: size, force: force}
	if old, err := Taken(path); err != nil {
		return nil, err
	} else if len(old) > 0 && !force {
		return nil, &fs.PathError{Op: "create", Path: old[0], Err: fs.ErrExist}
	}
	var err error
	s.temp, err = os.MkdirTemp(filepath.Dir(path), ".stella-export-*")
	return s, err
}

// Taken are the files that an archive of this path takes the place of, however they and it are
// written: a whole one, the first part, the others, the list. None of them may be a folder. The
// folder that they are in need not be readable.
func Taken(path string) (taken []string, err error) {
	names := []string{path}
	for n := 1; n <= maxParts; n++ {
		names = append(names, partName(path, n))
	}
	for _, name := range append(names, path+sumsSuffix) {
		switch fi, err := os.Lstat(name); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case fi.IsDir():
			return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.EISDIR}
		default:
			taken = append(taken, name)
		}
	}
	return taken, nil
}

// RemoveParts removes what an archive was split to, the first part first, where a whole one has
// its path.
func RemoveParts(path string) error {
	old, err := Taken(path)
	if err != nil {
		return err
	}
	return removeAll(slices.DeleteFunc(old, func(taken string) bool { return taken == path }))
}

// removeAll removes files for good, one after the other.
func removeAll(paths []string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			return err
		}
		if err := fsx.SyncDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return nil
}

// Write appends b, to as many parts as it takes.
func (s *Split) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		if s.f == nil {
			if err := s.begin(); err != nil {
				return n, err
			}
		}
		part := b[:min(int64(len(b)), s.size-s.part.n)]
		if _, err := s.part.Write(part); err != nil {
			return n, err
		}
		n += len(part)
		if b = b[len(part):]; s.part.n == s.size {
			if err := s.end(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (s *Split) begin() (err error) {
	if len(s.parts) == maxParts {
		return fmt.Errorf("export: %w: it would take more than %d parts of %d bytes", ErrPartSize, maxParts, s.size)
	}
	if s.f, err = fsx.Create(s.inner(len(s.parts)+1), s.Perm); err != nil {
		return err
	}
	s.part = counter{w: s.f, sum: sha256.New()}
	return nil
}

// inner is where a part lies until all are there: under a name that is no part's, so
// that what a power cut leaves is not taken for an archive.
func (s *Split) inner(n int) string { return filepath.Join(s.temp, fmt.Sprintf("%d.unfinished", n)) }

// end makes the part durable that is written.
func (s *Split) end() error {
	s.parts = append(s.parts, Part{partName(s.base, len(s.parts)+1), s.part.n, s.part.digest()})
	f := s.f
	s.f = nil
	return f.Commit()
}

// Commit puts the parts in their places, the first one last: where that is, all are.
// Where old ones have to go, the first goes first.
func (s *Split) Commit() error {
	if s.f != nil {
		if err := s.end(); err != nil {
			return err
		}
	}
	var sums bytes.Buffer
	for _, p := range s.parts {
		fmt.Fprintf(&sums, "%s  %s\n", p.SHA256, filepath.Base(p.Path))
	}
	old, err := Taken(s.base)
	if err != nil {
		return err
	}
	if len(old) > 0 && !s.force {
		return &fs.PathError{Op: "create", Path: old[0], Err: fs.ErrExist}
	}
	if err := removeAll(old); err != nil {
		return err
	}
	if err := fsx.WriteFile(s.base+sumsSuffix, sums.Bytes(), s.Perm); err != nil {
		return errors.Join(err, s.undo(len(s.parts)+1))
	}
	for n := len(s.parts); n > 0; n-- {
		if err := fsx.Rename(s.inner(n), partName(s.base, n)); err != nil {
			return errors.Join(err, s.undo(n))
		}
	}
	return s.Close()
}

// undo takes back the parts from n on, the first of them first, and the list.
func (s *Split) undo(n int) error {
	var all error
	remove := func(path string) {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	for ; n <= len(s.parts); n++ { // the n-th may have been put there or not
		remove(partName(s.base, n))
	}
	remove(s.base + sumsSuffix)
	return all
}

// Parts are those that were written, once they were committed.
func (s *Split) Parts() []Part { return s.parts }

// Close gives up what was not committed.
func (s *Split) Close() error {
	if s.f != nil {
		f := s.f
		s.f = nil
		_ = f.Close() // the folder goes with it
	}
	return os.RemoveAll(s.temp)
}
