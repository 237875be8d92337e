package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// maxNotes bounds what somebody says about a decision, in bytes.
const maxNotes = 4096

// ask lets people decide what becomes of a step whose action is done, or of a
// gate, which has none.
func (e *execution) ask(n *node) {
	c := n.step.Checkpoint
	question := c.Question
	if t := e.prog.questions[n.step.ID]; t != nil {
		v, err := t.eval(context.Background(), e.scope(n, t.named()))
		if err != nil {
			e.end(n, ledger.StepFailed, state.Failed, state.ExpressionInvalid, ledger.StepEnd{Reason: clip("question: " + err.Error())})
			return
		}
		question = asText(v)
	}
	req := ledger.ApprovalRequest{
		Generation: e.run.Generation, PlanHash: e.run.PlanHash, Question: clip(question), Approvers: c.Approvers, Quorum: max(1, c.Quorum),
		ExcludeStarter: c.ExcludeStarter, Required: c.Required, OutputsHash: n.outputsHash, Options: []ledger.ApprovalOption{},
	}
	for _, o := range c.Options {
		req.Options = append(req.Options, ledger.ApprovalOption{Label: o.Label, Decision: o.Decision})
	}
	if len(c.Options) == 0 {
		req.Options = []ledger.ApprovalOption{{Label: "continue", Decision: "continue"}, {Label: "retry", Decision: "retry"}, {Label: "abort", Decision: "abort"}}
	}
	if c.Expires > 0 {
		req.Expires = stamp.Format(e.r.opt.Now().Add(c.Expires))
	}
	e.leave(n)
	e.asked++
	n.status = state.CheckpointPending
	n.approval = &state.Approval{Attempt: n.attempt, Request: req, Status: state.ApprovalPending}
	e.propose(ledger.ApprovalRequested, n, &req)
	if !e.detached {
		e.awaitExpiry(n)
	}
}

// awaitExpiry closes an approval when its time is over.
func (e *execution) awaitExpiry(n *node) {
	at := stampOrZero(n.approval.Request.Expires)
	if at.IsZero() {
		return
	}
	attempt := n.attempt
	e.after(max(0, at.Sub(e.r.opt.Now())), func() {
		if e.r.hold() != nil {
			return // we are ending; whoever goes on looks at it again
		}
		defer e.r.release()
		if err := e.r.within(e, func() error { return e.expire(n, attempt) }); err != nil {
			e.r.fail(err)
		}
	}, nil)
}

func (e *execution) expire(n *node, attempt int) error {
	if e.ended.Load() || n.status != state.CheckpointPending || n.attempt != attempt {
		return nil
	}
	e.closeApproval(n, "system:runner", ledger.ApprovalClosing{Result: state.ApprovalExpired})
	return e.reject(n, "system:runner", state.ApprovalTimedOut, "nobody decided in time")
}

// closeApproval ends the waiting; what becomes of the step is for the caller.
func (e *execution) closeApproval(n *node, actor string, d ledger.ApprovalClosing) {
	if n.approval == nil {
		return // a decision has closed it
	}
	e.proposeBy(actor, ledger.ApprovalClosed, n, &d)
	n.approval = nil
}

// reject ends a run whose approval was refused or has expired: the step fails,
// and the run is cancelled.
func (e *execution) reject(n *node, actor string, code state.Code, why string) error {
	e.end(n, ledger.StepFailed, state.Failed, code, ledger.StepEnd{})
	if !e.run.CancelRequested() {
		e.requestCancel(ledger.RunCancelRequested, actor, fmt.Sprintf("approval of step %s: %s", n.id, why))
	}
	return e.r.commit(e)
}

// Decision is what one person says about an approval. PlanHash and Attempt say
// what it is about.
type Decision struct {
	StepID        string
	Attempt       int
	PlanHash      string
	Actor         string
	Decision      string // continue | retry | abort
	Option        string // label of the option that was chosen, "" if none was named
	BackTo        string // of retry: the step to go back to, "" for the step itself
	Downstream    bool   // of retry: also what else was built on that step, beside the way back to this one
	Repeat        bool   // of retry: also what is not idempotent
	Notes         string
	Modifications json.RawMessage // a merge patch (RFC 7396), of the outputs with continue and of the parameters with retry
}

// A DecisionError is a decision that does not count. It is on record.
type DecisionError struct {
	Code string // ALREADY_DECIDED | STALE | NOT_APPROVER | STARTER_EXCLUDED | APPROVAL_EXPIRED
	Text string
}

func (e *DecisionError) Error() string { return "runner: " + e.Text }

// Decide records what one person decides, and once enough have said the same, what
// follows from it. A decision that does not count is a *[DecisionError]; one that
// makes no sense is a *[RequestError].
func (r *Runner) Decide(o Opened, d Decision) (state.Run, error) {
	return r.operate(o, func(e *execution) error {
		n := e.find(d.StepID)
		if n == nil {
			return &RequestError{Text: "run " + e.runID + " has no step " + d.StepID}
		}
		refusal, err := e.refuseDecision(n, d)
		if err != nil {
			return err
		}
		if refusal != nil {
			attempt := n.attempt
			n.attempt = d.Attempt
			e.proposeBy(d.Actor, ledger.ApprovalRefused, n, &ledger.ApprovalRefusal{Decision: d.Decision, Code: refusal.Code, Notes: clipTo(d.Notes, maxNotes)})
			n.attempt = attempt
			if refusal.Code == string(state.ApprovalTimedOut) && n.status == state.CheckpointPending {
				return errors.Join(e.expire(n, n.attempt), refusal) // nobody was there when its time was over
			}
			return errors.Join(r.record(e), refusal)
		}
		return e.decideBy(n, d)
	})
}

// refuseDecision says why a decision does not count, nil if it does. The error is
// a fault of ours.
func (e *execution) refuseDecision(n *node, d Decision) (*DecisionError, error) {
	a := n.approval
	open := n.status == state.CheckpointPending && a != nil && !e.ended.Load()
	switch {
	case !open && n.reason == state.ApprovalTimedOut && d.Attempt == n.attempt:
		return &DecisionError{string(state.ApprovalTimedOut), fmt.Sprintf("the approval of step %s has expired: nobody decided in time", n.id)}, nil
	case !open || d.Attempt < n.attempt:
		return &DecisionError{"ALREADY_DECIDED", fmt.Sprintf("the approval of step %s, attempt %d, is closed: the step is %s", n.id, d.Attempt, n.status)}, nil
	case d.Attempt != n.attempt || d.PlanHash != a.Request.PlanHash:
		return &DecisionError{"STALE", fmt.Sprintf("the decision is about attempt %d of plan %s; what waits is attempt %d of plan %s", d.Attempt, d.PlanHash, n.attempt, a.Request.PlanHash)}, nil
	}
	if at := stampOrZero(a.Request.Expires); !at.IsZero() && !at.After(e.r.opt.Now()) {
		return &DecisionError{string(state.ApprovalTimedOut), fmt.Sprintf("the approval of step %s has expired at %s", n.id, a.Request.Expires)}, nil
	}
	if len(a.Request.Approvers) > 0 && !slices.ContainsFunc(a.Request.Approvers, func(p string) bool { return p == d.Actor || p == state.Person(d.Actor) }) {
		return &DecisionError{"NOT_APPROVER", fmt.Sprintf("%s is not one of the approvers %v", d.Actor, a.Request.Approvers)}, nil
	}
	if a.Request.ExcludeStarter {
		starters, err := e.starters()
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(starters, func(p string) bool { return state.Person(p) == state.Person(d.Actor) }) {
			return &DecisionError{"STARTER_EXCLUDED", d.Actor + " started the run, or had it started; somebody else must decide"}, nil
		}
	}
	for _, made := range a.Decisions {
		if state.Person(made.Actor) == state.Person(d.Actor) {
			return &DecisionError{"ALREADY_DECIDED", d.Actor + " has decided " + made.Decision + " already"}, nil
		}
	}
	return nil, nil
}

// starters are who started the run, and for whom; of a sub-run, those of the run that
// it is a part of.
func (e *execution) starters() ([]string, error) {
	run := e.run
	for run.ParentRunID != "" {
		var err error
		if run, err = e.r.opt.Store.Run(run.ParentRunID); err != nil {
			return nil, e.fault("who started it", err)
		}
	}
	return run.Starters(), nil
}

// ruling is a decision that counts, with all that it needs sealed.
type ruling struct {
	rec         ledger.ApprovalDecision
	outputs     map[string]any // that continue has changed, nil where it has not
	outputsHash string         // of these
	again       redone         // what retry begins again
}

// rule makes ready what a decision does, and refuses one that makes no sense. It seals
// before anything is decided: a disk may be full.
func (e *execution) rule(n *node, d Decision) (x ruling, err error) {
	if err := e.checkDecision(n, d); err != nil {
		return x, err
	}
	x.rec = ledger.ApprovalDecision{Decision: d.Decision, Option: d.Option, BackTo: d.BackTo, Downstream: d.Downstream, Repeat: d.Repeat, Notes: clipTo(d.Notes, maxNotes), PlanHash: d.PlanHash}
	var patch []byte
	if len(d.Modifications) > 0 {
		if patch, err = patchOf("modifications", d.Modifications); err != nil {
			return x, err
		}
		x.rec.Modifications = Hash(patch)
		if x.outputs, err = e.modified(n, d, patch); err != nil {
			return x, err
		}
	}
	if d.Decision == "retry" {
		x.again, err = e.decide(choice{about: []*node{n, e.backTo(n, d)}, repeat: d.Repeat, whole: true}, func(again redone) { e.afterRewind(again, n, d, x.rec.Modifications) }, func(again redone) error {
			return e.rewindTwice(n, d, again)
		})
		if err != nil {
			return x, err
		}
	}
	if x.outputs != nil {
		if x.outputsHash, err = e.r.seal(x.outputs, state.ContractViolation); err != nil {
			return x, err
		}
	}
	if patch != nil {
		_, err = e.r.opt.Sealed.Put(patch)
	}
	return x, err
}

// decideBy takes a decision that counts.
func (e *execution) decideBy(n *node, d Decision) error {
	x, err := e.rule(n, d)
	if err != nil {
		return err
	}
	e.proposeBy(d.Actor, ledger.ApprovalDecided, n, &x.rec)
	a := *n.approval
	a.Decisions = append(slices.Clone(a.Decisions), state.Decision{Actor: d.Actor, ApprovalDecision: x.rec})
	n.approval = &a
	agree := 0
	for _, made := range a.Decisions {
		if made.Decision == d.Decision && made.BackTo == d.BackTo && made.Downstream == d.Downstream && made.Repeat == d.Repeat && made.Modifications == x.rec.Modifications {
			agree++
		}
	}
	if d.Decision != "abort" && agree < a.Request.Quorum { // one who says abort is enough
		return e.r.commit(e)
	}
	return e.resolve(n, d.Actor, x)
}

// checkDecision says whether a decision makes sense.
func (e *execution) checkDecision(n *node, d Decision) error {
	offered := func(o ledger.ApprovalOption) bool {
		return o.Decision == d.Decision && (d.Option == "" || o.Label == d.Option)
	}
	if !slices.ContainsFunc(n.approval.Request.Options, offered) {
		return &RequestError{Text: fmt.Sprintf("step %s offers no decision %q", n.id, strings.TrimSpace(d.Decision+" "+d.Option))}
	}
	if len(d.Modifications) > 0 && d.Decision == "abort" {
		return &RequestError{Text: "there is nothing to modify in what is aborted"}
	}
	switch {
	case (d.BackTo != "" || d.Downstream) && d.Decision != "retry":
		return &RequestError{Text: "only retry goes back to a step, and does again what comes after it"}
	case d.Decision != "retry":
		return nil
	}
	return e.checkRewind(n, d)
}

// modified applies the modifications of a continue to the outputs, checked
// against the action's schema. Those of a retry are held against what the step that is
// gone back to takes; it has none of its own.
func (e *execution) modified(n *node, d Decision, patch []byte) (map[string]any, error) {
	if d.Decision == "retry" {
		return nil, e.checkOverlay(e.backTo(n, d), patch)
	}
	v, err := decodeJSON(patch)
	if err != nil {
		return nil, &RequestError{Text: "modifications: " + err.Error()}
	}
	if err := e.tells(n, "what is modified", patch); err != nil {
		return nil, err
	}
	before, _ := n.outputs.(map[string]any)
	if before == nil {
		before = map[string]any{}
	}
	out, _ := mergePatch(before, v).(map[string]any)
	return out, e.r.checkOutputs(n, out)
}

// resolve does what enough people have decided.
func (e *execution) resolve(n *node, actor string, x ruling) error {
	d := x.rec
	closing := ledger.ApprovalClosing{Result: state.ApprovalApproved, Decision: d.Decision, BackTo: d.BackTo, Downstream: d.Downstream, Modifications: d.Modifications}
	if d.Decision == "abort" {
		closing.Result = state.ApprovalRejected
	}
	e.closeApproval(n, actor, closing)
	switch d.Decision {
	case "abort":
		return e.reject(n, actor, state.ApprovalRefused, "rejected by "+actor)
	case "retry":
		if err := e.reconsider(e.beginAgain(actor, x.again)...); err != nil {
			return err
		}
	default:
		end := ledger.StepEnd{OutputsHash: n.outputsHash}
		if x.outputs != nil {
			n.outputs, end.OutputsHash, end.Overridden = x.outputs, x.outputsHash, true
		}
		e.endBy(actor, n, ledger.StepCompleted, state.Completed, "", end)
	}
	return e.r.commit(e)
}

// downstream are the steps that need one of these, directly or not, without these.
func (e *execution) downstream(steps ...*node) []*node {
	seen := make(map[*node]bool, len(steps))
	for _, n := range steps {
		seen[n] = true
	}
	var out []*node
	for todo := slices.Clone(steps); len(todo) > 0; todo = todo[1:] {
		for _, d := range todo[0].dependents {
			if !seen[d] {
				seen[d] = true
				out = append(out, d)
				todo = append(todo, d)
			}
		}
	}
	return out
}

// clipTo cuts text to at most n bytes, at the start of a rune.
func clipTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for ; s[n]&0xC0 == 0x80; n-- {
	}
	return s[:n]
}

// mergePatch applies a JSON merge patch (RFC 7396). Neither argument is changed.
func mergePatch(to, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	if t, ok := to.(map[string]any); ok {
		for k, v := range t {
			out[k] = v
		}
	}
	for k, v := range p {
		if v == nil {
			delete(out, k)
			continue
		}
		out[k] = mergePatch(out[k], v)
	}
	return out
}
