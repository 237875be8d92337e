package bundle

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// frame passes on exactly one zstd frame (RFC 8878 section 3.1.1). The decoder
// by itself would silently take further frames, and skip skippable ones.
type frame struct {
	r      *bufio.Reader
	left   int // bytes of the part at hand that may still be passed on
	part   part
	sum    bool // a checksum follows the last block
	err    error
	broken error // reading failed for a reason that is not the file's
}

// part is what comes next in a frame.
type part int

const (
	frameHeader part = iota
	frameBlock
	frameChecksum
	frameEnd
)

var (
	errFrame    = errors.New("not a zstd frame of the accepted form")
	errNotOne   = errors.New("more than one zstd frame, or bytes after it")
	errSkip     = errors.New("a skippable zstd frame")
	errWindow   = errors.New("the zstd frame needs a larger window than 8 MiB")
	errNeedDict = errors.New("the zstd frame needs a dictionary")
	errTooShort = errors.New("the zstd frame is cut short")
)

// work is what reading blobs needs again and again. The zero value is ready.
type work struct {
	buf []byte
	in  *bufio.Reader
	dec *zstd.Decoder
}

// copyBufferSize is large enough that hashing dominates, small enough to forget.
const copyBufferSize = 128 << 10

func (w *work) copyBuffer() []byte {
	if w.buf == nil {
		w.buf = make([]byte, copyBufferSize)
	}
	return w.buf
}

// decoder returns a decoder of the one frame that stored holds. It is good
// until the next call. With a concurrency of 1 it starts no goroutine, so that
// it needs no Close.
func (w *work) decoder(stored io.Reader) (*frame, *zstd.Decoder, error) {
	if w.dec == nil {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		w.dec, w.in = dec, bufio.NewReaderSize(nil, copyBufferSize)
	}
	w.in.Reset(stored)
	f := &frame{r: w.in}
	return f, w.dec, w.dec.Reset(f)
}

// Read implements [io.Reader]. It is io.EOF at the end of the frame only when
// nothing follows.
func (f *frame) Read(p []byte) (int, error) {
	for f.left == 0 && f.err == nil {
		f.err = f.advance()
	}
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.r.Read(p[:min(len(p), f.left)])
	f.left -= n
	if err != nil {
		f.err = f.short(err)
	}
	return n, nil
}

// whole says whether the frame was passed on to its end and nothing follows it.
func (f *frame) whole() bool { return errors.Is(f.err, io.EOF) }

// advance looks at the next part of the frame and sets left to its length.
func (f *frame) advance() error {
	switch f.part {
	case frameHeader:
		return f.header()
	case frameBlock:
		return f.block()
	case frameChecksum:
		f.part, f.left = frameEnd, 4
		return nil
	default:
		_, err := f.r.Peek(1)
		if err == nil {
			return errNotOne
		}
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return f.short(err)
	}
}

func (f *frame) header() error {
	raw, err := f.r.Peek(zstd.HeaderMaxSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return f.short(err)
	}
	var h zstd.Header
	if err := h.Decode(raw); err != nil {
		return errFrame
	}
	switch {
	case h.Skippable:
		return errSkip
	case h.DictionaryID != 0:
		return errNeedDict
	case h.WindowSize > maxWindow, h.SingleSegment && h.FrameContentSize > maxWindow:
		return errWindow
	}
	f.part, f.left, f.sum = frameBlock, h.HeaderSize, h.HasCheckSum
	return nil
}

func (f *frame) block() error {
	raw, err := f.r.Peek(3)
	if err != nil {
		return f.short(err)
	}
	bits := int(raw[0]) | int(raw[1])<<8 | int(raw[2])<<16
	last, kind, size := bits&1 == 1, bits>>1&3, bits>>3
	switch kind {
	case 1: // one byte, repeated
		size = 1
	case 3:
		return fmt.Errorf("%w: a block of a reserved type", errFrame)
	}
	f.left = 3 + size
	switch {
	case last && f.sum:
		f.part = frameChecksum
	case last:
		f.part = frameEnd
	}
	return nil
}

// short names the end of the stored bytes inside the frame.
func (f *frame) short(err error) error {
	if errors.Is(err, io.EOF) {
		return errTooShort
	}
	f.broken = err
	return err
}
