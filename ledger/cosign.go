package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Witness signs the tree heads of others after it has seen that the tree only grew since
// the last time: C2SP tlog-cosignature, cosignature/v1 with Ed25519. Its name has no blank
// and no plus sign.
type Witness struct {
	Name string
	Key  ed25519.PublicKey
}

// algCosignature is the type of such keys in C2SP signed-note.
const algCosignature = 4

const (
	privatePrefix = "PRIVATE+KEY+"
	maxName       = 255
)

// ParseWitness reads a key in the form name+id+base64, as other programs that read signed
// notes take it.
func ParseWitness(vkey string) (Witness, error) {
	name, key, err := parseWitness(vkey, ed25519.PublicKeySize)
	w := Witness{Name: name, Key: key}
	if err == nil && w.String() != vkey {
		err = malformed("witness", "the id is not that of the key")
	}
	return w, err
}

func parseWitness(s string, size int) (name string, key []byte, err error) {
	parts := strings.SplitN(s, "+", 3)
	if len(parts) != 3 || !validName(parts[0]) {
		return "", nil, malformed("witness", "not name+id+key")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 1+size || raw[0] != algCosignature {
		return "", nil, malformed("witness", "no key of cosignature/v1 with Ed25519")
	}
	return parts[0], raw[1:], nil
}

func validName(name string) bool {
	return name != "" && len(name) <= maxName && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return r == '+' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	})
}

// String is the key's form that [ParseWitness] reads.
func (w Witness) String() string { return w.encode(w.Key) }

func (w Witness) encode(key []byte) string {
	return fmt.Sprintf("%s+%08x+%s", w.Name, w.KeyID(), base64.StdEncoding.EncodeToString(append([]byte{algCosignature}, key...)))
}

// KeyID is the number by which a signature line names the key.
func (w Witness) KeyID() uint32 {
	sum := sha256.Sum256(append(append([]byte(w.Name+"\n"), algCosignature), w.Key...))
	return binary.BigEndian.Uint32(sum[:])
}

// A WitnessKey is what a witness signs with.
type WitnessKey struct {
	Witness
	private ed25519.PrivateKey
}

// NewWitnessKey makes a key from a seed of 32 random bytes.
func NewWitnessKey(name string, seed []byte) (WitnessKey, error) {
	if !validName(name) {
		return WitnessKey{}, malformed("witness", "a name has 1 to %d characters, none of them a blank or a plus sign", maxName)
	}
	if len(seed) != ed25519.SeedSize {
		return WitnessKey{}, malformed("witness", "a seed has %d bytes", ed25519.SeedSize)
	}
	private := ed25519.NewKeyFromSeed(seed)
	return WitnessKey{Witness{name, private.Public().(ed25519.PublicKey)}, private}, nil
}

// ParseWitnessKey reads what [WitnessKey.Private] writes.
func ParseWitnessKey(s string) (WitnessKey, error) {
	rest, ok := strings.CutPrefix(s, privatePrefix)
	if !ok {
		return WitnessKey{}, malformed("witness", "no private key of a witness")
	}
	name, seed, err := parseWitness(rest, ed25519.SeedSize)
	if err != nil {
		return WitnessKey{}, err
	}
	k, err := NewWitnessKey(name, seed)
	if err == nil && k.Private() != s {
		err = malformed("witness", "the id is not that of the key")
	}
	return k, err
}

// Private is the key in the form of private keys of signed notes. It is a secret.
func (k WitnessKey) Private() string { return privatePrefix + k.encode(k.private.Seed()) }

// cosigned is what a witness signs: when, and the text of the note.
func cosigned(at int64, text string) []byte {
	return []byte("cosignature/v1\ntime " + strconv.FormatInt(at, 10) + "\n" + text)
}

// Cosign appends the witness's signature to a checkpoint. Whoever calls it has seen that
// the tree extends all that the witness has signed of it, and keeps that it has: a
// signature says so. A note that it has signed already is [ErrCosigned].
func (k WitnessKey) Cosign(raw []byte, at time.Time) ([]byte, error) {
	c, err := ParseCheckpoint(raw)
	if err != nil {
		return nil, err
	}
	for _, s := range c.Cosignatures {
		if s.Name == k.Name && s.KeyID == k.KeyID() {
			return nil, ErrCosigned
		}
	}
	if at.Unix() <= 0 {
		return nil, fmt.Errorf("ledger: cosign: the clock says %s", at.UTC().Format(time.RFC3339))
	}
	sig := binary.BigEndian.AppendUint64(nil, uint64(at.Unix()))
	sig = append(sig, ed25519.Sign(k.private, cosigned(at.Unix(), c.text()))...)
	out := appendSignature(bytes.Clone(raw), k.Name, k.KeyID(), sig)
	if len(out) > MaxNote {
		return nil, &FormError{What: "checkpoint", Err: ErrTooLarge}
	}
	return out, nil
}

// Witnessed is a cosignature that verifies.
type Witnessed struct {
	Name string
	Time time.Time // by the witness's clock
}

// Witnesses returns which of some witnesses have signed a checkpoint, each once, in their
// order. A signature under the name and id of one of them that does not verify is
// [ErrCosignature]; those of others are passed over, as C2SP has it. It says nothing
// of the log's own signature.
func Witnesses(raw []byte, among []Witness) ([]Witnessed, error) {
	c, err := ParseCheckpoint(raw)
	if err != nil {
		return nil, err
	}
	var out []Witnessed
	for i, w := range among {
		if containsKey(among[:i], w.Key) {
			continue
		}
		for _, s := range c.Cosignatures {
			if s.Name != w.Name || s.KeyID != w.KeyID() {
				continue
			}
			at, ok := w.verify(c.text(), s.Signature)
			if !ok {
				return nil, fmt.Errorf("ledger: witness %s: %w", w.Name, ErrCosignature)
			}
			out = append(out, Witnessed{w.Name, at})
			break
		}
	}
	return out, nil
}

// KeepCosignatures is a checkpoint with the signatures of some witnesses that it bears, each
// once and verified, and no others: see [Witnesses].
func KeepCosignatures(raw []byte, among []Witness) (note []byte, kept []Witness, err error) {
	found, err := Witnesses(raw, among)
	if err != nil {
		return nil, nil, err
	}
	c, err := ParseCheckpoint(raw)
	if err != nil {
		return nil, nil, err
	}
	note = []byte(WithoutCosignatures(raw))
	for _, w := range among {
		at := slices.IndexFunc(c.Cosignatures, func(s Cosignature) bool { return s.Name == w.Name && s.KeyID == w.KeyID() })
		if at < 0 || containsKey(kept, w.Key) || !slices.ContainsFunc(found, func(f Witnessed) bool { return f.Name == w.Name }) {
			continue
		}
		kept = append(kept, w)
		note = appendSignature(note, w.Name, w.KeyID(), c.Cosignatures[at].Signature)
	}
	return note, kept, nil
}

func containsKey(in []Witness, key ed25519.PublicKey) bool {
	for _, w := range in {
		if w.Key.Equal(key) {
			return true
		}
	}
	return false
}

func (w Witness) verify(text string, sig []byte) (at time.Time, ok bool) {
	if len(sig) != 8+ed25519.SignatureSize {
		return at, false
	}
	seconds := binary.BigEndian.Uint64(sig)
	if seconds == 0 || seconds >= 1<<53 {
		return at, false
	}
	at = time.Unix(int64(seconds), 0).UTC()
	return at, ed25519.Verify(w.Key, cosigned(int64(seconds), text), sig[8:])
}
