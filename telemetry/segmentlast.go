package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Last reads the last whole record of a segment of the given size, without
// reading the rest of it. Nothing is proved of it: who relies on a segment reads
// it whole. ok is false where there is none.
func Last(r io.ReaderAt, size int64) (rec Record, ok bool, err error) {
	// Two records at most, so that the last one is whole where the file ends in a
	// torn one.
	from := max(0, size-2*maxRecord)
	buf := make([]byte, size-from)
	n, err := r.ReadAt(buf, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return Record{}, false, fmt.Errorf("telemetry: read log segment: %w", err)
	}
	buf = buf[:n]
	buf = buf[:bytes.LastIndexByte(buf, '\n')+1]
	if len(buf) == 0 {
		return Record{}, false, nil
	}
	line := buf[bytes.LastIndexByte(buf[:len(buf)-1], '\n')+1:]
	if err := json.Unmarshal(line, &rec); err != nil || rec.check() != "" {
		return Record{}, false, &SegmentError{Problem: "the last line is not a log record"}
	}
	return rec, true, nil
}
