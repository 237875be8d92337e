package export

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// block is the unit of a tar: a header, or content padded with zeros.
const block = 512

// maxMember is the largest size that a USTAR header can say.
const maxMember = 8<<30 - 1

// Fields of a USTAR header (POSIX.1-1988) that differ between two members of an
// archive, as [from, to) in bytes. All others are fixed.
const (
	nameTo              = 100
	sizeFrom, sizeTo    = 124, 136
	mtimeFrom, mtimeTo  = 136, 148
	chksumFrom, chksumP = 148, 156
)

// tarHeader returns the only header that a member may have: a regular file,
// mode 0644, owner 0 without names. The name has at most 100 bytes.
func tarHeader(name string, size, mtime int64) (h [block]byte) {
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

// parseTarHeader returns what a header says, if it is the one that tarHeader
// makes of that.
func parseTarHeader(h *[block]byte) (name string, size, mtime int64, ok bool) {
	raw, _, _ := bytes.Cut(h[:nameTo], []byte{0})
	name = string(raw)
	size, ok = octal(h[sizeFrom:sizeTo])
	if ok {
		mtime, ok = octal(h[mtimeFrom:mtimeTo])
	}
	return name, size, mtime, ok && tarHeader(name, size, mtime) == *h
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

// padded is size rounded up to whole blocks.
func padded(size int64) int64 { return (size + block - 1) &^ (block - 1) }

// tarWriter writes an archive's members, each with the same time.
type tarWriter struct {
	w     io.Writer
	mtime int64
}

// member writes one member of exactly size bytes.
func (t *tarWriter) member(name string, size int64, r io.Reader) error {
	h := tarHeader(name, size, t.mtime)
	if _, err := t.w.Write(h[:]); err != nil {
		return err
	}
	n, err := io.Copy(t.w, io.LimitReader(r, size))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	_, err = t.w.Write(make([]byte, padded(size)-size))
	return err
}

// close writes the end of the tar: two zero blocks.
func (t *tarWriter) close() error {
	_, err := t.w.Write(make([]byte, 2*block))
	return err
}

// member is one file of an archive: where its content lies.
type member struct {
	name   string
	size   int64
	offset int64 // of the content in a tar
	mtime  int64 // in a tar
}

// A formError is a container that is not of the one accepted form.
type formError struct {
	name    string // of the member; may be empty
	problem string
}

func (e *formError) Error() string {
	if e.name == "" {
		return e.problem
	}
	return e.name + ": " + e.problem
}

// indexTar reads the headers, padding and end of a tar of size bytes, and none
// of its content. Anything that differs from what tarWriter writes is a
// *formError; other errors come from r. It stops at maxMembers.
func indexTar(r io.ReaderAt, size int64) ([]member, error) {
	var out []member
	for at := int64(0); ; {
		h, err := blockAt(r, size, at)
		if err != nil {
			return nil, err
		}
		if h == ([block]byte{}) {
			return out, tarEnd(r, size, at)
		}
		name, n, mtime, ok := parseTarHeader(&h)
		switch {
		case !ok:
			return nil, &formError{problem: fmt.Sprintf("the header at byte %d is not the one that its name, size and time have", at)}
		case len(out) == maxMembers:
			return nil, &formError{problem: fmt.Sprintf("more than %d files", maxMembers)}
		case padded(n) > size-at-block:
			return nil, &formError{name, "is cut short"}
		}
		m := member{name: name, size: n, offset: at + block, mtime: mtime}
		if err := zeroPadding(r, m); err != nil {
			return nil, err
		}
		out = append(out, m)
		at += block + padded(n)
	}
}

func blockAt(r io.ReaderAt, size, at int64) (b [block]byte, err error) {
	if size-at < block {
		return b, &formError{problem: fmt.Sprintf("ends at byte %d, without the two zero blocks", size)}
	}
	if _, err := r.ReadAt(b[:], at); err != nil && !errors.Is(err, io.EOF) {
		return b, err
	}
	return b, nil
}

func zeroPadding(r io.ReaderAt, m member) error {
	pad := make([]byte, padded(m.size)-m.size)
	if _, err := r.ReadAt(pad, m.offset+m.size); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !allZero(pad) {
		return &formError{m.name, "its padding is not zero"}
	}
	return nil
}

// tarEnd checks the second zero block, and that nothing follows it.
func tarEnd(r io.ReaderAt, size, at int64) error {
	h, err := blockAt(r, size, at+block)
	if err != nil {
		return err
	}
	if !allZero(h[:]) {
		return &formError{problem: fmt.Sprintf("a zero block at byte %d is followed by more", at)}
	}
	if rest := size - at - 2*block; rest != 0 {
		return &formError{problem: fmt.Sprintf("%d bytes follow the end", rest)}
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
