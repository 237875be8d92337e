// Package telemetry turns what a site recorded into what other tools read: log
// segments of attempts, and logs, metrics and traces as OTLP/JSON lines (one
// whole LogsData, MetricsData or TracesData object a line, as the OpenTelemetry
// file exporter specification has it). It derives everything from ledger
// entries and sealed log segments, reads no clock, no environment and no file
// of its own, and starts no goroutine: the same entries give the same bytes.
//
// It does not decide what is exported, and it does not look for secrets: a
// [Segment] applies the mask that its owner sets before anything is stored.
package telemetry

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

// Schema names the derivation of this package. It is an attribute of every
// resource; other output for the same entries needs another name.
const Schema = "stella.telemetry/1"

// MaxLine bounds an OTLP line, without its line feed: stock collectors read
// lines of up to 1 MiB.
const MaxLine = 1<<20 - 1

// ErrTooLarge is the error of input whose derived form would pass a limit of
// this package: a line over [MaxLine], or more than 100,000 series of metrics.
var ErrTooLarge = errors.New("telemetry: over a limit")

// Limits that keep every span below MaxLine, even if each byte of its text is
// a control character, which JSON writes as six.
const (
	maxAttr       = 256 // bytes of a text attribute; the rest is cut
	maxSpanEvents = 128 // events of one span; the others are counted
)

// describe writes the resource that every line shares.
func describe(r pcommon.Resource, siteID string) {
	a := r.Attributes()
	a.PutStr("service.name", "stella")
	a.PutStr("stella.site.id", siteID)
	a.PutStr("stella.schema", Schema)
}

// scopeName is the instrumentation scope of everything derived here.
const scopeName = "stella"

// putStr adds an attribute unless it is empty, cut to maxAttr bytes.
func putStr(a pcommon.Map, key, value string) {
	if value != "" {
		a.PutStr(key, cut(value, maxAttr))
	}
}

// cut returns the longest prefix of s that has at most n bytes and ends
// between two characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// timestamp reads a recorded time. Entries are checked before they come here:
// a time that cannot be read is the zero timestamp, which OTLP calls unknown.
func timestamp(s string) pcommon.Timestamp {
	t, err := stamp.Parse(s)
	if err != nil {
		return 0
	}
	return pcommon.NewTimestampFromTime(clamp(t))
}

// clamp moves a time that OTLP cannot carry, as nanoseconds since 1970 in 63
// bits, to the nearest one that it can: a machine without a battery wakes up
// anywhere.
func clamp(t time.Time) time.Time {
	if first := time.Unix(0, 0); t.Before(first) {
		return first
	}
	if last := time.Unix(0, math.MaxInt64); t.After(last) {
		return last
	}
	return t
}

// spanID derives the id of a span from the stable names of what it shows.
func spanID(names ...string) pcommon.SpanID {
	h := sha256.New()
	for _, n := range names {
		h.Write([]byte(n))
		h.Write([]byte{'\n'})
	}
	var id pcommon.SpanID
	copy(id[:], h.Sum(nil))
	return id
}

// attemptSpanID is the id of the span of one attempt.
func attemptSpanID(e ledger.Envelope) pcommon.SpanID {
	return spanID("attempt", e.RunID, e.StepID, strconv.Itoa(e.Attempt))
}

// traceID is the trace of an entry: its own, or, where it names none, one that
// is derived from the run, and for entries of the site from the entry.
func traceID(siteID string, e ledger.Envelope) pcommon.TraceID {
	var id pcommon.TraceID
	if raw, err := hex.DecodeString(e.TraceID); err == nil && len(raw) == len(id) {
		copy(id[:], raw)
		if !id.IsEmpty() {
			return id
		}
	}
	name := e.RunID
	if name == "" {
		name = strconv.FormatInt(e.Seq, 10)
	}
	sum := sha256.Sum256([]byte("trace\n" + siteID + "\n" + name + "\n"))
	copy(id[:], sum[:])
	return id
}
