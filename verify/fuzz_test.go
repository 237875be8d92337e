package verify_test

import (
	"bytes"
	"reflect"
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

// FuzzBlobSignature: what verifies has one canonical form, which verifies to the
// same verdict, and verifies no other file.
func FuzzBlobSignature(f *testing.F) {
	at := verifytest.Created()
	cert := verifytest.With{SAN: san, SCT: true, Logged: at}
	seeds := []struct {
		policy verify.BlobPolicy
		sig    []byte
	}{
		{byKey(), signed(verifytest.With{})},
		{byKey(rooted), signed(verifytest.With{Logged2: true, Stamped: at})},
		{byIdentity(), signed(cert)},
		{byKey(states(cycloneDX)), stated(f, v01, cycloneDX, verifytest.With{})},
		{byIdentity(states(cycloneDX)), stated(f, v1, cycloneDX, cert)},
	}
	verifiers := make([]*verify.BlobVerifier, len(seeds))
	for i, s := range seeds {
		v, err := verify.NewBlobVerifier(s.policy)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := v.Verify(s.sig, verify.Blob{Content: bytes.NewReader(blob)}, verifytest.Now()); err != nil {
			f.Fatalf("a seed is refused: %v", err)
		}
		verifiers[i] = v
		f.Add(uint8(i), s.sig, uint8(i), uint8(1))
	}
	f.Fuzz(func(t *testing.T, which uint8, sig []byte, at, flip uint8) {
		v := verifiers[int(which)%len(verifiers)]
		got, err := v.Verify(sig, verify.Blob{Content: bytes.NewReader(blob)}, verifytest.Now())
		if err != nil {
			if !refused(err) {
				t.Fatalf("not a refusal: %v", err)
			}
			return
		}
		form, err := verify.Canonical(sig)
		if err != nil {
			t.Fatalf("verified, and has no canonical form: %v", err)
		}
		again, err := v.Verify(form, verify.Blob{Content: bytes.NewReader(blob)}, verifytest.Now())
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("its canonical form: %v\n%+v\n%+v", err, got, again)
		}
		if flip == 0 {
			return
		}
		other := bytes.Clone(blob)
		other[int(at)%len(other)] ^= flip
		if _, err := v.Verify(sig, verify.Blob{Content: bytes.NewReader(other)}, verifytest.Now()); !refused(err) {
			t.Fatalf("byte %d of the file changed: %v", int(at)%len(other), err)
		}
	})
}
