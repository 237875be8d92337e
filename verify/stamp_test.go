package verify_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// stampOf is the timestamp in a Sigstore file.
func stampOf(t *testing.T, sig []byte) []byte {
	t.Helper()
	var v struct {
		VerificationMaterial struct {
			TimestampVerificationData struct {
				RFC3161Timestamps []struct{ SignedTimestamp []byte }
			}
		}
	}
	if err := json.Unmarshal(sig, &v); err != nil {
		t.Fatal(err)
	}
	return v.VerificationMaterial.TimestampVerificationData.RFC3161Timestamps[0].SignedTimestamp
}

// stampedBy is the Sigstore file with another timestamp.
func stampedBy(sig, stamp []byte) []byte {
	return verifytest.Edit(bundle.Attached{Data: sig}, func(v map[string]any) {
		v["verificationMaterial"].(object)["timestampVerificationData"] = object{
			"rfc3161Timestamps": []object{{"signedTimestamp": base64.StdEncoding.EncodeToString(stamp)}},
		}
	}).Data
}

// TestEveryChangedByteOfATimestampIsRefused: also of the many that its authority
// did not sign.
func TestEveryChangedByteOfATimestampIsRefused(t *testing.T) {
	v, err := verify.NewBlobVerifier(byKey(rooted, noLog))
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]verifytest.With{
		"alone": {Stamped: verifytest.Created()}, "with its chain": {Stamped: verifytest.Created(), Chain: verifytest.StampChain()},
	} {
		sig := signed(w)
		judge := func(stamp []byte) error {
			_, err := v.Verify(stampedBy(sig, stamp), verify.Blob{Content: bytes.NewReader(blob)}, verifytest.Now())
			return err
		}
		stamp := stampOf(t, sig)
		if err := judge(stamp); err != nil {
			t.Fatalf("%s: the control is refused: %v", name, err)
		}
		flips := []byte{1, 2, 4, 8, 16, 32, 64, 128}
		if testing.Short() {
			flips = []byte{1}
		}
		for i := range stamp {
			for _, flip := range flips {
				bad := bytes.Clone(stamp)
				bad[i] ^= flip
				if err := judge(bad); !refused(err) {
					t.Errorf("%s: byte %d ^ %#x: %v, want a refusal", name, i, flip, err)
				}
			}
		}
	}
}

// TestTimestampsBringNothingUnverified: more than their authority signed.
func TestTimestampsBringNothingUnverified(t *testing.T) {
	v, err := verify.NewBlobVerifier(byKey(rooted, noLog))
	if err != nil {
		t.Fatal(err)
	}
	chain := verifytest.StampChain()
	leaf, _, err := newVirtual(t).GenerateLeafCert(san, verifytest.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	plain := signed(verifytest.With{Stamped: verifytest.Created()})
	with := func(chain ...[]byte) []byte {
		return signed(verifytest.With{Stamped: verifytest.Created(), Chain: chain})
	}
	// The response is 30 82 LL LL, then the status 30 03 02 01 00.
	mods := stampOf(t, plain)
	mods[8] = 1
	text := stampOf(t, plain)
	text = append(append(bytes.Clone(text[:4]), 0x30, 9, 2, 1, 0, 0x30, 4, 0x0c, 2, 'o', 'k'), text[9:]...)
	text[2], text[3] = byte((len(text)-4)>>8), byte(len(text)-4)
	long := stampOf(t, plain)
	long = append([]byte{0x30, 0x83, 0, long[2], long[3]}, long[4:]...)
	for name, c := range map[string]struct {
		sig  []byte
		want verify.Reason
	}{
		"no certificates":             {plain, ""},
		"an empty list of them":       {signed(verifytest.With{Stamped: verifytest.Created(), Chain: [][]byte{}}), ""},
		"its own certificate":         {with(chain[0]), ""},
		"its chain":                   {with(chain...), ""},
		"a strange one beside":        {with(chain[0], leaf.Raw), verify.SignatureInvalid},
		"its own twice":               {with(chain[0], chain[0]), verify.SignatureInvalid},
		"what is no certificate":      {with(chain[0], []byte{5, 0}), verify.SignatureInvalid},
		"granted with modifications":  {stampedBy(plain, mods), verify.SignatureMalformed},
		"a text in the status":        {stampedBy(plain, text), verify.SignatureMalformed},
		"a length of too many bytes":  {stampedBy(plain, long), verify.SignatureMalformed},
		"a byte behind":               {stampedBy(plain, append(stampOf(t, plain), 0)), verify.SignatureMalformed},
		"nothing":                     {stampedBy(plain, nil), verify.SignatureMalformed},
		"a list that nests very deep": {stampedBy(plain, deep(200)), verify.SignatureMalformed},
	} {
		_, err := v.Verify(c.sig, verify.Blob{Content: bytes.NewReader(blob)}, verifytest.Now())
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "":
			wantReason(t, err, c.want)
		}
	}
}

// deep is a list of a list of a list.
func deep(n int) []byte {
	out := []byte{5, 0}
	for range n {
		length := []byte{byte(len(out))}
		if len(out) > 255 {
			length = []byte{0x82, byte(len(out) >> 8), byte(len(out))}
		} else if len(out) > 127 {
			length = []byte{0x81, byte(len(out))}
		}
		out = append(append([]byte{0x30}, length...), out...)
	}
	return out
}
