package bundle

import (
	"fmt"
	"io"
)

// writer writes entries in the form that [Reader] accepts.
type writer struct {
	w     io.Writer
	mtime int64
}

// entry writes a header for size bytes, which the caller writes next, followed
// by pad.
func (w *writer) entry(name string, size int64) error {
	b := header{name: name, size: size, mtime: w.mtime}.encode()
	_, err := w.w.Write(b[:])
	return err
}

func (w *writer) pad(size int64) error {
	var zero [block]byte
	_, err := w.w.Write(zero[:padding(size)])
	return err
}

// file writes a whole entry.
func (w *writer) file(name string, data []byte) error {
	if err := w.entry(name, int64(len(data))); err != nil {
		return err
	}
	if _, err := w.w.Write(data); err != nil {
		return err
	}
	return w.pad(int64(len(data)))
}

// copy writes a whole entry of exactly size bytes from r.
func (w *writer) copy(name string, r io.Reader, size int64) error {
	if err := w.entry(name, size); err != nil {
		return err
	}
	if n, err := io.Copy(w.w, io.LimitReader(r, size)); err != nil {
		return err
	} else if n != size {
		return fmt.Errorf("bundle: %s: %d bytes instead of %d: %w", name, n, size, io.ErrUnexpectedEOF)
	}
	return w.pad(size)
}

// end writes the end marker.
func (w *writer) end() error {
	_, err := w.w.Write(make([]byte, 2*block))
	return err
}
