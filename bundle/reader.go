package bundle

import (
	"bytes"
	"errors"
	"io"

	"github.com/stellarun/stella/manifests"
)

// Head is what comes first in a bundle and can be judged without the rest.
type Head struct {
	Manifest   []byte     // stella.toml, exactly
	Signatures []Attached // by id; none in a bundle that nobody has signed yet
}

// stage is how far a Reader has come.
type stage int

const (
	atStart stage = iota
	atHead        // Head was read
	atAttestations
	atBlobs
	atEnd
	atDone
)

// A Reader reads one bundle from front to back: Head, Bind, NextAttestation
// until [io.EOF], NextBlob until io.EOF, End. Every byte of the file is read
// once and compared; whatever the manifest does not predict is a [*FormatError],
// after which the Reader is spent. What its methods return shares no memory
// with it.
type Reader struct {
	src   *source
	lim   Limits
	stage stage
	err   error // sticky

	next  header // the entry at hand, or the next one while ahead
	ahead bool
	ended bool // the first block of the end marker was read
	mtime int64

	attested int64 // bytes of attestations so far
	attests  int
	lastID   string
	blobs    []*Blob // predicted
	at       int     // the first of them that is neither read nor absent
	open     *Blob   // handed out, its content not read yet
	have     func(string) bool
	absent   []string
	seen     map[string]bool // names of blobs that were read
	work     work
}

// NewReader returns a Reader of r, which it never closes. It reads ahead in r.
func NewReader(r io.Reader, lim Limits) *Reader {
	if lim.Bytes <= 0 {
		lim.Bytes = DefaultBytes
	}
	return &Reader{src: newSource(r), lim: lim, seen: map[string]bool{}}
}

// Offset is how many bytes of the file have been read so far.
func (r *Reader) Offset() int64 { return r.src.off }

// FileSHA256 is the digest of the bytes before Offset; after End, of the file.
func (r *Reader) FileSHA256() string { return r.src.digest() }

// Head reads the manifest and the signatures: at most 2 MiB. After an error it
// returns what was read before, nil for nothing.
func (r *Reader) Head() (*Head, error) {
	if r.stage != atStart {
		return nil, errors.New("bundle: Head is read twice")
	}
	if r.lim.Size > r.lim.Bytes {
		return nil, r.fail(TooLarge, "", "%d bytes, the limit is %d", r.lim.Size, r.lim.Bytes)
	}
	h, ok, err := r.peek()
	if err != nil {
		return nil, err
	}
	switch {
	case !ok:
		return nil, r.fail(NotABundle, "", "the first entry is not %s", ManifestName)
	case h.size > MaxManifest:
		return nil, r.fail(ManifestTooLarge, h.name, "%d bytes, the limit is %d", h.size, MaxManifest)
	}
	r.stage, r.mtime = atHead, h.mtime
	if err := r.take(); err != nil {
		return nil, err
	}
	head := new(Head)
	if head.Manifest, err = r.body(); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(head.Manifest, []byte(firstLine)) {
		return head, r.fail(SchemaUnknown, ManifestName, "its first line is not %s", firstLine[:len(firstLine)-1])
	}
	for {
		sig, err := r.signature(len(head.Signatures))
		if errors.Is(err, io.EOF) {
			r.lastID = ""
			return head, nil
		}
		if err != nil {
			return head, err
		}
		head.Signatures = append(head.Signatures, sig)
	}
}

// signature reads one more signature after n, or is io.EOF.
func (r *Reader) signature(n int) (Attached, error) {
	h, ok, err := r.peek()
	if err != nil {
		return Attached{}, err
	}
	id, isSignature := attachedID(h.name, signatureFolder)
	switch {
	case !ok || !isSignature:
		return Attached{}, io.EOF
	case n == MaxSignatures:
		return Attached{}, r.fail(SignaturesTooMany, h.name, "more than %d signatures", MaxSignatures)
	case h.size > MaxSignature:
		return Attached{}, r.fail(SignatureTooLarge, h.name, "%d bytes, the limit is %d", h.size, MaxSignature)
	}
	return r.attached(id)
}

// attached reads the entry with that id, which must come after the last one.
func (r *Reader) attached(id string) (Attached, error) {
	switch {
	case id == r.lastID:
		return Attached{}, r.fail(EntryDuplicate, r.next.name, "is there twice")
	case id < r.lastID:
		return Attached{}, r.fail(EntryOrder, r.next.name, "comes after %s; the entries of a folder are sorted", r.lastID)
	}
	if err := r.take(); err != nil {
		return Attached{}, err
	}
	r.lastID = id
	data, err := r.body()
	return Attached{ID: id, Data: data}, err
}

// Bind tells r what the manifest predicts. It is called once the manifest's
// signatures are verified and its bytes are parsed. A blob that is not in the
// file is accepted where have, which may be nil, says that the site holds it
// and may use it; have is called for such blobs only.
func (r *Reader) Bind(m *manifests.Bundle, have func(sha256 string) bool) error {
	if r.err != nil {
		return r.err
	}
	if r.stage != atHead {
		return errors.New("bundle: Bind without Head")
	}
	r.stage, r.have = atAttestations, have
	if created := m.Created.Unix(); created != r.mtime {
		return r.fail(TimeMismatch, ManifestName, "its time is %d, but created is %d in seconds", r.mtime, created)
	}
	r.blobs, r.err = predict(m)
	for _, b := range r.blobs {
		b.r = r
	}
	return r.err
}

// NextAttestation reads one attestation, or is [io.EOF] after the last.
func (r *Reader) NextAttestation() (Attached, error) {
	if r.err != nil {
		return Attached{}, r.err
	}
	if r.stage != atAttestations {
		return Attached{}, errors.New("bundle: NextAttestation out of turn")
	}
	h, ok, err := r.peek()
	if err != nil {
		return Attached{}, err
	}
	id, isAttestation := attachedID(h.name, attestationFolder)
	switch {
	case !ok || !isAttestation:
		r.stage = atBlobs
		return Attached{}, io.EOF
	case r.attests == MaxAttestations:
		return Attached{}, r.fail(AttestationsTooMany, h.name, "more than %d attestations", MaxAttestations)
	case h.size > MaxAttestation:
		return Attached{}, r.fail(AttestationTooLarge, h.name, "%d bytes, the limit is %d", h.size, MaxAttestation)
	case r.attested+h.size > MaxAttested:
		return Attached{}, r.fail(AttestationTooLarge, h.name, "all attestations have more than %d bytes", MaxAttested)
	}
	r.attests++
	r.attested += h.size
	a, err := r.attached(id)
	if err == nil && Digest(a.Data) != id {
		err = r.fail(AttestationDigest, r.next.name, "its bytes have the SHA-256 %s", Digest(a.Data))
	}
	if err != nil {
		return Attached{}, err
	}
	return a, nil
}

// NextBlob moves to the next blob of the file, or is [io.EOF] after the last.
// The content of the one before must have been read.
func (r *Reader) NextBlob() (*Blob, error) {
	switch {
	case r.err != nil:
		return nil, r.err
	case r.stage != atBlobs || r.open != nil:
		return nil, errors.New("bundle: NextBlob out of turn")
	}
	h, ok, err := r.peek()
	if err != nil {
		return nil, err
	}
	for ; r.at < len(r.blobs); r.at++ {
		b := r.blobs[r.at]
		if ok && b.name() == h.name {
			r.at++
			return b, r.begin(b)
		}
		if ok && !r.later(h.name) {
			return nil, r.unexpected(h.name)
		}
		if r.have == nil || !r.have(b.SHA256) {
			return nil, r.fail(BlobMissing, b.name(), "%s is not in the bundle, and this site does not hold it", b.Files[0].Path)
		}
		r.absent = append(r.absent, b.SHA256)
	}
	if ok {
		return nil, r.unexpected(h.name)
	}
	r.stage = atEnd
	return nil, io.EOF
}

// begin makes b the entry at hand.
func (r *Reader) begin(b *Blob) error {
	if err := r.take(); err != nil {
		return err
	}
	if r.next.size != b.StoredSize {
		return r.fail(BlobSize, r.next.name, "%d bytes are stored, %d were signed", r.next.size, b.StoredSize)
	}
	r.seen[r.next.name] = true
	r.open = b
	return nil
}

// later says whether name is a blob that is yet to come.
func (r *Reader) later(name string) bool {
	for _, b := range r.blobs[r.at:] {
		if b.name() == name {
			return true
		}
	}
	return false
}

// unexpected says what is wrong with an entry that is not a blob to come.
func (r *Reader) unexpected(name string) error {
	_, isSignature := attachedID(name, signatureFolder)
	_, isAttestation := attachedID(name, attestationFolder)
	switch {
	case name == ManifestName || r.seen[name]:
		return r.fail(EntryDuplicate, name, "is there twice")
	case isSignature || isAttestation:
		return r.fail(EntryOrder, name, "comes after entries that it should precede")
	}
	for _, b := range r.blobs {
		if b.name() == name {
			return r.fail(EntryOrder, name, "comes after a blob that the manifest names later")
		}
	}
	return r.fail(EntryUnexpected, name, "the manifest does not name it")
}

// Absent lists the blobs that the file does not hold and the site does, by the
// digest of their content. It is complete after NextBlob returned io.EOF.
func (r *Reader) Absent() []string { return append([]string(nil), r.absent...) }

// End checks that the file ends with exactly two blocks of zeros.
func (r *Reader) End() error {
	switch {
	case r.err != nil:
		return r.err
	case r.stage != atEnd:
		return errors.New("bundle: End out of turn")
	}
	var b [block]byte
	if err := r.src.full(b[:]); err != nil {
		return r.broken("", err)
	}
	end, err := r.src.atEnd()
	switch {
	case err != nil:
		return r.broken("", err)
	case b != [block]byte{}:
		return r.fail(TrailingData, "", "only one block of zeros ends the bundle, two must")
	case !end:
		return r.fail(TrailingData, "", "there are bytes after the end of the bundle")
	}
	r.stage = atDone
	return nil
}
