package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/internal/ustar"
)

// windowSize is how far back a compressed file refers, and maxWindow the most that is
// read, which bounds the memory that reading takes.
const (
	windowSize = 4 << 20
	maxWindow  = 8 << 20
)

// Source is where contents come from.
type Source interface {
	// Open opens a content, a log segment or else an artifact.
	Open(log bool, digest string) (io.ReadCloser, error)
}

// Options of [Write]. All but Progress are required.
type Options struct {
	List   *List
	Source Source
	// Sign returns the Sigstore bundle of a message signature over SHA256SUMS by the
	// site's key, with a nonce of RFC 6979.
	Sign     func(sums []byte) ([]byte, error)
	Progress func(done, total int64) // bytes of content
}

// Write makes an archive at path, which must not exist, and syncs its content but not its
// name. The same list gives the same bytes. A content that cannot be read, or is not what the
// list says, is a *[ContentError]. On an error nothing is left.
func Write(ctx context.Context, path string, opt Options) (err error) {
	raw, err := opt.List.Encode()
	if err != nil {
		return err
	}
	before, err := stamp.Parse(opt.List.Before)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	w := &writer{ctx: ctx, f: f, opt: opt, time: before, total: opt.List.Bytes()}
	if w.enc, err = newEncoder(); err == nil {
		err = w.all(raw)
	}
	if err == nil {
		err = failpoint.Hit(failpoint.ArchiveWrite)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("archive: %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// writer is an archive in the making.
type writer struct {
	ctx         context.Context
	f           *os.File
	enc         *zstd.Encoder // one for all: making it costs more than a short log
	opt         Options
	time        time.Time
	at          int64 // end of what was written
	sums        []sum
	done, total int64
}

// sum is a line of SHA256SUMS.
type sum struct{ name, sha256 string }

func (w *writer) all(list []byte) error {
	for _, x := range []struct {
		name string
		raw  []byte
	}{{listName, list}, {readmeName, []byte(readme)}} {
		if err := w.small(x.name, x.raw); err != nil {
			return err
		}
	}
	for _, m := range w.opt.List.members() {
		if err := w.content(m); err != nil {
			return err
		}
	}
	sums := encodeSums(w.sums)
	if err := w.small(sumsName, sums); err != nil {
		return err
	}
	sig, err := w.opt.Sign(sums)
	if err != nil {
		return err
	}
	if err := w.small(sigName, sig); err != nil {
		return err
	}
	_, err = w.f.WriteAt(make([]byte, 2*ustar.Block), w.at)
	return err
}

// encodeSums writes lines that sha256sum -c reads, sorted by name.
func encodeSums(sums []sum) []byte {
	sums = slices.SortedFunc(slices.Values(sums), func(a, b sum) int { return strings.Compare(a.name, b.name) })
	var out bytes.Buffer
	for _, s := range sums {
		fmt.Fprintf(&out, "%s  %s\n", s.sha256, s.name)
	}
	return out.Bytes()
}

// small writes a file that is not compressed.
func (w *writer) small(name string, raw []byte) error {
	return w.member(name, func(to io.Writer) error {
		_, err := to.Write(raw)
		return err
	})
}

// content writes a compressed content, which must be what the list says.
func (w *writer) content(m member) error {
	return w.member(m.name, func(to io.Writer) error {
		w.enc.Reset(to)
		err := Whole(w.opt.Source, m.log, m.Item, io.MultiWriter(w.enc, progress{w}))
		return errors.Join(err, w.enc.Close())
	})
}

// Whole copies a content of a source to w. One that cannot be read, or is not what the item
// says, is a *[ContentError].
func Whole(from Source, log bool, item Item, w io.Writer) error {
	r, err := from.Open(log, item.SHA256)
	if err != nil {
		return &ContentError{item.SHA256, err}
	}
	defer r.Close()
	in := &reading{r: r}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), in)
	switch {
	case in.err != nil:
		return &ContentError{item.SHA256, in.err}
	case err != nil:
		return err
	case n != item.Bytes || hex.EncodeToString(sum.Sum(nil)) != item.SHA256:
		return &ContentError{item.SHA256, fmt.Errorf("its %d bytes are not what its name says", n)}
	}
	return nil
}

// reading tells what reading has failed at from what writing has.
type reading struct {
	r   io.Reader
	err error
}

func (r *reading) Read(b []byte) (n int, err error) {
	if n, err = r.r.Read(b); err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(windowSize),
		zstd.WithEncoderConcurrency(1), zstd.WithZeroFrames(true))
}

// progress counts contents, and ends with the context.
type progress struct{ w *writer }

func (p progress) Write(b []byte) (int, error) {
	if err := p.w.ctx.Err(); err != nil {
		return 0, context.Cause(p.w.ctx)
	}
	if p.w.done += int64(len(b)); p.w.opt.Progress != nil {
		p.w.opt.Progress(min(p.w.done, p.w.total), p.w.total)
	}
	return len(b), nil
}

// member writes one file of the tar. Its header comes when its size is known.
func (w *writer) member(name string, write func(io.Writer) error) error {
	if err := failpoint.Hit(failpoint.ArchiveWrite); err != nil {
		return err
	}
	to := &stored{w: io.NewOffsetWriter(w.f, w.at+ustar.Block), sum: sha256.New()}
	if err := write(to); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if to.n > ustar.MaxSize {
		return fmt.Errorf("%s: %d bytes are more than a file of a tar has", name, to.n)
	}
	h := ustar.Header(name, to.n, w.time.Unix())
	if _, err := w.f.WriteAt(h[:], w.at); err != nil {
		return err
	}
	end := w.at + ustar.Block + to.n
	w.at += ustar.Block + ustar.Padded(to.n)
	if _, err := w.f.WriteAt(make([]byte, w.at-end), end); err != nil {
		return err
	}
	w.sums = append(w.sums, sum{name, hex.EncodeToString(to.sum.Sum(nil))})
	return nil
}

// stored counts and hashes what a file of the tar is.
type stored struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func (s *stored) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.sum.Write(b[:n])
	s.n += int64(n)
	return n, err
}
