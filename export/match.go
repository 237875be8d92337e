package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/telemetry"
)

// lineMatcher compares lines that are derived, one after the other, with those
// of a file. After the first difference it only waits to be asked.
type lineMatcher struct {
	path  string
	lines *lineReader
	done  func()
	err   error
}

var errDiffers = errors.New("it is not what the ledger's entries give")

func (m *lineMatcher) match(want []byte) {
	if m.err != nil {
		return
	}
	got, err := m.lines.next()
	switch {
	case errors.Is(err, io.EOF):
		m.err = badFile(m.path, fmt.Errorf("it ends after %d lines: the entries give more", m.lines.n))
	case err != nil:
		m.err = &badLine{m.path, m.lines.n, err}
	case !bytes.Equal(got, want):
		m.err = &badLine{m.path, m.lines.n, errDiffers}
	}
}

// finish returns the first difference; lines that are left over are one.
func (m *lineMatcher) finish() error {
	if m.err != nil {
		return m.err
	}
	if _, err := m.lines.next(); !errors.Is(err, io.EOF) {
		return &badLine{m.path, m.lines.n, errors.New("the entries give no such line")}
	}
	return nil
}

// logMatcher reads log lines back into the segments that they were made from.
// Records must give the digest that the ledger names; encoded again, they must
// give the same lines.
type logMatcher struct {
	lines   *lineReader
	done    func()
	logs    *telemetry.Logs
	pending [][]byte // lines that were read and not yet encoded again
	records []telemetry.Record
	found   int64 // attempts
	hidden  int   // segments that the manifest withholds
	err     error
}

func newLogMatcher(siteID string, lines *lineReader, done func()) *logMatcher {
	m := &logMatcher{lines: lines, done: done}
	m.logs = telemetry.NewLogs(siteID, func(line []byte) error {
		if len(m.pending) == 0 || !bytes.Equal(m.pending[0], line) {
			return errDiffers
		}
		m.pending = m.pending[1:]
		return nil
	})
	return m
}

// attempt takes the next attempt of the window that has a segment.
func (m *logMatcher) attempt(e ledger.Envelope, end *ledger.AttemptEnd, withheld map[int64]Withheld) {
	if m.err != nil {
		return
	}
	if w, ok := withheld[e.Seq]; ok && w.SHA256 == end.Logs.SHA256 {
		m.hidden++
		return
	}
	m.found++
	err := m.logs.Attempt(e, end, m.segment(*end.Logs))
	if err != nil {
		m.err = &badLine{logsPath, m.lines.n, fmt.Errorf("output of attempt %d of %s in %s: %w", e.Attempt, e.StepID, e.RunID, err)}
	}
}

// segment yields the records of one segment and compares its digest.
func (m *logMatcher) segment(ref ledger.LogRef) iter.Seq2[telemetry.Record, error] {
	return func(yield func(telemetry.Record, error) bool) {
		sum, size := sha256.New(), int64(0)
		for range ref.Records {
			r, err := m.next()
			var line []byte
			if err == nil {
				line, err = r.Line()
			}
			if err != nil {
				yield(telemetry.Record{}, err)
				return
			}
			sum.Write(line)
			size += int64(len(line))
			if !yield(r, nil) {
				return
			}
		}
		if size != ref.Bytes || hex.EncodeToString(sum.Sum(nil)) != ref.SHA256 {
			yield(telemetry.Record{}, errors.New("the records do not give the segment that the ledger names"))
		}
	}
}

// next is the next record. It reads a line when it has none left: there is
// never more than one line ahead of the one that is being encoded again.
func (m *logMatcher) next() (telemetry.Record, error) {
	if len(m.records) == 0 {
		if len(m.pending) > 1 {
			return telemetry.Record{}, errDiffers
		}
		line, err := m.lines.next()
		if errors.Is(err, io.EOF) {
			err = errors.New("there are no more lines")
		}
		if err == nil {
			m.pending = append(m.pending, bytes.Clone(line))
			m.records, err = telemetry.DecodeLogs(line)
		}
		if err == nil && len(m.records) == 0 {
			err = errDiffers
		}
		if err != nil {
			return telemetry.Record{}, err
		}
	}
	r := m.records[0]
	m.records = m.records[1:]
	return r, nil
}

func (m *logMatcher) finish() error {
	if m.err != nil {
		return m.err
	}
	if _, err := m.lines.next(); !errors.Is(err, io.EOF) {
		return &badLine{logsPath, m.lines.n, errors.New("the ledger names no such output")}
	}
	return nil
}
