package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// An ArtifactError says why a file is not handed over.
type ArtifactError struct{ Path, Problem string }

func (e *ArtifactError) Error() string {
	return fmt.Sprintf("sandbox: artifact %s: %s", e.Path, e.Problem)
}

// openArtifact opens a regular file with one name below dir, if dir is still
// the folder that was made for the attempt. Links are followed at no place: a
// link in the middle is an error as one at the end is. It never waits.
func openArtifact(dir string, id fileID, path string) (io.ReadCloser, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err != nil {
		return nil, err
	}
	if idOf(info) != id {
		return nil, &ArtifactError{path, "the artifacts folder was replaced"}
	}
	if err := noLinks(root, path); err != nil {
		return nil, err
	}
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := checkArtifact(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// noLinks looks at each part of the path by itself, since [os.Root] follows
// links that stay inside.
func noLinks(root *os.Root, path string) error {
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		info, err := root.Lstat(path[:i])
		switch {
		case err != nil:
			return err
		case i < len(path) && !info.IsDir():
			return &ArtifactError{path, "a part of its path is not a folder"}
		case i == len(path) && !info.Mode().IsRegular():
			return &ArtifactError{path, "not a regular file: " + kindOf(info.Mode())}
		}
	}
	return nil
}

// checkArtifact looks at what is open, in case it is not what was looked at.
func checkArtifact(f *os.File, path string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &ArtifactError{path, "not a regular file: " + kindOf(info.Mode())}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Nlink != 1 {
		return &ArtifactError{path, "a file with more than one name (hard links)"}
	}
	return nil
}

func kindOf(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}
