package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// A disk that is full. Who only reads is served all the same; who cannot write is told
// what may be removed.

// helpsLarge is the hint about a file that is larger than the system lets it be.
const helpsLarge = "raise the limit of the size of files (ulimit -f)"

// noSpace says whether err is about a disk, or a share of one, that is full.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// unwritten is the error of a write that the disk has not taken, nil where err is about
// something else.
func unwritten(err error) error {
	text := fmt.Sprint(err)
	if file := (*os.PathError)(nil); errors.As(err, &file) {
		text = file.Error() // and not who noticed, and what became of the store
	}
	switch {
	case noSpace(err):
		return &api.Error{Code: api.CodeNoSpace, Message: "there is no space left: " + text, Hint: "free space, then try again: nothing that was acknowledged is lost"}
	case errors.Is(err, store.ErrFailed):
		helps := "mend the disk"
		if errors.Is(err, syscall.EFBIG) {
			helps = helpsLarge
		}
		return &api.Error{Code: api.CodeNotWritable, Message: "the ledger could not be written: " + text,
			Hint: helps + ", then try again: nothing that was acknowledged is lost"}
	}
	return nil
}

// Room says how much room a home has, without opening its site.
func Room(home string) (api.Disk, error) {
	site, _, err := readSite(home)
	if err != nil {
		return api.Disk{}, err
	}
	return room(home, site.FreeSpaceReserve)
}

func room(home string, reserved int64) (api.Disk, error) {
	free, err := freeIn(home)
	return api.Disk{Free: free, Reserved: reserved}, err
}

// freeIn is how many bytes the disk of a folder has for whoever is not root.
func freeIn(dir string) (int64, error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(disk.Bavail) * disk.Bsize, nil
}

// failed says why nothing is written any more, nil while something is.
func (e *Engine) failed() error {
	if err := e.db.Failure(); err != nil {
		return unwritten(fmt.Errorf("%w: %w", store.ErrFailed, err))
	}
	return nil
}

// onlyReads says whether a site whose disk is full is opened all the same, for a
// command: what it reads is there, and what it writes is refused with this error.
func (e *Engine) onlyReads(err error) bool {
	if e.opt.Mode != ModeCommand || !noSpace(err) {
		return false
	}
	e.db.Refuse(err)
	e.unkempt = true
	return true
}

// Unkempt says whether the site was opened although the disk was too full to put in
// order what a process that died has left behind: runs and attempts of it are shown as
// they were.
func (e *Engine) Unkempt() bool { return e.unkempt }

// Limits of a look at what attempts have left.
const (
	maxLeftFiles = 200_000
	minLeftBytes = 1 << 20 // what is smaller helps nobody
)

// Help adds to an error about space which folder may go, where no attempt is under way:
// this process holds the site, so that then none is anywhere.
func (e *Engine) Help(ctx context.Context, err error) error {
	var known *api.Error
	if !errors.As(err, &known) || known.Code != api.CodeNoSpace {
		return err
	}
	if e.runner != nil {
		if executing, _, _ := e.runner.Load(); executing > 0 {
			return err
		}
	}
	dir, bytes := e.largestLeft(ctx)
	if bytes < minLeftBytes {
		return err
	}
	out := *known
	out.Hint = fmt.Sprintf("%s holds %d MiB that an attempt has left; no attempt is under way, so it may go: remove it (rm -r), then try again; stella workspace list shows the others",
		filepath.Join(e.opt.Home, "runs", dir), bytes>>20)
	return &out
}

// largestLeft is the workspace that takes most room, as far as one looks.
func (e *Engine) largestLeft(ctx context.Context) (dir string, most int64) {
	root, err := e.workspaceRoot()
	if root == nil || err != nil {
		return "", 0
	}
	defer root.Close()
	left := int64(maxLeftFiles)
	var look func(name string, depth int)
	look = func(name string, depth int) {
		if depth == 3 {
			size, _ := fsx.Measure(ctx, root, name, left)
			if left = max(0, left-size.Files); size.Bytes > most {
				dir, most = name, size.Bytes
			}
			return
		}
		names, _ := folder(root, name) // what cannot be read is no help
		for _, x := range names {
			if left > 0 && ctx.Err() == nil {
				look(path.Join(name, x), depth+1)
			}
		}
	}
	look(".", 0)
	return dir, most
}
