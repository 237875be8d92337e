package sandbox

import (
	"cmp"
	"encoding/binary"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	wsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
	"golang.org/x/sys/unix"
)

// A guestFile is an open file or folder of a [guestFS]. It works on the
// descriptor, never again on the path.
type guestFile struct {
	wsys.UnimplementedFile
	fs     *guestFS
	file   *os.File // owns fd
	fd     int
	dir    bool
	append bool
	list   []wsys.Dirent // of a folder: what is still to be read
	listed bool
}

var _ wsys.File = (*guestFile)(nil)

// retry calls f until no signal interrupts it.
func retry(f func() (int, error)) (int, wsys.Errno) {
	for {
		n, err := f()
		if err == unix.EINTR {
			continue
		}
		return max(0, n), errnoOf(err)
	}
}

// Dev implements [wsys.File].
func (f *guestFile) Dev() (uint64, wsys.Errno) {
	st, errno := f.Stat()
	return st.Dev, errno
}

// Ino implements [wsys.File].
func (f *guestFile) Ino() (sys.Inode, wsys.Errno) {
	st, errno := f.Stat()
	return st.Ino, errno
}

// IsDir implements [wsys.File].
func (f *guestFile) IsDir() (bool, wsys.Errno) { return f.dir, 0 }

// IsAppend implements [wsys.File].
func (f *guestFile) IsAppend() bool { return f.append }

// SetAppend implements [wsys.File].
func (f *guestFile) SetAppend(enable bool) wsys.Errno {
	if f.dir {
		return wsys.EISDIR
	}
	flags, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFL, 0)
	if err != nil {
		return errnoOf(err)
	}
	flags &^= unix.O_APPEND
	if enable {
		flags |= unix.O_APPEND
	}
	if _, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, flags); err != nil {
		return errnoOf(err)
	}
	f.append = enable
	return 0
}

// Stat implements [wsys.File].
func (f *guestFile) Stat() (sys.Stat_t, wsys.Errno) {
	info, err := f.file.Stat()
	if err != nil {
		return sys.Stat_t{}, errnoOf(err)
	}
	return f.fs.statOf(info), 0
}

// Read implements [wsys.File].
func (f *guestFile) Read(buf []byte) (int, wsys.Errno) {
	return retry(func() (int, error) { return unix.Read(f.fd, buf) })
}

// Pread implements [wsys.File].
func (f *guestFile) Pread(buf []byte, off int64) (int, wsys.Errno) {
	return retry(func() (int, error) { return unix.Pread(f.fd, buf, off) })
}

// Write implements [wsys.File].
func (f *guestFile) Write(buf []byte) (int, wsys.Errno) {
	return retry(func() (int, error) { return unix.Write(f.fd, buf) })
}

// Pwrite implements [wsys.File].
func (f *guestFile) Pwrite(buf []byte, off int64) (int, wsys.Errno) {
	return retry(func() (int, error) { return unix.Pwrite(f.fd, buf, off) })
}

// position is int64. By this name vet does not take Seek for [io.Seeker]'s,
// which the interface of the runtime is not.
type position = int64

// Seek implements [wsys.File]. A folder can only be rewound.
func (f *guestFile) Seek(offset position, whence int) (int64, wsys.Errno) {
	if uint(whence) > io.SeekEnd {
		return 0, wsys.EINVAL
	}
	if f.dir {
		if offset != 0 || whence != io.SeekStart {
			return 0, wsys.EINVAL
		}
		f.list, f.listed = nil, false
	}
	n, err := unix.Seek(f.fd, offset, whence)
	return n, errnoOf(err)
}

// Readdir implements [wsys.File]. The folder is read whole and sorted, so that
// its order says nothing of the host.
func (f *guestFile) Readdir(n int) ([]wsys.Dirent, wsys.Errno) {
	if !f.dir {
		return nil, wsys.ENOTDIR
	}
	if !f.listed {
		list, errno := f.readAll()
		if errno != 0 {
			return nil, errno
		}
		f.list, f.listed = list, true
	}
	if n < 0 || n > len(f.list) {
		n = len(f.list)
	}
	part := f.list[:n:n]
	f.list = f.list[n:]
	return part, 0
}

// readAll reads the folder by getdents64(2), which gives inodes and types
// without a look at each path.
func (f *guestFile) readAll() ([]wsys.Dirent, wsys.Errno) {
	var list []wsys.Dirent
	buf := make([]byte, 32<<10)
	for {
		n, errno := retry(func() (int, error) { return unix.Getdents(f.fd, buf) })
		if errno != 0 || n == 0 {
			slices.SortFunc(list, func(a, b wsys.Dirent) int { return cmp.Compare(a.Name, b.Name) })
			return list, errno
		}
		for b := buf[:n]; len(b) >= direntHead; {
			size := int(binary.NativeEndian.Uint16(b[16:]))
			if size < direntHead || size > len(b) {
				return nil, wsys.EIO
			}
			name, _, _ := strings.Cut(string(b[direntHead:size]), "\x00")
			if name != "." && name != ".." {
				list = append(list, wsys.Dirent{
					Name: name, Ino: binary.NativeEndian.Uint64(b), Type: typeOf(b[18]),
				})
			}
			b = b[size:]
		}
	}
}

// direntHead is the length of struct linux_dirent64 before the name: inode,
// offset, length of the record, type.
const direntHead = 8 + 8 + 2 + 1

func typeOf(t byte) fs.FileMode {
	switch t {
	case unix.DT_REG:
		return 0
	case unix.DT_DIR:
		return fs.ModeDir
	case unix.DT_LNK:
		return fs.ModeSymlink
	}
	return fs.ModeIrregular
}

// Truncate implements [wsys.File].
func (f *guestFile) Truncate(size int64) wsys.Errno {
	if size < 0 {
		return wsys.EINVAL
	}
	return errnoOf(unix.Ftruncate(f.fd, size))
}

// Sync implements [wsys.File].
func (f *guestFile) Sync() wsys.Errno { return errnoOf(unix.Fsync(f.fd)) }

// Datasync implements [wsys.File].
func (f *guestFile) Datasync() wsys.Errno { return errnoOf(unix.Fdatasync(f.fd)) }

// Utimens implements [wsys.File].
func (f *guestFile) Utimens(atim, mtim int64) wsys.Errno {
	if flags, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFL, 0); err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY {
		return wsys.EBADF
	}
	return errnoOf(setTimes(f.fd, atim, mtim))
}

// Close implements [wsys.File].
func (f *guestFile) Close() wsys.Errno { return errnoOf(f.file.Close()) }
