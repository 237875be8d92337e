package verify_test

import (
	"bytes"
	"testing"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// FuzzSignatureJSON: what can be attached has one form, and making that form
// again changes nothing.
func FuzzSignatureJSON(f *testing.F) {
	manifest := []byte("schema = \"stella.bundle/1\"\n")
	digest := verifytest.NewBundle().Digest()
	seeds := [][]byte{
		verifytest.Signatures(manifest, "acme-1")[0].Data,
		verifytest.Logged(manifest, "acme-1", verifytest.Created()).Data,
		verifytest.Certified(manifest, "leaf-1", "release@acme.test", verifytest.Created()).Data,
		verifytest.Attestation(digest, verifytest.Review, `{"a":[1,2]}`, "reviewer").Data,
	}
	for _, s := range seeds {
		if out, err := verify.Canonical(s); err != nil || !bytes.Equal(out, s) {
			f.Fatalf("a seed is not canonical: %v", err)
		}
		f.Add(s)
	}
	trust := verifytest.NewTrust().Load()
	f.Fuzz(func(t *testing.T, raw []byte) {
		out, err := verify.Canonical(raw)
		if err != nil {
			return
		}
		if err := jcs.Check(out); err != nil {
			t.Fatalf("not canonical: %v", err)
		}
		again, err := verify.Canonical(out)
		if err != nil || !bytes.Equal(out, again) {
			t.Fatalf("not a fixed point (%v):\n%s\n%s", err, out, again)
		}
		// Whatever it claims, it is no signature of a trusted signer over this.
		other := append(bytes.Clone(manifest), raw...)
		for _, key := range []string{"acme-1", "reviewer"} {
			sigs := attached(verifytest.Signatures(manifest, key)...)
			sigs[0].Data = out
			if _, err := trust.Signatures(other, sigs, verifytest.Now()); err == nil {
				t.Fatalf("%s signed other bytes", key)
			}
		}
	})
}
