package ledger_test

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	tdnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/stellarun/stella/ledger"
)

func witness(t testing.TB, name string) ledger.WitnessKey {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	k, err := ledger.NewWitnessKey(name, seed[:])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var cosignedAt = time.Unix(1795335660, 0).UTC()

// What the specification's text gives is what a key of ours gives.
func TestCosignatureIsWhatTheSpecSays(t *testing.T) {
	raw := sign(t, head(), logKey())
	got, err := witness(t, "witness.example/w1").Cosign([]byte(raw), cosignedAt)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cosigned(t, raw, "witness.example/w1"), string(got)); diff != "" {
		t.Error(diff)
	}
}

// Another implementation takes our keys and cosignatures, and we take its.
func TestCosignaturesAreReadByOthers(t *testing.T) {
	raw := []byte(sign(t, head(), logKey()))
	k := witness(t, "witness.example/w1")
	ours, err := k.Cosign(raw, cosignedAt)
	if err != nil {
		t.Fatal(err)
	}
	v, err := tdnote.NewVerifierForCosignatureV1(k.String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(ours, note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	if at, err := tdnote.CoSigV1Timestamp(n.Sigs[0]); err != nil || !at.Equal(cosignedAt) {
		t.Errorf("they read %v, %v", at, err)
	}
	signer, err := tdnote.NewSignerForCosignatureV1(k.Private())
	if err != nil {
		t.Fatal(err)
	}
	_, err = note.Open(raw, nil)
	var unverified *note.UnverifiedNoteError
	if !errors.As(err, &unverified) {
		t.Fatal(err)
	}
	theirs, err := note.Sign(&note.Note{Text: unverified.Note.Text, UnverifiedSigs: unverified.Note.UnverifiedSigs}, signer)
	if err != nil {
		t.Fatal(err)
	}
	// They put the new line first.
	lines := strings.SplitAfter(string(theirs), "\n")
	if i := len(lines) - 3; i > 0 && strings.HasPrefix(lines[i], "— witness") {
		lines[i], lines[i+1] = lines[i+1], lines[i]
	}
	who, err := ledger.Witnesses([]byte(strings.Join(lines, "")), []ledger.Witness{k.Witness})
	if err != nil || len(who) != 1 || who[0].Name != k.Name {
		t.Errorf("of theirs we read %v, %v", who, err)
	}
}

// Of the witnesses that are asked about each counts once, and no other does.
func TestWitnessesAreCounted(t *testing.T) {
	raw := []byte(sign(t, head(), logKey()))
	a, b, c := witness(t, "w.example/a"), witness(t, "w.example/b"), witness(t, "w.example/c")
	var err error
	for _, k := range []ledger.WitnessKey{a, b} {
		if raw, err = k.Cosign(raw, cosignedAt); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Cosign(raw, cosignedAt.Add(time.Hour)); !errors.Is(err, ledger.ErrCosigned) {
		t.Errorf("signed twice: %v", err)
	}
	again := a.Witness
	again.Name = "w.example/again" // the same key by another name is no other witness
	who, err := ledger.Witnesses(raw, []ledger.Witness{b.Witness, c.Witness, a.Witness, again, b.Witness})
	want := []ledger.Witnessed{{Name: b.Name, Time: cosignedAt}, {Name: a.Name, Time: cosignedAt}}
	if diff := cmp.Diff(want, who); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if _, err := ledger.OpenCheckpoint(raw, logPub(), siteID); err != nil {
		t.Errorf("cosignatures spoil the note: %v", err)
	}
}

// Every byte of a cosignature counts, and those of another tree head are none.
func TestForgedCosignaturesAreRefused(t *testing.T) {
	raw := []byte(sign(t, head(), logKey()))
	k := witness(t, "w.example/a")
	good, err := k.Cosign(raw, cosignedAt)
	if err != nil {
		t.Fatal(err)
	}
	counted := func(b []byte) bool {
		who, err := ledger.Witnesses(b, []ledger.Witness{k.Witness})
		return err == nil && len(who) == 1
	}
	if !counted(good) || counted(raw) {
		t.Fatal("the control fails")
	}
	line := good[len(raw):]
	for i := range line {
		bad := append(append([]byte{}, raw...), line...)
		bad[len(raw)+i] ^= 1
		if counted(bad) {
			t.Errorf("byte %d of the line can be another", i)
		}
	}
	other := head()
	other.Size++
	if moved := append([]byte(sign(t, other, logKey())), line...); counted(moved) {
		t.Error("it counts for another tree head")
	}
	if _, err := ledger.Witnesses(append([]byte(sign(t, other, logKey())), line...), []ledger.Witness{k.Witness}); !errors.Is(err, ledger.ErrCosignature) {
		t.Errorf("a cosignature that does not verify is %v", err)
	}
}

// Keys have one form.
func TestKeysOfWitnesses(t *testing.T) {
	k := witness(t, "w.example/a")
	if got, err := ledger.ParseWitness(k.String()); err != nil || got.Name != k.Name || !got.Key.Equal(k.Key) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ledger.ParseWitnessKey(k.Private()); err != nil || got.Private() != k.Private() {
		t.Errorf("the private key: %v", err)
	}
	for name, bad := range map[string]string{
		"empty": "", "no parts": "w.example/a", "a log's key": "w.example/a+00000000+AQ==",
		"another id": strings.Replace(k.String(), "+", "+0", 1), "another name": "x" + k.String(), "a private key": k.Private(),
		"behind it": k.String() + "\n",
	} {
		if _, err := ledger.ParseWitness(bad); err == nil {
			t.Errorf("%s: %q is taken", name, bad)
		}
	}
	for _, name := range []string{"", "a b", "a+b", "a\nb", strings.Repeat("x", 256)} {
		if _, err := ledger.NewWitnessKey(name, make([]byte, 32)); err == nil {
			t.Errorf("a witness may be called %q", name)
		}
	}
}
