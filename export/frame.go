package export

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Windows say how far back a compressed file refers: ours, and the largest that
// is read, which bounds the memory that reading takes.
const (
	windowSize    = 4 << 20
	maxWindowSize = 8 << 20
)

// newEncoder returns the one compressor of archives: another level or window
// would be another archive.
func newEncoder(w io.Writer) (*zstd.Encoder, error) {
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(windowSize),
		zstd.WithEncoderConcurrency(1), zstd.WithZeroFrames(true))
}

// errFrame is the error of bytes that are not exactly one zstd frame.
var errFrame = errors.New("not exactly one zstd frame")

// oneFrame passes on the bytes of one zstd frame (RFC 8878, section 3.1.1) and
// fails if there are more: a decoder would go on with the next frame, and skip
// what calls itself skippable.
type oneFrame struct {
	r    *bufio.Reader
	n    int                 // bytes to pass on before next is asked
	next func() (int, error) // length of the next part
	crc  bool
}

func newOneFrame(r io.Reader) *oneFrame {
	f := &oneFrame{r: bufio.NewReaderSize(r, 32<<10)}
	f.next = f.header
	return f
}

// Read implements [io.Reader]; io.EOF means that the frame is whole and nothing
// follows it.
func (f *oneFrame) Read(p []byte) (int, error) {
	for f.n == 0 {
		n, err := f.next()
		if err != nil {
			return 0, err
		}
		f.n = n
	}
	n, err := f.r.Read(p[:min(len(p), f.n)])
	f.n -= n
	return n, cutShort(err)
}

func (f *oneFrame) header() (int, error) {
	raw, err := f.r.Peek(zstd.HeaderMaxSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	var h zstd.Header
	if err := h.Decode(raw); err != nil || h.Skippable || h.DictionaryID != 0 {
		return 0, fmt.Errorf("%w: no frame of a stella archive starts so", errFrame)
	}
	f.crc, f.next = h.HasCheckSum, f.block
	return h.HeaderSize, nil
}

// block reads a block header: 1 bit last, 2 bits type, 21 bits size.
func (f *oneFrame) block() (int, error) {
	raw, err := f.r.Peek(3)
	if err != nil {
		return 0, cutShort(err)
	}
	bits := uint32(raw[0]) | uint32(raw[1])<<8 | uint32(raw[2])<<16
	size := int(bits >> 3)
	if bits>>1&3 == 1 { // one byte, to be repeated
		size = 1
	}
	if bits&1 == 1 {
		f.next = f.checksum
	}
	return 3 + size, nil
}

func (f *oneFrame) checksum() (int, error) {
	f.next = f.end
	if f.crc {
		return 4, nil
	}
	return 0, nil
}

func (f *oneFrame) end() (int, error) {
	if _, err := f.r.Peek(1); err != nil {
		return 0, err // io.EOF is the good end
	}
	return 0, fmt.Errorf("%w: bytes follow it", errFrame)
}

// cutShort turns the end of the input inside a frame into a fault of the frame.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it is cut short", errFrame)
	}
	return err
}

// decompress returns the content of the one frame that r holds, at most limit
// bytes of it; more is an error. Whoever reads closes it.
func decompress(r io.Reader, limit int64) (*content, error) {
	dec, err := zstd.NewReader(newOneFrame(r), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindowSize))
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return &content{dec: dec, left: limit}, nil
}

// content is a decompressed file with a bound: the decoder has none of its own
// for what it puts out.
type content struct {
	dec  *zstd.Decoder
	left int64
}

var errTooLong = errors.New("decompresses to more than the manifest says")

func (c *content) Read(p []byte) (int, error) {
	n, err := c.dec.Read(p)
	if int64(n) > c.left {
		return 0, errTooLong
	}
	c.left -= int64(n)
	return n, err
}

func (c *content) Close() { c.dec.Close() }
