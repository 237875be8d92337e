package engine_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

// What is revoked stays revoked, and a root that was replaced stays so, whatever takes the place
// of the ledger that says it; what nobody has signed comes in force by no way.
func TestTrustGoesForwardWhereTheLedgerGoesBack(t *testing.T) {
	ctx := context.Background()
	revoke := func(l *lab) {
		if _, err := l.site().RevokeTrust(ctx, api.TrustRevocation{Manifest: strings.Repeat("0", 64), Reason: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	rotate := func(l *lab) {
		if _, err := l.site().RotateTrust(ctx, api.TrustRotation{}); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		change func(l *lab)
		want   *api.NewerTrust // but for Seq
		root   int64           // in force afterwards
	}{
		"nothing":                  {func(*lab) {}, nil, 1},
		"a revocation":             {revoke, &api.NewerTrust{Root: 1, Policy: 2, Revocations: 1}, 1},
		"another root":             {rotate, &api.NewerTrust{Root: 2, Policy: 3}, 2},
		"both":                     {func(l *lab) { revoke(l); rotate(l) }, &api.NewerTrust{Root: 2, Policy: 3, Revocations: 2}, 2},
		"two roots":                {func(l *lab) { rotate(l); rotate(l) }, &api.NewerTrust{Root: 3, Policy: 4}, 3},
		"many changes":             {func(l *lab) { rotate(l); revoke(l); rotate(l); rotate(l) }, &api.NewerTrust{Root: 4, Policy: 5, Revocations: 3}, 4},
		"two roots and no ledger":  {func(l *lab) { rotate(l); rotate(l); l.forget() }, &api.NewerTrust{Root: 3, Policy: 4, Why: "what root 2 came with is not known"}, 1},
		"a folder that is damaged": {func(l *lab) { revoke(l); l.unsign("revocations.toml") }, &api.NewerTrust{Root: 1, Policy: 2, Revocations: 1}, 1},
		"no folder":                {func(l *lab) { rotate(l); l.unsign("") }, &api.NewerTrust{Root: 2, Policy: 3}, 2},
		"what nobody has made":     {func(l *lab) { revoke(l); l.unsign("revocations.toml"); l.forget() }, &api.NewerTrust{Unsure: "signed by 0 of the 1 keys"}, 1},
	} {
		for _, how := range []string{"restored", "recovered"} {
			if (name == "two roots and no ledger" || name == "what nobody has made") && how == "recovered" {
				continue // the first change is spoilt, too: nothing is left that could be recovered
			}
			t.Run(name+" "+how, func(t *testing.T) {
				want := c.want
				if name == "nothing" && how == "recovered" {
					want = &api.NewerTrust{Unsure: "trust/ alone"} // an entry that cannot be read may be of more
				}
				l := newLab(t)
				if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
					t.Fatal(err)
				}
				c.change(l)
				if l.e != nil {
					l.closed()
				}
				got := l.goBack(how)
				switch {
				case (got == nil) != (want == nil):
					t.Fatalf("trust: %+v, want %+v", got, want)
				case got == nil:
				case got.Root != want.Root || got.Policy != want.Policy || got.Revocations != want.Revocations,
					(got.Seq > 0) != (want.Why == "" && want.Root > 0), !strings.Contains(got.Why, want.Why), !strings.Contains(got.Unsure, want.Unsure):
					t.Errorf("trust: %+v, want %+v", got, want)
				}
				if l.tryOpen() != nil {
					l.waive("checkpoint.note")
				}
				l.open()
				l.verify()
				now, err := l.site().ShowTrust(ctx)
				if err != nil || now.Trust.RootVersion != c.root {
					t.Errorf("root %d, %v", now.Trust.RootVersion, err)
				}
				if revoked := strings.Contains(now.Revocations, strings.Repeat("0", 64)); want != nil && revoked != (want.Revocations > 0 && got.Seq > 0) {
					t.Errorf("what was revoked is so: %v", revoked)
				}
				if name != "two roots and no ledger" && !l.signs() {
					t.Error("keys/root.key cannot change trust any more")
				}
				raw, res := l.window("")
				if v := l.judge(raw, res.Withheld); v != export.Verified {
					t.Errorf("the archive is %s", v)
				}
				l.reopen()
			})
		}
	}
}

// goBack takes the ledger back, to the snapshot or to before the newest change of trust, and says
// what became of newer trust. A dry run says the same.
func (l *lab) goBack(how string) *api.NewerTrust {
	l.t.Helper()
	ctx := context.Background()
	if how == "restored" {
		opt := engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, Reason: "x", DryRun: true}
		dry, err := engine.Restore(ctx, opt)
		if err != nil {
			l.t.Fatal(err)
		}
		opt.DryRun = false
		r, err := engine.Restore(ctx, opt)
		if err != nil {
			l.t.Fatal(err)
		}
		l.same(dry.Trust, r.Trust)
		return r.Trust
	}
	l.spoil("snapshot.created") // what follows is lost with it
	opt := engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x", DryRun: true}
	dry, err := engine.Recover(ctx, opt)
	if err != nil {
		l.t.Fatal(err)
	}
	opt.DryRun = false
	r, err := engine.Recover(ctx, opt)
	if err != nil || r.Sound {
		l.t.Fatalf("%+v, %v", r, err)
	}
	l.same(dry.Trust, r.Trust)
	return r.Trust
}

// same holds what a dry run says against what was done.
func (l *lab) same(dry, done *api.NewerTrust) {
	l.t.Helper()
	if (dry == nil) != (done == nil) || dry != nil && (dry.Root != done.Root || dry.Policy != done.Policy || dry.Why != done.Why || dry.Seq != 0) {
		l.t.Errorf("a dry run says %+v, what was done %+v", dry, done)
	}
}

// forget has no changes of trust in the ledger any more, which is closed.
func (l *lab) forget() {
	l.t.Helper()
	l.closed()
	l.e = nil
	l.spoil("trust.changed")
}

// spoil damages all entries of a type.
func (l *lab) spoil(kind string) {
	l.t.Helper()
	path := filepath.Join(l.home, "ledger.db")
	raw, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, bytes.ReplaceAll(raw, []byte(`"type":"`+kind), []byte(`"type":"x`+kind[1:])), 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// unsign takes the signatures of a trust file away, or all of trust/.
func (l *lab) unsign(name string) {
	l.t.Helper()
	path := filepath.Join(l.home, "trust", name+".signatures")
	if name == "" {
		path = filepath.Dir(path)
	}
	if err := os.RemoveAll(path); err != nil {
		l.t.Fatal(err)
	}
}

// Revocations that have run out meanwhile still revoke: nothing is let in by what has expired.
func TestWhatHasExpiredStaysRevoked(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.site().RevokeTrust(ctx, api.TrustRevocation{Manifest: strings.Repeat("0", 64), Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	l.closed()
	later := func() time.Time { return time.Now().Add(3 * 365 * 24 * time.Hour) }
	r, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, Reason: "x", Accept: later(), Now: later})
	if err != nil || r.Trust == nil || r.Trust.Revocations != 1 || r.Trust.Why != "" {
		t.Errorf("%+v, %v", r.Trust, err)
	}
}

// Where trust/ is not what a sound ledger names, a recovery makes it anew and begins no epoch.
func TestALostTrustFolderIsMadeAnew(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		spoil func(l *lab)
		anew  bool
		kept  bool
	}{
		"nothing is wrong":     {func(*lab) {}, false, false},
		"it is gone":           {func(l *lab) { l.unsign("") }, true, false},
		"a change was cut off": {func(l *lab) { l.unsign("policy.toml") }, false, false}, // the next who opens it ends that
		"a policy of others": {func(l *lab) {
			if err := os.WriteFile(filepath.Join(l.home, "trust", "policy.toml"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, true, true},
	} {
		l := newLab(t)
		if _, err := l.site().RotateTrust(ctx, api.TrustRotation{}); err != nil {
			t.Fatal(err)
		}
		before, err := l.site().ShowTrust(ctx)
		if err != nil {
			t.Fatal(err)
		}
		l.closed()
		c.spoil(l)
		if err := l.tryOpen(); (codeOf(err) == api.CodeTrustChanged) != c.anew {
			t.Errorf("%s: opened with %v", name, err)
		}
		opt := engine.RecoverOptions{Home: l.home, Actor: who, DryRun: true}
		dry, err := engine.Recover(ctx, opt)
		if err != nil || !dry.Sound || dry.TrustAnew != c.anew || dry.Kept != "" || (l.tryOpen() == nil) == c.anew {
			t.Errorf("%s: a dry run: %+v, %v", name, dry, err)
		}
		opt.DryRun = false
		r, err := engine.Recover(ctx, opt)
		if err != nil || !r.Sound || r.TrustAnew != c.anew || (r.Kept != "") != c.kept || r.Paused {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if _, err := os.Stat(filepath.Join(r.Kept, "trust", "policy.toml")); c.kept && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		l.open()
		l.verify()
		if after, err := l.site().ShowTrust(ctx); err != nil || after.Trust != before.Trust {
			t.Errorf("%s: trust is %+v, %v, want %+v", name, after.Trust, err, before.Trust)
		}
	}
}

// A ledger of another site says nothing of this one: trust/ is believed as where there is none.
func TestTrustStaysWhereTheLedgerIsOfAnotherSite(t *testing.T) {
	ctx := context.Background()
	l, other := newLab(t), newLab(t)
	if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.site().RevokeTrust(ctx, api.TrustRevocation{Manifest: strings.Repeat("0", 64), Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	l.closed()
	other.closed()
	raw, err := os.ReadFile(filepath.Join(other.home, "ledger.db"))
	if err == nil {
		err = os.WriteFile(filepath.Join(l.home, "ledger.db"), raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	got := l.goBack("restored")
	if got == nil || got.Revocations != 1 || got.Seq == 0 || got.Why != "" || !strings.Contains(got.Unsure, "trust/ alone") {
		t.Errorf("trust: %+v", got)
	}
}

// In a fresh place nothing is left that could be newer, and that is said; a restore makes the
// place before it looks for trust.
func TestAFreshPlaceIsToldWhatItCannotKnow(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	l.closed()
	home := l.freshHome()
	for _, dry := range []bool{true, false} {
		opt := engine.RestoreOptions{Home: home, Dir: filepath.Join(l.home, "snapshots"), Latest: true, Actor: who, Reason: "x", DryRun: dry}
		r, err := engine.Restore(ctx, opt)
		if err != nil || r.Trust == nil || !strings.Contains(r.Trust.Unsure, "nothing is left") {
			t.Errorf("a dry run: %v; trust: %+v, %v", dry, r.Trust, err)
		}
	}
}

// A ledger that was put back from a copy is sound, and trust/ shows that it is not the last: what
// was revoked since is not believed again by a recovery, whatever else is wrong, and a snapshot that
// is restored over it takes it over.
func TestARecoveryLeavesNewerTrustAlone(t *testing.T) {
	ctx := context.Background()
	for name, spoil := range map[string]func(l *lab){
		"all is there":              func(*lab) {},
		"the policy is not signed":  func(l *lab) { l.unsign("policy.toml") },
		"the root cannot be read":   func(l *lab) { l.write("trust/root/1.toml", []byte("x")) },
		"the revocations are alone": func(l *lab) { l.unsign("revocations.toml"); l.unsign("root/1.toml"); l.unsign("policy.toml") },
		"a checkpoint is damaged":   func(l *lab) { l.replace("ledger.db", "\n\n\u2014 ", "\n\n\u2014-") },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
				t.Fatal(err)
			}
			l.closed()
			old := map[string][]byte{"ledger.db": l.read("ledger.db"), "checkpoint.note": l.read("checkpoint.note")}
			l.open()
			if _, err := l.site().RevokeTrust(ctx, api.TrustRevocation{Manifest: strings.Repeat("0", 64), Reason: "x"}); err != nil {
				t.Fatal(err)
			}
			l.closed()
			for name, raw := range old {
				l.write(name, raw)
			}
			spoil(l)
			for _, dry := range []bool{true, false} {
				r, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, DryRun: dry})
				if codeOf(err) != api.CodeTrustChanged || r.Sound || r.TrustAnew || l.tryOpen() == nil {
					t.Errorf("a dry run: %t; %+v, %v; opened with %v", dry, r, err, l.tryOpen())
				}
			}
			r, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, Reason: "x"})
			signed := name != "the revocations are alone"
			if err != nil || r.Trust == nil || !strings.Contains(r.Trust.Unsure, "trust/ has newer files") || (r.Trust.Seq > 0) != signed || (len(r.Trust.Lost) == 0) != signed {
				t.Errorf("restored: %+v, %v", r.Trust, err)
			}
			l.waive("checkpoint.note")
			l.open()
			l.verify()
			if now, err := l.site().ShowTrust(ctx); err != nil || strings.Contains(now.Revocations, strings.Repeat("0", 64)) != signed {
				t.Errorf("in force: %+v, %v", now, err)
			}
		})
	}
}

// Who knows that newer files of trust were never in force moves them away.
func TestARecoveryWithTrustMovedAway(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	l.closed()
	if err := os.Rename(filepath.Join(l.home, "trust"), filepath.Join(l.home, "aside")); err != nil {
		t.Fatal(err)
	}
	r, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who})
	if err != nil || !r.Sound || !r.TrustAnew || r.Trust == nil || !strings.Contains(r.Trust.Unsure, "a copy from before") {
		t.Errorf("%+v, %v", r, err)
	}
	l.open()
	l.verify()
}

// A ledger of an epoch before the one of a checkpoint is a copy from before, though nothing of it
// is damaged and it has more entries: what is in trust/ counts as far as its signatures lead on.
func TestALedgerOfAnEpochBefore(t *testing.T) {
	ctx := context.Background()
	for _, how := range []string{"restored", "recovered"} {
		l := newLab(t)
		if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
			t.Fatal(err)
		}
		for range 9 {
			_, err := l.site().PauseQueue(ctx, api.QueueRequest{Reason: "x"})
			if _, rerr := l.site().ResumeQueue(ctx, api.QueueRequest{Reason: "x"}); err != nil || rerr != nil {
				t.Fatal(err, rerr)
			}
		}
		l.closed()
		old := l.read("ledger.db")
		opt := engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, Reason: "x"}
		if _, err := engine.Restore(ctx, opt); err != nil {
			t.Fatal(err)
		}
		l.waive("checkpoint.note")
		l.open()
		if _, err := l.site().RotateTrust(ctx, api.TrustRotation{}); err != nil {
			t.Fatal(err)
		}
		l.closed()
		l.write("ledger.db", old)
		var out api.NewEpoch
		if how == "restored" {
			r, err := engine.Restore(ctx, opt)
			if out = r.NewEpoch; err != nil {
				t.Fatal(err)
			}
		} else {
			r, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x"})
			if out = r.NewEpoch; err != nil || r.Sound || !strings.Contains(r.Damage, "there was an epoch 2") {
				t.Fatalf("%+v, %v", r, err)
			}
		}
		if !strings.HasSuffix(out.Origin, "/3") || !out.Paused || out.Trust == nil || out.Trust.Seq == 0 || out.Trust.Root != 2 || len(out.Floors) != 1 {
			t.Errorf("%s: %+v, trust %+v", how, out, out.Trust)
		}
		l.waive("checkpoint.note")
		l.open()
		l.verify()
	}
}

// An epoch that a snapshot is of never begins again, where nothing else tells of it any more.
func TestAnEpochBeginsOnce(t *testing.T) {
	ctx := context.Background()
	l, first := snapped(t)
	opt := engine.RestoreOptions{Home: l.home, ID: first.ID, Actor: who, Reason: "x"}
	for _, origin := range []string{"/2", "/3"} {
		r, err := engine.Restore(ctx, opt)
		if err != nil || !strings.HasSuffix(r.Origin, origin) {
			t.Fatalf("%+v, %v; want %s", r, err, origin)
		}
		if l.tryOpen() != nil {
			l.waive("checkpoint.note")
		}
		l.open()
		if origin == "/2" {
			if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
				t.Fatal(err)
			}
		}
		l.closed()
		for _, name := range []string{"ledger.db", "checkpoint.note"} {
			if err := os.Remove(filepath.Join(l.home, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// read reads a file of the home.
func (l *lab) read(name string) []byte {
	l.t.Helper()
	raw, err := os.ReadFile(filepath.Join(l.home, filepath.FromSlash(name)))
	if err != nil {
		l.t.Fatal(err)
	}
	return raw
}

func (l *lab) write(name string, raw []byte) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.home, filepath.FromSlash(name)), raw, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// replace replaces bytes of a file of the home by as many others.
func (l *lab) replace(name, from, to string) {
	l.t.Helper()
	raw := l.read(name)
	if !bytes.Contains(raw, []byte(from)) || len(from) != len(to) {
		l.t.Fatalf("%s has no %q", name, from)
	}
	l.write(name, bytes.ReplaceAll(raw, []byte(from), []byte(to)))
}
