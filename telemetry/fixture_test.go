package telemetry_test

import (
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/telemetry"
)

const siteID = "00112233445566778899aabbccddeeff"

// story collects entries as a ledger would, one second apart.
type story struct {
	at      time.Time
	seq     int64
	changes []state.Change
}

func newStory() *story {
	return &story{at: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)}
}

func (s *story) add(e ledger.Envelope, data any) *story {
	e.Seq, e.Time, e.V = s.seq, stamp.Format(s.at), 1
	s.seq++
	s.at = s.at.Add(time.Second)
	s.changes = append(s.changes, state.Change{Envelope: e, Data: data})
	return s
}

// wait lets time pass before the next entry.
func (s *story) wait(d time.Duration) *story {
	s.at = s.at.Add(d)
	return s
}

// of returns the entries of one run, or of the site for "".
func (s *story) of(runID string) []state.Change {
	var out []state.Change
	for _, c := range s.changes {
		if c.Envelope.RunID == runID {
			out = append(out, c)
		}
	}
	return out
}

const (
	runA = "0190b0a0-0000-7000-8000-00000000000a"
	runB = "0190b0a0-0000-7000-8000-00000000000b"
)

func exit(code int) *int { return &code }

// twoRuns is a story with everything that telemetry shows: admissions, a run
// that fails after a retry, and one that is cancelled while it waits.
func twoRuns() *story {
	s := newStory()
	site := func(t ledger.Type) ledger.Envelope { return ledger.Envelope{Type: t, Actor: "system:init"} }
	run := func(t ledger.Type) ledger.Envelope {
		return ledger.Envelope{
			Type: t, Actor: "uid:1000(ada)", Tenant: "default", RunID: runA, DAGID: "audit-nightly", DAGVersion: "1.2.3",
			TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
		}
	}
	step := func(t ledger.Type, id string, attempt int) ledger.Envelope {
		e := run(t)
		e.StepID, e.Attempt = id, attempt
		return e
	}
	s.add(site(ledger.SiteInitialized), &ledger.SiteInit{SiteID: siteID})
	s.add(site(ledger.BundleAdmitted), &ledger.BundleAdmission{Verdict: ledger.Verdict{
		Decision: "admitted", Kind: "plugin", Publisher: "acme", Name: "acme.match", Version: "1.0.0",
		Digest: fmt.Sprintf("%064x", 1), Now: "2026-11-22T09:00:00.250000000Z",
	}})
	s.add(site(ledger.BundleRejected), &ledger.BundleRejection{Reason: "SIGNER_UNKNOWN"})
	s.add(run(ledger.RunStarted), &ledger.RunStart{PlanHash: fmt.Sprintf("%064x", 2), InputsHash: fmt.Sprintf("%064x", 3), Steps: 2})
	s.add(step(ledger.StepQueued, "match", 0), &ledger.StepQueue{Reason: "ready"})
	s.add(step(ledger.AttemptStarted, "match", 1), &ledger.AttemptStart{Generation: 1, Tier: "landlock", Plugin: fmt.Sprintf("%064x", 1)})
	b := run(ledger.RunStarted)
	b.RunID, b.TraceID = runB, ""
	s.add(b, &ledger.RunStart{Steps: 1})
	s.add(step(ledger.AttemptEnded, "match", 1), &ledger.AttemptEnd{
		Generation: 1, Outcome: "failed", ErrorCode: "STEP_RETRYABLE", Retryable: true, ExitCode: exit(75),
	})
	s.add(step(ledger.StepQueued, "match", 0), &ledger.StepQueue{Reason: "retry", Due: stamp.Format(s.at.Add(1500 * time.Millisecond))})
	s.wait(2*time.Second).add(step(ledger.AttemptStarted, "match", 2), &ledger.AttemptStart{
		Generation: 1, Tier: "landlock", Locks: []ledger.Lock{{Kind: "lock", Name: "db", Weight: 1}},
	})
	s.add(step(ledger.AttemptEnded, "match", 2), &ledger.AttemptEnd{Generation: 1, Outcome: "crashed", ErrorCode: "STEP_CRASHED", Signal: "SIGSEGV"})
	s.add(step(ledger.ApprovalRequested, "sign", 1), &ledger.ApprovalRequest{Generation: 1, Question: "go on?", Quorum: 2})
	s.add(step(ledger.ApprovalDecided, "sign", 1), &ledger.ApprovalDecision{Decision: "continue", Notes: "looks right"})
	s.add(step(ledger.ApprovalClosed, "sign", 1), &ledger.ApprovalClosing{Result: "withdrawn"})
	s.add(step(ledger.StepFailed, "match", 0), &ledger.StepEnd{ErrorCode: "STEP_CRASHED"})
	s.add(step(ledger.StepSkipped, "report", 0), &ledger.StepEnd{ErrorCode: "UPSTREAM_FAILED"})
	s.add(run(ledger.RunFailed), &ledger.RunEnd{FailureReason: "STEP_CRASHED", FailedStep: "match"})
	b.Type = ledger.RunCancelRequested
	s.add(b, &ledger.Note{Reason: "not needed"})
	b.Type = ledger.RunCancelled
	s.add(b, &ledger.RunEnd{})
	return s
}

// collect returns an emit function and the lines that it got.
func collect() (func([]byte) error, *[]string) {
	lines := new([]string)
	return func(line []byte) error {
		*lines = append(*lines, string(line))
		return nil
	}, lines
}

// records is a sequence of lines of output.
func records(texts ...string) iter.Seq2[telemetry.Record, error] {
	return func(yield func(telemetry.Record, error) bool) {
		at := time.Date(2026, 11, 22, 9, 0, 5, 0, time.UTC)
		for i, text := range texts {
			r := telemetry.Record{Seq: int64(i), Stream: "stdout", Text: text, Time: stamp.Format(at.Add(time.Duration(i)))}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func traces(t *testing.T, s *story, first int64) []string {
	t.Helper()
	emit, lines := collect()
	spans := telemetry.NewSpans(siteID, emit)
	for _, c := range s.of("") {
		if c.Envelope.Seq < first {
			continue
		}
		if err := spans.Verify(c); err != nil {
			t.Fatalf("Verify(%d): %v", c.Envelope.Seq, err)
		}
	}
	for _, id := range []string{runA, runB} {
		if err := spans.Run(s.of(id), first); err != nil {
			t.Fatalf("Run(%s): %v", id, err)
		}
	}
	return *lines
}

func metrics(t *testing.T, s *story, first int64) []string {
	t.Helper()
	m := telemetry.NewMetrics(siteID, time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), s.at)
	for _, c := range s.changes {
		if c.Envelope.Seq < first {
			continue
		}
		if err := m.Entry(c); err != nil {
			t.Fatalf("Entry(%d): %v", c.Envelope.Seq, err)
		}
	}
	for _, id := range []string{runA, runB} {
		if err := m.Run(s.of(id), first); err != nil {
			t.Fatalf("Run(%s): %v", id, err)
		}
	}
	emit, lines := collect()
	if err := m.Lines(emit); err != nil {
		t.Fatalf("Lines: %v", err)
	}
	return *lines
}

func logs(t *testing.T, e ledger.Envelope, recs iter.Seq2[telemetry.Record, error]) []string {
	t.Helper()
	emit, lines := collect()
	if err := telemetry.NewLogs(siteID, emit).Attempt(e, &ledger.AttemptEnd{Outcome: "failed"}, recs); err != nil {
		t.Fatalf("Attempt: %v", err)
	}
	return *lines
}

// attempt is an envelope of an attempt that wrote output.
func attempt(s *story) ledger.Envelope {
	for _, c := range s.changes {
		if c.Envelope.Type == ledger.AttemptEnded {
			return c.Envelope
		}
	}
	panic("telemetry_test: the story has no attempt")
}
