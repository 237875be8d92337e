package runner

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

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
	os.Remove(filepath.Dir(dir)) // only where nothing else is left in it
	os.Remove(filepath.Dir(filepath.Dir(dir)))
	return err
}

func removeBelow(dir, name string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	// The attempt is over, whatever becomes of the caller: its cleaning up is not
	// given up halfway.
	_, err = fsx.RemoveTree(context.Background(), root, name)
	return errors.Join(err, root.Close())
}
