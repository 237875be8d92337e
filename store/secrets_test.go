package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

func ageKey(t *testing.T) []byte {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(id.String() + "\n")
}

func vault(t *testing.T, db *store.DB, key []byte) *store.Vault {
	t.Helper()
	v, err := db.OpenVault(key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func add(t *testing.T, v *store.Vault, tenant, name, value string, rotate bool) store.SecretRecord {
	t.Helper()
	rec, err := v.Add("uid:0(root)", tenant, name, []byte(value), rotate, "")
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func wantTake(t *testing.T, v *store.Vault, tenant, name string, version int64, value string) {
	t.Helper()
	n, got, err := v.Take(tenant, name)
	if err != nil || n != version || string(got) != value {
		t.Errorf("Take(%s, %s) = version %d, %q, %v; want version %d, %q", tenant, name, n, got, err, version, value)
	}
}

func TestASecretIsSetRotatedAndRemoved(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	v := vault(t, db, ageKey(t))
	if _, _, err := v.Take("default", "db"); !store.IsNotFound(err) {
		t.Errorf("Take of nothing: %v", err)
	}
	if _, err := v.Add("x", "default", "db", []byte("hunter2hunter2"), true, ""); !store.IsNotFound(err) {
		t.Errorf("rotating nothing: %v", err)
	}
	add(t, v, "default", "db", "hunter2hunter2", false)
	add(t, v, "other", "db", "of another tenant", false)
	if _, err := v.Add("x", "default", "db", []byte("overwritten"), false, ""); !errors.Is(err, store.ErrSecretTaken) {
		t.Errorf("setting it twice: %v", err)
	}
	rec := add(t, v, "default", "db", "correct horse", true)
	if rec.Last != 2 || len(rec.Versions) != 2 {
		t.Errorf("after the rotation: %+v", rec)
	}
	wantTake(t, v, "default", "db", 2, "correct horse")
	wantTake(t, v, "other", "db", 1, "of another tenant")
	if _, gone, err := v.Remove("x", "default", "db", []int64{2}, "leaked"); err != nil || len(gone) != 1 {
		t.Errorf("removing one: %v, %v", gone, err)
	}
	wantTake(t, v, "default", "db", 1, "hunter2hunter2")
	if _, _, err := v.Remove("x", "default", "db", []int64{2}, ""); !store.IsNotFound(err) {
		t.Errorf("removing it twice: %v", err)
	}
	if _, _, err := v.Remove("x", "default", "db", nil, ""); err != nil {
		t.Error(err)
	}
	if _, _, err := v.Take("default", "db"); !store.IsNotFound(err) {
		t.Errorf("Take of what was removed: %v", err)
	}
	if rec := add(t, v, "default", "db", "a third one", false); rec.Last != 3 {
		t.Errorf("a version number was used again: %+v", rec)
	}
	files, _ := filepath.Glob(filepath.Join(home, "secrets", "*", "*", "*"))
	if len(files) != 2 {
		t.Errorf("files: %v", files)
	}
}

// TestNoFileTakesThePlaceOfAnother swaps every file of two sites, two tenants,
// two secrets and two versions with every other: none opens in another's place.
func TestNoFileTakesThePlaceOfAnother(t *testing.T) {
	key := ageKey(t)
	home := newHome(t)
	db := create(t, home)
	v := vault(t, db, key)
	add(t, v, "default", "db", "first value", false)
	add(t, v, "default", "db", "second value", true)
	add(t, v, "default", "api", "third value", false)
	add(t, v, "other", "db", "fourth value", false)
	at := func(p string) string { return filepath.Join(home, "secrets", p+".age") }
	newest := []string{"default/db/2", "default/api/1", "other/db/1"}
	for _, to := range newest {
		tenant, rest, _ := strings.Cut(to, "/")
		name, _, _ := strings.Cut(rest, "/")
		own, err := os.ReadFile(at(to))
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range append(newest, "default/db/1") {
			if from == to {
				continue
			}
			other, err := os.ReadFile(at(from))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at(to), other, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, got, err := v.Take(tenant, name); err == nil {
				t.Errorf("%s in the place of %s gave %q", from, to, got)
			}
			var d *store.Damage
			if _, err := store.ReadSecretFile(v, tenant, name, 1, other); !errors.As(err, &d) && from != tenant+"/"+name+"/1" {
				t.Errorf("%s as %s/%s/1, with its digest: %v, want *Damage", from, tenant, name, err)
			}
		}
		if err := os.WriteFile(at(to), own, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wantTake(t, v, "default", "db", 2, "second value")
	if _, err := db.OpenVault([]byte("AGE-SECRET-KEY-1NOTAKEY")); err == nil || strings.Contains(err.Error(), "NOTAKEY") {
		t.Errorf("a bad key: %v", err)
	}
	if _, _, err := vault(t, db, ageKey(t)).Take("default", "db"); err == nil || errors.Is(err, store.ErrSecretFile) {
		t.Errorf("by another key: %v", err)
	}
}

func TestFilesOfSecretsTellNeitherValueNorLength(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	v := vault(t, db, ageKey(t))
	add(t, v, "default", "short", "sixsix", false)
	add(t, v, "default", "long", strings.Repeat("longer", 60), false)
	a, _ := os.ReadFile(filepath.Join(home, "secrets/default/short/1.age"))
	b, _ := os.ReadFile(filepath.Join(home, "secrets/default/long/1.age"))
	if len(a) == 0 || len(a) != len(b) {
		t.Errorf("files of %d and %d bytes", len(a), len(b))
	}
	if bytes.Contains(a, []byte("sixsix")) || bytes.Contains(b, []byte("longer")) {
		t.Error("a value lies in the clear")
	}
	for name, want := range map[string]os.FileMode{"secrets": 0o700, "secrets/default": 0o700, "secrets/default/short": 0o700, "secrets/default/short/1.age": 0o600} {
		if fi, err := os.Stat(filepath.Join(home, name)); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %o", name, fi, err, want)
		}
	}
	big := strings.Repeat("x", store.MaxSecret)
	add(t, v, "default", "big", big, false)
	wantTake(t, v, "default", "big", 1, big)
}

func TestACheckNamesSecretsThatAreDamaged(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	v := vault(t, db, ageKey(t))
	add(t, v, "default", "db", "the value", false)
	path := filepath.Join(home, "secrets", "default", "db", "1.age")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func() error { return store.CheckSecrets(db) }
	if err := check(); err != nil {
		t.Error(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := check(); !errors.Is(err, store.ErrSecretFile) || !strings.Contains(err.Error(), "secret db") {
		t.Errorf("changed: %v", err)
	}
	if _, _, err := v.Take("default", "db"); !errors.Is(err, store.ErrSecretFile) || !strings.Contains(err.Error(), "secret db") {
		t.Errorf("taken where it is changed: %v", err)
	}
	os.Remove(path)
	if err := check(); !errors.Is(err, store.ErrSecretFile) || !strings.Contains(err.Error(), "secret db") {
		t.Errorf("missing: %v", err)
	}
	if _, _, err := v.Take("default", "db"); err == nil || store.IsNotFound(err) {
		t.Errorf("a missing file is no missing secret: %v", err)
	}
}

func TestFilesThatNoEntryNamesAreSwept(t *testing.T) {
	home, key := newHome(t), ageKey(t)
	db := create(t, home)
	add(t, vault(t, db, key), "default", "db", "the value", false)
	stray := filepath.Join(home, "secrets", "default", "db", "2.age")
	if err := os.WriteFile(stray, []byte("left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := vault(t, db, key)
	if err := v.Sweep(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(stray); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	wantTake(t, v, "default", "db", 1, "the value")
}

func TestAttemptsThatWereGivenASecretAreFound(t *testing.T) {
	db := create(t, newHome(t))
	v := vault(t, db, ageKey(t))
	add(t, v, "default", "db", "the value", false)
	run, start := newRun(1, "t1")
	if _, err := db.StartRun(run, start, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Commit(run.RunID, state.Proposal{Type: ledger.AttemptStarted, Actor: "x", StepID: "a", Attempt: 1,
		Data: &ledger.AttemptStart{Generation: 1, Secrets: []ledger.SecretUse{{Name: "db", Version: 1}}}}); err != nil {
		t.Fatal(err)
	}
	rec, err := db.Secret("default", "db")
	if err != nil || rec.LastUsed == nil || rec.LastUsed.RunID != run.RunID || rec.Versions[0].Uses != 1 {
		t.Errorf("the record: %+v, %v", rec, err)
	}
	var uses []store.SecretUsage
	if err := db.SecretUses("default", "db", func(u store.SecretUsage) { uses = append(uses, u) }); err != nil || len(uses) != 1 || uses[0].StepID != "a" {
		t.Errorf("uses: %+v, %v", uses, err)
	}
	for text, want := range map[string]bool{run.RunID: true, "t1": true, "default": true, "db": true, db.SiteID(): true, "nothing like it": false} {
		what, err := db.InUse("default", text)
		if err != nil || (what != "") != want {
			t.Errorf("InUse(%q) = %q, %v; want something: %v", text, what, err, want)
		}
	}
}

func TestWhatLiesInThePlaceOfASecretIsRemoved(t *testing.T) {
	home := newHome(t)
	v := vault(t, create(t, home), ageKey(t))
	kept := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(kept, []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(path string) error{
		"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) }, // whoever opens it to write waits for a reader
		"link":   func(path string) error { return os.Symlink(kept, path) },
		"copy":   func(path string) error { return os.Link(kept, path) },
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		add(t, v, "default", name, "the value", false)
		path := filepath.Join(home, "secrets", "default", name, "1.age")
		if err := errors.Join(os.Remove(path), put(path)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := v.Remove("x", "default", name, nil, ""); err != nil {
			t.Errorf("a %s: %v", name, err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a %s is still there: %v", name, err)
		}
	}
	if raw, err := os.ReadFile(kept); err != nil || string(raw) != "not ours" {
		t.Errorf("what a link led to is now %q, %v", raw, err)
	}
}
