package engine_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// signs says whether keys/root.key can change the site's trust.
func (l *lab) signs() bool {
	l.t.Helper()
	_, err := l.site().AddTrust(context.Background(), api.TrustAddition{Publisher: "acme", Level: "audit", DryRun: true})
	return err == nil
}

// Rotations at once, and dry runs among them, leave one key, and it is the one
// that the root in force names.
func TestRotationsAtOnceKeepTheKey(t *testing.T) {
	l := newLab(t)
	for range 4 {
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() { l.site().RotateTrust(context.Background(), api.TrustRotation{DryRun: i%2 == 1}) })
		}
		wg.Wait()
		if !l.signs() {
			t.Fatal("the key of the root is lost")
		}
		if _, err := os.Stat(filepath.Join(l.home, "keys", "root.key.next")); !os.IsNotExist(err) {
			t.Errorf("a new key was left over: %v", err)
		}
	}
}

// What goes wrong after a change is on record does not take it back, nor hide it:
// not a sealed bundle that has rotted, nor a folder that cannot be written.
func TestARecordedChangeIsNoFailure(t *testing.T) {
	l := newLab(t)
	res := l.importFile(l.dataFile("audit-data", 1, map[string]string{"a.txt": "alpha"}))
	sum := res.Verdict.Digest
	overwrite(t, filepath.Join(l.home, "sealed", "sha256", sum[:2], sum), []byte("rotten"))
	rep, err := l.site().RotateTrust(context.Background(), api.TrustRotation{})
	if err != nil || rep.Trust.RootVersion != 2 || len(rep.Refused) != 1 || rep.Refused[0].Reason != "DAMAGED" {
		t.Errorf("%+v, %v", rep.Refused, err)
	}
	if !l.signs() {
		t.Error("the key of the root is lost")
	}
	if os.Geteuid() == 0 {
		// A folder in the place of the file stops root too.
		path := filepath.Join(l.home, "trust", "revocations.toml")
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		rep, err = l.site().RevokeTrust(context.Background(), api.TrustRevocation{Manifest: sum, Reason: "test"})
		if err != nil || !strings.Contains(strings.Join(rep.Warnings, " "), "trust/ could not be written") {
			t.Errorf("%q, %v", rep.Warnings, err)
		}
		if _, err := l.site().AddTrust(context.Background(), api.TrustAddition{Publisher: "acme", Level: "audit"}); codeOf(err) != api.CodeNotWritable {
			t.Errorf("a second change on top of one that is not written: %v", err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		l.reopen()
		if r, err := l.site().ShowTrust(context.Background()); err != nil || r.Trust.RevocationSerial != 1 {
			t.Errorf("the next open does not mend it: %+v, %v", r.Trust, err)
		}
	}
}

func TestRevocationsCanBeWidenedNotNarrowed(t *testing.T) {
	l := newLab(t)
	digest := strings.Repeat("0", 64)
	revoke := func(from string) error {
		_, err := l.site().RevokeTrust(context.Background(), api.TrustRevocation{Manifest: digest, From: from, Reason: "test"})
		return err
	}
	for _, c := range []struct {
		from string
		code api.Code
	}{
		{"2027-06-01T00:00:00.000000000Z", ""},
		{"2027-06-01T00:00:00.000000000Z", api.CodeConflict},
		{"2027-07-01T00:00:00.000000000Z", api.CodeConflict},
		{"2026-11-01T00:00:00.000000000Z", ""},
		{"", ""},
		{"2026-11-01T00:00:00.000000000Z", api.CodeConflict},
		{"", api.CodeConflict},
	} {
		if err := revoke(c.from); codeOf(err) != c.code {
			t.Errorf("from %q: %v, want %q", c.from, err, c.code)
		}
	}
}

// The last key of a role cannot be revoked: nobody could change trust any more.
func TestTheRootsOwnKeyIsRotatedNotRevoked(t *testing.T) {
	l := newLab(t)
	raw, err := os.ReadFile(filepath.Join(l.home, "keys", "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := verify.ParsePrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	id := verify.KeyID(&key.PublicKey)
	_, err = l.site().RevokeTrust(context.Background(), api.TrustRevocation{Key: id, Reason: "stolen"})
	if codeOf(err) != api.CodeConflict {
		t.Errorf("revoking it: %v", err)
	}
	if _, err := l.site().RotateTrust(context.Background(), api.TrustRotation{}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.site().RevokeTrust(context.Background(), api.TrustRevocation{Key: id, Reason: "stolen"}); err != nil {
		t.Errorf("revoking it after it was rotated: %v", err)
	}
}

// A policy that names no trusted root any more takes its file along, and the site
// opens after that and after the next change.
func TestATrustedRootCanBeGivenUp(t *testing.T) {
	l := newLab(t)
	ctx := context.Background()
	tr := `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`
	if _, err := l.site().AddTrust(ctx, api.TrustAddition{Publisher: "acme", TrustedRoot: tr}); err != nil {
		t.Fatal(err)
	}
	r, err := l.site().ShowTrust(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, err := manifests.ParsePolicy("policy.toml", []byte(r.Policy))
	if err != nil || p.TrustedRootSHA256 != bundle.Digest([]byte(tr)) {
		t.Fatal(p, err)
	}
	p.TrustedRootSHA256 = ""
	for range 3 {
		if _, err := l.site().AddTrust(ctx, api.TrustAddition{Policy: string(manifests.EncodePolicy(p))}); err != nil {
			t.Fatal(err)
		}
		l.reopen()
	}
	if _, err := os.Stat(filepath.Join(l.home, "trust", "trusted_root.json")); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

// Whatever revocations say of later times, enough keys of each role are left, and
// a new key never takes the file of one that still has a role.
func TestTheKeysOfTheRootAreKept(t *testing.T) {
	l := newLab(t)
	ctx := context.Background()
	if _, err := l.site().RotateTrust(ctx, api.TrustRotation{}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(l.home, "keys", "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := verify.ParsePrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	later := api.TrustRevocation{Key: verify.KeyID(&key.PublicKey), From: "2096-01-01T00:00:00.000000000Z", Reason: "retires"}
	if _, err := l.site().RevokeTrust(ctx, later); codeOf(err) != api.CodeConflict {
		t.Errorf("revoking the only key from a later time on: %v", err)
	}
	// As a rotation leaves it that could not put its key in place.
	next := filepath.Join(l.home, "keys", "root.key.next")
	if err := os.Rename(filepath.Join(l.home, "keys", "root.key"), next); err != nil {
		t.Fatal(err)
	}
	if _, err := l.site().RotateTrust(ctx, api.TrustRotation{RootKey: next}); codeOf(err) != api.CodeConflict {
		t.Errorf("a rotation over the key that signs it: %v", err)
	}
	l.reopen()
	if !l.signs() {
		t.Error("the key of the root is lost")
	}
}

// A signature that nobody could verify when it came, and that is bad, does not
// spoil those that count once somebody is named for its key.
func TestABadSignatureOfAStrangerSpoilsNothing(t *testing.T) {
	l := newLab(t)
	ctx := context.Background()
	other, err := verify.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	good := l.dataFile("audit-data", 1, map[string]string{"a.txt": "alpha"})
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := verify.SignManifest([]byte("another manifest"), other)
	if err != nil {
		t.Fatal(err)
	}
	var poisoned bytes.Buffer
	if err := bundle.Attach(&poisoned, bytes.NewReader(raw), []bundle.Attached{bad}, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "poisoned.stella")
	if err := os.WriteFile(path, poisoned.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	l.importFile(path)
	pub, err := verify.MarshalPublicKey(&other.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.site().AddTrust(ctx, api.TrustAddition{Publisher: "acme", Key: string(pub)}); err != nil {
		t.Fatal(err)
	}
	list, err := l.site().ListBundles(ctx, api.BundleQuery{})
	if err != nil || len(list) != 1 || list[0].Now != "ok" {
		t.Errorf("%+v, %v", list, err)
	}
}

// A copy that was written and then edited out of site.toml outlives the waiver of
// another floor.
func TestAWaiverGivesUpOneFloor(t *testing.T) {
	l := newLab(t)
	path := filepath.Join(t.TempDir(), "copy.note")
	l.copies(path)
	l.open()
	if _, err := l.site().Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	l.copies()
	os.Remove(path)
	os.Remove(filepath.Join(l.home, "checkpoint.note"))
	_, err := engine.Open(context.Background(), engine.Options{Home: l.home, Waive: &engine.Waiver{Floor: "checkpoint.note", Reason: "test", Actor: who}})
	if codeOf(err) != api.CodeFloorLost || !strings.Contains(err.Error(), path) {
		t.Errorf("after one was waived: %v", err)
	}
	l.waive(path)
	l.open()
}
