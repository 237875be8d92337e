package runner

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// workspaceTries bounds how often the folders above a workspace are made anew:
// whoever removes the last workspace in them removes them too.
const workspaceTries = 10

// workspace is the folder of an attempt, from the moment at which its executor
// asks for it.
type workspace struct {
	r    *Runner
	dir  string
	made bool
}

// make makes the fresh folder.
func (w *workspace) make() error {
	for i := 1; ; i++ {
		err := os.MkdirAll(filepath.Dir(w.dir), 0o700)
		if err == nil {
			err = os.Mkdir(w.dir, 0o700)
		}
		if !errors.Is(err, fs.ErrNotExist) || i == workspaceTries {
			w.made = err == nil
			return err
		}
	}
}

// letGo removes the workspace of an attempt that has ended, unless the site
// keeps it: by default that of one which did not succeed, for whoever looks
// into it. What a plugin has left there is removed without following its links.
func (w *workspace) letGo(end *ledger.AttemptEnd) {
	r, dir := w.r, w.dir
	switch r.opt.KeepWorkspaces {
	case manifests.KeepAlways:
		return
	case manifests.KeepNever:
	default:
		if end.Outcome != string(state.Succeeded) {
			return
		}
	}
	if !w.made {
		return
	}
	if err := r.removeWorkspace(dir); err != nil {
		r.opt.Log.Warn("a workspace could not be removed", "dir", dir, "error", err)
	}
}

func (r *Runner) removeWorkspace(dir string) error {
	rel, err := filepath.Rel(r.opt.RunsDir, dir)
	if err == nil {
		err = removeBelow(r.opt.RunsDir, rel)
	}
	syscall.Rmdir(filepath.Dir(dir)) // only where nothing else is left in it
	syscall.Rmdir(filepath.Dir(filepath.Dir(dir)))
	return err
}

func removeBelow(dir, name string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	if !removeBare(root, name) {
		// The attempt is over, whatever becomes of the caller: its cleaning up is
		// not given up halfway.
		_, err = fsx.RemoveTree(context.Background(), root, name)
	}
	return errors.Join(err, root.Close())
}

// removeBare removes a workspace in whose folders nothing was left, which is the
// usual case and a fraction of the work. It says whether that was so.
func removeBare(root *os.Root, name string) bool {
	const most = 16 // entries of a workspace that nobody has added to
	dir, err := root.OpenRoot(name)
	if err != nil {
		return false
	}
	defer dir.Close()
	f, err := dir.Open(".")
	if err != nil {
		return false
	}
	defer f.Close()
	names, err := f.Readdirnames(most)
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	for _, n := range names {
		if dir.Remove(n) != nil { // a folder with something in it
			return false
		}
	}
	return root.Remove(name) == nil
}
