package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// MaxSocketPath is the longest path that a Unix socket can have on Linux.
const MaxSocketPath = 107

// Listen makes the control socket at path, with mode 0600, and replaces a
// socket that is there: whoever calls it holds the site's lock, so that one
// belongs to a holder that died. It replaces nothing but a socket. The socket
// appears with its final mode in one rename. Closing the listener removes it,
// unless another has taken its place.
func Listen(path string) (net.Listener, error) {
	if len(path) > MaxSocketPath {
		return nil, fmt.Errorf("server: socket path %q is longer than %d bytes", path, MaxSocketPath)
	}
	if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("server: %s is in the way: not a socket", path)
	}
	// A name as short as the socket's usual one, so that it fits wherever that fits.
	tmp := filepath.Join(filepath.Dir(path), ".stella.new")
	if len(tmp) > MaxSocketPath {
		tmp = path
	}
	if err := removeSocket(tmp); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("server: listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	own, err := place(tmp, path)
	if err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, fmt.Errorf("server: listen on %s: %w", path, err)
	}
	return &listener{UnixListener: l, path: path, own: own}, nil
}

// place gives the socket at tmp its mode and its name.
func place(tmp, path string) (fs.FileInfo, error) {
	if err := os.Chmod(tmp, 0o600); err != nil {
		return nil, err
	}
	own, err := os.Lstat(tmp)
	if err != nil {
		return nil, err
	}
	if tmp == path {
		return own, nil
	}
	return own, os.Rename(tmp, path)
}

func removeSocket(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("server: %s is in the way: not a socket", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}

// listener removes its socket when it is closed.
type listener struct {
	*net.UnixListener
	path string
	own  fs.FileInfo
}

func (l *listener) Close() error {
	if fi, err := os.Lstat(l.path); err == nil && os.SameFile(fi, l.own) {
		os.Remove(l.path)
	}
	err := l.UnixListener.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// notServed says whether a failure to connect means that nobody listens.
func notServed(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOTDIR)
}
