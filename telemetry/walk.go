package telemetry

import (
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// moment is one entry of a run with what came before it. Everything that spans
// and metrics need comes from envelopes, so that they survive withheld data.
type moment struct {
	state.Change
	run  *runPast
	step *stepPast // nil for entries of the run itself
}

// runPast is what is known of a run so far.
type runPast struct {
	start   ledger.Envelope // its first entry
	data    any             // of start
	began   string          // when its first attempt started
	retries int64
	events  []state.Change // cancel requests, resumptions
}

// stepPast is what is known of a step so far.
type stepPast struct {
	firstQueued string
	ready       string // when it could have been claimed: queued and due
	began       string // when its first attempt started
	started     ledger.Envelope
	startData   any
	waited      time.Duration // from ready to started
	attempts    int64
	retries     int64
	events      []state.Change // each time it was queued
	asked       state.Change   // the request for the approval that is open, or was last
	decided     []state.Change // what people said to that
}

// walkRun calls see for each entry of a run in order, after it was counted.
func walkRun(changes []state.Change, see func(moment) error) error {
	run := &runPast{}
	steps := map[string]*stepPast{}
	for i, c := range changes {
		if i == 0 {
			run.start, run.data = c.Envelope, c.Data
		}
		m := moment{Change: c, run: run}
		if id := c.Envelope.StepID; id != "" {
			if steps[id] == nil {
				steps[id] = &stepPast{}
			}
			m.step = steps[id]
		}
		m.count()
		if err := see(m); err != nil {
			return err
		}
	}
	return nil
}

func (m moment) count() {
	e := m.Envelope
	switch {
	case e.Type == ledger.RunCancelRequested || e.Type == ledger.RunResumed || e.Type == ledger.RunTimedOut:
		m.run.events = append(m.run.events, m.Change)
	case m.step == nil:
	case e.Type == ledger.StepQueued:
		m.countQueue()
	case e.Type == ledger.ApprovalRequested:
		m.step.asked, m.step.decided = m.Change, nil
	case e.Type == ledger.ApprovalDecided:
		m.step.decided = append(m.step.decided, m.Change)
	case e.Type == ledger.AttemptStarted:
		if m.run.began == "" {
			m.run.began = e.Time
		}
		if m.step.began == "" {
			m.step.began = e.Time
		}
		m.step.started, m.step.startData = e, m.Data
		m.step.waited = between(m.step.ready, e.Time)
		m.step.attempts++
	}
}

func (m moment) countQueue() {
	at := m.Envelope.Time
	if m.step.firstQueued == "" {
		m.step.firstQueued = at
	}
	m.step.ready = at
	m.step.events = append(m.step.events, m.Change)
	if d, ok := m.Data.(*ledger.StepQueue); ok {
		m.step.ready = max(at, d.Due)
		if d.Reason == "retry" {
			m.step.retries++
			m.run.retries++
		}
	}
}

func (m moment) isRunEnd() bool {
	switch m.Envelope.Type {
	case ledger.RunCompleted, ledger.RunFailed, ledger.RunCancelled:
		return true
	}
	return false
}

func (m moment) isStepEnd() bool {
	if m.step == nil {
		return false
	}
	switch m.Envelope.Type {
	case ledger.StepCompleted, ledger.StepFailed, ledger.StepCancelled, ledger.StepSkipped:
		return true
	}
	return false
}

func (m moment) isAttemptEnd() bool {
	return m.step != nil && m.Envelope.Type == ledger.AttemptEnded
}

func (m moment) isApprovalEnd() bool {
	return m.step != nil && m.Envelope.Type == ledger.ApprovalClosed
}

// status is the status that an ending entry gives its run or step.
func (m moment) status() string {
	switch m.Envelope.Type {
	case ledger.RunCompleted, ledger.StepCompleted:
		return string(state.Completed)
	case ledger.RunFailed, ledger.StepFailed:
		return string(state.Failed)
	case ledger.RunCancelled, ledger.StepCancelled:
		return string(state.Cancelled)
	case ledger.StepSkipped:
		return string(state.Skipped)
	}
	return ""
}
