package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// A restore or a recovery that was cut off keeps everybody out; a dry run finishes nothing,
// and either command does.
func TestWhatWasCutOffIsFinishedByEitherCommand(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(dry bool) (bool, error){
		"recover": func(dry bool) (bool, error) {
			r, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, DryRun: dry})
			return r.Finished, err
		},
		"restore": func(dry bool) (bool, error) {
			r, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, DryRun: dry})
			return r.Finished, err
		},
	} {
		// ledger.db was moved away, and the new one not into its place.
		kept, ready := filepath.Join(l.home, "replaced", name), filepath.Join(l.home, "restoring")
		for _, dir := range []string{kept, ready} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := os.ReadFile(filepath.Join(l.home, "ledger.db"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(ready, "ledger.db"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(l.home, "ledger.db"), filepath.Join(kept, "ledger.db")); err != nil {
			t.Fatal(err)
		}
		journal := `{"id":"x","kept":"replaced/` + name + `","parts":["trust","secrets","ledger.db"],"schema":"stella.restore/1"}` + "\n"
		if err := os.WriteFile(filepath.Join(l.home, "restore.json"), []byte(journal), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := do(true); codeOf(err) != api.CodeRestoring {
			t.Errorf("%s: a dry run: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(l.home, "ledger.db")); err == nil {
			t.Errorf("%s: a dry run has finished it", name)
		}
		if finished, err := do(false); err != nil || !finished {
			t.Fatalf("%s: %v, %v", name, finished, err)
		}
	}
	l.open()
	l.verify()
}

// Where somebody has taken away what was made ready nothing is finished: all is put back, and it
// can be done again.
func TestWhatIsNotReadyAnyMoreIsUndone(t *testing.T) {
	for _, c := range []struct {
		name                       string
		inPlace, ready, kept, want string // parts, with "old" or "new" in them
		undone                     bool
	}{
		{"before the first", "trust:old secrets:old ledger.db:old", "", "", "trust:old secrets:old ledger.db:old", true},
		{"one is in its place", "trust:new secrets:old ledger.db:old", "", "trust:old", "trust:old secrets:old ledger.db:old", true},
		{"one was moved away", "trust:new secrets:new", "", "trust:old secrets:old ledger.db:old", "trust:old secrets:old ledger.db:old", true},
		{"one of two is gone", "trust:new secrets:old ledger.db:old", "secrets:new", "trust:old", "trust:old secrets:old ledger.db:old", true},
		{"all are in their places", "trust:new secrets:new ledger.db:new", "", "trust:old secrets:old ledger.db:old", "trust:new secrets:new ledger.db:new", false},
		{"what was replaced is gone", "trust:new secrets:old ledger.db:old", "secrets:new ledger.db:new", "", "trust:new secrets:new ledger.db:new", false},
		{"the ledger was lost before", "trust:new secrets:new", "", "trust:old secrets:old", "trust:old secrets:old", true},
		{"the last is ready", "trust:new secrets:new ledger.db:old", "ledger.db:new", "trust:old secrets:old", "trust:new secrets:new ledger.db:new", false},
		{"a site.toml is ready", "trust:new secrets:new ledger.db:new", "site.toml:new", "trust:old secrets:old ledger.db:old", "trust:new secrets:new ledger.db:new site.toml:new", false},
		{"somebody has put one there", "trust:new secrets:new ledger.db:new site.toml:other", "site.toml:new", "trust:old secrets:old ledger.db:old", "trust:new secrets:new ledger.db:new site.toml:other", false},
		{"it is there, and nothing is ready", "trust:old secrets:old ledger.db:old site.toml:other", "", "", "trust:old secrets:old ledger.db:old site.toml:other", true},
		{"it is in its place, the ledger gone", "trust:new secrets:new site.toml:new", "-:", "trust:old secrets:old ledger.db:old", "trust:old secrets:old ledger.db:old site.toml:", true},
	} {
		home := t.TempDir()
		put := func(dir, parts string) {
			for _, x := range strings.Fields(parts) {
				name, text, _ := strings.Cut(x, ":")
				err := os.MkdirAll(filepath.Join(home, dir), 0o700)
				if err == nil {
					err = os.WriteFile(filepath.Join(home, dir, name), []byte(text), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		put("", c.inPlace)
		put("restoring", c.ready)
		put("replaced/x", c.kept)
		had := slices.DeleteFunc([]string{`"trust"`, `"secrets"`, `"ledger.db"`}, func(part string) bool { return !strings.Contains(c.inPlace+c.kept, strings.Trim(part, `"`)) })
		journal := `{"had":[` + strings.Join(had, ",") + `],"id":"x","kept":"replaced/x","parts":["trust","secrets","ledger.db","site.toml"],"schema":"stella.restore/1"}`
		put("", "restore.json:"+journal)
		r, err := engine.Restore(context.Background(), engine.RestoreOptions{Home: home, Latest: true, Actor: who})
		if c.undone != (codeOf(err) == api.CodeDamaged) || c.undone == r.Finished {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
		for _, x := range strings.Fields(c.want) {
			name, text, _ := strings.Cut(x, ":")
			if got, err := os.ReadFile(filepath.Join(home, name)); string(got) != text || text == "" && err == nil {
				t.Errorf("%s: %s is %q, %v, want %q", c.name, name, got, err, text)
			}
		}
		for _, gone := range []string{"restore.json", "restoring"} {
			if _, err := os.Lstat(filepath.Join(home, gone)); err == nil {
				t.Errorf("%s: %s is there", c.name, gone)
			}
		}
	}
}

// Whoever finishes what was cut off is told what it was, and what it would have told; where
// nobody knows that any more nothing false is said.
func TestWhatWasCutOffIsTold(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	const id = "0000000053-20261128T085535Z"
	cutOff := func(id, told string) {
		t.Helper()
		journal := `{"id":"` + id + `","kept":"replaced/x","parts":[],"schema":"stella.restore/1"` + told + "}\n"
		if err := os.WriteFile(filepath.Join(l.home, "restore.json"), []byte(journal), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	restore := func(id string, latest bool) (string, error) {
		r, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, ID: id, Latest: latest, Actor: who})
		return asJSON(t, r), err
	}
	recovered := func() (string, error) {
		r, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who})
		return asJSON(t, r), err
	}
	const restoredTold = `,"told":{"snapshot":{"id":"` + id + `","size":53},"known":66,"lost":13,"floors":["checkpoint.note"],"paused":true,"runs":[]}`
	const recoveredTold = `,"told":{"size":50,"known":66,"lost":16,"survived":3,"floors":[],"paused":true,"runs":["r"]}`
	for _, c := range []struct {
		name, of, told string
		do             func() (string, error)
		has, lacks     []string
	}{
		{"the same snapshot", id, restoredTold, func() (string, error) { return restore(id, false) },
			[]string{`"finished":true`, `"id":"` + id + `"`, `"size":53`, `"known":66`, `"lost":13`, `"floors":["checkpoint.note"]`, `"paused":true`, `"runs":[]`}, []string{"untold", "recovery"}},
		{"the newest one", id, restoredTold, func() (string, error) { return restore("", true) }, []string{`"lost":13`}, nil},
		{"none that is named", id, restoredTold, func() (string, error) { return restore("", false) }, []string{`"lost":13`}, nil},
		{"a restore, by a recovery", id, restoredTold, recovered, []string{`"snapshot":"` + id + `"`, `"size":53`, `"lost":13`, `"paused":true`}, nil},
		{"a recovery", "recovered", recoveredTold, recovered, []string{`"finished":true`, `"size":50`, `"survived":3`, `"runs":["r"]`}, []string{"snapshot", "untold"}},
		{"a recovery, by a restore", "recovered", recoveredTold, func() (string, error) { return restore("", true) },
			[]string{`"recovery":true`, `"lost":16`, `"runs":["r"]`}, []string{"snapshot"}},
		{"a restore that nobody knows", id, "", func() (string, error) { return restore(id, false) },
			[]string{`"finished":true`, `"untold":true`, `"snapshot":{"id":"` + id + `"}`, "replaced/x"}, []string{"known", "lost", "floors", "paused", "runs", "size"}},
		{"a recovery that nobody knows", "recovered", "", recovered, []string{`"untold":true`}, []string{"snapshot", "known", "lost", "floors", "size", "survived"}},
	} {
		cutOff(c.of, c.told)
		if raw, err := restore("0000000001-20261128T085535Z", false); codeOf(err) != api.CodeConflict {
			t.Errorf("%s: another snapshot: %s, %v", c.name, raw, err)
		}
		raw, err := c.do()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, x := range c.has {
			if !strings.Contains(raw, x) {
				t.Errorf("%s: %s has no %s", c.name, raw, x)
			}
		}
		for _, x := range c.lacks {
			if strings.Contains(raw, `"`+x+`":`) {
				t.Errorf("%s: %s has %s", c.name, raw, x)
			}
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// What people have decided of an approval that is open in a snapshot counts no more: they
// are asked again.
func TestARestoreAsksAgain(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", gated)
	run := l.start(api.StartRequest{DAGID: "audit"}).Run
	stop := l.executing()
	l.waitFor(run.RunID, state.Checkpoint)
	stop()
	l.reopen()
	id := state.ApprovalID(run.RunID, "ask", 1)
	decide := func(name string) error {
		s := l.e.As(api.Principal{Name: name})
		a, err := s.ShowApproval(ctx, id)
		if err == nil {
			_, err = s.DecideApproval(ctx, id, api.DecisionRequest{Decision: "continue", PlanHash: a.PlanHash})
		}
		return err
	}
	if err := decide("uid:8"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} { // a dry run says the same
		res, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, Reason: "x", DryRun: dry})
		if err != nil || !slices.Equal(res.Asked, []string{id}) || !slices.Equal(res.Runs, []string{run.RunID}) || !res.Paused {
			t.Fatalf("dry %v: %+v, %v", dry, res, err)
		}
	}
	if l.tryOpen() != nil {
		l.waive("checkpoint.note")
	}
	l.open()
	l.verify()
	if a, err := l.site().ShowApproval(ctx, id); err != nil || a.Status != state.ApprovalPending || len(a.Decisions) != 0 {
		t.Errorf("asked again: %+v, %v", a, err)
	}
	for i, name := range []string{"uid:9", "uid:8"} {
		if run, err := l.site().InspectRun(ctx, run.RunID); err != nil || run.Run.Status != state.Checkpoint {
			t.Errorf("after %d decisions: %s, %v", i, run.Run.Status, err)
		}
		if err := decide(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := l.site().ResumeQueue(ctx, api.QueueRequest{All: true}); err != nil {
		t.Fatal(err)
	}
	defer l.executing()()
	l.waitFor(run.RunID, state.Completed)
	l.verify()
}

// executing lets the site execute until the function that it returns is called.
func (l *lab) executing() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.e.Execute(ctx, engine.Forever) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	}
}

// A sealed trust file that is lost or damaged keeps nobody from recovering where trust/ has it: the
// recovery seals it again, and says so.
func TestRecoverReadsTrustFromWhereItIs(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct{ sound, lost bool }{{true, true}, {true, false}, {false, true}} {
		l := newLab(t)
		if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
			t.Fatal(err)
		}
		l.closed()
		if !c.sound {
			l.spoil("snapshot.created")
		}
		policy, err := os.ReadFile(filepath.Join(l.home, "trust", "policy.toml"))
		if err != nil {
			t.Fatal(err)
		}
		sealed := l.sealedFile(bundle.Digest(policy))
		err = errors.Join(os.Chmod(filepath.Dir(sealed), 0o755), os.Remove(sealed))
		if !c.lost {
			err = errors.Join(err, os.WriteFile(sealed, append(policy, '#'), 0o444))
		}
		if err != nil {
			t.Fatal(err)
		}
		intact := func() bool {
			raw, err := os.ReadFile(sealed)
			return err == nil && bundle.Digest(raw) == bundle.Digest(policy)
		}
		want := 0
		if c.sound {
			want = 1
		}
		opt := engine.RecoverOptions{Home: l.home, Actor: who, DryRun: true}
		if r, err := engine.Recover(ctx, opt); err != nil || r.Sound != c.sound || r.Resealed != want || intact() {
			t.Errorf("%+v: a dry run: %+v, %v; sealed again: %t", c, r, err, intact())
		}
		opt.DryRun = false
		if r, err := engine.Recover(ctx, opt); err != nil || r.Sound != c.sound || r.Resealed != want || !intact() {
			t.Errorf("%+v: %+v, %v; sealed again: %t", c, r, err, intact())
		}
		if c.sound {
			l.open()
			l.verify()
			l.closed()
			if r, err := engine.Recover(ctx, opt); err != nil || !r.Sound || r.Resealed != 0 {
				t.Errorf("%+v: once more: %+v, %v", c, r, err)
			}
		}
	}
}

// A site.toml that somebody puts into a fresh place meanwhile stays in force, whatever comes of it.
func TestASiteFileIsLeftAlone(t *testing.T) {
	ctx := context.Background()
	l, snap := snapped(t)
	broken := filepath.Join(t.TempDir(), "snapshots")
	copySite(t, filepath.Join(l.home, "snapshots"), broken)
	policy := filepath.Join(broken, snap.ID, "trust", "policy.toml") // it comes behind site.toml
	if err := errors.Join(os.Chmod(policy, 0o600), os.WriteFile(policy, []byte("#"), 0o600)); err != nil {
		t.Fatal(err)
	}
	const mine = "allow_plain = false\n"
	for _, c := range []struct {
		dir       string
		dry, fail bool
	}{{filepath.Join(l.home, "snapshots"), true, false}, {broken, true, true}, {broken, false, true}, {filepath.Join(l.home, "snapshots"), false, false}} {
		home := l.freshHome()
		config, put := filepath.Join(home, "site.toml"), false
		_, err := engine.Restore(ctx, engine.RestoreOptions{Home: home, Dir: c.dir, Latest: true, Actor: who, DryRun: c.dry, Progress: func(_, _ int64) {
			if !put {
				put = os.WriteFile(config, []byte(mine), 0o644) == nil
			}
		}})
		if raw, rerr := os.ReadFile(config); c.fail != (codeOf(err) == api.CodeDamaged) || !put || string(raw) != mine {
			t.Errorf("%+v: put there: %t; %q, %v, %v", c, put, raw, rerr, err)
		}
	}
}

// A site.toml that was changed in a snapshot is damage, to a dry run too.
func TestASiteFileOfASnapshotIsHashed(t *testing.T) {
	ctx := context.Background()
	l, snap := snapped(t)
	config := filepath.Join(snap.Path, "site.toml")
	if err := errors.Join(os.Chmod(config, 0o600), os.WriteFile(config, []byte("allow_plain = true\nworkers = 2\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, home := range []string{l.freshHome(), l.home} {
		for _, dry := range []bool{true, false} {
			_, err := engine.Restore(ctx, engine.RestoreOptions{Home: home, Dir: filepath.Dir(snap.Path), Latest: true, Actor: who, DryRun: dry})
			if codeOf(err) != api.CodeDamaged || !strings.Contains(err.Error(), "site.toml of the snapshot") {
				t.Errorf("dry run %t: %v", dry, err)
			}
		}
	}
}

// In a fresh place the site.toml of the snapshot says where copies of the checkpoint are, to a dry
// run too.
func TestCopiesAreKnownInAFreshPlace(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	l.closed()
	note := filepath.Join(t.TempDir(), "copy.note")
	if err := os.WriteFile(filepath.Join(l.home, "site.toml"), []byte("schema = \"stella.site/1\"\nallow_plain = true\ncheckpoint_copies = [\""+note+"\"]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l.open()
	snap, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil)
	if err == nil {
		_, err = l.site().Checkpoint(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.closed()
	home := l.freshHome()
	for _, dry := range []bool{true, false} {
		r, err := engine.Restore(ctx, engine.RestoreOptions{Home: home, Dir: filepath.Dir(snap.Path), Latest: true, Actor: who, DryRun: dry})
		if err != nil || !slices.Contains(r.Floors, note) || r.Lost == 0 {
			t.Errorf("dry run %t: %+v, %v", dry, r, err)
		}
	}
}

// snapped is a lab that is closed, and a snapshot of it.
func snapped(t *testing.T) (*lab, api.Snapshot) {
	t.Helper()
	l := newLab(t)
	snap, err := l.site().CreateSnapshot(context.Background(), api.SnapshotRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.closed()
	return l, snap
}

// freshHome is a home that has nothing but a copy of the keys.
func (l *lab) freshHome() string {
	l.t.Helper()
	home := filepath.Join(l.t.TempDir(), "site")
	removable(l.t, home)
	err := os.CopyFS(filepath.Join(home, "keys"), os.DirFS(filepath.Join(l.home, "keys")))
	if err = errors.Join(err, os.Chmod(home, 0o700)); err != nil {
		l.t.Fatal(err)
	}
	return home
}
