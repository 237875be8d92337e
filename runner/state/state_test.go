package state_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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
			"approval.requested checkpoint_pending, step.invalidated pending, repeat.withdrawn pending",
		"queued": "attempt.started running, step.cancelled cancelled, step.failed failed, step.skipped skipped, step.cached running, " +
			"subrun.started running, step.queued queued, step.invalidated pending",
		"running": "attempt.ended running, subrun.ended running, step.queued queued, step.completed completed, step.failed failed, " +
			"step.cancelled cancelled, step.skipped skipped, approval.requested checkpoint_pending, step.invalidated pending",
		"checkpoint_pending": "approval.requested checkpoint_pending, approval.decided checkpoint_pending, approval.closed checkpoint_pending, step.completed completed, " +
			"step.failed failed, step.cancelled cancelled, step.skipped skipped, step.invalidated pending",
		"completed": "step.invalidated pending",
		"failed":    "step.invalidated pending, step.skipped skipped, repeat.withdrawn failed",
		"skipped":   "step.invalidated pending, repeat.withdrawn skipped, step.skipped skipped",
		"cancelled": "step.invalidated pending, repeat.withdrawn cancelled",
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
			case err == nil && to == from && (on == ledger.RunCompared || on == ledger.ApprovalRefused || on == ledger.RunAttested && from == state.Completed):
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

// data draws the data of an entry of any type that moves a run or a step.
func data(t *rapid.T, typ ledger.Type, generation int) any {
	draw := func(of ...string) string { return rapid.SampledFrom(of).Draw(t, "word") }
	switch typ {
	case ledger.RunStarted:
		return &ledger.RunStart{Steps: 2}
	case ledger.RunCancelRequested, ledger.RunAbortRequested, ledger.RunResumed, ledger.RunTimedOut:
		return &ledger.Note{Reason: "r"}
	case ledger.RunFailRequested:
		return &ledger.RunFailing{Code: "STALLED"}
	case ledger.RunReopened, ledger.RunReset:
		return &ledger.RunGeneration{Generation: generation + rapid.IntRange(0, 1).Draw(t, "more")}
	case ledger.RunStuck:
		return &ledger.Stuckness{Level: draw("warning", "stalled")}
	case ledger.RunNudged, ledger.RunRestarted:
		return &ledger.Nudge{}
	case ledger.RunCompared:
		return &ledger.RunComparison{}
	case ledger.RunAttested:
		return &ledger.RunAttestation{}
	case ledger.RunCompleted, ledger.RunFailed, ledger.RunCancelled:
		return &ledger.RunEnd{}
	case ledger.StepQueued:
		return &ledger.StepQueue{Reason: "ready"}
	case ledger.StepExpanded:
		return &ledger.StepExpansion{Items: "i", Count: rapid.IntRange(0, 3).Draw(t, "count")}
	case ledger.StepCached:
		return &ledger.CacheHit{Key: "k"}
	case ledger.RepeatWithdrawn:
		return &ledger.Note{Reason: "x"}
	case ledger.StepInvalidated:
		return &ledger.StepInvalidation{Reason: "retry", Overlay: draw("", "o")}
	case ledger.StepSkipped, ledger.StepCompleted, ledger.StepFailed, ledger.StepCancelled:
		return &ledger.StepEnd{Overridden: rapid.Bool().Draw(t, "overridden")}
	case ledger.SubrunStarted:
		return &ledger.SubrunStart{Generation: generation, RunID: draw("x", "x", "x", "y")}
	case ledger.SubrunEnded:
		return &ledger.SubrunEnd{RunID: draw("x", "x", "x", "y"), Status: draw("completed", "failed", "cancelled")}
	case ledger.ApprovalRequested:
		return &ledger.ApprovalRequest{Generation: generation, Quorum: 2}
	case ledger.ApprovalDecided:
		return &ledger.ApprovalDecision{Decision: draw("continue", "retry")}
	case ledger.ApprovalRefused:
		return &ledger.ApprovalRefusal{}
	case ledger.ApprovalClosed:
		return &ledger.ApprovalClosing{Result: draw(state.ApprovalApproved, state.ApprovalRejected, state.ApprovalExpired, state.ApprovalWithdrawn)}
	case ledger.AttemptStarted:
		return &ledger.AttemptStart{Generation: generation}
	case ledger.AttemptEnded:
		return &ledger.AttemptEnd{Generation: generation, Orderly: rapid.Bool().Draw(t, "orderly"), Outcome: draw(
			"succeeded", "failed", "interrupted", "infra", "cancelled", "timed_out")}
	}
	t.Fatalf("the test knows no data of %s", typ)
	return nil
}

// moving are the types of entries that concern a run.
func moving() []ledger.Type {
	var out []ledger.Type
	for _, typ := range types() {
		if prefix, _, _ := strings.Cut(string(typ), "."); slices.Contains([]string{"run", "step", "subrun", "approval", "attempt"}, prefix) {
			out = append(out, typ)
		}
	}
	return out
}

// Whatever comes, in whatever order: what is accepted keeps the invariants.
func TestRandomHistories(t *testing.T) {
	all, seen := moving(), map[ledger.Type]bool{}
	histories := func(t *rapid.T) {
		h := &history{steps: map[string]*state.Step{}, attempts: map[string]*state.Attempt{}, now: time.Unix(1e9, 0)}
		accepted := 0
		for range rapid.IntRange(150, 300).Draw(t, "entries") {
			c := h.draw(t, all)
			before := h.run
			if err := h.apply(c); err != nil {
				var illegal *state.TransitionError
				if !errors.As(err, &illegal) && h.run != nil {
					t.Fatalf("%s: %v", c.Envelope.Type, err)
				}
				continue
			}
			accepted++
			seen[c.Envelope.Type] = true
			checkMove(t, before, h.run, c)
			check(t, h)
		}
		if accepted > 0 && h.run.LastSeq != h.seq-1 {
			t.Fatalf("the run's last entry is %d, the history's %d", h.run.LastSeq, h.seq-1)
		}
	}
	for range 10 { // of a hundred none may have what is rare
		if rapid.Check(t, histories); t.Failed() || len(seen) == len(all) {
			break
		}
	}
	for _, typ := range all {
		if !seen[typ] {
			t.Errorf("no history had an entry %s that was accepted", typ)
		}
	}
}

// draw draws an entry; more often than not it is one that may come, with numbers
// that fit.
func (h *history) draw(t *rapid.T, all []ledger.Type) state.Change {
	id, generation, step := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "step"), 1, &state.Step{Status: state.Pending}
	if s := h.steps[id]; s != nil {
		step = s
	}
	if h.run != nil {
		generation = h.run.Generation
	}
	if rapid.IntRange(0, 9).Draw(t, "any") > 0 {
		all = h.fitting(all, step)
	}
	typ := rapid.SampledFrom(all).Draw(t, "type")
	c := state.Change{Envelope: ledger.Envelope{Type: typ, RunID: "r", Actor: rapid.SampledFrom([]string{"uid:1(a)", "uid:1(b)", "uid:2"}).Draw(t, "actor")}}
	if typ[:4] != "run." {
		c.Envelope.StepID = id
		c.Envelope.Attempt = step.Attempt + rapid.SampledFrom([]int{0, 0, 0, 0, 1, -1}).Draw(t, "attempt")
		switch typ {
		case ledger.AttemptStarted, ledger.SubrunStarted, ledger.StepExpanded, ledger.StepCached:
			c.Envelope.Attempt++
		}
	}
	c.Data = data(t, typ, generation+rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 1}).Draw(t, "generation"))
	return c
}

// fitting are the types that may come next, but for the ends of an open run.
func (h *history) fitting(all []ledger.Type, step *state.Step) []ledger.Type {
	if h.run == nil {
		return []ledger.Type{ledger.RunStarted}
	}
	var out []ledger.Type
	for _, typ := range all {
		_, err := state.NextRun(h.run.Status, typ)
		if err == nil && typ[:4] != "run." {
			_, err = state.NextStep(step.Status, typ)
		}
		if to, _ := state.NextRun(h.run.Status, typ); err == nil && to.Ended() == h.run.Status.Ended() {
			out = append(out, typ)
			if typ == ledger.SubrunStarted || typ == ledger.SubrunEnded { // which are rare otherwise
				out = append(out, typ, typ, typ)
			}
			if typ == ledger.SubrunEnded && step.Child != nil && step.Child.Status == "" {
				out = append(out, slices.Repeat([]ledger.Type{typ}, 8)...)
			}
		}
	}
	if len(out) == 0 {
		return all
	}
	return out
}

// checkMove holds one move of the run against what runs may do.
func checkMove(t *rapid.T, before, after *state.Run, c state.Change) {
	typ := c.Envelope.Type
	if before == nil {
		return
	}
	switch {
	case after.Generation < before.Generation || after.Generation > before.Generation+1:
		t.Fatalf("%s: generation %d follows %d", typ, after.Generation, before.Generation)
	case after.Generation > before.Generation && typ != ledger.RunReopened && typ != ledger.RunReset:
		t.Fatalf("%s makes a new generation", typ)
	case !before.Status.Ended():
	case typ == ledger.ApprovalRefused || typ == ledger.RunCompared || typ == ledger.RunAttested:
		if before.Status != after.Status {
			t.Fatalf("%s: a run that was %s is %s", typ, before.Status, after.Status)
		}
	case typ != ledger.RunReopened || before.Status != state.Failed:
		t.Fatalf("%s was accepted after the run was %s", typ, before.Status)
	}
}

func check(t *rapid.T, h *history) {
	counts, waiting := map[state.Status]int{}, 0
	for id, s := range h.steps {
		checkStep(t, h, id, s)
		if s.Status != state.Pending {
			counts[s.Status]++
		}
		if s.Approval != nil && s.Approval.Status == state.ApprovalPending {
			waiting++
		}
	}
	open := 0
	for _, a := range h.attempts {
		if a.End == nil {
			open++
		}
	}
	run := h.run
	if diff := cmp.Diff(counts, run.Counts, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("what the run counts (-steps +run):\n%s", diff)
	}
	switch {
	case run.Open != open || open > 0 && run.Status.Ended():
		t.Fatalf("the run is %s with %d open attempts, and counts %d", run.Status, open, run.Open)
	case run.Waiting != waiting || run.Status.Ended() && waiting > 0:
		t.Fatalf("the run is %s, %d approvals are open, it counts %d", run.Status, waiting, run.Waiting)
	case (run.Status == state.Checkpoint) != (waiting > 0):
		t.Fatalf("the run is %s, and %d approvals are open", run.Status, waiting)
	case run.Status.Ended() != (run.EndedUTC != ""):
		t.Fatalf("the run is %s, ended %q", run.Status, run.EndedUTC)
	case run.Items < 0:
		t.Fatalf("the run has %d items", run.Items)
	}
}

func checkStep(t *rapid.T, h *history, id string, s *state.Step) {
	open := 0
	for _, a := range h.attempts {
		if a.StepID == id && a.End == nil {
			open++
		}
		if a.StepID == id && a.Attempt > s.Attempt {
			t.Fatalf("step %s: attempt %d comes after the last, %d", id, a.Attempt, s.Attempt)
		}
	}
	asked := s.Approval != nil && s.Approval.Status == state.ApprovalPending
	switch {
	case s.Open != (open == 1) || open > 1:
		t.Fatalf("step %s: open is %v, and %d attempts are", id, s.Open, open)
	case s.Open && s.Status != state.Running:
		t.Fatalf("step %s is %s with an open attempt", id, s.Status)
	case asked && s.Status != state.CheckpointPending:
		t.Fatalf("step %s is %s, and people are asked", id, s.Status)
	case s.Failures+s.Interruptions+s.InfraFaults > s.Attempt:
		t.Fatalf("step %s: more faults than attempts: %+v", id, s)
	case s.Status.Ended() && s.EndedUTC == "":
		t.Fatalf("step %s ended at no time", id)
	case s.Status == state.Pending && (s.EndedUTC != "" || s.OutputsHash != "" || s.Failures > 0):
		t.Fatalf("step %s is pending, and yet %+v", id, s)
	}
	if asked && len(s.Approval.Decisions) > 1 && state.Person(s.Approval.Decisions[0].Actor) == state.Person(s.Approval.Decisions[1].Actor) {
		t.Fatalf("step %s: one person has decided twice: %+v", id, s.Approval.Decisions)
	}
}
