package export

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/stellarun/stella/internal/fsx"
)

// ErrParts is an archive in parts that are not all there. It comes wrapped.
var ErrParts = errors.New("the parts of an archive are not all there")

// medium is the bytes of an archive: those of a file, or of parts that follow one
// another.
type medium struct {
	io.ReaderAt
	size  int64
	files []*os.File
}

func (m *medium) Close() error {
	var err error
	for _, f := range m.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// openMedium opens the file at path, its parts if path is the first of them or what
// they give when they are joined, or those in the folder path. It returns nil for a
// folder without parts.
func openMedium(path string) (*medium, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, perr := os.Stat(partName(path, 1)); perr != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
		return openParts(path)
	case err != nil:
		return nil, fmt.Errorf("export: %w", err)
	case info.IsDir():
		return partsFolder(path)
	}
	if base, n := partOf(path); n == 1 {
		return openParts(base)
	} else if n > 1 {
		first := partName(base, 1)
		if _, err := os.Stat(first); err == nil {
			return nil, fmt.Errorf("export: %w: %s is one of them; name the first, %s", ErrParts, filepath.Base(path), filepath.Base(first))
		}
		if _, err := os.Stat(base + sumsSuffix); err == nil {
			return nil, fmt.Errorf("export: %w: %s is one of them, and the first, %s, is not here", ErrParts, filepath.Base(path), filepath.Base(first))
		}
	}
	return openFiles(path)
}

// partsFolder opens the one set of parts in a folder; nil if there is none.
func partsFolder(dir string) (*medium, error) {
	found, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.001"))
	if err != nil || len(found) == 0 {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(dir, manifestPath)); err == nil {
		return nil, nil // what an archive was unpacked to; the file is one too many, and found
	}
	if len(found) > 1 {
		return nil, fmt.Errorf("export: %w: the folder has %d archives in parts; name the first part of one", ErrParts, len(found))
	}
	base, _ := partOf(found[0])
	return openParts(base)
}

// escapeGlob makes a path that means itself in a pattern.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// openParts opens all parts of a file. Where there is the list of their digests, they
// are those that it lists.
func openParts(base string) (*medium, error) {
	var paths []string
	for n := 1; n <= maxParts; n++ {
		path := partName(base, n)
		if _, err := os.Lstat(path); err != nil {
			break
		}
		paths = append(paths, path)
	}
	raw, err := fsx.ReadFile(base+sumsSuffix, maxParts*(64+2+256+1))
	if errors.Is(err, fs.ErrNotExist) {
		return openFiles(paths...) // where the last is missing, the archive ends too early
	}
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	listed := 0
	for line := range bytes.Lines(raw) {
		listed++
		name := filepath.Base(partName(base, listed))
		if digest, rest, ok := strings.Cut(string(line), "  "); !ok || !isSHA256(digest) || rest != name+"\n" {
			return nil, fmt.Errorf("export: %s: line %d is not a digest and %s", base+sumsSuffix, listed, name)
		}
	}
	switch {
	case listed > len(paths):
		return nil, fmt.Errorf("export: %w: %s lists %d, and %s is missing", ErrParts, filepath.Base(base)+sumsSuffix, listed, filepath.Base(partName(base, len(paths)+1)))
	case listed < len(paths):
		return nil, fmt.Errorf("export: %w: %s lists %d, and there is %s", ErrParts, filepath.Base(base)+sumsSuffix, listed, filepath.Base(paths[listed]))
	}
	return openFiles(paths...)
}

// openFiles opens regular files that follow one another.
func openFiles(paths ...string) (*medium, error) {
	m := new(medium)
	var ends []int64
	for _, path := range paths {
		f, err := fsx.OpenRegular(path)
		var info fs.FileInfo
		if err == nil {
			m.files = append(m.files, f)
			info, err = f.Stat()
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("export: %w", err), m.Close())
		}
		m.size += info.Size()
		ends = append(ends, m.size)
	}
	m.ReaderAt = joined{m.files, ends}
	if len(m.files) == 1 {
		m.ReaderAt = m.files[0]
	}
	return m, nil
}

// joined reads files as if they were one. ends are where each ends in it.
type joined struct {
	files []*os.File
	ends  []int64
}

func (j joined) ReadAt(p []byte, at int64) (n int, err error) {
	begin := int64(0)
	for i, f := range j.files {
		if pos := at + int64(n); n < len(p) && pos < j.ends[i] {
			part := p[n:min(int64(len(p)), int64(n)+j.ends[i]-pos)]
			got, err := f.ReadAt(part, pos-begin)
			if n += got; got < len(part) {
				if err == nil || errors.Is(err, io.EOF) {
					err = errChanged // it was longer when it was opened
				}
				return n, err
			}
		}
		begin = j.ends[i]
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
