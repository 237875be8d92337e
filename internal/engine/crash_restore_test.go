//go:build failpoint

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// TestCrashRestoreChild is the process that is killed: it makes a snapshot, compacts, and
// restores, and says what it was told is done.
func TestCrashRestoreChild(t *testing.T) {
	home := os.Getenv("STELLA_CRASH_RESTORE")
	if home == "" {
		t.Skip("it is started by TestCrashInARestore")
	}
	if err := keepHouse(home); err != nil {
		fmt.Println("failed:", err)
		os.Exit(3)
	}
	os.Exit(0)
}

func keepHouse(home string) error {
	ctx := context.Background()
	e, err := engine.Open(ctx, engine.Options{Home: home, Version: "0.1.0"})
	if err != nil {
		return err
	}
	snap, err := e.As(api.Principal{Name: who}).CreateSnapshot(ctx, api.SnapshotRequest{}, nil)
	if err == nil {
		fmt.Println("snapshot", snap.ID)
		_, err = e.As(api.Principal{Name: who}).RevokeTrust(ctx, api.TrustRevocation{Blob: strings.Repeat("0", 64), Reason: "after the snapshot"})
	}
	if err := errors.Join(err, e.Close()); err != nil {
		return err
	}
	if _, err := engine.Compact(ctx, engine.Options{Home: home, Version: "0.1.0"}, who, false); err != nil {
		return err
	}
	fmt.Println("compacted")
	if _, err = restoreLatest(home); err == nil {
		fmt.Println("restored")
	}
	return err
}

func restoreLatest(home string) (api.Restored, error) {
	return engine.Restore(context.Background(), engine.RestoreOptions{Home: home, Latest: true, Actor: who, Reason: "a test"})
}

// Wherever a snapshot, a compaction or a restore is cut off, or fails: a snapshot that is listed is
// whole, and the site opens as it was before or after, or says that a restore was cut off,
// which the same command finishes.
func TestCrashInARestore(t *testing.T) {
	l := newLab(t)
	l.importFile(l.dataFile("audit-data", 1, map[string]string{"a.txt": strings.Repeat("a", 5000)}))
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		failpoint.FSXWrite, failpoint.FSXSync, failpoint.FSXRename, failpoint.FSXSyncDir,
		failpoint.StoreCommitBefore, failpoint.StoreCommitAfter, failpoint.SnapshotWrite, failpoint.RestoreSwap,
	} {
		ways := []string{"kill"}
		if name == failpoint.RestoreSwap || name == failpoint.FSXRename {
			ways = append(ways, "error")
		}
		for _, how := range ways {
			for hit := 1; ; hit++ {
				home := filepath.Join(t.TempDir(), "site")
				copySite(t, l.home, home)
				if !crashRestoreOnce(t, home, fmt.Sprintf("%s=%d:%s", name, hit, how)) {
					if hit == 1 {
						t.Errorf("%s is not on the way", name)
					}
					break
				}
			}
		}
	}
}

func crashRestoreOnce(t *testing.T, home, fail string) (hit bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashRestoreChild$")
	cmd.Env = append(os.Environ(), "STELLA_CRASH_RESTORE="+home, failpoint.Env+"="+fail)
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == -1:
		hit = true
	case errors.As(err, &exit) && (strings.Contains(string(out), failpoint.ErrInjected.Error()) || strings.Contains(string(out), string(api.CodeRestoring))):
		hit = true
	case err != nil:
		t.Errorf("%s: the child ended with %v:\n%s", fail, err, out)
		return false
	}
	if err := afterRestoreCrash(home, string(out)); err != nil {
		t.Errorf("%s: %v; the child said:\n%s", fail, err, out)
	}
	return hit
}

func afterRestoreCrash(home, told string) error {
	ctx := context.Background()
	open := func(w *engine.Waiver) (*engine.Engine, error) {
		return engine.Open(ctx, engine.Options{Home: home, Version: "0.1.0", Waive: w})
	}
	e, err := open(nil)
	restored := strings.Contains(told, "restored")
	if codeOf(err) == api.CodeRestoring {
		r, rerr := restoreLatest(home)
		if rerr != nil || !r.Finished || r.Untold || !strings.Contains(told, r.Snapshot.ID) || r.Snapshot.Size == 0 ||
			r.Lost == 0 || r.Known != r.Snapshot.Size+r.Lost || r.Floors == nil || !r.Paused {
			return fmt.Errorf("finishing: %+v, %w", r, rerr)
		}
		restored = true
		e, err = open(nil)
	}
	if codeOf(err) == api.CodeFloorAhead {
		restored = true
		e, err = open(&engine.Waiver{Floor: "checkpoint.note", Reason: "a test", Actor: who})
	}
	if err != nil {
		return fmt.Errorf("the site does not open: %w", err)
	}
	site := e.As(api.Principal{Name: who})
	_, err = site.VerifyLedger(ctx, api.LedgerCheck{Full: true}, nil)
	rep, aerr := site.AuditStorage(ctx, nil)
	if err := errors.Join(err, aerr, e.Close()); err != nil || rep.Damage > 0 {
		return fmt.Errorf("it is damaged: %+v, %w", rep.Findings, err)
	}
	if restored {
		return nil
	}
	// What is listed can be restored, and what was acknowledged is listed.
	all, err := filepath.Glob(filepath.Join(home, "snapshots", "[0-9]*"))
	if err != nil || strings.HasPrefix(told, "snapshot ") && len(all) != 1 {
		return fmt.Errorf("the snapshots are %v, %w", all, err)
	}
	if len(all) > 0 {
		if _, err := restoreLatest(home); err != nil {
			return fmt.Errorf("a snapshot that is listed is not restored: %w", err)
		}
	}
	return nil
}

// A restore in a fresh place that is cut off leaves nothing of one snapshot in force that another,
// restored after it, does not have.
func TestCrashInAFreshPlace(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	config := filepath.Join(l.home, "site.toml")
	first, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(config)
	if err == nil {
		err = os.WriteFile(config, []byte(strings.Replace(string(raw), "allow_plain = true", "allow_plain = false", 1)), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.reopen()
	second, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.closed()
	for _, name := range []string{failpoint.FSXWrite, failpoint.FSXSync, failpoint.FSXRename, failpoint.FSXSyncDir, failpoint.StoreCommitBefore, failpoint.SealBlob, failpoint.RestoreSwap} {
		for hit := 1; ; hit++ {
			home := l.freshHome()
			fail := fmt.Sprintf("%s=%d:kill", name, hit)
			cmd := exec.Command(os.Args[0], "-test.run=^TestCrashInAFreshPlaceChild$")
			cmd.Env = append(os.Environ(), "STELLA_CRASH_FRESH="+home, "STELLA_CRASH_SNAPSHOT="+first.Path, failpoint.Env+"="+fail)
			if out, err := cmd.CombinedOutput(); err == nil {
				if hit == 1 {
					t.Errorf("%s is not on the way: %s", name, out)
				}
				break
			}
			_, err := os.Stat(filepath.Join(home, "ledger.db"))
			if u, uerr := store.CutOff(home); uerr == nil && u == nil && err == nil {
				continue // all was done
			}
			r, err := engine.Restore(ctx, engine.RestoreOptions{Home: home, Dir: filepath.Dir(second.Path), Latest: true, Actor: who})
			want, werr := os.ReadFile(filepath.Join(r.Snapshot.Path, "site.toml"))
			got, gerr := os.ReadFile(filepath.Join(home, "site.toml"))
			if err := errors.Join(err, werr, gerr); err != nil || r.Finished != (r.Snapshot.ID == first.ID) || string(got) != string(want) {
				t.Errorf("%s: %+v, %v: site.toml is %q", fail, r, err, got)
			}
		}
	}
}

// TestCrashInAFreshPlaceChild is the process that is killed.
func TestCrashInAFreshPlaceChild(t *testing.T) {
	home, snap := os.Getenv("STELLA_CRASH_FRESH"), os.Getenv("STELLA_CRASH_SNAPSHOT")
	if home == "" {
		t.Skip("it is started by TestCrashInAFreshPlace")
	}
	if _, err := engine.Restore(context.Background(), engine.RestoreOptions{Home: home, Dir: filepath.Dir(snap), ID: filepath.Base(snap), Actor: who}); err != nil {
		t.Fatal(err)
	}
}

// Where what was replaced is gone a restore that was cut off is finished: nothing says that it was
// put back.
func TestCrashAndNothingToPutBack(t *testing.T) {
	l, snap := snapped(t)
	for hit := 1; ; hit++ {
		home := filepath.Join(t.TempDir(), "site")
		copySite(t, l.home, home)
		cmd := exec.Command(os.Args[0], "-test.run=^TestCrashInAFreshPlaceChild$")
		cmd.Env = append(os.Environ(), "STELLA_CRASH_FRESH="+home, "STELLA_CRASH_SNAPSHOT="+snap.Path, fmt.Sprintf("%s=%s=%d:kill", failpoint.Env, failpoint.RestoreSwap, hit))
		if out, err := cmd.CombinedOutput(); err == nil {
			if hit < 7 {
				t.Errorf("after %d hits: %s", hit, out)
			}
			break
		}
		if err := os.RemoveAll(filepath.Join(home, "replaced")); err != nil {
			t.Fatal(err)
		}
		r, err := restoreLatest(home)
		if _, serr := os.Stat(filepath.Join(home, "restoring")); err != nil || !r.Finished || !errors.Is(serr, os.ErrNotExist) {
			t.Errorf("hit %d: %+v, %v; restoring/: %v", hit, r, err, serr)
		}
	}
}
