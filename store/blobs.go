package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/stellarun/stella/internal/fsx"
)

// ErrDigest says that bytes do not have the digest they were said to have.
var ErrDigest = errors.New("store: the bytes do not match their digest")

// Blobs is the sealed content-addressed store: read-only files named by their
// SHA-256, and, for what is little and of this machine's own making, records of
// ledger.db ([Blobs.Put]). A blob that is in place is complete and was hashed
// while it was written; readers hash again what they rely on. A blob that was
// damaged since is replaced when its bytes come in again.
type Blobs struct {
	dir        string // sealed/sha256
	quarantine string
	trash      string
	logs       string              // of segments that are files
	mu         sync.Mutex          // folder modes are changed while a name is added
	synced     bool                // the names of all fan-out folders are durable
	known      map[string]struct{} // digests that this process has hashed, and whose names it has synced
	pins       pins                // what a collection of garbage must leave alone; mu guards it
	small      small
	shelf      *shelf // of archives of runs
}

// maxKnown bounds the memory that known digests take.
const maxKnown = 1 << 16

func newBlobs(home string, db *DB) *Blobs {
	return &Blobs{
		dir: filepath.Join(home, "sealed", "sha256"), quarantine: filepath.Join(home, "quarantine"),
		trash: filepath.Join(home, "trash"), logs: filepath.Join(home, "logs"),
		shelf: &shelf{db: db, dir: filepath.Join(home, archivesName)},
		known: map[string]struct{}{}, pins: newPins(),
		small: small{db: db, waiting: map[string][]byte{}, known: map[string]struct{}{}},
	}
}

// Path is where the file of a blob lies, whether or not it is there.
func (b *Blobs) Path(digest string) string {
	if len(digest) != 64 {
		return filepath.Join(b.dir, "invalid")
	}
	return filepath.Join(b.dir, digest[:2], digest)
}

// durable says whether this process knows that a blob is whole and that its
// name outlives a power cut. Being in place says neither: the name may not be
// synced yet, and the bytes may have changed since.
func (b *Blobs) durable(digest string, size int64) bool {
	b.mu.Lock()
	_, ok := b.known[digest]
	_, doomed := b.pins.doomed[digest]
	b.mu.Unlock()
	if !ok || doomed {
		return false
	}
	fi, err := os.Lstat(b.Path(digest))
	return err == nil && fi.Mode().IsRegular() && fi.Size() == size
}

// learn remembers a digest; b.mu is held.
func (b *Blobs) learn(digest string) {
	if len(b.known) >= maxKnown {
		clear(b.known)
	}
	b.known[digest] = struct{}{}
}

// intact hashes the file in place, if there is one.
func (b *Blobs) intact(digest string) bool {
	_, err := b.checkFile(digest)
	return err == nil
}

// Open opens a blob for reading, in its place or else in an archive of runs; the
// caller closes it, and must hash what it relies on. A missing blob is [ErrNotFound];
// one whose archive is not here is an *[AwayError].
func (b *Blobs) Open(digest string) (io.ReadCloser, error) {
	r, err := b.openPlaced(digest)
	if errors.Is(err, ErrNotFound) {
		return b.OpenArchived(digest)
	}
	return r, err
}

// openPlaced is Open of what is in its place.
func (b *Blobs) openPlaced(digest string) (io.ReadCloser, error) {
	if r, err := b.openSmall(digest); r != nil || err != nil {
		return r, err
	}
	return b.openFile(digest)
}

func (b *Blobs) openFile(digest string) (*os.File, error) {
	f, err := fsx.OpenRegular(b.Path(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sealed blob %s: %w", digest, ErrNotFound)
	}
	return f, err
}

// Read reads a whole blob of at most limit bytes and checks its digest.
func (b *Blobs) Read(digest string, limit int64) ([]byte, error) {
	return b.readFrom(b.Open, digest, limit)
}

func (b *Blobs) readFrom(open func(string) (io.ReadCloser, error), digest string, limit int64) ([]byte, error) {
	f, err := open(digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("store: sealed blob %s: %w", digest, err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("store: sealed blob %s: more than %d bytes", digest, limit)
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("%w: sealed blob %s", ErrDigest, digest)
	}
	return raw, nil
}

// Check re-hashes a blob in its place and returns its size: what only an archive of
// runs holds is [ErrNotFound].
func (b *Blobs) Check(digest string) (int64, error) {
	r, err := b.openPlaced(digest)
	if err != nil {
		return 0, err
	}
	return checked(r, digest)
}

// checkFile is Check of the file, whatever else there is.
func (b *Blobs) checkFile(digest string) (int64, error) {
	f, err := b.openFile(digest)
	if err != nil {
		return 0, err
	}
	return checked(f, digest)
}

// checked hashes r and closes it.
func checked(r io.ReadCloser, digest string) (int64, error) {
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return n, fmt.Errorf("store: sealed blob %s: %w", digest, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != digest {
		return n, fmt.Errorf("%w: sealed blob %s", ErrDigest, digest)
	}
	return n, nil
}

// PutFile seals raw as a file, however little it is, and returns its digest: it
// is durable when PutFile returns. Values that this process has put before cost a
// look.
func (b *Blobs) PutFile(raw []byte) (string, error) {
	sum := sha256.Sum256(raw)
	digest := hex.EncodeToString(sum[:])
	b.pinRecent(digest)
	if b.durable(digest, int64(len(raw))) {
		return digest, nil
	}
	q, err := b.Quarantine()
	if err != nil {
		return "", err
	}
	defer q.Discard()
	if err := q.Add(digest, bytes.NewReader(raw)); err != nil {
		return "", err
	}
	return digest, q.Seal()
}

// PutFrom seals what r gives, at most limit bytes, and returns its digest and
// size. More is an error, and nothing is kept.
func (b *Blobs) PutFrom(r io.Reader, limit int64) (string, int64, error) {
	q, err := b.Quarantine()
	if err != nil {
		return "", 0, err
	}
	defer q.Discard()
	f, err := os.OpenFile(filepath.Join(q.dir, "incoming"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return "", 0, fmt.Errorf("store: quarantine: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, limit+1))
	if err != nil {
		return "", n, err
	}
	if n > limit {
		return "", n, fmt.Errorf("store: more than %d bytes", limit)
	}
	digest := hex.EncodeToString(h.Sum(nil))
	b.pinRecent(digest)
	if q.has(digest) {
		return digest, n, q.Seal()
	}
	if err := os.Rename(f.Name(), filepath.Join(q.dir, digest)); err != nil {
		return "", n, fmt.Errorf("store: quarantine: %w", err)
	}
	q.have[digest], q.names = true, append(q.names, digest)
	return digest, n, q.Seal()
}
