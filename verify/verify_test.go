package verify_test

import (
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// Making them takes a moment, and nothing changes them.
var (
	fixtures   = sync.OnceValue(verifytest.Fixtures)
	loadTrusts = sync.OnceValue(func() map[string]*verify.Trust {
		trusts := map[string]*verify.Trust{}
		for name, t := range verifytest.Trusts() {
			trusts[name] = t.Load()
		}
		return trusts
	})
)

// spool is a place for the stored bytes of a blob.
func spool(t testing.TB) bundle.Spool {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// outcome is what a judgement came to, in the words of a fixture.
func outcome(res *verify.Result, err error) string {
	var refused *verify.RejectError
	switch {
	case errors.As(err, &refused):
		return string(refused.Reason)
	case err != nil:
		return "error: " + err.Error()
	case res.Verdict.Decision == verify.AdmittedUnderAudit:
		return verifytest.ExpectAudit
	}
	return verifytest.ExpectAdmit
}

// wantReason fails unless err is a refusal for that reason.
func wantReason(t testing.TB, err error, want verify.Reason) *verify.RejectError {
	t.Helper()
	var refused *verify.RejectError
	if !errors.As(err, &refused) || refused.Reason != want {
		t.Fatalf("error is %v, want %s", err, want)
	}
	return refused
}

func noOptions() bundle.PackOptions { return bundle.PackOptions{} }

func attached(a ...bundle.Attached) []bundle.Attached { return a }
