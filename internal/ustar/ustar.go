// Package ustar writes and reads tars in the one form that stella's formats allow
// (docs/format.md, part 0): regular files of mode 0644 without owners, links or
// extensions. Reading is an equality check: a header is made anew from what it says,
// and compared. The package opens no file and starts no goroutine.
package ustar

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Block is the unit of a tar: a header, or content padded with zeros.
const Block = 512

// MaxSize is the largest size of a file that a USTAR header can say.
const MaxSize = 8<<30 - 1

// Fields of a USTAR header (POSIX.1-1988) that differ between two files of a
// tar, as [from, to) in bytes. All others are fixed.
const (
	nameTo              = 100
	sizeFrom, sizeTo    = 124, 136
	mtimeFrom, mtimeTo  = 136, 148
	chksumFrom, chksumP = 148, 156
)

// Header returns the only header that a file may have: a regular file,
// mode 0644, owner 0 without names. The name has at most 100 bytes.
func Header(name string, size, mtime int64) (h [Block]byte) {
	copy(h[:nameTo], name)
	copy(h[nameTo:sizeFrom], "0000644\x000000000\x000000000\x00") // mode, uid, gid
	copy(h[sizeFrom:sizeTo], fmt.Sprintf("%011o\x00", size))
	copy(h[mtimeFrom:mtimeTo], fmt.Sprintf("%011o\x00", mtime))
	copy(h[chksumFrom:chksumP], "        ")
	copy(h[156:], "0")                      // type: regular file
	copy(h[257:], "ustar\x0000")            // magic, version
	copy(h[329:], "0000000\x000000000\x00") // device numbers
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[chksumFrom:chksumP], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// Parse returns what a header says, if it is the one that [Header] makes of that.
func Parse(h *[Block]byte) (name string, size, mtime int64, ok bool) {
	raw, _, _ := bytes.Cut(h[:nameTo], []byte{0})
	name = string(raw)
	size, ok = octal(h[sizeFrom:sizeTo])
	if ok {
		mtime, ok = octal(h[mtimeFrom:mtimeTo])
	}
	return name, size, mtime, ok && Header(name, size, mtime) == *h
}

// octal reads a number field: digits, then one NUL.
func octal(field []byte) (n int64, ok bool) {
	digits, end := field[:len(field)-1], field[len(field)-1]
	for _, c := range digits {
		if c < '0' || c > '7' {
			return 0, false
		}
		n = n*8 + int64(c-'0')
	}
	return n, end == 0
}

// Padded is size rounded up to whole blocks.
func Padded(size int64) int64 { return (size + Block - 1) &^ (Block - 1) }

// A Writer writes the files of a tar, each with the same time.
type Writer struct {
	W    io.Writer
	Time int64 // seconds since 1970
}

// Member writes one file of exactly size bytes; r may have more.
func (t *Writer) Member(name string, size int64, r io.Reader) error {
	h := Header(name, size, t.Time)
	if _, err := t.W.Write(h[:]); err != nil {
		return err
	}
	n, err := io.Copy(t.W, io.LimitReader(r, size))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	_, err = t.W.Write(make([]byte, Padded(size)-size))
	return err
}

// Close writes the end of the tar: two zero blocks.
func (t *Writer) Close() error {
	_, err := t.W.Write(make([]byte, 2*Block))
	return err
}

// A Member is one file of a tar: where its content lies.
type Member struct {
	Name   string
	Size   int64
	Offset int64 // of the content
	Time   int64 // seconds since 1970
}

// A FormError is a container that is not of the one accepted form.
type FormError struct {
	Name    string // of the file; may be empty
	Problem string
}

func (e *FormError) Error() string {
	if e.Name == "" {
		return e.Problem
	}
	return e.Name + ": " + e.Problem
}

// Index reads the headers, padding and end of a tar of size bytes, and none of
// its content. Anything that differs from what [Writer] writes, and more than most
// files, is a *[FormError]; other errors come from r. With an error comes what stands
// before the fault.
func Index(r io.ReaderAt, size int64, most int) ([]Member, error) {
	var out []Member
	for at := int64(0); ; {
		h, err := blockAt(r, size, at)
		if err != nil {
			return out, err
		}
		if h == ([Block]byte{}) {
			return out, tarEnd(r, size, at)
		}
		name, n, mtime, ok := Parse(&h)
		switch {
		case !ok:
			return out, &FormError{Problem: fmt.Sprintf("the header at byte %d is not the one that its name, size and time have", at)}
		case len(out) == most:
			return out, &FormError{Problem: fmt.Sprintf("more than %d files", most)}
		case Padded(n) > size-at-Block:
			return out, &FormError{name, "is cut short"}
		}
		m := Member{Name: name, Size: n, Offset: at + Block, Time: mtime}
		if err := zeroPadding(r, m); err != nil {
			return out, err
		}
		out = append(out, m)
		at += Block + Padded(n)
	}
}

func blockAt(r io.ReaderAt, size, at int64) (b [Block]byte, err error) {
	if size-at < Block {
		return b, &FormError{Problem: fmt.Sprintf("ends at byte %d, without the two zero blocks", size)}
	}
	if _, err := r.ReadAt(b[:], at); err != nil && !errors.Is(err, io.EOF) {
		return b, err
	}
	return b, nil
}

func zeroPadding(r io.ReaderAt, m Member) error {
	pad := make([]byte, Padded(m.Size)-m.Size)
	if _, err := r.ReadAt(pad, m.Offset+m.Size); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !allZero(pad) {
		return &FormError{m.Name, "its padding is not zero"}
	}
	return nil
}

// tarEnd checks the second zero block, and that nothing follows it.
func tarEnd(r io.ReaderAt, size, at int64) error {
	h, err := blockAt(r, size, at+Block)
	if err != nil {
		return err
	}
	if !allZero(h[:]) {
		return &FormError{Problem: fmt.Sprintf("a zero block at byte %d is followed by more", at)}
	}
	if rest := size - at - 2*Block; rest != 0 {
		return &FormError{Problem: fmt.Sprintf("%d bytes follow the end", rest)}
	}
	return nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
