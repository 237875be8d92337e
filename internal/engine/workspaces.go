package engine

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

var _ api.Workspaces = (*site)(nil)

// Limits of what is told of workspaces, and of what looking at them costs.
const (
	maxWorkspaces     = 1000
	maxWorkspaceFails = 100
	maxWorkspaceRuns  = 1000    // in one entry
	maxMeasured       = 200_000 // files of one list
)

// ListWorkspaces lists the folders of attempts that are kept.
func (s *site) ListWorkspaces(ctx context.Context, q api.WorkspaceQuery) (api.WorkspacePage, error) {
	out := api.WorkspacePage{Workspaces: []api.Workspace{}}
	if q.RunID != "" {
		if _, err := s.run(q.RunID); err != nil {
			return out, err
		}
	}
	root, err := s.e.workspaceRoot()
	if root == nil || err != nil {
		return out, err
	}
	defer root.Close()
	all, err := s.workspaces(ctx, root, q.RunID)
	if err != nil {
		return out, err
	}
	if q.Stale {
		all = slices.DeleteFunc(all, func(w api.Workspace) bool { return w.State != api.WorkspaceStale })
	}
	if len(all) > maxWorkspaces {
		all, out.More = all[:maxWorkspaces], len(all)-maxWorkspaces
	}
	left := int64(maxMeasured)
	for i := range all {
		if err := measure(ctx, root, &all[i], &left); err != nil {
			return out, err
		}
	}
	out.Workspaces = append(out.Workspaces, all...)
	return out, nil
}

// workspaceRoot opens the folder of workspaces; it is nil where there is none
// yet.
func (e *Engine) workspaceRoot() (*os.Root, error) {
	root, err := os.OpenRoot(filepath.Join(e.opt.Home, "runs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, internal(err)
	}
	return root, nil
}

// measure fills in the size of a workspace, as far as what is left to look at
// goes.
func measure(ctx context.Context, root *os.Root, w *api.Workspace, left *int64) error {
	size, err := fsx.Measure(ctx, root, w.Path, *left)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	*left = max(0, *left-size.Files)
	// One that an attempt which succeeded has just taken away has no size.
	w.Files, w.Bytes, w.Partial = size.Files, size.Bytes, size.Partial || err != nil && !errors.Is(err, fs.ErrNotExist)
	return nil
}

// workspaces looks through the folder and says of each what the ledger knows of
// it. The folder is read first: an attempt is on record before its workspace is
// made, so what nobody knows then is nobody's.
func (s *site) workspaces(ctx context.Context, root *os.Root, runID string) ([]api.Workspace, error) {
	names, err := folder(root, ".")
	if err != nil {
		return nil, internal(err)
	}
	var out []api.Workspace
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if runID != "" && name != runID {
			continue
		}
		of, err := s.workspacesOf(root, name)
		if err != nil {
			return nil, err
		}
		out = append(out, of...)
	}
	return out, nil
}

func stray(name, why string) api.Workspace {
	return api.Workspace{Path: name, State: api.WorkspaceStale, Why: why}
}

// workspacesOf are those of one run; of one that another tenant's run has made
// nothing is told.
func (s *site) workspacesOf(root *os.Root, name string) ([]api.Workspace, error) {
	if fsx.IsTemp(name) {
		return []api.Workspace{stray(name, "an earlier removal has left it")}, nil
	}
	steps, err := folder(root, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil // its last workspace was removed meanwhile
	case errors.Is(err, errNoFolder) || !isRunID(name):
		return []api.Workspace{stray(name, "it is not of stella's making")}, nil
	case err != nil:
		return nil, internal(err)
	}
	run, err := s.e.db.Run(name)
	switch {
	case store.IsNotFound(err):
		w := stray(name, "no such run is on record")
		w.RunID = name
		return []api.Workspace{w}, nil
	case err != nil:
		return nil, dbError(err)
	case run.Tenant != s.tenant:
		return nil, nil
	}
	attempts, err := s.e.db.Attempts(name, "")
	if err != nil {
		return nil, dbError(err)
	}
	known := map[string]*state.Attempt{}
	for i := range attempts {
		known[path.Join(name, attempts[i].StepID, strconv.Itoa(attempts[i].Attempt))] = &attempts[i]
	}
	var out []api.Workspace
	for _, step := range steps {
		of, err := workspacesOfStep(root, &run, step, known)
		if err != nil {
			return nil, err
		}
		for i := range of {
			if of[i].State == api.WorkspaceActive && s.e.unkempt {
				of[i].State, of[i].Why = api.WorkspaceKept, "its attempt was under way when its process ended"
			}
		}
		out = append(out, of...)
	}
	return out, nil
}

func workspacesOfStep(root *os.Root, run *state.Run, step string, known map[string]*state.Attempt) ([]api.Workspace, error) {
	at := path.Join(run.RunID, step)
	names, err := folder(root, at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, errNoFolder):
		w := stray(at, "it is not of stella's making")
		w.RunID = run.RunID
		return []api.Workspace{w}, nil
	case err != nil:
		return nil, internal(err)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) })
	out := make([]api.Workspace, len(names))
	for i, name := range names {
		w := api.Workspace{Path: path.Join(at, name), RunID: run.RunID, DAGID: run.DAGID, StepID: step}
		a := known[w.Path]
		switch {
		case a == nil:
			w.StepID, w.State, w.Why = "", api.WorkspaceStale, "no such attempt is on record"
		case a.End == nil:
			w.Attempt, w.State, w.Why = a.Attempt, api.WorkspaceActive, "its attempt is under way"
		case run.Status.Ended():
			w.Attempt, w.State, w.Why = a.Attempt, api.WorkspaceStale, "its run is "+string(run.Status)
		default:
			w.Attempt, w.State, w.Why = a.Attempt, api.WorkspaceKept, "its run is open; its attempt: "+a.End.Outcome
		}
		if a != nil {
			w.EndedUTC = a.EndedUTC
		}
		out[i] = w
	}
	return out, nil
}

// errNoFolder says that something else lies where a folder was expected.
var errNoFolder = errors.New("engine: not a folder")

// folder lists the names in a folder, sorted. A link to one is none.
func folder(root *os.Root, name string) ([]string, error) {
	fi, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, errNoFolder
	}
	d, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// isRunID says whether a name is one that a run can have.
func isRunID(s string) bool {
	return len(s) == 36 && strings.Trim(s, "0123456789abcdef-") == ""
}

// CleanWorkspaces removes what is stale, and records it.
func (s *site) CleanWorkspaces(ctx context.Context, req api.WorkspaceCleanup, p api.Progress) (api.WorkspaceReport, error) {
	out := api.WorkspaceReport{DryRun: req.DryRun, Workspaces: []api.Workspace{}, Failed: []api.WorkspaceFailure{}}
	if req.OlderThanMs < 0 || req.OlderThanMs > int64(100*365*24*time.Hour/time.Millisecond) {
		return out, invalid("older-than is a span of time from now back, at most 100 years")
	}
	if err := s.e.failed(); err != nil && !req.DryRun { // what cannot be recorded is not done
		return out, err
	}
	s.e.collecting.Lock()
	defer s.e.collecting.Unlock()
	root, err := s.e.workspaceRoot()
	if root == nil || err != nil {
		return out, err
	}
	defer root.Close()
	all, err := s.workspaces(ctx, root, "")
	if err != nil {
		return out, err
	}
	now, err := s.e.clock() // one that is not believed makes nothing old
	if err != nil {
		return out, err
	}
	before := now.Add(-time.Duration(req.OlderThanMs) * time.Millisecond)
	all = slices.DeleteFunc(all, func(w api.Workspace) bool {
		return w.State != api.WorkspaceStale || req.OlderThanMs > 0 && !endedBefore(root, &w, before)
	})
	c := cleanup{s: s, root: root, out: &out, runs: map[string]bool{}}
	for i := range all {
		if p != nil {
			p(int64(i), int64(len(all)))
		}
		if err = c.take(ctx, &all[i], req.DryRun); err != nil {
			break // what was removed until then is recorded nevertheless
		}
	}
	if out.Count == 0 && len(out.Failed) == 0 || req.DryRun {
		return out, err
	}
	entry := c.entry(req)
	var recorded error
	out.Seq, recorded = s.e.db.RecordWorkspaces(s.actor, entry)
	return out, errors.Join(err, dbError(recorded))
}

// endedBefore says whether a workspace has been left for long enough: since the
// end of its attempt, or where nobody knows of that, since it was changed.
func endedBefore(root *os.Root, w *api.Workspace, before time.Time) bool {
	if t, err := stamp.Parse(w.EndedUTC); err == nil {
		return t.Before(before)
	}
	fi, err := root.Lstat(w.Path)
	return err == nil && fi.ModTime().Before(before)
}

// cleanup is one cleanup under way.
type cleanup struct {
	s      *site
	root   *os.Root
	out    *api.WorkspaceReport
	runs   map[string]bool // whose workspaces were removed
	looked int64           // files, for a dry run
	failed int64
}

// take removes one workspace, or only measures it.
func (c *cleanup) take(ctx context.Context, w *api.Workspace, dryRun bool) error {
	if dryRun {
		left := max(0, maxMeasured-c.looked)
		if err := measure(ctx, c.root, w, &left); err != nil {
			return err
		}
		c.looked += w.Files
	} else {
		size, err := fsx.RemoveTree(ctx, c.root, w.Path)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.Files, w.Bytes = size.Files, size.Bytes
		c.prune(w.Path)
		if err != nil {
			c.fail(w, err)
			return nil
		}
	}
	c.out.Count++
	c.out.Files += w.Files
	c.out.Bytes += w.Bytes
	c.out.Partial = c.out.Partial || w.Partial
	if len(c.out.Workspaces) < maxWorkspaces {
		c.out.Workspaces = append(c.out.Workspaces, *w)
	}
	if w.RunID != "" {
		c.runs[w.RunID] = true
	}
	return nil
}

func (c *cleanup) fail(w *api.Workspace, err error) {
	c.failed++
	c.out.Files += w.Files
	c.out.Bytes += w.Bytes
	if len(c.out.Failed) == maxWorkspaceFails {
		c.out.FailedMore++
		return
	}
	c.out.Failed = append(c.out.Failed, api.WorkspaceFailure{Path: w.Path, Why: err.Error()})
}

// prune removes the folders of step and run where nothing else is left in them.
// One that an attempt is about to use is made anew by whoever misses it.
func (c *cleanup) prune(name string) {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if c.root.Remove(dir) != nil {
			return
		}
	}
}

func (c *cleanup) entry(req api.WorkspaceCleanup) *ledger.WorkspaceRemoval {
	runs := make([]string, 0, len(c.runs))
	for id := range c.runs {
		runs = append(runs, id)
	}
	slices.Sort(runs)
	d := &ledger.WorkspaceRemoval{
		Count: c.out.Count, Files: c.out.Files, Bytes: c.out.Bytes, OlderThanMs: req.OlderThanMs, Failed: c.failed,
	}
	if len(runs) > maxWorkspaceRuns {
		runs, d.MoreRuns = runs[:maxWorkspaceRuns], int64(len(runs)-maxWorkspaceRuns)
	}
	d.Runs = runs
	return d
}
