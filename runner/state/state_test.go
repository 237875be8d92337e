package state_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

func statuses() []state.Status {
	return []state.Status{
		state.Planning, state.Running, state.Checkpoint, state.Completed, state.Failed, state.Cancelled,
		state.Pending, state.Queued, state.CheckpointPending, state.Skipped,
	}
}

func types() []ledger.Type {
	var out []ledger.Type
	for _, i := range ledger.Types() {
		out = append(out, i.Type)
	}
	return out
}

// moves lists, as "from + entry = to", what a machine allows.
func moves(next func(state.Status, ledger.Type) (state.Status, error)) map[string]bool {
	out := map[string]bool{}
	for _, from := range statuses() {
		for _, on := range types() {
			if to, err := next(from, on); err == nil {
				out[fmt.Sprintf("%s + %s = %s", from, on, to)] = true
			}
		}
	}
	return out
}

func TestStepsMoveOnlyLikeThis(t *testing.T) {
	want := map[string]bool{}
	for from, to := range map[string]string{
		"pending": "step.queued queued, step.skipped skipped, step.cancelled cancelled, step.failed failed, step.expanded running, " +
			"approval.requested checkpoint_pending",
		"queued": "attempt.started running, step.cancelled cancelled, step.failed failed, step.skipped skipped, step.cached running, " +
			"subrun.started running, step.queued queued, step.invalidated pending",
		"running": "attempt.ended running, subrun.ended running, step.queued queued, step.completed completed, step.failed failed, " +
			"step.cancelled cancelled, step.skipped skipped, approval.requested checkpoint_pending, step.invalidated pending",
		"checkpoint_pending": "approval.decided checkpoint_pending, approval.closed checkpoint_pending, step.completed completed, " +
			"step.failed failed, step.cancelled cancelled, step.skipped skipped, step.invalidated pending",
		"completed": "step.invalidated pending",
		"failed":    "step.invalidated pending, step.skipped skipped",
		"skipped":   "step.invalidated pending",
		"cancelled": "step.invalidated pending",
	} {
		for _, move := range strings.Split(to, ", ") {
			on, to, _ := strings.Cut(move, " ")
			want[from+" + "+on+" = "+to] = true
		}
	}
	for _, s := range statuses() { // a decision that comes too late is on record, and moves nothing
		want[fmt.Sprintf("%s + approval.refused = %s", s, s)] = true
	}
	if diff := cmp.Diff(want, moves(state.NextStep)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRunsThatEndedMoveNoMore(t *testing.T) {
	for _, from := range statuses() {
		for _, on := range types() {
			to, err := state.NextRun(from, on)
			var illegal *state.TransitionError
			switch {
			case err != nil && !errors.As(err, &illegal):
				t.Errorf("NextRun(%s, %s) = %v, want a TransitionError", from, on, err)
			case err != nil && to != from:
				t.Errorf("NextRun(%s, %s) = %s with an error", from, on, to)
			case err == nil && to == from && (on == ledger.RunCompared || on == ledger.ApprovalRefused):
			case err == nil && from == state.Failed && on == ledger.RunReopened:
			case err == nil && from.Ended():
				t.Errorf("a run that is %s moves to %s on %s", from, to, on)
			case err == nil && from == state.Running && to == state.Planning:
				t.Errorf("a run goes back to planning on %s", on)
			}
		}
	}
}

func TestEveryEndOfARunCanBeReached(t *testing.T) {
	reached := map[state.Status]bool{state.Planning: true}
	for range statuses() {
		for from := range reached {
			for _, on := range types() {
				if to, err := state.NextRun(from, on); err == nil {
					reached[to] = true
				}
			}
		}
	}
	for _, want := range []state.Status{state.Running, state.Completed, state.Failed, state.Cancelled} {
		if !reached[want] {
			t.Errorf("nothing leads to %s", want)
		}
	}
}

// history applies entries and keeps views like a store does.
type history struct {
	run      *state.Run
	steps    map[string]*state.Step
	attempts map[string]*state.Attempt
	seq      int64
	now      time.Time
}

func (h *history) apply(c state.Change) error {
	c.Envelope.Seq, c.Envelope.Time = h.seq, stamp.Format(h.now)
	key := fmt.Sprint(c.Envelope.StepID, c.Envelope.Attempt)
	v := state.View{Run: h.run, Step: h.steps[c.Envelope.StepID], Attempt: h.attempts[key]}
	before := v
	if err := state.Apply(&v, c); err != nil {
		if diff := cmp.Diff(before, v); diff != "" {
			return fmt.Errorf("a refused entry changed the view:\n%s", diff)
		}
		return err
	}
	h.run = v.Run
	if c.Envelope.StepID != "" {
		h.steps[c.Envelope.StepID] = v.Step
		if v.Attempt != nil {
			h.attempts[key] = v.Attempt
		}
	}
	h.seq++
	h.now = h.now.Add(time.Millisecond)
	return nil
}

func data(t *rapid.T, typ ledger.Type, generation int) any {
	switch typ {
	case ledger.RunStarted:
		return &ledger.RunStart{Steps: 2}
	case ledger.RunCancelRequested, ledger.RunResumed, ledger.RunTimedOut:
		return &ledger.Note{Reason: "r"}
	case ledger.RunCompleted, ledger.RunFailed, ledger.RunCancelled:
		return &ledger.RunEnd{}
	case ledger.StepQueued:
		return &ledger.StepQueue{Reason: "ready"}
	case ledger.AttemptStarted:
		return &ledger.AttemptStart{Generation: generation}
	case ledger.AttemptEnded:
		return &ledger.AttemptEnd{Generation: generation, Outcome: rapid.SampledFrom([]string{
			"succeeded", "failed", "interrupted", "infra", "cancelled", "timed_out",
		}).Draw(t, "outcome")}
	}
	return &ledger.StepEnd{}
}

// Whatever comes, in whatever order: what is accepted keeps the invariants.
func TestRandomHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &history{steps: map[string]*state.Step{}, attempts: map[string]*state.Attempt{}, now: time.Unix(1e9, 0)}
		all := []ledger.Type{
			ledger.RunStarted, ledger.RunCancelRequested, ledger.RunResumed, ledger.RunTimedOut, ledger.RunCompleted, ledger.RunFailed, ledger.RunCancelled,
			ledger.StepQueued, ledger.StepSkipped, ledger.StepCompleted, ledger.StepFailed, ledger.StepCancelled,
			ledger.AttemptStarted, ledger.AttemptEnded,
		}
		accepted := 0
		for range rapid.IntRange(1, 120).Draw(t, "entries") {
			typ := rapid.SampledFrom(all).Draw(t, "type")
			c := state.Change{Envelope: ledger.Envelope{Type: typ, RunID: "r", Actor: "a"}}
			if typ[:4] != "run." {
				c.Envelope.StepID = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "step")
			}
			if typ == ledger.AttemptStarted || typ == ledger.AttemptEnded {
				c.Envelope.Attempt = rapid.IntRange(1, 4).Draw(t, "attempt")
			}
			c.Data = data(t, typ, rapid.SampledFrom([]int{1, 1, 1, 2}).Draw(t, "generation"))
			wasEnded := h.run != nil && h.run.Status.Ended()
			if err := h.apply(c); err != nil {
				var illegal *state.TransitionError
				if !errors.As(err, &illegal) && h.run != nil {
					t.Fatalf("%s: %v", typ, err)
				}
				continue
			}
			accepted++
			if wasEnded {
				t.Fatalf("%s was accepted after the run had ended", typ)
			}
			check(t, h)
		}
		if accepted > 0 && h.run.LastSeq != h.seq-1 {
			t.Fatalf("the run's last entry is %d, the history's %d", h.run.LastSeq, h.seq-1)
		}
	})
}

func check(t *rapid.T, h *history) {
	for id, s := range h.steps {
		open := 0
		for _, a := range h.attempts {
			if a.StepID == id && a.End == nil {
				open++
			}
		}
		switch {
		case s.Open != (open == 1) || open > 1:
			t.Fatalf("step %s: open is %v, and %d attempts are", id, s.Open, open)
		case s.Open && s.Status != state.Running:
			t.Fatalf("step %s is %s with an open attempt", id, s.Status)
		case s.Failures+s.Interruptions+s.InfraFaults > s.Attempt:
			t.Fatalf("step %s: more faults than attempts: %+v", id, s)
		case s.Status.Ended() && s.EndedUTC == "":
			t.Fatalf("step %s ended at no time", id)
		}
	}
	open := 0
	for _, a := range h.attempts {
		if a.End == nil {
			open++
		}
	}
	if h.run.Open != open || open > 0 && h.run.Status.Ended() {
		t.Fatalf("the run is %s with %d open attempts, and counts %d", h.run.Status, open, h.run.Open)
	}
	if h.run.Status.Ended() != (h.run.EndedUTC != "") {
		t.Fatalf("the run is %s, ended %q", h.run.Status, h.run.EndedUTC)
	}
}
