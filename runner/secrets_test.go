package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

const password = "hunter2+hunter2"

// granting is a vault whose secrets are granted to everybody, until taken back.
type granting struct {
	*store.Vault
	mu     sync.Mutex
	nobody bool
	asked  []runner.SecretWish
}

func (g *granting) Granted(w runner.SecretWish) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, w)
	return !g.nobody
}

func (g *granting) takeBack() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nobody = true
}

func (g *granting) Take(tenant, name string) (int64, []byte, error) {
	n, value, err := g.Vault.Take(tenant, name)
	if store.IsNotFound(err) {
		err = runner.ErrNoSecret
	}
	return n, value, err
}

// withSecrets lets the runner of a world have the secret db; the action go asks
// for it and for other.
func (w *world) withSecrets(plain bool) *granting {
	w.t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := w.db.OpenVault([]byte(id.String()))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := v.Add("x", "default", "db", []byte(password), false, ""); err != nil {
		w.t.Fatal(err)
	}
	w.sealed.plugin.Plugin.Actions["go"] = manifests.Action{Idempotent: true, Secrets: []string{"db", "other"}}
	g := &granting{Vault: v}
	w.r = w.giving(g, plain)
	return g
}

func (w *world) giving(g *granting, plain bool) *runner.Runner {
	return runner.New(runner.Options{
		Store: w.db, Sealed: w.sealed, Executor: w.exec, Now: w.now, Workers: 1, KeepWorkspaces: manifests.KeepAlways,
		RunsDir: filepath.Join(w.home, "runs"), LogsDir: filepath.Join(w.home, "logs"), HMACKey: []byte("k"), Owner: "test",
		Secrets: g, RedactKey: []byte("r"), PlainSecrets: plain,
	})
}

func needsDB(d *manifests.DAG) { d.Steps[0].Secrets = []string{"db"} }

func TestASecretReachesTheStepThatNamesItAndNothingElse(t *testing.T) {
	var seen []byte
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "b" {
			if len(task.Secrets) != 0 || task.Redact != nil || strings.Contains(string(task.Request), "secrets") {
				t.Error("a step that names no secret was given one")
			}
			return exit(0), nil
		}
		var req struct {
			Secrets []string
			Params  map[string]any
		}
		if err := json.Unmarshal(task.Request, &req); err != nil || !slices.Equal(req.Secrets, []string{"db"}) || strings.Contains(string(task.Request), password) {
			t.Errorf("the request is %s", task.Request)
		}
		if len(task.Secrets) != 1 || task.Secrets[0].Name != "db" || string(task.Secrets[0].Value) != password {
			t.Errorf("it was given %v", task.Secrets)
		}
		seen = task.Secrets[0].Value
		err := errors.Join(task.MakeDir(), os.WriteFile(filepath.Join(task.Dir, "copy"), task.Secrets[0].Value, 0o600))
		rep := exit(3)
		rep.Output.Error = &runner.PluginError{Code: "AUTH", Message: password + " was refused"}
		return rep, err
	})
	g := w.withSecrets(true)
	run := w.start(dag(func(d *manifests.DAG) { needsDB(d); d.FailFast = false }, "a", "b"), "{}")
	w.finish(run.RunID)
	a, err := w.db.Attempt(run.RunID, "a", 1)
	if err != nil || len(a.Start.Secrets) != 1 || a.Start.Secrets[0].Version != 1 {
		t.Errorf("the start is %+v, %v", a.Start, err)
	}
	if m := a.End.Message; !strings.HasPrefix(m, "AUTH: [redacted:db:") || !strings.HasSuffix(m, "] was refused") {
		t.Errorf("the message is %q", m)
	}
	if left := w.left(); strings.Contains(left, "a/1") {
		t.Errorf("its workspace is left: %s", left)
	}
	if strings.Trim(string(seen), "\x00") != "" {
		t.Errorf("the value is in memory still: %q", seen)
	}
	want := runner.SecretWish{Name: "db", Tenant: "default", DAGPublisher: "p", DAGID: "d", Publisher: "p", Plugin: "n"}
	if len(g.asked) == 0 || g.asked[0] != want {
		t.Errorf("asked for %+v, want %+v", g.asked, want)
	}
}

func TestASecretThatMayNotBeGivenRejectsTheAttempt(t *testing.T) {
	for _, c := range []struct {
		name, code string
		change     func(*world, *granting, *manifests.DAG)
	}{
		{"it is not granted", "SECRET_NOT_GRANTED", func(_ *world, g *granting, _ *manifests.DAG) { g.takeBack() }},
		{"there is none", "SECRET_MISSING", func(_ *world, _ *granting, d *manifests.DAG) { d.Steps[0].Secrets = []string{"other"} }},
		{"the action does not ask for it", "SECRET_NOT_GRANTED", func(_ *world, _ *granting, d *manifests.DAG) {
			d.Steps[0].Secrets, d.Steps[0].With = nil, map[string]any{"deep": []any{map[string]any{"secretRef": "third"}}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, ok)
			g := w.withSecrets(true)
			d := dag(needsDB, "a")
			c.change(w, g, d)
			run := w.start(d, "{}")
			got, _ := w.finish(run.RunID)
			a, err := w.db.Attempt(run.RunID, "a", 1)
			if err != nil || a.End.Outcome != "rejected" || a.End.ErrorCode != c.code || len(a.Start.Secrets) != 0 || got.FailureReason != c.code {
				t.Errorf("the run ended with %s, the attempt with %+v, %v", got.FailureReason, a.End, err)
			}
			if len(w.exec.seen) != 0 {
				t.Error("it was executed")
			}
		})
	}
	w := newWorld(t, ok)
	w.withSecrets(true)
	if _, err := w.tryStart(dag(func(d *manifests.DAG) { d.Steps[0].Secrets = []string{"third"} }, "a"), "{}"); err == nil || !strings.Contains(err.Error(), "asks for no secret third") {
		t.Errorf("a spec that names what the action cannot have was planned: %v", err)
	}
}

func TestWithoutFencesSecretsMustBeAllowed(t *testing.T) {
	w := newWorld(t, ok)
	w.withSecrets(false)
	run := w.start(dag(needsDB, "a"), "{}")
	if got, _ := w.finish(run.RunID); got.FailureReason != string(state.FenceUnavailable) || len(w.exec.seen) != 0 {
		t.Errorf("the run ended with %s, executed %v", got.FailureReason, w.exec.seen)
	}
}

// TestAGrantThatIsTakenBackEndsTheAttempt: as for whatever else trust allows.
func TestAGrantThatIsTakenBackEndsTheAttempt(t *testing.T) {
	started := make(chan struct{})
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		close(started)
		return ending(ctx, task)
	})
	g := w.withSecrets(true)
	run := w.start(dag(needsDB, "a"), "{}")
	go func() {
		<-started
		g.takeBack()
		if n := w.r.Rejudge(); n != 1 {
			t.Errorf("%d attempts were ended, want 1", n)
		}
	}()
	if got, _ := w.finish(run.RunID); got.FailureReason != string(state.SecretNotGranted) {
		t.Errorf("the run ended with %s", got.FailureReason)
	}
}

// TestNothingThatMayComeFromASecretIsKept starts each DAG twice: the second run
// does everything again.
func TestNothingThatMayComeFromASecretIsKept(t *testing.T) {
	kept := func(d *manifests.DAG, i int) { d.Steps[i].Cache = &manifests.Cache{TTL: time.Hour} }
	last := func(d *manifests.DAG) { kept(d, len(d.Steps)-1) }
	both := func(f, g func(*manifests.DAG)) func(*manifests.DAG) {
		return func(d *manifests.DAG) { f(d); g(d) }
	}
	nothing := func(*manifests.DAG) {}
	for _, c := range []struct {
		name   string
		child  func(*manifests.DAG) // of steps x, y<x
		dag    *manifests.DAG
		inputs string
		keeps  bool // the control
	}{
		{"a step without secrets", nil, dag(last, "a", "b<a"), "{}", true},
		{"a step beside one with a secret", nil, dag(both(needsDB, last), "a", "b"), "{}", true},
		{"a step after one with a secret", nil, dag(both(needsDB, last), "a", "b<a"), "{}", false},
		{"a step far after one", nil, dag(both(needsDB, last), "a", "b<a", "c<b", "d<c"), "{}", false},
		{"a step with a reference", nil, dag(both(last, func(d *manifests.DAG) {
			d.Steps[0].With = map[string]any{"x": map[string]any{"secretRef": "db"}}
		}), "a"), "{}", false},
		{"a step after one that was given a reference", nil, dag(both(last, func(d *manifests.DAG) {
			d.Inputs = map[string]manifests.Input{"obj": {Type: "object"}}
			d.Steps[0].With = map[string]any{"x": "${ inputs.obj }"}
		}), "a", "b<a"), `{"obj":{"secretRef":"db"}}`, false},
		{"a DAG with a secret input", nil, dag(both(last, func(d *manifests.DAG) {
			d.Inputs = map[string]manifests.Input{"obj": {Type: "string", Secret: true}}
		}), "a"), `{"obj":{"secretRef":"db"}}`, false},
		{"a step after a sub-run without secrets", nothing, parent(last, "sub", "b<sub"), "{}", true},
		{"a step after a sub-run with a secret", needsDB, parent(last, "sub", "b<sub"), "{}", false},
		{"a step of a sub-run", last, parent(nil, "sub"), "{}", true},
		{"a step of a sub-run, after a secret above it", last, parent(func(d *manifests.DAG) {
			s := dag(needsDB, "first").Steps[0]
			d.Steps[0].Needs, d.Steps = []string{"first"}, append(d.Steps, s)
		}, "sub"), "{}", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, ok)
			g := w.withSecrets(true)
			if c.child != nil {
				w.child(c.child, "x", "y<x")
			}
			var seen []int
			for range 2 {
				w.exec.seen = nil
				w.r = w.giving(g, true) // the one before has ended
				run := w.start(c.dag, c.inputs)
				if got, steps := w.finish(run.RunID); got.Status != state.Completed {
					t.Fatalf("the run is %s: %v", got.FailureReason, steps)
				}
				seen = append(seen, len(w.exec.seen))
			}
			if saved := seen[1] < seen[0]; saved != c.keeps {
				t.Errorf("executed %d, then %d steps; want some kept: %v", seen[0], seen[1], c.keeps)
			}
		})
	}
}

// TestACrashLeavesNoSecret: the workspace of an attempt that was given one goes
// before its end is on record, whatever the site keeps.
func TestACrashLeavesNoSecret(t *testing.T) {
	ctx, crash := context.WithCancel(context.Background())
	defer crash()
	stuck := make(chan string)
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		err := errors.Join(task.MakeDir(), os.Mkdir(filepath.Join(task.Dir, "secrets"), 0o700),
			os.WriteFile(filepath.Join(task.Dir, "secrets", "db"), task.Secrets[0].Value, 0o400),
			os.WriteFile(filepath.Join(task.Dir, "copy"), task.Secrets[0].Value, 0o400))
		if err != nil {
			t.Error(err)
		}
		stuck <- task.Dir
		select {} // until the process is gone
	})
	w.withSecrets(true)
	d := dag(needsDB, "a")
	run := w.start(d, "{}")
	go w.r.Run(ctx, true) // never returns: its attempt never ends
	dir := <-stuck
	open, err := os.Open(filepath.Join(dir, "secrets", "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	w.exec = &fake{run: ok}
	w.reopen()
	if run, err = w.db.Run(run.RunID); err != nil {
		t.Fatal(err)
	}
	if n, err := w.r.Recover(context.Background(), w.opened(run, d)); n != 1 || err != nil {
		t.Fatalf("Recover = %d, %v", n, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the workspace is there: %v", err)
	}
	b := make([]byte, len(password))
	if n, err := open.ReadAt(b, 0); n != len(b) || strings.Trim(string(b), "\x00") != "" {
		t.Errorf("the file holds %q, %v", b[:n], err)
	}
}
