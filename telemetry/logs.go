package telemetry

import (
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

// How many records share a line. With the largest record, escaped, a line
// stays below MaxLine.
const (
	maxBatch     = 256      // records
	maxBatchText = 64 << 10 // bytes of text, unless one record alone has more
)

// Logs writes OTLP logs lines: the output of attempts, one log record a stored
// line. Lines never mix attempts. It is not safe for concurrent use.
type Logs struct {
	siteID string
	emit   func(line []byte) error
	enc    plog.JSONMarshaler
}

// NewLogs writes to emit, which gets each line without its line feed.
func NewLogs(siteID string, emit func(line []byte) error) *Logs {
	return &Logs{siteID: siteID, emit: emit}
}

// Attempt writes the records of the attempt that the entry e ended. Its error
// is that of records or of emit, or wraps [ErrTooLarge].
func (l *Logs) Attempt(e ledger.Envelope, end *ledger.AttemptEnd, records iter.Seq2[Record, error]) error {
	var batch plog.Logs
	var into plog.LogRecordSlice
	n, size := 0, 0
	for r, err := range records {
		if err != nil {
			return err
		}
		if n > 0 && (n == maxBatch || size+len(r.Text) > maxBatchText) {
			if err := l.flush(batch); err != nil {
				return err
			}
			n, size = 0, 0
		}
		if n == 0 {
			batch, into = l.begin()
		}
		l.record(into.AppendEmpty(), e, end, r)
		n, size = n+1, size+len(r.Text)
	}
	if n == 0 {
		return nil
	}
	return l.flush(batch)
}

func (l *Logs) begin() (plog.Logs, plog.LogRecordSlice) {
	batch := plog.NewLogs()
	resource := batch.ResourceLogs().AppendEmpty()
	describe(resource.Resource(), l.siteID)
	scope := resource.ScopeLogs().AppendEmpty()
	scope.Scope().SetName(scopeName)
	return batch, scope.LogRecords()
}

func (l *Logs) record(out plog.LogRecord, e ledger.Envelope, end *ledger.AttemptEnd, r Record) {
	t, err := stamp.Parse(r.Time)
	if err == nil {
		out.SetTimestamp(pcommon.NewTimestampFromTime(t))
	}
	id := traceID(l.siteID, e)
	out.SetTraceID(id)
	out.SetSpanID(attemptSpanID(e))
	out.Body().SetStr(r.Text)
	a := out.Attributes()
	putStr(a, "tenant", e.Tenant)
	putStr(a, "dagId", e.DAGID)
	putStr(a, "runId", e.RunID)
	putStr(a, "stepId", e.StepID)
	a.PutInt("attempt", int64(e.Attempt))
	putStr(a, "status", end.Outcome)
	putStr(a, "stream", r.Stream)
	a.PutInt("seq", r.Seq)
	putStr(a, "trace_id", id.String())
}

func (l *Logs) flush(batch plog.Logs) error {
	line, err := l.enc.MarshalLogs(batch)
	if err != nil {
		return fmt.Errorf("telemetry: encode logs: %w", err)
	}
	return emitLine(l.emit, line)
}

func emitLine(emit func([]byte) error, line []byte) error {
	if len(line) > MaxLine {
		return fmt.Errorf("%w: a line of %d bytes", ErrTooLarge, len(line))
	}
	return emit(line)
}

// logsLine is as much of a LogsData object as [DecodeLogs] needs.
type logsLine struct {
	ResourceLogs []struct {
		ScopeLogs []struct {
			LogRecords []struct {
				TimeUnixNano int64 `json:"timeUnixNano,string"`
				Body         anyValue
				Attributes   []struct {
					Key   string
					Value anyValue
				}
			}
		}
	}
}

type anyValue struct {
	StringValue string
	IntValue    int64 `json:",string"`
}

// DecodeLogs returns the records of one line that [Logs] wrote. Of other lines
// it returns what it recognises, or an error: whoever relies on the records
// encodes them again and compares the line.
func DecodeLogs(line []byte) ([]Record, error) {
	var in logsLine
	if err := json.Unmarshal(line, &in); err != nil {
		return nil, fmt.Errorf("telemetry: logs line: %w", err)
	}
	var out []Record
	for _, resource := range in.ResourceLogs {
		for _, scope := range resource.ScopeLogs {
			for _, rec := range scope.LogRecords {
				r := Record{Text: rec.Body.StringValue, Time: stamp.Format(time.Unix(0, rec.TimeUnixNano))}
				for _, a := range rec.Attributes {
					switch a.Key {
					case "stream":
						r.Stream = a.Value.StringValue
					case "seq":
						r.Seq = a.Value.IntValue
					}
				}
				out = append(out, r)
			}
		}
	}
	return out, nil
}

// Line is the record as it stands in a segment, line feed included. It refuses
// records that no segment holds.
func (r Record) Line() ([]byte, error) {
	if problem := r.check(); problem != "" {
		return nil, &SegmentError{Record: r.Seq, Problem: problem}
	}
	return r.line()
}
