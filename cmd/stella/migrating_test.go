package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/stellarun/stella/internal/engine"
)

// cmdHold holds the locks of files until the end of the script, as a process that hangs
// does, or with ! until now; files that are not there are made.
func cmdHold(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: hold file...")
	}
	held, _ := ts.Value(holding{}).(map[string]*os.File)
	for _, name := range args {
		path := ts.MkAbs(name)
		if neg {
			ts.Check(held[path].Close())
			delete(held, path)
			continue
		}
		f, err := lockFile(path)
		ts.Check(err)
		held[path] = f
		ts.Defer(func() { f.Close() })
	}
}

// holding is the key of the files that a script holds.
type holding struct{}

// lockFile makes a file, if need be, and locks it as bbolt does.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return f, syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// A site that is being brought up to date: who waits for it is told so, and a daemon that
// does it is waited for as long as it does.
func TestASiteThatIsBroughtUpToDateIsWaitedFor(t *testing.T) {
	home := tempHome(t, "home")
	if _, err := engine.Init(home, engine.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	holder, err := engine.Open(t.Context(), engine.Options{Home: home})
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	created := filepath.Join(home, "ledger.db.new")
	f, err := lockFile(created)
	if err != nil {
		t.Fatal(err)
	}
	a, _, stderr := newTestApp(home)
	a.patience = 0
	const says = "\nhint: it is bringing the site up to the form of this stella"
	if code := run(t.Context(), a, []string{"status"}); code != exitLocked || !strings.Contains(stderr.String(), says) {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	for _, c := range []struct {
		name        string
		migrates    bool
		writes      bool
		least, most time.Duration
	}{
		{"it goes on", true, true, daemonEnds, daemonEnds + time.Second},
		{"it hangs", true, false, daemonPatience, daemonPatience + 2*migrationPatience},
		{"a file is left over", false, false, daemonPatience, daemonPatience + time.Second},
	} {
		if !c.migrates {
			f.Close()
		}
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { waits(t, a, created, c.writes, c.least, c.most) })
		})
	}
	a, _, stderr = newTestApp(home)
	a.patience = 0
	if code := run(t.Context(), a, []string{"status"}); code != exitLocked || strings.Contains(stderr.String(), says) {
		t.Errorf("what is left over: exit %d, stderr %q", code, stderr)
	}
}

// daemonEnds is when the daemon of the test ends by itself.
const daemonEnds = 6 * time.Minute

// waits wants an app to wait for a daemon, at least and at most so long.
func waits(t *testing.T, a *app, created string, writes bool, least, most time.Duration) {
	told := make(chan []byte, 1)
	told <- nil
	c := &daemonChild{pid: 1, log: filepath.Join(a.opt.home, "no log"), ended: make(chan error, 1), told: told}
	defer time.AfterFunc(daemonEnds, func() { c.ended <- nil }).Stop()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for tick := time.Tick(daemonPatience / 2); writes; {
			select {
			case <-tick:
				_ = os.Chtimes(created, time.Now(), time.Now())
			case <-ctx.Done():
				return
			}
		}
	}()
	began := time.Now()
	_, err := a.untilServed(t.Context(), c)
	if waited := time.Since(began); err == nil || waited < least || waited > most {
		t.Errorf("after %v: %v", waited, err)
	}
}

// A signal ends a command that brings a site up to date, and leaves the site as it was.
func TestASignalEndsAMigration(t *testing.T) {
	for _, args := range [][]string{{"orch", "run", "list"}, {"orch", "run", "resume", "--all"}, {"daemon", "start", "--foreground"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			home := filepath.Join(tempHome(t), "site")
			if err := unpackSite(filepath.Join("..", "..", "testdata", "sites", "schema3.tar.zst"), home, new(time.Time)); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(filepath.Join(home, "ledger.db"))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(errInterrupted)
			a, stdout, stderr := newTestApp(home)
			if code := run(ctx, a, args); code != exitInterrupted || stdout.Len() > 0 || !strings.Contains(stderr.String(), ": interrupted; the site is as it was\n") {
				t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
			}
			after, err := os.ReadFile(filepath.Join(home, "ledger.db"))
			if err != nil || !bytes.Equal(after, before) {
				t.Errorf("the site is not as it was: %v", err)
			}
			if left, err := filepath.Glob(filepath.Join(home, "ledger.db.*")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}
