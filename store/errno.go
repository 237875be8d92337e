package store

import (
	"errors"
	"strings"
	"syscall"
)

// A wordedError is an error that has an errno in words only.
type wordedError struct {
	error
	errno syscall.Errno
}

func (e *wordedError) Unwrap() []error { return []error{e.error, e.errno} }

// withErrno gives an error of bbolt the errno back that it is about: what the growth of a file has
// failed at it says in words (DB.grow of v1.5.0), and a full disk would pass for a broken one.
func withErrno(err error) error {
	var known syscall.Errno
	if err == nil || errors.As(err, &known) {
		return err
	}
	for errno := syscall.Errno(1); errno <= 133; errno++ { // EHWPOISON is the last there is
		if strings.HasSuffix(err.Error(), ": "+errno.Error()) {
			return &wordedError{err, errno}
		}
	}
	return err
}
