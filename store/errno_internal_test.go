package store

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
)

// What bbolt says in words only has its errno again, and no other error another.
func TestAnErrnoInWords(t *testing.T) {
	full := fmt.Errorf("file sync error: %s", syscall.ENOSPC)
	if err := withErrno(full); !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, full) || err.Error() != full.Error() {
		t.Errorf("%v", err)
	}
	for _, err := range []error{nil, errors.New("x"), errors.New("x: input"), fmt.Errorf("no space left on device: %w", syscall.EIO)} {
		if got := withErrno(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}
