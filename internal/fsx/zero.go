package fsx

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// zeros is how many bytes are written over a file at a time.
const zeros = 64 << 10

// Zero writes zeros over an open file and syncs it. A file system that writes
// elsewhere what is overwritten, and a disk that remaps its blocks, keep the old
// bytes.
func Zero(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, min(zeros, fi.Size()))
	for at := int64(0); at < fi.Size() && err == nil; at += int64(len(b)) {
		_, err = f.WriteAt(b[:min(int64(len(b)), fi.Size()-at)], at)
	}
	return errors.Join(err, f.Sync())
}

// Overwrite is [OverwriteFile] of what lies in a folder, not below it. A folder that is not there
// is no error.
func Overwrite(dir string) error {
	fi, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !fi.IsDir() {
		return nil
	}
	list, err := os.ReadDir(dir)
	for _, e := range list {
		err = errors.Join(err, OverwriteFile(filepath.Join(dir, e.Name())))
	}
	return err
}

// OverwriteFile is [Zero] of a regular file. Anything else is left alone, and what a link leads
// to; so is a file with another name, which is somebody's copy. One that is not there is no error.
func OverwriteFile(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !fi.Mode().IsRegular() {
		return err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || st.Nlink != 1 {
		return nil
	}
	cerr := os.Chmod(path, 0o600)
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return errors.Join(cerr, err)
	}
	return errors.Join(Zero(f), f.Close())
}
