package bundle

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
)

// source counts and hashes every byte that is taken from the media, each once.
type source struct {
	r   *bufio.Reader
	sum hash.Hash
	off int64
}

func newSource(r io.Reader) *source {
	return &source{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
}

// Read implements [io.Reader].
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	s.off += int64(n)
	return n, err
}

// full fills p. The end of the file is [io.ErrUnexpectedEOF].
func (s *source) full(p []byte) error {
	_, err := io.ReadFull(s, p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// atEnd says whether no byte is left.
func (s *source) atEnd() (bool, error) {
	_, err := s.r.Peek(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

func (s *source) digest() string { return hex.EncodeToString(s.sum.Sum(nil)) }
