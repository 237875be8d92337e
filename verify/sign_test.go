package verify_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// TestNoncesAreThoseOfRFC6979 takes the key and signatures of its appendix
// A.2.5, P-256 with SHA-256.
func TestNoncesAreThoseOfRFC6979(t *testing.T) {
	scalar, err := hex.DecodeString("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ message, r, s string }{
		{"sample", "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716", "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"},
		{"test", "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367", "019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083"},
	} {
		a, err := verify.SignManifest([]byte(c.message), key)
		if err != nil {
			t.Fatal(err)
		}
		var sig struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(signatureOf(t, a.Data), &sig); err != nil {
			t.Fatal(err)
		}
		r, _ := new(big.Int).SetString(c.r, 16)
		s, _ := new(big.Int).SetString(c.s, 16)
		if sig.R.Cmp(r) != 0 || sig.S.Cmp(s) != 0 {
			t.Errorf("%s: r %X s %X, want %s %s", c.message, sig.R, sig.S, c.r, c.s)
		}
	}
}

// signatureOf takes the signature out of a message signature.
func signatureOf(t testing.TB, raw []byte) []byte {
	t.Helper()
	var v struct {
		MessageSignature struct{ Signature []byte }
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v.MessageSignature.Signature
}

func TestASignatureHasTheDocumentedForm(t *testing.T) {
	raw := []byte("schema = \"stella.bundle/1\"\n")
	a, err := verify.SignManifest(raw, verifytest.Key("acme-1"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := verify.SignManifest(raw, verifytest.Key("acme-1"))
	if err != nil || !bytes.Equal(a.Data, again.Data) {
		t.Error("two signatures of one key over one manifest differ")
	}
	der, err := x509.MarshalPKIXPublicKey(&verifytest.Key("acme-1").PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	id, sum := sha256.Sum256(der), sha256.Sum256(raw)
	if a.ID != hex.EncodeToString(id[:]) || a.ID != verifytest.KeyID("acme-1") {
		t.Errorf("id %s, want %x", a.ID, id)
	}
	want := `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"` +
		base64.StdEncoding.EncodeToString(sum[:]) + `"},"signature":"` + base64.StdEncoding.EncodeToString(signatureOf(t, a.Data)) +
		`"},"verificationMaterial":{"publicKey":{"hint":"` + base64.StdEncoding.EncodeToString(id[:]) + `"}}}`
	if string(a.Data) != want {
		t.Errorf("got\n%s\nwant\n%s", a.Data, want)
	}
}

func TestKeyFiles(t *testing.T) {
	key, err := verify.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	private, err := verify.MarshalPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := verify.MarshalPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := verify.ParsePrivateKey(private); err != nil || !got.Equal(key) {
		t.Errorf("private key: %v", err)
	}
	if got, err := verify.ParsePublicKey(public); err != nil || !got.Equal(&key.PublicKey) {
		t.Errorf("public key: %v", err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"nothing": nil, "text": []byte("key"), "a public key": public, "two keys": append(bytes.Clone(private), private...),
		"text before":   append([]byte("hello\n"), private...),
		"another curve": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: other}),
		"a header":      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"a": "b"}, Bytes: other}),
		"broken":        pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}),
	} {
		if _, err := verify.ParsePrivateKey(raw); err == nil {
			t.Errorf("%s is a private key", name)
		} else if strings.Contains(err.Error(), "MII") {
			t.Errorf("%s: the error quotes the file", name)
		}
	}
	for name, raw := range map[string][]byte{
		"nothing": nil, "a private key": private, "two keys": append(bytes.Clone(public), public...),
		"broken": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}),
	} {
		if _, err := verify.ParsePublicKey(raw); err == nil {
			t.Errorf("%s is a public key", name)
		}
	}
}

func TestAKeyFileOfAnotherKindIsNamed(t *testing.T) {
	block := func(kind string) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("x")}) }
	for _, c := range []struct {
		kind            string
		public, private string // what is said where one of these is wanted
	}{
		{"PRIVATE KEY", "it is a private key, and a public key is wanted", "it holds no ECDSA key on P-256"},
		{"EC PRIVATE KEY", "it is a private key, and a public key is wanted", "it is a private key in another form than PKCS#8"},
		{"ENCRYPTED SIGSTORE PRIVATE KEY", "it is a private key, and a public key is wanted", "it is an encrypted private key"},
		{"PUBLIC KEY", "it holds no ECDSA key on P-256 or P-384", "it is a public key, and a private key is wanted"},
		{"CERTIFICATE", "it is not a public key in PEM", "it is not a private key in PEM"},
	} {
		_, err := verify.ParsePublicKey(block(c.kind))
		if err == nil || !strings.Contains(err.Error(), c.public) {
			t.Errorf("%s as a public key: %v, want %q", c.kind, err, c.public)
		}
		_, err = verify.ParsePrivateKey(block(c.kind))
		if err == nil || !strings.Contains(err.Error(), c.private) {
			t.Errorf("%s as a private key: %v, want %q", c.kind, err, c.private)
		}
	}
}

func TestCanonicalBringsOtherWritingsIntoTheOneForm(t *testing.T) {
	a := verifytest.Signatures([]byte("x"), "acme-1")[0]
	var v any
	if err := json.Unmarshal(a.Data, &v); err != nil {
		t.Fatal(err)
	}
	pretty, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	unpadded := bytes.ReplaceAll(a.Data, []byte(`="`), []byte(`"`))
	// The hint is text, not bytes: it stays as it is.
	hint := base64.StdEncoding.EncodeToString(mustHex(t, a.ID))
	unpadded = bytes.Replace(unpadded, []byte(strings.TrimSuffix(hint, "=")+`"`), []byte(hint+`"`), 1)
	number := bytes.Replace(a.Data, []byte(`"SHA2_256"`), []byte("1"), 1)
	snake := bytes.Replace(a.Data, []byte(`"mediaType"`), []byte(`"media_type"`), 1)
	for name, raw := range map[string][]byte{
		"itself": a.Data, "white space": pretty, "unpadded base64": unpadded, "a number for a name": number, "proto names": snake,
	} {
		got, err := verify.Canonical(raw)
		if err != nil || !bytes.Equal(got, a.Data) {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
	if bytes.Equal(unpadded, a.Data) || bytes.Equal(number, a.Data) {
		t.Error("the cases do not differ")
	}
}

func mustHex(t testing.TB, s string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestShapesThatNobodyMayAttach changes a good file.
func TestShapesThatNobodyMayAttach(t *testing.T) {
	type object = map[string]any
	good := verifytest.Signatures([]byte("x"), "acme-1")[0]
	statement := verifytest.Attestation(strings.Repeat("0", 64), verifytest.Review, `{}`, "acme-1")
	message := func(v object) object { return v["messageSignature"].(object) }
	envelope := func(v object) object { return v["dsseEnvelope"].(object) }
	sig := signatureOf(t, good.Data)
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(sig, &rs); err != nil {
		t.Fatal(err)
	}
	flat := append(rs.R.FillBytes(make([]byte, 32)), rs.S.FillBytes(make([]byte, 32))...)

	for name, raw := range map[string][]byte{
		"nothing": nil, "an array": []byte("[]"), "an empty object": []byte("{}"),
		"version 0.2":     verifytest.Edit(good, func(v object) { v["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2" }).Data,
		"the other 0.3":   verifytest.Edit(good, func(v object) { v["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.3" }).Data,
		"an unknown key":  verifytest.Edit(good, func(v object) { v["more"] = 1 }).Data,
		"no key":          verifytest.Edit(good, func(v object) { delete(v, "verificationMaterial") }).Data,
		"a chain":         verifytest.Edit(good, func(v object) { v["verificationMaterial"] = object{"x509CertificateChain": object{}} }).Data,
		"no certificate":  verifytest.Edit(good, func(v object) { v["verificationMaterial"] = object{"certificate": object{}} }).Data,
		"a short hint":    verifytest.Edit(good, func(v object) { v["verificationMaterial"] = object{"publicKey": object{"hint": "AAAA"}} }).Data,
		"no content":      verifytest.Edit(good, func(v object) { delete(v, "messageSignature") }).Data,
		"no digest":       verifytest.Edit(good, func(v object) { delete(message(v), "messageDigest") }).Data,
		"another hash":    verifytest.Edit(good, func(v object) { message(v)["messageDigest"].(object)["algorithm"] = "SHA2_512" }).Data,
		"a short digest":  verifytest.Edit(good, func(v object) { message(v)["messageDigest"].(object)["digest"] = "AAAA" }).Data,
		"no signature":    verifytest.Edit(good, func(v object) { delete(message(v), "signature") }).Data,
		"a flat one":      verifytest.Edit(good, func(v object) { message(v)["signature"] = base64.StdEncoding.EncodeToString(flat) }).Data,
		"bytes behind it": verifytest.Edit(good, func(v object) { message(v)["signature"] = base64.StdEncoding.EncodeToString(append(sig, 0)) }).Data,
		"two signatures":  verifytest.Edit(statement, func(v object) { s := envelope(v)["signatures"].([]any); envelope(v)["signatures"] = append(s, s[0]) }).Data,
		"a keyid":         verifytest.Edit(statement, func(v object) { envelope(v)["signatures"].([]any)[0].(object)["keyid"] = "me" }).Data,
		"both": verifytest.Edit(good, func(v object) {
			verifytest.Edit(statement, func(from object) { v["dsseEnvelope"] = from["dsseEnvelope"] })
		}).Data,
		"twice a key": bytes.Replace(good.Data, []byte(`{"mediaType"`), []byte(`{"mediaType":"x","mediaType"`), 1),
	} {
		if out, err := verify.Canonical(raw); err == nil {
			t.Errorf("%s is accepted: %s", name, out)
		}
	}
}

func TestAStatementMustBeOne(t *testing.T) {
	digest := strings.Repeat("0", 64)
	good, err := verify.Statement(digest, verifytest.Review, []byte(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := jcs.Check(good); err != nil {
		t.Error(err)
	}
	if _, err := verify.SignStatement(good, verifytest.Key("acme-1")); err != nil {
		t.Error(err)
	}
	for name, payload := range map[string]string{
		"nothing": "", "an array": "[]", "no type": `{"predicateType":"p","subject":[]}`,
		"another type": strings.Replace(string(good), "Statement/v1", "Statement/v2", 1),
		"twice a key":  strings.Replace(string(good), `{"_type"`, `{"predicateType":"x","_type"`, 1),
		"another case": strings.Replace(string(good), `"subject"`, `"Subject"`, 1),
		"cut":          string(good[:len(good)-1]),
		"more behind":  string(good) + "{}",
	} {
		if _, err := verify.SignStatement([]byte(payload), verifytest.Key("acme-1")); err == nil {
			t.Errorf("%s is a statement", name)
		}
	}
	if _, err := verify.Statement(digest, "p", []byte("{")); err == nil {
		t.Error("a broken predicate is accepted")
	}
}
