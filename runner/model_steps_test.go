package runner_test

import (
	"errors"
	"fmt"
	"slices"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// add moves a step by an entry, if it may move so.
func (s *modelStep) add(r *modelRun, env ledger.Envelope, data any) error {
	switch env.Type {
	case ledger.StepInvalidated, ledger.RepeatWithdrawn, ledger.ApprovalClosed, ledger.ApprovalRefused:
	default:
		if s.stale {
			return fmt.Errorf("what it reads is done again, and it goes on")
		}
	}
	switch d := data.(type) {
	case *ledger.Note:
		if !s.again || !s.item {
			return fmt.Errorf("nothing was said that could be withdrawn")
		}
		s.again = false
		return nil
	case *ledger.StepQueue:
		return s.queue(r, d)
	case *ledger.AttemptStart:
		return s.start(r, env, d)
	case *ledger.AttemptEnd:
		return s.endAttempt(r, env, d)
	case *ledger.SubrunStart:
		return s.startChild(r, env, d)
	case *ledger.SubrunEnd:
		was := s.child
		s.child = ""
		if c := r.site.runs[d.RunID]; c.ended != "" && c.ended != state.Completed {
			s.below, s.once = c.dead(), c.once()
		}
		if d.Status != string(state.Completed) {
			s.failures++
		}
		return expect(was == d.RunID && s.status == state.Running, "its sub-run is %q", was)
	case *ledger.CacheHit:
		s.attempt++ // what people are asked about has a number of its own
		was := s.status
		s.status, s.outcome, r.begun = state.Running, state.Succeeded, true
		if err := expect(was == state.Queued && s.step.Cache != nil, "it is %s", was); err != nil {
			return err
		}
		return r.mayGoOn(s)
	case *ledger.StepExpansion:
		s.attempt++
		was, anew := s.status, s.anew
		s.status, s.count, s.anew = state.Running, d.Count, false
		for i, x := range r.items(s) {
			if anew && x.status == state.Completed {
				return fmt.Errorf("its item %d has completed with what it reads, and that was done again", i)
			}
		}
		if err := expect(was == state.Pending && s.step.ForEach != nil && !s.item, "it is %s", was); err != nil {
			return err
		}
		return r.mayBegin(s)
	case *ledger.StepInvalidation:
		return s.invalidate(r, env, d)
	case *ledger.StepEnd:
		return s.end(r, env, d)
	}
	return s.approval(r, env, data)
}

func (s *modelStep) queue(r *modelRun, d *ledger.StepQueue) error {
	was := s.status
	s.status, s.again = state.Queued, s.again || d.Repeat
	if d.Repeat != (d.Reason == "restart") {
		return fmt.Errorf("what it has done may be done twice: %v", d.Repeat)
	}
	if s.open || s.child != "" {
		return fmt.Errorf("something is under way with it")
	}
	switch d.Reason {
	case "ready":
		if was != state.Pending {
			return fmt.Errorf("it is %s", was)
		}
		if s.item { // its step was expanded when it could begin
			of, err := r.step(s.step.ID)
			return errors.Join(err, expect(of.status == state.Running && slices.Contains(r.items(of), s), "its step is %s, with %d items", of.status, of.count))
		}
		return r.mayBegin(s)
	case "nudge":
		return expect(was == state.Queued, "it is %s", was)
	case "retry", "infra":
		if d.Reason == "retry" && s.below != "" {
			return fmt.Errorf("its sub-run has a step that failed with %s", s.below)
		}
		if d.Reason == "retry" && s.once != "" {
			return fmt.Errorf("in its sub-run, step %s is not idempotent, and may have done something", s.once)
		}
		if d.Reason == "retry" && s.failures >= s.step.Retry.MaxAttempts {
			return fmt.Errorf("it has failed %d times", s.failures)
		}
		return expect(was == state.Running, "it is %s", was)
	case "interrupted", "restart":
		return expect(was == state.Running && s.outcome == state.Interrupted, "it is %s, its attempt %s", was, s.outcome)
	}
	return fmt.Errorf("no such reason: %s", d.Reason)
}

// mayGoOn says why a step that was queued may not be claimed any more.
func (r *modelRun) mayGoOn(s *modelStep) error {
	now, _ := r.failed()
	return expect(!r.aborted && !(s.ordinary && (r.stopping || now && r.dag.FailFast)), "the run is ending")
}

func (s *modelStep) start(r *modelRun, env ledger.Envelope, d *ledger.AttemptStart) error {
	was, last, again := s.status, s.outcome, s.again
	s.status, s.open, s.outcome, s.lost, r.begun = state.Running, true, "", false, true
	s.attempt++
	switch {
	case was != state.Queued:
		return fmt.Errorf("it is %s", was)
	case env.Attempt != s.attempt:
		return fmt.Errorf("it follows attempt %d", s.attempt-1)
	case d.Generation != r.generation:
		return fmt.Errorf("generation %d of %d", d.Generation, r.generation)
	case s.step.Action == "once" && leavesSomething(last) && !again:
		return fmt.Errorf("it is not idempotent, its last attempt %s, and nobody asked for another", last)
	}
	return r.mayGoOn(s)
}

func (s *modelStep) endAttempt(r *modelRun, env ledger.Envelope, d *ledger.AttemptEnd) error {
	was := s.open
	s.open, s.outcome, s.lost = false, state.Outcome(d.Outcome), d.ErrorCode == string(state.LockLost)
	s.again = s.again && (s.outcome == state.Infra || s.outcome == state.Rejected && d.Usage == nil) // it was not begun
	switch s.outcome {
	case state.Succeeded, state.Interrupted, state.Infra, state.OutcomeCancelled:
	default:
		s.failures++
	}
	return expect(was && env.Attempt == s.attempt && d.Generation == r.generation, "attempt %d, generation %d is under way: %v", s.attempt, r.generation, was)
}

func (s *modelStep) startChild(r *modelRun, env ledger.Envelope, d *ledger.SubrunStart) error {
	was, last, again := s.status, r.site.runs[s.last], s.again
	s.status, s.child, s.last, s.outcome, s.below, s.once, s.again, r.begun = state.Running, d.RunID, d.RunID, "", "", "", false, true
	s.attempt++
	switch {
	case last == nil || again:
	case last.ended == "":
		return fmt.Errorf("its last sub-run goes on, and nobody asked for another")
	case last.once() != "":
		return fmt.Errorf("in its last sub-run, step %s is not idempotent, and nobody asked for another", last.once())
	}
	if err := expect(was == state.Queued && env.Attempt == s.attempt && d.Generation == r.generation, "it is %s, attempt %d, generation %d", was, s.attempt, r.generation); err != nil {
		return err
	}
	return r.mayGoOn(s)
}

func (s *modelStep) invalidate(r *modelRun, env ledger.Envelope, d *ledger.StepInvalidation) error {
	if s.open || s.asked {
		return fmt.Errorf("something is under way with it")
	}
	if r.mends && (s.ordinary || d.Reason == state.Reopened) {
		return fmt.Errorf("the run was reopened for its cleanup alone")
	}
	was := s.status
	if person(env.Actor) && d.Reason != state.Reopened && d.Reason != state.Turn && !(was == state.Skipped && s.reason != state.SkippedByHand) {
		r.doneAgain(s.step.ID)
	}
	s.status, s.reason, s.failures, s.child, s.below, s.again, s.stale = state.Pending, "", 0, "", "", s.again || d.Repeat, false
	if was == state.Pending && !d.Repeat {
		return fmt.Errorf("it is pending")
	}
	return expect(person(env.Actor) || d.Reason == "retry" && s.item, "nobody asked for it")
}

// doneAgain is about what depends on a step, and has yet to begin or is under way.
func (r *modelRun) doneAgain(id string) {
	for _, list := range [][]manifests.Step{r.dag.Steps, r.dag.OnFailure, r.dag.OnCancel} {
		for i := range list {
			x, _ := r.step(list[i].ID)
			if slices.Contains(list[i].Needs, id) {
				x.anew = x.anew || !x.status.Ended()
				x.stale = x.stale || !x.status.Ended() && x.status != state.Pending
				r.doneAgain(x.step.ID)
			}
		}
	}
}

func (s *modelStep) end(r *modelRun, env ledger.Envelope, d *ledger.StepEnd) error {
	was, lost := s.status, s.status == state.Skipped && state.LostTurn(s.reason)
	s.ended = r.generation
	if s.open || s.child != "" || s.asked {
		return fmt.Errorf("something is under way with it")
	}
	if s.step.ForEach != nil && !s.item {
		for id, x := range r.steps {
			if x.item && x.step == s.step && !x.status.Ended() && x.status != state.Pending {
				return fmt.Errorf("its item %s is %s", id, x.status)
			}
		}
	}
	if s.count > 0 && !s.item && env.Type == ledger.StepCompleted {
		for i, x := range r.items(s) {
			if x.status != state.Completed && x.reason != state.SkippedByHand {
				return fmt.Errorf("its item %d is %s %s", i, x.status, x.reason)
			}
		}
	}
	switch env.Type {
	case ledger.StepCompleted:
		s.status, s.reason, r.begun = state.Completed, "", true
		return expect(was == state.Running && s.outcome != state.Interrupted || was == state.CheckpointPending, "it is %s", was)
	case ledger.StepFailed:
		s.status, s.reason = state.Failed, state.Code(d.ErrorCode)
		if want := s.unclear(r); want != "" && s.reason != want {
			return fmt.Errorf("it fails with %s, and below it is %s", s.reason, want)
		}
		return expect(!was.Ended(), "it is %s", was)
	case ledger.StepCancelled:
		s.status, s.reason = state.Cancelled, state.Code(d.Reason)
		return expect(!was.Ended() && (r.cancelled || r.stopping), "it is %s", was)
	}
	s.status, s.reason = state.Skipped, state.Code(d.Reason)
	if s.reason == state.SkippedByHand {
		required := s.step.Checkpoint != nil && s.step.Checkpoint.Required && !s.item
		return expect(person(env.Actor) && s.step.AllowSkip && !required && (!was.Ended() || was == state.Failed || lost), "it is %s", was)
	}
	return expect(!was.Ended(), "it is %s", was)
}

// dead is what keeps a run from going on without a person.
func (r *modelRun) dead() (code state.Code) {
	for _, x := range r.steps {
		if x.status == state.Failed && (x.reason == state.Indeterminate || x.reason == state.PoisonPill && code == "") {
			code = x.reason
		}
	}
	return code
}

// leavesSomething says whether an attempt that has ended so may have done something.
func leavesSomething(o state.Outcome) bool {
	return o == state.Succeeded || o == state.Interrupted || o == state.OutcomeCancelled
}

// once names a step that is not idempotent, cleans nothing up, and whose last attempt has
// succeeded, or was stopped.
func (r *modelRun) once() string {
	for id, x := range r.steps {
		if x.step.Action == "once" && x.ordinary && (leavesSomething(x.outcome) || x.lost) {
			return id
		}
	}
	return ""
}

// unclear is what a step that was under way must fail with, if it does: what its sub-run
// has left to people, or one of its items.
func (s *modelStep) unclear(r *modelRun) state.Code {
	if s.count == 0 || s.item {
		return s.below
	}
	for _, x := range r.items(s) {
		if x.status == state.Failed && x.reason == state.Indeterminate {
			return x.reason
		}
	}
	return ""
}

// items are those that a step has now.
func (r *modelRun) items(s *modelStep) (out []*modelStep) {
	for i := range s.count {
		x, _ := r.step(fmt.Sprintf("%s.%d", s.step.ID, i)) // there is one wherever its step is
		out = append(out, x)
	}
	return out
}

// vote is what people must agree in.
func vote(decision, back, changes string, downstream bool) string {
	return fmt.Sprint(decision, " ", back, " ", changes, " ", downstream)
}

// approval moves what people are asked.
func (s *modelStep) approval(r *modelRun, env ledger.Envelope, data any) error {
	switch d := data.(type) {
	case *ledger.ApprovalRequest:
		was := s.status
		s.status, s.asked, s.decided, s.people, s.quorum, r.begun = state.CheckpointPending, true, map[string]int{}, map[string]bool{}, d.Quorum, true
		if s.step.Plugin == nil && s.step.DAG == "" {
			s.attempt++
			if err := r.mayBegin(s); err != nil {
				return err
			}
			return expect(was == state.Pending && env.Attempt == s.attempt, "it is %s", was)
		}
		return expect(was == state.Running && !s.open && s.step.Checkpoint != nil, "it is %s", was)
	case *ledger.ApprovalDecision:
		known := s.people[state.Person(env.Actor)]
		s.people[state.Person(env.Actor)] = true
		s.decided[vote(d.Decision, d.BackTo, d.Modifications, d.Downstream)]++
		return expect(s.asked && !known && person(env.Actor), "asked is %v, and %s has decided: %v", s.asked, env.Actor, known)
	case *ledger.ApprovalClosing:
		was := s.asked
		s.asked = false
		enough := s.decided[vote(d.Decision, d.BackTo, d.Modifications, d.Downstream)]
		if d.Result == state.ApprovalApproved && enough != s.quorum {
			return fmt.Errorf("%d of %d have decided so", enough, s.quorum)
		}
		known := []string{state.ApprovalApproved, state.ApprovalRejected, state.ApprovalExpired, state.ApprovalWithdrawn}
		return expect(was && slices.Contains(known, d.Result), "it is not open, or %s", d.Result)
	case *ledger.ApprovalRefusal:
		return nil
	}
	return fmt.Errorf("no such entry: %T", data)
}
