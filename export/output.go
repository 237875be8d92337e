package export

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
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

// Output is where an archive is written to: the file PATH; or, in parts of one size at most,
// PATH.001 and so on, with the list PATH.sha256 of their digests that sha256sum -c reads. Until
// Commit nothing of it has its name: it lies in a hidden folder beside. It is for one goroutine;
// close it in any case. Its errors are [OutputError]s.
type Output struct {
	opt  OutputOptions
	path string
	temp string // the folder
	f    *fsx.File
	w    io.Writer // to it
	part counter   // of the part that is written
	n    int       // files that are begun
	list []Part
	keep bool // the folder holds what could not be put back
}

// OutputOptions say how an archive is written. The zero value is a whole one under a new name.
type OutputOptions struct {
	PartBytes int64       // size of the parts, at least MinPart; 0: it is whole
	Force     bool        // it takes the place of what is there under its names
	Perm      fs.FileMode // of its files; 0: what the umask leaves
}

// An OutputError is about the file that an archive is written to, and not about what it is made
// of.
type OutputError struct {
	Err    error
	Placed bool   // the archive has its path all the same
	Left   string // what is left of another archive: beside this one, or where that lies now; "" for nothing
}

func (e *OutputError) Error() string { return e.Err.Error() }

func (e *OutputError) Unwrap() error { return e.Err }

// failed makes an error one of the output.
func failed(err error) error {
	if known := (*OutputError)(nil); err == nil || errors.As(err, &known) {
		return err
	}
	return &OutputError{Err: err}
}

// NewOutput begins an archive.
func NewOutput(path string, opt OutputOptions) (*Output, error) {
	o := &Output{opt: opt, path: path}
	if o.opt.Perm == 0 {
		o.opt.Perm = fsx.ByUmask(0o666)
	}
	err := o.check()
	if err == nil {
		err = fsx.SyncDir(filepath.Dir(path)) // when all is written that is late
	}
	if err == nil {
		o.temp, err = os.MkdirTemp(filepath.Dir(path), ".stella-export-*")
	}
	if why := (*fs.PathError)(nil); errors.As(err, &why) && why.Op != "create" {
		err = &fs.PathError{Op: "create", Path: path, Err: why.Err}
	}
	if err != nil {
		return nil, failed(err)
	}
	return o, nil
}

// check says whether an archive may be begun.
func (o *Output) check() error {
	if o.opt.PartBytes != 0 {
		if o.opt.PartBytes < MinPart {
			return fmt.Errorf("export: %w: %d bytes, at least %d are needed", ErrPartSize, o.opt.PartBytes, MinPart)
		}
		if strings.ContainsAny(filepath.Base(o.path), "\\\n\r") {
			return fmt.Errorf("export: %w: sha256sum cannot read a list of the name %q", ErrPartSize, filepath.Base(o.path))
		}
		if _, err := os.Lstat(o.path + sumsSuffix); errors.Is(err, syscall.ENAMETOOLONG) {
			return &fs.PathError{Op: "create", Path: o.path + sumsSuffix, Err: syscall.ENAMETOOLONG}
		}
	}
	_, err := o.taken()
	return err
}

// taken are the files that Commit takes the place of; without Force there may be none.
func (o *Output) taken() ([]string, error) {
	old, err := Taken(o.path)
	if err == nil && len(old) > 0 && !o.opt.Force {
		err = &fs.PathError{Op: "create", Path: old[0], Err: fs.ErrExist}
	}
	return old, err
}

// Taken are the files that an archive of this path takes the place of, however they and it are
// written: a whole one, the first part, the others, the list. None of them may be a folder.
func Taken(path string) (taken []string, err error) {
	names := []string{path}
	for n := 1; n <= maxParts; n++ {
		names = append(names, partName(path, n))
	}
	for _, name := range append(names, path+sumsSuffix) {
		switch fi, err := os.Lstat(name); {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENAMETOOLONG) && name != path:
		case err != nil:
			return nil, &OutputError{Err: err}
		case fi.IsDir():
			return nil, &OutputError{Err: &fs.PathError{Op: "create", Path: name, Err: syscall.EISDIR}}
		default:
			taken = append(taken, name)
		}
	}
	return taken, nil
}

// Write appends b, to as many parts as it takes.
func (o *Output) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		if o.f == nil {
			if err := o.begin(); err != nil {
				return n, failed(err)
			}
		}
		piece := b
		if o.opt.PartBytes > 0 {
			piece = b[:min(int64(len(b)), o.opt.PartBytes-o.part.n)]
		}
		if _, err := o.w.Write(piece); err != nil {
			return n, failed(err)
		}
		n += len(piece)
		if b = b[len(piece):]; o.opt.PartBytes > 0 && o.part.n == o.opt.PartBytes {
			if err := o.end(); err != nil {
				return n, failed(err)
			}
		}
	}
	return n, nil
}

func (o *Output) begin() (err error) {
	if o.n == maxParts {
		return fmt.Errorf("export: %w: it would take more than %d parts of %d bytes", ErrPartSize, maxParts, o.opt.PartBytes)
	}
	o.n++
	if o.f, err = fsx.Create(o.inner(o.n), o.opt.Perm); err != nil {
		return err
	}
	if o.w = o.f; o.opt.PartBytes > 0 {
		o.part = counter{w: o.f, sum: sha256.New()}
		o.w = &o.part
	}
	return nil
}

// inner is where a file lies until all are there, the list as number 0: under a name that is no
// part's, so that what a power cut leaves is not taken for an archive.
func (o *Output) inner(n int) string { return filepath.Join(o.temp, fmt.Sprintf("%d.unfinished", n)) }

// outer is the name that it gets.
func (o *Output) outer(n int) string {
	switch {
	case o.opt.PartBytes == 0:
		return o.path
	case n == 0:
		return o.path + sumsSuffix
	}
	return partName(o.path, n)
}

// end makes a file durable, but for its name.
func (o *Output) end() error {
	if o.opt.PartBytes > 0 {
		o.list = append(o.list, Part{o.outer(o.n), o.part.n, o.part.digest()})
	}
	f := o.f
	o.f = nil
	return f.Commit()
}

// Finish makes all that was written durable. What is left for Commit are names.
func (o *Output) Finish() error {
	if o.n == 0 { // it is empty
		if err := o.begin(); err != nil {
			return failed(err)
		}
	}
	if o.f != nil {
		if err := o.end(); err != nil {
			return failed(err)
		}
	}
	if o.opt.PartBytes == 0 {
		return nil
	}
	var sums bytes.Buffer
	for _, p := range o.list {
		fmt.Fprintf(&sums, "%s  %s\n", p.SHA256, filepath.Base(p.Path))
	}
	return failed(fsx.WriteFile(o.inner(0), sums.Bytes(), o.opt.Perm))
}

// Commit gives a finished archive its names. What is there under them stays where that fails.
func (o *Output) Commit() error {
	old, err := o.taken()
	if err != nil {
		return failed(err)
	}
	if o.opt.PartBytes == 0 {
		err = o.placeWhole(old)
	} else {
		err = o.placeParts(old)
	}
	if err != nil {
		return failed(errors.Join(err, o.Close()))
	}
	if err := o.Close(); err != nil {
		return &OutputError{Err: err, Placed: true, Left: o.temp}
	}
	return nil
}

// placeWhole takes the path, and then away what an older archive was split to, the first part
// first.
func (o *Output) placeWhole(old []string) error {
	if err := o.place(1); err != nil {
		return &OutputError{Err: err, Placed: o.placed(1)}
	}
	for _, path := range old {
		if path == o.path {
			continue
		}
		err := os.Remove(path)
		if err == nil {
			err = fsx.SyncDir(filepath.Dir(path))
		}
		if err != nil {
			return &OutputError{Err: err, Placed: true, Left: path}
		}
	}
	return nil
}

// placeParts puts the list and the parts in their places, the first part last: where that is, all
// are. What is there is put aside before, the first first, and back where something fails.
func (o *Output) placeParts(old []string) error {
	aside := filepath.Join(o.temp, "old")
	if err := errors.Join(fsx.Mkdir(aside, 0o700), fsx.SyncDir(filepath.Dir(o.path))); err != nil { // before anything lies only there
		return err
	}
	n, err := 0, error(nil)
	for ; n < len(old) && err == nil; n++ {
		err = fsx.Rename(old[n], filepath.Join(aside, filepath.Base(old[n])))
	}
	at := o.n + 1
	if err == nil {
		if err = o.place(0); err == nil {
			for at > 1 && err == nil {
				at--
				err = o.place(at)
			}
		}
	}
	if err == nil {
		return nil
	}
	if at == 1 && o.placed(1) {
		return &OutputError{Err: err, Placed: true}
	}
	return o.putBack(err, old[:n], aside, at)
}

// place gives a file its name.
func (o *Output) place(n int) error {
	if o.opt.Force {
		return fsx.Rename(o.inner(n), o.outer(n))
	}
	return fsx.RenameNew(o.inner(n), o.outer(n))
}

// placed says whether it has its name, whatever placing it has ended with.
func (o *Output) placed(n int) bool {
	_, err := os.Lstat(o.inner(n))
	return errors.Is(err, fs.ErrNotExist)
}

// putBack takes back the parts from at on, and the list, and puts back what was put aside, its
// first part last.
func (o *Output) putBack(why error, old []string, aside string, at int) error {
	all := why
	for _, n := range append([]int{0}, seq(at, o.n)...) {
		if o.placed(n) {
			if err := os.Remove(o.outer(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				all = errors.Join(all, err)
			}
		}
	}
	out := &OutputError{}
	for _, path := range slices.Backward(old) {
		from := filepath.Join(aside, filepath.Base(path))
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			continue // it was not put aside
		}
		if err := os.Rename(from, path); err != nil {
			all, out.Left, o.keep = errors.Join(all, err), aside, true
		}
	}
	if err := fsx.SyncDir(filepath.Dir(o.path)); err != nil && len(old) > 0 { // what is put back has two names on the disk, or one of them
		all = errors.Join(all, err)
	}
	out.Err = all
	return out
}

func seq(from, to int) (out []int) {
	for ; from <= to; from++ {
		out = append(out, from)
	}
	return out
}

// Parts are those that were written, once they were committed.
func (o *Output) Parts() []Part { return o.list }

// Close gives up what was not committed. What could not be put back stays where it is.
func (o *Output) Close() error {
	if o.f != nil {
		f := o.f
		o.f = nil
		_ = f.Close() // the folder goes with it
	}
	if o.temp == "" {
		return nil
	}
	if !o.keep {
		return os.RemoveAll(o.temp)
	}
	for n := range o.n + 1 {
		if err := os.Remove(o.inner(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
