package runner

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// stopping says whether no further ordinary step may start.
func (e *execution) stopping() bool {
	return e.run.CancelRequested() || e.run.FailRequested() || e.late || e.failing && e.dag.FailFast
}

// over says whether no step of a phase begins any more.
func (e *execution) over(p phase) bool {
	switch {
	case p == ordinary:
		return e.stopping()
	case p == onFailure:
		return e.run.CancelRequested() || e.run.NoCleanup
	}
	return e.run.Aborted
}

// cleaning says whether steps that clean up have begun.
func (e *execution) cleaning() bool {
	now := e.phaseNow()
	return now != ordinary && e.begun(now)
}

// begun says whether a phase has had its beginning: all that can begin in it does so
// together. What is to be done afresh in it has begun before; what somebody has passed
// over may have been so ahead of it.
func (e *execution) begun(p phase) bool {
	return p == ordinary || slices.ContainsFunc(e.nodes, func(n *node) bool {
		return n.phase == p && (n.status != state.Pending && n.reason != state.SkippedByHand || n.afresh && n.attempt > 0)
	})
}

// phaseNow is the group whose steps may run now: cleanup starts when every
// ordinary step has ended.
func (e *execution) phaseNow() phase {
	switch {
	case e.left > 0 || e.run.Aborted:
		return ordinary
	case e.run.CancelRequested():
		return onCancel
	case !e.run.NoCleanup && (e.run.FailRequested() || e.late || e.firstFailed() != nil || e.missed() != nil):
		return onFailure
	}
	return ordinary
}

// leave takes a step out of what is under way.
func (e *execution) leave(n *node) {
	n.round.Add(1)
	if n.live {
		n.live = false
		e.live--
	}
}

// enter counts a step among what is under way.
func (e *execution) enter(n *node) {
	if !n.live {
		n.live = true
		e.live++
	}
}

// end moves a step to its end.
func (e *execution) end(n *node, t ledger.Type, to state.Status, code state.Code, data ledger.StepEnd) {
	e.endBy("system:runner", n, t, to, code, data)
}

func (e *execution) endBy(actor string, n *node, t ledger.Type, to state.Status, code state.Code, data ledger.StepEnd) {
	if n.status == state.CheckpointPending {
		e.asked--
	}
	if n.phase == ordinary && n.parent == nil && !n.status.Ended() {
		e.left--
	}
	if data.OutputsHash == "" { // what it has given it has given, whatever became of it
		data.OutputsHash = n.outputsHash
	}
	e.ends++
	n.afresh = n.afresh && to == state.Skipped && state.LostTurn(code) // it is still to be done
	n.status, n.reason, n.order, n.now, n.outputsHash = to, code, e.ends, true, data.OutputsHash
	n.repeat = n.repeat && code != state.SkippedByHand // it was about doing it
	e.leave(n)
	switch to {
	case state.Failed:
		data.ErrorCode = string(code)
		n.why = data.Reason
		e.failing = e.failing || n.phase == ordinary && n.parent == nil && !n.settled()
	case state.Skipped, state.Cancelled:
		data.Reason = string(code)
	}
	e.proposeBy(actor, t, n, &data)
	e.todo = append(e.todo, n)
}

// queue makes a step claimable, at once or when due has come.
func (e *execution) queue(n *node, reason string, due time.Time) {
	n.status, n.due, n.after = state.Queued, due, time.Time{}
	e.swept = e.swept && !e.over(n.phase)
	e.enter(n)
	q := ledger.StepQueue{Reason: reason, Repeat: reason == "restart"}
	n.repeat = n.repeat || q.Repeat
	if !due.IsZero() {
		q.Due = stamp.Format(due)
	}
	e.propose(ledger.StepQueued, n, &q)
	e.fresh = append(e.fresh, n)
}

// begin queues what can run when a run starts or is taken up again.
func (e *execution) begin() error {
	mayBegin := e.mayBegin()
	for _, n := range e.all() {
		switch {
		case n.status == state.Queued:
			e.fresh = append(e.fresh, n)
		case n.status == state.CheckpointPending:
			e.awaitExpiry(n)
		case n.parent == nil && mayBegin(n):
			if err := e.consider(n); err != nil {
				return err
			}
		}
	}
	for _, n := range e.nodes {
		if n.status == state.Running && slices.ContainsFunc(n.items, func(x *node) bool { return x.status == state.Pending }) {
			e.feed(n)
		}
	}
	return nil
}

// consider decides about a pending step whose needs have all ended. Its error is
// a fault of ours.
func (e *execution) consider(n *node) error {
	if !n.mayFollow(map[*node]bool{}) {
		e.end(n, ledger.StepSkipped, state.Skipped, state.UpstreamFailed, ledger.StepEnd{})
		return nil
	}
	if e.over(n.phase) {
		e.swept = false // the sweep takes it
		return nil
	}
	if n.step.Disabled {
		e.end(n, ledger.StepSkipped, state.Skipped, state.StepDisabled, ledger.StepEnd{})
		return nil
	}
	if x := e.prog.when[n.step.ID]; x != nil {
		v, err := x.eval(context.Background(), e.scope(n, x.names))
		ok, isBool := v.(bool)
		if err == nil && !isBool {
			err = fmt.Errorf("it gives a value of type %s", typeName(v))
		}
		switch {
		case err != nil:
			e.end(n, ledger.StepFailed, state.Failed, state.ExpressionInvalid, ledger.StepEnd{Reason: clip("when: " + err.Error())})
			return nil
		case !ok:
			e.end(n, ledger.StepSkipped, state.Skipped, state.ConditionFalse, ledger.StepEnd{})
			return nil
		}
	}
	switch {
	case n.step.ForEach != nil:
		return e.expand(n)
	case n.gate():
		n.attempt++
		e.ask(n)
		return nil
	}
	e.queue(n, "ready", n.after)
	return nil
}

// acted is called when the action of a step has succeeded, whoever did it: with a
// checkpoint people are asked next, unless the run is ending, else the step is done.
func (e *execution) acted(n *node, outputsHash string) {
	n.outputsHash = outputsHash
	asks := n.step.Checkpoint != nil && n.parent == nil
	switch {
	case asks && e.over(n.phase):
		e.giveUp(n)
		return
	case asks:
		e.ask(n)
		return
	}
	e.end(n, ledger.StepCompleted, state.Completed, "", ledger.StepEnd{OutputsHash: outputsHash})
}

// advance draws every consequence of what has ended, up to the end of the run.
func (e *execution) advance() error {
	for !e.ended.Load() {
		for len(e.todo) > 0 {
			n := e.todo[0]
			e.todo = e.todo[1:]
			if err := e.follow(n); err != nil {
				return err
			}
		}
		if e.stopping() && !e.swept {
			e.sweep()
		}
		if len(e.todo) > 0 {
			continue
		}
		if e.live > 0 || e.asked > 0 || e.lingering() {
			return nil
		}
		more, err := e.finish()
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// follow looks at what waited for a step that has ended. The step may have been
// taken back since.
func (e *execution) follow(n *node) error {
	if !n.status.Ended() {
		return nil
	}
	if n.parent != nil {
		return e.itemEnded(n.parent, n)
	}
	return e.tell(n)
}

// tell looks at what comes after a step that is over: what waits may begin, and what had
// ended before, and stayed so while something before it was done again, is over, too.
func (e *execution) tell(n *node) error {
	if n.over || n.waiting > 0 {
		return nil
	}
	n.over = true
	for _, d := range n.dependents {
		var err error
		switch d.waiting--; {
		case d.waiting > 0:
		case d.status.Ended():
			err = e.tell(d)
		case d.status == state.Pending && (d.phase == ordinary || d.phase == e.phaseNow() && e.begun(d.phase)):
			err = e.consider(d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stir lets what comes after a step that is to be done again wait for it.
func (n *node) stir() {
	if !n.over {
		return
	}
	n.over = false
	for _, d := range n.dependents {
		d.waiting++
		d.stir()
	}
}

// sweep ends what has not started and may not any more. Cleanup that has not had its
// beginning needs no end.
func (e *execution) sweep() {
	e.swept = true
	ends := map[phase]bool{}
	for _, p := range []phase{ordinary, onFailure, onCancel} {
		ends[p] = e.over(p) && e.begun(p)
	}
	for _, n := range e.nodes {
		if !ends[n.phase] {
			continue
		}
		for _, item := range n.items {
			e.sweepOne(item)
		}
		e.sweepOne(n)
	}
}

func (e *execution) sweepOne(n *node) {
	switch {
	case n.claimed:
		return
	case n.status == state.CheckpointPending:
		e.closeApproval(n, "system:runner", ledger.ApprovalClosing{Result: state.ApprovalWithdrawn})
	case n.status != state.Pending && n.status != state.Queued:
		return
	}
	e.giveUp(n)
}

// giveUp ends a step that has not had its turn, since the run is ending.
func (e *execution) giveUp(n *node) {
	switch {
	case e.run.CancelRequested():
		e.end(n, ledger.StepCancelled, state.Cancelled, state.RunCancelled, ledger.StepEnd{})
	case e.late && n.phase == ordinary:
		e.end(n, ledger.StepSkipped, state.Skipped, state.RunTimeout, ledger.StepEnd{})
	default:
		e.end(n, ledger.StepSkipped, state.Skipped, state.RunFailing, ledger.StepEnd{})
	}
}

// scope is what expressions that name these things see at this moment: of the
// steps only those that they name, or, where they use the variable as a whole, all
// that had ended before n began.
func (e *execution) scope(n *node, named names) Scope {
	steps := make(map[string]any, len(named.steps))
	see := func(of *node) { steps[of.id] = of.view() }
	if named.whole {
		for _, id := range e.prog.before(n) {
			see(e.byID[id])
		}
	}
	for _, id := range named.steps {
		if of := e.byID[id]; of != nil {
			see(of)
		}
	}
	s := Scope{Inputs: e.inputs, Steps: steps, Run: map[string]any{
		"runId": e.run.RunID, "dagId": e.run.DAGID, "dagVersion": e.run.DAGVersion, "tenant": e.run.Tenant,
		"createdUtc": e.run.CreatedUTC, "runToken": e.run.RunToken,
	}}
	if n != nil && n.parent != nil {
		s.Item, s.Index = n.item, int64(n.index)
	}
	return s
}

// view is a step as expressions see it.
func (n *node) view() map[string]any {
	outputs, artifacts := n.outputs, n.artifacts
	if outputs == nil {
		outputs = map[string]any{}
	}
	if artifacts == nil {
		artifacts = map[string]any{}
	}
	return map[string]any{"status": string(n.status), "outputs": outputs, "artifacts": artifacts}
}

// invalidate makes a step pending again, with what has become of its items. The
// caller sees to it that nothing of it is under way.
func (e *execution) invalidate(actor string, n *node, d ledger.StepInvalidation) {
	if n.status == state.Pending {
		allowed := d.Repeat && !n.repeat && n.attempt > 0
		given := d.Overlay != "" && d.Overlay != n.overlay && (n.parent == nil || n.overlay != "") // else it has that of its step
		if !allowed && !given {
			return
		}
		if d.After == "" && !n.after.IsZero() {
			d.After = stamp.Format(n.after)
		}
	}
	if n.status == state.CheckpointPending {
		e.closeApproval(n, actor, ledger.ApprovalClosing{Result: state.ApprovalWithdrawn})
		e.asked--
	}
	if n.phase == ordinary && n.parent == nil && n.status.Ended() {
		e.left++
	}
	e.leave(n)
	d.Leaves = n.former
	e.proposeBy(actor, ledger.StepInvalidated, n, &d)
	n.status, n.reason, n.now, n.outputs, n.artifacts, n.outputsHash = state.Pending, "", false, nil, nil, ""
	n.failures, n.interruptions, n.infra, n.due, n.child, n.approval, n.again = 0, 0, 0, time.Time{}, "", nil, false
	n.claimed = false // who is about to begin it would begin with what was evaluated before
	n.after, n.afresh, n.repeat = stampOrZero(d.After), state.Afresh(d.Reason, n.afresh), n.repeat || d.Repeat
	if d.Overlay != "" {
		n.overlay = d.Overlay
	}
	n.stir()
}

// reconsider looks again at what may run now, after steps were made pending, and items of
// those that go on.
func (e *execution) reconsider(goOn ...*node) error {
	e.swept = false
	e.failing = false
	for _, n := range e.nodes {
		e.failing = e.failing || n.phase == ordinary && n.status == state.Failed && n.now && !n.settled()
	}
	for _, n := range goOn {
		e.feed(n)
	}
	mayBegin := e.mayBegin()
	for _, n := range e.nodes {
		if mayBegin(n) {
			if err := e.consider(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayBegin returns what says whether a step is to be considered: an ordinary one, or
// one that cleans up once that has begun.
func (e *execution) mayBegin() func(*node) bool {
	now := e.phaseNow()
	if !e.begun(now) {
		now = ordinary
	}
	return func(n *node) bool {
		return (n.phase == ordinary || n.phase == now) && n.status == state.Pending && n.waiting == 0
	}
}

// fault names the run in an error of ours.
func (e *execution) fault(what string, err error) error {
	return fmt.Errorf("runner: run %s: %s: %w", e.runID, what, err)
}
