// Package fsx makes files that survive a power cut, and opens files that may
// have been put there by somebody else. A durable write is: a temporary file in
// the same folder, fsync, rename, fsync of the folder; before that is done the
// old state is what a crash leaves. The package never retries a failed fsync
// (after one the kernel may have dropped the data), opens no symbolic link
// or pipe where a file should be, and starts no goroutine. Linux only.
package fsx

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stellarun/stella/internal/failpoint"
)

// Temporary files are named like this, so that [IsTemp] can tell those that a
// crash left behind.
const (
	tempPrefix = ".fsx-"
	tempSuffix = ".tmp"
)

// IsTemp says whether name, the last part of a path, is one that [Create] gives
// to a temporary file. One that no process is writing is left over from a
// crash, was never part of the state, and may be removed.
func IsTemp(name string) bool {
	return len(name) > len(tempPrefix)+len(tempSuffix) &&
		strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, tempSuffix)
}

// A File is a file that does not exist under its name until [File.Commit].
// It is for one goroutine. Close it in any case; after a Commit that succeeded
// Close does nothing.
type File struct {
	f    *os.File // nil once committed or given up
	path string
	perm fs.FileMode
}

// Create begins a file that Commit will put at path, replacing what is there,
// with exactly the permissions perm whatever the umask. Until then it is a
// temporary file in the same folder which only this user can read.
func Create(path string, perm fs.FileMode) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*"+tempSuffix)
	if why := (*fs.PathError)(nil); errors.As(err, &why) {
		err = &fs.PathError{Op: "create", Path: path, Err: why.Err} // that name means nothing to anybody
	}
	if err != nil {
		return nil, err
	}
	return &File{f: f, path: path, perm: perm}, nil
}

// Write appends b.
func (f *File) Write(b []byte) (int, error) {
	if f.f == nil {
		return 0, f.fault("write", fs.ErrClosed)
	}
	if err := failpoint.Hit(failpoint.FSXWrite); err != nil {
		return 0, f.fault("write", err)
	}
	return f.f.Write(b)
}

// Commit makes the file durable under its name: fsync, rename, fsync of the
// folder. If it fails the temporary file is gone and the name still holds what
// it held before, unless only the last fsync failed: then the new content is
// there and may or may not survive a power cut.
func (f *File) Commit() error {
	if f.f == nil {
		return f.fault("commit", fs.ErrClosed)
	}
	if err := f.sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.rename(); err != nil {
		return errors.Join(err, f.Close())
	}
	err := f.f.Close()
	f.f = nil
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(f.path))
}

func (f *File) sync() error {
	if err := f.f.Chmod(f.perm); err != nil {
		return err
	}
	if err := failpoint.Hit(failpoint.FSXSync); err != nil {
		return f.fault("sync", err)
	}
	return f.f.Sync()
}

func (f *File) rename() error {
	if err := failpoint.Hit(failpoint.FSXRename); err != nil {
		return f.fault("rename", err)
	}
	return os.Rename(f.f.Name(), f.path)
}

// Close gives up a file that was not committed and removes what was written of
// it. Otherwise it does nothing and returns nil.
func (f *File) Close() error {
	if f.f == nil {
		return nil
	}
	name := f.f.Name()
	err := f.f.Close()
	f.f = nil
	return errors.Join(err, os.Remove(name))
}

// Abort is [File.Close] where giving up is the intent.
func (f *File) Abort() error { return f.Close() }

func (f *File) fault(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.path, Err: err}
}

// WriteFile durably puts data at path with exactly the permissions perm. After
// an error path holds what it held before; see [File.Commit] for the exception.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Commit()
}

// Mkdir durably makes one folder with exactly the permissions perm whatever
// the umask. Its parent must exist and path must not: that is [fs.ErrExist].
func Mkdir(path string, perm fs.FileMode) error {
	if err := os.Mkdir(path, perm&0o700); err != nil {
		return err
	}
	if err := os.Chmod(path, perm); err != nil {
		return err
	}
	if err := SyncDir(path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(filepath.Clean(path)))
}

// Rename durably renames oldpath to newpath, replacing a file that is there.
// Both folders are synced, the new one first, so that a power cut does not lose
// the file. Its content must be durable already.
func Rename(oldpath, newpath string) error {
	if err := failpoint.Hit(failpoint.FSXRename); err != nil {
		return &os.LinkError{Op: "rename", Old: oldpath, New: newpath, Err: err}
	}
	if err := os.Rename(oldpath, newpath); err != nil {
		return err
	}
	return syncBoth(oldpath, newpath)
}

// syncBoth syncs the folders of a file that was renamed.
func syncBoth(oldpath, newpath string) error {
	from, to := filepath.Dir(filepath.Clean(oldpath)), filepath.Dir(filepath.Clean(newpath))
	if err := SyncDir(to); err != nil {
		return err
	}
	if from == to {
		return nil
	}
	return SyncDir(from)
}

// RenameNew is Rename to a name that nothing has: else it is [fs.ErrExist]. On a file system that
// cannot say so, what comes between a look and the renaming is replaced.
func RenameNew(oldpath, newpath string) error {
	if err := failpoint.Hit(failpoint.FSXRename); err != nil {
		return &os.LinkError{Op: "rename", Old: oldpath, New: newpath, Err: err}
	}
	err := unix.Renameat2(unix.AT_FDCWD, oldpath, unix.AT_FDCWD, newpath, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return syncBoth(oldpath, newpath)
	case !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOSYS) && !errors.Is(err, syscall.EOPNOTSUPP):
		return &os.LinkError{Op: "rename", Old: oldpath, New: newpath, Err: err}
	}
	if _, err := os.Lstat(newpath); !errors.Is(err, fs.ErrNotExist) {
		return &os.LinkError{Op: "rename", Old: oldpath, New: newpath, Err: cmp.Or(err, fs.ErrExist)}
	}
	return Rename(oldpath, newpath)
}

// SyncDir makes the names in the folder path durable. A path that is not a
// folder is an error.
func SyncDir(path string) error {
	if err := failpoint.Hit(failpoint.FSXSyncDir); err != nil {
		return &fs.PathError{Op: "sync", Path: path, Err: err}
	}
	d, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
