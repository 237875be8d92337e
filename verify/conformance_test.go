package verify_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/verify"
)

// The identity that signed the bundles of the Sigstore conformance suite.
const (
	conformanceSAN    = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main"
	conformanceIssuer = "https://token.actions.githubusercontent.com"
)

// stricter are the bundles of that suite which others accept and stella does
// not, by the refusal.
var stricter = map[string]verify.Reason{
	"happy-path-v0.1":                        verify.SignatureMalformed, // media types other than the one of v0.3
	"happy-path-v0.2":                        verify.SignatureMalformed,
	"happy-path-v0.3":                        verify.SignatureMalformed,
	"intoto-with-custom-trust-root":          verify.AttestationMalformed,
	"trust-root-tlog-validity-end-inclusive": verify.SignatureMalformed,
	"rekor2-checkpoint-two-sigs-cosigned":    verify.SignatureMalformed, // a log that signs its head twice
	"rekor2-checkpoint-two-sigs-from-origin": verify.SignatureMalformed,
	"managed-key-happy-path":                 verify.SignatureExtra, // a log entry that no root was given for
}

// TestConformance judges the bundles of github.com/sigstore/sigstore-conformance
// in a checkout of it. They are not copied here.
func TestConformance(t *testing.T) {
	dir := os.Getenv("STELLA_CONFORMANCE")
	if dir == "" {
		t.Skip("SKIPPED: STELLA_CONFORMANCE names no checkout of sigstore-conformance; it was not tested")
	}
	assets := filepath.Join(dir, "test", "assets", "bundle-verify")
	entries, err := os.ReadDir(assets)
	if err != nil {
		t.Fatal(err)
	}
	judged := 0
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			ok, err := conform(t, assets, e.Name())
			if !ok {
				t.Skip("it needs the public trusted root, which is not in the suite")
			}
			judged++
			var refusal *verify.RejectError
			var policy *verify.PolicyError
			want, strict := stricter[e.Name()]
			switch fail := strings.HasSuffix(e.Name(), "_fail"); {
			case fail && err == nil:
				t.Error("it is accepted")
			case fail && !errors.As(err, &refusal) && !errors.As(err, &policy):
				t.Errorf("neither a refusal nor a fault of the policy: %v", err)
			case strict:
				wantReason(t, err, want)
			case !fail && err != nil:
				t.Error(err)
			}
		})
	}
	if judged < 30 {
		t.Errorf("only %d bundles were judged", judged)
	}
}

// conform judges one bundle of the suite; false if it cannot be.
func conform(t *testing.T, assets, name string) (bool, error) {
	t.Helper()
	read := func(file string) []byte {
		raw, err := os.ReadFile(filepath.Join(assets, name, file))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return raw
	}
	sig, key := read("bundle.sigstore.json"), read("key.pub")
	p := verify.BlobPolicy{Key: key, TrustedRoot: read("trusted_root.json"), PredicateType: predicateOf(sig)}
	if len(key) == 0 {
		p.SAN, p.Issuer = conformanceSAN, conformanceIssuer
	}
	if p.NoLog = len(p.TrustedRoot) == 0; p.NoLog && len(key) == 0 {
		if p.TrustedRoot = publicRoot(t); p.TrustedRoot == nil {
			return false, nil
		}
		p.NoLog = false
	}
	v, err := verify.NewBlobVerifier(p)
	if err != nil {
		return true, err
	}
	artifact := filepath.Join(assets, name, "artifact")
	if _, err := os.Stat(artifact); err != nil {
		artifact = filepath.Join(assets, "a.txt")
	}
	f, err := os.Open(artifact)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = v.Verify(sig, verify.Blob{Content: f}, time.Now())
	return true, err
}

// publicRoot is the trusted root of the public Sigstore, where one is given.
func publicRoot(t *testing.T) []byte {
	t.Helper()
	path := os.Getenv("STELLA_PUBLIC_ROOT")
	if path == "" {
		return nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// predicateOf is the predicate type that an unverified statement has.
func predicateOf(sig []byte) string {
	var b struct {
		DSSEEnvelope *struct{ Payload string }
	}
	var s struct{ PredicateType string }
	if json.Unmarshal(sig, &b) != nil || b.DSSEEnvelope == nil {
		return ""
	}
	raw, _ := base64.StdEncoding.DecodeString(b.DSSEEnvelope.Payload)
	if json.Unmarshal(raw, &s) != nil || s.PredicateType == "" {
		return "none"
	}
	return s.PredicateType
}
