package verify_test

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

var every = flag.Bool("every", false, "change every byte of every admitted fixture, with eight flips each; takes minutes")

// TestEveryChangedByteIsRefused changes each byte of a small complete bundle in
// three ways. Its signers are all known: what a stranger signed beside them
// nobody can check.
func TestEveryChangedByteIsRefused(t *testing.T) {
	b := verifytest.NewBundle()
	b.Files = map[string]string{"a": "1\n", "b": strings.Repeat("text ", 200)}
	raw, packed := b.Pack(noOptions())
	raw = verifytest.Attach(raw, verifytest.Signatures(packed.Raw, "acme-1"), attached(
		verifytest.Attestation(packed.Digest, verifytest.Review, "1", "reviewer")))
	trust := verifytest.NewTrust()
	trust.Acme().Require.Attestations = []manifests.RequiredAttestation{{PredicateType: verifytest.Review, Keys: []string{verifytest.PEM("reviewer")}}}
	t.Logf("%d bytes", len(raw))
	f := verifytest.Fixture{Name: "small", Raw: raw, Now: verifytest.Now()}
	changeBytes(t, &f, trust.Load(), func(i int) []byte {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		one := byte(1) << random.IntN(8)
		if testing.Short() {
			return []byte{one}
		}
		two := byte(1+random.IntN(255)) ^ one
		return []byte{one, max(two, 1), 0xff}
	})
}

// TestEveryChangedByteOfEveryFixture does so for all that is admitted.
func TestEveryChangedByteOfEveryFixture(t *testing.T) {
	if !*every {
		t.Skip("runs with -every")
	}
	trusts := loadTrusts()
	for _, f := range fixtures() {
		if strings.HasPrefix(f.Expect, verifytest.ExpectAdmit) && f.Name != "stranger-beside" && f.Name != "attested" {
			changeBytes(t, &f, trusts[f.Trust], func(int) []byte { return []byte{1, 2, 4, 8, 16, 32, 64, 128} })
		}
	}
}

// changeBytes expects that f is admitted, and refused with any byte changed.
func changeBytes(t *testing.T, f *verifytest.Fixture, trust *verify.Trust, flips func(int) []byte) {
	t.Helper()
	if _, err := verify.Check(bytes.NewReader(f.Raw), trust, f.Options(spool(t)), nil); err != nil {
		t.Fatalf("%s: the control is refused: %v", f.Name, err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // thousands of small judgements
	var wg sync.WaitGroup
	const workers = 2
	for w := range workers {
		place := spool(t)
		wg.Go(func() {
			bad := bytes.Clone(f.Raw)
			for i := w; i < len(bad); i += workers {
				for _, flip := range flips(i) {
					bad[i] ^= flip
					if _, err := verify.Check(bytes.NewReader(bad), trust, f.Options(place), nil); !refused(err) {
						t.Errorf("%s: byte %d ^ %#x: %v, want a refusal", f.Name, i, flip, err)
					}
					bad[i] ^= flip
				}
			}
		})
	}
	wg.Wait()
}

// refused says whether err is a refusal.
func refused(err error) bool {
	var r *verify.RejectError
	return errors.As(err, &r)
}

// TestEveryCutIsRefused ends a bundle with everything in it at each byte near
// the edge of a block, and at many others: each time as cut short.
func TestEveryCutIsRefused(t *testing.T) {
	raw := verifytest.Attach(verifytest.NewBundle().Sign("acme-1"), nil, attached(
		verifytest.Attestation(verifytest.NewBundle().Digest(), verifytest.Review, "1", "reviewer")))
	trust, place := verifytest.NewTrust().Load(), spool(t)
	f := verifytest.Fixture{Name: "cut", Raw: raw, Now: verifytest.Now()}
	if _, err := verify.Check(bytes.NewReader(raw), trust, f.Options(place), nil); err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		if edge := i % 512; edge > 1 && edge < 511 && i%61 != 0 {
			continue
		}
		_, err := verify.Check(bytes.NewReader(raw[:i]), trust, f.Options(place), nil)
		if got := outcome(nil, err); got != string(bundle.Truncated) {
			t.Errorf("cut at %d: %s (%v), want %s", i, got, err, bundle.Truncated)
		}
	}
}

// TestEveryChangedByteOfASigstoreFile changes each byte of signatures that bring
// all that there is: none of it is still canonical JSON that verifies.
func TestEveryChangedByteOfASigstoreFile(t *testing.T) {
	at := verifytest.Created()
	for name, c := range map[string]struct {
		policy verify.BlobPolicy
		with   verifytest.With
	}{
		"a key in the second log":         {byKey(rooted), verifytest.With{Logged2: true, Stamped: at}},
		"a certificate in the log":        {byIdentity(), verifytest.With{SAN: san, SCT: true, Logged: at}},
		"a certificate in the second log": {byIdentity(), verifytest.With{SAN: san, SCT: true, Logged2: true, Stamped: at}},
	} {
		v, err := verify.NewBlobVerifier(c.policy)
		if err != nil {
			t.Fatal(err)
		}
		accepts := func(sig []byte) bool {
			if _, err := v.Verify(sig, verify.Blob{Content: bytes.NewReader(blob)}, verifytest.Now()); err != nil {
				return false
			}
			form, err := verify.Canonical(sig)
			return err == nil && bytes.Equal(form, sig)
		}
		sig := signed(c.with)
		if !accepts(sig) {
			t.Fatalf("%s: the control is refused", name)
		}
		for i := range sig {
			flip := byte(1) << (i % 8)
			sig[i] ^= flip
			if accepts(sig) {
				t.Errorf("%s: byte %d ^ %#x is accepted: …%s…", name, i, flip, sig[max(0, i-20):min(len(sig), i+20)])
			}
			sig[i] ^= flip
		}
	}
}
