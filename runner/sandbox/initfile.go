package sandbox

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// embedded is the program stella-init, if the build has put it there.
//
//go:embed embedded
var embedded embed.FS

// selfPath is the running program.
const selfPath = "/proc/self/exe"

// initFD is the least descriptor under which the small init process is kept: above
// all that a child is given, so that none of those takes its place.
const initFD = 64

// initFile is the small init process, in a sealed memory file that stays open for
// as long as this process lives; nil where the build has not embedded it.
var initFile = sync.OnceValues(openInit)

// initPath is what is executed as an init process: stella-init, or stella itself.
// Both do the same; the small one is there in half the time.
func initPath() (string, error) {
	f, err := initFile()
	switch {
	case err != nil:
		return "", fmt.Errorf("the embedded init process: %w", err)
	case f == nil:
		return selfPath, nil
	}
	return fdPath(int(f.Fd())), nil
}

// openInit makes the memory file; nil where there is nothing embedded.
func openInit() (*os.File, error) {
	program, err := embedded.Open("embedded/init")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer program.Close()
	f, err := memfd("stella-init")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.ReadFrom(program); err != nil {
		return nil, err
	}
	if err := addSeals(f); err != nil {
		return nil, fmt.Errorf("sealing it: %w", err)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, initFD)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "stella-init"), nil
}
