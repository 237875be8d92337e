// Package gobin finds programs made by Go below given folders and reads the
// build information that the linker put into them. It runs nothing, follows no
// link below a root, and starts no goroutine. A file that it cannot read is
// counted, never fatal.
package gobin

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
)

// Limits bound one scan. Zero fields take the defaults named here.
type Limits struct {
	FileSize int64 // bytes; larger programs are counted, not read; default 512 MiB
	Files    int   // directory entries looked at; default 2,000,000
	Depth    int   // folders below a root; default 64
	Read     int64 // bytes that the search for build information may read of one file; default 256 MiB
}

func (l Limits) withDefaults() Limits {
	if l.FileSize == 0 {
		l.FileSize = 512 << 20
	}
	if l.Files == 0 {
		l.Files = 2_000_000
	}
	if l.Depth == 0 {
		l.Depth = 64
	}
	if l.Read == 0 {
		l.Read = 256 << 20
	}
	return l
}

// ErrLimit is the error of a scan that met more entries than its limits allow.
var ErrLimit = errors.New("gobin: too many files")

// Program is one program that was made by Go.
type Program struct {
	Path   string // absolute
	Size   int64
	SHA256 string
	Info   *debug.BuildInfo
}

// Result is what a scan found, and what it could not see.
type Result struct {
	Programs []Program // by path
	Roots    int       // roots that were walked
	Missing  []string  // roots that are not there, sorted
	Files    int       // regular files seen
	Links    int       // symbolic links that were not followed
	// Unreadable entries could not be opened or read; Oversized programs are
	// larger than the limit; Malformed ones broke the reader; TooDeep folders
	// were not entered.
	Unreadable, Oversized, Malformed, TooDeep int
}

// Scan walks the roots, which are absolute paths of folders or programs. A
// root that lies below another is walked once. It fails only when ctx ends or
// a limit on the number of files is met.
func Scan(ctx context.Context, roots []string, l Limits) (Result, error) {
	s := scanner{ctx: ctx, limits: l.withDefaults()}
	for _, root := range outermost(roots) {
		if err := s.root(root); err != nil {
			return Result{}, err
		}
	}
	slices.SortFunc(s.Programs, func(a, b Program) int { return strings.Compare(a.Path, b.Path) })
	slices.Sort(s.Missing)
	return s.Result, nil
}

// outermost resolves links in the roots themselves, which an operator named,
// and drops those that lie below another. What cannot be resolved stays.
func outermost(roots []string) []string {
	var all []string
	for _, r := range roots {
		r = filepath.Clean(r)
		if real, err := filepath.EvalSymlinks(r); err == nil {
			r = real
		}
		all = append(all, r)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	var out []string
	for _, r := range all {
		if !slices.ContainsFunc(out, func(o string) bool { return below(r, o) }) {
			out = append(out, r)
		}
	}
	return out
}

func below(p, folder string) bool {
	return strings.HasPrefix(p, strings.TrimSuffix(folder, "/")+"/")
}

type scanner struct {
	ctx    context.Context // ends with Scan
	limits Limits
	seen   int
	Result
}

func (s *scanner) root(name string) error {
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.Missing = append(s.Missing, name)
		return nil
	case err != nil, !info.IsDir() && !info.Mode().IsRegular():
		s.Unreadable++
		return nil
	}
	folder, start := name, "."
	if !info.IsDir() {
		folder, start = filepath.Dir(name), filepath.Base(name)
	}
	dir, err := os.OpenRoot(folder)
	if err != nil {
		s.Unreadable++
		return nil
	}
	defer dir.Close()
	s.Roots++
	return fs.WalkDir(dir.FS(), start, func(p string, d fs.DirEntry, err error) error {
		return s.entry(dir, p, filepath.Join(folder, p), d, err)
	})
}

// entry looks at one entry: p below dir, which is full from the root of the
// file system.
func (s *scanner) entry(dir *os.Root, p, full string, d fs.DirEntry, err error) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if s.seen++; s.seen > s.limits.Files {
		return fmt.Errorf("%w: more than %d", ErrLimit, s.limits.Files)
	}
	switch {
	case err != nil:
		s.Unreadable++
	case d.Type()&fs.ModeSymlink != 0:
		s.Links++
	case d.IsDir() && p != "." && isKernel(full):
		return fs.SkipDir
	case d.IsDir() && p != "." && strings.Count(p, "/")+1 > s.limits.Depth:
		s.TooDeep++
		return fs.SkipDir
	case d.Type().IsRegular():
		s.file(dir, p, full)
	}
	return nil
}

// isKernel names the file systems of the kernel, which hold no programs.
func isKernel(folder string) bool {
	return folder == "/proc" || folder == "/sys" || folder == "/dev"
}

func (s *scanner) file(dir *os.Root, p, full string) {
	s.Files++
	// Without O_NONBLOCK a pipe that took the file's place would wait for ever.
	f, err := dir.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		s.Unreadable++
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		s.Unreadable++
		return
	}
	program, err := isProgram(f)
	switch {
	case err != nil:
		s.Unreadable++
		return
	case !program:
		return
	case info.Size() > s.limits.FileSize:
		s.Oversized++
		return
	}
	s.program(f, full, info.Size())
}

func (s *scanner) program(f *os.File, full string, size int64) {
	r := &meter{r: io.NewSectionReader(f, 0, size), left: s.limits.Read}
	info, err := readInfo(r)
	switch {
	case r.err != nil:
		s.Unreadable++
		return
	case errors.Is(err, errBroken), r.left < 0:
		s.Malformed++
		return
	case err != nil: // not made by Go
		return
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, size)); err != nil {
		s.Unreadable++
		return
	}
	s.Programs = append(s.Programs, Program{
		Path: full, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil)), Info: info,
	})
}

// isProgram looks at the first four bytes for ELF, Mach-O or PE.
func isProgram(r io.ReaderAt) (bool, error) {
	var b [4]byte
	if _, err := r.ReadAt(b[:], 0); err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, err
	}
	switch string(b[:]) {
	case "\x7fELF", "\xfe\xed\xfa\xce", "\xfe\xed\xfa\xcf", "\xce\xfa\xed\xfe", "\xcf\xfa\xed\xfe", "\xca\xfe\xba\xbe":
		return true, nil
	}
	return b[0] == 'M' && b[1] == 'Z', nil
}

// errBroken is a file that made the reader of the standard library panic.
var errBroken = errors.New("gobin: malformed program")

// readInfo reads build information. The parsers below it are made for files of
// good will; a panic there is a fault of the file, not of ours.
func readInfo(r io.ReaderAt) (info *debug.BuildInfo, err error) {
	defer func() {
		if p := recover(); p != nil {
			info, err = nil, fmt.Errorf("%w: %v", errBroken, p)
		}
	}()
	return buildinfo.Read(r)
}

// meter stops reading when left is used up, and keeps the first error that is
// not the end of the file: the fault of a disk, not of the file's form.
type meter struct {
	r    io.ReaderAt
	left int64 // negative: stopped
	err  error
}

var errBudget = errors.New("gobin: read budget used up")

func (m *meter) ReadAt(b []byte, off int64) (int, error) {
	if m.left -= int64(len(b)); m.left < 0 {
		m.left = -1
		return 0, errBudget
	}
	n, err := m.r.ReadAt(b, off)
	if err != nil && err != io.EOF && off >= 0 && m.err == nil {
		m.err = err
	}
	return n, err
}
