package telemetry

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

// MaxText bounds the text of one [Record], in bytes. A longer line of output is
// stored as several records.
const MaxText = 64 << 10

// Record is one line of a log segment: what an attempt wrote, without its line
// feed. In the file it is one line of canonical JSON (RFC 8785).
type Record struct {
	Seq    int64  `json:"seq"`    // from 0, without gaps
	Stream string `json:"stream"` // stdout | stderr; at most 16 letters a–z
	Text   string `json:"text"`   // masked; each byte that is not UTF-8 is U+FFFD
	Time   string `json:"time"`   // when it was read, in the form of package stamp
}

// Segment writes the log segment of one attempt. It is not safe for concurrent
// use. Every record is one Write, so that a reader may follow the file.
type Segment struct {
	// Mask, if set before the first line, returns what may be stored in place
	// of a line. It may return its argument and must not keep it.
	Mask func(line []byte) []byte

	w    io.Writer
	sum  hash.Hash
	max  int64
	ref  ledger.LogRef
	full bool
	err  error
}

// NewSegment starts a segment of at most maxBytes bytes; 0 and less keep
// nothing. The caller keeps w, and syncs and closes it after
// [Segment.Close].
func NewSegment(w io.Writer, maxBytes int64) *Segment {
	return &Segment{w: w, sum: sha256.New(), max: maxBytes}
}

// Line stores one line of output, which it does not keep. From the first record
// on that does not fit, everything is dropped and its bytes are counted: what
// is stored is a prefix of what was written. An error is a fault of w and stays.
func (s *Segment) Line(stream string, at time.Time, line []byte) error {
	if s.err != nil {
		return s.err
	}
	if !validStream(stream) {
		return fmt.Errorf("telemetry: bad stream name %q", stream)
	}
	if s.Mask != nil {
		line = s.Mask(line)
	}
	text := visible(line)
	for first := true; first || text != ""; first = false {
		part := cut(text, MaxText)
		text = text[len(part):]
		if err := s.record(Record{Seq: s.ref.Records, Stream: stream, Text: part, Time: stamp.Format(clamp(at))}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Segment) record(r Record) error {
	raw, err := r.line()
	if err != nil {
		return err
	}
	if s.full || s.ref.Bytes+int64(len(raw)) > s.max {
		s.full = true
		s.ref.Dropped += int64(len(r.Text))
		return nil
	}
	if _, err := s.w.Write(raw); err != nil {
		s.err = fmt.Errorf("telemetry: write log segment: %w", err)
		return s.err
	}
	s.sum.Write(raw)
	s.ref.Bytes += int64(len(raw))
	s.ref.Records++
	return nil
}

// Close ends the segment and says what an entry records of it. Dropped counts
// bytes of text that this segment did not keep; whoever cut output earlier adds
// its own count. It does not close the writer.
func (s *Segment) Close() (ledger.LogRef, error) {
	ref := s.ref
	ref.SHA256 = hex.EncodeToString(s.sum.Sum(nil))
	return ref, s.err
}

// line is the record as it stands in a segment, line feed included.
func (r Record) line() ([]byte, error) {
	raw, err := jcs.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("telemetry: log record: %w", err)
	}
	return append(raw, '\n'), nil
}

// check returns what is wrong with a record that came from outside, or "".
func (r Record) check() string {
	switch {
	case !validStream(r.Stream):
		return "bad stream name"
	case len(r.Text) > MaxText:
		return "text too long"
	case !utf8.ValidString(r.Text):
		return "text is not UTF-8"
	}
	if t, err := stamp.Parse(r.Time); err != nil || !clamp(t).Equal(t) {
		return "bad time"
	}
	return ""
}

func validStream(s string) bool {
	for i := range len(s) {
		if s[i] < 'a' || s[i] > 'z' {
			return false
		}
	}
	return s != "" && len(s) <= 16
}

// visible returns b as UTF-8, with U+FFFD for each byte that is none.
func visible(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	out.Grow(len(b) + utf8.UTFMax)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b) // a bad byte is RuneError of size 1
		out.WriteRune(r)
		b = b[n:]
	}
	return out.String()
}
