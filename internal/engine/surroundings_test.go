package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

// A floor with something else than a checkpoint in it is lost: it stops no restore and no
// recovery, keeps the site shut, and is waived by name.
func TestAFloorThatIsNoCheckpointIsLost(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	note := filepath.Join(l.home, "checkpoint.note")
	whole, err := os.ReadFile(note)
	if err != nil {
		t.Fatal(err)
	}
	signature := slices.Clone(whole)
	signature[len(signature)-9] ^= 1
	for what, raw := range map[string][]byte{"nothing": {}, "zeros": make([]byte, 4096), "a damaged signature": signature, "half of it": whole[:len(whole)/2]} {
		if err := os.WriteFile(note, raw, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := l.tryOpen(); codeOf(err) != api.CodeFloorLost {
			t.Errorf("%s: opened with %v", what, err)
		}
		res, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, Reason: "x"})
		if err != nil || !slices.Contains(res.Floors, "checkpoint.note") {
			t.Fatalf("%s: %+v, %v", what, res, err)
		}
		if err := l.tryOpen(); codeOf(err) != api.CodeFloorLost {
			t.Errorf("%s: opened after the restore with %v", what, err)
		}
	}
	l.waive("checkpoint.note")
	l.open()
	l.verify()
}

// A ledger that ends before a checkpoint of it does is no sound one, however whole it is.
func TestALedgerThatIsCutIsRecovered(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(l.home, "ledger.db")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l.open()
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	plan, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, DryRun: true})
	if err != nil || plan.Sound || plan.Lost == 0 || !slices.Contains(plan.Floors, "checkpoint.note") {
		t.Fatalf("%+v, %v", plan, err)
	}
	res, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x"})
	if err != nil || res.Lost != plan.Lost || !res.Paused {
		t.Fatalf("%+v, %v", res, err)
	}
	// What was given up is not lost again, though the floor is not waived yet.
	if again, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x"}); err != nil || !again.Sound || again.Lost != 0 || !slices.Equal(again.Floors, res.Floors) {
		t.Errorf("again: %+v, %v", again, err)
	}
	l.waive("checkpoint.note")
	l.open()
	l.verify()
}

// What keeps a check from coming to its end says nothing about the ledger: it is left alone.
func TestASoundLedgerThatCannotBeCheckedIsLeftAlone(t *testing.T) {
	l := newLab(t)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	cache, path := filepath.Join(l.home, "cache"), filepath.Join(l.home, "ledger.db")
	if err := os.RemoveAll(cache); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cache, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := engine.Recover(context.Background(), engine.RecoverOptions{Home: l.home, Actor: who}); err == nil {
		t.Errorf("%+v", r)
	}
	if after, err := os.ReadFile(path); err != nil || !slices.Equal(before, after) {
		t.Errorf("ledger.db was changed: %v", err)
	}
}

// What a check has found is said of the recovery, too, and a checkpoint that only the damaged
// ledger has tells how far it had come.
func TestARecoverySaysWhatWasDamaged(t *testing.T) {
	ctx := context.Background()
	l, _ := ran(t)
	if _, err := l.site().Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	l.edit(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("records"))
		k, v := b.Cursor().Last()
		return b.Put(slices.Clone(k), append(slices.Clone(v), 'x'))
	})
	res, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x"})
	if err != nil || !strings.Contains(res.Damage, "records") || res.Lost != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	size := res.Size
	l.edit(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("entries"))
		for k, _ := b.Cursor().Last(); binary.BigEndian.Uint64(k) >= uint64(size)-2; k, _ = b.Cursor().Last() {
			if err := b.Delete(slices.Clone(k)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := os.Remove(filepath.Join(l.home, "checkpoint.note")); err != nil {
		t.Fatal(err)
	}
	res, err = engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x", DryRun: true})
	if err != nil || res.Size != size-2 || res.Known != size || res.Lost != 2 {
		t.Fatalf("%+v, %v; it had %d", res, err, size)
	}
}

// Where the ledger does not say any more which copies of its checkpoint were written, all that
// site.toml names were: one that is not there is a floor that is lost.
func TestALostListOfCopiesGivesUpNoFloor(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	path := filepath.Join(t.TempDir(), "copy.note")
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	l.copies(path)
	l.open()
	if _, err := l.site().Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	l.edit(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("meta"))
		return errors.Join(b.Put([]byte("notepaths"), []byte("[")), b.Delete([]byte("clock")))
	})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	res, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x"})
	if err != nil || !slices.Contains(res.Floors, path) {
		t.Fatalf("%+v, %v", res, err)
	}
	if err := l.tryOpen(); codeOf(err) != api.CodeFloorLost {
		t.Errorf("opened with %v", err)
	}
}

// A ledger without the bucket that says what it is, is damaged: nobody is told that there is no site.
func TestALedgerWithoutItsMetaIsRecovered(t *testing.T) {
	l := newLab(t)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	l.edit(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("meta")) })
	if err := l.tryOpen(); codeOf(err) != api.CodeDamaged {
		t.Errorf("opened with %v", err)
	}
	res, err := engine.Recover(context.Background(), engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x"})
	if err != nil || res.Damage == "" || res.Lost != 0 || !res.Paused {
		t.Fatalf("%+v, %v", res, err)
	}
	l.open()
	l.verify()
}

// Where nothing of the ledger can be read that a snapshot takes the place of, nobody knows what
// is lost, whatever an old checkpoint says: the queue waits for people.
func TestARestoreOverWhatCannotBeReadPauses(t *testing.T) {
	ctx := context.Background()
	for what, ruin := range map[string]func(path string) error{
		"no page says where the data is": func(path string) error { return os.WriteFile(path, make([]byte, 64<<10), 0o600) },
		"no file":                        os.Remove,
	} {
		l := newLab(t)
		note := filepath.Join(l.home, "checkpoint.note")
		old, err := os.ReadFile(note)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.e.Close(), os.WriteFile(note, old, 0o644)); err != nil {
			t.Fatal(err)
		}
		if err := ruin(filepath.Join(l.home, "ledger.db")); err != nil {
			t.Fatal(err)
		}
		res, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, Reason: "x"})
		if err != nil || !res.Paused || res.Known == 0 || res.Lost != 0 {
			t.Errorf("%s: %+v, %v", what, res, err)
		}
	}
}

// An epoch that no ledger comes to is damage of the record that says it: others come after what else
// is known.
func TestAnEpochThatCannotBeIsNotBelieved(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	l.closed()
	l.edit(func(tx *bolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		return meta.Put([]byte("site"), bytes.Replace(meta.Get([]byte("site")), []byte(`"epoch":1`), []byte(`"epoch":9223372036854775807`), 1))
	})
	for _, dry := range []bool{true, false} {
		if r, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, DryRun: true}); err != nil || r.Damage == "" || r.Lost != 0 || !strings.HasSuffix(r.Origin, "/2") {
			t.Errorf("recover: %+v, %v", r, err)
		}
		if r, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, DryRun: dry}); err != nil || !strings.HasSuffix(r.Origin, "/2") {
			t.Errorf("restore, dry run %t: %+v, %v", dry, r, err)
		}
	}
	if err := l.tryOpen(); codeOf(err) != api.CodeFloorAhead {
		t.Errorf("opened with %v", err)
	}
}

// A secret that cannot be read is no damage of a ledger; one that is damaged leaves it behind, and a
// dry run says so as well.
func TestASecretThatCannotBeReadIsCounted(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if _, err := l.site().SetSecret(ctx, api.SecretRequest{Name: "token", Value: []byte("a long value")}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	l.closed()
	files, err := filepath.Glob(filepath.Join(l.home, "secrets", "*", "token", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	if err := errors.Join(os.Remove(files[0]), syscall.Mkfifo(files[0], 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, sound := range []bool{true, false} {
		if !sound {
			l.spoil("snapshot.created")
		}
		for _, dry := range []bool{true, false} {
			r, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, DryRun: dry})
			if err != nil || r.Sound != sound || r.Sealed != 1 {
				t.Errorf("dry run %t: sound %t: %+v, %v", dry, sound, r, err)
			}
		}
	}
}

// A link that leads nowhere, or to itself, is no ledger, and what is said of it leads on.
func TestALinkIsNoLedger(t *testing.T) {
	ctx := context.Background()
	for to, want := range map[string]string{"elsewhere": "is a link to nothing", "ledger.db": "not a regular file: ", "site.toml/x": "not a regular file: "} {
		l := newLab(t)
		if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
			t.Fatal(err)
		}
		l.closed()
		path := filepath.Join(l.home, "ledger.db")
		if err := errors.Join(os.Remove(path), os.Symlink(to, path)); err != nil {
			t.Fatal(err)
		}
		for _, dry := range []bool{true, false} {
			_, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, DryRun: dry})
			var known *api.Error
			if !errors.As(err, &known) || known.Code != api.CodeDamaged || !strings.Contains(known.Message, want) || !strings.Contains(known.Hint, "restore-snapshot --latest") {
				t.Errorf("a link to %s: %v", to, err)
			}
		}
		opt := engine.RestoreOptions{Home: l.home, Latest: true, Actor: who}
		if to != "elsewhere" {
			if _, err := engine.Restore(ctx, opt); codeOf(err) != api.CodeDamaged || !strings.Contains(err.Error(), want) {
				t.Errorf("restored over a link to %s: %v", to, err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := engine.Restore(ctx, opt); err != nil {
			t.Errorf("a link to %s: %v", to, err)
		}
	}
}

// A ledger behind a link that the system does not follow may be sound: nobody is told to move it
// away. What stops the system here would be missing rights elsewhere.
func TestALedgerOutOfReachIsNotCalledDamaged(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	l.closed()
	path := filepath.Join(l.home, "ledger.db")
	if err := errors.Join(os.Remove(path), os.Symlink(strings.Repeat("x", 300), path)); err != nil {
		t.Fatal(err)
	}
	_, recovered := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who})
	_, restored := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who})
	for _, err := range []error{recovered, restored} {
		if err == nil || codeOf(err) == api.CodeDamaged {
			t.Errorf("%v: %v", codeOf(err), err)
		}
	}
}

// edit changes ledger.db of a home that nobody holds.
func (l *lab) edit(f func(*bolt.Tx) error) {
	l.t.Helper()
	b, err := bolt.Open(filepath.Join(l.home, "ledger.db"), 0o600, nil)
	if err == nil {
		err = errors.Join(b.Update(f), b.Close())
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// Where a recovery is no way out the hint names what is: it has no other snapshot to try.
func TestARecoveryThatCannotBeNamesAnotherWay(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(l *lab)
		want  string
	}{
		"the first entry": {func(l *lab) { l.spoil("site.initialized") }, "not even the first two entries of the ledger can be read"},
		"the first trust": {func(l *lab) { l.spoil("trust.changed") }, "not even the first two entries of the ledger can be read"},
		"a file that trust is of": {func(l *lab) {
			l.spoil("snapshot.created")
			for _, name := range []string{"sealed", "trust"} {
				if err := os.RemoveAll(filepath.Join(l.home, name)); err != nil {
					t.Fatal(err)
				}
			}
		}, "sealed"},
	} {
		l := newLab(t)
		if _, err := l.site().CreateSnapshot(context.Background(), api.SnapshotRequest{}, nil); err != nil {
			t.Fatal(err)
		}
		l.closed()
		filepath.WalkDir(filepath.Join(l.home, "sealed"), func(p string, d os.DirEntry, _ error) error { return os.Chmod(p, 0o700) })
		c.spoil(l)
		_, err := engine.Recover(context.Background(), engine.RecoverOptions{Home: l.home, Actor: who})
		var known *api.Error
		if !errors.As(err, &known) || known.Code != api.CodeDamaged || !strings.Contains(known.Message, c.want) ||
			!strings.Contains(known.Hint, "restore a snapshot: stella maintenance restore-snapshot --latest") {
			t.Errorf("%s: %+v", name, err)
		}
	}
}

// Nobody waits for what is no file in the place of the ledger, be it through a link, and it stays.
func TestAPipeIsNoLedger(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	l.closed()
	path, pipe := filepath.Join(l.home, "ledger.db"), filepath.Join(t.TempDir(), "pipe")
	if err := errors.Join(os.Remove(path), syscall.Mkfifo(pipe, 0o600), os.Symlink(pipe, path)); err != nil {
		t.Fatal(err)
	}
	for _, linked := range []bool{true, false} {
		for _, dry := range []bool{true, false} {
			for name, do := range map[string]func() error{
				"restore": func() error {
					_, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, DryRun: dry})
					return err
				},
				"recover": func() error {
					_, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, DryRun: dry})
					return err
				},
			} {
				told := make(chan error, 1)
				go func() { told <- do() }()
				select {
				case err := <-told:
					if codeOf(err) != api.CodeDamaged || !strings.Contains(err.Error(), "not a regular file: "+pipe) {
						t.Errorf("%s, linked %t, dry run %t: %v", name, linked, dry, err)
					}
				case <-time.After(30 * time.Second):
					t.Fatalf("%s, linked %t, dry run %t: it waits", name, linked, dry)
				}
			}
		}
		if linked {
			if err := errors.Join(os.Remove(path), os.Rename(pipe, path)); err != nil {
				t.Fatal(err)
			}
			pipe = path
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who}); err != nil {
		t.Error(err)
	}
}
