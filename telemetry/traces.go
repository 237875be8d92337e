package telemetry

import (
	"fmt"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Names of spans.
const (
	spanRun      = "orchestrator.run"
	spanStep     = "orchestrator.step"
	spanAttempt  = "attempt"
	spanApproval = "approval"
	spanVerify   = "verify"
)

// Spans writes OTLP trace lines, one span a line, each when its ledger entry
// ends it. Ids derive from runId, stepId and attempt, so that whoever has the
// ledger gets the same trace. Data that was withheld costs attributes, never a
// span. It is not safe for concurrent use.
type Spans struct {
	siteID string
	emit   func(line []byte) error
	enc    ptrace.JSONMarshaler
}

// NewSpans writes to emit, which gets each line without its line feed.
func NewSpans(siteID string, emit func(line []byte) error) *Spans {
	return &Spans{siteID: siteID, emit: emit}
}

// Verify writes the span of one judgement at the door, if c is one.
func (s *Spans) Verify(c state.Change) error {
	e := c.Envelope
	if e.Type != ledger.BundleAdmitted && e.Type != ledger.BundleRejected {
		return nil
	}
	sp := s.begin(spanVerify, e, e.Time)
	sp.span.SetSpanID(spanID("verify", s.siteID, fmt.Sprint(e.Seq)))
	a := sp.span.Attributes()
	switch d := c.Data.(type) {
	case *ledger.BundleAdmission:
		v := d.Verdict
		// The judgement began at the clock that it used; recorded time may not.
		if v.Now != "" && v.Now < e.Time {
			sp.span.SetStartTimestamp(timestamp(v.Now))
		}
		putStr(a, "status", v.Decision)
		putStr(a, "kind", v.Kind)
		putStr(a, "publisher", v.Publisher)
		putStr(a, "name", v.Name)
		putStr(a, "version", v.Version)
		putStr(a, "digest", v.Digest)
		sp.span.Status().SetCode(ptrace.StatusCodeOk)
	case *ledger.BundleRejection:
		putStr(a, "status", "rejected")
		putStr(a, "reason", d.Reason)
		putStr(a, "digest", d.Digest)
		sp.fail(d.Reason)
	}
	return s.end(sp, e)
}

// Run writes the spans of one run that ended at first or later. changes are all
// entries of the run, from its first one on, in order.
func (s *Spans) Run(changes []state.Change, first int64) error {
	return walkRun(changes, func(m moment) error {
		if m.Envelope.Seq < first {
			return nil
		}
		switch {
		case m.isRunEnd():
			return s.runSpan(m)
		case m.isStepEnd():
			return s.stepSpan(m)
		case m.isAttemptEnd():
			return s.attemptSpan(m)
		case m.isApprovalEnd():
			return s.approvalSpan(m)
		}
		return nil
	})
}

func (s *Spans) runSpan(m moment) error {
	sp := s.begin(spanRun, m.run.start, m.run.start.Time)
	sp.span.SetSpanID(runSpanID(m.Envelope))
	a := sp.span.Attributes()
	putStr(a, "dagVersion", m.run.start.DAGVersion)
	putStr(a, "status", m.status())
	putStr(a, "actor", m.run.start.Actor)
	if d, ok := m.run.data.(*ledger.RunStart); ok {
		putStr(a, "planHash", d.PlanHash)
		putStr(a, "inputsHash", d.InputsHash)
		putStr(a, "parentRunId", d.Parent)
	}
	a.PutInt("retries", m.run.retries)
	if d, ok := m.Data.(*ledger.RunEnd); ok {
		putStr(a, "errorCode", d.FailureReason)
		putStr(a, "failedStep", d.FailedStep)
		putStr(a, "outputsHash", d.OutputsHash)
		sp.judge(m.Envelope.Type, d.FailureReason)
	} else {
		sp.judge(m.Envelope.Type, "")
	}
	for _, c := range m.run.events {
		sp.event(c)
	}
	return s.end(sp, m.Envelope)
}

func (s *Spans) stepSpan(m moment) error {
	from := m.step.firstQueued
	if from == "" {
		from = m.Envelope.Time // never queued: skipped, cancelled or failed where it stood
	}
	sp := s.begin(spanStep, m.run.start, from)
	sp.span.SetSpanID(stepSpanID(m.Envelope))
	sp.span.SetParentSpanID(runSpanID(m.Envelope))
	a := sp.span.Attributes()
	putStr(a, "stepId", m.Envelope.StepID)
	putStr(a, "status", m.status())
	a.PutInt("attempts", m.step.attempts)
	a.PutInt("retries", m.step.retries)
	if d, ok := m.Data.(*ledger.StepEnd); ok {
		putStr(a, "errorCode", d.ErrorCode)
		putStr(a, "reason", d.Reason)
		putStr(a, "outputsHash", d.OutputsHash)
		sp.judge(m.Envelope.Type, d.ErrorCode)
	} else {
		sp.judge(m.Envelope.Type, "")
	}
	for _, c := range m.step.events {
		sp.event(c)
	}
	return s.end(sp, m.Envelope)
}

func (s *Spans) attemptSpan(m moment) error {
	sp := s.begin(spanAttempt, m.run.start, m.step.started.Time)
	sp.span.SetSpanID(attemptSpanID(m.Envelope))
	sp.span.SetParentSpanID(stepSpanID(m.Envelope))
	a := sp.span.Attributes()
	putStr(a, "stepId", m.Envelope.StepID)
	a.PutInt("attempt", int64(m.Envelope.Attempt))
	a.PutInt("queueMs", m.step.waited.Milliseconds())
	if d, ok := m.step.startData.(*ledger.AttemptStart); ok {
		putStr(a, "tier", d.Tier)
		putStr(a, "plugin", d.Plugin)
		putLocks(a, d.Locks, m.step.started.Seq)
	}
	if d, ok := m.Data.(*ledger.AttemptEnd); ok {
		putStr(a, "status", d.Outcome)
		putStr(a, "errorCode", d.ErrorCode)
		putStr(a, "signal", d.Signal)
		if d.ExitCode != nil {
			a.PutInt("exitCode", int64(*d.ExitCode))
		}
		if d.Retryable {
			a.PutBool("retryable", true)
		}
		switch state.Outcome(d.Outcome) {
		case state.Succeeded:
			sp.span.Status().SetCode(ptrace.StatusCodeOk)
		case state.OutcomeCancelled, state.Interrupted: // being stopped is not failing
		default:
			sp.fail(d.ErrorCode)
		}
	}
	return s.end(sp, m.Envelope)
}

// maxLocks bounds the locks that the span of an attempt names.
const maxLocks = 16

// putLocks adds the locks and semaphores that an attempt held, under the number of its fence.
func putLocks(a pcommon.Map, locks []ledger.Lock, fence int64) {
	if len(locks) == 0 {
		return
	}
	a.PutInt("fence", fence)
	list := a.PutEmptySlice("locks")
	for _, l := range locks[:min(len(locks), maxLocks)] {
		list.AppendEmpty().SetStr(cut(l.Kind+" "+l.Name, maxAttr))
	}
}

// approvalSpan is the time that people were waited for.
func (s *Spans) approvalSpan(m moment) error {
	asked := m.step.asked.Envelope
	sp := s.begin(spanApproval, m.run.start, asked.Time)
	sp.span.SetSpanID(spanID("approval", m.Envelope.RunID, m.Envelope.StepID, fmt.Sprint(asked.Seq)))
	sp.span.SetParentSpanID(stepSpanID(m.Envelope))
	a := sp.span.Attributes()
	putStr(a, "stepId", m.Envelope.StepID)
	a.PutInt("attempt", int64(m.Envelope.Attempt))
	if d, ok := m.step.asked.Data.(*ledger.ApprovalRequest); ok {
		a.PutInt("quorum", int64(d.Quorum))
	}
	if d, ok := m.Data.(*ledger.ApprovalClosing); ok {
		putStr(a, "status", d.Result)
		putStr(a, "decision", d.Decision)
		putStr(a, "backTo", d.BackTo)
		if d.Result == state.ApprovalApproved {
			sp.span.Status().SetCode(ptrace.StatusCodeOk)
		}
	}
	for _, c := range m.step.decided {
		sp.event(c)
	}
	return s.end(sp, m.Envelope)
}

// openSpan is a line in the making: one span in its resource and scope.
type openSpan struct {
	line ptrace.Traces
	span ptrace.Span
}

// begin opens a span with what all have; e gives trace, tenant and names.
func (s *Spans) begin(name string, e ledger.Envelope, from string) openSpan {
	line := ptrace.NewTraces()
	resource := line.ResourceSpans().AppendEmpty()
	describe(resource.Resource(), s.siteID)
	scope := resource.ScopeSpans().AppendEmpty()
	scope.Scope().SetName(scopeName)
	span := scope.Spans().AppendEmpty()
	span.SetName(name)
	span.SetKind(ptrace.SpanKindInternal)
	span.SetTraceID(traceID(s.siteID, e))
	span.SetStartTimestamp(timestamp(from))
	a := span.Attributes()
	putStr(a, "tenant", e.Tenant)
	putStr(a, "dagId", e.DAGID)
	putStr(a, "runId", e.RunID)
	return openSpan{line: line, span: span}
}

// end closes the span at the entry e and writes its line.
func (s *Spans) end(sp openSpan, e ledger.Envelope) error {
	sp.span.SetEndTimestamp(timestamp(e.Time))
	sp.span.Attributes().PutInt("seq", e.Seq)
	line, err := s.enc.MarshalTraces(sp.line)
	if err != nil {
		return fmt.Errorf("telemetry: encode a span: %w", err)
	}
	return emitLine(s.emit, line)
}

// event adds one entry to the span, unless it is full.
func (sp openSpan) event(c state.Change) {
	if sp.span.Events().Len() == maxSpanEvents {
		sp.span.SetDroppedEventsCount(sp.span.DroppedEventsCount() + 1)
		return
	}
	ev := sp.span.Events().AppendEmpty()
	ev.SetName(string(c.Envelope.Type))
	ev.SetTimestamp(timestamp(c.Envelope.Time))
	a := ev.Attributes()
	switch d := c.Data.(type) {
	case *ledger.StepQueue:
		putStr(a, "reason", d.Reason)
		putStr(a, "due", d.Due)
	case *ledger.ApprovalDecision:
		putStr(a, "decision", d.Decision)
		putStr(a, "actor", c.Envelope.Actor)
	case *ledger.Note:
		putStr(a, "reason", d.Reason)
		putStr(a, "actor", c.Envelope.Actor)
	}
	a.PutInt("seq", c.Envelope.Seq)
}

// judge sets the status that the end of a run or step stands for. What people
// or conditions kept from happening is neither good nor bad.
func (sp openSpan) judge(t ledger.Type, code string) {
	switch t {
	case ledger.RunCompleted, ledger.StepCompleted:
		sp.span.Status().SetCode(ptrace.StatusCodeOk)
	case ledger.RunFailed, ledger.StepFailed:
		sp.fail(code)
	}
}

func (sp openSpan) fail(code string) {
	sp.span.Status().SetCode(ptrace.StatusCodeError)
	sp.span.Status().SetMessage(cut(code, maxAttr))
}

func runSpanID(e ledger.Envelope) pcommon.SpanID { return spanID("run", e.RunID) }

func stepSpanID(e ledger.Envelope) pcommon.SpanID { return spanID("step", e.RunID, e.StepID) }

// between is the time from a to b; 0 if either is absent or b is earlier.
func between(a, b string) time.Duration {
	x, err := stamp.Parse(a)
	if err != nil {
		return 0
	}
	y, err := stamp.Parse(b)
	if err != nil {
		return 0
	}
	return max(0, y.Sub(x))
}
