package runner_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// keeping is a runner of this world that keeps workspaces by a rule.
func (w *world) keeping(keep manifests.Keep, workers int) *runner.Runner {
	return runner.New(runner.Options{
		Store: w.db, Sealed: w.sealed, Executor: w.exec, Now: w.now, Workers: workers, Parallel: workers, KeepWorkspaces: keep,
		RunsDir: filepath.Join(w.home, "runs"), LogsDir: filepath.Join(w.home, "logs"), HMACKey: []byte("k"), Owner: "test",
	})
}

// left lists what lies in the folders of workspaces, but for its first part.
func (w *world) left() string {
	w.t.Helper()
	paths, err := filepath.Glob(filepath.Join(w.home, "runs", "*", "*", "*"))
	if err != nil {
		w.t.Fatal(err)
	}
	for i, p := range paths {
		paths[i] = filepath.Join(filepath.Base(filepath.Dir(p)), filepath.Base(p))
	}
	slices.Sort(paths)
	return strings.Join(paths, " ")
}

func TestWorkspacesAreKeptAsTheSiteSays(t *testing.T) {
	for keep, want := range map[manifests.Keep]string{
		"": "bad/1", manifests.KeepFailed: "bad/1", manifests.KeepNever: "", manifests.KeepAlways: "bad/1 good/1",
	} {
		t.Run("keep "+string(keep), func(t *testing.T) {
			w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
				// What a plugin may leave: a link out, and a folder that cannot be read.
				outside := filepath.Join(t.TempDir(), "outside")
				err := errors.Join(task.MakeDir(), os.WriteFile(outside, []byte("keep"), 0o600))
				if err == nil {
					err = os.Symlink(outside, filepath.Join(task.Dir, "link"))
				}
				if err == nil {
					err = os.MkdirAll(filepath.Join(task.Dir, "a", "b"), 0o700)
				}
				if err == nil {
					err = os.Chmod(filepath.Join(task.Dir, "a"), 0)
				}
				if err != nil {
					t.Error(err)
				}
				t.Cleanup(func() {
					if _, err := os.Stat(outside); err != nil {
						t.Errorf("what a link named is gone: %v", err)
					}
				})
				if task.StepID == "bad" {
					return exit(1), nil
				}
				return exit(0), nil
			})
			t.Cleanup(func() {
				for _, dir := range []string{"bad", "good"} { // so that the test's folder can be removed
					paths, _ := filepath.Glob(filepath.Join(w.home, "runs", "*", dir, "*", "a"))
					for _, p := range paths {
						_ = os.Chmod(p, 0o700)
					}
				}
			})
			w.r = w.keeping(keep, 1)
			d := dag(func(d *manifests.DAG) { d.FailFast = false }, "bad", "good")
			w.finish(w.start(d, "{}").RunID)
			if diff := cmp.Diff(want, w.left()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Whoever removes the last workspace of a run removes its folder; a step that is
// about to make its own does not suffer for it.
func TestWorkspacesOfOneRunDoNotDisturbEachOther(t *testing.T) {
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) { return exit(0), task.MakeDir() })
	w.r = w.keeping(manifests.KeepFailed, 8)
	steps := make([]string, 100)
	for i := range steps {
		steps[i] = fmt.Sprintf("s%d", i)
	}
	run, _ := w.finish(w.start(dag(nil, steps...), "{}").RunID)
	attempts, err := w.db.Attempts(run.RunID, "")
	if err != nil {
		t.Fatal(err)
	}
	if run.Status != state.Completed || len(attempts) != len(steps) {
		t.Errorf("the run is %s after %d attempts at %d steps", run.Status, len(attempts), len(steps))
	}
	if left := w.left(); left != "" {
		t.Errorf("left: %s", left)
	}
}
