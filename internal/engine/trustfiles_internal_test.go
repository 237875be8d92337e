package engine

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"testing"

	"github.com/stellarun/stella/verify"
)

// A sealed signature goes with the file that it is over, whatever the curve of its key; what is
// over none of them goes with none.
func TestASignatureGoesWithItsFile(t *testing.T) {
	files := verify.Files{Roots: []verify.RoleFile{{Raw: []byte("root 1")}, {Raw: []byte("root 2")}}, Policy: verify.RoleFile{Raw: []byte("policy")}}
	short, long := sha256.Sum256([]byte("policy")), sha512.Sum384([]byte("root 2"))
	none := sha512.Sum384(nil) // there are no revocations
	for _, c := range []struct {
		digest []byte
		with   *verify.RoleFile
	}{{short[:], &files.Policy}, {long[:], &files.Roots[1]}, {none[:], nil}, {nil, nil}} {
		sig, err := json.Marshal(map[string]any{
			"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": []byte{1, 2}}},
			"messageSignature":     map[string]any{"messageDigest": map[string]any{"digest": c.digest}},
		})
		if err != nil {
			t.Fatal(err)
		}
		before := signaturesOf(files)
		s, err := readRoleSignature(sig)
		ok := s.attach(&files)
		switch added := signaturesOf(files) - before; {
		case c.with == nil && (ok || added != 0):
			t.Errorf("a signature over no file is with one, and %d files have another", added)
		case c.with != nil && (err != nil || !ok || added != 1 || len(c.with.Signatures) != 1 || c.with.Signatures[0].ID != "0102"):
			t.Errorf("%d files have another, %+v, %v", added, c.with, err)
		}
	}
}

func signaturesOf(f verify.Files) (n int) {
	for _, r := range append(f.Roots, f.Policy, f.Revocations) {
		n += len(r.Signatures)
	}
	return n
}
