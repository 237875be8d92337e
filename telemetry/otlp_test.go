package telemetry_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"pgregory.net/rapid"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/telemetry"
)

var update = flag.Bool("update", false, "write the golden files")

// The derivation is a format: another byte needs another telemetry.Schema.
func TestGolden(t *testing.T) {
	s := twoRuns()
	for name, lines := range map[string][]string{
		"traces.jsonl":  traces(t, s, 0),
		"metrics.jsonl": metrics(t, s, 0),
		"logs.jsonl":    logs(t, attempt(s), records("plain", "tab\there", "\x00 \u2028 \U0001F600 <&>", "")),
	} {
		got := strings.Join(lines, "\n") + "\n"
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A collector must see all that was written: a field that it does not know
// would be dropped in silence.
func TestLinesSurviveThePdataReader(t *testing.T) {
	s := twoRuns()
	again := map[string]func(line []byte) ([]byte, error){
		"traces": func(line []byte) ([]byte, error) {
			td, err := (&ptrace.JSONUnmarshaler{DisallowUnknownFields: true}).UnmarshalTraces(line)
			if err != nil {
				return nil, err
			}
			return (&ptrace.JSONMarshaler{}).MarshalTraces(td)
		},
		"metrics": func(line []byte) ([]byte, error) {
			md, err := (&pmetric.JSONUnmarshaler{DisallowUnknownFields: true}).UnmarshalMetrics(line)
			if err != nil {
				return nil, err
			}
			return (&pmetric.JSONMarshaler{}).MarshalMetrics(md)
		},
		"logs": func(line []byte) ([]byte, error) {
			ld, err := (&plog.JSONUnmarshaler{DisallowUnknownFields: true}).UnmarshalLogs(line)
			if err != nil {
				return nil, err
			}
			return (&plog.JSONMarshaler{}).MarshalLogs(ld)
		},
	}
	for name, lines := range map[string][]string{
		"traces": traces(t, s, 0), "metrics": metrics(t, s, 0), "logs": logs(t, attempt(s), records("a", "\x1b[31m\u2029", "")),
	} {
		if len(lines) == 0 {
			t.Fatalf("%s: no lines to read", name)
		}
		for i, line := range lines {
			got, err := again[name]([]byte(line))
			if err != nil {
				t.Fatalf("%s line %d: %v\n%s", name, i, err, line)
			}
			if string(got) != line {
				t.Errorf("%s line %d came back different\n got %s\nwant %s", name, i, got, line)
			}
		}
	}
}

func spansOf(t *testing.T, lines []string) []ptrace.Span {
	t.Helper()
	var out []ptrace.Span
	for _, line := range lines {
		td, err := (&ptrace.JSONUnmarshaler{}).UnmarshalTraces([]byte(line))
		if err != nil || td.SpanCount() != 1 {
			t.Fatalf("a line with %d spans (%v): %s", td.SpanCount(), err, line)
		}
		out = append(out, td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0))
	}
	return out
}

func TestSpansFormOneTreeForARun(t *testing.T) {
	spans := spansOf(t, traces(t, twoRuns(), 0))
	ids := map[string]string{}
	for _, sp := range spans {
		if old, twice := ids[sp.SpanID().String()]; twice {
			t.Errorf("%s and %s have one id", old, sp.Name())
		}
		ids[sp.SpanID().String()] = sp.Name()
	}
	parents := map[string]string{"orchestrator.step": "orchestrator.run", "attempt": "orchestrator.step"}
	for _, sp := range spans {
		if got, want := ids[sp.ParentSpanID().String()], parents[sp.Name()]; got != want {
			t.Errorf("%s: parent %q, want %q", sp.Name(), got, want)
		}
		if sp.EndTimestamp() < sp.StartTimestamp() || sp.StartTimestamp() == 0 {
			t.Errorf("%s runs from %d to %d", sp.Name(), sp.StartTimestamp(), sp.EndTimestamp())
		}
		if id, ok := sp.Attributes().Get("runId"); ok && id.Str() == runA && sp.TraceID().String() != "4bf92f3577b34da6a3ce929d0e0e4736" {
			t.Errorf("%s of %s is in trace %s", sp.Name(), runA, sp.TraceID())
		}
	}
}

func TestSpansShowQueueingAndRetries(t *testing.T) {
	for _, sp := range spansOf(t, traces(t, twoRuns(), 0)) {
		id, _ := sp.Attributes().Get("stepId")
		switch {
		case sp.Name() == "orchestrator.step" && id.Str() == "match":
			if retries, _ := sp.Attributes().Get("retries"); retries.Int() != 1 || sp.Events().Len() != 2 {
				t.Errorf("step: %d retries and %d events, want 1 and 2", retries.Int(), sp.Events().Len())
			}
			if sp.Status().Code() != ptrace.StatusCodeError || sp.Status().Message() != "STEP_CRASHED" {
				t.Errorf("step: status %v %q", sp.Status().Code(), sp.Status().Message())
			}
		case sp.Name() == "attempt":
			// The second was due 1.5 s after it was queued and started 3 s after.
			n, _ := sp.Attributes().Get("attempt")
			queue, _ := sp.Attributes().Get("queueMs")
			if want := map[int64]int64{1: 1000, 2: 1500}[n.Int()]; queue.Int() != want {
				t.Errorf("attempt %d waited %d ms, want %d", n.Int(), queue.Int(), want)
			}
		}
	}
}

// Consecutive windows carry every span once, and their counters add up.
func TestWindowsMeet(t *testing.T) {
	s := twoRuns()
	all := traces(t, s, 0)
	for cut := int64(0); cut <= s.seq; cut++ {
		later := traces(t, s, cut)
		early := &story{at: s.at, seq: cut, changes: s.changes[:cut]}
		if got := len(traces(t, early, 0)) + len(later); got != len(all) {
			t.Errorf("windows that meet at %d carry %d spans, want %d", cut, got, len(all))
		}
		for _, line := range later {
			if !contains(all, line) {
				t.Errorf("a span depends on the window's start %d: %s", cut, line)
			}
		}
		if got, want := total(t, metrics(t, early, 0))+total(t, metrics(t, s, cut)), total(t, metrics(t, s, 0)); got != want {
			t.Errorf("windows that meet at %d count %d, want %d", cut, got, want)
		}
	}
}

func contains(lines []string, line string) bool {
	for _, l := range lines {
		if l == line {
			return true
		}
	}
	return false
}

// total sums every counter and every histogram's count.
func total(t *testing.T, lines []string) (n int64) {
	t.Helper()
	for _, line := range lines {
		md, err := (&pmetric.JSONUnmarshaler{}).UnmarshalMetrics([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		m := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0)
		switch m.Type() {
		case pmetric.MetricTypeSum:
			for _, p := range m.Sum().DataPoints().All() {
				n += p.IntValue()
			}
		case pmetric.MetricTypeHistogram:
			for _, p := range m.Histogram().DataPoints().All() {
				n += int64(p.Count())
			}
		}
	}
	return n
}

func TestWithheldDataCostsNoSpan(t *testing.T) {
	s := twoRuns()
	want := len(traces(t, s, 0))
	for i := range s.changes {
		s.changes[i].Data = nil
	}
	if got := len(traces(t, s, 0)); got != want {
		t.Errorf("%d spans without data, want %d", got, want)
	}
	if len(metrics(t, s, 0)) == 0 {
		t.Error("no metrics without data")
	}
}

// Whatever a caller wrote into reasons, a collector can read the line.
func TestLinesStayBelowTheLimit(t *testing.T) {
	s := newStory()
	evil := strings.Repeat("\x01", 60<<10)
	e := ledger.Envelope{Type: ledger.RunStarted, Actor: evil, Tenant: "t", RunID: runA, DAGID: evil}
	s.add(e, &ledger.RunStart{Parent: evil})
	for range 1000 {
		e.Type = ledger.RunCancelRequested
		s.add(e, &ledger.Note{Reason: evil})
		e.Type, e.StepID = ledger.StepQueued, "a"
		s.add(e, &ledger.StepQueue{Reason: evil, Due: evil})
		e.StepID = ""
	}
	e.Type = ledger.RunFailed
	s.add(e, &ledger.RunEnd{FailureReason: evil})
	lines := append(traces(t, s, 0), metrics(t, s, 0)...)
	if len(lines) == 0 {
		t.Fatal("no lines")
	}
	texts := make([]string, 600)
	for i := range texts {
		texts[i] = strings.Repeat("\x01", i*i%(telemetry.MaxText+1))
	}
	for _, line := range append(lines, logs(t, attempt(twoRuns()), records(texts...))...) {
		if len(line) > telemetry.MaxLine {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	sp := spansOf(t, traces(t, s, 0))[0]
	if got := sp.Events().Len() + int(sp.DroppedEventsCount()); got != 1000 || sp.DroppedEventsCount() == 0 {
		t.Errorf("%d events, %d of them dropped; want 1000 and some", got, sp.DroppedEventsCount())
	}
}

func TestDecodeLogsGivesBackTheRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(rapid.String(), 1, 600).Draw(t, "texts")
		emit, lines := collect()
		err := telemetry.NewLogs(siteID, emit).Attempt(attempt(twoRuns()), &ledger.AttemptEnd{}, records(texts...))
		if err != nil {
			t.Fatal(err)
		}
		var got, want []telemetry.Record
		for _, line := range *lines {
			recs, err := telemetry.DecodeLogs([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, recs...)
		}
		for r := range records(texts...) {
			want = append(want, r)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// Entries that no machine allows must not take the derivation down: an archive
// is judged by comparing, and judging must end.
func TestAnyEntriesAreTaken(t *testing.T) {
	types := []ledger.Type{
		ledger.RunStarted, ledger.RunCompleted, ledger.RunFailed, ledger.StepQueued, ledger.StepSkipped,
		ledger.AttemptStarted, ledger.AttemptEnded, ledger.RunCancelRequested, ledger.BundleAdmitted, "nonsense",
	}
	datas := []any{
		nil, &ledger.RunStart{}, &ledger.RunEnd{}, &ledger.StepQueue{Reason: "retry", Due: "x"}, &ledger.AttemptEnd{},
		&ledger.AttemptStart{}, &ledger.Note{}, &ledger.BundleAdmission{},
	}
	rapid.Check(t, func(t *rapid.T) {
		var changes []state.Change
		for range rapid.IntRange(0, 8).Draw(t, "n") {
			changes = append(changes, state.Change{
				Envelope: ledger.Envelope{
					Type: rapid.SampledFrom(types).Draw(t, "type"), StepID: rapid.SampledFrom([]string{"", "a"}).Draw(t, "step"),
					Time: rapid.SampledFrom([]string{"", "2026-11-22T09:00:00.000000000Z", "0001-01-01T00:00:00.000000000Z"}).Draw(t, "time"),
				},
				Data: rapid.SampledFrom(datas).Draw(t, "data"),
			})
		}
		emit, _ := collect()
		if err := telemetry.NewSpans(siteID, emit).Run(changes, 0); err != nil {
			t.Fatal(err)
		}
		m := telemetry.NewMetrics(siteID, newStory().at, newStory().at)
		if err := m.Run(changes, 0); err != nil {
			t.Fatal(err)
		}
		if err := m.Lines(emit); err != nil {
			t.Fatal(err)
		}
	})
}
