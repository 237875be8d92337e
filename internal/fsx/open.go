package fsx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Why a file was not opened or not read. Both come wrapped in *[fs.PathError].
var (
	ErrNotRegular = errors.New("not a regular file")
	ErrTooLarge   = errors.New("file too large")
)

// OpenRegular opens path for reading if it is a regular file, and is otherwise
// [ErrNotRegular]: a symbolic link, folder, pipe, socket or device. It never
// waits, as opening a pipe would. Links in the folders above are followed. The
// caller closes the file.
func OpenRegular(path string) (*os.File, error) {
	// The os package adds O_CLOEXEC.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, syscall.ELOOP) && isLink(path), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrNotRegular}
	case err != nil:
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: ErrNotRegular}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// isLink tells a link at path, which O_NOFOLLOW refuses, from a cycle of links
// in the folders above, which has the same error number.
func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// ReadFile returns the content of the regular file at path, opened as
// [OpenRegular] does, if it has at most limit bytes; more is [ErrTooLarge],
// also if the file grows while it is read.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	tooLarge := func(has string, size int64) error {
		return &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: it has %s%d bytes, and at most %d are read", ErrTooLarge, has, size, limit)}
	}
	if info.Size() > limit {
		return nil, tooLarge("", info.Size())
	}
	var buf bytes.Buffer
	buf.Grow(int(info.Size()) + bytes.MinRead) // one allocation, the look for the end included
	// One byte beyond limit tells too large; the largest limit has none beyond.
	if _, err := buf.ReadFrom(io.LimitReader(f, max(limit, limit+1))); err != nil {
		return nil, err
	}
	if int64(buf.Len()) > limit {
		return nil, tooLarge("more than ", limit)
	}
	return buf.Bytes(), nil
}

// Forget asks the system to drop what it keeps of a file in memory, so that the next
// read comes from the disk. It is a request: what is not yet synced stays.
func Forget(f *os.File) {
	const dontNeed = 4 // POSIX_FADV_DONTNEED
	_, _, _ = syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0)
}
