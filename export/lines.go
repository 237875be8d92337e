package export

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

// lineWriter writes one compressed file of an archive to a temporary file,
// which has no name any more: whatever happens, nothing stays behind.
type lineWriter struct {
	path    string
	tmp     *os.File
	enc     *zstd.Encoder
	stored  counter // compressed
	content counter // uncompressed
	records int64
}

// counter hashes and counts what passes through to w.
type counter struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.sum.Write(p)
	c.n += int64(len(p))
	return c.w.Write(p)
}

func (c *counter) digest() string { return hex.EncodeToString(c.sum.Sum(nil)) }

func newLineWriter(path, tempDir string) (*lineWriter, error) {
	tmp, err := os.CreateTemp(tempDir, "stella-export-*")
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	if err := os.Remove(tmp.Name()); err != nil {
		tmp.Close()
		return nil, fmt.Errorf("export: %w", err)
	}
	l := &lineWriter{path: path, tmp: tmp, stored: counter{w: tmp, sum: sha256.New()}}
	if l.enc, err = newEncoder(&l.stored); err != nil {
		tmp.Close()
		return nil, fmt.Errorf("export: %w", err)
	}
	l.content = counter{w: l.enc, sum: sha256.New()}
	return l, nil
}

// add writes one line, given without its line feed.
func (l *lineWriter) add(line []byte) error {
	for _, b := range [][]byte{line, {'\n'}} {
		if _, err := l.content.Write(b); err != nil {
			return fmt.Errorf("export: %s: %w", l.path, err)
		}
	}
	l.records++
	return nil
}

// finish ends the file and says what the manifest lists.
func (l *lineWriter) finish() (File, error) {
	if err := l.enc.Close(); err != nil {
		return File{}, fmt.Errorf("export: %s: %w", l.path, err)
	}
	media, _ := mediaType(l.path)
	return File{
		Path: l.path, MediaType: media, Bytes: l.stored.n, SHA256: l.stored.digest(),
		Records: &l.records, UncompressedBytes: &l.content.n, UncompressedSHA256: l.content.digest(),
	}, nil
}

// reader is what was written, from its beginning.
func (l *lineWriter) reader() io.Reader { return io.NewSectionReader(l.tmp, 0, l.stored.n) }

func (l *lineWriter) close() { l.tmp.Close() }

// lineReader reads the lines of a file of an archive.
type lineReader struct {
	r   *bufio.Reader
	n   int64 // of the line that was read last, from 1
	max int
	buf []byte
}

var (
	errLineTooLong = errors.New("the line is too long")
	errNoLineFeed  = errors.New("the last line has no line feed")
)

// newLineReader reads lines of at most max bytes, line feeds not counted.
func newLineReader(r io.Reader, max int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10), max: max}
}

// next returns the next line without its line feed, valid until the next call,
// or io.EOF.
func (l *lineReader) next() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		if err == nil && len(l.buf) == 0 { // the common case copies nothing
			l.n++
			return l.bounded(part[:len(part)-1])
		}
		l.buf = append(l.buf, part...)
		switch {
		case err == nil:
			l.n++
			return l.bounded(l.buf[:len(l.buf)-1])
		case errors.Is(err, bufio.ErrBufferFull) && len(l.buf) <= l.max:
		case errors.Is(err, bufio.ErrBufferFull):
			l.n++
			return nil, errLineTooLong
		case errors.Is(err, io.EOF) && len(l.buf) > 0:
			l.n++
			return nil, errNoLineFeed
		default:
			return nil, err
		}
	}
}

func (l *lineReader) bounded(line []byte) ([]byte, error) {
	if len(line) > l.max {
		return nil, errLineTooLong
	}
	return line, nil
}
