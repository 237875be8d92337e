package bundle

import (
	"errors"
	"fmt"
	"io"
)

// fail makes r refuse its file, for good.
func (r *Reader) fail(reason Reason, entry, format string, args ...any) error {
	r.err = &FormatError{Reason: reason, Entry: entry, Offset: r.src.off, Detail: fmt.Sprintf(format, args...)}
	return r.err
}

// broken turns an error of reading into a refusal when the file is too short.
func (r *Reader) broken(entry string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return r.fail(Truncated, entry, "the file ends here")
	}
	r.err = fmt.Errorf("bundle: read: %w", err)
	return r.err
}

// peek reads the next header, which stays the next one until take. ok is false
// at the first block of the end marker.
func (r *Reader) peek() (h header, ok bool, err error) {
	if r.err != nil {
		return h, false, r.err
	}
	if r.ahead {
		return r.next, !r.ended, nil
	}
	var b [block]byte
	if err := r.src.full(b[:]); err != nil {
		return h, false, r.broken("", err)
	}
	if r.stage == atStart && string(b[magicAt:magicAt+8]) != magic {
		return h, false, r.fail(NotABundle, "", "the file does not begin as a USTAR tar")
	}
	if name := nameOf(&b); r.stage == atStart && name != ManifestName {
		return h, false, r.fail(NotABundle, name, "the first entry is not %s", ManifestName)
	}
	if b == [block]byte{} {
		r.ahead, r.ended = true, true
		return h, false, nil
	}
	h, reason, detail := decode(&b)
	if reason != "" {
		return h, false, r.fail(reason, h.name, "%s", detail)
	}
	if total := r.src.off + h.size + padding(h.size) + 2*block; total > r.lim.Bytes {
		return h, false, r.fail(TooLarge, h.name, "at least %d bytes, the limit is %d", total, r.lim.Bytes)
	}
	r.ahead, r.next = true, h
	return h, true, nil
}

// take makes the header that peek returned the entry at hand.
func (r *Reader) take() error {
	r.ahead = false
	if r.next.mtime != r.mtime {
		return r.fail(TimeMismatch, r.next.name, "its time is %d, the manifest's is %d", r.next.mtime, r.mtime)
	}
	return nil
}

// body reads the data and padding of the entry at hand, whose size was checked.
func (r *Reader) body() ([]byte, error) {
	data := make([]byte, r.next.size)
	if err := r.src.full(data); err != nil {
		return nil, r.broken(r.next.name, err)
	}
	return data, r.pad()
}

// pad reads the padding of the entry at hand.
func (r *Reader) pad() error {
	var b [block]byte
	rest := b[:padding(r.next.size)]
	if err := r.src.full(rest); err != nil {
		return r.broken(r.next.name, err)
	}
	for _, c := range rest {
		if c != 0 {
			return r.fail(PaddingInvalid, r.next.name, "the bytes that fill its last block are not zero")
		}
	}
	return nil
}
