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
)

// TestCrashTrustChild is the process that is killed: it revokes, rotates a
// publisher's key and then the root's, and says what it was told is done.
func TestCrashTrustChild(t *testing.T) {
	home := os.Getenv("STELLA_CRASH_TRUST")
	if home == "" {
		t.Skip("it is started by TestCrashInAChangeOfTrust")
	}
	e, err := engine.Open(context.Background(), engine.Options{Home: home, Version: "0.1.0"})
	if err == nil {
		err = changeTrust(e.As(api.Principal{Name: who}))
	}
	if err == nil {
		err = e.Close()
	}
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(3)
	}
	os.Exit(0)
}

func changeTrust(s api.Site) error {
	ctx := context.Background()
	for _, step := range []struct {
		name string
		do   func() (api.TrustReport, error)
	}{
		{"revoked", func() (api.TrustReport, error) {
			return s.RevokeTrust(ctx, api.TrustRevocation{Blob: strings.Repeat("0", 64), Reason: "test"})
		}},
		{"demanded", func() (api.TrustReport, error) {
			return s.AddTrust(ctx, api.TrustAddition{Publisher: "acme", Audience: true})
		}},
		{"rotated", func() (api.TrustReport, error) { return s.RotateTrust(ctx, api.TrustRotation{}) }},
	} {
		if _, err := step.do(); err != nil {
			return err
		}
		fmt.Println(step.name)
	}
	return nil
}

// Wherever a change of trust is cut off, the site opens again with the trust
// before or after it, never in between, keeps what was acknowledged, and can be
// changed with the key in keys/root.key.
func TestCrashInAChangeOfTrust(t *testing.T) {
	l := newLab(t)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		failpoint.FSXWrite, failpoint.FSXSync, failpoint.FSXRename, failpoint.FSXSyncDir,
		failpoint.StoreCommitBefore, failpoint.StoreCommitAfter, failpoint.SealBlob,
	} {
		for hit := 1; ; hit++ {
			home := filepath.Join(t.TempDir(), "site")
			copySite(t, l.home, home)
			if !crashTrustOnce(t, home, fmt.Sprintf("%s=%d:kill", name, hit)) {
				if hit == 1 {
					t.Errorf("%s is not on the way of a change of trust", name)
				}
				break
			}
		}
	}
}

func crashTrustOnce(t *testing.T, home, fail string) (killed bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashTrustChild$")
	cmd.Env = append(os.Environ(), "STELLA_CRASH_TRUST="+home, failpoint.Env+"="+fail)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == -1 {
		killed = true
	} else if err != nil {
		t.Errorf("%s: the child ended with %v:\n%s", fail, err, out)
		return false
	}
	e, err := engine.Open(context.Background(), engine.Options{Home: home, Version: "0.1.0"})
	if err != nil {
		t.Errorf("%s: the site does not open: %v; the child said:\n%s", fail, err, out)
		return killed
	}
	defer e.Close()
	s := e.As(api.Principal{Name: who})
	r, err := s.ShowTrust(context.Background())
	if err != nil {
		t.Errorf("%s: %v", fail, err)
		return killed
	}
	for said, holds := range map[string]bool{
		"revoked": r.Trust.RevocationSerial > 0, "demanded": strings.Contains(r.Policy, "audience = true"), "rotated": r.Trust.RootVersion == 2,
	} {
		if strings.Contains(string(out), said) && !holds {
			t.Errorf("%s: %s was acknowledged, and is not so", fail, said)
		}
	}
	if _, err := s.AddTrust(context.Background(), api.TrustAddition{Publisher: "acme", Level: "audit"}); err != nil {
		t.Errorf("%s: the key of the root no longer signs: %v", fail, err)
	}
	if _, err := s.VerifyLedger(context.Background(), api.LedgerCheck{Full: true}, nil); err != nil {
		t.Errorf("%s: %v", fail, err)
	}
	return killed
}
