package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/internal/ustar"
)

// A File is an archive that was looked through. It holds no open file; its methods may be
// called from any goroutine.
type File struct {
	Path  string
	List  string // SHA-256 of its list.json
	Fault error  // a *[DamagedError]: what stands before it can still be read; nil if the form is good
	at    map[[32]byte]place
	lost  map[[32]byte]struct{} // what it lists and, for its fault, cannot be found
}

// place is where a content lies.
type place struct {
	offset, stored, bytes int64
	log                   bool
}

// Index looks through the file at path: its list and the headers of what it holds, nothing
// of the contents. A file that does not begin as an archive of runs of this site is
// [ErrForeign].
func Index(path, siteID string) (*File, error) {
	f, err := fsx.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, raw, fault := begins(f, siteID)
	if fault != nil {
		return nil, fault
	}
	out := &File{Path: path, List: sumOf(raw), at: map[[32]byte]place{}, lost: map[[32]byte]struct{}{}}
	members, err := index(f)
	var form *ustar.FormError
	if err != nil && !errors.As(err, &form) {
		return nil, fmt.Errorf("archive: %w", err)
	}
	if err == nil {
		err = expected(list, members)
	}
	if err != nil {
		out.Fault = &DamagedError{File: path, Err: err}
	}
	for i, m := range list.members() {
		if i += 2; i < len(members) && members[i].Name == m.name {
			out.at[Key(m.SHA256)] = place{members[i].Offset, members[i].Size, m.Bytes, m.log}
		} else {
			out.lost[Key(m.SHA256)] = struct{}{}
		}
	}
	return out, nil
}

// begins reads the list that an archive of this site begins with.
func begins(f *os.File, siteID string) (*List, []byte, error) {
	var head [ustar.Block]byte
	if _, err := f.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("archive: %w", err)
	}
	name, size, _, ok := ustar.Parse(&head)
	if !ok || name != listName || size > maxList {
		return nil, nil, ErrForeign
	}
	raw, err := io.ReadAll(io.NewSectionReader(f, ustar.Block, size))
	if err != nil {
		return nil, nil, fmt.Errorf("archive: %w", err)
	}
	list, err := ParseList(raw)
	if err != nil || list.SiteID != siteID {
		return nil, nil, ErrForeign
	}
	return list, raw, nil
}

func index(f *os.File) ([]ustar.Member, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return ustar.Index(f, fi.Size(), maxMembers)
}

// expected compares the files of a tar with those that its list predicts.
func expected(l *List, got []ustar.Member) error {
	before, err := stamp.Parse(l.Before)
	if err != nil {
		return err
	}
	names := []string{listName, readmeName}
	for _, m := range l.members() {
		names = append(names, m.name)
	}
	names = append(names, sumsName, sigName)
	if len(got) != len(names) {
		return fmt.Errorf("it has %d files, its list makes that %d", len(got), len(names))
	}
	for i, m := range got {
		if m.Name != names[i] || m.Time != before.Unix() {
			return fmt.Errorf("file %d is %.100q, and should be %s", i, m.Name, names[i])
		}
	}
	return nil
}

// Key is a digest in the form that takes least memory; nothing has that of what is none.
func Key(digest string) (k [32]byte) {
	if len(digest) == 64 {
		_, _ = hex.Decode(k[:], []byte(digest))
	}
	return k
}

// Has says whether the archive holds a content.
func (f *File) Has(digest string) bool {
	_, ok := f.at[Key(digest)]
	return ok
}

// Lost says whether the archive lists a content that cannot be found, since its form is
// damaged.
func (f *File) Lost(digest string) bool {
	_, ok := f.lost[Key(digest)]
	return ok
}

// Open opens a content that the archive holds; the caller closes it. Reading ends with
// io.EOF only if all of it is what the digest says, else with a *[DamagedError].
func (f *File) Open(digest string) (io.ReadCloser, error) {
	p, ok := f.at[Key(digest)]
	if !ok {
		return nil, fmt.Errorf("archive: %s does not hold %s", f.Path, digest)
	}
	file, err := fsx.OpenRegular(f.Path)
	if err != nil {
		return nil, err
	}
	m := member{Item{p.bytes, digest}, artifactsDir + digest + artifactSuffix, p.log}
	if p.log {
		m.name = logsDir + digest + logSuffix
	}
	dec, err := newDecoder()
	if err == nil {
		err = dec.Reset(io.NewSectionReader(file, p.offset, p.stored))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("archive: %w", err), file.Close())
	}
	return closing{&content{path: f.Path, m: m, dec: dec, sum: sha256.New()}, file}, nil
}

// newDecoder makes a decoder of bounded memory.
func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
}

// closing is a content whose file goes with it.
type closing struct {
	*content
	file *os.File
}

// Close implements [io.Closer].
func (c closing) Close() error {
	c.dec.Close()
	return c.file.Close()
}

// content reads one content and hashes it.
type content struct {
	path string
	m    member
	dec  *zstd.Decoder
	sum  hash.Hash
	n    int64
}

// Read implements [io.Reader].
func (c *content) Read(b []byte) (int, error) {
	n, err := c.dec.Read(b)
	c.sum.Write(b[:n])
	c.n += int64(n)
	var disk *os.PathError
	switch {
	case c.n > c.m.Bytes:
		return 0, c.damaged(fmt.Errorf("it has more than %d bytes", c.m.Bytes))
	case err == io.EOF && (c.n != c.m.Bytes || hex.EncodeToString(c.sum.Sum(nil)) != c.m.SHA256):
		return n, c.damaged(errors.New("its bytes are not those of its name"))
	case err == nil || err == io.EOF || errors.As(err, &disk):
		return n, err
	}
	return n, c.damaged(err)
}

func (c *content) damaged(err error) error { return &DamagedError{c.path, c.m.name, err} }

// Verified is an archive of which every byte was read.
type Verified struct {
	SHA256 string // of the file
	Bytes  int64
	List   *List
}

// VerifyOptions are options of [Verify]. SiteID is required.
type VerifyOptions struct {
	SiteID   string
	Signed   func(sums, signature []byte) error // that the site has signed this list; nil: somebody knows the file's SHA-256
	Progress func(done, total int64)            // bytes of the file
	Fresh    bool                               // read it from the disk, not from memory, as far as the system can be asked to
}

// Verify reads all of an archive: its form, the signature, that each file is what
// SHA256SUMS says, and that each content is what its name says. What differs is a
// *[DamagedError]; a file that does not begin as an archive of runs of this site is
// [ErrForeign].
func Verify(ctx context.Context, path string, opt VerifyOptions) (v Verified, err error) {
	f, err := fsx.OpenRegular(path)
	if err != nil {
		return v, err
	}
	defer f.Close()
	if opt.Fresh {
		fsx.Forget(f)
	}
	list, _, err := begins(f, opt.SiteID)
	if err != nil {
		return v, err
	}
	members, err := index(f)
	if err == nil {
		err = expected(list, members)
	}
	if err != nil {
		var disk *os.PathError
		if errors.As(err, &disk) {
			return v, err
		}
		return v, &DamagedError{File: path, Err: err}
	}
	k := &checker{ctx: ctx, path: path, opt: opt, whole: sha256.New()}
	if fi, err := f.Stat(); err == nil {
		k.total = fi.Size()
	}
	k.r = bufio.NewReaderSize(io.TeeReader(f, k), 256<<10)
	if k.dec, err = newDecoder(); err != nil {
		return v, fmt.Errorf("archive: %w", err)
	}
	defer k.dec.Close()
	if err := k.all(list, members); err != nil {
		if ctx.Err() != nil {
			return v, context.Cause(ctx)
		}
		return v, err
	}
	return Verified{SHA256: hex.EncodeToString(k.whole.Sum(nil)), Bytes: k.done, List: list}, nil
}

// checker reads an archive from its beginning to its end.
type checker struct {
	ctx         context.Context
	path        string
	opt         VerifyOptions
	r           *bufio.Reader
	dec         *zstd.Decoder // one for all
	whole       hash.Hash
	done, total int64
	sums        []sum
}

// Write is given all bytes of the file.
func (k *checker) Write(b []byte) (int, error) {
	if k.ctx.Err() != nil {
		return 0, context.Cause(k.ctx)
	}
	k.whole.Write(b)
	if k.done += int64(len(b)); k.opt.Progress != nil {
		k.opt.Progress(k.done, max(k.done, k.total))
	}
	return len(b), nil
}

func (k *checker) all(list *List, members []ustar.Member) error {
	contents := list.members()
	var sums, sig []byte
	for i, m := range members {
		if _, err := io.CopyN(io.Discard, k.r, ustar.Block); err != nil { // the header, which the index has compared
			return err
		}
		var err error
		switch at := i - 2; {
		case m.Name == sumsName:
			sums, err = k.small(m, maxList)
		case m.Name == sigName:
			sig, err = k.small(m, maxSmall)
		case at < 0:
			_, err = k.small(m, maxList)
		default:
			err = k.content(m, contents[at])
		}
		if err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, k.r, ustar.Padded(m.Size)-m.Size); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, k.r); err != nil {
		return err
	}
	return k.signed(sums, sig)
}

// signed compares what was read with the list of sums, which the site has signed. Where
// they differ, the first file that does is named.
func (k *checker) signed(sums, sig []byte) error {
	got := k.sums[:len(k.sums)-2] // but the two themselves
	if !bytes.Equal(encodeSums(got), sums) {
		lines := map[string]bool{}
		for line := range bytes.Lines(sums) {
			lines[string(line)] = true
		}
		for _, s := range got {
			if !lines[s.sha256+"  "+s.name+"\n"] {
				return &DamagedError{k.path, s.name, errors.New("it is not what " + sumsName + " says")}
			}
		}
		return &DamagedError{k.path, sumsName, errors.New("it lists other files")}
	}
	if k.opt.Signed == nil {
		return nil
	}
	if err := k.opt.Signed(sums, sig); err != nil {
		return &DamagedError{k.path, sigName, err}
	}
	return nil
}

func (k *checker) small(m ustar.Member, limit int64) ([]byte, error) {
	if m.Size > limit {
		return nil, &DamagedError{k.path, m.Name, fmt.Errorf("it has more than %d bytes", limit)}
	}
	raw := make([]byte, m.Size)
	if _, err := io.ReadFull(k.r, raw); err != nil {
		return nil, err
	}
	k.sums = append(k.sums, sum{m.Name, sumOf(raw)})
	return raw, nil
}

func (k *checker) content(m ustar.Member, want member) error {
	sums := sha256.New()
	stored := io.TeeReader(io.LimitReader(k.r, m.Size), sums)
	if err := k.dec.Reset(stored); err != nil {
		return &DamagedError{k.path, m.Name, err}
	}
	if _, err := io.Copy(io.Discard, &content{path: k.path, m: want, dec: k.dec, sum: sha256.New()}); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, stored); err != nil {
		return err
	}
	k.sums = append(k.sums, sum{m.Name, hex.EncodeToString(sums.Sum(nil))})
	return nil
}
