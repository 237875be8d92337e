package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// What keeps a site from being opened is called by its name, and the hint fits it.
func TestWhatKeepsASiteFromOpeningHasAHintThatFits(t *testing.T) {
	for _, c := range []struct {
		err  error
		code api.Code
		hint string
	}{
		{syscall.EBUSY, api.CodeNotWritable, "remove what is in the way"},
		{syscall.ENOTEMPTY, api.CodeNotWritable, "remove what is in the way"},
		{syscall.EIO, api.CodeNotWritable, "the site is as it was; see to the disk"},
		{syscall.ENOMEM, api.CodeNotWritable, "the site is as it was; raise the limit"},
		{syscall.EFBIG, api.CodeNotWritable, "the site is as it was; raise the limit"},
		{syscall.ENOSYS, api.CodeNotWritable, "the site is as it was; see to what the system says"},
		{syscall.EROFS, api.CodeNotWritable, "mount it read-write"},
		{syscall.EACCES, api.CodeNotWritable, "it must belong to user"},
		{syscall.ENOSPC, api.CodeNoSpace, "free space"},
		{fmt.Errorf("%w: %w", store.ErrUnsynced, &fs.PathError{Op: "sync", Path: "/x", Err: syscall.EIO}), api.CodeNotWritable, "see to the disk"},
		{fmt.Errorf("%w: %w", store.ErrUnsynced, &fs.PathError{Op: "sync", Path: "/x", Err: syscall.ENOSPC}), api.CodeNotWritable, "see to the disk"},
		{fmt.Errorf("%w: schema 9, this one knows 4", store.ErrNewerSchema), api.CodeNewer, "use the stella that wrote it"},
		{syscall.ENOENT, api.CodeDamaged, "keep the home folder as it is"},
	} {
		var e *api.Error
		if !errors.As(openError("/home", fmt.Errorf("store: %w", c.err)), &e) || e.Code != c.code || !strings.HasPrefix(strings.TrimPrefix(e.Hint, "the site is as it was; "), strings.TrimPrefix(c.hint, "the site is as it was; ")) {
			t.Errorf("%v: %v, hint %q", c.err, e, e.Hint)
		}
		if asItWas := strings.Contains(e.Hint, "as it was"); asItWas && errors.Is(c.err, store.ErrUnsynced) {
			t.Errorf("%v: hint %q", c.err, e.Hint)
		}
		if in := "/home is in the form of this stella now"; errors.Is(c.err, store.ErrUnsynced) != strings.Contains(e.Message, in) {
			t.Errorf("%v: %v", c.err, e)
		}
	}
}

// A disk that fails, and a limit of the process, are no damage of what lies there: nobody is
// to recover a ledger, or to put back keys, for them.
func TestADiskThatFailsIsNoDamage(t *testing.T) {
	eio := &fs.PathError{Op: "read", Path: "/home/x", Err: syscall.EIO}
	for what, err := range map[string]error{
		"keys":                  notRead("/home", eio, damaged("keys: %v", eio)),
		"a recovery that reads": recoverError("/home", fmt.Errorf("store: %w", eio)),
		"a check":               dbError(fmt.Errorf("store: %w", eio)),
	} {
		if e, ok := err.(*api.Error); !ok || e.Code != api.CodeNotWritable || !strings.Contains(e.Message, "fails: ") || !strings.Contains(e.Hint, "copy the home to another") {
			t.Errorf("%s: %+v", what, err)
		}
	}
	if e := notRead("/home", fs.ErrNotExist, damaged("keys")).(*api.Error); e.Code != api.CodeDamaged {
		t.Errorf("keys that are missing: %v", e)
	}
}
