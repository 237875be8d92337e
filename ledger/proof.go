package ledger

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strconv"
)

// MaxProof bounds the size of a proof file in bytes.
const MaxProof = MaxNote + 64<<10

// proofHeader is the first line of a C2SP tlog-proof. The files are named
// *.tlog-proof.
const proofHeader = "c2sp.org/tlog-proof@v1\n"

// A Proof is the content of a proof file: a C2SP tlog-proof.
type Proof struct {
	Index      int64  // seq of the entry
	Hashes     []Hash // of the inclusion proof, from the leaf's sibling up
	Checkpoint []byte // a note
	Extra      []byte // for people and tools; nothing authenticates it
}

// FormatProof encodes a proof file. Without extra data its line is left out.
func FormatProof(index int64, proof []Hash, checkpointNote, extra []byte) []byte {
	b := []byte(proofHeader)
	if len(extra) > 0 {
		b = append(b, "extra "...)
		b = base64.StdEncoding.AppendEncode(b, extra)
		b = append(b, '\n')
	}
	b = append(b, "index "...)
	b = strconv.AppendInt(b, index, 10)
	b = append(b, '\n')
	for _, h := range proof {
		b = base64.StdEncoding.AppendEncode(b, h[:])
		b = append(b, '\n')
	}
	b = append(b, '\n')
	return append(b, checkpointNote...)
}

// ParseProof reads a proof file, which must be in its one form and hold a
// checkpoint of ours. It verifies nothing.
func ParseProof(file []byte) (Proof, error) {
	if len(file) > MaxProof {
		return Proof{}, &FormError{What: "proof", Err: ErrTooLarge}
	}
	head, checkpoint, ok := bytes.Cut(file, []byte("\n\n"))
	lines, ok2 := bytes.CutPrefix(append(head[:len(head):len(head)], '\n'), []byte(proofHeader))
	if !ok || !ok2 {
		return Proof{}, malformed("proof", "no c2sp.org/tlog-proof@v1")
	}
	p := Proof{Checkpoint: checkpoint}
	first := true
	for line := range bytes.Lines(lines) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		var err error
		switch extra, isExtra := bytes.CutPrefix(line, []byte("extra ")); {
		case isExtra:
			p.Extra, err = base64.StdEncoding.AppendDecode([]byte{}, extra)
		case first:
			first = false
			p.Index, err = parseIndex(line)
		default:
			var h Hash
			h, err = parseBase64Hash(string(line))
			p.Hashes = append(p.Hashes, h)
		}
		if err != nil {
			return Proof{}, &FormError{What: "proof", Err: err}
		}
	}
	if !bytes.Equal(FormatProof(p.Index, p.Hashes, p.Checkpoint, p.Extra), file) {
		return Proof{}, malformed("proof", "not in its one form")
	}
	if _, err := ParseCheckpoint(p.Checkpoint); err != nil {
		return Proof{}, &FormError{What: "proof", Err: err}
	}
	return p, nil
}

func parseIndex(line []byte) (int64, error) {
	number, ok := bytes.CutPrefix(line, []byte("index "))
	n, err := strconv.ParseInt(string(number), 10, 64)
	if !ok || err != nil || n < 0 || n >= MaxSize {
		return 0, malformed("index", "no number of an entry")
	}
	return n, nil
}

// VerifyProof returns nil error if the file proves that the envelope line is
// the entry of its seq in a tree whose checkpoint pub signed for the site, and
// then that checkpoint. Errors are those of [ParseProof], [ParseEnvelope] and
// [OpenCheckpoint], or [ErrProof].
func VerifyProof(file, envelopeLine []byte, pub ed25519.PublicKey, siteID string) (Checkpoint, error) {
	p, err := ParseProof(file)
	if err != nil {
		return Checkpoint{}, err
	}
	c, err := OpenCheckpoint(p.Checkpoint, pub, siteID)
	if err != nil {
		return Checkpoint{}, err
	}
	e, err := ParseEnvelope(envelopeLine)
	if err != nil {
		return Checkpoint{}, err
	}
	if e.Seq != p.Index {
		return Checkpoint{}, fmt.Errorf("ledger: proof of entry %d for an envelope of seq %d: %w", p.Index, e.Seq, ErrProof)
	}
	if err := CheckInclusion(p.Hashes, c.Size, c.Root, p.Index, LeafHash(envelopeLine)); err != nil {
		return Checkpoint{}, err
	}
	return c, nil
}
