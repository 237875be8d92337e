package ledger_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"

	"github.com/stellarun/stella/ledger"
)

// head is some checkpoint.
func head() ledger.Checkpoint {
	return ledger.Checkpoint{Origin: ledger.Origin(siteID, 1), Size: 42, Root: sha256.Sum256([]byte("root"))}
}

func sign(t testing.TB, c ledger.Checkpoint, key crypto.Signer) string {
	t.Helper()
	raw, err := ledger.SignCheckpoint(c, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// signatureLine is a line of a signed note, from its parts.
func signatureLine(name string, keyID, sig []byte) string {
	return "— " + name + " " + base64.StdEncoding.EncodeToString(append(bytes.Clone(keyID), sig...)) + "\n"
}

// cosigned adds a witness's line to raw: a C2SP tlog-cosignature, version 1.
func cosigned(t testing.TB, raw, witness string) string {
	t.Helper()
	seed := sha256.Sum256([]byte(witness))
	key := ed25519.NewKeyFromSeed(seed[:])
	id := sha256.Sum256(append([]byte(witness+"\n\x04"), key.Public().(ed25519.PublicKey)...))
	const at = 1795335660
	text, _, _ := strings.Cut(raw, "\n\n")
	sig := ed25519.Sign(key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", at, text))
	return raw + signatureLine(witness, id[:4], append(binary.BigEndian.AppendUint64(nil, at), sig...))
}

// TestCheckpointIsWhatTheSpecSays computes a note from the text of C2SP
// signed-note and tlog-checkpoint alone.
func TestCheckpointIsWhatTheSpecSays(t *testing.T) {
	c := head()
	text := "stella/" + siteID + "/1\n42\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
	id := sha256.Sum256(append([]byte("stella/"+siteID+"/1\n\x01"), logPub()...))
	want := text + "\n" + signatureLine(c.Origin, id[:4], ed25519.Sign(logKey(), []byte(text)))
	if got := sign(t, c, logKey()); got != want {
		t.Errorf("SignCheckpoint = %s\nwant %s", got, want)
	}
}

// TestCheckpointIsReadByOthers opens our note with another implementation.
func TestCheckpointIsReadByOthers(t *testing.T) {
	c := head()
	vkey, err := ledger.VerifierKey(c.Origin, logPub())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	got, rest, n, err := log.ParseCheckpoint([]byte(sign(t, c, logKey())), c.Origin, verifier)
	if err != nil || len(rest) != 0 || len(n.Sigs) != 1 || got.Size != 42 || !bytes.Equal(got.Hash, c.Root[:]) {
		t.Errorf("another implementation reads %+v, %q, %v", got, rest, err)
	}
}

func TestOpenCheckpoint(t *testing.T) {
	for _, epoch := range []int64{1, 2, 1<<63 - 1} {
		c := head()
		c.Origin = ledger.Origin(siteID, epoch)
		raw := sign(t, c, logKey())
		got, err := ledger.OpenCheckpoint([]byte(raw), logPub(), siteID)
		if diff := cmp.Diff(c, got); err != nil || diff != "" {
			t.Errorf("epoch %d: OpenCheckpoint = %v (-want +got):\n%s", epoch, err, diff)
		}
	}
	raw := cosigned(t, cosigned(t, sign(t, head(), logKey()), "witness.example/a"), "witness.example/b")
	for name, open := range map[string]func() (ledger.Checkpoint, error){
		"OpenCheckpoint":  func() (ledger.Checkpoint, error) { return ledger.OpenCheckpoint([]byte(raw), logPub(), siteID) },
		"ParseCheckpoint": func() (ledger.Checkpoint, error) { return ledger.ParseCheckpoint([]byte(raw)) },
	} {
		got, err := open()
		if err != nil || len(got.Cosignatures) != 2 || got.Root != head().Root {
			t.Fatalf("%s of a witnessed note = %+v, %v", name, got, err)
		}
		for i, want := range []string{"witness.example/a", "witness.example/b"} {
			if cs := got.Cosignatures[i]; cs.Name != want || len(cs.Signature) != 8+64 || cs.KeyID == 0 {
				t.Errorf("%s: cosignature %d is %+v, want one of %s", name, i, cs, want)
			}
		}
	}
}

func TestManyCosignatures(t *testing.T) {
	raw := sign(t, head(), logKey())
	for i := range 16 { // as many as C2SP demands, as large as any in sight
		raw += signatureLine(fmt.Sprintf("witness.example/%d", i), []byte{1, 2, 3, byte(i)}, make([]byte, 5000))
	}
	if c, err := ledger.OpenCheckpoint([]byte(raw), logPub(), siteID); err != nil || len(c.Cosignatures) != 16 {
		t.Errorf("OpenCheckpoint of %d bytes = %d cosignatures, %v", len(raw), len(c.Cosignatures), err)
	}
	for i := range 16 {
		raw += signatureLine(fmt.Sprintf("witness.example/%d", 100+i), []byte{1, 2, 3, byte(i)}, make([]byte, 5000))
	}
	if _, err := ledger.OpenCheckpoint([]byte(raw), logPub(), siteID); !errors.Is(err, ledger.ErrTooLarge) {
		t.Errorf("OpenCheckpoint of %d bytes = %v, want ErrTooLarge", len(raw), err)
	}
}

func TestOpenCheckpointRefuses(t *testing.T) {
	c := head()
	good := sign(t, c, logKey())
	text, ours, _ := strings.Cut(good, "\n\n")
	text += "\n"
	b64 := base64.StdEncoding.EncodeToString(c.Root[:])
	otherSeed := sha256.Sum256([]byte("another key"))
	otherKey := ed25519.NewKeyFromSeed(otherSeed[:])
	otherSite := head()
	otherSite.Origin = ledger.Origin(strings.Repeat("f", 32), 1)
	id := sha256.Sum256(append([]byte(c.Origin+"\n\x01"), logPub()...))
	witness := signatureLine("witness.example/a", []byte{1, 2, 3, 4}, make([]byte, 72))
	// signedAs is any text under a good signature of the log's key.
	signedAs := func(name, text string) string {
		id := sha256.Sum256(append([]byte(name+"\n\x01"), logPub()...))
		return text + "\n" + signatureLine(name, id[:4], ed25519.Sign(logKey(), []byte(text)))
	}
	resigned := func(old, new string) string { return signedAs(c.Origin, change(t, text, old, new)) }
	for _, tc := range []struct {
		name, raw string
		auth      bool // ErrUnauthenticated, not a FormError
	}{
		{"another key", sign(t, c, otherKey), true},
		{"another site", sign(t, otherSite, logKey()), true},
		{"another size under the old signature", change(t, good, "\n42\n", "\n43\n"), true},
		{"another epoch under the old signature", strings.ReplaceAll(good, "/1\n", "/2\n"), false},
		{"another epoch everywhere", strings.ReplaceAll(good, siteID+"/1", siteID+"/2"), true},
		{"another root under the old signature", change(t, good, b64, base64.StdEncoding.EncodeToString(make([]byte, 32))), true},
		{"another key's id", text + "\n" + signatureLine(c.Origin, []byte{1, 2, 3, 4}, ed25519.Sign(logKey(), []byte(text))), true},
		{"a signature of zeros", text + "\n" + signatureLine(c.Origin, id[:4], make([]byte, 64)), true},
		{"ours second, after one by name only", text + "\n" + signatureLine(c.Origin, []byte{1, 2, 3, 4}, make([]byte, 64)) + ours, false},

		{"nothing", "", false},
		{"no signature", text, false},
		{"no signature after the blank line", text + "\n", false},
		{"no line feed at the end", strings.TrimSuffix(good, "\n"), false},
		{"a blank line at the end", good + "\n", false},
		{"carriage returns", strings.ReplaceAll(good, "\n", "\r\n"), false},
		{"a witness first", text + "\n" + witness + ours, false},
		{"only a witness", text + "\n" + witness, false},
		{"ours twice", good + ours, false},
		{"ours twice, the second forged", good + signatureLine(c.Origin, id[:4], make([]byte, 64)), false},
		{"a witness twice", good + witness + witness, false},
		{"a malformed witness", good + "— witness.example/a AAAA\n", false},
		{"a witness without a name", good + "—  AQIDBAUG\n", false},
		{"a hyphen for the dash", good + strings.Replace(witness, "—", "-", 1), false},
		{"base64 without padding in ours", strings.TrimSuffix(good, "=\n") + "\n", false},
		{"base64 with loose bits in ours", good[:len(good)-3] + string(good[len(good)-3]+1) + "=\n", false},
		{"base64 with loose bits in a witness", good + "— w AQIDBAUGB/==\n", false},
		{"two spaces", change(t, good, "— ", "—  "), false},
		{"a signature of 63 bytes", text + "\n" + signatureLine(c.Origin, id[:4], make([]byte, 63)), false},
		{"an extension line", resigned(b64+"\n", b64+"\nx\n"), false},
		{"an empty extension line", resigned(b64+"\n", b64+"\n\n"), false},
		{"two lines", resigned("\n"+b64, ""), false},
		{"no origin", resigned(c.Origin, ""), false},
		{"size 0", resigned("\n42\n", "\n0\n"), false},
		{"size 042", resigned("\n42\n", "\n042\n"), false},
		{"size +42", resigned("\n42\n", "\n+42\n"), false},
		{"size -42", resigned("\n42\n", "\n-42\n"), false},
		{"size of 2^53", resigned("\n42\n", "\n9007199254740992\n"), false},
		{"size beyond 64 bits", resigned("\n42\n", "\n99999999999999999999\n"), false},
		{"a root in hex", resigned(b64, ledger.HexHash(c.Root)), false},
		{"a root of 31 bytes", resigned(b64, base64.StdEncoding.EncodeToString(c.Root[1:])), false},
		{"a root with loose bits", resigned(b64, b64[:42]+"/="), false},
		{"an origin of no site", signedAs("example.com/log", change(t, text, c.Origin, "example.com/log")), false},
		{"epoch 0", signedAs(ledger.Origin(siteID, 0), change(t, text, c.Origin, ledger.Origin(siteID, 0))), false},
		{"epoch 01", signedAs("stella/"+siteID+"/01", change(t, text, c.Origin, "stella/"+siteID+"/01")), false},
		{"an upper-case site", signedAs("stella/"+strings.ToUpper(siteID)+"/1", change(t, text, siteID, strings.ToUpper(siteID))), false},
		{"a name that is not the origin", signedAs(ledger.Origin(siteID, 2), text), false},
		{"invalid UTF-8", good + "— w\xff AQIDBAUG\n", false},
		{"too long", good + strings.Repeat(witness, 2000), false},
	} {
		got, err := ledger.OpenCheckpoint([]byte(tc.raw), logPub(), siteID)
		var form *ledger.FormError
		if errors.As(err, &form) == tc.auth || errors.Is(err, ledger.ErrUnauthenticated) != tc.auth || got.Size != 0 {
			t.Errorf("%s: OpenCheckpoint(%.400q) = %v, want auth = %v", tc.name, tc.raw, err, tc.auth)
		}
		if _, err := ledger.ParseCheckpoint([]byte(tc.raw)); (err == nil) != (tc.auth || strings.HasPrefix(tc.name, "ours second")) {
			t.Errorf("%s: ParseCheckpoint = %v", tc.name, err)
		}
	}
	if _, err := ledger.OpenCheckpoint([]byte(good), logPub()[:31], siteID); err == nil {
		t.Error("OpenCheckpoint with a key of 31 bytes succeeded")
	}
}

// TestEveryByteOfACheckpointCounts flips each bit of a note.
func TestEveryByteOfACheckpointCounts(t *testing.T) {
	good := []byte(sign(t, head(), logKey()))
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := ledger.OpenCheckpoint(bad, logPub(), siteID); err == nil {
				t.Fatalf("bit %d of byte %d changed and nobody noticed: %q", bit, i, bad)
			}
		}
	}
}

// elsewhere is a key in another process.
type elsewhere struct {
	pub  crypto.PublicKey
	sign func([]byte) ([]byte, error)
}

func (k elsewhere) Public() crypto.PublicKey { return k.pub }

func (k elsewhere) Sign(_ io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != 0 {
		return nil, errors.New("asked for a prehashed signature")
	}
	return k.sign(msg)
}

func TestSignCheckpoint(t *testing.T) {
	good := func(msg []byte) ([]byte, error) { return ed25519.Sign(logKey(), msg), nil }
	if got := sign(t, head(), elsewhere{logPub(), good}); got != sign(t, head(), logKey()) {
		t.Errorf("a key elsewhere signs %s", got)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("token removed")
	edit := func(f func(*ledger.Checkpoint)) ledger.Checkpoint {
		c := head()
		f(&c)
		return c
	}
	for _, tc := range []struct {
		name string
		c    ledger.Checkpoint
		key  crypto.Signer
		want error
	}{
		{"an ECDSA key", head(), ec, nil},
		{"a key that fails", head(), elsewhere{logPub(), func([]byte) ([]byte, error) { return nil, broken }}, broken},
		{"a key that signs wrongly", head(), elsewhere{logPub(), func([]byte) ([]byte, error) { return make([]byte, 64), nil }}, nil},
		{"a short key", head(), elsewhere{logPub()[:31], good}, nil},
		{"no origin", edit(func(c *ledger.Checkpoint) { c.Origin = "" }), logKey(), nil},
		{"an origin with a line feed", edit(func(c *ledger.Checkpoint) { c.Origin += "\n" }), logKey(), nil},
		{"size 0", edit(func(c *ledger.Checkpoint) { c.Size = 0 }), logKey(), nil},
		{"size 2^53", edit(func(c *ledger.Checkpoint) { c.Size = 1 << 53 }), logKey(), nil},
	} {
		raw, err := ledger.SignCheckpoint(tc.c, tc.key)
		if err == nil || raw != nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: SignCheckpoint = %q, %v", tc.name, raw, err)
		}
	}
}

func TestParseOrigin(t *testing.T) {
	site, epoch, err := ledger.ParseOrigin(ledger.Origin(siteID, 12))
	if err != nil || site != siteID || epoch != 12 {
		t.Errorf("ParseOrigin = %s, %d, %v", site, epoch, err)
	}
	for _, bad := range []string{
		"", "stella/", "stella/" + siteID, "stella/" + siteID + "/", "stella/" + siteID + "/0", "stella/" + siteID + "/-1", "stella/" + siteID + "/+1",
		"stella/" + siteID + "/01", "stella/" + siteID + "/1/", "stella/" + siteID + "/1 ", "stella/" + siteID[1:] + "/1", "stella/" + siteID + "0/1",
		siteID + "/1", "Stella/" + siteID + "/1", "stella/" + strings.Repeat("g", 32) + "/1", "stella/" + siteID + "/9223372036854775808",
	} {
		if site, epoch, err := ledger.ParseOrigin(bad); err == nil || site != "" || epoch != 0 {
			t.Errorf("ParseOrigin(%q) = %s, %d, %v; want an error", bad, site, epoch, err)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	good := sign(f, head(), logKey())
	f.Add([]byte(good))
	f.Add([]byte(cosigned(f, good, "witness.example/a")))
	f.Add([]byte(good + "— w AQIDBAU=\n"))
	f.Add([]byte("stella/" + siteID + "/1\n1\nAAAA\n\n— x AQIDBAU=\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ledger.ParseCheckpoint(raw)
		if err != nil {
			return
		}
		// What was parsed says all but our signature: put together it is the note.
		again := fmt.Sprintf("%s\n%d\n%s\n\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
		_, sigs, _ := strings.Cut(string(raw), "\n\n")
		ours, _, _ := strings.Cut(sigs, "\n")
		again += ours + "\n"
		for _, cs := range c.Cosignatures {
			again += signatureLine(cs.Name, []byte{byte(cs.KeyID >> 24), byte(cs.KeyID >> 16), byte(cs.KeyID >> 8), byte(cs.KeyID)}, cs.Signature)
		}
		if again != string(raw) {
			t.Errorf("%q re-encodes to %q", raw, again)
		}
		if opened, err := ledger.OpenCheckpoint(raw, logPub(), siteID); err == nil && !strings.HasPrefix(string(raw), sign(t, opened, logKey())) {
			t.Errorf("%q passes as signed", raw)
		}
	})
}
