package fsx

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// A mark is a lock on a file or a folder that keeps nobody from anything: others see that the
// process is there, and which it is. It needs no room on the disk, and goes with the process.
// It is a record lock of POSIX, which also goes when the process closes the file once more, so
// that who holds one must not read the file or the folder meanwhile. Others may lock the file
// for reasons of their own: who holds it must be looked at before it is believed.

// Mark marks a file or a folder until the result is closed. Several processes can.
func Mark(path string) (io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_RDLCK}); err != nil {
		f.Close()
		return nil, fmt.Errorf("mark %s: %w", path, err)
	}
	return f, nil
}

// MarkedBy is a process that has marked a file or a folder, or has locked it, 0 for none.
func MarkedBy(path string) (pid int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	l := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &l); err != nil {
		return 0, fmt.Errorf("mark of %s: %w", path, err)
	}
	if l.Type == syscall.F_UNLCK {
		return 0, nil
	}
	return int(l.Pid), nil
}
