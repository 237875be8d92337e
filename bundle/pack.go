package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"github.com/stellarun/stella/manifests"
)

// noFollow opens no link, and does not wait for the other end of a pipe.
const noFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// PackOptions are options of [Pack]. The zero value packs everything.
type PackOptions struct {
	// Omit, if set, says which contents are left out because the receiver holds
	// them (a delta). The manifest is the same, hence the signature.
	Omit func(sha256 string) bool
	// TempDir is where the compressed files lie while Pack runs; "" means
	// [os.TempDir]. They take as much space as the bundle and have no name.
	TempDir string
}

// Packed is what [Pack] wrote.
type Packed struct {
	Manifest   *manifests.Bundle
	Raw        []byte   // stella.toml, exactly: what is to be signed
	Digest     string   // SHA-256 of Raw, the bundle's identity
	Omitted    []string // contents left out
	FileSHA256 string
	FileBytes  int64
}

// Pack writes the unsigned bundle of a source folder to w: the author's
// stella.toml, which names no files, and every regular file beside it, sorted
// by path, with mode 0755 if its owner may execute it and 0644 otherwise. The
// same folder gives the same bytes with one version of stella. All that a
// bundle cannot hold is reported at once, as [manifests.Faults].
//
// A file is stored compressed where that saves at least an eighth of its size
// and one block of the tar, and as it is otherwise.
func Pack(dir string, w io.Writer, opt PackOptions) (_ *Packed, err error) {
	f, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	spool, err := tempSpool(opt.TempDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, spool.Close()) }()

	p := packer{folder: f, spool: spool, at: map[string]int64{}}
	m, err := p.source()
	if err != nil {
		return nil, err
	}
	for _, name := range f.files {
		file, err := p.add(name)
		if err != nil {
			return nil, err
		}
		m.Files = append(m.Files, file)
	}
	m.ContentDigest = manifests.ContentDigest(m.Files)
	return p.write(w, m, opt.Omit)
}

// tempSpool returns a file that has no name any more.
func tempSpool(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "stella-pack-")
	if err != nil {
		return nil, fmt.Errorf("bundle: pack: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("bundle: pack: %w", errors.Join(err, f.Close()))
	}
	return f, nil
}

// packer turns a folder into a bundle.
type packer struct {
	folder *folder
	spool  *os.File // compressed contents, one after the other
	end    int64    // of what is in use of it
	at     map[string]int64
	first  map[string]manifests.File // the first file with a content
}

// source reads the author's stella.toml.
func (p *packer) source() (*manifests.Bundle, error) {
	p.first = map[string]manifests.File{}
	f, _, err := p.folder.open(ManifestName)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, MaxManifest+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("bundle: pack: %w", err)
	}
	return manifests.ParseSource(ManifestName, raw)
}

// add hashes and compresses one file.
func (p *packer) add(name string) (manifests.File, error) {
	f, info, err := p.folder.open(name)
	if err != nil {
		return manifests.File{}, err
	}
	file, err := p.store(f, p.end)
	if err = errors.Join(err, f.Close()); err != nil {
		return manifests.File{}, fmt.Errorf("bundle: pack %s: %w", name, err)
	}
	if first, ok := p.first[file.SHA256]; ok {
		file = first
	} else {
		p.first[file.SHA256] = file
		if file.Encoding != "" {
			p.at[file.SHA256] = p.end
			p.end += file.StoredSize
		}
	}
	file.Path, file.Mode = name, mode(info)
	return file, nil
}

// store writes the compressed form of f to the spool at offset at, and says
// whether it pays to keep it.
func (p *packer) store(f io.Reader, at int64) (manifests.File, error) {
	content, stored := sha256.New(), sha256.New()
	packed := &counter{w: io.MultiWriter(stored, io.NewOffsetWriter(p.spool, at))}
	enc, err := newEncoder(packed)
	if err != nil {
		return manifests.File{}, err
	}
	size, err := io.CopyBuffer(io.MultiWriter(content, enc), onlyReader{f}, make([]byte, copyBufferSize))
	if err := errors.Join(err, enc.Close()); err != nil {
		return manifests.File{}, err
	}
	file := manifests.File{Size: size, SHA256: hex.EncodeToString(content.Sum(nil))}
	if packed.n <= size-max(block, size/8) {
		file.Encoding, file.StoredSize, file.StoredSHA256 = Encoding, packed.n, hex.EncodeToString(stored.Sum(nil))
	}
	if size > MaxStored && file.Encoding == "" || file.StoredSize > MaxStored {
		return file, fmt.Errorf("8 GiB or more do not fit into one entry; split it")
	}
	return file, nil
}

// newEncoder is the one way in which contents are compressed. Level and
// concurrency are fixed, since they decide the bytes.
func newEncoder(w io.Writer) (*zstd.Encoder, error) {
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(maxWindow))
}

// write writes the bundle once all files are known.
func (p *packer) write(w io.Writer, m *manifests.Bundle, omit func(string) bool) (*Packed, error) {
	out := &Packed{Raw: m.Encode()}
	if len(out.Raw) > MaxManifest {
		return nil, fmt.Errorf("bundle: pack: the manifest of %d files has %d bytes, the limit is %d; put them into fewer files", len(m.Files), len(out.Raw), MaxManifest)
	}
	// What the receiver will parse must be what was meant, and valid.
	parsed, err := manifests.ParseBundle(ManifestName, out.Raw)
	if err != nil {
		return nil, err
	}
	out.Manifest, out.Digest = parsed, Digest(out.Raw)
	blobs, err := predict(parsed)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	c := &counter{w: io.MultiWriter(sum, w)}
	tar := &writer{w: c, mtime: parsed.Created.Unix()}
	if err := tar.file(ManifestName, out.Raw); err != nil {
		return nil, fmt.Errorf("bundle: pack: %w", err)
	}
	for _, b := range blobs {
		if omit != nil && omit(b.SHA256) {
			out.Omitted = append(out.Omitted, b.SHA256)
			continue
		}
		if err := p.blob(tar, b); err != nil {
			return nil, fmt.Errorf("bundle: pack %s: %w", b.Files[0].Path, err)
		}
	}
	if err := tar.end(); err != nil {
		return nil, fmt.Errorf("bundle: pack: %w", err)
	}
	out.FileBytes, out.FileSHA256 = c.n, hex.EncodeToString(sum.Sum(nil))
	return out, nil
}

// blob writes one blob, from the spool or from its file, which may have changed
// since it was hashed.
func (p *packer) blob(tar *writer, b *Blob) error {
	if b.Encoding != "" {
		return tar.copy(b.name(), io.NewSectionReader(p.spool, p.at[b.SHA256], b.StoredSize), b.StoredSize)
	}
	f, _, err := p.folder.open(b.Files[0].Path)
	if err != nil {
		return err
	}
	sum := sha256.New()
	err = tar.copy(b.name(), io.TeeReader(f, sum), b.StoredSize)
	if err == nil && hex.EncodeToString(sum.Sum(nil)) != b.SHA256 {
		err = errors.New("the file changed while it was packed; pack again")
	}
	return errors.Join(err, f.Close())
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
