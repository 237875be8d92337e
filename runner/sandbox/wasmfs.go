package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	wsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
	"golang.org/x/sys/unix"
)

// guestFS is the file system of a WebAssembly guest: the attempt's folder as
// its root. The runtime's own directory mounts are no fence, since a guest can
// walk out of them through links. Here every path is resolved by [os.Root],
// which never leaves the folder, and a guest can make no links at all. Beside
// work/, artifacts/ and tmp/, where it does as it likes, it may write to the
// output file, and nothing else.
type guestFS struct {
	wsys.UnimplementedFS
	root  *os.Root
	fixed bool // all files show the guest's fixed clock as their times
}

func newGuestFS(root *os.Root, fixed bool) *guestFS { return &guestFS{root: root, fixed: fixed} }

// fixedTime is what the guest's clock begins with when determinism is fixed.
const fixedTime = 1640995200 * int64(time.Second)

// clean returns the path relative to the root, or EPERM if it leads out of it.
func clean(p string) (string, wsys.Errno) {
	p = path.Clean(strings.TrimPrefix(p, "/"))
	if !filepath.IsLocal(p) {
		return "", wsys.EPERM
	}
	return p, 0
}

// writable says whether what p names may be made, changed or removed: it lies
// below one of the guest's folders.
func writable(p string) bool {
	dir, _, below := strings.Cut(p, "/")
	return below && (dir == workDir || dir == artifactsDir || dir == tmpDir)
}

// change is clean for a path that is to be made, changed or removed.
func change(p string) (string, wsys.Errno) {
	p, errno := clean(p)
	if errno == 0 && !writable(p) {
		return "", wsys.EROFS
	}
	return p, errno
}

// errnoOf translates errors of [os.Root], which refuses some paths with an
// error of its own.
func errnoOf(err error) wsys.Errno {
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return wsys.UnwrapOSError(errno)
	case errors.Is(err, fs.ErrNotExist):
		return wsys.ENOENT
	case errors.Is(err, fs.ErrExist):
		return wsys.EEXIST
	case errors.Is(err, fs.ErrInvalid):
		return wsys.EINVAL
	}
	return wsys.EPERM
}

// OpenFile implements [wsys.FS].
func (g *guestFS) OpenFile(p string, flag wsys.Oflag, perm fs.FileMode) (wsys.File, wsys.Errno) {
	name, errno := clean(p)
	if errno != 0 {
		return nil, errno
	}
	flags, write := openFlags(flag)
	if write && !writable(name) {
		if name != outputFile {
			return nil, wsys.EROFS
		}
		flags &^= os.O_CREATE | os.O_EXCL // it is there
	}
	f, err := g.root.OpenFile(name, flags|unix.O_NONBLOCK, perm.Perm())
	if err != nil {
		return nil, errnoOf(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = unix.EACCES
	}
	if err != nil {
		f.Close()
		return nil, errnoOf(err)
	}
	return &guestFile{fs: g, file: f, fd: int(f.Fd()), dir: info.IsDir(), append: flags&os.O_APPEND != 0}, 0
}

// openFlags translates flags, and says whether they ask for writing.
func openFlags(flag wsys.Oflag) (flags int, write bool) {
	switch {
	case flag&wsys.O_RDWR != 0:
		flags, write = os.O_RDWR, true
	case flag&wsys.O_WRONLY != 0:
		flags, write = os.O_WRONLY, true
	}
	for _, f := range [...]struct {
		guest wsys.Oflag
		host  int
		write bool
	}{
		{wsys.O_APPEND, os.O_APPEND, false},
		{wsys.O_CREAT, os.O_CREATE, true},
		{wsys.O_DIRECTORY, unix.O_DIRECTORY, false},
		{wsys.O_EXCL, os.O_EXCL, false},
		{wsys.O_TRUNC, os.O_TRUNC, true},
	} {
		if flag&f.guest != 0 {
			flags |= f.host
			write = write || f.write
		}
	}
	return flags, write
}

// Lstat implements [wsys.FS].
func (g *guestFS) Lstat(p string) (sys.Stat_t, wsys.Errno) { return g.stat(p, g.root.Lstat) }

// Stat implements [wsys.FS].
func (g *guestFS) Stat(p string) (sys.Stat_t, wsys.Errno) { return g.stat(p, g.root.Stat) }

func (g *guestFS) stat(p string, stat func(string) (fs.FileInfo, error)) (sys.Stat_t, wsys.Errno) {
	name, errno := clean(p)
	if errno != 0 {
		return sys.Stat_t{}, errno
	}
	info, err := stat(name)
	if err != nil {
		return sys.Stat_t{}, errnoOf(err)
	}
	return g.statOf(info), 0
}

func (g *guestFS) statOf(info fs.FileInfo) sys.Stat_t {
	st := sys.NewStat_t(info)
	if g.fixed {
		st.Atim, st.Mtim, st.Ctim = fixedTime, fixedTime, fixedTime
	}
	return st
}

// Mkdir implements [wsys.FS].
func (g *guestFS) Mkdir(p string, perm fs.FileMode) wsys.Errno {
	name, errno := change(p)
	if errno != 0 {
		return errno
	}
	return errnoOf(g.root.Mkdir(name, perm.Perm()))
}

// Rename implements [wsys.FS].
func (g *guestFS) Rename(from, to string) wsys.Errno {
	from, errno := change(from)
	if errno != 0 {
		return errno
	}
	to, errno = change(to)
	if errno != 0 {
		return errno
	}
	return errnoOf(g.root.Rename(from, to))
}

// Rmdir implements [wsys.FS].
func (g *guestFS) Rmdir(p string) wsys.Errno { return g.remove(p, true) }

// Unlink implements [wsys.FS].
func (g *guestFS) Unlink(p string) wsys.Errno { return g.remove(p, false) }

func (g *guestFS) remove(p string, dir bool) wsys.Errno {
	name, errno := change(p)
	if errno != 0 {
		return errno
	}
	info, err := g.root.Lstat(name)
	switch {
	case err != nil:
		return errnoOf(err)
	case dir && !info.IsDir():
		return wsys.ENOTDIR
	case !dir && info.IsDir():
		return wsys.EISDIR
	}
	return errnoOf(g.root.Remove(name))
}

// Link implements [wsys.FS]: no.
func (g *guestFS) Link(_, _ string) wsys.Errno { return wsys.EPERM }

// Symlink implements [wsys.FS]: no.
func (g *guestFS) Symlink(_, _ string) wsys.Errno { return wsys.EPERM }

// Readlink implements [wsys.FS]. There are no links.
func (g *guestFS) Readlink(p string) (string, wsys.Errno) {
	if _, errno := g.Lstat(p); errno != 0 {
		return "", errno
	}
	return "", wsys.EINVAL
}

// Utimens implements [wsys.FS].
func (g *guestFS) Utimens(p string, atim, mtim int64) wsys.Errno {
	name, errno := change(p)
	if errno != 0 {
		return errno
	}
	f, err := g.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return errnoOf(err)
	}
	defer f.Close()
	return errnoOf(setTimes(int(f.Fd()), atim, mtim))
}

// setTimes is futimens(3).
func setTimes(fd int, atim, mtim int64) error {
	ts := make([]unix.Timespec, 2)
	for i, t := range []int64{atim, mtim} {
		if t == wsys.UTIME_OMIT {
			ts[i].Nsec = unix.UTIME_OMIT
			continue
		}
		ts[i] = unix.NsecToTimespec(t)
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(fd), ts, 0)
}
