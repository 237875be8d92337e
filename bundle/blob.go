package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/stellarun/stella/manifests"
)

// A Blob is one content that the manifest names, in the order of first mention.
type Blob struct {
	Files        []manifests.File // those with this content, in the manifest's order
	SHA256       string           // of the content
	Size         int64            // of the content
	Encoding     string           // "" or "zstd"
	StoredSHA256 string           // of the bytes in the bundle
	StoredSize   int64

	r *Reader
}

// A Spool is a place for the stored bytes of one blob at a time, so that they
// are hashed before the decompressor sees them. An *os.File that was opened for
// reading and writing is one.
type Spool interface {
	io.ReadWriteSeeker
	Truncate(size int64) error
}

func (b *Blob) name() string {
	if b.Encoding != "" {
		return blobFolder + b.SHA256 + zstdSuffix
	}
	return blobFolder + b.SHA256
}

// predict lists the blobs that a bundle with this manifest holds. Parsing has
// made sure that one content is stored in one way.
func predict(m *manifests.Bundle) ([]*Blob, error) {
	var blobs []*Blob
	byDigest := make(map[string]*Blob, len(m.Files))
	for _, f := range m.Files {
		b := &Blob{
			SHA256: f.SHA256, Size: f.Size, Encoding: f.Encoding,
			StoredSHA256: f.StoredSHA256, StoredSize: f.StoredSize,
		}
		if f.Encoding == "" {
			b.StoredSHA256, b.StoredSize = f.SHA256, f.Size
		}
		if !isDigest(b.SHA256) || !isDigest(b.StoredSHA256) || f.Encoding != "" && f.Encoding != Encoding {
			return nil, fmt.Errorf("bundle: %s: the manifest was not checked", f.Path)
		}
		first := byDigest[f.SHA256]
		if first == nil {
			first = b
			byDigest[f.SHA256] = b
			blobs = append(blobs, b)
		}
		first.Files = append(first.Files, f)
	}
	return blobs, nil
}

// CopyTo writes the content to w. Only when it returns nil was it what the
// manifest's signers signed: what w has received until then is not to be used.
// spool receives the stored bytes of a blob with an encoding, which are hashed
// before they are decompressed; for others it may be nil. Memory does not grow
// with the blob.
func (b *Blob) CopyTo(w io.Writer, spool Spool) error {
	if err := b.ready(); err != nil {
		return err
	}
	if b.Encoding == "" {
		return b.copyStored(w)
	}
	if spool == nil {
		return fmt.Errorf("bundle: %s needs a spool", b.name())
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("bundle: spool: %w", err)
	}
	if err := spool.Truncate(0); err != nil {
		return fmt.Errorf("bundle: spool: %w", err)
	}
	if err := b.copyStored(spool); err != nil {
		return err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("bundle: spool: %w", err)
	}
	return b.decompress(w, io.LimitReader(spool, b.StoredSize))
}

// CheckStored reads the stored bytes and compares their digest with that in the
// manifest. It is for whoever does not know yet who signed that manifest: no
// decompressor sees a byte.
func (b *Blob) CheckStored() error {
	if err := b.ready(); err != nil {
		return err
	}
	return b.copyStored(io.Discard)
}

// ready says whether b is the blob at hand.
func (b *Blob) ready() error {
	if b.r.err != nil {
		return b.r.err
	}
	if b.r.open != b {
		return errors.New("bundle: the blob is not the one at hand")
	}
	return nil
}

// copyStored writes the stored bytes to w and compares their digest.
func (b *Blob) copyStored(w io.Writer) error {
	r := b.r
	r.open = nil
	sum := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(w, sum), io.LimitReader(onlyReader{r.src}, b.StoredSize), r.work.copyBuffer())
	if err != nil {
		r.err = fmt.Errorf("bundle: copy %s: %w", b.name(), err)
		return r.err
	}
	if n < b.StoredSize {
		return r.broken(b.name(), io.ErrUnexpectedEOF)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != b.StoredSHA256 {
		return r.fail(BlobDigest, b.name(), "the stored bytes have the SHA-256 %s, %s was signed", got, b.StoredSHA256)
	}
	return r.pad()
}

// onlyReader hides all methods but Read, so that io.Copy uses our buffer.
type onlyReader struct{ io.Reader }

// decompress writes the content of the stored bytes, which were compared with
// their digest, and compares its size and digest.
func (b *Blob) decompress(w io.Writer, stored io.Reader) error {
	f, dec, err := b.r.work.decoder(stored)
	if err != nil {
		return fmt.Errorf("bundle: zstd: %w", err)
	}
	sum := sha256.New()
	out := &keepError{w: io.MultiWriter(sum, w)}
	// One byte beyond the signed size is enough to know.
	n, err := io.CopyBuffer(out, io.LimitReader(onlyReader{dec}, b.Size+1), b.r.work.copyBuffer())
	switch {
	case out.err != nil:
		b.r.err = fmt.Errorf("bundle: copy %s: %w", b.name(), out.err)
		return b.r.err
	case n > b.Size:
		return b.r.fail(BlobExceeds, b.name(), "decompresses to more than the signed %d bytes", b.Size)
	case err != nil:
		return b.undecodable(f, err)
	case !f.whole():
		return b.undecodable(f, errNotOne)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); n != b.Size || got != b.SHA256 {
		return b.r.fail(BlobContent, b.name(), "decompresses to %d bytes with the SHA-256 %s; %d with %s were signed", n, got, b.Size, b.SHA256)
	}
	return nil
}

// undecodable tells a frame that is wrong from a spool that cannot be read.
func (b *Blob) undecodable(f *frame, err error) error {
	if f.broken != nil {
		b.r.err = fmt.Errorf("bundle: spool: %w", f.broken)
		return b.r.err
	}
	reason := BlobEncoding
	switch {
	case errors.Is(err, errNotOne), errors.Is(err, errSkip):
		reason = BlobFrames
	case errors.Is(err, errWindow):
		reason = BlobWindow
	case errors.Is(err, errNeedDict):
		reason = BlobDictionary
	}
	return b.r.fail(reason, b.name(), "%v", err)
}

// keepError remembers the error of the writer, to tell it from the reader's.
type keepError struct {
	w   io.Writer
	err error
}

func (k *keepError) Write(p []byte) (int, error) {
	n, err := k.w.Write(p)
	if err != nil {
		k.err = err
	}
	return n, err
}
