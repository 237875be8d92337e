package ledger

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// MaxNote bounds the size of a checkpoint in bytes, cosignatures included. It
// leaves room for the sixteen signatures that C2SP signed-note demands, of the
// largest kind in sight.
const MaxNote = 128 << 10

// A Checkpoint is a signed tree head: a C2SP tlog-checkpoint without extension
// lines, as a C2SP signed-note with one Ed25519 signature whose key name is the
// origin.
type Checkpoint struct {
	Origin       string
	Size         int64 // at least 1: a ledger has its first entry
	Root         Hash
	Cosignatures []Cosignature // of witnesses, in the order of their lines; not verified here
}

// A Cosignature is a further signature line of a checkpoint.
type Cosignature struct {
	Name      string
	KeyID     uint32
	Signature []byte
}

const originPrefix = "stella/"

// Origin names the ledger of a site in one epoch, which counts from 1.
func Origin(siteID string, epoch int64) string {
	return originPrefix + siteID + "/" + strconv.FormatInt(epoch, 10)
}

// ParseOrigin accepts exactly what [Origin] gives for a site id of 32
// lower-case hex digits.
func ParseOrigin(origin string) (siteID string, epoch int64, err error) {
	rest, ok := strings.CutPrefix(origin, originPrefix)
	siteID, number, _ := strings.Cut(rest, "/")
	epoch, err = strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || epoch < 1 || len(siteID) != 32 || !isHex(siteID) || Origin(siteID, epoch) != origin {
		return "", 0, malformed("origin", "not stella/SITE/EPOCH")
	}
	return siteID, epoch, nil
}

// VerifierKey is the key as other programs that read signed notes take it:
// name+id+base64.
func VerifierKey(origin string, pub ed25519.PublicKey) (string, error) {
	if _, _, err := ParseOrigin(origin); err != nil {
		return "", err
	}
	return note.NewEd25519VerifierKey(origin, pub)
}

// text is what is signed.
func (c Checkpoint) text() string {
	return c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

func (c Checkpoint) check() error {
	if _, _, err := ParseOrigin(c.Origin); err != nil {
		return &FormError{What: "checkpoint", Err: err}
	}
	if c.Size < 1 || c.Size > MaxSize {
		return malformed("checkpoint", "size %d", c.Size)
	}
	return nil
}

// SignCheckpoint returns the note of c, without cosignatures. The key must be
// Ed25519; it may live in another process. Signing says that the entries are
// durable and that the tree extends all that was signed before under the
// origin: both are for the caller to know.
func SignCheckpoint(c Checkpoint, key crypto.Signer) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("ledger: sign checkpoint: key is %T, not Ed25519", key.Public())
	}
	verifier, err := newVerifier(c.Origin, pub)
	if err != nil {
		return nil, err
	}
	text := []byte(c.text())
	sig, err := key.Sign(rand.Reader, text, crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("ledger: sign checkpoint: %w", err)
	}
	if !verifier.Verify(text, sig) { // a broken token must not leave a broken note
		return nil, errors.New("ledger: sign checkpoint: the signature that the key made does not verify")
	}
	return appendSignature(append(text, '\n'), c.Origin, verifier.KeyHash(), sig), nil
}

func newVerifier(origin string, pub ed25519.PublicKey) (note.Verifier, error) {
	vkey, err := VerifierKey(origin, pub)
	if err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("ledger: key of %s: %w", origin, err)
	}
	return v, nil
}

// appendSignature appends a signature line in its one form.
func appendSignature(b []byte, name string, keyID uint32, sig []byte) []byte {
	b = append(b, "— "...)
	b = append(b, name...)
	b = append(b, ' ')
	b = base64.StdEncoding.AppendEncode(b, append(binary.BigEndian.AppendUint32(nil, keyID), sig...))
	return append(b, '\n')
}

// OpenCheckpoint reads a checkpoint of the site, of any epoch, and verifies
// that pub signed it. A note in any but its one form is a *[FormError]; a note
// of another site or key is [ErrUnauthenticated]. Cosignatures come after the
// site's signature and are returned unverified.
func OpenCheckpoint(raw []byte, pub ed25519.PublicKey, siteID string) (Checkpoint, error) {
	c, err := ParseCheckpoint(raw)
	if err != nil {
		return Checkpoint{}, err
	}
	if site, _, err := ParseOrigin(c.Origin); err != nil || site != siteID {
		return Checkpoint{}, fmt.Errorf("ledger: checkpoint of %s: %w", c.Origin, ErrUnauthenticated)
	}
	verifier, err := newVerifier(c.Origin, pub)
	if err != nil {
		return Checkpoint{}, err
	}
	n, err := note.Open(raw, note.VerifierList(verifier))
	if err != nil || len(n.Sigs) != 1 || n.Text != c.text() {
		return Checkpoint{}, fmt.Errorf("ledger: checkpoint of %s: %w", c.Origin, ErrUnauthenticated)
	}
	// The key's own line is the first: any other would have been a cosignature
	// by name only.
	if !bytes.HasPrefix(raw[len(n.Text)+1:], []byte("— "+n.Sigs[0].Name+" "+n.Sigs[0].Base64+"\n")) {
		return Checkpoint{}, malformed("checkpoint", "the site's signature is not the first")
	}
	return c, nil
}

// WithoutCosignatures is a note that [ParseCheckpoint] accepts, with its site's signature
// only.
func WithoutCosignatures(note []byte) string {
	head, sigs, _ := bytes.Cut(note, []byte("\n\n"))
	first, _, _ := bytes.Cut(sigs, []byte("\n"))
	return string(head) + "\n\n" + string(first) + "\n"
}

// ParseCheckpoint reads a checkpoint for display. Nothing it returns is
// authenticated; [OpenCheckpoint] is for all other uses. It accepts one form
// only: the three lines, a signature line with the origin as its name, and
// further signature lines, none of them twice.
func ParseCheckpoint(raw []byte) (Checkpoint, error) {
	if len(raw) > MaxNote {
		return Checkpoint{}, &FormError{What: "checkpoint", Err: ErrTooLarge}
	}
	var unverified *note.UnverifiedNoteError
	if _, err := note.Open(raw, nil); !errors.As(err, &unverified) {
		return Checkpoint{}, malformed("checkpoint", "no signed note: %v", err)
	}
	n := unverified.Note
	c, err := parseText(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	again := append([]byte(n.Text), '\n')
	for i, line := range n.UnverifiedSigs {
		full, err := base64.StdEncoding.DecodeString(line.Base64)
		if err != nil || len(full) < 5 {
			return Checkpoint{}, malformed("checkpoint", "signature %d is malformed", i)
		}
		sig := full[4:]
		again = appendSignature(again, line.Name, line.Hash, sig)
		switch {
		case i == 0 && (line.Name != c.Origin || len(sig) != ed25519.SignatureSize):
			return Checkpoint{}, malformed("checkpoint", "the first signature is not the origin's")
		case i == 0:
		case line.Name == c.Origin && line.Hash == n.UnverifiedSigs[0].Hash:
			return Checkpoint{}, malformed("checkpoint", "two signatures of the origin's key")
		default:
			c.Cosignatures = append(c.Cosignatures, Cosignature{Name: line.Name, KeyID: line.Hash, Signature: sig})
		}
	}
	if !bytes.Equal(again, raw) {
		return Checkpoint{}, malformed("checkpoint", "not in its one form")
	}
	return c, nil
}

// parseText reads the three lines that are signed.
func parseText(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 {
		return Checkpoint{}, malformed("checkpoint", "not three lines")
	}
	c := Checkpoint{Origin: lines[0]}
	var err error
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return Checkpoint{}, malformed("checkpoint", "size is no number")
	}
	root, err := parseBase64Hash(lines[2])
	if err != nil {
		return Checkpoint{}, malformed("checkpoint", "root is no hash")
	}
	c.Root = root
	if err := c.check(); err != nil {
		return Checkpoint{}, err
	}
	if c.text() != text {
		return Checkpoint{}, malformed("checkpoint", "not in its one form")
	}
	return c, nil
}

func parseBase64Hash(s string) (Hash, error) {
	var h Hash
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != len(h) || base64.StdEncoding.EncodeToString(b) != s {
		return Hash{}, malformed("hash", "not 32 bytes in base64")
	}
	copy(h[:], b)
	return h, nil
}
