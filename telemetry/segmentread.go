package telemetry

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
)

// maxRecord bounds a record's line: text in which every byte is escaped, and
// room for the other fields.
const maxRecord = 6*MaxText + 512

// A SegmentError is a log segment that is not what its writer or its entry in
// the ledger says.
type SegmentError struct {
	Record  int64 // index of the record where it was noticed
	Problem string
}

func (e *SegmentError) Error() string {
	return fmt.Sprintf("telemetry: log segment: record %d: %s", e.Record, e.Problem)
}

// ReadSegment yields the records of a segment, which must be exactly what ref
// names: the same bytes, the same number of records, each in the one accepted
// form. The last thing it yields is an error if anything differs; until the
// sequence has ended without one, nothing is proved. It reads ref.Bytes bytes and
// nothing beyond, so that a segment that still grows can be read as far as
// [Intact] said. A difference is a *[SegmentError].
func ReadSegment(r io.Reader, ref ledger.LogRef) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		sum := sha256.New()
		lines := segmentLines(io.TeeReader(io.LimitReader(r, ref.Bytes), sum), ref.Bytes)
		var n, size int64
		for line, err := range lines {
			var rec Record
			if err == nil {
				rec, err = parseRecord(line, n)
				size += int64(len(line))
			}
			if err == nil && n >= ref.Records {
				err = &SegmentError{Record: n, Problem: "more records than the ledger names"}
			}
			if err != nil {
				yield(Record{}, err)
				return
			}
			n++
			if !yield(rec, nil) {
				return
			}
		}
		if n != ref.Records || size != ref.Bytes {
			yield(Record{}, &SegmentError{Record: n, Problem: "fewer records or bytes than the ledger names"})
		} else if hex.EncodeToString(sum.Sum(nil)) != ref.SHA256 {
			yield(Record{}, &SegmentError{Record: n, Problem: "digest differs from the ledger's"})
		}
	}
}

// Intact names the longest prefix of a segment that holds whole records in the
// accepted form: what is left of the output of an attempt that we did not
// survive. The caller cuts the file to ref.Bytes. An error is a fault of r.
func Intact(r io.Reader) (ref ledger.LogRef, err error) {
	sum := sha256.New()
	for line, err := range segmentLines(r, maxRecord) {
		if err == nil {
			_, err = parseRecord(line, ref.Records)
		}
		var bad *SegmentError
		if errors.As(err, &bad) {
			break
		}
		if err != nil {
			return ledger.LogRef{}, err
		}
		sum.Write(line)
		ref.Bytes += int64(len(line))
		ref.Records++
	}
	ref.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return ref, nil
}

// segmentLines yields lines of at most most bytes with their line feed; a line is valid
// until the next one.
func segmentLines(r io.Reader, most int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		br := bufio.NewReaderSize(r, int(min(most, maxRecord)))
		for n := int64(0); ; n++ {
			line, err := br.ReadSlice('\n')
			switch {
			case err == io.EOF && len(line) == 0:
				return
			case err == io.EOF:
				err = &SegmentError{Record: n, Problem: "the last line has no line feed"}
			case errors.Is(err, bufio.ErrBufferFull):
				err = &SegmentError{Record: n, Problem: "line too long"}
			case err != nil:
				err = fmt.Errorf("telemetry: read log segment: %w", err)
			}
			if !yield(line, err) || err != nil {
				return
			}
		}
	}
}

// parseRecord accepts exactly what a [Segment] writes.
func parseRecord(line []byte, seq int64) (Record, error) {
	bad := func(problem string) (Record, error) {
		return Record{}, &SegmentError{Record: seq, Problem: problem}
	}
	raw := bytes.TrimSuffix(line, []byte{'\n'})
	if err := jcs.Check(raw); err != nil {
		return bad("not canonical JSON")
	}
	var r Record
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return bad("not a log record")
	}
	if problem := r.check(); problem != "" {
		return bad(problem)
	}
	if r.Seq != seq {
		return bad("number out of order")
	}
	if again, err := r.line(); err != nil || !bytes.Equal(again, line) {
		return bad("not in the accepted form") // a field left out, or null
	}
	return r, nil
}
