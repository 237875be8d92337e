package engine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// TestWhatWasAdmittedIsJudgedAnew in each list, and told like a refusal.
func TestWhatWasAdmittedIsJudgedAnew(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	file := l.scriptFile("audit-hello", helloScript, true)
	digest := l.importFile(file).Verdict.Digest
	now := func() string {
		t.Helper()
		list, err := l.site().ListBundles(ctx, api.BundleQuery{})
		if err != nil || len(list) != 1 {
			t.Fatalf("%d bundles, %v", len(list), err)
		}
		d, err := l.site().ShowBundle(ctx, digest)
		if err != nil || d.Now != list[0].Now {
			t.Errorf("show says %q, list %q, %v", d.Now, list[0].Now, err)
		}
		reason := d.Now
		if d.Now == api.BundleOK {
			reason = ""
		}
		if d.Report != nil && (d.Report.Reason != reason || (d.Report.Decision == verify.Admitted) != (reason == "")) {
			t.Errorf("now %s, told %s %s", d.Now, d.Report.Decision, d.Report.Reason)
		}
		return d.Now
	}
	if got := now(); got != api.BundleOK {
		t.Errorf("%s, want ok", got)
	}
	id := verify.KeyID(&l.key.PublicKey)
	if _, err := l.site().RevokeTrust(ctx, api.TrustRevocation{Key: id, Reason: "stolen"}); err != nil {
		t.Fatal(err)
	}
	if got := now(); got != string(verify.RevokedKey) {
		t.Errorf("%s, want %s", got, verify.RevokedKey)
	}
	_, err := l.site().VerifyBundle(ctx, api.VerifyRequest{Path: file}, nil)
	var e *api.Error
	if !errors.As(err, &e) || e.Refusal == nil || e.Refusal.Report == nil {
		t.Fatalf("%v", err)
	}
	r := e.Refusal
	if r.Reason != string(verify.RevokedKey) || r.Stage != string(verify.StagePolicy) || r.Detail == "" || r.Hint == "" || r.Hint != e.Hint || r.Digest != digest {
		t.Errorf("%+v", r)
	}
	if s := r.Report.Signatures; len(s) != 1 || s[0].ID != id || s[0].State != verify.StateNotCounted || s[0].Reason != string(verify.RevokedKey) || len(s[0].Lines) != 1 {
		t.Errorf("%+v", s)
	}
	d, err := l.site().ShowBundle(ctx, digest)
	if err != nil {
		t.Fatal(err)
	}
	sig := d.Admission.Signatures[0]
	overwrite(t, filepath.Join(l.home, "sealed", "sha256", sig[:2], sig), []byte("{}"))
	if got := now(); got != string(api.CodeDamaged) {
		t.Errorf("with a damaged signature: %s", got)
	}
}

// TestOutsideJudgesAsASiteWould that has admitted nothing: same verdict, same
// refusal, no site.
func TestOutsideJudgesAsASiteWould(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	file := l.scriptFile("audit-hello", helloScript, true)
	trust, files, err := engine.LoadTrustDir(filepath.Join(l.home, "trust"))
	if err != nil {
		t.Fatal(err)
	}
	inside, err := l.site().VerifyBundle(ctx, api.VerifyRequest{Path: file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := engine.Outside{Trust: trust, Files: files, Stella: "0.1.0", Now: time.Now()}
	v, err := out.VerifyBundle(ctx, file, nil)
	if err != nil || v.Digest != inside.Digest || v.Decision != inside.Decision || v.Trust != inside.Trust || len(v.Signers) != 1 {
		t.Errorf("%+v, %v, inside %+v", v, err, inside)
	}
	out.Now = time.Now().AddDate(50, 0, 0)
	var e *api.Error
	if _, err = out.VerifyBundle(ctx, file, nil); !errors.As(err, &e) || e.Refusal == nil || e.Refusal.Reason != string(verify.RootExpired) {
		t.Errorf("in fifty years: %v", err)
	}
	if _, _, err := engine.LoadTrustDir(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty folder: %v", err)
	}
	if id := engine.SiteIDOf(l.home); id != "" && len(id) != 32 {
		t.Errorf("site id %q", id)
	}
	if _, err := l.site().Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	st, err := l.site().Status(ctx)
	if err != nil || engine.SiteIDOf(l.home) != st.SiteID {
		t.Errorf("site id %q, want %q, %v", engine.SiteIDOf(l.home), st.SiteID, err)
	}
}
